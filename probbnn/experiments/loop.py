"""The methods of an experiment, one after another, none of which can stop the others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from probbnn.errors import InputError, OutputError, first_line, writing_to
from probbnn.experiments.method import MethodResult, Sampling, run_method
from probbnn.experiments.setup import Setup
from probbnn.inference.runner import DivergenceError

__all__ = ["Failure", "Keeper", "run_methods"]


@dataclass(frozen=True)
class Failure:
    """Why a method did not finish.

    Attributes:
        reason: one line.
        diverged: whether the chains became non-finite, rather than anything else.
        refused: whether it was not even begun.
    """

    reason: str
    diverged: bool
    refused: bool = False

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """What an exception says, by its name if it is none of ours."""
        ours = isinstance(error, DivergenceError | InputError)
        reason = first_line(error) if ours else f"{type(error).__name__}: {first_line(error)}"
        return cls(reason, isinstance(error, DivergenceError), isinstance(error, InputError))


class Keeper(Protocol):
    """Where results go as they come.

    Attributes:
        path: the directory.
    """

    path: Path

    def add(self, result: MethodResult) -> None:
        """Keep a method that finished."""

    def add_failure(self, name: str, failure: Failure) -> None:
        """Keep that a method did not finish, or that its result could not be added."""


def run_methods(
    setup: Setup,
    seed: int,
    keeper: Keeper,
    sampling: Sampling,
    *,
    names: Sequence[str] | None = None,
    log: Callable[[str], None] = lambda line: None,
    check: Callable[[], None] = lambda: None,
) -> tuple[list[MethodResult], dict[str, str]]:
    """Run all methods of an experiment on the same log density.

    Whatever a method raises, a bug in its library included, is its own affair and does not stop
    the others.

    Args:
        setup: the experiment.
        seed: seed of all random keys.
        keeper: is given each result as it comes.
        sampling: how they are sampled.
        names: only these; default: all.
        log: called with one line at each stage.
        check: called between methods; raises where the run is to end.

    Returns:
        The results of those that finished, in order, and for the others the reason by name.

    Raises:
        OutputError: if there is no way to write any more. What was written is still there.
    """
    results, failures = [], {}
    for name in setup.methods if names is None else names:
        check()
        planned = setup.methods[name]
        log(f"{planned.run.label}: {planned}")
        try:
            with writing_to(keeper.path):
                result = run_method(setup, seed, name, sampling)
                keeper.add(result)
            results.append(result)
        except OutputError:
            raise
        except Exception as error:
            check()  # it may be what a library made of an interruption
            failure = Failure.of(error)
            failures[name] = failure.reason
            log(f"{name} failed: {failure.reason}")
            keeper.add_failure(name, failure)
    check()
    return results, failures
