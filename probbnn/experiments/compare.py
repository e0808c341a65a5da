"""A comparison: every method on one density, and which gets closest to the posterior at what cost.

`compare` runs an experiment as `probbnn.run` does, by the same keys, with the same draws. Before it
proves that all backends see the same density (`probbnn.experiments.equality`). To the quality of a
method's predictions it adds their fidelity to a reference posterior
(`probbnn.experiments.reference`), their convergence, and the cost, on equal terms. It writes, as
the methods finish,

- ``comparison.json``: settings, the proof, and a row for every method, failed ones included;
- ``comparison.md``: its tables;
- ``figures/``: quality against cost, reliability, accuracy at a confidence, detection.
"""

import dataclasses
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from probbnn.diagnostics import ranks
from probbnn.errors import first_line
from probbnn.experiments.directory import ResultDirectory, beginning
from probbnn.experiments.equality import MismatchError, check_equality
from probbnn.experiments.experiment import Experiment
from probbnn.experiments.loop import Failure, run_methods
from probbnn.experiments.method import MethodResult, Sampling
from probbnn.experiments.presets import Preset, find_comparison
from probbnn.experiments.records import (
    ComparisonRecord,
    ComparisonRow,
    Cost,
    OutputConvergence,
    PathPoint,
    Quality,
    ReferenceRecord,
)
from probbnn.experiments.reference import (
    Reference,
    as_arrays,
    fidelity,
    find_reference,
    predictions,
)
from probbnn.experiments.setup import Setup, begin
from probbnn.inference.draws import Draws
from probbnn.metrics import accuracy_vs_confidence, reliability
from probbnn.predictive import values_per_draw

__all__ = ["ComparisonResult", "compare", "convergence_of"]

# Held-out inputs whose predictions are followed draw by draw.
_NUM_PROBES = 500
# Numbers of draws at which the distance to the reference is taken.
_NUM_CHECKPOINTS = 12
_TOTAL_VARIATIONS = (0.05, 0.02, 0.01)
_NUM_EQUALITY_POSITIONS = 2


@dataclass(frozen=True, eq=False)
class ComparisonResult:
    """A finished comparison.

    Attributes:
        experiment: what was compared.
        directory: where everything was written.
        methods: results in the order of the experiment, without those that failed.
        content: what ``comparison.json`` holds.
        failures: method name → one line that says why it failed.
    """

    experiment: Experiment
    directory: Path
    methods: list[MethodResult]
    content: Mapping[str, Any]
    failures: Mapping[str, str]


def compare(
    experiment: Experiment | Preset | str,
    out: str | os.PathLike[str],
    *,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    progress: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> ComparisonResult:
    """Compare all methods of an experiment on the same log density.

    A method that fails, for whatever reason, is a row that says so.

    Args:
        experiment: what to compare: your own, or the name of a ready-made comparison.
        out: where to write; it must not exist, or be empty.
        seed: seed of all random keys; the draws are those of `probbnn.run`.
        data_dir: see `probbnn.load`; of a ready-made comparison.
        progress: show progress bars where stderr is a terminal.
        log: called with one line at each stage, such as ``print``.

    Raises:
        InputError: if the directory holds anything or cannot be written, data are missing, or
            settings do not fit. Nothing has been computed then, and nothing is left behind.
        MismatchError: if the backends do not see the same density. Nothing is compared then.
    """
    if isinstance(experiment, str):
        experiment = find_comparison(experiment)
    path, setup = begin(experiment, out, seed, data_dir, progress=progress)
    with _ComparisonDirectory(path, setup, seed) as directory:
        log("equality of the densities, float64")
        directory.prove(jax.random.fold_in(jax.random.key(seed), zlib.crc32(b"equality")), log)
        sampling = Sampling(keep_positions=True, judged=False, progress=progress)
        results, failures = run_methods(setup, seed, directory, sampling, log=log)
        directory.note(nuts=directory.pooled_nuts())
    log("tables and figures")
    content = directory.record.to_dict()
    try:
        _write_report(path, content, results, setup)
    except Exception as error:
        # The rows are on disk by now.
        log(f"no tables or figures: {first_line(error)}; the rows are in {path}/comparison.json")
    return ComparisonResult(setup.experiment, path, results, content, failures)


class _ComparisonDirectory(ResultDirectory[ComparisonRecord]):
    """``comparison.json``: to each result its row."""

    def __init__(self, path: Path, setup: Setup, seed: int) -> None:
        self._setup = setup
        self._reference = find_reference(setup)
        self._nuts: dict[str, np.ndarray] = {}
        record = ComparisonRecord(
            **beginning(setup, seed),
            reference=None
            if self._reference is None
            else ReferenceRecord.from_dict(self._reference.record),
        )
        super().__init__(path, record)

    def prove(self, rng_key: jax.Array, log: Callable[[str], None]) -> None:
        """Record that all backends see the same density, or raise `MismatchError`."""
        try:
            equality = check_equality(
                rng_key, self._setup.target, num_positions=_NUM_EQUALITY_POSITIONS
            )
        except MismatchError as error:
            self.note(equality=error.equality.to_dict())
            self.end("the backends do not see the same density")
            raise
        self.note(equality=equality.to_dict())
        log(str(equality))

    def add(self, result: MethodResult) -> None:
        """See `Keeper`."""
        setup, draws, metrics = self._setup, result.draws, result.metrics
        probes = jax.tree.map(lambda leaf: leaf[:_NUM_PROBES], setup.test.inputs)
        outputs = values_per_draw(setup.target, draws, probes)
        outputs = outputs.reshape(*outputs.shape[:2], -1)
        if result.method in ("nuts", "numpyro_nuts"):
            self._nuts[result.method] = outputs
        convergence = convergence_of(outputs) if draws.num_draws >= ranks.MIN_DRAWS else None
        found = self._fidelity(result)
        row = ComparisonRow(
            label=result.label,
            backend=setup.methods[result.method].method.backend,
            status="finished",
            settings=draws.settings,
            temperature=draws.temperature,
            num_chains=draws.num_chains,
            num_draws=draws.num_draws,
            quality=Quality(next(iter(metrics.sets["test"].values())), metrics.detection),
            fidelity=found,
            convergence=convergence,
            configurational_temperature=None
            if result.meters is None
            else result.meters.configurational,
            cost=self._cost(result, convergence),
        )
        self._put(result.method, row)

    def add_failure(self, name: str, failure: Failure) -> None:
        """See `Keeper`."""
        planned = self._setup.methods[name]
        row = ComparisonRow(
            label=planned.run.label,
            backend=planned.method.backend,
            status="failed",
            reason=failure.reason,
        )
        self._put(name, row)

    def pooled_nuts(self) -> OutputConvergence | None:
        """Convergence of the two libraries' NUTS as if their chains were one sampler's."""
        if len(self._nuts) < 2:
            return None
        length = min(outputs.shape[1] for outputs in self._nuts.values())
        return convergence_of(np.concatenate([o[:, -length:] for o in self._nuts.values()]))

    def _put(self, name: str, row: ComparisonRow) -> None:
        self.note(methods={**self.record.methods, name: row})

    def _fidelity(self, result: MethodResult) -> dict[str, Any] | None:
        if self._reference is None:
            return None
        found = fidelity(as_arrays(self._setup, result.predictives), self._reference.predictions)
        return {label: vars(of_set) for label, of_set in found.items()}

    def _cost(self, result: MethodResult, convergence: OutputConvergence | None) -> Cost:
        draws, passes = result.draws, result.metrics.passes
        ess = None if convergence is None else convergence.ess_median
        path = []
        if self._reference is not None:
            path = _distances(self._setup, draws, self._reference)
        return Cost(
            seconds=draws.seconds,
            compile_seconds=draws.compile_seconds,
            passes=passes,
            peak_memory_bytes=result.memory.num_bytes,
            memory=result.memory.where,
            ess_per_second=None if ess is None else ess / draws.seconds,
            ess_per_pass=None if ess is None or passes is None else ess / passes,
            seconds_to_total_variation={
                str(limit): _seconds_to(path, limit) for limit in _TOTAL_VARIATIONS
            },
            path=tuple(path),
        )


def convergence_of(values: np.ndarray) -> OutputConvergence:
    """R-hat and bulk ESS of values ``(chain, draw, value)``: worst, share above 1.01, median."""
    r_hat, ess = ranks.rhat(values), ranks.ess_bulk(values)
    # What never changes, such as a probability that rounds to 1 in all draws, has neither.
    moving = np.isfinite(r_hat) & np.isfinite(ess)
    if not moving.any():
        return OutputConvergence()
    return OutputConvergence(
        num_values=int(moving.sum()),
        rhat_worst=float(r_hat[moving].max()),
        rhat_share_above=float(np.mean(r_hat[moving] > 1.01)),
        ess_worst=float(ess[moving].min()),
        ess_median=float(np.median(ess[moving])),
    )


def _distances(setup: Setup, draws: Draws, reference: Reference) -> list[PathPoint]:
    """Total variation from the reference on the test set after more and more draws, and its cost.

    The wall time at a draw is taken for its share of the gradients.
    """
    wanted = {k: v for k, v in reference.predictions.items() if k.startswith("test/")}
    numbers = np.unique(np.geomspace(1, draws.num_draws, _NUM_CHECKPOINTS).round().astype(int))
    path = []
    for number in numbers:
        found = fidelity(predictions(setup, draws.first(number), ["test"]), wanted)["test"]
        point = PathPoint(int(number), found.total_variation.value)
        if draws.passes is not None:
            passes = float(draws.passes[number - 1])
            share = passes / float(draws.passes[-1])
            point = dataclasses.replace(point, passes=passes, seconds=draws.seconds * share)
        path.append(point)
    return path


def _seconds_to(path: list[PathPoint], limit: float) -> float | None:
    """When the distance fell to the limit for good; None if it did not, or its time is unknown."""
    seconds = None
    for point in reversed(path):
        if point.total_variation > limit:
            break
        seconds = point.seconds
    return seconds


def _write_report(
    directory: Path, content: Mapping[str, Any], results: list[MethodResult], setup: Setup
) -> None:
    from probbnn.report import comparison as page
    from probbnn.report import figures

    (directory / "comparison.md").write_text(page.markdown(content), encoding="utf-8")
    folder = directory / "figures"
    folder.mkdir()
    drawn = {"quality-against-cost": page.cost_figure(content)}
    classified = [result for result in results if result.metrics.reliability is not None]
    if classified:
        on_test = {r.method: r.predictives["test"] for r in classified}
        drawn["reliability"] = page.reliability_figure(
            # Equal masses: fifteen curves with nearly empty bins cannot be told apart.
            content,
            {k: reliability(p, setup.test.targets, 10, "equal_mass") for k, p in on_test.items()},
        )
        drawn["accuracy-vs-confidence"] = page.accuracy_figure(
            content,
            {k: accuracy_vs_confidence(p, setup.test.targets) for k, p in on_test.items()},
        )
        drawn["detection"] = page.detection_figure(content)
    for name, figure in drawn.items():
        figures.save(figure, folder / name)
