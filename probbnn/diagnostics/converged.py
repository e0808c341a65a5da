"""Chains on their way: what they look like so far, and whether they have gone on for long enough.

The verdict's own rules decide when a run is long enough. Looking many times gives chance as many
occasions, and chains that have not left the region where they started may look as if there were no
other; so a verdict of converged counts once the next look confirms it, at steps that the one before
has not seen. `benchmarks/stopping.py` measures how often that is wrong.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
import xarray as xr

from probbnn.datatree import tree_of
from probbnn.diagnostics import ranks
from probbnn.diagnostics.diagnosis import diagnose
from probbnn.diagnostics.mixing import mixing_of
from probbnn.diagnostics.result import Convergence
from probbnn.diagnostics.temperature import TemperatureMeters, measure_temperature
from probbnn.diagnostics.trees import Quantities
from probbnn.diagnostics.verdict import Verdict, judge
from probbnn.errors import InputError
from probbnn.follow import Follow
from probbnn.inference.collectors import Thinned
from probbnn.inference.draws import Draws
from probbnn.inference.thinning import capacity_for
from probbnn.posterior.base import Posterior
from probbnn.posterior.flax import LogDensity
from probbnn.samplers.registry import LINES, find_method
from probbnn.subsample import evenly_spaced, random_subset
from probbnn.types import Collector, Position

__all__ = ["Converged", "Look", "Watching", "converged", "kept_draws"]

# Draws of which the positions are kept for the temperature: as many as this memory holds, of all
# chains, within these numbers for each.
_KEPT = "kept draws"
_KEPT_BYTES = 2**27
_KEPT_DRAWS = (4, 512)
# Values, and draws of each chain, that tell how a run is getting on.
_NUM_DESCRIBED = 50
_NUM_MEASURED = 4
_NUM_PROBES = 100
# Verdicts that more steps do not change.
_FINAL = ("converged", "biased by minibatch noise or step size")


class Watching:
    """Describes chains on their way, by what is followed of them.

    Args:
        probes: inputs at which the network is followed, an array or named sets; default: 100
            training examples.
        follow: what is followed, in place of that.
        num_chains: how many chains there are, which decides how many positions are kept.
        rng_key: for the noise of minibatches.
    """

    def __init__(
        self,
        probes: Any = None,
        *,
        follow: Follow | None = None,
        num_chains: int = 4,
        rng_key: jax.Array | None = None,
    ) -> None:
        self._probes = probes
        self._follow = follow
        self._num_chains = num_chains
        self._rng_key = rng_key

    def collectors(self, target: Posterior) -> Mapping[str, Collector]:
        """What is followed, and some of the draws themselves."""
        if self._follow is None:
            self._follow = _default_follow(target, self._probes)
        shapes = jax.eval_shape(target.init, jax.random.key(0))
        size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
        wanted = _KEPT_BYTES // max(1, self._num_chains * size)
        capacity = capacity_for(int(np.clip(wanted, *_KEPT_DRAWS)))
        return {**self._follow.collectors, _KEPT: Thinned(_itself, capacity)}

    def describe(self, target: Posterior, draws: Draws) -> Mapping[str, float]:
        """Median R-hat, smallest ESS and configurational temperature so far, of a few values."""
        followed = self.follow.collected(draws)
        name = "probes" if "probes" in followed else "parameters"
        numbers, found = followed[name]
        leaves = [x.reshape(*x.shape[:2], -1) for x in jax.tree.leaves(found)]
        values = np.concatenate(leaves, axis=-1)
        if len(numbers) < ranks.MIN_DRAWS:
            return {}
        some = values[..., evenly_spaced(values.shape[-1], _NUM_DESCRIBED)]
        mixing = mixing_of(Quantities([""] * some.shape[-1], some))
        described = {}
        if mixing.num_varying:
            described["median R-hat"] = float(np.nanmedian(mixing.rhat))
            described["smallest ESS"] = float(np.nanmin(mixing.ess))
        kept = kept_draws(draws)
        if draws.temperature is not None and kept.num_draws > 1:
            meters = measure_temperature(
                jax.random.key(0), target, kept, num_draws=_NUM_MEASURED * draws.num_chains
            )
            described["temperature"] = meters.configurational.value
        return described

    @property
    def follow(self) -> Follow:
        """What is followed."""
        if self._follow is None:
            raise InputError("nothing is followed yet: give this to a call of sample first")
        return self._follow

    def look(self, target: Posterior, draws: Draws) -> "Look":
        """The tree of what was followed, the temperature, and the verdict where there is one.

        Args:
            target: what was sampled.
            draws: what came of it.
        """
        given = self.follow
        kept = kept_draws(draws)
        numbers, _ = draws.collected[_KEPT]
        meters = None
        if draws.temperature is not None and _is_chain(draws.method):
            key = jax.random.key(0) if self._rng_key is None else self._rng_key
            meters = measure_temperature(key, target, kept)
        follow, followed = given.at_the_boundary(given.collected(draws))
        along = followed["parameters"].numbers
        tree = tree_of(
            follow,
            followed,
            replace(draws, positions=kept.positions),
            None if meters is None else _among(meters, numbers, along),
        )
        return Look(tree, kept, meters)


class Look(NamedTuple):
    """What there is to see of a run.

    Attributes:
        tree: the ArviZ tree of what was followed.
        kept: the draws whose positions were kept.
        meters: the temperature, of a Markov chain that has one.
    """

    tree: xr.DataTree
    kept: Draws
    meters: TemperatureMeters | None

    def judged(self) -> tuple[Convergence, Verdict]:
        """Diagnostics and verdict."""
        convergence = diagnose(self.tree)
        return convergence, judge(convergence, self.meters, self.kept.settings)


class Converged(Watching):
    """Goes on until the verdict is *converged*; see `converged`."""

    def __init__(
        self,
        *args: Any,
        max_steps: int | None = None,
        max_seconds: float | None = None,
        confirmed: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.looks: list[str] = []
        self._max_steps = max_steps
        self._max_seconds = max_seconds
        self._confirmed = confirmed

    def reached(self, target: Posterior, draws: Draws) -> str:
        """See `probbnn.inference.loop.Until`."""
        _, verdict = self.look(target, draws).judged()
        held = self.looks[-1:] == [verdict.label] or not self._confirmed
        self.looks.append(verdict.label)
        if not held or verdict.label not in _FINAL:
            return ""
        what = "converged" if verdict.label == "converged" else f"{verdict.label}, which stays"
        times = " at two looks in a row" if self._confirmed else ""
        return f"{what}{times}, {len(self.looks)} in all"

    def spent(self, steps: int, seconds: float) -> str:
        """See `probbnn.inference.loop.Until`."""
        if self._max_steps is not None and steps >= self._max_steps:
            return f"the budget of {self._max_steps:,} steps was spent"
        if self._max_seconds is not None and seconds >= self._max_seconds:
            return f"the budget of {self._max_seconds:,g} seconds was spent"
        return ""

    def __str__(self) -> str:
        return "converged"


def converged(
    probes: Any = None,
    *,
    max_steps: int | None = None,
    max_seconds: float | None = None,
    num_chains: int = 4,
) -> Converged:
    """What `probbnn.sample` takes as ``until`` to go on until the verdict is *converged*.

    The rules are those of `probbnn.judge`, on what the chains say at the probes and on the
    temperature. The first look is after ``num_steps``, each later one after twice as many steps,
    at the second half of them; a run stops when two looks in a row say *converged*, since looking
    often gives chance many occasions. It also stops when two say that it is biased, which more
    steps do not mend, and when a budget is spent. `Draws.stopped` says which it was.

    Args:
        probes: inputs at which the network is followed, an array or named sets; default: 100
            training examples. Without a network, it is the parameters that are judged.
        max_steps: budget of steps per chain, warm-up included.
        max_seconds: budget of time, compilation included.
        num_chains: how many chains there are, which decides how many positions are kept for the
            temperature.

    Raises:
        InputError: if a budget is not positive.

    Examples:
        >>> import jax, numpy as np, probbnn as pb
        >>> x = np.random.default_rng(0).normal(size=(50, 2)).astype("float32")
        >>> y = x @ np.array([1.0, -1.0], "float32")
        >>> linear = (lambda key, x: np.zeros(2, "float32"), lambda w, x: x @ w)
        >>> target = pb.LogDensity(linear, (x, y), likelihood=pb.Gaussian(0.5))
        >>> draws = pb.sample(
        ...     jax.random.key(0), target, "nuts", num_steps=1_000, until=pb.converged(),
        ...     progress=False,
        ... )
        >>> draws.stopped
        'converged at two looks in a row, 2 in all'
    """
    for name, value in (("max_steps", max_steps), ("max_seconds", max_seconds)):
        if value is not None and not value > 0:
            raise InputError(f"{name} is {value}; it must be positive")
    return Converged(probes, max_steps=max_steps, max_seconds=max_seconds, num_chains=num_chains)


def kept_draws(draws: Draws) -> Draws:
    """The draws whose positions were kept, and their statistics."""
    numbers, positions = draws.collected[_KEPT]
    return draws.at(numbers, positions)


def _is_chain(name: str) -> bool:
    """Whether a method's draws are a Markov chain's; a ready-made kernel's are taken to be."""
    return name not in LINES or find_method(name).is_markov_chain()


def _itself(position: Position) -> Position:
    return position


def _default_follow(target: Posterior, probes: Any) -> Follow:
    if isinstance(probes, Mapping) or probes is None:
        sets = dict(probes or {})
    else:
        sets = {"probe": probes}
    if not sets and isinstance(target, LogDensity):
        some = target.data.gather(random_subset(target.data_size, _NUM_PROBES))
        sets = {"train": np.asarray(some.inputs)}
    return Follow.of(target, sets)


def _among(meters: TemperatureMeters, kept: np.ndarray, numbers: np.ndarray) -> TemperatureMeters:
    """The same, their statistics at all draws that are followed, NaN where there are none."""
    at = np.searchsorted(numbers, kept)
    stats = {}
    for name, values in meters.sample_stats.items():
        stats[name] = np.full((len(values), len(numbers)), np.nan)
        stats[name][:, at] = values
    return replace(meters, sample_stats=stats)
