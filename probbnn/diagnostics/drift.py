"""Drift of the log density: each chain against itself, late in the run."""

import numpy as np

from probbnn.diagnostics import ranks, trees

__all__ = ["drift"]

# Names of the log density in ``sample_stats``: ours, and ArviZ's, whose sign makes no difference.
_LOG_DENSITIES = ("logdensity", "lp")


def drift(tree: trees.Tree) -> float | None:
    """R-hat of each chain's log density against itself, median over the chains.

    Over the second half of the trace, and of that only what follows warm-up unless next to nothing
    does; over the second half of the draws where there is no trace. ``None`` without either.
    """
    trace, stats = trees.group(tree, "trace"), trees.group(tree, "sample_stats")
    source = stats if trace is None else trace
    name = next((name for name in _LOG_DENSITIES if source is not None and name in source), None)
    if source is None or name is None:
        return None
    values = source[name].transpose("chain", ...).values
    start = values.shape[1] // 2
    if trace is not None and stats is not None and "step" in stats and "step" in trace:
        settled = int(np.searchsorted(trace["step"].values, stats["step"].values[0]))
        if settled <= 0.75 * values.shape[1]:
            start = max(start, settled)
    late = values[:, start:, None]
    if late.shape[1] < ranks.MIN_DRAWS or not np.isfinite(late).all():
        return None
    rhats = [float(ranks.rhat(chain[None])[0]) for chain in late if np.ptp(chain) > 0]
    return float(np.median(rhats)) if rhats else None
