"""The files of a run directory as dataclasses: what a run writes, and what its report reads.

`RunRecord` is ``run.json``, `MetricsRecord` is ``metrics.json`` and `ComparisonRecord` is
``comparison.json``; the other classes are their parts. A field is called as in the file, but for
those whose ``key`` says otherwise.

`Record.from_dict` takes what this version or an older one wrote, of a run that finished or not:
what is missing becomes ``None`` or empty, what is unknown is passed over, and what is of the wrong
type is an `InputError` that names the file and the field. Nothing else has to check a file.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np

from probbnn.diagnostics import Diagnostic, Verdict
from probbnn.errors import InputError
from probbnn.experiments.customise import Request
from probbnn.experiments.experiment import MethodRun
from probbnn.experiments.record import Record, read_fields, read_value
from probbnn.files import read_json
from probbnn.metrics import AccuracyVsConfidence, Interval, OodMetrics, Reliability, RiskCoverage

__all__ = [
    "ComparisonRecord",
    "ComparisonRow",
    "ConvergenceRecord",
    "Cost",
    "CurvePoint",
    "DataRecord",
    "Device",
    "ExperimentRecord",
    "FailureRecord",
    "LayerMeters",
    "Meters",
    "MethodMetrics",
    "MethodRecord",
    "MetricsRecord",
    "OutputConvergence",
    "PathPoint",
    "PredictiveMetrics",
    "Quality",
    "Record",
    "ReferenceRecord",
    "ResultRecord",
    "RunRecord",
    "Uncertainty",
    "read",
]


# run.json


@dataclass(frozen=True)
class Device(Record):
    """What a run was computed on.

    Attributes:
        platform: "cpu", "gpu", ….
        kind: what the platform calls the device.
        count: how many there are.
        cpu_cores: those that the process may use.
    """

    platform: str = ""
    kind: str = ""
    count: int | None = None
    cpu_cores: int | None = None


@dataclass(frozen=True)
class DataRecord(Record):
    """One set of examples.

    Attributes:
        name: of the data set, and of what was done to it.
        size: number of examples.
        fingerprint: of its content.
    """

    name: str = ""
    size: int | None = None
    fingerprint: str = ""


@dataclass(frozen=True)
class ExperimentRecord(Record):
    """What an experiment is, its data apart; see `Experiment`.

    Attributes:
        name: what it is called.
        summary: one line for a person.
        model: name of the module's class, and its arguments by name.
        likelihood: as Python writes it, ``""`` where it is not on record.
        prior_scale: one number, or numbers by layer or parameter.
        batch_size: examples per minibatch.
        methods: the rows that were planned, by method name.
        predictive: the predictive that stands for a method with several draws.
        curve_predictive: that of the learning curve.
        curve_points: of the learning curve.
    """

    name: str = ""
    summary: str = ""
    model: tuple[object, ...] = ()
    likelihood: str = ""
    prior_scale: object = None
    batch_size: int | None = None
    methods: Mapping[str, MethodRun] = field(default_factory=dict)
    predictive: str = ""
    curve_predictive: str = ""
    curve_points: int | None = None

    @property
    def network(self) -> str:
        """`model` as Python would write it, ``""`` where it is not on record.

        Examples:
            >>> ExperimentRecord(model=("MLP", {"hidden": [10], "activation": "tanh"})).network
            "MLP(hidden=[10], activation='tanh')"
        """
        if not self.model:
            return ""
        name, *arguments = self.model
        named = arguments[0] if arguments and isinstance(arguments[0], Mapping) else {}
        return f"{name}({', '.join(f'{k}={v!r}' for k, v in named.items())})"


@dataclass(frozen=True)
class MethodRecord(Record):
    """How a method of a run ended.

    Attributes:
        status: "finished", "diverged" (the chains became non-finite) or "failed" (anything else).
        settings: what it ran with, or was to run with.
        temperature: T of what it sampled, ``None`` where it samples nothing.
        seconds: wall time of the steps, compilation apart.
        compile_seconds: wall time of tracing and compilation.
        reason: one line that says why it did not finish.
    """

    status: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    temperature: float | None = None
    seconds: float | None = None
    compile_seconds: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ResultRecord(Record):
    """What ``run.json`` and ``comparison.json`` begin with.

    Attributes:
        status: "running", "finished", "interrupted", "failed", or why it broke off.
        experiment: what was run; ``preset`` in the file.
        seed: of all random keys.
        versions: of the libraries.
        python: its version.
        device: what it was computed on.
        seconds: wall time of everything, once it has ended.
    """

    status: str = ""
    experiment: ExperimentRecord = field(
        default_factory=ExperimentRecord, metadata={"key": "preset"}
    )
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    python: str = ""
    device: Device | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class RunRecord(ResultRecord):
    """The content of ``run.json``.

    Attributes:
        data: "train", "test" and each out-of-distribution set.
        methods: those that have ended, by name.
        request: what was asked of the command line, ``None`` of an experiment made in Python.
        budget: until it has converged, seconds that each method has; ``None``: as planned.
        more_steps: how much longer than planned, after warm-up.
    """

    FILE: ClassVar[str] = "run.json"

    data: Mapping[str, DataRecord] = field(default_factory=dict)
    methods: Mapping[str, MethodRecord] = field(default_factory=dict)
    request: Request | None = None
    budget: float | None = None
    more_steps: int | None = None


# metrics.json


_ByMetric = Mapping[str, Interval | None]


@dataclass(frozen=True)
class PredictiveMetrics(Record):
    """Metrics of one predictive on one set.

    Attributes:
        intervals: by metric, ``None`` where it is undefined; in the file beside the others.
        num_rows: number of examples.
        num_labelled: of those that belong to a class.
        thresholds: accuracy at a confidence; ``None`` for a regression.
    """

    intervals: Mapping[str, Interval | None] = field(default_factory=dict)
    num_rows: int | None = None
    num_labelled: int | None = None
    thresholds: AccuracyVsConfidence | None = None

    def to_dict(self) -> dict[str, Any]:
        """As `Record.to_dict`."""
        content = super().to_dict()
        return {**content.pop("intervals"), **{k: v for k, v in content.items() if v is not None}}

    @classmethod
    def from_dict(cls, content: object, where: str = "") -> Self:
        """As `Record.from_dict`."""
        where = where or cls.__name__
        named = read_fields(cls, content, where)
        names = {f.name for f in dataclasses.fields(cls)}
        others = read_value(Mapping[str, object], content, where).items()
        intervals = {key: value for key, value in others if key not in names}
        return cls(**named | {"intervals": read_value(_ByMetric, intervals, where)})


@dataclass(frozen=True)
class CurvePoint(Record):
    """One point of a learning curve: accuracy, or the RMSE of a regression.

    Attributes:
        step: after how many steps.
        train: on the first training examples.
        test: on the test set.
    """

    step: int
    train: float
    test: float


@dataclass(frozen=True)
class LayerMeters(Record):
    """The temperature meters of one layer, see `TemperatureMeters`."""

    configurational: Interval | None = None
    gradient_noise: Interval | None = None


@dataclass(frozen=True)
class Meters(Record):
    """The temperature meters, see `TemperatureMeters`."""

    verdict: str = ""
    temperature: float | None = None
    configurational: Interval | None = None
    gradient_noise: Interval | None = None
    kinetic: Interval | None = None
    num_parameters: int | None = None
    by_layer: Mapping[str, LayerMeters] = field(default_factory=dict)


@dataclass(frozen=True)
class Uncertainty(Record):
    """Histograms of how uncertain a classifier is on each set.

    Attributes:
        edges: of the bins, nats, ``(bins + 1,)``.
        entropy: share of the set's inputs in each bin, ``(bins,)``, by set.
        mutual_information: likewise.
    """

    edges: np.ndarray
    entropy: Mapping[str, np.ndarray]
    mutual_information: Mapping[str, np.ndarray] = field(metadata={"key": "mutual information"})


@dataclass(frozen=True)
class ConvergenceRecord(Record):
    """What `diagnose` found, see `Convergence`."""

    num_chains: int | None = None
    num_draws: int | None = None
    space: str = ""
    num_nonfinite: int | None = None
    num_divergent: int | None = None
    diagnostics: Mapping[str, Diagnostic] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodMetrics(Record):
    """Everything that was measured of a method that finished.

    Attributes:
        label: what tables and figures call it.
        temperature: T of what it sampled, ``None`` where it samples nothing.
        temperature_meters: what was measured of it.
        num_chains: chains, or members of an ensemble.
        num_draws: draws per chain.
        seconds: wall time of the steps, compilation apart.
        compile_seconds: wall time of tracing and compilation.
        passes: gradients of all chains, in passes over the training data.
        curve: the learning curve, of methods that step through minibatches.
        predictive: the one of ``sets["test"]`` that stands for the method in figures.
        sets: metrics by set and name of the predictive.
        detection: how well a score tells a set from the test set, by set and score.
        reliability: of the test set; this and the next two are ``None`` for a regression.
        risk_coverage: of the test set, thinned.
        uncertainty: of all sets.
        convergence: ``None`` for what is no Markov chain.
        verdict: likewise.
        stopped: why a run until it has converged stopped, ``""`` for any other.
    """

    label: str = ""
    temperature: float | None = None
    temperature_meters: Meters | None = None
    num_chains: int | None = None
    num_draws: int | None = None
    seconds: float | None = None
    compile_seconds: float | None = None
    passes: float | None = None
    curve: tuple[CurvePoint, ...] = ()
    predictive: str = ""
    sets: Mapping[str, Mapping[str, PredictiveMetrics]] = field(default_factory=dict)
    detection: Mapping[str, Mapping[str, OodMetrics]] = field(default_factory=dict)
    reliability: Reliability | None = None
    risk_coverage: RiskCoverage | None = None
    uncertainty: Uncertainty | None = None
    convergence: ConvergenceRecord | None = None
    verdict: Verdict | None = None
    stopped: str = ""


@dataclass(frozen=True)
class FailureRecord(Record):
    """A method that did not finish.

    Attributes:
        label: what tables and figures call it.
        verdict: on chains that diverged; ``None`` where anything else went wrong.
    """

    label: str = ""
    verdict: Verdict | None = None


@dataclass(frozen=True)
class MetricsRecord(Record):
    """The content of ``metrics.json``, by method name."""

    FILE: ClassVar[str] = "metrics.json"

    methods: Mapping[str, MethodMetrics] = field(default_factory=dict)
    failures: Mapping[str, FailureRecord] = field(default_factory=dict)


# comparison.json


@dataclass(frozen=True)
class OutputConvergence(Record):
    """R-hat and bulk ESS of many predictions, as `convergence_of` gives them.

    Attributes:
        num_values: predictions that differ between draws.
        rhat_worst: largest R-hat; like the others ``None`` where there are no such values.
        rhat_share_above: share of the values with an R-hat above 1.01.
        ess_worst: smallest ESS.
        ess_median: median ESS.
    """

    num_values: int = 0
    rhat_worst: float | None = None
    rhat_share_above: float | None = field(default=None, metadata={"key": "rhat_share_above_1.01"})
    ess_worst: float | None = None
    ess_median: float | None = None


@dataclass(frozen=True)
class ReferenceRecord(Record):
    """The run behind a reference posterior.

    Attributes:
        command: what made it.
        settings: of the sampler.
        identity: what decides the posterior and where it is looked at.
        convergence: of its predictions, by set.
        floor: how far its two halves are from each other, by set and metric.
        passes: gradients, in passes over the data.
        divergences: number of divergent trajectories.
        environment: versions and machine.
    """

    command: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    identity: Mapping[str, object] = field(default_factory=dict)
    convergence: Mapping[str, OutputConvergence] = field(default_factory=dict)
    floor: Mapping[str, _ByMetric] = field(default_factory=dict)
    passes: float | None = None
    divergences: int | None = None
    environment: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Quality(Record):
    """How good the predictions are; see `MethodMetrics` for both.

    Attributes:
        test: metrics on the test set, of the average over all draws.
        detection: by set and score.
    """

    test: PredictiveMetrics = field(default_factory=PredictiveMetrics)
    detection: Mapping[str, Mapping[str, OodMetrics]] = field(default_factory=dict)


@dataclass(frozen=True)
class PathPoint(Record):
    """How near a method is to the reference after some of its draws.

    Attributes:
        draws: how many of each chain.
        total_variation: from the reference, on the test set.
        passes: gradients so far, where they were counted.
        seconds: their share of the wall time.
    """

    draws: int
    total_variation: float
    passes: float | None = None
    seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As `Record.to_dict`, without what was not counted."""
        return {key: value for key, value in super().to_dict().items() if value is not None}


@dataclass(frozen=True)
class Cost(Record):
    """What a method took, and what it gave for that.

    Attributes:
        seconds: wall time of the steps, compilation apart.
        compile_seconds: wall time of tracing and compilation.
        passes: gradients of all chains, in passes over the training data.
        peak_memory_bytes: highest use of memory above that at its start.
        memory: whose memory: "device", or "process" where the device does not say.
        ess_per_second: median bulk ESS of predictions.
        ess_per_pass: likewise.
        seconds_to_total_variation: when the distance to the reference fell to a limit for good.
        path: the distance after more and more draws.
    """

    seconds: float | None = None
    compile_seconds: float | None = None
    passes: float | None = None
    peak_memory_bytes: int | None = None
    memory: str = "process"
    ess_per_second: float | None = None
    ess_per_pass: float | None = None
    seconds_to_total_variation: Mapping[str, float | None] = field(default_factory=dict)
    path: tuple[PathPoint, ...] = ()


@dataclass(frozen=True)
class ComparisonRow(Record):
    """One method of a comparison.

    Attributes:
        label: what tables and figures call it.
        backend: the library whose kernel it runs.
        status: "finished" or "failed".
        reason: one line that says why it did not finish; all that follows is empty then.
        settings: what it ran with.
        temperature: T of what it sampled, ``None`` where it samples nothing.
        num_chains: chains, or members of an ensemble.
        num_draws: draws per chain.
        quality: of its predictions.
        fidelity: to the reference posterior, by set and metric; ``None`` without a reference.
        convergence: of its predictions; ``None`` without several draws per chain.
        configurational_temperature: of a Markov chain.
        cost: what it took.
    """

    label: str = ""
    backend: str = ""
    status: str = ""
    reason: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    temperature: float | None = None
    num_chains: int | None = None
    num_draws: int | None = None
    quality: Quality | None = None
    fidelity: Mapping[str, _ByMetric] | None = None
    convergence: OutputConvergence | None = None
    configurational_temperature: Interval | None = None
    cost: Cost | None = None


@dataclass(frozen=True)
class ComparisonRecord(ResultRecord):
    """The content of ``comparison.json``.

    Attributes:
        reference: the reference posterior, ``None`` if there is none for this log density.
        equality: what `Equality.to_dict` gives: whether all backends see the same density.
        methods: a row for every method that has ended, failed ones included, by name.
        nuts: convergence of the two libraries' NUTS as if they were one sampler.
    """

    FILE: ClassVar[str] = "comparison.json"

    reference: ReferenceRecord | None = None
    equality: Mapping[str, object] = field(default_factory=dict)
    methods: Mapping[str, ComparisonRow] = field(default_factory=dict)
    nuts: OutputConvergence | None = None


_File = TypeVar("_File", RunRecord, MetricsRecord, ComparisonRecord)


def read(kind: type[_File], directory: Path) -> _File | None:
    """The record of one kind that a directory holds, ``None`` where its file is no JSON object.

    Raises:
        InputError: if a part of it is of another type than it should be, or the file is no file.
    """
    try:
        content = read_json(directory / kind.FILE)
    except InputError:
        raise
    except (OSError, ValueError):
        return None
    return kind.from_dict(content, kind.FILE) if isinstance(content, dict) else None
