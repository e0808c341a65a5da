"""Every backend on one density: who gets closest to the posterior, at which cost.

`compare` proves first that all backends see the same density (`probbnn.experiments.equality`), then
runs the methods of a comparison from the same starts and writes, as they finish,

- ``comparison.json``: settings, the proof, and a row for every method, failed ones included;
- ``comparison.md``: its tables;
- ``figures/``: quality against cost, reliability, accuracy at a confidence, detection.

What a row holds: the quality of its predictions; their fidelity to a reference posterior
(`probbnn.experiments.reference`); convergence in function space; and the cost, on equal terms.
"""

import dataclasses
import gc
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import psutil

from probbnn.data import Dataset, Regression
from probbnn.diagnostics import measure_temperature, ranks
from probbnn.experiments.equality import MismatchError, check_equality
from probbnn.experiments.experiment import MethodRun
from probbnn.experiments.presets import Preset
from probbnn.experiments.reference import (
    Reference,
    as_arrays,
    fidelity,
    find_reference,
    predictions,
)
from probbnn.experiments.setup import Problem, begin, sample_method
from probbnn.files import environment, write_json
from probbnn.inference.draws import Draws
from probbnn.metrics import (
    accuracy_vs_confidence,
    evaluate,
    evaluate_ood,
    evaluate_regression,
    reliability,
)
from probbnn.predictive import (
    GaussianPredictive,
    Predictive,
    log_predictive,
    outputs_per_draw,
    predict,
)
from probbnn.samplers.registry import METHODS

__all__ = ["ComparisonResult", "compare", "convergence_of"]

# Held-out inputs whose predictions are followed draw by draw.
_NUM_PROBES = 500
# Numbers of draws at which the distance to the reference is taken.
_NUM_CHECKPOINTS = 12
# Draws of all chains that the temperature is measured on; fewer, where a gradient over all the
# data is dear, so that it takes about so many examples' gradients.
_NUM_METER_DRAWS = 200
_METER_EXAMPLES = 2_400_000
_TOTAL_VARIATIONS = (0.05, 0.02, 0.01)
_NUM_EQUALITY_POSITIONS = 2
_MEMORY_SECONDS = 0.02


@dataclass(frozen=True)
class ComparisonResult:
    """A finished comparison.

    Attributes:
        directory: where everything was written.
        content: what ``comparison.json`` holds.
        failures: method name → one line that says why it failed.
    """

    directory: Path
    content: Mapping[str, Any]
    failures: Mapping[str, str]


def compare(
    preset: Preset,
    directory: str | os.PathLike[str],
    *,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> ComparisonResult:
    """Run all methods of a comparison on the same log density, from the same starts.

    A method that fails, for whatever reason, is a row that says so.

    Args:
        preset: what to run, such as `probbnn.experiments.presets.COMPARISONS` holds.
        directory: where to write; it must not exist, or be empty.
        seed: seed of all random keys.
        data_dir: see `probbnn.load`.
        progress: show progress bars where stderr is a terminal.
        report: called with one line at each stage.

    Raises:
        InputError: if the directory holds anything or cannot be written, data are missing, or
            settings do not fit. Nothing has been computed then, and nothing is left behind.
        MismatchError: if the backends do not see the same density. Nothing is compared then.
    """
    started = time.perf_counter()
    directory, problem = begin(preset, directory, seed, data_dir, progress=progress)
    equality_key, start_key, sample_key = jax.random.split(jax.random.key(seed), 3)
    reference = find_reference(preset, problem)
    content: dict[str, Any] = {
        "status": "running",
        "preset": asdict(preset),
        "seed": seed,
        **environment(),
        "reference": None if reference is None else reference.record,
        "methods": {},
    }

    def write(status: str) -> None:
        content.update(status=status, seconds=time.perf_counter() - started)
        write_json(directory / "comparison.json", content)

    try:
        report("equality of the densities, float64")
        equality = check_equality(
            equality_key, problem.target, num_positions=_NUM_EQUALITY_POSITIONS
        )
        content["equality"] = equality.to_dict()
        report(str(equality))
        starts = _starts(start_key, problem, preset)
        runs: dict[str, _Run] = {}
        for name, method in preset.methods.items():
            report(f"{method.label}: {name}, {method.num_chains} x {method.num_steps:,} steps")
            try:
                runs[name] = _Run.of(
                    sample_key, problem, name, method, preset.batch_size, starts, progress
                )
                row = runs[name].row(problem, reference)
            # Whatever a method raises, a bug in its library included, is this row's own affair.
            except Exception as error:
                row = {"status": "failed", "reason": _one_line(error)}
                report(f"{name} failed: {row['reason']}")
            content["methods"][name] = {
                "label": method.label,
                "backend": METHODS[name].backend,
                **row,
            }
            write("running")
        content["nuts"] = _pooled_nuts(runs)
        report("figures")
        _write_report(directory, content, runs, problem)
    except MismatchError as error:
        content["equality"] = error.equality.to_dict()
        write("the backends do not see the same density")
        raise
    except BaseException as error:
        write("interrupted" if isinstance(error, KeyboardInterrupt) else "failed")
        raise
    write("finished")
    failures = {
        name: row["reason"] for name, row in content["methods"].items() if row["status"] == "failed"
    }
    return ComparisonResult(directory, content, failures)


def _starts(rng_key: jax.Array, problem: Problem, preset: Preset) -> Any:
    """One start per chain; a method takes the first ones, as many as it has chains."""
    number = max(method.num_chains for method in preset.methods.values())
    return jax.jit(jax.vmap(problem.target.init))(jax.random.split(rng_key, number))


@dataclass(frozen=True)
class _Run:
    """One method's draws and what they predict.

    Attributes:
        draws: its draws.
        predictives: by set.
        outputs: predictions at the probes, draw by draw, ``(chain, draw, value)``.
        peak_memory: highest resident memory of the process while it ran, above what was resident
            before, bytes.
    """

    draws: Draws
    predictives: Mapping[str, Predictive | GaussianPredictive]
    outputs: np.ndarray
    peak_memory: int

    @classmethod
    def of(
        cls,
        rng_key: jax.Array,
        problem: Problem,
        name: str,
        method: MethodRun,
        batch_size: int,
        starts: Any,
        progress: bool,
    ) -> "_Run":
        with _PeakMemory() as memory:
            draws = sample_method(
                rng_key,
                problem.target,
                name,
                method,
                batch_size,
                initial_positions=jax.tree.map(lambda leaf: leaf[: method.num_chains], starts),
                progress=progress,
            )
        predictives = {
            label: predict(problem.target, draws, data) for label, data in problem.sets.items()
        }
        _, outputs = outputs_per_draw(problem.target, draws, problem.test[:_NUM_PROBES])
        return cls(draws, predictives, outputs.reshape(*outputs.shape[:2], -1), memory.peak)

    def row(self, problem: Problem, reference: Reference | None) -> dict[str, Any]:
        """What ``comparison.json`` holds of it."""
        draws = self.draws
        convergence = self._convergence()
        passes = None if draws.passes is None else float(draws.passes[-1])
        ess = None if convergence is None else convergence["ess_median"]
        path = [] if reference is None else _distances(problem, draws, reference)
        return {
            "status": "finished",
            "settings": draws.settings,
            "temperature": draws.temperature,
            "num_chains": draws.num_chains,
            "num_draws": draws.num_draws,
            "quality": self._quality(problem),
            "fidelity": None
            if reference is None
            else {
                label: found.to_dict()
                for label, found in fidelity(
                    as_arrays(self.predictives), reference.predictions
                ).items()
            },
            "convergence": convergence,
            "configurational_temperature": _temperature(problem, draws),
            "cost": {
                "seconds": draws.seconds,
                "compile_seconds": draws.compile_seconds,
                "passes": passes,
                "peak_memory_bytes": self.peak_memory,
                "ess_per_second": None if ess is None else ess / draws.seconds,
                "ess_per_pass": None if ess is None or passes is None else ess / passes,
                "seconds_to_total_variation": {
                    str(limit): _seconds_to(path, limit) for limit in _TOTAL_VARIATIONS
                },
                "path": path,
            },
        }

    def _quality(self, problem: Problem) -> dict[str, Any]:
        if isinstance(problem.test, Regression):
            found = cast(GaussianPredictive, self.predictives["test"])
            log_density = log_predictive(
                problem.target, self.draws, problem.test, problem.test.targets
            )
            evaluation = evaluate_regression(found, problem.test.targets, log_density)
            return {"test": evaluation.to_dict()}
        scores = {
            label: cast(Predictive, predictive).ood_scores
            for label, predictive in self.predictives.items()
        }
        here = cast(Predictive, self.predictives["test"])
        detection = {
            label: evaluate_ood(scores["test"], scores[label]).to_dict() for label in problem.ood
        }
        return {
            "test": evaluate(here, problem.test.labels).to_dict(),
            "detection": detection,
        }

    def _convergence(self) -> dict[str, Any] | None:
        """Of the predictions at the probes; None without several draws per chain."""
        if self.outputs.shape[1] < ranks.MIN_DRAWS:
            return None
        return convergence_of(self.outputs)


def convergence_of(values: np.ndarray) -> dict[str, Any]:
    """R-hat and bulk ESS of values ``(chain, draw, value)``: worst, share above 1.01, median."""
    r_hat, ess = ranks.rhat(values), ranks.ess_bulk(values)
    # What never changes, such as a probability that rounds to 1 in all draws, has neither.
    moving = np.isfinite(r_hat) & np.isfinite(ess)
    if not moving.any():
        return {"num_values": 0, "rhat_worst": None, "ess_worst": None, "ess_median": None}
    return {
        "num_values": int(moving.sum()),
        "rhat_worst": float(r_hat[moving].max()),
        "rhat_share_above_1.01": float(np.mean(r_hat[moving] > 1.01)),
        "ess_worst": float(ess[moving].min()),
        "ess_median": float(np.median(ess[moving])),
    }


def _distances(problem: Problem, draws: Draws, reference: Reference) -> list[dict[str, float]]:
    """Total variation from the reference on the test set after more and more draws, and its cost.

    The wall time at a draw is taken for its share of the gradients.
    """
    test_only = dataclasses.replace(problem, ood={})
    wanted = {k: v for k, v in reference.predictions.items() if k.startswith("test/")}
    numbers = np.unique(np.geomspace(1, draws.num_draws, _NUM_CHECKPOINTS).round().astype(int))
    path = []
    for number in numbers:
        some = dataclasses.replace(
            draws, positions=jax.tree.map(lambda leaf, n=number: leaf[:, :n], draws.positions)
        )
        found = fidelity(predictions(test_only, some), wanted)["test"]
        point = {"draws": int(number), "total_variation": found.total_variation.value}
        if draws.passes is not None:
            passes = float(draws.passes[number - 1])
            share = passes / float(draws.passes[-1])
            point |= {"passes": passes, "seconds": draws.seconds * share}
        path.append(point)
    return path


def _seconds_to(path: list[dict[str, float]], limit: float) -> float | None:
    """When the distance fell to the limit for good; None if it did not, or its time is unknown."""
    within = [point["total_variation"] <= limit for point in path]
    if not path or not within[-1]:
        return None
    first = len(within) - next((i for i, ok in enumerate(within[::-1]) if not ok), len(within))
    return path[first].get("seconds")


def _temperature(problem: Problem, draws: Draws) -> dict[str, float | None] | None:
    """Configurational temperature of a Markov chain's draws."""
    if not METHODS[draws.method].is_markov_chain:
        return None
    meters = measure_temperature(
        jax.random.key(0),
        problem.target,
        draws,
        num_draws=min(_NUM_METER_DRAWS, _METER_EXAMPLES // problem.target.data_size),
        num_minibatches=1,  # the gradient noise is not looked at
    )
    return meters.configurational.to_dict()


def _pooled_nuts(runs: Mapping[str, _Run]) -> dict[str, Any] | None:
    """Convergence of the two libraries' NUTS as if their chains were one sampler's."""
    if not {"nuts", "numpyro_nuts"} <= set(runs):
        return None
    both = [runs["nuts"].outputs, runs["numpyro_nuts"].outputs]
    length = min(outputs.shape[1] for outputs in both)
    return convergence_of(np.concatenate([outputs[:, -length:] for outputs in both]))


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else repr(error)


class _PeakMemory:
    """Highest resident memory of this process within a block, above that at its start."""

    def __enter__(self) -> "_PeakMemory":
        gc.collect()
        self._process = psutil.Process()
        self._before = self._highest = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @property
    def peak(self) -> int:
        """In bytes."""
        return self._highest - self._before

    def _watch(self) -> None:
        while not self._done.wait(_MEMORY_SECONDS):
            self._highest = max(self._highest, self._process.memory_info().rss)


def _write_report(
    directory: Path, content: Mapping[str, Any], runs: Mapping[str, _Run], problem: Problem
) -> None:
    from probbnn.report import comparison as page
    from probbnn.report import figures

    (directory / "comparison.md").write_text(page.markdown(content), encoding="utf-8")
    folder = directory / "figures"
    folder.mkdir()
    drawn = {"quality-against-cost": page.cost_figure(content)}
    if isinstance(problem.test, Dataset):
        labels = problem.test.labels
        probs = {
            name: cast(Predictive, run.predictives["test"]).probs for name, run in runs.items()
        }
        drawn["reliability"] = page.reliability_figure(
            # Equal masses: fifteen curves with nearly empty bins cannot be told apart.
            content,
            {name: reliability(p, labels, 10, "equal_mass") for name, p in probs.items()},
        )
        drawn["accuracy-vs-confidence"] = page.accuracy_figure(
            content, {name: accuracy_vs_confidence(p, labels) for name, p in probs.items()}
        )
        drawn["detection"] = page.detection_figure(content)
    for name, figure in drawn.items():
        figures.save(figure, folder / name)
