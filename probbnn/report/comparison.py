"""The tables and figures of a comparison, made from the content of ``comparison.json``."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from probbnn.experiments.records import ComparisonRecord, ComparisonRow
from probbnn.metrics import AccuracyVsConfidence, Interval, Reliability
from probbnn.report import figures
from probbnn.report.load import family_of
from probbnn.report.table import NONE, Table, escaped, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "accuracy_figure",
    "cost_figure",
    "detection_figure",
    "markdown",
    "reliability_figure",
    "tables",
]

Content = ComparisonRecord | Mapping[str, Any]
"""A record, or what ``comparison.json`` holds of one."""

_Curve = TypeVar("_Curve")


def markdown(content: Content) -> str:
    """All tables as one Markdown page."""
    record = _record(content)
    experiment = record.experiment
    parts = [f"# {escaped(experiment.name)}: {escaped(experiment.summary)}", _reference(record)]
    for table in tables(record):
        parts += [f"## {escaped(table.title)}", table.markdown(), escaped(table.note)]
    return "\n\n".join(part for part in parts if part) + "\n"


def tables(content: Content) -> Iterator[Table]:
    """The proof of equality, predictions, cost, and failures if there are any."""
    record = _record(content)
    yield _equality_table(record)
    rows = record.methods.values()
    measured = {name for row in _finished(record) for name in _on_test(row)}
    if "rmse" in measured:
        yield _table("Predictions", _REGRESSION, rows, _REGRESSION_NOTE)
    else:
        yield _table("Predictions", _CLASSIFICATION, rows, _NOTE)
    yield _table("Convergence and cost", _COST, rows, _cost_note(record))
    failed = [[row.label, row.reason or ""] for row in rows if row.status != "finished"]
    if failed:
        yield Table("Failed", ["method", "reason"], failed)


def cost_figure(content: Content) -> "Figure":
    """Distance to the reference against cost, draw by draw; without one, the test NLL."""
    record = _record(content)
    paths: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for row in _finished(record):
        paths[row.label] = _distances(row) if record.reference else _test_nll(row)
    if record.reference is None:
        return figures.cost_figure(paths, "NLL, test set", _styles(record))
    floor = _value(record.reference.floor.get("test", {}).get("total_variation"))
    distance = "total variation from the reference"
    return figures.cost_figure(paths, distance, _styles(record), floor)


def _distances(row: ComparisonRow) -> dict[str, tuple[list[float], list[float]]]:
    found = {}
    for cost in ("seconds", "passes"):
        points = [
            (at, point.total_variation)
            for point in (row.cost.path if row.cost else ())
            if (at := getattr(point, cost)) is not None
        ]
        if points:
            found[cost] = [x for x, _ in points], [y for _, y in points]
    return found


def _test_nll(row: ComparisonRow) -> dict[str, tuple[list[float], list[float]]]:
    nll = _value(_on_test(row).get("nll"))
    return {
        cost: ([at], [nll])
        for cost in ("seconds", "passes")
        if (at := getattr(row.cost, cost, None)) is not None and nll is not None
    }


def accuracy_figure(content: Content, curves: Mapping[str, AccuracyVsConfidence]) -> "Figure":
    """Accuracy on what each method is sure of, and how much that is; curves by method name."""
    record = _record(content)
    title = "Accuracy and coverage at a confidence, test set"
    return figures.coverage_figure(_by_label(record, curves), title, _styles(record))


def reliability_figure(content: Content, curves: Mapping[str, Reliability]) -> "Figure":
    """Accuracy against confidence, bin by bin; curves by method name."""
    record = _record(content)
    title = "Reliability, test set (equal numbers in bins)"
    return figures.reliability_figure(_by_label(record, curves), title, _styles(record))


def detection_figure(content: Content) -> "Figure":
    """AUROC by predictive entropy of each method on each out-of-distribution set."""
    return figures.detection_figure(
        {row.label: _aurocs(row) for row in _finished(_record(content))}
    )


def _record(content: Content) -> ComparisonRecord:
    if isinstance(content, ComparisonRecord):
        return content
    return ComparisonRecord.from_dict(content)


def _finished(record: ComparisonRecord) -> list[ComparisonRow]:
    return [row for row in record.methods.values() if row.status == "finished"]


def _by_label(record: ComparisonRecord, curves: Mapping[str, _Curve]) -> dict[str, _Curve]:
    return {record.methods[name].label: curve for name, curve in curves.items()}


def _styles(record: ComparisonRecord) -> dict[str, dict[str, Any]]:
    return figures.family_styles(
        {
            row.label: family_of(name)
            for name, row in record.methods.items()
            if row.status == "finished"
        }
    )


def _reference(record: ComparisonRecord) -> str:
    reference = record.reference
    if reference is None:
        return "There is no reference posterior for this log density: no fidelity is shown."
    settings: Mapping[str, Any] = reference.settings
    draws = (settings["num_steps"] - settings["num_warmup"]) // settings["thinning"]
    worst = max(found.rhat_worst or 0.0 for found in reference.convergence.values())
    floor = _value(reference.floor["test"]["total_variation"])
    return (
        f"Reference posterior: BlackJAX NUTS, {settings['num_chains']} chains × "
        f"({settings['num_warmup']} + {draws}) draws, worst R-hat of all predictions {worst:.4f}; "
        f"its halves differ by a total variation of {number(floor, '.4f')} "
        f"(`{reference.command}`)."
    )


def _equality_table(record: ComparisonRecord) -> Table:
    equality: Mapping[str, Any] = record.equality
    rows = [
        [name, *(f"{float(found[key]):.1e}" for key in ("logdensity", "gradient"))]
        for name, found in equality["backends"].items()
    ]
    return Table(
        "One density",
        ["backend", "log density", "gradient"],
        rows,
        f"Largest relative difference from the adapter at {equality['num_positions']} random "
        f"positions, in float64; more than {equality['tolerance']:.0e} would have stopped the "
        "comparison.",
    )


def _on_test(row: ComparisonRow) -> Mapping[str, Interval | None]:
    return row.quality.test.intervals if row.quality else {}


def _fidelity(row: ComparisonRow, label: str, metric: str) -> float | None:
    return _value((row.fidelity or {}).get(label, {}).get(metric))


def _aurocs(row: ComparisonRow) -> dict[str, float]:
    """By predictive entropy, of each out-of-distribution set."""
    detection = row.quality.detection if row.quality else {}
    return {label: scores["entropy"].auroc.value for label, scores in detection.items()}


def _value(found: Interval | None) -> float | None:
    return None if found is None else found.value


class _Column(NamedTuple):
    """A heading, and of each method a number, what to multiply it with and how to write it."""

    heading: str
    value: Callable[[ComparisonRow], float | None]
    spec: str
    factor: float = 1


def _table(title: str, columns: list[_Column], rows: Iterable[ComparisonRow], note: str) -> Table:
    header = ["method", *(column.heading for column in columns)]
    return Table(title, header, [_cells(row, columns) for row in rows], note)


def _cells(row: ComparisonRow, columns: list[_Column]) -> list[str]:
    if row.status != "finished":
        return [row.label, "failed", *[NONE] * (len(columns) - 1)]
    return [row.label, *(number(c.value(row), c.spec, c.factor) for c in columns)]


def _test(heading: str, metric: str, spec: str, factor: float = 1) -> _Column:
    return _Column(heading, lambda row: _value(_on_test(row).get(metric)), spec, factor)


def _near(heading: str, metric: str, spec: str) -> _Column:
    return _Column(heading, lambda row: _fidelity(row, "test", metric), spec)


def _convergence(heading: str, field: str, spec: str, factor: float = 1) -> _Column:
    return _Column(heading, lambda row: getattr(row.convergence, field, None), spec, factor)


def _cost(heading: str, field: str, spec: str, factor: float = 1) -> _Column:
    return _Column(heading, lambda row: getattr(row.cost, field, None), spec, factor)


def _time_to(heading: str, limit: str) -> _Column:
    return _Column(
        heading,
        lambda row: row.cost.seconds_to_total_variation.get(limit) if row.cost else None,
        ",.1f",
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


_OUTSIDE = _Column(
    "TV, OOD",
    lambda row: _mean(
        _fidelity(row, label, "total_variation") for label in row.fidelity or () if label != "test"
    ),
    ".4f",
)
_TEMPERATURE = _Column("T", lambda row: _value(row.configurational_temperature), ".2f")
_CLASSIFICATION = [
    _test("error %", "error", ".2f", 100),
    _test("NLL", "nll", ".4f"),
    _test("ECE", "ece", ".3f"),
    _Column("OOD AUROC", lambda row: _mean(_aurocs(row).values()), ".3f"),
    _near("agreement", "agreement", ".3f"),
    _near("TV", "total_variation", ".4f"),
    _OUTSIDE,
    _near("entropy error", "entropy_error", ".4f"),
    _TEMPERATURE,
]
_NOTE = (
    "Error, NLL and ECE on the test set. OOD AUROC: by predictive entropy, mean of the sets. "
    "Agreement, TV (total variation) and entropy error (nats): against the reference, on the test "
    "set and on the out-of-distribution sets. T: configurational temperature of the draws, 1 in "
    "the posterior."
)
_REGRESSION = [
    _test("RMSE", "rmse", ".4f"),
    _test("NLL", "nll", ".4f"),
    _test("CRPS", "crps", ".4f"),
    _test("in 90 %", "coverage_90", ".0f", 100),
    _near("mean error", "mean_error", ".4f"),
    _near("spread error", "spread_error", ".4f"),
    _near("TV", "total_variation", ".4f"),
    _OUTSIDE,
    _TEMPERATURE,
]
_REGRESSION_NOTE = (
    "RMSE, NLL and CRPS in standard deviations of the targets, and how many of them the central "
    "90 % interval holds, on the test set. Against the reference: mean error in its standard "
    "deviations, spread error |log ratio|, TV (total variation) of the two Gaussians, on the test "
    "set and outside. T: configurational temperature of the draws, 1 in the posterior."
)
_COST = [
    _convergence("worst R-hat", "rhat_worst", ".3f"),
    _convergence("> 1.01 %", "rhat_share_above", ".1f", 100),
    _convergence("ESS", "ess_median", ",.0f"),
    _cost("ESS/s", "ess_per_second", ",.1f"),
    _cost("ESS/1000 passes", "ess_per_pass", ",.1f", 1_000),
    _cost("passes", "passes", ",.0f"),
    _cost("seconds", "seconds", ",.1f"),
    _cost("compile s", "compile_seconds", ",.1f"),
    _cost("MiB", "peak_memory_bytes", ",.0f", 2**-20),
    _time_to("s to TV .02", "0.02"),
    _time_to("s to TV .01", "0.01"),
]


def _cost_note(record: ComparisonRecord) -> str:
    note = (
        "R-hat (worst, and the share above 1.01) and bulk ESS (median) of the predictions at up to "
        "500 test inputs. Passes: gradients in passes over all the data, of all chains, warm-up "
        "included. MiB: highest resident memory above that at the method's start. Seconds to a "
        "total variation: warm-up included, compilation apart."
    )
    nuts = record.nuts
    if nuts is None or nuts.rhat_worst is None or nuts.rhat_share_above is None:
        return note
    return (
        f"{note} NUTS of BlackJAX and of NumPyro, their chains pooled: worst R-hat "
        f"{nuts.rhat_worst:.4f} of {nuts.num_values:,} predictions, {nuts.rhat_share_above:.1%} "
        "above 1.01."
    )
