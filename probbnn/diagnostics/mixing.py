"""How well chains mix, quantity by quantity: R-hat, effective sample size, Monte Carlo error.

A network's weights can be exchanged without changing what it computes, so that chains may agree on
the function and not on a single weight. What is judged are therefore the values of the function at
probe inputs; where a tree has none, its parameters.

Source: Vehtari et al. (2021), "Rank-normalization, folding, and localization: an improved R-hat for
assessing convergence of MCMC".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import scipy.stats

from probbnn.diagnostics import ranks
from probbnn.diagnostics.trees import Quantities

__all__ = [
    "MAX_RHAT",
    "MIN_ESS",
    "MIN_SHARE",
    "RHATS",
    "WORST_ESS",
    "WORST_RHAT",
    "Mixing",
    "enough_ess",
    "mixes",
    "mixing_of",
]

MAX_RHAT = 1.01
"""R-hat up to which a value counts as converged (Vehtari et al., 2021)."""

MIN_ESS = 400
"""Effective sample size, of bulk and of tail, from which it does (the same)."""

MIN_SHARE = 0.99
"""Share of the values that must do so."""

WORST_RHAT = 1.05
"""No value may be worse than this, however good the others are."""

WORST_ESS = 200
"""Nor have a smaller bulk or tail ESS than this."""

RHATS = (MAX_RHAT, 1.05, 1.1)
"""R-hat thresholds whose shares are reported, from today's strict one to Gelman & Rubin's."""


class _RhatNumbers(TypedDict):
    worst: float
    worst_at: str
    median: float
    share_above: dict[str, float]


class _EssNumbers(TypedDict):
    worst: float
    percentile_1: float
    median: float


class _McseNumbers(TypedDict):
    worst: float
    median: float


class _MixingNumbers(TypedDict):
    num_values: int
    num_constant: int
    share_converged: float
    rhat: _RhatNumbers
    ess_bulk: _EssNumbers
    ess_tail: _EssNumbers
    mcse: _McseNumbers


@dataclass(frozen=True)
class Mixing:
    """How well chains agree on many quantities. NaN for those that never change.

    Attributes:
        names: what each quantity is called, ``(k,)``.
        rhat: rank-normalised split R-hat, ``(k,)``.
        ess_bulk: bulk effective sample size, ``(k,)``.
        ess_tail: the smaller one of the 5 % and 95 % quantiles, ``(k,)``.
        mcse: Monte Carlo standard error of the mean, in units of the quantity, ``(k,)``.
        nonfinite: names of those that are NaN or infinite in some draw.
    """

    names: Sequence[str]
    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray
    mcse: np.ndarray
    nonfinite: Sequence[str] = ()

    @property
    def num_constant(self) -> int:
        """Quantities that were the same in every draw: there is nothing to compare."""
        return len(self.names) - self.num_varying - len(self.nonfinite)

    @property
    def num_varying(self) -> int:
        """Those that can be compared, of which the shares are taken."""
        return int((~np.isnan(self.ess_bulk)).sum())

    @property
    def worst(self) -> str:
        """Name of the quantity with the largest R-hat, ``""`` if there is none."""
        known = ~np.isnan(self.rhat)
        return self.names[int(np.nanargmax(self.rhat))] if known.any() else ""

    def share_above(self, rhat: float) -> float:
        """Share of the varying quantities with a larger R-hat."""
        return float(np.mean(self.rhat[~np.isnan(self.rhat)] > rhat))

    @property
    def share_converged(self) -> float:
        """Share of the varying quantities with R-hat ≤ 1.01 and bulk and tail ESS ≥ 400."""
        varying = ~np.isnan(self.ess_bulk)
        good = (self.rhat <= MAX_RHAT) & (self.ess >= MIN_ESS)
        return float(good[varying].mean())

    @property
    def ess(self) -> np.ndarray:
        """The smaller of bulk and tail ESS, ``(k,)``."""
        return np.minimum(self.ess_bulk, self.ess_tail)

    def to_dict(self) -> _MixingNumbers:
        """Worst, median and shares, for JSON."""
        return {
            "num_values": len(self.names),
            "num_constant": self.num_constant,
            "share_converged": self.share_converged,
            "rhat": {
                "worst": float(np.nanmax(self.rhat)),
                "worst_at": self.worst,
                "median": float(np.nanmedian(self.rhat)),
                "share_above": {str(limit): self.share_above(limit) for limit in RHATS},
            },
            "ess_bulk": _ess_numbers(self.ess_bulk),
            "ess_tail": _ess_numbers(self.ess_tail),
            "mcse": {
                "worst": float(np.nanmax(self.mcse)),
                "median": float(np.nanmedian(self.mcse)),
            },
        }


def _ess_numbers(ess: np.ndarray) -> _EssNumbers:
    return {
        "worst": float(np.nanmin(ess)),
        "percentile_1": float(np.nanquantile(ess, 0.01)),
        "median": float(np.nanmedian(ess)),
    }


def mixing_of(quantities: Quantities) -> Mixing:
    """How well the chains agree on these quantities."""
    names, values = quantities
    finite = np.isfinite(values).all(axis=(0, 1))
    varying = finite & (np.ptp(values, axis=(0, 1)) > 0)

    def of_varying(statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        result = np.full(len(names), np.nan)
        result[varying] = statistic(values[..., varying])
        return result

    return Mixing(
        names=names,
        rhat=of_varying(ranks.rhat),
        ess_bulk=of_varying(ranks.ess_bulk),
        ess_tail=of_varying(ranks.ess_tail),
        mcse=of_varying(ranks.mcse_mean),
        nonfinite=[name for name, ok in zip(names, finite, strict=True) if not ok],
    )


def mixes(mixing: Mixing) -> bool:
    """Whether nearly all values are well mixed, and none is far from it.

    At least 99 % of the values have R-hat ≤ 1.01 and a bulk and tail ESS of at least 400, and none
    has an R-hat above 1.05 or an ESS below 200. False where no value ever changes. The rule of
    `probbnn.judge`, and the only one.
    """
    return (
        mixing.num_varying > 0
        and mixing.share_converged >= MIN_SHARE
        and bool(np.nanmax(mixing.rhat) <= WORST_RHAT and np.nanmin(mixing.ess) >= WORST_ESS)
    )


def enough_ess(num_chains: int) -> float:
    """Effective sample size at which chance lets 99 % of the values pass the limit on R-hat.

    Means of the 2C halves of stationary chains, of n effective draws each, have
    R-hat² ≈ 1 + (χ²/(2C − 1) − 1)/n with 2C − 1 degrees of freedom; bulk and folded may each fail
    0.5 % of the time.
    """
    freedom = 2 * num_chains - 1
    excess = scipy.stats.chi2.isf((1 - MIN_SHARE) / 2, freedom) / freedom - 1
    return max(float(MIN_ESS), 2 * num_chains * excess / (MAX_RHAT**2 - 1))
