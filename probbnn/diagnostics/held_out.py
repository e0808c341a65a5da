"""What the draws are worth for examples: running scores, and PSIS-LOO of the training examples."""

from typing import NamedTuple

import numpy as np

from probbnn.diagnostics import ranks, trees
from probbnn.diagnostics.arviz_seam import LOO, psis_loo
from probbnn.metrics import NLL_FLOOR
from probbnn.subsample import random_subset

__all__ = ["Running", "loo", "running"]

# Of more than this, a random subset says the same.
_MAX_EXAMPLES = 1_000
# A fifth of the draws is the tail that PSIS fits a distribution to, and it takes five.
_MIN_DRAWS = 25


class Running(NamedTuple):
    """Predictions as draws come in, all chains together, after each draw.

    Attributes:
        nll: mean negative log likelihood of the averaged likelihood, nats, ``(draw,)``.
        accuracy: of the averaged probabilities, ``(draw,)``; ``None`` without probabilities.
        held_out: whether on held-out examples, or on those that were trained on.
    """

    nll: np.ndarray
    accuracy: np.ndarray | None
    held_out: bool


def running(tree: trees.Tree) -> Running | None:
    """NLL and accuracy against draws, if the tree has a log likelihood."""
    predictions, seen = trees.group(tree, "predictions"), trees.group(tree, "log_likelihood")
    if predictions is not None and "log_likelihood" in predictions:
        _, log_likelihood = trees.values(predictions[["log_likelihood"]])
    elif seen is not None:
        _, log_likelihood = trees.values(seen)
    else:
        return None
    num_chains, num_draws, num_examples = log_likelihood.shape
    if not num_examples:
        return None
    probabilities = trees.class_probabilities(tree, "predictions", "example")
    data = trees.group(tree, "predictions_constant_data")
    over_chains = np.logaddexp.reduce(log_likelihood.astype(float), axis=0)
    so_far = np.logaddexp.accumulate(over_chains, axis=0)
    so_far -= np.log(num_chains * np.arange(1, num_draws + 1))[:, None]
    if probabilities is not None:
        so_far = np.maximum(so_far, np.log(NLL_FLOOR))  # as `metrics.nll` has it
    nll = -so_far.mean(axis=1)
    if probabilities is None or data is None or "targets" not in data:
        return Running(nll, None, held_out=predictions is not None)
    choices = probabilities.mean("chain").values.cumsum(axis=0, dtype=float).argmax(axis=-1)
    return Running(nll, (choices == data["targets"].values).mean(axis=1), held_out=True)


def loo(tree: trees.Tree) -> LOO | None:
    """PSIS-LOO of the examples in ``log_likelihood``, at most 1,000 of them.

    ``None`` without any, with fewer than 25 draws, or if a value is not finite.
    """
    log_likelihood = trees.group(tree, "log_likelihood")
    if log_likelihood is None:
        return None
    _, values = trees.values(log_likelihood)
    if not values.size:
        return None
    values = values[..., random_subset(values.shape[-1], _MAX_EXAMPLES)].astype(float)
    # One that every draw is equally sure of has no tail to look at.
    values = values[..., np.ptp(values, axis=(0, 1)) > 0]
    num_chains, num_draws, num_examples = values.shape
    few = num_chains * num_draws < _MIN_DRAWS
    if few or not num_examples or not np.isfinite(values).all():
        return None
    efficiency = np.nanmean(ranks.ess_mean(np.exp(values))) / (num_chains * num_draws)
    return psis_loo(values, float(np.nan_to_num(min(efficiency, 1.0), nan=1.0)))
