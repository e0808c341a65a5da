"""A run: the methods of a preset on one log density, written to a run directory as they finish.

A run directory holds

- ``run.json``: every setting, package versions, device, seed, data fingerprints, timings;
- ``metrics.json``: all metrics with their intervals, diagnostics and verdict, method by method;
- ``draws.nc``: an `xarray.DataTree` with one ArviZ tree per method (``tree["psgld"]``);
- ``figures/``: each figure as PNG and PDF;
- ``report.html`` and ``report.md``: all of it on one page, made from the first three alone.
"""

import os
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import numpy as np

from probbnn.data import Dataset
from probbnn.diagnostics import (
    TemperatureMeters,
    diagnose,
    diverged,
    judge,
    measure_temperature,
)
from probbnn.experiments.experiment import MethodRun
from probbnn.experiments.presets import Preset
from probbnn.experiments.setup import begin, check_method, sample_method
from probbnn.files import environment, write_json, written_atomically
from probbnn.inference.draws import Draws
from probbnn.inference.runner import DivergenceError
from probbnn.metrics import (
    Evaluation,
    Reliability,
    RiskCoverage,
    accuracy,
    evaluate,
    evaluate_ood,
    reliability,
    risk_coverage,
)
from probbnn.posterior.flax import LogDensity
from probbnn.predictive import Predictive, predict
from probbnn.samplers.base import Kernel
from probbnn.samplers.registry import find_method

if TYPE_CHECKING:
    import xarray

__all__ = ["MethodResult", "RunResult", "run"]

# Inputs of the test set, of the boundary between its classes, and of each out-of-distribution set
# at which the function is followed.
_NUM_PROBES = 20
# What is drawn of a curve over all test inputs, and of a distribution.
_NUM_POINTS = 200
_NUM_BINS = 30
# "val" of the notebook: that many first training examples.
_NUM_TRAIN_CURVE = 10_000
# Draws of all chains that the temperature is measured on: a minute of MNIST's full-data gradients.
_NUM_METER_DRAWS = 40


@dataclass(frozen=True)
class MethodResult:
    """What one method of a run came to.

    Attributes:
        method: its name.
        label: what tables and figures call it.
        predictives: the `Predictive` on ``"test"`` and on each out-of-distribution set, by label.
        evaluations: the `Evaluation` of each of them, by label and name of the predictive.
        metrics: what ``metrics.json`` holds for the method.
        draws: its draws.
        tree: their ArviZ tree, with probes and held-out examples.
    """

    method: str
    label: str
    predictives: Mapping[str, Predictive]
    evaluations: Mapping[str, Mapping[str, Evaluation]]
    metrics: Mapping[str, Any]
    draws: Draws
    tree: "xarray.DataTree"


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        preset: the preset that ran, with all changes made to it.
        directory: the run directory.
        methods: results in the order of the preset, without those that failed.
        metrics: the content of ``metrics.json``.
        failures: method name → one line that says why it failed.
    """

    preset: Preset
    directory: Path
    methods: list[MethodResult]
    metrics: Mapping[str, Any]
    failures: Mapping[str, str]


def run(
    preset: Preset,
    directory: str | os.PathLike[str],
    *,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Run all methods of a preset on the same log density.

    Results are written as each method finishes; a method whose chains diverge is recorded and
    does not stop the others.

    Args:
        preset: what to run.
        directory: where to write; it must not exist, or be empty.
        seed: seed of all random keys.
        data_dir: see `probbnn.load`.
        progress: show progress bars where stderr is a terminal.
        report: called with one line at each stage.

    Raises:
        InputError: if the directory holds anything or cannot be written, data are missing, or
            settings do not fit. Nothing has been computed then, and nothing is left behind.
    """
    started = time.perf_counter()
    directory, problem = begin(preset, directory, seed, data_dir, progress=progress)
    target = problem.target
    # The presets' networks are classifiers.
    train, test = cast(Dataset, problem.train), cast(Dataset, problem.test)
    ood = cast(Mapping[str, Dataset], problem.ood)
    record = _Record(directory, preset, seed, {"train": train, "test": test, **ood})
    results, failures = [], {}
    try:
        for name, method in preset.methods.items():
            report(f"{method.label}: {_describe(name, method)}")
            # The key belongs to the name, so that draws do not depend on the method's company.
            key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
            curve = _LearningCurve(target, train, test, preset, method.num_steps)
            start_key, sample_key = jax.random.split(key)
            # Methods that run whole chains have no moment to look at.
            stops = isinstance(check_method(target, name, method, preset.batch_size), Kernel)
            try:
                draws = sample_method(
                    sample_key,
                    target,
                    name,
                    method,
                    preset.batch_size,
                    initial_positions=_common_start(start_key, target, method),
                    callback=curve.measure if stops else None,
                    callback_steps=curve.steps if stops else (),
                    progress=progress,
                )
            except DivergenceError as error:
                failures[name] = str(error)
                record.add_failure(name, method, str(error))
                continue
            meters_key = jax.random.fold_in(key, zlib.crc32(b"temperature meters"))
            meters = _meters(meters_key, target, draws)
            results.append(_evaluate(target, preset, name, draws, meters, curve.points, test, ood))
            record.add(results[-1])
        report("figures and report")
        _write_figures(directory, results, test)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        record.finish("interrupted" if interrupted else "failed", time.perf_counter() - started)
        raise
    record.finish("finished", time.perf_counter() - started)
    from probbnn.report.page import write_report

    write_report([directory])
    return RunResult(preset, directory, results, record.metrics, failures)


def _common_start(key: jax.Array, target: LogDensity, method: MethodRun) -> Any:
    """One initialisation plus a little noise for each chain, or None for the default starts."""
    if method.start_spread is None:
        return None
    init_key, noise_key = jax.random.split(key)
    leaves, structure = jax.tree.flatten(target.init(init_key))
    keys = jax.random.split(noise_key, len(leaves))
    return jax.tree.unflatten(
        structure,
        [
            leaf + method.start_spread * jax.random.normal(k, (method.num_chains, *leaf.shape))
            for k, leaf in zip(keys, leaves, strict=True)
        ],
    )


class _LearningCurve:
    """Accuracy of all chains together on training and test data, at a few steps of a run."""

    def __init__(
        self, target: LogDensity, train: Dataset, test: Dataset, preset: Preset, num_steps: int
    ) -> None:
        self.steps = np.unique(
            1 + np.linspace(0, num_steps - 1, preset.curve_points + 1).astype(int)
        ).tolist()
        self.points: list[dict[str, float]] = []
        self._target = target
        self._sets = {"train": train[:_NUM_TRAIN_CURVE], "test": test}
        self._predictive = preset.curve_predictive

    def measure(self, step: int, positions: Any) -> None:
        chains = Draws(jax.tree.map(lambda leaf: leaf[:, None], positions), "learning curve")
        point: dict[str, float] = {"step": step}
        for name, data in self._sets.items():
            predictive = predict(self._target, chains, data.images)
            point[name] = accuracy(getattr(predictive, self._predictive), data.labels)
        self.points.append(point)


def _meters(key: jax.Array, target: LogDensity, draws: Draws) -> TemperatureMeters | None:
    if draws.temperature is None or not find_method(draws.method).is_markov_chain:
        return None
    return measure_temperature(key, target, draws, num_draws=_NUM_METER_DRAWS)


# Each predictive of a method: its name in metrics.json, and its field of `Predictive`. With one
# draw all of them are one, the plug-in.
_PREDICTIVES = {"mean_softmax": "probs", "votes": "votes", "mean_logits": "mean_logits_probs"}
_PLUG_IN = {"plug_in": "probs"}


def _evaluate(
    target: LogDensity,
    preset: Preset,
    name: str,
    draws: Draws,
    meters: TemperatureMeters | None,
    curve: list[dict[str, float]],
    test: Dataset,
    ood: Mapping[str, Dataset],
) -> MethodResult:
    sets = {"test": test, **ood}
    predictives = {
        # The presets' networks are classifiers.
        label: cast(Predictive, predict(target, draws, data.images))
        for label, data in sets.items()
    }
    single = predictives["test"].num_draws == 1
    kinds = _PLUG_IN if single else _PREDICTIVES
    evaluations = {
        label: {
            kind: evaluate(getattr(predictives[label], field), data.labels)
            for kind, field in kinds.items()
        }
        for label, data in sets.items()
    }
    shown = "plug_in" if single else preset.predictive
    on_test = getattr(predictives["test"], kinds[shown])
    probes = _probes(predictives["test"], test, ood)
    tree = draws.to_datatree(target, probes, held_out=test, meters=meters)
    metrics = {
        "label": preset.methods[name].label,
        "temperature": draws.temperature,
        "temperature_meters": None if meters is None else meters.to_dict(),
        "num_chains": draws.num_chains,
        "num_draws": draws.num_draws,
        "seconds": draws.seconds,
        "compile_seconds": draws.compile_seconds,
        "passes": None if draws.passes is None else float(draws.passes[-1]),
        "curve": curve,
        "predictive": shown,
        "sets": {
            label: {kind: evaluation.to_dict() for kind, evaluation in of_set.items()}
            for label, of_set in evaluations.items()
        },
        "detection": {
            label: evaluate_ood(
                predictives["test"].ood_scores, predictives[label].ood_scores
            ).to_dict()
            for label in ood
        },
        "reliability": _lists(reliability(on_test, test.labels)),
        "risk_coverage": _lists(_thinned(risk_coverage(on_test, test.labels))),
        "uncertainty": _uncertainty(predictives, len(test.classes)),
        "convergence": None,
        "verdict": None,
    }
    if find_method(name).is_markov_chain:
        convergence = diagnose(tree)
        verdict = judge(convergence, meters, draws.settings)
        metrics |= {"convergence": convergence.to_dict(), "verdict": verdict.to_dict()}
    label = preset.methods[name].label
    return MethodResult(name, label, predictives, evaluations, metrics, draws, tree)


def _probes(
    on_test: Predictive, test: Dataset, ood: Mapping[str, Dataset]
) -> dict[str, np.ndarray]:
    return {
        "test": test.images[:_NUM_PROBES],
        "boundary": test.images[on_test.least_decided(_NUM_PROBES)],
        **{label: data.images[:_NUM_PROBES] for label, data in ood.items()},
    }


def _uncertainty(predictives: Mapping[str, Predictive], num_classes: int) -> dict[str, Any]:
    """Shares of the inputs of each set in bins of entropy and of mutual information."""
    edges = np.linspace(0, np.log(num_classes), _NUM_BINS + 1)

    def shares(values: np.ndarray) -> list[float]:
        # Rounding may take the entropy of a uniform distribution past the last edge.
        return (np.histogram(values.clip(max=edges[-1]), edges)[0] / len(values)).tolist()

    return {
        "edges": edges.tolist(),
        "entropy": {label: shares(p.entropy) for label, p in predictives.items()},
        "mutual information": {
            label: shares(p.mutual_information) for label, p in predictives.items()
        },
    }


def _thinned(curve: RiskCoverage) -> RiskCoverage:
    last = len(curve.coverage) - 1
    index = np.unique(np.linspace(0, last, _NUM_POINTS).round().astype(int))
    return RiskCoverage(curve.coverage[index], curve.risk[index])


def _lists(curve: Reliability | RiskCoverage) -> dict[str, list[float]]:
    return {name: column.tolist() for name, column in curve._asdict().items()}


class _Record:
    """Writes the files of a run directory, anew and atomically after each method."""

    def __init__(
        self, directory: Path, preset: Preset, seed: int, data: Mapping[str, Dataset]
    ) -> None:
        import xarray as xr

        self._directory = directory
        self._run: dict[str, Any] = {
            "status": "running",
            "preset": asdict(preset),
            "seed": seed,
            "data": {
                label: {"name": d.name, "size": len(d), "fingerprint": d.fingerprint}
                for label, d in data.items()
            },
            **environment(),
            "methods": {},
        }
        self.metrics: dict[str, Any] = {"methods": {}, "failures": {}}
        self._tree = xr.DataTree()
        self._write_json()

    def add(self, result: MethodResult) -> None:
        name, draws = result.method, result.draws
        self._run["methods"][name] = {
            "status": "finished",
            "settings": draws.settings,
            "temperature": draws.temperature,
            "seconds": draws.seconds,
            "compile_seconds": draws.compile_seconds,
        }
        self.metrics["methods"][name] = result.metrics
        self._write_json()
        self._tree[name] = result.tree
        with written_atomically(self._directory / "draws.nc") as path:
            self._tree.to_netcdf(path, engine="h5netcdf")

    def add_failure(self, name: str, method: MethodRun, reason: str) -> None:
        self._run["methods"][name] = {
            "status": "diverged",
            "settings": method.settings,
            "reason": reason,
        }
        self.metrics["failures"][name] = {
            "label": method.label,
            "verdict": diverged(reason).to_dict(),
        }
        self._write_json()

    def finish(self, status: str, seconds: float) -> None:
        self._run.update(status=status, seconds=seconds)
        self._write_json()

    def _write_json(self) -> None:
        write_json(self._directory / "run.json", self._run)
        write_json(self._directory / "metrics.json", self.metrics)


def _write_figures(directory: Path, results: list[MethodResult], test: Dataset) -> None:
    from probbnn.report import figures

    folder = directory / "figures"
    folder.mkdir()
    if not results:
        return
    on_test = {}
    for result in results:
        kind = result.metrics["predictive"]
        on_test[result.label] = getattr(
            result.predictives["test"], {**_PLUG_IN, **_PREDICTIVES}[kind]
        )
        for label, evaluations in result.evaluations.items():
            suffix = "" if label == "test" else f"-{label}"
            figure = figures.accuracy_vs_confidence_figure(
                evaluations[kind].thresholds, f"{result.label} ({kind.replace('_', ' ')}): {label}"
            )
            figures.save(figure, folder / f"acc-vs-conf-{result.label}{suffix}")
        figure = figures.uncertainty_figure(result.metrics["uncertainty"], result.label)
        figures.save(figure, folder / f"entropy-{result.label}")
    curves = {label: reliability(p, test.labels) for label, p in on_test.items()}
    figures.save(figures.reliability_figure(curves), folder / "reliability")
    risks = {label: risk_coverage(p, test.labels) for label, p in on_test.items()}
    figures.save(figures.risk_coverage_figure(risks), folder / "risk-coverage")
    # What is fitted has no log density along the way.
    traces = {
        result.label: result.draws.trace["logdensity"]
        for result in results
        if "logdensity" in result.draws.trace
    }
    if traces:
        figures.save(figures.trace_figure(traces, "Log density"), folder / "log-density")


def _describe(name: str, method: MethodRun) -> str:
    chains = f"{method.num_chains} chains x " if method.num_chains > 1 else ""
    return f"{name}, {chains}{method.num_steps:,} steps"
