"""How sure is a metric? Percentile bootstrap over rows."""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from probbnn.errors import InputError

__all__ = ["Interval", "bootstrap", "bootstrap_each", "rounded"]


def rounded(number: float, digits: int) -> str:
    """``number`` in so many significant digits, without an exponent up to a trillion.

    Examples:
        >>> rounded(1_802_345.6, 2), rounded(0.98765, 2)
        ('1,800,000', '0.99')
    """
    return f"{float(f'{number:.{digits}g}'):,.12g}"


class Interval(NamedTuple):
    """A number and the interval that resampled data put around it.

    Attributes:
        value: The metric on the data as given.
        low: Lower bound.
        high: Upper bound.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{rounded(self.value, 4)} [{rounded(self.low, 4)}, {rounded(self.high, 4)}]"

    def to_dict(self) -> dict[str, float | None]:
        """The three numbers by name for JSON, with None for those that are undefined."""
        return {name: x if np.isfinite(x) else None for name, x in self._asdict().items()}


def bootstrap(
    metric: Callable[..., float],
    *arrays: npt.ArrayLike,
    paired: bool = True,
    num_resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a metric (Efron, 1979).

    It tells how much the number owes to which rows were drawn as test set, nothing about training
    again. Being percentiles, the bounds keep a metric's range, and also its bias: the interval of
    an expected calibration error sits high, and may even miss its value.

    Args:
        metric: Takes the arrays, returns a number, which may not depend on the order of the rows.
        *arrays: Arrays whose first axis is resampled with replacement.
        paired: Whether row i of every array is the same input, so that all are resampled alike
            (``probs`` and ``labels``); False if each array is an independent sample (the scores
            of two data sets).
        num_resamples: How often to resample, at least 1.
        level: Probability that the interval is meant to cover, in (0, 1).
        seed: Seed of NumPy's generator: same seed, same interval.

    Raises:
        InputError: If an array is empty, paired arrays differ in length, or an option is out of
            range.

    Examples:
        >>> import numpy as np
        >>> interval = bootstrap(np.mean, np.arange(100.0))
        >>> print(f"{interval.value} [{interval.low:.0f}, {interval.high:.0f}]")
        49.5 [44, 55]
    """
    (interval,) = bootstrap_each(
        lambda *resampled: [metric(*resampled)],
        *arrays,
        paired=paired,
        num_resamples=num_resamples,
        level=level,
        seed=seed,
    )
    return interval


def bootstrap_each(
    metrics: Callable[..., Sequence[float]],
    *arrays: npt.ArrayLike,
    paired: bool = True,
    num_resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """`bootstrap` of several numbers that one function computes from the same resample.

    A number may be NaN where it is undefined (an accuracy of no predictions). Its bounds are taken
    over the resamples in which it is defined, and are NaN if there is none.

    Args:
        metrics: Takes the arrays, returns a sequence of numbers.
        *arrays: As for `bootstrap`, like the options.
        paired: See `bootstrap`.
        num_resamples: See `bootstrap`.
        level: See `bootstrap`.
        seed: See `bootstrap`.

    Returns:
        One interval for each number.

    Raises:
        InputError: As for `bootstrap`.
    """
    samples = [np.asarray(array) for array in arrays]
    _check(samples, paired, num_resamples, level)
    rng = np.random.default_rng(seed)

    def resample() -> list[np.ndarray]:
        if paired:
            rows = _draw_rows(rng, len(samples[0]))
            return [sample[rows] for sample in samples]
        return [sample[_draw_rows(rng, len(sample))] for sample in samples]

    values = metrics(*samples)
    replicates = np.array([metrics(*resample()) for _ in range(num_resamples)], dtype=np.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        bounds = np.nanquantile(replicates, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [
        Interval(float(value), float(low), float(high))
        for value, low, high in zip(values, *bounds, strict=True)
    ]


def _draw_rows(rng: np.random.Generator, num_rows: int) -> np.ndarray:
    # In ascending order, since then a sorted sample stays sorted and metrics that sort are fast.
    times_drawn = np.bincount(rng.integers(num_rows, size=num_rows), minlength=num_rows)
    return np.repeat(np.arange(num_rows), times_drawn)


def _check(samples: list[np.ndarray], paired: bool, num_resamples: int, level: float) -> None:
    if not samples or any(sample.ndim == 0 or len(sample) == 0 for sample in samples):
        shapes = ", ".join(str(sample.shape) for sample in samples) or "none"
        raise InputError(f"bootstrap was given arrays of shape {shapes}; expected rows in each.")
    if paired and len({len(sample) for sample in samples}) > 1:
        raise InputError(
            f"bootstrap was given arrays of {', '.join(str(len(s)) for s in samples)} rows; "
            "expected as many in each: pass paired=False for independent samples."
        )
    if num_resamples < 1 or not 0 < level < 1:
        raise InputError(
            f"bootstrap was given num_resamples={num_resamples} and level={level}; expected at "
            "least 1 and a number between 0 and 1: 500 and 0.95 are customary."
        )
