"""The tables and figures of a comparison, made from the content of ``comparison.json``."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from probbnn.metrics import AccuracyVsConfidence, Reliability
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
# A colour for each family, told apart by people with any colour vision; a marker for each member.
_COLOURS = {
    "optimisation": "#000000",
    "SG-MCMC": "#0072B2",
    "MCMC": "#D55E00",
    "approximation": "#009E73",
}
_MARKERS = "osD^vPX*<>hp"


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
    """Distance to the reference against wall time and against gradients, draw by draw.

    Without a reference, the test NLL against both.
    """
    figure = Figure(figsize=(11, 5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    reference = content["reference"]
    for axes, cost in zip(panels, ("seconds", "passes"), strict=True):
        for name, style in _styles(content).items():
            row = content["methods"][name]
            path = [point for point in row["cost"]["path"] if cost in point]
            if reference is not None and path:
                x = [point[cost] for point in path]
                y = [point["total_variation"] for point in path]
                axes.plot(x, y, lw=1, alpha=0.7, color=style["color"])
                axes.plot(x[-1], y[-1], ms=9, mec="white", ls="", **style)
            elif reference is None and row["cost"][cost] is not None:
                nll = row["quality"]["test"]["nll"]["value"]
                axes.plot(row["cost"][cost], nll, ms=9, mec="white", ls="", **style)
        if reference is not None:
            floor = reference["floor"]["test"]["total_variation"]["value"]
            axes.axhline(floor, color="0.4", ls=":", lw=1, label="reference, half against half")
            axes.set_yscale("log")
        axes.set(xscale="log", xlabel=_COST_LABELS[cost])
        axes.grid(alpha=0.3)
    what = "total variation from the reference" if reference is not None else "NLL, test set"
    panels[0].set_ylabel(f"{what} (lower is better)")
    figure.suptitle("Quality against cost, more draws from left to right")
    _legend(figure, panels[0])
    return figure


def accuracy_figure(content: _Row, curves: Mapping[str, AccuracyVsConfidence]) -> Figure:
    """Accuracy on what each method is sure of, and how much that is; curves by method name."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, style in _styles(content).items():
        curve = curves[name]
        left.plot(curve.thresholds, 100 * curve.accuracy, ms=5, lw=1, **style)
        right.plot(curve.thresholds, 100 * curve.coverage, ms=5, lw=1, **style)
    left.set(xlabel="confidence threshold", ylabel="accuracy of what passes (%)")
    right.set(xlabel="confidence threshold", ylabel="predictions that pass (%)", ylim=(-3, 103))
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle("Accuracy and coverage at a confidence, test set")
    _legend(figure, left)
    return figure


def reliability_figure(content: _Row, curves: Mapping[str, Reliability]) -> Figure:
    """Accuracy against confidence, bin by bin; curves by method name."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", lw=1, label="calibrated")
    for name, style in _styles(content).items():
        axes.plot(curves[name].confidence, curves[name].accuracy, ms=5, lw=1, **style)
    axes.set(
        xlabel="confidence",
        ylabel="accuracy",
        title="Reliability, test set (equal numbers in bins)",
    )
    axes.grid(alpha=0.3)
    _legend(figure, axes)
    return figure


def detection_figure(content: _Row) -> Figure:
    """AUROC by predictive entropy of each method on each out-of-distribution set."""
    rows = list(_finished(content).values())
    figure = Figure(figsize=(8, 1.5 + 0.35 * len(rows)), layout="constrained")
    axes = figure.subplots()
    sets = list(rows[0]["quality"]["detection"]) if rows else []
    for label, marker in zip(sets, _MARKERS, strict=False):
        scores = [row["quality"]["detection"][label]["entropy"]["auroc"]["value"] for row in rows]
        axes.plot(scores, range(len(rows)), marker, ms=7, alpha=0.8, label=label)
    axes.set_yticks(range(len(rows)), [row["label"] for row in rows])
    axes.invert_yaxis()
    axes.axvline(0.5, color="0.4", ls=":", lw=1)
    axes.set(xlabel="AUROC by predictive entropy (0.5: guessing)", title="Detection of other data")
    axes.grid(alpha=0.3)
    _legend(figure, axes)
    return figure


_COST_LABELS = {
    "seconds": "wall time, compilation apart (s)",
    "passes": "gradients (passes over the data, all chains)",
}


def _styles(content: _Row) -> dict[str, dict[str, Any]]:
    """Label, colour of the family and marker within it, of each method that finished."""
    seen: dict[str, int] = {}
    styles = {}
    for name, row in _finished(content).items():
        family = METHODS[name].family
        number = seen[family] = seen.get(family, -1) + 1
        styles[name] = {
            "color": _COLOURS[family],
            "marker": _MARKERS[number],
            "label": row["label"],
        }
    return styles


def _finished(content: _Row) -> dict[str, _Row]:
    return {k: row for k, row in content["methods"].items() if row["status"] == "finished"}


def _legend(figure: Figure, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")


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
