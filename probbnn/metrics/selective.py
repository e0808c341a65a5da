"""Selective prediction: whether confidence tells right from wrong.

A selective predictor answers only where its confidence, the largest probability, is high enough.
Coverage is the fraction of rows it answers, risk the fraction of those it gets wrong. Rows of equal
confidence (ten votes make at most ten levels) have no order of their own: every number here is the
expectation over a random order of them, hence the same for any order of the rows.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from probbnn.errors import InputError
from probbnn.metrics._inputs import ROUNDING, check_labels, check_probs, ranked, top_label

__all__ = [
    "AccuracyVsConfidence",
    "RiskCoverage",
    "accuracy_vs_confidence",
    "augrc",
    "aurc",
    "eaurc",
    "risk_coverage",
]

TENTHS = tuple(i / 10 for i in range(11))
"""The thresholds 0, 0.1, ..., 1.0."""


class AccuracyVsConfidence(NamedTuple):
    """Accuracy of the predictions whose confidence passes each threshold.

    `rows` and `to_dict` say "no predictions" and None where the arrays have NaN.

    Attributes:
        thresholds: Thresholds on the confidence, (t,).
        coverage: Fraction of rows that pass, (t,), in [0, 1].
        accuracy: Fraction right of those that pass, (t,), in [0, 1]; NaN where none passes.
        num_predicted: Number of rows that pass, (t,).
        low: Lower bounds of intervals for ``accuracy``, (t,), or None where none were computed.
        high: Upper bounds, likewise.
        coverage_low: Lower bounds of intervals for ``coverage``, likewise.
        coverage_high: Upper bounds, likewise.
    """

    thresholds: np.ndarray
    coverage: np.ndarray
    accuracy: np.ndarray
    num_predicted: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    coverage_low: np.ndarray | None = None
    coverage_high: np.ndarray | None = None

    def rows(self) -> list[tuple[str, str, str]]:
        """Threshold, coverage and accuracy as text, one tuple for each threshold.

        Examples:
            >>> for row in accuracy_vs_confidence([[0.9, 0.1]], [0], [0.5, 1.0]).rows():
            ...     print(row)
            ('0.5', '100.0 % (1)', '1')
            ('1', '0.0 % (0)', 'no predictions')
        """
        return [
            (
                f"{self.thresholds[i]:g}",
                f"{100 * self.coverage[i]:.1f} % ({self.num_predicted[i]})",
                self._accuracy_text(i),
            )
            for i in range(len(self.thresholds))
        ]

    def _accuracy_text(self, i: int) -> str:
        if self.num_predicted[i] == 0:
            return "no predictions"
        text = f"{self.accuracy[i]:.4g}"
        if self.low is None or self.high is None or np.isnan(self.low[i]):
            return text
        return f"{text} [{self.low[i]:.4g}, {self.high[i]:.4g}]"

    def to_dict(self) -> dict[str, list[float | None] | None]:
        """The columns as lists for JSON, with None for NaN and for bounds not computed."""
        return {
            name: None if column is None else _without_nan(column)
            for name, column in self._asdict().items()
        }


def _without_nan(column: np.ndarray) -> list[float | None]:
    return [None if np.isnan(x) else x for x in column.tolist()]


def accuracy_vs_confidence(
    probs: npt.ArrayLike, labels: npt.ArrayLike, thresholds: npt.ArrayLike = TENTHS
) -> AccuracyVsConfidence:
    """Accuracy and coverage where the confidence passes each threshold.

    A row passes if its confidence is at least the threshold, up to 1e-6: six votes of ten pass
    0.6, and ten of ten (or a float32 softmax of 0.9999999) pass 1.0.

    Args:
        probs: Class probabilities, (n, K).
        labels: True classes, integers (n,). -1 belongs to no class: always wrong.
        thresholds: Thresholds on the confidence, (t,).

    Raises:
        InputError: If an argument is not as described.

    Examples:
        >>> table = accuracy_vs_confidence([[0.9, 0.1], [0.6, 0.4]], [0, 1], [0.6, 0.8, 1.0])
        >>> table.coverage, table.num_predicted
        (array([1. , 0.5, 0. ]), array([2, 1, 0]))
        >>> table.to_dict()["accuracy"]
        [0.5, 1.0, None]
    """
    probs = check_probs(probs)
    levels = np.asarray(thresholds, dtype=np.float64)
    if levels.ndim != 1 or np.isnan(levels).any():
        raise InputError(f"thresholds is {thresholds!r}; expected a list of numbers in [0, 1].")
    return accuracy_vs_confidence_of(*top_label(probs, check_labels(labels, probs)), levels)


def accuracy_vs_confidence_of(
    confidence: np.ndarray, correct: np.ndarray, thresholds: np.ndarray
) -> AccuracyVsConfidence:
    """Accuracy against confidence of checked and reduced input, (n,) each."""
    passes = confidence >= thresholds[:, None] - ROUNDING
    num_predicted = np.count_nonzero(passes, axis=1)
    num_correct = np.count_nonzero(passes & correct, axis=1)
    accuracy = np.full(len(thresholds), np.nan)
    np.divide(num_correct, num_predicted, out=accuracy, where=num_predicted > 0)
    return AccuracyVsConfidence(
        thresholds, num_predicted / len(confidence), accuracy, num_predicted
    )


class RiskCoverage(NamedTuple):
    """The risk-coverage curve.

    Attributes:
        coverage: 1/n, 2/n, ..., 1, (n,).
        risk: Expected fraction wrong among that many most confident rows, (n,), in [0, 1].
    """

    coverage: np.ndarray
    risk: np.ndarray


def risk_coverage(probs: npt.ArrayLike, labels: npt.ArrayLike) -> RiskCoverage:
    """Risk at every coverage (El-Yaniv & Wiener, 2010), most confident rows first.

    Args:
        probs: Class probabilities, (n, K).
        labels: True classes, integers (n,). -1 belongs to no class: always wrong.

    Raises:
        InputError: If ``probs`` or ``labels`` is not as described.

    Examples:
        >>> risk_coverage([[0.9, 0.1], [0.6, 0.4]], [0, 1]).risk
        array([0. , 0.5])
    """
    errors = _expected_errors(probs, labels)
    rank = np.arange(1, len(errors) + 1)
    return RiskCoverage(rank / len(errors), errors / rank)


def _expected_errors(probs: npt.ArrayLike, labels: npt.ArrayLike) -> np.ndarray:
    """Expected number of errors among the 1, 2, ..., n most confident rows, (n,).

    Over a random order of a block of ties, each of its rows is wrong with the block's error rate.
    """
    probs = check_probs(probs)
    confidence, correct = top_label(probs, check_labels(labels, probs))
    order, sizes = ranked(confidence)
    starts = np.cumsum(sizes) - sizes
    errors = np.add.reduceat(~correct[order], starts, dtype=np.float64)
    return np.cumsum(np.repeat(errors / sizes, sizes))


def aurc(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Area under the risk-coverage curve, in [0, 1]; smaller is better.

    The mean of the risk over the coverages 1/n, ..., 1 (Geifman & El-Yaniv, 2017; Geifman et al.,
    2019). Raw scale: fd-shifts and papers that follow it print 1000 times as much.

    Args:
        probs: Class probabilities, (n, K).
        labels: True classes, integers (n,). -1 belongs to no class: always wrong.

    Raises:
        InputError: If ``probs`` or ``labels`` is not as described.

    Examples:
        >>> aurc([[0.9, 0.1], [0.6, 0.4]], [0, 1])
        0.25
    """
    return _mean_risk(_expected_errors(probs, labels))


def _mean_risk(errors: np.ndarray) -> float:
    """Area under the risk-coverage curve of cumulative errors (n,)."""
    return float((errors / np.arange(1, len(errors) + 1)).mean())


def eaurc(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Excess of `aurc` over that of an oracle, in [0, 1); 0 is a perfect ranking.

    The oracle makes the same predictions and ranks every right one above every wrong one (Geifman
    et al., 2019, exactly rather than in their approximation for large n), so that what remains is
    the quality of the confidence, whatever the accuracy.

    Args:
        probs: Class probabilities, (n, K).
        labels: True classes, integers (n,). -1 belongs to no class: always wrong.

    Raises:
        InputError: If ``probs`` or ``labels`` is not as described.

    Examples:
        >>> eaurc([[0.9, 0.1], [0.6, 0.4]], [0, 1]), eaurc([[0.9, 0.1], [0.6, 0.4]], [1, 0])
        (0.0, 0.5)
    """
    errors = _expected_errors(probs, labels)
    num_correct = len(errors) - np.rint(errors[-1])
    oracle = np.maximum(np.arange(1, len(errors) + 1) - num_correct, 0)
    # Rounding could take a perfect ranking below zero.
    return max(_mean_risk(errors) - _mean_risk(oracle), 0.0)


def augrc(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Area under the generalised risk-coverage curve, in [0, 0.5]; smaller is better.

    The generalised risk is the fraction of all rows that are answered *and* wrong, so the area is
    the mean rate of undetected failures over coverages (Traub et al., 2024). By the trapezoidal
    rule, with which their identity holds exactly: AUGRC = (1 - AUROC) accuracy * error +
    error^2 / 2, where AUROC is that of confidence telling right from wrong. Raw scale: fd-shifts
    prints 1000 times as much.

    Args:
        probs: Class probabilities, (n, K).
        labels: True classes, integers (n,). -1 belongs to no class: always wrong.

    Raises:
        InputError: If ``probs`` or ``labels`` is not as described.

    Examples:
        >>> augrc([[0.9, 0.1], [0.6, 0.4]], [0, 1])
        0.125
    """
    errors = _expected_errors(probs, labels)
    return float(np.trapezoid(np.append(0.0, errors)) / len(errors) ** 2)
