"""Percentile bootstrap over rows: the interval around a metric."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from probbnn.errors import InputError
from probbnn.subsample import random_subset

__all__ = [
    "Interval",
    "bootstrap",
    "bootstrap_counts",
    "bootstrap_each",
    "bootstrap_means",
    "bootstrap_rows",
    "means",
    "rounded",
    "sums_before",
]

# Resamples are taken in blocks of so many counts, 256 kB: what is computed from them stays in a
# core's own cache, and in memory that the process has already.
_BLOCK = 2**15
# Of more rows than this, a part is resampled.
_MOST_ROWS = 100_000


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
    _check_samples(samples, paired)

    def of_rows(*counts: np.ndarray) -> np.ndarray:
        return np.array([metrics(*resample(drawn)) for drawn in zip(*counts, strict=True)], float)

    def resample(times_drawn: tuple[np.ndarray, ...]) -> list[np.ndarray]:
        # In ascending order: a sorted sample stays sorted, and metrics that sort are fast.
        of_each = times_drawn * len(samples) if paired else times_drawn
        return [np.repeat(*pair, axis=0) for pair in zip(samples, of_each, strict=True)]

    return bootstrap_counts(
        of_rows,
        *(len(sample) for sample in samples[: 1 if paired else None]),
        num_resamples=num_resamples,
        level=level,
        seed=seed,
    )


def bootstrap_counts(
    metrics: Callable[..., np.ndarray],
    *sizes: int,
    num_resamples: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """`bootstrap_each` of numbers that follow from how often each row was drawn.

    What does not depend on the resample, such as an order of the rows, need be computed only once,
    and many resamples take few calls of NumPy.

    Args:
        metrics: Takes an array of integers (block, n) for each sample, how often each resample of
            a block drew each row, and returns the numbers of each resample, (block, k).
        *sizes: Number of rows of each sample, at least 1; the samples are independent.
        num_resamples: See `bootstrap`.
        level: See `bootstrap`.
        seed: See `bootstrap`: the same seed draws the same rows.

    Returns:
        One interval for each of the k numbers.

    Raises:
        InputError: If an option is out of range.

    Examples:
        >>> values = np.arange(100.0)
        >>> (mean,) = bootstrap_counts(lambda counts: means(counts, values[None]), 100)
        >>> print(f"{mean.value} [{mean.low:.0f}, {mean.high:.0f}]")
        49.5 [44, 55]
    """
    if num_resamples < 1 or not 0 < level < 1:
        raise InputError(
            f"bootstrap was given num_resamples={num_resamples} and level={level}; expected at "
            "least 1 and a number between 0 and 1: 500 and 0.95 are customary."
        )
    (values,) = metrics(*(np.ones((1, size), np.intp) for size in sizes))
    blocks = _draw(sizes, num_resamples, np.random.default_rng(seed))
    replicates = np.concatenate([metrics(*counts) for counts in blocks])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        bounds = np.nanquantile(replicates, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [
        Interval(float(value), float(low), float(high))
        for value, low, high in zip(values, *bounds, strict=True)
    ]


def bootstrap_rows(
    metrics_of: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]],
    num_examples: int,
    rows_each: int = 1,
    *,
    num_resamples: int = 500,
    seed: int = 0,
) -> list[Interval]:
    """95 % intervals by `bootstrap_counts`, of however many rows.

    Of more than 100,000 a random part is resampled, and the deviations from its metrics are scaled
    by the root of its share: as of an m out of n bootstrap, for metrics that are asymptotically
    normal. Source: Bickel, Götze & van Zwet (1997), "Resampling fewer than n observations".

    Args:
        metrics_of: Takes indices of examples (m,), returns what `bootstrap_counts` takes for them.
        num_examples: How many examples there are, each a unit that is resampled.
        rows_each: How many rows each of them has.
        num_resamples: See `bootstrap`.
        seed: See `bootstrap`.

    Raises:
        InputError: As for `bootstrap_counts`.
    """
    size = max(1, _MOST_ROWS // rows_each)
    everything = np.arange(num_examples)
    if num_examples <= size:
        return bootstrap_counts(
            metrics_of(everything), num_examples, num_resamples=num_resamples, seed=seed
        )
    part = random_subset(num_examples, size)
    intervals = bootstrap_counts(metrics_of(part), size, num_resamples=num_resamples, seed=seed)
    (values,) = metrics_of(everything)(np.ones((1, num_examples), np.intp))
    scale = np.sqrt(size / num_examples)
    return [
        Interval(
            float(value),
            float(value + scale * (found.low - found.value)),
            float(value + scale * (found.high - found.value)),
        )
        for value, found in zip(values, intervals, strict=True)
    ]


def _draw(
    sizes: Sequence[int], num_resamples: int, rng: np.random.Generator
) -> Iterator[list[np.ndarray]]:
    """How often each row is drawn, (block, n) for each sample, block after block."""
    block = max(1, _BLOCK // sum(sizes))
    for start in range(0, num_resamples, block):
        number = min(block, num_resamples - start)
        counts = [np.empty((number, size), np.intp) for size in sizes]
        for i in range(number):
            for size, of_sample in zip(sizes, counts, strict=True):
                of_sample[i] = np.bincount(rng.integers(size, size=size), minlength=size)
        yield counts


def sums_before(counts: np.ndarray) -> np.ndarray:
    """Number of rows drawn before each row, and their number, (block, n + 1) of counts (block, n).

    Examples:
        >>> sums_before(np.array([[2, 0, 1]]))
        array([[0, 2, 2, 3]])
    """
    before = np.zeros((len(counts), counts.shape[1] + 1), counts.dtype)
    np.cumsum(counts, axis=1, out=before[:, 1:])
    return before


def means(counts: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Means of columns (k, n) over resamples that drew each row so often, (block, n): (block, k).

    Examples:
        >>> means(np.array([[2, 0, 1]]), np.array([[0.3, 0.5, 0.9], [1.0, 1.0, 1.0]]))
        array([[0.5, 1. ]])
    """
    # No matrix product: it waits for threads, which is slow where other work keeps the cores busy.
    return np.einsum("bn,kn->bk", counts, columns) / counts.shape[1]


def bootstrap_means(*columns: np.ndarray, num_resamples: int, seed: int) -> list[Interval]:
    """95 % intervals of the means of columns (n,), all from the same resamples of rows."""
    rows = np.stack(columns).astype(np.float64)
    return bootstrap_counts(
        lambda counts: means(counts, rows),
        rows.shape[1],
        num_resamples=num_resamples,
        seed=seed,
    )


def _check_samples(samples: list[np.ndarray], paired: bool) -> None:
    if not samples or any(sample.ndim == 0 or len(sample) == 0 for sample in samples):
        shapes = ", ".join(str(sample.shape) for sample in samples) or "none"
        raise InputError(f"bootstrap was given arrays of shape {shapes}; expected rows in each.")
    if paired and len({len(sample) for sample in samples}) > 1:
        raise InputError(
            f"bootstrap was given arrays of {', '.join(str(len(s)) for s in samples)} rows; "
            "expected as many in each: pass paired=False for independent samples."
        )
