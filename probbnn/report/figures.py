"""The figures of a run, as Matplotlib `Figure`s; `save` writes one as PNG and as PDF."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from probbnn.metrics import AccuracyVsConfidence, Reliability, RiskCoverage

__all__ = [
    "accuracy_vs_confidence_figure",
    "entropy_figure",
    "reliability_figure",
    "risk_coverage_figure",
    "save",
    "trace_figure",
]

# Okabe & Ito's colours, told apart by people with any colour vision.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#D55E00", "#009E73"
_COLOURS = [_BLUE, _ORANGE, _GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
_STYLES = ["-", "--", "-.", ":"]


def save(figure: Figure, stem: Path) -> None:
    """Write ``figure`` to ``stem``.png and ``stem``.pdf."""
    # TrueType fonts keep the text of a PDF searchable; no date, so that reruns are identical.
    with mpl.rc_context({"pdf.fonttype": 42}):
        figure.savefig(stem.with_suffix(".pdf"), metadata={"CreationDate": None})
        figure.savefig(stem.with_suffix(".png"), dpi=150)


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


def entropy_figure(entropies: Mapping[str, np.ndarray], num_classes: int, title: str) -> Figure:
    """Histograms of the predictive entropy, one line per set of inputs."""
    figure, axes = _figure()
    bins = np.linspace(0, np.log(num_classes), 31).tolist()
    for (name, values), style in zip(entropies.items(), _styles(), strict=False):
        weights = np.full(len(values), 100 / len(values))
        axes.hist(values, bins=bins, weights=weights, histtype="step", label=name, **style)
    axes.set(
        xlabel=f"predictive entropy (nats; at most log {num_classes} = {bins[-1]:.2f})",
        ylabel="share of inputs (%)",
        title=title,
        yscale="log",
    )
    axes.legend()
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
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _styles() -> list[dict[str, Any]]:
    return [{"color": c, "ls": _STYLES[i % len(_STYLES)]} for i, c in enumerate(_COLOURS)]


def _thin(trace: np.ndarray, points: int = 500) -> tuple[np.ndarray, np.ndarray]:
    steps = np.unique(np.linspace(0, trace.shape[1] - 1, points).astype(int))
    return steps, trace[:, steps]
