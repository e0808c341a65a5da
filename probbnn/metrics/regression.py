"""Scores of a regression: whether it is right, and knows how wrong it is.

A predictive is taken for a Gaussian with its mean and standard deviation, which a mixture over
draws need not be; only an NLL from `probbnn.log_predictive` is that of the mixture itself.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from probbnn.arrays import unmasked
from probbnn.errors import InputError
from probbnn.metrics._tables import Intervals
from probbnn.metrics.bootstrap import Interval, bootstrap_counts, bootstrap_means, means

__all__ = [
    "HasMoments",
    "RegressionEvaluation",
    "RegressionFidelity",
    "evaluate_regression",
    "regression_fidelity",
]


class HasMoments(Protocol):
    """An object that carries means and standard deviations, such as a `GaussianPredictive`."""

    @property
    def mean(self) -> npt.ArrayLike:
        """Predicted means, (n,) or (n, k), in units of the targets."""

    @property
    def std(self) -> npt.ArrayLike:
        """Standard deviations of a new observation, like `mean`."""


@dataclass(frozen=True)
class RegressionEvaluation(Intervals):
    """Metrics of a regression's predictive, with 95 % bootstrap intervals.

    ``print`` it for a table. With k outputs each is a mean over them, but for ``nll``, their sum.

    Attributes:
        rmse: Root of the mean squared error of the mean, in units of the targets.
        nll: Mean negative log predictive density of the targets, in nats.
        crps: Mean continuous ranked probability score, in units of the targets; the mean absolute
            error of a predictive that is certain.
        coverage_50: Fraction of targets inside the central interval of 50 % probability.
        coverage_90: Likewise of 90 %.
        width_90: Mean width of the central 90 % interval, in units of the targets.
    """

    _title: ClassVar = "regression"

    rmse: Interval
    nll: Interval
    crps: Interval
    coverage_50: Interval
    coverage_90: Interval
    width_90: Interval


def evaluate_regression(
    predictive: HasMoments,
    targets: npt.ArrayLike,
    log_predictive: npt.ArrayLike | None = None,
    *,
    num_resamples: int = 500,
    seed: int = 0,
) -> RegressionEvaluation:
    """Every metric of a regression against held-out targets, with 95 % bootstrap intervals.

    CRPS, coverage and width are those of the Gaussian with the predictive's mean and standard
    deviation. All intervals come from the same resamples of rows: see `bootstrap`.

    Source: Gneiting & Raftery (2007), "Strictly proper scoring rules, prediction, and estimation",
    for the CRPS of a Gaussian.

    Args:
        predictive: A `GaussianPredictive`, or an object with ``mean`` and ``std``, (n,) or (n, k).
        targets: True values, (n,) or (n, k).
        log_predictive: Log density of each target, (n,), as `probbnn.log_predictive` returns it,
            for the NLL; default: that of the Gaussian.
        num_resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the bootstrap.

    Raises:
        InputError: If an argument is not as described, or the shapes do not fit.

    Examples:
        >>> import types
        >>> predictive = types.SimpleNamespace(mean=[0.0] * 10, std=[1.0] * 10)
        >>> print(evaluate_regression(predictive, [-1.0] * 5 + [1.0] * 5))
        regression   value [95 % interval]
        rmse         1 [1, 1]
        nll          1.419 [1.419, 1.419]
        crps         0.6024 [0.6024, 0.6024]
        coverage_50  0 [0, 0]
        coverage_90  1 [1, 1]
        width_90     3.29 [3.29, 3.29]
    """
    mean, std = _check_moments(predictive.mean, predictive.std)
    error = _check_targets(targets, mean) - mean
    z = error / std
    if log_predictive is None:
        log_density = -0.5 * z**2 - np.log(std) - 0.5 * np.log(2 * np.pi)
        nll = -log_density.sum(axis=1)
    else:
        nll = -_check_log_predictive(log_predictive, len(mean))
    density = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    crps = std * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    absolute = np.abs(z)
    squared_error, *others = (
        np.mean(rows, axis=1)
        for rows in (
            error**2,
            crps,
            absolute <= _half_width(0.5),
            absolute <= _half_width(0.9),
            2 * _half_width(0.9) * std,
        )
    )
    columns = np.stack([squared_error, nll, *others])

    def metrics(counts: np.ndarray) -> np.ndarray:
        found = means(counts, columns)
        found[:, 0] = np.sqrt(found[:, 0])
        return found

    return RegressionEvaluation(
        *bootstrap_counts(metrics, len(mean), num_resamples=num_resamples, seed=seed)
    )


def _half_width(level: float) -> float:
    """Standard deviations from the mean to the end of a Gaussian's central interval."""
    return float(ndtri(0.5 + level / 2))


@dataclass(frozen=True)
class RegressionFidelity(Intervals):
    """How close a regression's predictive is to that of a reference, with 95 % intervals.

    ``print`` it for a table. Each is a mean over inputs and outputs; 0 is perfect.

    Attributes:
        mean_error: |mean - reference mean| in standard deviations of the reference.
        spread_error: |log(std / reference std)|: 0.1 is about 10 % too much or too little.
        total_variation: Total variation distance of the two Gaussians, in [0, 1].
    """

    _title: ClassVar = "fidelity"

    mean_error: Interval
    spread_error: Interval
    total_variation: Interval


def regression_fidelity(
    mean: npt.ArrayLike,
    std: npt.ArrayLike,
    reference_mean: npt.ArrayLike,
    reference_std: npt.ArrayLike,
    *,
    num_resamples: int = 500,
    seed: int = 0,
) -> RegressionFidelity:
    """How close a regression's predictive is to that of a reference posterior.

    Both are taken for Gaussians with these means and standard deviations. With ``std`` of a
    `GaussianPredictive` they are distributions of a new observation, which noise makes alike; with
    ``epistemic_std`` they are those of the function, where samplers differ. The 95 % bootstrap
    intervals tell nothing about other draws of either posterior: see `bootstrap`.

    Args:
        mean: Predicted means, (n,) or (n, k).
        std: Standard deviations, likewise.
        reference_mean: Means of the reference for the same inputs, likewise.
        reference_std: Standard deviations of the reference, likewise.
        num_resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the bootstrap.

    Raises:
        InputError: If an argument is not as described, or the shapes differ.

    Examples:
        >>> print(regression_fidelity([0.1] * 9, [1.0] * 9, [0.0] * 9, [1.0] * 9))
        fidelity         value [95 % interval]
        mean_error       0.1 [0.1, 0.1]
        spread_error     0 [0, 0]
        total_variation  0.03988 [0.03988, 0.03988]
    """
    mean, std = _check_moments(mean, std)
    try:
        reference_mean, reference_std = _check_moments(reference_mean, reference_std)
    except InputError as error:
        raise InputError(f"reference: {error}") from None
    if mean.shape != reference_mean.shape:
        raise InputError(
            f"the mean has {mean.shape} rows and outputs and that of the reference "
            f"{reference_mean.shape}; expected the same: predict with both for the same inputs."
        )
    by_row = [
        np.mean(rows, axis=1)
        for rows in (
            np.abs(mean - reference_mean) / reference_std,
            np.abs(np.log(std / reference_std)),
            _total_variation(mean, std, reference_mean, reference_std),
        )
    ]
    return RegressionFidelity(*bootstrap_means(*by_row, num_resamples=num_resamples, seed=seed))


def _total_variation(
    mean: np.ndarray, std: np.ndarray, other_mean: np.ndarray, other_std: np.ndarray
) -> np.ndarray:
    """Total variation distance of Gaussians, in closed form, elementwise.

    It is what the narrower has more of between the two points where the densities cross. On the
    narrower's scale the wider is N(d, r²), and z²(r² - 1) + 2dz - d² - 2r² log r = 0 there.
    """
    narrow, wide = np.minimum(std, other_std), np.maximum(std, other_std)
    d, r = np.abs(mean - other_mean) / narrow, wide / narrow
    # The sum of two positive terms: no cancellation where the spreads are almost equal.
    q = d + r * np.sqrt(d**2 + 2 * (r**2 - 1) * np.log(r))
    same = q == 0
    q = np.where(same, 1.0, q)
    with np.errstate(divide="ignore"):  # equal spreads cross only once
        low = -q / (r**2 - 1)
    high = (d**2 + 2 * r**2 * np.log(r)) / q
    distance = ndtr(high) - ndtr(low) - ndtr((high - d) / r) + ndtr((low - d) / r)
    return np.where(same, 0.0, distance.clip(0, 1))


def _check_moments(mean: npt.ArrayLike, std: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations as float64 of shape (n, k)."""
    mean, std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    if mean.ndim == 0 or not mean.size or std.shape != mean.shape:
        raise InputError(
            f"the mean has shape {mean.shape} and std {std.shape}; expected the same (n,) or "
            "(n, k), with at least one row."
        )
    if not np.isfinite(mean).all() or not (np.isfinite(std) & (std > 0)).all():
        raise InputError(
            "expected finite means and positive finite standard deviations: look for divergent "
            "draws, and note that a single draw has no epistemic_std."
        )
    return mean.reshape(len(mean), -1), std.reshape(len(std), -1)


def _check_targets(targets: npt.ArrayLike, mean: np.ndarray) -> np.ndarray:
    targets = unmasked(targets, "targets").astype(np.float64, copy=False)
    if targets.shape[:1] != mean.shape[:1] or targets.size != mean.size:
        raise InputError(
            f"targets have shape {targets.shape} and there are {mean.shape[0]} rows of "
            f"{mean.shape[1]} means; expected one target for each mean."
        )
    if not np.isfinite(targets).all():
        raise InputError("targets contain NaN or infinity; leave those rows out.")
    return targets.reshape(mean.shape)


def _check_log_predictive(log_predictive: npt.ArrayLike, num_rows: int) -> np.ndarray:
    log_predictive = np.asarray(log_predictive, np.float64)
    if log_predictive.shape != (num_rows,) or np.isnan(log_predictive).any():
        raise InputError(
            f"log_predictive has shape {log_predictive.shape}; expected one number for each of "
            f"{num_rows} rows, as probbnn.log_predictive returns them."
        )
    return log_predictive
