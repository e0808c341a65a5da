"""Where chains went, and whether they agree."""

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probbnn.diagnostics.mixing import RHATS
from probbnn.report.figures.style import (
    ORANGE,
    SKY,
    WIDTH,
    Style,
    chain_styles,
    legend,
    line_styles,
    panels,
)
from probbnn.subsample import evenly_spaced

__all__ = ["mixing_figure", "rhat_figure", "running_figure", "trace_figure"]

# Steps that a trace over a whole run is drawn at.
_NUM_STEPS = 500


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
    figure = Figure(figsize=(WIDTH, 0.6 + 1.7 * num_rows), layout="constrained")
    grid = figure.add_gridspec(num_rows, 2, width_ratios=(3, 2))
    if trace is not None:
        axes = figure.add_subplot(grid[0, :])
        _log_density(axes, *trace)
        axes.set_title("log density at every step (minibatch estimate)", fontsize="small")
    for row, (name, values) in enumerate(quantities.items(), start=num_rows - len(quantities)):
        left, right = figure.add_subplot(grid[row, 0]), figure.add_subplot(grid[row, 1])
        styles = chain_styles(len(values))
        for chain, style in zip(values, styles, strict=True):
            left.plot(chain, lw=0.7, alpha=0.8, **style)
        left.set_title(f"{name}: trace", fontsize="small")
        _rank_bars(right, values, styles)
        right.set_title("ranks", fontsize="small")
    for axes in figure.axes:
        axes.tick_params(labelsize="x-small")
    figure.suptitle(title, fontsize="medium")
    return figure


def _log_density(axes: Axes, steps: np.ndarray, values: np.ndarray) -> None:
    for chain, style in zip(values, chain_styles(len(values)), strict=True):
        axes.plot(steps, chain, lw=0.7, alpha=0.8, **style)
    # The way in from the start would squash everything that follows.
    settled = values[:, len(steps) // 2 :]
    if np.isfinite(settled).all() and np.ptp(settled) > 0:
        room = 0.3 * np.ptp(settled)
        axes.set_ylim(settled.min() - room, settled.max() + room)


def _rank_bars(axes: Axes, values: np.ndarray, styles: Sequence[Style]) -> None:
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
    figure, column = panels(len(rhats), 0.9 + 1.5 * len(rhats))
    excess = {name: np.maximum(values - 1, 1e-3) for name, values in rhats.items()}
    highest = max(0.2, *(float(values.max(initial=0)) for values in excess.values()))
    bins = np.geomspace(1e-3, 1.1 * highest, 41).tolist()
    for axes, (name, values) in zip(column, excess.items(), strict=True):
        weights = np.full(len(values), 100 / max(1, len(values)))
        axes.hist(values, bins=bins, weights=weights, color=SKY)
        for limit, dashes in zip(RHATS, ("-", "--", ":"), strict=True):
            axes.axvline(limit - 1, color=ORANGE, ls=dashes, lw=1.2)
        axes.set(xscale="log", ylabel="share (%)")
        axes.set_title(name, fontsize="small")
    marks = [x for x in (1.001, 1.01, 1.05, 1.1, 1.5, 2, 5, 11, 101) if x - 1 <= 1.1 * highest]
    column[-1].set_xticks([x - 1 for x in marks], [f"{x:g}" for x in marks])
    column[-1].minorticks_off()
    column[-1].set_xlabel("R-hat (1.001 and below in the first bar)")
    figure.suptitle(title, fontsize="medium")
    return figure


def running_figure(curves: Mapping[str, tuple[np.ndarray, np.ndarray | None]]) -> Figure:
    """NLL and accuracy of the average over the draws so far: ``(nll, accuracy or None)`` each."""
    with_accuracy = any(accuracy is not None for _, accuracy in curves.values())
    num_rows = 1 + with_accuracy
    figure, column = panels(num_rows, 0.8 + 2 * num_rows)
    for name, style in line_styles(curves).items():
        nll, accuracy = curves[name]
        column[0].plot(np.arange(1, len(nll) + 1), nll, label=name, **style)
        if accuracy is not None:
            column[1].plot(np.arange(1, len(accuracy) + 1), 100 * accuracy, label=name, **style)
    column[0].set(ylabel="NLL (nats)")
    if with_accuracy:
        column[1].set(ylabel="accuracy (%)")
    column[-1].set_xlabel("draws of each chain, averaged over so far")
    legend(column[0])
    return figure


def trace_figure(traces: Mapping[str, np.ndarray], title: str) -> Figure:
    """Minibatch estimate of the log density at every step, ``(chain, step)`` per method."""
    figure, (axes,) = panels(1, 3.6)
    lowest = np.inf
    for name, style in line_styles(traces).items():
        steps = evenly_spaced(traces[name].shape[1], _NUM_STEPS)
        values = traces[name][:, steps]
        for chain, line in enumerate(values):
            label = name if chain == 0 else None
            axes.plot(steps, line, lw=0.7, alpha=0.7, label=label, **style)
        # The way in from the start would squash everything that follows.
        lowest = min(lowest, np.quantile(values[:, len(steps) // 2 :], 0.001))
    axes.set(xlabel="step", ylabel="log density (minibatch estimate)", title=title)
    top = axes.get_ylim()[1]
    axes.set_ylim(bottom=lowest - 0.05 * abs(top - lowest))
    legend(axes)
    return figure
