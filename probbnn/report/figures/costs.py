"""Many methods side by side: quality against what it cost, and detection of other data."""

import itertools
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from probbnn.report.figures.style import MARKERS, Style, legend, line_styles, panels

__all__ = ["cost_figure", "detection_figure"]

_COSTS = {
    "seconds": "wall time, compilation apart (s)",
    "passes": "gradients (passes over the data, all chains)",
}


def cost_figure(
    paths: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    quality: str,
    styles: Mapping[str, Style],
    floor: float | None = None,
) -> Figure:
    """Quality against wall time and against gradients; each path ends in its method's marker.

    Args:
        paths: of each method, for ``"seconds"`` and for ``"passes"`` where they are known: what
            it had cost after more and more draws, and the quality then, ``(point,)`` each.
        quality: what that is, smaller being better.
        styles: colour and marker of each method.
        floor: the distance that a perfect sampler would have to the reference, if the quality is
            one; on a logarithmic axis then.
    """
    figure, (left, right) = panels(2, 5, wide=True)
    right.sharey(left)
    right.tick_params(labelleft=False)
    for axes, (cost, label) in zip((left, right), _COSTS.items(), strict=True):
        for name, of_method in paths.items():
            if cost in of_method:
                x, y = of_method[cost]
                axes.plot(x, y, lw=1, alpha=0.7, color=styles[name]["color"])
                axes.plot(x[-1], y[-1], ms=9, mec="white", ls="", label=name, **styles[name])
        if floor is not None:
            axes.axhline(floor, color="0.4", ls=":", lw=1, label="reference, half against half")
            axes.set_yscale("log")
        axes.set(xscale="log", xlabel=label)
    left.set_ylabel(f"{quality} (lower is better)")
    figure.suptitle("Quality against cost, more draws from left to right")
    legend(left, beside=True)
    return figure


def detection_figure(scores: Mapping[str, Mapping[str, float]]) -> Figure:
    """AUROC by predictive entropy of each method on each out-of-distribution set, by name."""
    figure = Figure(figsize=(8, 1.5 + 0.35 * len(scores)), layout="constrained")
    axes = figure.subplots()
    sets = dict.fromkeys(label for of_method in scores.values() for label in of_method)
    for (label, style), marker in zip(
        line_styles(sets).items(), itertools.cycle(MARKERS), strict=False
    ):
        found = [of_method[label] for of_method in scores.values()]
        shape = {"color": style["color"], "marker": marker, "ls": "", "ms": 7}
        axes.plot(found, range(len(found)), alpha=0.8, label=label, **shape)
    axes.set_yticks(range(len(scores)), list(scores))
    axes.invert_yaxis()
    axes.axvline(0.5, color="0.4", ls=":", lw=1)
    axes.set(xlabel="AUROC by predictive entropy (0.5: guessing)", title="Detection of other data")
    axes.grid(alpha=0.3)
    legend(axes, beside=True)
    return figure
