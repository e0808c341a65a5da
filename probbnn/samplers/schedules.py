"""Cyclical step sizes: warm restarts that explore, then sample (cSG-MCMC)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from probbnn.errors import InputError, is_positive

__all__ = ["Cyclical"]


@dataclass(frozen=True)
class Cyclical:
    """A step size that restarts at ``peak`` and falls along a half cosine, over and over.

    At step t, with r = (t mod L)/L the part of the cycle that is over,

        h = peak/2 · (cos(πr) + 1).

    While r < ``exploration`` a kernel adds no noise and descends to a mode; after that it samples
    at its temperature, and only positions of that phase are kept by `probbnn.sample`. Give it to
    any kernel in place of a step size. The draws of one cycle lie around one mode: how much
    weight each mode gets depends on where the descents end, not on the posterior.

    Source: Zhang, Li, Zhang, Chen & Wilson (2020), "Cyclical stochastic gradient MCMC for Bayesian
    deep learning", eq. 1 and algorithm 1. Their α₀ is an ε = 2h.

    Attributes:
        peak: h at the start of each cycle.
        cycle_length: L, in steps.
        exploration: β, the part of a cycle without noise, at least 0 and less than 1.

    Raises:
        InputError: if a number is outside its range.

    Examples:
        >>> schedule = Cyclical(peak=0.1, cycle_length=1_000, exploration=0.75)
        >>> [round(float(schedule(step)), 3) for step in (0, 250, 500, 1_000)]
        [0.1, 0.085, 0.05, 0.1]
        >>> bool(schedule.is_sampling(749)), bool(schedule.is_sampling(750))
        (False, True)
        >>> list(schedule.sampling_phases(2_500))
        [(750, 1000), (1750, 2000)]
    """

    peak: float
    cycle_length: int
    exploration: float = 0.8

    def __post_init__(self) -> None:
        if not is_positive(self.peak):
            raise InputError(f"peak is {self.peak}; a step size must be positive and finite")
        if not isinstance(self.cycle_length, int) or self.cycle_length < 2:
            raise InputError(
                f"cycle_length is {self.cycle_length}; it must be a whole number, at least 2"
            )
        if not 0 <= self.exploration < 1:
            raise InputError(
                f"exploration is {self.exploration}; it must be at least 0 and less than 1"
            )

    @property
    def _first_sampling_step(self) -> int:
        # A hair less, since 0.1 · 30 is more than 3 in floating point.
        first = math.ceil(self.exploration * self.cycle_length - 1e-6)
        return min(first, self.cycle_length - 1)

    def __call__(self, step: Any) -> Any:
        """The step size h at ``step``, counted from 0."""
        done = (step % self.cycle_length) / self.cycle_length
        return 0.5 * self.peak * (jnp.cos(jnp.pi * done) + 1)

    def is_sampling(self, step: Any) -> Any:
        """Whether ``step`` adds noise."""
        return step % self.cycle_length >= self._first_sampling_step

    def sampling_phases(self, num_steps: int) -> Iterator[tuple[int, int]]:
        """Numbers of steps taken at the start and at the end of each phase that samples."""
        for start in range(0, num_steps, self.cycle_length):
            first = start + self._first_sampling_step
            if first < num_steps:
                yield first, min(start + self.cycle_length, num_steps)
