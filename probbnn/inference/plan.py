"""Which steps a run takes, and after which of them it keeps a draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from probbnn.errors import InputError

__all__ = ["Plan", "check_length"]

# A chunk is at most this many steps, and about this many seconds.
_CHUNK_STEPS = 2_000
_CHUNK_SECONDS = 1.0


@dataclass(frozen=True)
class Plan:
    """The steps of a run. How they are cut into chunks has no influence on the result.

    Attributes:
        num_steps: number of steps in all, warm-up included.
        num_warmup: first steps, from which no draw is kept.
        thinning: steps from one draw to the next.
        phases: where draws are kept, by the number of steps taken at the start and at the end of
            each phase, in order; ``None``: from the end of warm-up to the end.
        stops: numbers of steps after which something looks at the run.

    Raises:
        InputError: if the numbers leave no draw.
    """

    num_steps: int
    num_warmup: int
    thinning: int
    phases: tuple[tuple[int, int], ...] | None = None
    stops: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_length(self.num_steps, self.num_warmup, self.thinning)
        phases = self.phases
        if phases is None:
            phases = ((self.num_warmup, self.num_steps),)
        phases = tuple((max(start, self.num_warmup), end) for start, end in phases)
        phases = tuple((start, end) for start, end in phases if end - start >= self.thinning)
        if not phases:
            raise InputError(
                f"no phase of {self.num_steps} steps samples for {self.thinning} steps, one draw's "
                f"worth, after a warm-up of {self.num_warmup}; take more steps, shorter cycles or "
                "less thinning"
            )
        object.__setattr__(self, "phases", phases)

    @property
    def _sampling(self) -> tuple[tuple[int, int], ...]:
        assert self.phases is not None  # since __post_init__
        return self.phases

    @property
    def draw_steps(self) -> np.ndarray:
        """Numbers of steps taken at each draw: every ``thinning`` steps of each phase."""
        return np.concatenate(
            [
                np.arange(start + self.thinning, end + 1, self.thinning)
                for start, end in self._sampling
            ]
        )

    @property
    def num_draws(self) -> int:
        """Number of draws."""
        return sum((end - start) // self.thinning for start, end in self._sampling)

    def keeps(self, step: int) -> bool:
        """Whether the position after ``step`` steps is a draw."""
        return any(
            start < step <= end and (step - start) % self.thinning == 0
            for start, end in self._sampling
        )

    def next_chunk(self, step: int, rate: float) -> tuple[int, int]:
        """(count, interval): what to run next is ``count`` intervals.

        Either each of them ends in a draw, or none does. ``rate`` is in steps per second, 0 when
        nothing is known yet.
        """
        max_steps = min(_CHUNK_STEPS, max(1, int(rate * _CHUNK_SECONDS)))
        stops = self._next_stop(step) - step
        start = next((start for start, end in self._sampling if start <= step < end), None)
        if start is None:
            return 1, min(stops, max_steps)
        to_next_draw = self.thinning - (step - start) % self.thinning
        if to_next_draw == self.thinning and min(stops, max_steps) >= self.thinning:
            return min(stops, max_steps) // self.thinning, self.thinning
        return 1, min(stops, max_steps, to_next_draw)

    def _next_stop(self, step: int) -> int:
        boundaries: Sequence[int] = [boundary for phase in self._sampling for boundary in phase]
        all_stops = (*boundaries, *self.stops, self.num_warmup, self.num_steps)
        return min(stop for stop in all_stops if stop > step)


def check_length(num_steps: int, num_warmup: int, thinning: int) -> None:
    """Raise `InputError` unless so many steps leave a draw after warm-up."""
    if num_steps < 1 or thinning < 1:
        raise InputError(
            f"num_steps is {num_steps} and thinning {thinning}; both must be at least 1"
        )
    if thinning > num_steps:
        raise InputError(
            f"thinning is {thinning} of {num_steps} steps, which leaves no draw; it can be "
            f"{num_steps} at most"
        )
    if not 0 <= num_warmup <= num_steps - thinning:
        raise InputError(
            f"num_warmup is {num_warmup} of {num_steps} steps with thinning {thinning}; it must "
            f"leave at least one draw, so it can be 0 to {num_steps - thinning}"
        )
