"""What the predictions of several methods are worth: accuracy, coverage, calibration, entropy."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from probbnn.metrics import AccuracyVsConfidence, Reliability, RiskCoverage
from probbnn.report.figures.style import (
    BLUE,
    ORANGE,
    Style,
    is_many,
    legend,
    line_styles,
    panels,
)

__all__ = [
    "accuracy_vs_confidence_figure",
    "coverage_figure",
    "reliability_figure",
    "risk_coverage_figure",
    "uncertainty_figure",
]


def accuracy_vs_confidence_figure(curve: AccuracyVsConfidence, title: str) -> Figure:
    """Accuracy on the confident predictions (left axis) and how many those are (right axis).

    The horizontal line is the plain accuracy, that is, at threshold 0. Where no prediction
    passes, the accuracy has no point.
    """
    figure, (axes,) = panels(1, 3.6)
    percent = 100 * curve.accuracy
    if curve.low is not None and curve.high is not None:
        axes.fill_between(
            curve.thresholds, 100 * curve.low, 100 * curve.high, color=BLUE, alpha=0.15, lw=0
        )
    (certain,) = axes.plot(
        curve.thresholds, percent, "o-", color=BLUE, label="accuracy at certainty"
    )
    plain = axes.axhline(percent[0], color=BLUE, ls=":", label=f"accuracy ({percent[0]:.1f} %)")
    axes.set(xlabel="certainty threshold", ylabel="accuracy (%)", title=title, ylim=(-3, 103))
    axes.yaxis.label.set_color(BLUE)
    right = axes.twinx()
    (coverage,) = right.plot(
        curve.thresholds, 100 * curve.coverage, "s--", color=ORANGE, label="percent certain"
    )
    right.set(ylabel="percent certain", ylim=(-3, 103))
    right.yaxis.label.set_color(ORANGE)
    right.legend(handles=[certain, plain, coverage], loc="best", framealpha=0.9)
    return figure


def coverage_figure(
    curves: Mapping[str, AccuracyVsConfidence],
    title: str,
    styles: Mapping[str, Style] | None = None,
) -> Figure:
    """Accuracy of what passes a confidence threshold, and how much passes, for several methods.

    Where nothing passes, the accuracy has no point; where no label is right, it has no panel.
    """
    any_right = any(np.nansum(curve.accuracy) > 0 for curve in curves.values())
    wide = is_many(curves)
    figure, axes = panels(2 if any_right else 1, 4.6 if any_right else 2.8, wide=wide)
    accuracy, coverage = axes[0], axes[-1]
    for name, style in (styles or line_styles(curves)).items():
        curve = curves[name]
        marked = {"marker": "o", "ms": 3.5, "label": name, **style}
        coverage.plot(curve.thresholds, 100 * curve.coverage, **marked)
        if not any_right:
            continue
        accuracy.plot(curve.thresholds, 100 * curve.accuracy, **marked)
        if curve.low is not None and curve.high is not None and not wide:
            bounds = 100 * curve.low, 100 * curve.high
            accuracy.fill_between(curve.thresholds, *bounds, color=style["color"], alpha=0.12, lw=0)
    if any_right:
        low, high = accuracy.get_ylim()
        # Less than ten points is mostly chance, and should not look like much.
        high = min(101, max(high, low + 10))
        accuracy.set(ylabel="accuracy of these (%)", ylim=(min(low, high - 10), high))
    coverage.set(ylabel="inputs that pass (%)", ylim=(-3, 103))
    for panel in axes if wide else [coverage]:
        panel.set_xlabel("confidence threshold")
    if wide:
        figure.suptitle(title)
    else:
        accuracy.set_title(title)
    legend(coverage, beside=wide, loc="lower left")
    return figure


def reliability_figure(
    curves: Mapping[str, Reliability],
    title: str = "Reliability",
    styles: Mapping[str, Style] | None = None,
) -> Figure:
    """Accuracy against confidence, bin by bin, for several methods; the diagonal is calibrated."""
    wide = is_many(curves)
    figure, (axes,) = panels(1, 3.6, wide=wide)
    axes.plot([0, 1], [0, 1], color="0.6", lw=1, label="calibrated")
    for name, style in (styles or line_styles(curves)).items():
        curve = curves[name]
        marked = {"marker": "o", "ms": 4, "label": name, **style}
        axes.plot(curve.confidence, curve.accuracy, **marked)
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1), title=title)
    legend(axes, beside=wide)
    return figure


def risk_coverage_figure(curves: Mapping[str, RiskCoverage]) -> Figure:
    """Error on the most confident share of the predictions, for several methods."""
    figure, (axes,) = panels(1, 3.6)
    for name, style in line_styles(curves).items():
        axes.plot(100 * curves[name].coverage, 100 * curves[name].risk, label=name, **style)
    axes.set(xlabel="coverage (%)", ylabel="error (%)", title="Risk–coverage", xlim=(0, 100))
    axes.set_ylim(bottom=0)
    legend(axes)
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
    figure, column = panels(len(shown), 0.8 + 2.1 * len(shown))
    for axes, name in zip(column, shown, strict=True):
        for label, style in line_styles(uncertainty[name]).items():
            shares = 100 * np.asarray(uncertainty[name][label])
            axes.stairs(shares, edges, label=label, lw=1.4, **style)
        axes.set(ylabel="inputs (%)", yscale="log", title=f"{title}: {name}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    column[-1].set_xlabel(f"nats; at most log of the number of classes, {edges[-1]:.2f}")
    legend(column[0], ncols=2, fontsize="small")
    return figure
