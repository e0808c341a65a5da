"""R-hat, effective sample size and Monte Carlo error of many quantities at once.

The same numbers as ArviZ's `rhat`, `ess` and `mcse`, which the tests hold them to; ArviZ takes one
quantity at a time, and a network has thousands. Values are ``(chain, draw, quantity)``, results
``(quantity,)``. Where they differ from ArviZ's, it is on purpose:

- A quantity that never changes has no R-hat, no ESS and no error: NaN. ArviZ counts every draw of
  it as effective, which would vouch for a chain that is frozen.
- A single chain has an R-hat, that of its halves, which is what splitting is for.
- The unit is of no consequence. ArviZ takes a range below 1e-15 for no change at all, and a class
  can have probabilities that small.

Sources: Vehtari et al. (2021), "Rank-normalization, folding, and localization: an improved R-hat
for assessing convergence of MCMC"; Margossian et al. (2024), "Nested R-hat: assessing the
convergence of Markov chain Monte Carlo when running many short chains".
"""

from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.special
import scipy.stats

__all__ = ["MIN_DRAWS", "ess_bulk", "ess_mean", "ess_tail", "mcse_mean", "nested_rhat", "rhat"]

MIN_DRAWS = 4
"""Draws per chain below which ArviZ computes nothing."""

# Quantities at once, which bounds the memory.
_BLOCK = 512

_Statistic = Callable[[np.ndarray], np.ndarray]


def rhat(values: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat, the larger of bulk and folded."""
    return _in_blocks(lambda block: _worst_of_bulk_and_folded(block, _rhat), values)


def nested_rhat(values: np.ndarray, superchains: np.ndarray) -> np.ndarray:
    """Rank-normalised split nested R-hat, which asks nothing of a chain's length.

    Args:
        values: ``(chain, draw, quantity)``.
        superchains: which superchain each chain belongs to, integers ``(chain,)`` from 0, each as
            often as the others.
    """
    ids = np.tile(superchains, 2)
    groups = np.stack([np.flatnonzero(ids == k) for k in np.unique(ids)])
    return _in_blocks(
        lambda block: _worst_of_bulk_and_folded(block, lambda z: _nested_rhat(z, groups)), values
    )


def ess_bulk(values: np.ndarray) -> np.ndarray:
    """Effective sample size of the rank-normalised split chains."""
    return _in_blocks(lambda block: _ess(_normal_scores(_split(block))), values)


def ess_tail(values: np.ndarray) -> np.ndarray:
    """The smaller of the effective sample sizes of the 5 % and the 95 % quantile.

    Of a quantile that is the largest value itself, as of few distinct ones, that of all draws.
    """

    def of_quantile(block: np.ndarray, quantile: np.ndarray) -> np.ndarray:
        below = _split(block <= quantile).astype(float)
        return np.nan_to_num(_ess(below), nan=below[..., 0].size)

    def of_block(block: np.ndarray) -> np.ndarray:
        quantiles = np.quantile(block, [0.05, 0.95], axis=(0, 1))
        ess = np.minimum(*(of_quantile(block, q) for q in quantiles))
        return np.where(np.ptp(block, axis=(0, 1)) > 0, ess, np.nan)

    return _in_blocks(of_block, values)


def ess_mean(values: np.ndarray) -> np.ndarray:
    """Effective sample size of the mean."""
    return _in_blocks(lambda block: _ess(_split(_in_units_of_range(block))), values)


def mcse_mean(values: np.ndarray) -> np.ndarray:
    """Monte Carlo standard error of the mean, in units of the values."""

    def of_block(block: np.ndarray) -> np.ndarray:
        scaled, size = _in_units_of_range(block), np.ptp(block, axis=(0, 1))
        return size * scaled.std(axis=(0, 1), ddof=1) / np.sqrt(_ess(_split(scaled)))

    return _in_blocks(of_block, values)


def _in_blocks(statistic: _Statistic, values: np.ndarray) -> np.ndarray:
    blocks = [
        statistic(values[..., i : i + _BLOCK].astype(float))
        for i in range(0, values.shape[-1], _BLOCK)
    ]
    return np.concatenate(blocks) if blocks else np.empty(0)


def _split(values: np.ndarray) -> np.ndarray:
    """Halves of each chain as chains; the middle draw of an odd number is left out."""
    half = values.shape[1] // 2
    return np.concatenate([values[:, :half], values[:, -half:]])


def _in_units_of_range(values: np.ndarray) -> np.ndarray:
    """From 0 to 1, so that squares of values near 1e-300 are not zero."""
    size = np.ptp(values, axis=(0, 1))
    return (values - values.min(axis=(0, 1))) / np.where(size > 0, size, 1.0)


def _normal_scores(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1, values.shape[-1])
    ranks = scipy.stats.rankdata(flat, axis=0)
    return scipy.special.ndtri((ranks - 3 / 8) / (len(flat) + 1 / 4)).reshape(values.shape)


def _worst_of_bulk_and_folded(values: np.ndarray, statistic: _Statistic) -> np.ndarray:
    halves = _split(values)
    folded = np.abs(halves - np.median(halves, axis=(0, 1)))
    return np.fmax(statistic(_normal_scores(halves)), statistic(_normal_scores(folded)))


def _rhat(values: np.ndarray) -> np.ndarray:
    num_draws = values.shape[1]
    between = values.mean(axis=1).var(axis=0, ddof=1)
    within = values.var(axis=1, ddof=1).mean(axis=0)
    # Chains that stand still at different places: infinite. At the same place: NaN.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(between / within + (num_draws - 1) / num_draws)


def _nested_rhat(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """``groups`` holds the chains of each superchain, ``(superchain, chain)``."""
    means, variances = values.mean(axis=1)[groups], values.var(axis=1, ddof=1)[groups]
    within = (variances.mean(axis=1) + means.var(axis=1, ddof=1)).mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.sqrt(1 + means.mean(axis=1).var(axis=0, ddof=1) / within)


def _ess(values: np.ndarray) -> np.ndarray:
    """Effective sample size by Geyer's initial monotone sequence, over all chains together."""
    num_chains, num_draws, _ = values.shape
    size = num_chains * num_draws
    covariance = _autocovariance(values)
    mean_variance = covariance[0] * num_draws / (num_draws - 1)
    total = covariance[0] + values.mean(axis=1).var(axis=0, ddof=1)
    constant = np.ptp(values, axis=(0, 1)) == 0
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = 1 - (mean_variance - covariance) / total
    correlation[0] = 1.0
    even, odd = correlation[: num_draws // 2 * 2].reshape(num_draws // 2, 2, -1).swapaxes(0, 1)
    pairs = (even + odd)[: max(1, (num_draws - 1) // 2)]
    # Sums of pairs are positive for a reversible chain: the first that is not ends the sequence.
    ends = np.where((pairs <= 0).any(axis=0), (pairs <= 0).argmax(axis=0), len(pairs) - 1)
    before = np.arange(len(pairs))[:, None] < ends
    falling = np.where(before, np.minimum.accumulate(pairs), 0.0).sum(axis=0)
    last = np.maximum(np.take_along_axis(even, ends[None], axis=0)[0], 0.0)
    time = np.maximum(2 * falling - 1 + last, 1 / np.log10(size))
    return np.where(constant, np.nan, size / time)


def _autocovariance(values: np.ndarray) -> np.ndarray:
    """Mean over chains of the autocovariance at every lag, ``(lag, quantity)``."""
    num_draws = values.shape[1]
    length = scipy.fft.next_fast_len(2 * num_draws, real=True)
    spectrum = scipy.fft.rfft(values - values.mean(axis=1, keepdims=True), length, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=0)
    return scipy.fft.irfft(power, length, axis=0)[:num_draws] / num_draws
