"""What every method returns: draws of the parameters, and how they came about."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np

from probbnn.types import Position, PyTree

__all__ = ["Draws"]


@dataclass(frozen=True)
class Draws:
    """Draws of a network's parameters from one method.

    `probbnn.to_datatree` makes an ArviZ tree of them, `probbnn.predict` predictions.

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

    def _some(self, which: slice) -> "Draws":
        return replace(
            self,
            positions=jax.tree.map(lambda leaf: leaf[:, which], self.positions),
            sample_stats={name: stat[:, which] for name, stat in self.sample_stats.items()},
            draw_steps=None if self.draw_steps is None else self.draw_steps[which],
            passes=None if self.passes is None else self.passes[which],
        )
