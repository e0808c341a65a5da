"""The tables and figures of a comparison, made from the content of ``comparison.json``."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
from matplotlib.figure import Figure

from probbnn.metrics import AccuracyVsConfidence, Reliability
from probbnn.report import figures
from probbnn.report.table import NONE, Table, escaped, number
from probbnn.samplers.registry import METHODS

__all__ = [
    "accuracy_figure",
    "cost_figure",
    "detection_figure",
    "markdown",
    "reliability_figure",
    "tables",
]

_Row = Mapping[str, Any]
_Curve = TypeVar("_Curve")


def markdown(content: _Row) -> str:
    """All tables as one Markdown page."""
    preset = content["preset"]
    parts = [
        f"# {escaped(preset['name'])}: {escaped(preset['summary'])}",
        _reference_line(content),
    ]
    for table in tables(content):
        parts += [f"## {escaped(table.title)}", table.markdown(), escaped(table.note)]
    return "\n\n".join(part for part in parts if part) + "\n"


def tables(content: _Row) -> Iterator[Table]:
    """The proof of equality, predictions, cost, and failures if there are any."""
    yield _equality_table(content)
    rows = list(content["methods"].values())
    finished = _finished(content).values()
    is_regression = any("rmse" in row["quality"]["test"] for row in finished)
    columns = _REGRESSION if is_regression else _CLASSIFICATION
    yield _table("Predictions", columns, rows, _REGRESSION_NOTE if is_regression else _NOTE)
    yield _table("Convergence and cost", _COST, rows, _cost_note(content))
    failed = [[row["label"], row["reason"]] for row in rows if row["status"] == "failed"]
    if failed:
        yield Table("Failed", ["method", "reason"], failed)


def cost_figure(content: _Row) -> Figure:
    """Distance to the reference against cost, draw by draw; without one, the test NLL."""
    reference = content["reference"]
    paths: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for row in _finished(content).values():
        found = paths[row["label"]] = {}
        for cost in ("seconds", "passes"):
            path = [point for point in row["cost"]["path"] if cost in point]
            if reference is None and row["cost"][cost] is not None:
                found[cost] = [row["cost"][cost]], [row["quality"]["test"]["nll"]["value"]]
            elif path:
                distances = [point["total_variation"] for point in path]
                found[cost] = [point[cost] for point in path], distances
    if reference is None:
        return figures.cost_figure(paths, "NLL, test set", _styles(content))
    floor = reference["floor"]["test"]["total_variation"]["value"]
    distance = "total variation from the reference"
    return figures.cost_figure(paths, distance, _styles(content), floor)


def accuracy_figure(content: _Row, curves: Mapping[str, AccuracyVsConfidence]) -> Figure:
    """Accuracy on what each method is sure of, and how much that is; curves by method name."""
    title = "Accuracy and coverage at a confidence, test set"
    return figures.coverage_figure(_by_label(content, curves), title, _styles(content))


def reliability_figure(content: _Row, curves: Mapping[str, Reliability]) -> Figure:
    """Accuracy against confidence, bin by bin; curves by method name."""
    title = "Reliability, test set (equal numbers in bins)"
    return figures.reliability_figure(_by_label(content, curves), title, _styles(content))


def detection_figure(content: _Row) -> Figure:
    """AUROC by predictive entropy of each method on each out-of-distribution set."""
    return figures.detection_figure(
        {
            row["label"]: {
                label: scores["entropy"]["auroc"]["value"]
                for label, scores in row["quality"]["detection"].items()
            }
            for row in _finished(content).values()
        }
    )


def _by_label(content: _Row, curves: Mapping[str, _Curve]) -> dict[str, _Curve]:
    return {content["methods"][name]["label"]: curve for name, curve in curves.items()}


def _styles(content: _Row) -> dict[str, dict[str, Any]]:
    families = {row["label"]: METHODS[name].family for name, row in _finished(content).items()}
    return figures.family_styles(families)


def _finished(content: _Row) -> dict[str, _Row]:
    return {k: row for k, row in content["methods"].items() if row["status"] == "finished"}


def _reference_line(content: _Row) -> str:
    reference = content["reference"]
    if reference is None:
        return "There is no reference posterior for this log density: no fidelity is shown."
    settings = reference["settings"]
    draws = (settings["num_steps"] - settings["num_warmup"]) // settings["thinning"]
    worst = max(found["rhat_worst"] for found in reference["convergence"].values())
    floor = reference["floor"]["test"]["total_variation"]["value"]
    return (
        f"Reference posterior: BlackJAX NUTS, {settings['num_chains']} chains × "
        f"({settings['num_warmup']} + {draws}) draws, worst R-hat of all predictions {worst:.4f}; "
        f"its halves differ by a total variation of {floor:.4f} (`{reference['command']}`)."
    )


def _equality_table(content: _Row) -> Table:
    equality = content["equality"]
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


_Column = tuple[str, Callable[[_Row], Any], str]


def _table(title: str, columns: list[_Column], rows: list[_Row], note: str) -> Table:
    cells = []
    for row in rows:
        if row["status"] == "failed":
            cells.append([row["label"], "failed", *[NONE] * (len(columns) - 1)])
            continue
        found = [row["label"]]
        for _, value_of, spec in columns:
            try:
                value = value_of(row)
            # What a method does not have is a missing key, or None on the way to it.
            except (KeyError, TypeError):
                value = None
            found.append(number(value, spec))
        cells.append(found)
    return Table(title, ["method", *(name for name, _, _ in columns)], cells, note)


def _test(name: str, factor: float = 1) -> Callable[[_Row], Any]:
    return lambda row: factor * row["quality"]["test"][name]["value"]


def _fidelity(name: str) -> Callable[[_Row], Any]:
    return lambda row: row["fidelity"]["test"][name]["value"]


def _outside(row: _Row) -> float:
    """Mean total variation over the out-of-distribution sets."""
    by_set = row["fidelity"]
    found = [by_set[label]["total_variation"]["value"] for label in by_set if label != "test"]
    return float(np.mean(found))


def _mean_auroc(row: _Row) -> float:
    return float(
        np.mean(
            [found["entropy"]["auroc"]["value"] for found in row["quality"]["detection"].values()]
        )
    )


def _cost(name: str, factor: float = 1) -> Callable[[_Row], Any]:
    return lambda row: factor * row["cost"][name]


_CLASSIFICATION: list[_Column] = [
    ("error %", _test("error", 100), ".2f"),
    ("NLL", _test("nll"), ".4f"),
    ("ECE", _test("ece"), ".3f"),
    ("OOD AUROC", _mean_auroc, ".3f"),
    ("agreement", _fidelity("agreement"), ".3f"),
    ("TV", _fidelity("total_variation"), ".4f"),
    ("TV, OOD", _outside, ".4f"),
    ("entropy error", _fidelity("entropy_error"), ".4f"),
    ("T", lambda row: row["configurational_temperature"]["value"], ".2f"),
]
_NOTE = (
    "Error, NLL and ECE on the test set. OOD AUROC: by predictive entropy, mean of the sets. "
    "Agreement, TV (total variation) and entropy error (nats): against the reference, on the test "
    "set and on the out-of-distribution sets. T: configurational temperature of the draws, 1 in "
    "the posterior."
)
_REGRESSION: list[_Column] = [
    ("RMSE", _test("rmse"), ".4f"),
    ("NLL", _test("nll"), ".4f"),
    ("CRPS", _test("crps"), ".4f"),
    ("in 90 %", _test("coverage_90", 100), ".0f"),
    ("mean error", _fidelity("mean_error"), ".4f"),
    ("spread error", _fidelity("spread_error"), ".4f"),
    ("TV", _fidelity("total_variation"), ".4f"),
    ("TV, OOD", _outside, ".4f"),
    ("T", lambda row: row["configurational_temperature"]["value"], ".2f"),
]
_REGRESSION_NOTE = (
    "RMSE, NLL and CRPS in standard deviations of the targets, and how many of them the central "
    "90 % interval holds, on the test set. Against the reference: mean error in its standard "
    "deviations, spread error |log ratio|, TV (total variation) of the two Gaussians, on the test "
    "set and outside. T: configurational temperature of the draws, 1 in the posterior."
)
_COST: list[_Column] = [
    ("worst R-hat", lambda row: row["convergence"]["rhat_worst"], ".3f"),
    ("> 1.01 %", lambda row: 100 * row["convergence"]["rhat_share_above_1.01"], ".1f"),
    ("ESS", lambda row: row["convergence"]["ess_median"], ",.0f"),
    ("ESS/s", _cost("ess_per_second"), ",.1f"),
    ("ESS/1000 passes", _cost("ess_per_pass", 1_000), ",.1f"),
    ("passes", _cost("passes"), ",.0f"),
    ("seconds", _cost("seconds"), ",.1f"),
    ("compile s", _cost("compile_seconds"), ",.1f"),
    ("MiB", _cost("peak_memory_bytes", 2**-20), ",.0f"),
    ("s to TV .02", lambda row: row["cost"]["seconds_to_total_variation"]["0.02"], ",.1f"),
    ("s to TV .01", lambda row: row["cost"]["seconds_to_total_variation"]["0.01"], ",.1f"),
]


def _cost_note(content: _Row) -> str:
    note = (
        "R-hat (worst, and the share above 1.01) and bulk ESS (median) of the predictions at up to "
        "500 test inputs. Passes: gradients in passes over all the data, of all chains, warm-up "
        "included. MiB: highest resident memory above that at the method's start. Seconds to a "
        "total variation: warm-up included, compilation apart."
    )
    nuts = content.get("nuts")
    if nuts is None:
        return note
    share = nuts["rhat_share_above_1.01"]
    return (
        f"{note} NUTS of BlackJAX and of NumPyro, their chains pooled: worst R-hat "
        f"{nuts['rhat_worst']:.4f} of {nuts['num_values']:,} predictions, {share:.1%} above 1.01."
    )
