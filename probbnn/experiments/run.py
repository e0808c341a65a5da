"""A run: the methods of an experiment on one log density, written to a run directory.

A run directory holds

- ``run.json``: every setting, package versions, device, seed, data fingerprints, timings;
- ``metrics.json``: all metrics with their intervals, diagnostics and verdict, method by method;
- ``draws.nc``: an `xarray.DataTree` with one ArviZ tree per method (``tree["psgld"]``);
- ``figures/``: each figure as PNG and PDF;
- ``report.html`` and ``report.md``: all of it on one page, made from the first three alone.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probbnn.errors import first_line
from probbnn.experiments.directory import RunDirectory
from probbnn.experiments.experiment import Experiment
from probbnn.experiments.loop import run_methods
from probbnn.experiments.method import MethodResult
from probbnn.experiments.presets import Preset, find_preset
from probbnn.experiments.setup import begin

__all__ = ["RunResult", "run"]


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
    experiment: Experiment | Preset | str,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Run all methods of an experiment on the same log density.

    Results are written as each method finishes; a method that fails, for whatever reason, is
    recorded and does not stop the others.

    Args:
        experiment: what to run: your own, or the name of a preset.
        out: the run directory; it must not exist, or be empty.
        seed: seed of all random keys: same seed, same machine, same result.
        data_dir: see `probbnn.load`; of a preset.
        progress: show progress bars where stderr is a terminal.
        log: called with one line at each stage, such as ``print``.

    Raises:
        InputError: if the directory holds anything or cannot be written, data are missing, or
            settings do not fit. Nothing has been computed then, and nothing is left behind.
    """
    if isinstance(experiment, str):
        experiment = find_preset(experiment)
    path, setup = begin(experiment, out, seed, data_dir, progress=progress)
    with RunDirectory(path, setup, seed) as directory:
        results, failures = run_methods(
            setup, seed, directory, judged=True, progress=progress, log=log
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
