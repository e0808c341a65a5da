"""Scores of a regression: whether it is right, and knows how wrong it is.

A predictive is taken for a Gaussian with its mean and standard deviation, which a mixture over
draws need not be; only an NLL from `probbnn.log_predictive` is that of the mixture itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from probbnn.arrays import unmasked
from probbnn.errors import InputError
from probbnn.metrics._tables import Intervals
from probbnn.metrics.bootstrap import Interval, bootstrap_means, bootstrap_rows, means

__all__ = [
    "HasMoments",
    "RegressionEvaluation",
    "RegressionFidelity",
    "SampleEvaluation",
    "evaluate_regression",
    "evaluate_replicates",
    "pit",
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

    ``print`` it for a table. With k outputs each is a mean over them, but for ``nll``, their sum,
    and `by_output` has them one by one.

    Attributes:
        rmse: Root of the mean squared error of the mean, in units of the targets.
        nll: Mean negative log predictive density of the targets, in nats.
        crps: Mean continuous ranked probability score, in units of the targets; the mean absolute
            error of a predictive that is certain.
        coverage_50: Fraction of targets inside the central interval of 50 % probability.
        coverage_90: Likewise of 90 %.
        width_90: Mean width of the central 90 % interval, in units of the targets.
        by_output: RMSE, CRPS and coverage of each output, ``"coverage_90[0]"``, …, where there are
            several: noise that is right on average can be wrong for each of them.
    """

    _title: ClassVar = "regression"

    rmse: Interval
    nll: Interval
    crps: Interval
    coverage_50: Interval
    coverage_90: Interval
    width_90: Interval
    by_output: Mapping[str, Interval] = field(default_factory=dict)


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
    rows = {
        "rmse": error**2,
        "crps": crps,
        "coverage_50": absolute <= _half_width(0.5),
        "coverage_90": absolute <= _half_width(0.9),
        "width_90": 2 * _half_width(0.9) * std,
    }
    found, by_output = _intervals(rows, {"nll": nll}, num_resamples, seed)
    return RegressionEvaluation(**found, by_output=by_output)


_OF_AN_OUTPUT = ("rmse", "crps", "coverage_50", "coverage_90")


def _intervals(
    rows: Mapping[str, np.ndarray], of_rows: Mapping[str, np.ndarray], num_resamples: int, seed: int
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Intervals of means over rows and outputs, and of each output where there are several.

    Args:
        rows: what is averaged, (n, k) each, by name; of what is called rmse, the root.
        of_rows: likewise, (n,) each.
        num_resamples: Number of bootstrap resamples.
        seed: Seed of the bootstrap.
    """
    columns = {name: np.mean(values, axis=1) for name, values in rows.items()} | dict(of_rows)
    num_outputs = next(iter(rows.values())).shape[1]
    if num_outputs > 1:
        columns |= {
            f"{name}[{k}]": rows[name][:, k].astype(float)
            for name in _OF_AN_OUTPUT
            for k in range(num_outputs)
        }
    names, values = list(columns), np.stack(list(columns.values()))
    is_root = np.array([name.startswith("rmse") for name in names])

    def metrics_of(examples: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        some = values.take(examples, axis=1)

        def metrics(counts: np.ndarray) -> np.ndarray:
            found = means(counts, some)
            found[:, is_root] = np.sqrt(found[:, is_root])
            return found

        return metrics

    intervals = bootstrap_rows(metrics_of, values.shape[1], num_resamples=num_resamples, seed=seed)
    found = dict(zip(names, intervals, strict=True))
    by_output = {name: found.pop(name) for name in names if name.endswith("]")}
    return found, by_output


@dataclass(frozen=True)
class SampleEvaluation(Intervals):
    """Metrics of a predictive that is a sample of each target, with 95 % bootstrap intervals.

    For counts and for anything else that is no Gaussian. ``print`` it for a table. With k outputs
    each is a mean over them, but for ``nll``, their sum, and `by_output` has them one by one.

    Attributes:
        rmse: Root of the mean squared error of the mean, in units of the targets.
        nll: Mean negative log predictive density or probability of the targets, in nats; None
            where it was not given.
        crps: Mean continuous ranked probability score, in units of the targets (of counts: the
            ranked probability score).
        coverage_50: Fraction of targets whose `pit` lies in the central 50 %.
        coverage_90: Likewise of 90 %.
        width_90: Mean width of the central 90 % interval, in units of the targets.
        pit_error: Largest distance of the distribution of `pit` from a uniform one
            (Kolmogorov-Smirnov), in [0, 1]; about 0.9/√n where the predictive is right. Its
            interval sits high, as resampling adds to it.
        by_output: RMSE, CRPS and coverage of each output, ``"coverage_90[0]"``, …, where there are
            several.
    """

    _title: ClassVar = "replicates"

    rmse: Interval
    nll: Interval | None
    crps: Interval
    coverage_50: Interval
    coverage_90: Interval
    width_90: Interval
    pit_error: Interval
    by_output: Mapping[str, Interval] = field(default_factory=dict)


def pit(replicates: npt.ArrayLike, targets: npt.ArrayLike, *, seed: int = 0) -> np.ndarray:
    """Randomised probability integral transform of each target, in (0, 1).

    The rank of a target among the replicates, a random one among those that it ties with: uniform
    if and only if targets and replicates are drawn from the same distributions, whether these are
    continuous or of counts.

    Source: Czado, Gneiting & Held (2009), "Predictive model assessment for count data"; Smith
    (1985).

    Args:
        replicates: Draws from the predictive of each target, (S, n) or (S, n, k).
        targets: True values, (n,) or (n, k).
        seed: Seed of what is random.

    Returns:
        Shape (n, k).

    Raises:
        InputError: If an argument is not as described.

    Examples:
        >>> bool(0.5 < pit([[1], [2], [3]], [2.5])[0, 0] < 1)
        True
    """
    drawn, values = _check_replicates(replicates, targets)
    below, same = (drawn < values).sum(axis=0), (drawn == values).sum(axis=0)
    place = np.random.default_rng(seed).random(values.shape) * (same + 1)
    return (below + place) / (len(drawn) + 1)


def evaluate_replicates(
    replicates: npt.ArrayLike,
    targets: npt.ArrayLike,
    log_predictive: npt.ArrayLike | None = None,
    *,
    mean: npt.ArrayLike | None = None,
    num_resamples: int = 500,
    seed: int = 0,
) -> SampleEvaluation:
    """Every metric of a predictive given by draws from it, with 95 % bootstrap intervals.

    Coverage is that of the randomised `pit`, which has no ties to break. All intervals come from
    the same resamples of rows: see `bootstrap`.

    Source: Gneiting & Raftery (2007), eq. 21, for the CRPS of a sample.

    Args:
        replicates: Draws from the predictive of each target, (S, n) or (S, n, k).
        targets: True values or counts, (n,) or (n, k).
        log_predictive: Log density of each target, (n,), as `probbnn.log_predictive` returns it,
            for the NLL; default: none.
        mean: The predictive's means, (n,) or (n, k); default: the replicates'.
        num_resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the bootstrap and of the randomised PIT.

    Raises:
        InputError: If an argument is not as described, or the shapes do not fit.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> metrics = evaluate_replicates(rng.poisson(3, (500, 400)), rng.poisson(3, 400))
        >>> bool(abs(metrics.coverage_90.value - 0.9) < 0.06)
        True
    """
    drawn, values = _check_replicates(replicates, targets)
    centre = drawn.mean(axis=0) if mean is None else np.asarray(mean, float).reshape(values.shape)
    ordered = np.sort(drawn, axis=0).astype(float)
    number = len(ordered)
    # E|X - X'| from order statistics, over pairs of two different replicates.
    weights = (2 * np.arange(1, number + 1) - number - 1) / max(number * (number - 1) / 2, 1)
    spread = np.tensordot(weights, ordered, axes=1)
    rank = pit(drawn, values, seed=seed)
    low, high = np.quantile(ordered, [0.05, 0.95], axis=0)
    rows = {
        "rmse": (values - centre) ** 2,
        "crps": np.abs(ordered - values).mean(axis=0) - spread / 2,
        "coverage_50": np.abs(rank - 0.5) <= 0.25,
        "coverage_90": np.abs(rank - 0.5) <= 0.45,
        "width_90": high - low,
    }
    of_rows = {}
    if log_predictive is not None:
        of_rows["nll"] = -_check_log_predictive(log_predictive, len(values))
    found, by_output = _intervals(rows, of_rows, num_resamples, seed)
    nll = found.pop("nll", None)
    (pit_error,) = bootstrap_rows(
        lambda examples: partial(_pit_error, rank=rank[examples]),
        len(rank),
        num_resamples=num_resamples,
        seed=seed,
    )
    return SampleEvaluation(nll=nll, **found, pit_error=pit_error, by_output=by_output)


def _pit_error(counts: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """Kolmogorov-Smirnov distance from uniform of resamples (block, n), (block, 1)."""
    num_rows, num_outputs = rank.shape
    order = np.argsort(rank, axis=None)
    ordered = rank.ravel()[order]
    before = np.cumsum(counts[:, order // num_outputs], axis=1) / (num_rows * num_outputs)
    drawn = counts[:, order // num_outputs] / (num_rows * num_outputs)
    above, below = (before - ordered).max(axis=1), (ordered - (before - drawn)).max(axis=1)
    return np.maximum(above, below)[:, None]


def _check_replicates(
    replicates: npt.ArrayLike, targets: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Replicates (S, n, k) and targets (n, k)."""
    drawn = np.asarray(replicates)
    if drawn.ndim < 2 or not drawn.size or drawn.dtype.kind not in "biuf":
        raise InputError(
            f"replicates have shape {drawn.shape}; expected numbers (S, n) or (S, n, k), at least "
            "one for each of at least one target."
        )
    if not np.isfinite(drawn).all():
        raise InputError("replicates contain NaN or infinity: look for divergent draws.")
    drawn = drawn.reshape(*drawn.shape[:2], -1)
    return drawn, _check_targets(targets, drawn[0])


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
