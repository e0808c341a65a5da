"""What every method returns: draws of the parameters, and how they came about."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

import jax
import numpy as np

from probbnn.errors import InputError, one_of
from probbnn.inference.archive import read_archive, write_archive
from probbnn.tree import check_structure
from probbnn.types import Position, PyTree

__all__ = ["Draws", "concatenate", "named"]


@dataclass(frozen=True, repr=False)
class Draws:
    """Draws of a network's parameters from one method.

    `probbnn.to_datatree` makes an ArviZ tree of them, `probbnn.predict` predictions.
    `save` writes them to a file, `load` reads them; `probbnn.concatenate` joins those of two runs.

    Attributes:
        positions: pytree of NumPy arrays of shape ``(chain, draw, …)``, or of `StoredArray`, which
            read from disk what is asked of them; ``None`` where the run did not keep them.
        method: name of the method.
        temperature: T of the stationary distribution: 1 is the posterior; ``None`` for point
            estimates, which sample nothing, and where a ready-made kernel does not say.
        sample_stats: per-draw statistics of shape ``(chain, draw)``, for instance the minibatch
            estimate of the log density and the norm of its gradient.
        trace: the same statistics along the way, warm-up included, of evenly spaced steps, shape
            ``(chain, point)``.
        trace_steps: number of the step, counted from 1, of each point, ``(point,)``.
        draw_steps: number of steps taken at each draw, shape ``(draw,)``, where known.
        noise_gain: how gradient noise heats each coordinate, per unit of step size, as
            `Kernel.noise_gain` has it at the last step: leaves of shape ``(chain, …)``; ``None``
            where it is unknown.
        passes: gradient evaluations up to each draw, of all chains and warm-up included, in units
            of passes over all the data, shape ``(draw,)``; ``None`` where they were not counted.
        settings: the settings that the method ran with.
        seconds: wall time of the steps, compilation apart.
        compile_seconds: wall time of tracing and compilation.
        collected: what the collectors given to `sample` kept of all its draws, by name.
        excluded: chains that left the finite numbers and are no part of all this, and the step at
            which each did. The chains that are left are numbered anew, in order.
    """

    positions: Position
    method: str
    temperature: float | None = None
    sample_stats: Mapping[str, np.ndarray] = field(default_factory=dict)
    trace: Mapping[str, np.ndarray] = field(default_factory=dict)
    trace_steps: np.ndarray | None = None
    draw_steps: np.ndarray | None = None
    noise_gain: PyTree = None
    passes: np.ndarray | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    compile_seconds: float = 0.0
    collected: Mapping[str, Any] = field(default_factory=dict)
    excluded: Mapping[int, int] = field(default_factory=dict)
    stopped: str = ""

    def __repr__(self) -> str:
        parts = [self.method, f"{self.num_chains} chains of {self.num_draws} draws"]
        if self.positions is not None:
            sizes = (int(np.prod(leaf.shape[2:])) for leaf in jax.tree.leaves(self.positions))
            parts.append(f"{sum(sizes):,} parameters")
        if self.temperature is not None:
            parts.append(f"T = {self.temperature:g}")
        if self.excluded:
            parts.append(f"without {len(self.excluded)} chains that became non-finite")
        return f"Draws({', '.join(parts)})"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the draws to one file, which `load` reads, such as ``"draws.npz"``.

        What collectors kept (`collected`) is not written, and settings that JSON has no word for,
        such as a schedule, as their ``repr``.

        Raises:
            InputError: if the file cannot be written, or positions are in other containers than
                dicts, lists and tuples.

        Examples:
            >>> import numpy as np, os, tempfile
            >>> path = os.path.join(tempfile.mkdtemp(), "draws.npz")
            >>> Draws({"w": np.ones((2, 5, 3))}, "by hand").save(path)
            >>> Draws.load(path)
            Draws(by hand, 2 chains of 5 draws, 3 parameters)
        """
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        trees = {name: content[name] for name in _TREES}
        # Mappings of any kind as plain ones; their values are arrays.
        trees |= {name: dict(trees[name]) for name in ("sample_stats", "trace")}
        record = {k: v for k, v in content.items() if k not in (*_TREES, "collected")}
        write_archive(path, trees, record)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Draws":
        """The draws that `save` wrote.

        Raises:
            InputError: if there is no such file, or it is damaged.
        """
        trees, record = read_archive(path)
        excluded = {int(chain): step for chain, step in record.pop("excluded").items()}
        return cls(**trees, **record, excluded=excluded)

    @property
    def num_chains(self) -> int:
        """Number of chains (or ensemble members)."""
        return self._shape[0]

    @property
    def num_draws(self) -> int:
        """Number of draws per chain."""
        return self._shape[1]

    @property
    def _shape(self) -> tuple[int, ...]:
        known = self.positions if self.positions is not None else dict(self.sample_stats)
        return jax.tree.leaves(known)[0].shape

    def first(self, number: int) -> "Draws":
        """The first draws of each chain alone."""
        return self._some(slice(number))

    def last(self) -> "Draws":
        """The last draw of each chain alone."""
        return self._some(slice(-1, None))

    def at(self, numbers: np.ndarray, positions: Position) -> "Draws":
        """Some of the draws of each chain, by their numbers, with positions kept apart of them."""
        return replace(replace(self, positions=None)._some(numbers), positions=positions)

    def _some(self, which: Any) -> "Draws":
        return replace(
            self,
            positions=jax.tree.map(lambda leaf: leaf[:, which], self.positions),
            sample_stats={name: stat[:, which] for name, stat in self.sample_stats.items()},
            draw_steps=None if self.draw_steps is None else self.draw_steps[which],
            passes=None if self.passes is None else self.passes[which],
        )


def named(excluded: Mapping[int, int]) -> str:
    """Chains and the step at which each left the finite numbers, in words.

    Examples:
        >>> named({0: 12, 3: 1_500})
        'chain 0 at step 12, chain 3 at step 1,500'
    """
    return ", ".join(f"chain {chain} at step {step:,}" for chain, step in excluded.items())


_TREES = (
    "positions",
    "sample_stats",
    "trace",
    "trace_steps",
    "draw_steps",
    "noise_gain",
    "passes",
)

Along = Literal["chain", "draw"]
"""Whether runs are joined side by side, or one behind the other."""


def concatenate(*draws: Draws, along: Along = "chain") -> Draws:
    """The draws of several runs as those of one.

    Args:
        draws: of the same network, at the same temperature.
        along: ``"chain"``: more chains, of runs with as many draws each; ``"draw"``: longer
            chains, of runs with as many chains, each of which goes on where the one before ended.

    Returns:
        Their draws and statistics, and settings where all agree. A trace, and what was counted
        from a run's start, only where all runs have it for the same steps.

    Raises:
        InputError: if there are none, or they do not fit each other.

    Examples:
        >>> import numpy as np
        >>> one = Draws({"w": np.ones((2, 5, 3))}, "sgld", temperature=1.0)
        >>> concatenate(one, one), concatenate(one, one, along="draw").num_draws
        (Draws(sgld, 4 chains of 5 draws, 3 parameters, T = 1), 10)
    """
    one_of(along, get_args(Along), "along")
    for one in draws:
        if not isinstance(one, Draws):
            raise InputError(f"a {type(one).__name__} was given; concatenate takes Draws")
    if not draws:
        raise InputError("there is nothing to concatenate; give the draws of two runs")
    first = draws[0]
    for other in draws[1:]:
        _check_alike(first, other, along)
    axis = ("chain", "draw").index(along)

    def join(*leaves: Any) -> np.ndarray:
        return np.concatenate([np.asarray(leaf) for leaf in leaves], axis=axis)

    stats = [name for name in first.sample_stats if all(name in d.sample_stats for d in draws)]
    side_by_side = along == "chain"
    same_trace = side_by_side and _all_equal([d.trace_steps for d in draws])
    same_settings = {
        name: value
        for name, value in first.settings.items()
        if all(_all_equal([value, d.settings.get(name)]) for d in draws[1:])
    }
    passes = [d.passes for d in draws if d.passes is not None]
    is_counted = side_by_side and len(passes) == len(draws)
    gains = [d.noise_gain for d in draws]
    has_gains = side_by_side and all(gain is not None for gain in gains)
    return Draws(
        positions=None
        if first.positions is None
        else jax.tree.map(join, *(d.positions for d in draws)),
        method=" + ".join(dict.fromkeys(d.method for d in draws)),
        temperature=first.temperature,
        sample_stats={name: join(*(d.sample_stats[name] for d in draws)) for name in stats},
        trace={n: join(*(d.trace[n] for d in draws)) for n in first.trace} if same_trace else {},
        trace_steps=first.trace_steps if same_trace else None,
        draw_steps=first.draw_steps
        if side_by_side and _all_equal([d.draw_steps for d in draws])
        else None,
        noise_gain=jax.tree.map(join, *gains) if has_gains else None,
        passes=np.sum(passes, axis=0) if is_counted else None,
        settings=same_settings,
        seconds=sum(d.seconds for d in draws),
        compile_seconds=sum(d.compile_seconds for d in draws),
    )


def _check_alike(first: Draws, other: Draws, along: Along) -> None:
    if (first.positions is None) != (other.positions is None):
        raise InputError("some of the runs kept no positions; concatenate those that did")
    if first.temperature != other.temperature:
        raise InputError(
            f"draws at T = {first.temperature} and at T = {other.temperature} are of different "
            "distributions; concatenate those of one temperature"
        )
    check_structure(other.positions, first.positions)
    same = 1 if along == "chain" else 0
    for one, two in zip(
        jax.tree.leaves(first.positions), jax.tree.leaves(other.positions), strict=True
    ):
        if one.shape[2:] != two.shape[2:] or one.shape[same] != two.shape[same]:
            what = "draws" if along == "chain" else "chains"
            raise InputError(
                f"draws have leaves of shape {one.shape} and {two.shape}; along={along!r} needs "
                f"the same network and as many {what} of each run"
            )


def _all_equal(values: list[Any]) -> bool:
    return all(np.array_equal(values[0], value) for value in values[1:])
