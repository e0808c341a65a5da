"""The figures of a run, as Matplotlib `Figure`s, to be saved or put into a page."""

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import scipy.stats
from matplotlib.figure import Figure

from probbnn.diagnostics.mixing import RHATS
from probbnn.metrics import AccuracyVsConfidence, Reliability, RiskCoverage

__all__ = [
    "accuracy_vs_confidence_figure",
    "coverage_figure",
    "data_uri",
    "mixing_figure",
    "reliability_figure",
    "rhat_figure",
    "risk_coverage_figure",
    "running_figure",
    "save",
    "trace_figure",
    "uncertainty_figure",
]

# Okabe & Ito's colours, told apart by people with any colour vision.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"
_COLOURS = [_BLUE, _ORANGE, _GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
_STYLES = ["-", "--", "-.", ":"]
# Wide enough for a column of paper, and for its letters to be read on a phone.
_WIDTH = 5.0
# An SVG of more bytes has so many points that a bitmap of it is smaller.
_LARGE_SVG = 60_000


def save(figure: Figure, stem: Path) -> None:
    """Write ``figure`` to ``stem``.png and ``stem``.pdf."""
    _lay_out(figure)
    # TrueType fonts keep the text of a PDF searchable; no date, so that reruns are identical.
    with mpl.rc_context({"pdf.fonttype": 42}):
        figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})
        figure.savefig(stem.with_suffix(".png"), dpi=150)


def data_uri(figure: Figure) -> str:
    """``figure`` as a ``data:`` address: SVG, or PNG where that is smaller."""
    _lay_out(figure)
    # Neither date nor random identifiers, so that reruns are identical.
    with mpl.rc_context({"svg.hashsalt": "probbnn"}):
        image, kind = _rendered(figure, format="svg", metadata={"Date": None}), "svg+xml"
    if len(image) > _LARGE_SVG:
        bitmap = _rendered(figure, format="png", dpi=160)
        if len(bitmap) < len(image):
            image, kind = bitmap, "png"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _lay_out(figure: Figure) -> None:
    """Lay ``figure`` out now, so that Matplotlib does not do it again for every format."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def _rendered(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()


def accuracy_vs_confidence_figure(curve: AccuracyVsConfidence, title: str) -> Figure:
    """Accuracy on the confident predictions (left axis) and how many those are (right axis).

    The horizontal line is the plain accuracy, that is, at threshold 0. Where no prediction
    passes, the accuracy has no point.
    """
    figure, axes = _figure()
    percent = 100 * curve.accuracy
    if curve.low is not None and curve.high is not None:
        axes.fill_between(
            curve.thresholds, 100 * curve.low, 100 * curve.high, color=_BLUE, alpha=0.15, lw=0
        )
    (certain,) = axes.plot(
        curve.thresholds, percent, "o-", color=_BLUE, label="accuracy at certainty"
    )
    plain = axes.axhline(percent[0], color=_BLUE, ls=":", label=f"accuracy ({percent[0]:.1f} %)")
    axes.set(xlabel="certainty threshold", ylabel="accuracy (%)", title=title, ylim=(-3, 103))
    axes.yaxis.label.set_color(_BLUE)
    right = axes.twinx()
    (coverage,) = right.plot(
        curve.thresholds, 100 * curve.coverage, "s--", color=_ORANGE, label="percent certain"
    )
    right.set(ylabel="percent certain", ylim=(-3, 103))
    right.yaxis.label.set_color(_ORANGE)
    right.legend(handles=[certain, plain, coverage], loc="best", framealpha=0.9)
    return figure


def reliability_figure(curves: Mapping[str, Reliability]) -> Figure:
    """Accuracy against confidence, bin by bin, for several methods; the diagonal is calibrated."""
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color="0.6", lw=1, label="calibrated")
    for (name, curve), style in zip(curves.items(), _styles(), strict=False):
        axes.plot(curve.confidence, curve.accuracy, marker="o", ms=4, label=name, **style)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title="Reliability")
    axes.legend()
    return figure


def risk_coverage_figure(curves: Mapping[str, RiskCoverage]) -> Figure:
    """Error on the most confident share of the predictions, for several methods."""
    figure, axes = _figure()
    for (name, curve), style in zip(curves.items(), _styles(), strict=False):
        axes.plot(100 * curve.coverage, 100 * curve.risk, label=name, **style)
    axes.set(xlabel="coverage (%)", ylabel="error (%)", title="Risk–coverage", xlim=(0, 100))
    axes.set_ylim(bottom=0)
    axes.legend()
    return figure


def coverage_figure(curves: Mapping[str, AccuracyVsConfidence], title: str) -> Figure:
    """Accuracy of what passes a confidence threshold, and how much passes, for several methods.

    Where nothing passes, the accuracy has no point; where no label is right, it has no panel.
    """
    right = any(np.nansum(curve.accuracy) > 0 for curve in curves.values())
    figure = Figure(figsize=(_WIDTH, 4.6 if right else 2.8), layout="constrained")
    panels = list(figure.subplots(2 if right else 1, 1, sharex=True, squeeze=False)[:, 0])
    for (name, curve), style in zip(curves.items(), _styles(), strict=False):
        marked = {"marker": "o", "ms": 3.5, "label": name, **style}
        panels[-1].plot(curve.thresholds, 100 * curve.coverage, **marked)
        if right:
            panels[0].plot(curve.thresholds, 100 * curve.accuracy, **marked)
            if curve.low is not None and curve.high is not None:
                band = (100 * curve.low, 100 * curve.high)
                panels[0].fill_between(
                    curve.thresholds, *band, color=style["color"], alpha=0.12, lw=0
                )
    if right:
        low, high = panels[0].get_ylim()
        # Less than ten points is mostly chance, and should not look like much.
        high = min(101, max(high, low + 10))
        panels[0].set(ylabel="accuracy of these (%)", ylim=(min(low, high - 10), high))
    panels[-1].set(xlabel="confidence threshold", ylabel="inputs that pass (%)", ylim=(-3, 103))
    panels[0].set_title(title)
    for axes in panels:
        axes.grid(alpha=0.3)
    panels[-1].legend(loc="lower left", framealpha=0.9)
    return figure


def uncertainty_figure(uncertainty: Mapping[str, Any], title: str) -> Figure:
    """Histograms of entropy and of mutual information, one line per set of inputs.

    Args:
        uncertainty: ``"edges"`` of the bins, and for ``"entropy"`` and ``"mutual information"``
            the share of the inputs in each bin, by set; without draws that could disagree there
            is no panel for the latter.
        title: of the figure.
    """
    edges = np.asarray(uncertainty["edges"])
    shown = ["entropy"]
    if any(sum(shares[1:]) > 0 for shares in uncertainty["mutual information"].values()):
        shown.append("mutual information")
    figure = Figure(figsize=(_WIDTH, 0.8 + 2.1 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for axes, name in zip(panels, shown, strict=True):
        for (label, shares), style in zip(uncertainty[name].items(), _styles(), strict=False):
            axes.stairs(100 * np.asarray(shares), edges, label=label, lw=1.4, **style)
        axes.set(ylabel="inputs (%)", yscale="log", title=f"{title}: {name}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel(f"nats; at most log of the number of classes, {edges[-1]:.2f}")
    panels[0].legend(ncols=2, fontsize="small", framealpha=0.9)
    return figure


def mixing_figure(
    trace: tuple[np.ndarray, np.ndarray] | None, quantities: Mapping[str, np.ndarray], title: str
) -> Figure:
    """Where each chain went, and how its values rank among those of all chains.

    Args:
        trace: steps and log densities there, ``(step,)`` and ``(chain, step)``.
        quantities: values at the draws by name, ``(chain, draw)``; for each of them its trace and
            its ranks. Chains that agree have flat ranks.
        title: of the figure.
    """
    num_rows = (trace is not None) + len(quantities)
    figure = Figure(figsize=(_WIDTH, 0.6 + 1.7 * num_rows), layout="constrained")
    grid = figure.add_gridspec(num_rows, 2, width_ratios=(3, 2))
    row = 0
    if trace is not None:
        axes = figure.add_subplot(grid[0, :])
        steps, values = trace
        for chain, style in enumerate(_chain_styles(len(values))):
            axes.plot(steps, values[chain], lw=0.7, alpha=0.8, **style)
        # The way in from the start would squash everything that follows.
        settled = values[:, len(steps) // 2 :]
        if np.isfinite(settled).all() and np.ptp(settled) > 0:
            room = 0.3 * np.ptp(settled)
            axes.set_ylim(settled.min() - room, settled.max() + room)
        axes.set_title("log density at every step (minibatch estimate)", fontsize="small")
        axes.tick_params(labelsize="x-small")
        row = 1
    for name, values in quantities.items():
        left, right = figure.add_subplot(grid[row, 0]), figure.add_subplot(grid[row, 1])
        styles = _chain_styles(len(values))
        for chain, style in enumerate(styles):
            left.plot(values[chain], lw=0.7, alpha=0.8, **style)
        left.set_title(f"{name}: trace", fontsize="small")
        _rank_bars(right, values, styles)
        right.set_title("ranks", fontsize="small")
        for axes in (left, right):
            axes.tick_params(labelsize="x-small")
        row += 1
    figure.suptitle(title, fontsize="medium")
    return figure


def _rank_bars(axes: "mpl.axes.Axes", values: np.ndarray, styles: Sequence[Any]) -> None:
    """Of each chain a histogram of its ranks; the dotted line is a chain like all the others."""
    num_chains, num_draws = values.shape
    edges = np.linspace(0.5, values.size + 0.5, min(20, max(2, num_draws // 4)) + 1)
    ranks = scipy.stats.rankdata(values).reshape(values.shape)
    shares = np.array([np.histogram(row, edges)[0] for row in ranks]) / num_draws * (len(edges) - 1)
    scale = min(0.4, 0.9 / shares.max())
    for chain, heights in enumerate(scale * shares):
        axes.bar(edges[:-1], heights, np.diff(edges), chain, align="edge", **styles[chain])
        axes.axhline(chain + scale, color="0.3", lw=0.6, ls=":")
    axes.set(xticks=[], yticks=range(num_chains), ylim=(-0.1, num_chains))


def rhat_figure(rhats: Mapping[str, np.ndarray], title: str) -> Figure:
    """Histograms of R-hat, one panel for each kind of quantity, on a scale that shows 1.01 well."""
    figure = Figure(figsize=(_WIDTH, 0.9 + 1.5 * len(rhats)), layout="constrained")
    panels = figure.subplots(len(rhats), 1, sharex=True, squeeze=False)[:, 0]
    excess = {name: np.maximum(values - 1, 1e-3) for name, values in rhats.items()}
    highest = max(0.2, *(float(values.max(initial=0)) for values in excess.values()))
    bins = np.geomspace(1e-3, 1.1 * highest, 41).tolist()
    for axes, (name, values) in zip(panels, excess.items(), strict=True):
        weights = np.full(len(values), 100 / max(1, len(values)))
        axes.hist(values, bins=bins, weights=weights, color=_COLOURS[5])
        for limit, style in zip(RHATS, ("-", "--", ":"), strict=True):
            axes.axvline(limit - 1, color=_ORANGE, ls=style, lw=1.2)
        axes.set(xscale="log", ylabel="share (%)")
        axes.set_title(name, fontsize="small")
        axes.grid(alpha=0.3)
    marks = [x for x in (1.001, 1.01, 1.05, 1.1, 1.5, 2, 5, 11, 101) if x - 1 <= 1.1 * highest]
    panels[-1].set_xticks([x - 1 for x in marks], [f"{x:g}" for x in marks])
    panels[-1].minorticks_off()
    panels[-1].set_xlabel("R-hat (1.001 and below in the first bar)")
    figure.suptitle(title, fontsize="medium")
    return figure


def running_figure(curves: Mapping[str, tuple[Any, Any]]) -> Figure:
    """NLL and accuracy of the average over the draws so far: ``(nll, accuracy or None)`` each."""
    with_accuracy = any(accuracy is not None for _, accuracy in curves.values())
    rows = 1 + with_accuracy
    figure = Figure(figsize=(_WIDTH, 0.8 + 2 * rows), layout="constrained")
    panels = figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
    for (name, (nll, accuracy)), style in zip(curves.items(), _styles(), strict=False):
        panels[0].plot(np.arange(1, len(nll) + 1), nll, label=name, **style)
        if accuracy is not None:
            percent = 100 * np.asarray(accuracy)
            panels[1].plot(np.arange(1, len(percent) + 1), percent, label=name, **style)
    panels[0].set(ylabel="NLL (nats)")
    if with_accuracy:
        panels[1].set(ylabel="accuracy (%)")
    panels[-1].set_xlabel("draws of each chain, averaged over so far")
    for axes in panels:
        axes.grid(alpha=0.3)
    panels[0].legend()
    return figure


def trace_figure(traces: Mapping[str, np.ndarray], title: str) -> Figure:
    """Minibatch estimate of the log density at every step, ``(chain, step)`` per method."""
    figure, axes = _figure()
    lowest = np.inf
    for (name, trace), style in zip(traces.items(), _styles(), strict=False):
        steps, values = _thin(trace)
        for chain, line in enumerate(values):
            label = name if chain == 0 else None
            axes.plot(steps, line, lw=0.7, alpha=0.7, label=label, **style)
        # The way in from the start would squash everything that follows.
        lowest = min(lowest, np.quantile(values[:, len(steps) // 2 :], 0.001))
    axes.set(xlabel="step", ylabel="log density (minibatch estimate)", title=title)
    top = axes.get_ylim()[1]
    axes.set_ylim(bottom=lowest - 0.05 * abs(top - lowest))
    axes.legend()
    return figure


def _figure() -> tuple[Figure, "mpl.axes.Axes"]:
    figure = Figure(figsize=(_WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _styles() -> list[dict[str, Any]]:
    """Colours and dashes, no two alike."""
    number = len(_COLOURS)
    return [
        {"color": _COLOURS[i % number], "ls": _STYLES[(i + i // number) % len(_STYLES)]}
        for i in range(number * len(_STYLES))
    ]


def _chain_styles(num_chains: int) -> list[dict[str, Any]]:
    return [{"color": c} for c in itertools.islice(itertools.cycle(_COLOURS), num_chains)]


def _thin(trace: np.ndarray, points: int = 500) -> tuple[np.ndarray, np.ndarray]:
    steps = np.unique(np.linspace(0, trace.shape[1] - 1, points).astype(int))
    return steps, trace[:, steps]
