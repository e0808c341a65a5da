"""Chains against themselves and against each other, to tell what keeps them from agreeing.

Values are ``(chain, draw, value)`` and finite. Where there are too few chains or draws, a function
returns ``None``.

Source of the nested R-hat: Margossian et al. (2024), "Nested R-hat: assessing the convergence of
Markov chain Monte Carlo when running many short chains".
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from probbnn.diagnostics import ranks, trees
from probbnn.diagnostics.mixing import MAX_RHAT
from probbnn.errors import InputError
from probbnn.metrics import Interval
from probbnn.subsample import random_subset

__all__ = [
    "CrossChain",
    "Disagreement",
    "leave_one_chain_out",
    "cross_chain",
    "disagreement",
    "distances",
    "some_varying",
    "spread",
    "superchain_ids",
    "within_chain",
]

# Of more than this, a random subset says the same.
_MAX_VALUES = 300
_NUM_SHIFTS = 20


class CrossChain(NamedTuple):
    """How far the chains move together.

    Attributes:
        correlation: of the steps from draw to draw, mean over pairs of chains and values.
        noise: standard deviation of that among chains shifted in time against each other.
    """

    correlation: float
    noise: float


class Disagreement(NamedTuple):
    """How far each chain's predictive is from that of the others.

    Attributes:
        total_variation: mean over inputs, in [0, 1], ``(chain,)``.
        top_class: share of inputs for which the chains' first choices are not all the same.
        between: total variation between two chains, mean over inputs and pairs, with its 95 %
            interval over the seeds that the chains might have had; NaN for two chains.
    """

    total_variation: np.ndarray
    top_class: float
    between: Interval


def some_varying(values: np.ndarray) -> np.ndarray:
    """At most 300 of the values, without those that never change."""
    some = values[..., random_subset(values.shape[-1], _MAX_VALUES)]
    return some[..., np.ptp(some, axis=(0, 1)) > 0]


def within_chain(values: np.ndarray) -> np.ndarray | None:
    """R-hat of each chain against itself, in quarters, ``(chain, value)``."""
    half = values.shape[1] // 2
    if half < ranks.MIN_DRAWS:
        return None
    return np.stack([ranks.rhat(np.stack([chain[:half], chain[-half:]])) for chain in values])


def spread(values: np.ndarray) -> np.ndarray | None:
    """Each chain's standard deviation against that of the chains that move, ``(chain,)``."""
    if len(values) < 2 or not values.shape[-1]:
        return None
    # In units of the chains that move, however few they are.
    deviations = values.std(axis=1, dtype=float)
    moving = deviations > 1e-6 * np.ptp(values, axis=(0, 1))
    typical = np.ma.median(np.ma.array(deviations, mask=~moving), axis=0).filled(np.inf)
    return np.median(deviations / typical, axis=1)


def leave_one_chain_out(values: np.ndarray) -> np.ndarray | None:
    """Share of the values with R-hat > 1.01 among the other chains, ``(chain,)``."""
    if len(values) < 3 or not values.shape[-1]:
        return None
    return np.array(
        [
            np.mean(ranks.rhat(np.delete(values, chain, axis=0)) > MAX_RHAT)
            for chain in range(len(values))
        ]
    )


def distances(values: np.ndarray) -> np.ndarray | None:
    """How far each chain's mean is from that of the others, in standard errors, ``(chain,)``.

    Median over the values with R-hat > 1.01; NaN without any. Each chain's error is that of its own
    draws, autocorrelation counted, so that a chain that is slow is not taken for one elsewhere.
    """
    if len(values) < 2 or not values.shape[-1]:
        return None
    bad = values[..., ranks.rhat(values) > MAX_RHAT]
    if not bad.shape[-1]:
        return np.full(len(values), np.nan)
    means = bad.mean(axis=1, dtype=float)
    variances = np.stack([np.square(ranks.mcse_mean(chain[None])) for chain in bad])
    others = (means.sum(axis=0) - means) / (len(means) - 1)
    of_others = (variances.sum(axis=0) - variances) / (len(means) - 1) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.median(np.abs(means - others) / np.sqrt(variances + of_others), axis=1)


def cross_chain(values: np.ndarray) -> CrossChain | None:
    """Correlation of the chains' steps: a common trend, as on the way from the start, is none."""
    steps = np.diff(values.astype(float), axis=1)
    steps -= steps.mean(axis=1, keepdims=True)
    lengths = np.sqrt(np.square(steps).sum(axis=1, keepdims=True))
    moving = (lengths > 0).all(axis=(0, 1))
    if len(values) < 2 or not moving.any():
        return None
    steps = steps[..., moving] / lengths[..., moving]

    def correlation(steps: np.ndarray) -> float:
        together = np.square(steps.sum(axis=0)).sum(axis=0).mean()
        return float((together - len(steps)) / (len(steps) * (len(steps) - 1)))

    rng = np.random.default_rng(0)
    shifted = [
        correlation(np.stack([np.roll(chain, rng.integers(len(chain)), axis=0) for chain in steps]))
        for _ in range(_NUM_SHIFTS)
    ]
    return CrossChain(correlation(steps), float(np.std(shifted)))


def disagreement(tree: trees.Tree) -> Disagreement | None:
    """Chain by chain on held-out examples, or else on the probes, if there are classes."""
    for name, dim in (("predictions", "example"), ("posterior_predictive", "probe")):
        probabilities = trees.class_probabilities(tree, name, dim)
        if probabilities is not None and probabilities.sizes["chain"] > 1:
            means = probabilities.mean("draw").values
            others = (means.sum(axis=0) - means) / (len(means) - 1)
            choices = means.argmax(axis=-1)
            return Disagreement(
                total_variation=0.5 * np.abs(means - others).sum(axis=-1).mean(axis=1),
                top_class=float((choices != choices[0]).any(axis=0).mean()),
                between=_between(means),
            )
    return None


def _between(means: np.ndarray) -> Interval:
    """Mean over pairs of chains, ``(chain, input, class)``, and Student's interval by jackknife."""
    num_chains = len(means)
    pairs = np.array([[0.5 * np.abs(a - b).sum(axis=-1).mean() for b in means] for a in means])
    value = float(pairs.sum() / (num_chains * (num_chains - 1)))
    if num_chains < 3:
        return Interval(value, np.nan, np.nan)
    without = (pairs.sum() - 2 * pairs.sum(axis=1)) / ((num_chains - 1) * (num_chains - 2))
    pseudo = num_chains * value - (num_chains - 1) * without
    error = float(pseudo.std(ddof=1)) / np.sqrt(num_chains)
    width = scipy.stats.t.isf(0.025, num_chains - 1) * error
    return Interval(value, max(0.0, value - width), min(1.0, value + width))


def superchain_ids(superchains: Sequence[int], num_chains: int) -> np.ndarray:
    """The superchain of each chain, numbered from 0, ``(chain,)``, as `ranks.nested_rhat` has it.

    Raises:
        InputError: if they are not at least two, of equal size, of at least two chains.
    """
    _, ids, sizes = np.unique(np.asarray(superchains), return_inverse=True, return_counts=True)
    if len(ids) != num_chains or len(sizes) < 2 or sizes.min() < 2 or np.ptp(sizes):
        raise InputError(
            f"superchains has {len(ids)} entries in groups of {', '.join(map(str, sizes))}, for "
            f"{num_chains} chains; give the group of each chain, in at least two groups of equal "
            "size, of at least two chains"
        )
    return ids
