"""A run: the methods of an experiment on one log density, written to a run directory.

A run directory holds

- ``run.json``: every setting, package versions, device, seed, data fingerprints, timings;
- ``metrics.json``: all metrics with their intervals, diagnostics and verdict, method by method;
- ``draws.nc``: an `xarray.DataTree` with one ArviZ tree per method (``tree["psgld"]``);
- ``methods/``: a directory for each method, from which it goes on, see `probbnn.sample`;
- ``figures/``: each figure as PNG and PDF;
- ``report.html`` and ``report.md``: all of it on one page, made from the first three alone.
"""

import os
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from probbnn.errors import InputError, first_line, writing_to
from probbnn.experiments.customise import Request, asked_for
from probbnn.experiments.directory import RunDirectory, data_of
from probbnn.experiments.experiment import Experiment
from probbnn.experiments.loop import run_methods
from probbnn.experiments.method import MethodResult, Sampling
from probbnn.experiments.presets import Preset
from probbnn.experiments.records import RunRecord, read
from probbnn.experiments.setup import Setup, begin, prepare
from probbnn.files import plain
from probbnn.inference.sample import CHECKPOINT_SECONDS
from probbnn.inference.signals import interruptible

__all__ = ["RunResult", "resume_run", "run"]


@dataclass(frozen=True, eq=False)
class RunResult:
    """A finished run.

    Attributes:
        experiment: what ran.
        directory: the run directory.
        methods: results in the order of the experiment, without those that failed.
        metrics: the content of ``metrics.json``.
        failures: method name → one line that says why it failed.
        report: the page, ``None`` if it could not be written.
    """

    experiment: Experiment
    directory: Path
    methods: list[MethodResult]
    metrics: Mapping[str, Any]
    failures: Mapping[str, str]
    report: Path | None


def run(
    experiment: Experiment | Preset | Request | str,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    until_converged: float | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    progress: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Run all methods of an experiment on the same log density.

    Results are written as each method finishes; a method that fails, for whatever reason, is
    recorded and does not stop the others. Whatever ends it, `resume_run` goes on from there.

    Args:
        experiment: what to run: your own, or the name of a preset, or a `Request` for one.
        out: the run directory; it must not exist, or be empty.
        seed: seed of all random keys: same seed, same machine, same result.
        data_dir: see `probbnn.load`; of a preset.
        until_converged: let each Markov chain go on until its verdict is *converged*, for this many
            seconds at most; see `probbnn.converged`.
        checkpoint_seconds: from one checkpoint to the next; see `probbnn.sample`.
        progress: show progress bars where stderr is a terminal.
        log: called with one line at each stage, such as ``print``.

    Raises:
        InputError: if the directory holds anything or cannot be written, data are missing, or
            settings do not fit. Nothing has been computed then, and nothing is left behind.
        OutputError: if results cannot be written any more.
    """
    request = None
    if isinstance(experiment, str | Request):
        request = Request(experiment) if isinstance(experiment, str) else experiment
        experiment = asked_for(request)
    if until_converged is not None and not until_converged > 0:
        raise InputError(f"until_converged is {until_converged} seconds; it must be positive")
    with interruptible() as check:
        path, setup = begin(experiment, out, seed, data_dir, progress=progress)
        directory = RunDirectory.begin(path, setup, seed, request=request, budget=until_converged)
        sampling = Sampling(checkpoint_seconds=checkpoint_seconds, progress=progress)
        return _run(directory, setup, sampling, None, log, check)


def resume_run(
    directory: str | os.PathLike[str],
    experiment: Experiment | Preset | None = None,
    *,
    more_steps: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    force: bool = False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    progress: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Go on with a run that something ended, or make a finished one longer.

    Methods that had finished stay as they are, the one that was interrupted goes on from its newest
    checkpoint, and the others follow: on the same machine, with the same versions, the result is
    bit for bit that of a run that was never interrupted.

    Args:
        directory: of the run.
        experiment: what was run, if it was made in Python; a preset is on record.
        more_steps: make each method longer by so many steps per chain. Those that cannot be, such
            as fits and step sizes that follow a schedule, keep their result.
        data_dir: see `probbnn.load`; of a preset.
        force: go on although versions or machine have changed, which changes the draws to come.
        checkpoint_seconds: from one checkpoint to the next.
        progress: show progress bars where stderr is a terminal.
        log: called with one line at each stage, such as ``print``.

    Returns:
        The run, with the results of those methods alone that went on.

    Raises:
        InputError: if there is no such run, data or experiment are not what they were, or another
            process is at work on it.
        OutputError: if results cannot be written any more.
    """
    path = Path(directory).expanduser()
    if more_steps < 0:
        raise InputError(f"more_steps is {more_steps}; it must be at least 1")
    record = read(RunRecord, path)
    if record is None:
        raise InputError(f"{path} holds no run: there is no run.json that can be read")
    with interruptible() as check:
        setup = _setup_again(path, record, experiment, data_dir, progress)
        more = (record.more_steps or 0) + more_steps
        home = RunDirectory.open(path, setup, record, more_steps=more or None)
        if more_steps:
            home.again(list(setup.methods))
        names = home.unfinished
        sampling = Sampling(
            more_steps=more,
            force=force,
            checkpoint_seconds=checkpoint_seconds,
            progress=progress,
        )
        return _run(home, setup, sampling, names, log, check)


def _run(
    directory: RunDirectory,
    setup: Setup,
    sampling: Sampling,
    names: Sequence[str] | None,
    log: Callable[[str], None],
    check: Callable[[], None],
) -> RunResult:
    path, record = directory.path, directory.record
    sampling = replace(sampling, home=path / "methods", budget=record.budget)
    with writing_to(path), directory:
        results, failures = run_methods(
            setup, record.seed or 0, directory, sampling, names=names, log=log, check=check
        )
    from probbnn.report.page import write_report

    log("figures and report")
    try:
        report = write_report([path])
    except Exception as error:
        # The results are on disk by now, and the page is made from them alone.
        report = None
        log(f"no report: {first_line(error)}; the results are kept, see `probbnn report {path}`")
    return RunResult(setup.experiment, path, results, directory.metrics.to_dict(), failures, report)


def _setup_again(
    path: Path,
    record: RunRecord,
    experiment: Experiment | Preset | None,
    data_dir: str | os.PathLike[str] | None,
    progress: bool,
) -> Setup:
    """The experiment of a run that goes on, which must be what it was.

    Raises:
        InputError: if it is not.
    """
    if experiment is None:
        if record.request is None:
            raise InputError(
                f"{path} is a run of an experiment made in Python; give it to "
                "probbnn.resume_run(directory, experiment)"
            )
        experiment = asked_for(record.request)
    if isinstance(experiment, Preset):
        experiment = experiment.load(data_dir, progress=progress)
    setup = prepare(experiment)
    now, before = plain(data_of(setup)), plain(dict(record.data))
    for label in {**before, **now}:
        if now.get(label) != before.get(label):
            raise InputError(
                f"{path} was begun with other data ({label}: {before.get(label)}, now "
                f"{now.get(label)}); give the same"
            )
    asked, was = plain(setup.record), plain(record.experiment)
    for name, value in was.items():
        if asked[name] != value:
            raise InputError(
                f"{path} was begun with another {name} ({_short(value)}, now "
                f"{_short(asked[name])}); give the same experiment, or run it anew"
            )
    return setup


def _short(value: Any) -> str:
    return textwrap.shorten(str(value), 80, placeholder="…")
