"""A run: the methods of an experiment on one log density, written to a run directory.

A run directory holds

- ``run.json``: every setting, package versions, device, seed, data fingerprints, timings;
- ``metrics.json``: all metrics with their intervals, diagnostics and verdict, method by method;
- ``draws.nc``: an `xarray.DataTree` with one ArviZ tree per method (``tree["psgld"]``);
- ``figures/``: each figure as PNG and PDF;
- ``report.html`` and ``report.md``: all of it on one page, made from the first three alone.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    """

    experiment: Experiment
    directory: Path
    methods: list[MethodResult]
    metrics: Mapping[str, Any]
    failures: Mapping[str, str]


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

    Examples:
        >>> import tempfile, numpy as np, probbnn as pb
        >>> x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
        >>> train, test = (x[:40], x[:40].argmax(1)), (x[40:], x[40:].argmax(1))
        >>> mine = pb.Experiment(
        ...     "mine",
        ...     pb.MLP(hidden=(4,), num_outputs=3),
        ...     train,
        ...     test,
        ...     methods={"sgld": pb.MethodRun(num_chains=2, num_steps=40)},
        ... )
        >>> with tempfile.TemporaryDirectory() as out:
        ...     result = pb.run(mine, out, progress=False)
        ...     print(sorted(path.name for path in result.directory.glob("*.*")))
        ['draws.nc', 'metrics.json', 'report.html', 'report.md', 'run.json']
    """
    if isinstance(experiment, str):
        experiment = find_preset(experiment)
    path, setup = begin(experiment, out, seed, data_dir, progress=progress)
    with RunDirectory(path, setup, seed) as directory:
        results, failures = run_methods(
            setup, seed, directory, judged=True, progress=progress, log=log
        )
        log("figures and report")
        _write_figures(path, results)
    from probbnn.report.page import write_report

    write_report([path])
    return RunResult(setup.experiment, path, results, directory.metrics.to_dict(), failures)


def _write_figures(directory: Path, results: list[MethodResult]) -> None:
    from probbnn.report import figures

    folder = directory / "figures"
    folder.mkdir()

    def save(figure: Any, *names: str) -> None:
        # Labels of the user's own may hold anything.
        figures.save(figure, folder / re.sub(r"[^\w-]+", "-", "-".join(names)))

    for result in results:
        metrics, shown = result.metrics, result.metrics.predictive
        for label, by_predictive in metrics.sets.items():
            thresholds = by_predictive[shown].thresholds
            if thresholds is not None:
                title = f"{result.label} ({shown.replace('_', ' ')}): {label}"
                figure = figures.accuracy_vs_confidence_figure(thresholds, title)
                save(figure, "acc-vs-conf", result.label, *() if label == "test" else (label,))
        if metrics.uncertainty is not None:
            figure = figures.uncertainty_figure(metrics.uncertainty.to_dict(), result.label)
            save(figure, "entropy", result.label)
    bins = {r.label: r.metrics.reliability for r in results if r.metrics.reliability is not None}
    if bins:
        save(figures.reliability_figure(bins), "reliability")
    risks = {
        r.label: r.metrics.risk_coverage for r in results if r.metrics.risk_coverage is not None
    }
    if risks:
        save(figures.risk_coverage_figure(risks), "risk-coverage")
    # What is fitted has no log density along the way.
    traces = {
        r.label: r.draws.trace["logdensity"] for r in results if "logdensity" in r.draws.trace
    }
    if traces:
        save(figures.trace_figure(traces, "Log density"), "log-density")
