"""A run from a state to its end: chunk after chunk, watched, saved, and stopped when it is time."""

import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from tqdm.auto import tqdm

from probbnn.inference.directory import SamplingDirectory
from probbnn.inference.draws import Draws, named
from probbnn.inference.runner import DivergenceError, Run, RunState, advance, finish, restart
from probbnn.inference.signals import deferred, interruption
from probbnn.posterior.base import Posterior
from probbnn.types import Collector, Position

__all__ = ["Observer", "Until", "run_to_end"]

# What looks at the chains on their way may take this part of the time, and looks no more often than
# this, in seconds.
_OBSERVING_SHARE = 0.01
_OBSERVING_SECONDS = 2.0


class Observer(Protocol):
    """Describes the chains on their way."""

    def collectors(self, target: Posterior) -> Mapping[str, Collector]:
        """What it needs to have collected, by name."""
        ...

    def describe(self, target: Posterior, draws: Draws) -> Mapping[str, float]:
        """A few numbers by name, of the draws so far."""
        ...


class Until(Observer, Protocol):
    """Says when a run has gone on for long enough; `str` says what it waits for.

    Attributes:
        looks: what it found at each look so far, a word each; a run that is resumed has those of
            before.
    """

    looks: list[str]

    def reached(self, target: Posterior, draws: Draws) -> str:
        """Why the run can stop now, ``""`` if it is to go on, seeing the draws of a whole look."""
        ...

    def spent(self, steps: int, seconds: float) -> str:
        """What there is no more of, ``""`` while there is some."""
        ...


def run_to_end(
    run: Run,
    state: RunState,
    *,
    callback: Callable[[int, Position], None] | None = None,
    until: Until | None = None,
    observer: Observer | None = None,
    directory: SamplingDirectory | None = None,
    checkpoint_seconds: float,
    progress: bool,
    looks: Sequence[str] = (),
) -> Draws:
    """Go on until all steps are taken, or as long as ``until`` says; see `probbnn.sample`.

    ``looks`` are those that ``until`` has taken before.
    """
    if until is not None:
        until.looks = list(looks)
    watch = _Watch(run, observer or until, directory, progress)
    # The first state is on disk by the first chunk, and that of a resumed run was before.
    saved, is_saved = time.monotonic(), True
    stopped = ""
    try:
        with deferred() as signal_came, watch:
            if directory is not None:
                directory.begin(run, state)
            while True:
                if run.is_finished(state):
                    if until is None:
                        break
                    stopped = until.reached(run.target, finish(run, state))
                    if stopped:
                        break
                    run, state = _further(run, state)
                    watch.run = run
                before = int(state.clock.step)
                state, is_saved = advance(run, state), False
                step = int(state.clock.step)
                if callback is not None and step in run.plan.stops:
                    # A copy, because the next chunk is given the state's memory.
                    callback(step, jax.tree.map(jnp.copy, state.positions))
                watch(state, step - before)
                elapsed = state.seconds + state.compile_seconds
                number = signal_came()
                stopped = "" if until is None else until.spent(step, elapsed)
                is_due = time.monotonic() - saved >= checkpoint_seconds
                if directory is not None and (
                    is_due or number or stopped or step == run.plan.num_warmup
                ):
                    directory.save(run, state, looks=_looks(until))
                    saved, is_saved = time.monotonic(), True
                if number:
                    raise _stopped_by(number, run, state)
                if stopped and int(state.clock.num_draws):
                    break
        if directory is not None:
            if stopped or not is_saved:
                directory.save(run, state, stopped, _looks(until))
            directory.end("finished")
    except BaseException as error:
        if directory is not None:
            directory.end(_status(error))
        raise
    finally:
        if directory is not None:
            directory.close()
    draws = replace(finish(run, state), stopped=stopped)
    if draws.excluded:
        warnings.warn(
            f"{run.name}: left out, because they became non-finite: {named(draws.excluded)}; a "
            "smaller step size keeps them",
            stacklevel=3,
        )
    return draws


def _looks(until: Until | None) -> Sequence[str]:
    return () if until is None else until.looks


def _status(error: BaseException) -> str:
    if isinstance(error, DivergenceError):
        return "diverged"
    return "interrupted" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"


def _further(run: Run, state: RunState) -> tuple[Run, RunState]:
    """Twice as many steps, of which the second half is kept."""
    done = run.plan.num_steps
    plan = replace(run.plan, num_steps=2 * done, phases=((done, 2 * done),))
    run = replace(run, plan=plan)
    return run, restart(run, state)


def _stopped_by(number: int, run: Run, state: RunState) -> BaseException:
    error = interruption(number)
    if int(state.clock.num_draws):
        error.draws = finish(run, state)
    return error


def _somebody_looks() -> bool:
    """Whether stderr is a terminal, or a notebook's cell."""
    return sys.stderr.isatty() or type(sys.stderr).__module__.startswith("ipykernel")


class _Watch:
    """The progress bar, and the file that says where the run is."""

    def __init__(
        self,
        run: Run,
        observer: Observer | None,
        directory: SamplingDirectory | None,
        progress: bool,
    ) -> None:
        self.run = run
        self._observer = observer
        self._directory = directory
        self._bar = tqdm(
            total=run.plan.num_steps,
            desc=run.name,
            unit="step",
            disable=not (progress and _somebody_looks()),
        )
        self._next = time.monotonic() + _OBSERVING_SECONDS

    def __enter__(self) -> None:
        self._bar.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def __call__(self, state: RunState, steps: int) -> None:
        self._bar.total = self.run.plan.num_steps
        self._bar.update(steps)
        if time.monotonic() < self._next:
            return
        started = time.monotonic()
        seen: Mapping[str, float] = {}
        if self._observer is not None and int(state.clock.num_draws):
            seen = self._observer.describe(self.run.target, finish(self.run, state))
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in seen.items()})
        if self._directory is not None:
            step, num_steps = int(state.clock.step), self.run.plan.num_steps
            self._directory.note_progress(
                step=step,
                num_steps=num_steps,
                num_draws=int(state.clock.num_draws),
                steps_per_second=state.rate,
                seconds=state.seconds + state.compile_seconds,
                seconds_left=(num_steps - step) / state.rate if state.rate else None,
                **seen,
            )
        took = time.monotonic() - started
        self._next = time.monotonic() + max(_OBSERVING_SECONDS, took / _OBSERVING_SHARE)
