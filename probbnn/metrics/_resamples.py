"""Metrics of many resamples at once, from how often each row was drawn.

Where rows are in order of confidence a resample of them is too, and nothing is ranked again: the
rank of a row is the number of rows drawn before it. What the metrics are is defined in
`probbnn.metrics.calibration` and `probbnn.metrics.selective`, of rows as they are.
"""

from typing import NamedTuple

import numpy as np

from probbnn.metrics._inputs import ROUNDING, ranked
from probbnn.metrics.bootstrap import sums_before
from probbnn.metrics.calibration import equal_width_bins

__all__ = ["RankedRows", "Resamples"]


class Resamples(NamedTuple):
    """A block of resamples of n rows, each of n rows again.

    Attributes:
        counts: How often each row was drawn, (block, n).
        before: How many of the rows drawn come before each row, (block, n + 1), from 0 to n.
        wrong: How often each of the rows that are wrong was drawn, (block, wrong rows).
    """

    counts: np.ndarray
    before: np.ndarray
    wrong: np.ndarray


class RankedRows:
    """Rows in order of confidence, and what does not depend on which of them are drawn.

    Args:
        confidence: In descending order, (n,).
        correct: Whether the prediction is right, (n,) of bool.
        thresholds: Thresholds on the confidence, (t,).
        num_bins: Number of bins of the calibration errors.
    """

    def __init__(
        self, confidence: np.ndarray, correct: np.ndarray, thresholds: np.ndarray, num_bins: int
    ) -> None:
        self._num_rows = num_rows = len(confidence)
        self._gap = correct - confidence
        _, sizes = ranked(confidence)
        ends = np.cumsum(sizes)
        # The rows as confident as row i are those from first[i] up to end[i].
        self._first, self._end = np.repeat(ends - sizes, sizes), np.repeat(ends, sizes)
        self._wrong = np.flatnonzero(~correct)
        self._first_wrong, self._end_wrong = self._first[self._wrong], self._end[self._wrong]
        self._passing = np.searchsorted(-confidence, ROUNDING - thresholds, side="right")
        self._wrong_passing = np.searchsorted(self._wrong, self._passing)
        bins = equal_width_bins(confidence, num_bins)
        self._equal_width = np.searchsorted(-bins, -np.arange(num_bins, -1, -1), side="right")
        self._twice_middle_ranks = 2 * num_rows * np.arange(1, num_bins) // num_bins
        # An error at rank r adds 1/k to the risk at each coverage k/n from k = r on.
        added = np.cumsum(1 / np.arange(num_rows, 0, -1))[::-1]
        self._added_before = np.append(0.0, np.cumsum(added))

    def resamples(self, counts: np.ndarray) -> Resamples:
        """The resamples that drew each row so often, (block, n)."""
        return Resamples(counts, sums_before(counts), counts.take(self._wrong, axis=1))

    def accuracy(self, resamples: Resamples) -> np.ndarray:
        """Accuracy, (block,)."""
        return (self._num_rows - resamples.wrong.sum(axis=1)) / self._num_rows

    def at_thresholds(self, resamples: Resamples) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy (NaN where nothing passes) and coverage at each threshold, (block, t) each."""
        passing = resamples.before[:, self._passing]
        num_correct = passing - sums_before(resamples.wrong)[:, self._wrong_passing]
        accuracy = np.full(passing.shape, np.nan)
        np.divide(num_correct, passing, out=accuracy, where=passing > 0)
        return accuracy, passing / self._num_rows

    def areas(self, resamples: Resamples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """AURC, E-AURC and AUGRC, (block,) each."""
        errors = resamples.wrong.sum(axis=1)
        start = resamples.before.take(self._first_wrong, axis=1)
        stop = resamples.before.take(self._end_wrong, axis=1)
        # Ties share the ranks from start to stop, and an error among them has their mean.
        added = (self._added_before[stop] - self._added_before[start]) / np.maximum(stop - start, 1)
        aurc = np.einsum("bw,bw->b", resamples.wrong, added) / self._num_rows
        best = self._added_before[-1] - self._added_before[self._num_rows - errors]
        eaurc = np.maximum(aurc - best / self._num_rows, 0.0)
        middle = np.einsum("bw,bw->b", resamples.wrong, start + stop) / 2
        return aurc, eaurc, (errors * self._num_rows - middle) / self._num_rows**2

    def calibration_errors(self, resamples: Resamples) -> tuple[np.ndarray, np.ndarray]:
        """Expected calibration error with bins of equal width and of equal mass, (block,) each."""
        gap = resamples.counts * self._gap
        equal_width = np.broadcast_to(self._equal_width, (len(gap), len(self._equal_width)))
        by_width = np.abs(_sums_between(gap, equal_width)).sum(axis=1)
        by_mass = np.abs(_sums_between(gap, self._equal_mass(resamples.before))).sum(axis=1)
        return by_width / self._num_rows, by_mass / self._num_rows

    def _equal_mass(self, before: np.ndarray) -> np.ndarray:
        """Where the bins of equal mass start in each resample, and n, (block, num_bins + 1)."""
        limits = self._twice_middle_ranks
        # A bin ends with, or right before, the ties among which twice the rank passes its limit.
        row = np.array([np.searchsorted(b[1:], limits // 2, side="right") for b in before])
        first, end = self._first[row], self._end[row]
        middle = np.take_along_axis(before, first, 1) + np.take_along_axis(before, end, 1)
        bounds = np.where(middle <= limits, end, first)
        return np.pad(bounds, ((0, 0), (1, 1)), constant_values=((0, 0), (0, self._num_rows)))


def _sums_between(values: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Sums of each row of values (block, n) between its bounds (block, b + 1): (block, b)."""
    starts = bounds[:, :-1] + values.shape[1] * np.arange(len(values))[:, None]
    filled = bounds[:, 1:] > bounds[:, :-1]  # `reduceat` has no empty sums
    sums = np.zeros(filled.shape)
    sums[filled] = np.add.reduceat(values.ravel(), starts[filled])
    return sums
