"""Accuracy, proper scores and calibration error: whether the probabilities are right.

Every function takes class probabilities (n, K) and labels (n,), and returns one number.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from probbnn.errors import InputError, one_of
from probbnn.metrics._inputs import (
    ROUNDING,
    check_labelled,
    check_labels,
    check_probs,
    ranked,
    top_label,
)

__all__ = ["NLL_FLOOR", "Binning", "Reliability", "accuracy", "brier", "ece", "nll", "reliability"]

Binning = Literal["equal_width", "equal_mass"]

NLL_FLOOR = float(np.finfo(np.float32).tiny)
"""Smallest probability that `nll` tells from zero, 1.2e-38: the smallest normal float32, so that
whatever a float32 softmax can represent counts in full."""


def accuracy(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Fraction of rows whose most probable class is the true one, in [0, 1].

    Of classes that are equally probable (a split vote) the one with the lowest index is the
    prediction, as with `numpy.argmax`.

    Args:
        probs: Class probabilities, (n, K).
        labels: True classes, integers (n,). -1 belongs to no class: always wrong.

    Raises:
        InputError: If ``probs`` or ``labels`` is not as described.

    Examples:
        >>> accuracy([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.5, 0.5]], [0, 1, 0, -1])
        0.5
    """
    probs = check_probs(probs)
    return float(top_label(probs, check_labels(labels, probs)).correct.mean())


def nll(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Mean negative log probability of the true class in nats, in [0, 87.3].

    A histogram of votes gives some true classes the probability zero, and its NLL is infinite.
    Probabilities are clipped from below at `NLL_FLOOR`, so that each such row counts 87.3 nats:
    the number is then mostly their frequency, and says little beside that of a softmax.

    Args:
        probs: Class probabilities, (n, K).
        labels: True classes, integers (n,) in {0, ..., K-1}.

    Raises:
        InputError: If ``probs`` or ``labels`` is not as described, or a label is -1.

    Examples:
        >>> round(nll([[0.5, 0.5], [0.25, 0.75]], [0, 0]), 6)
        1.039721
    """
    probs, labels = _check(probs, labels)
    return float(nll_rows(probs, labels).mean())


def nll_rows(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Negative log probability of the true class for each row of checked input, (n,)."""
    return -np.log(np.maximum(probs[np.arange(len(probs)), labels], NLL_FLOOR))


def brier(probs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Multi-class Brier score (Brier, 1950), in [0, 2]: mean squared distance to the one-hot label.

    Summed over classes, so a two-class problem scores twice what the one-class formula gives.

    Args:
        probs: Class probabilities, (n, K).
        labels: True classes, integers (n,) in {0, ..., K-1}.

    Raises:
        InputError: If ``probs`` or ``labels`` is not as described, or a label is -1.

    Examples:
        >>> brier([[0.5, 0.5], [1.0, 0.0]], [0, 1])
        1.25
    """
    probs, labels = _check(probs, labels)
    return float(brier_rows(probs, labels).mean())


def brier_rows(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Squared distance to the one-hot label for each row of checked input, (n,)."""
    return ((probs - np.eye(probs.shape[1])[labels]) ** 2).sum(axis=1)


def ece(
    probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    num_bins: int = 15,
    binning: Binning = "equal_width",
) -> float:
    """Expected calibration error of the most probable class, in [0, 1].

    The mean over rows of |accuracy - confidence| in the row's bin (Guo et al., 2017, equation 3;
    torchmetrics' ``norm="l1"``). It is biased upwards: a perfectly calibrated model scores above
    zero, the more so the fewer rows a bin has. Read it beside `nll` and `brier`.

    Args:
        probs: Class probabilities, (n, K).
        labels: True classes, integers (n,) in {0, ..., K-1}.
        num_bins: Number of bins, at least 1.
        binning: See `reliability`.

    Raises:
        InputError: If an argument is not as described, or a label is -1.

    Examples:
        >>> round(ece([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]], [0, 1, 1]), 6)
        0.4
    """
    bins = reliability(probs, labels, num_bins, binning)
    return float(np.average(np.abs(bins.accuracy - bins.confidence), weights=bins.counts))


class Reliability(NamedTuple):
    """A reliability diagram: the bins that hold a row, in order of confidence.

    Attributes:
        confidence: Mean confidence in each bin, (bins,), in [0, 1].
        accuracy: Fraction right in each bin, (bins,), in [0, 1].
        counts: Number of rows in each bin, (bins,), at least 1.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    counts: np.ndarray


def reliability(
    probs: npt.ArrayLike,
    labels: npt.ArrayLike,
    num_bins: int = 15,
    binning: Binning = "equal_width",
) -> Reliability:
    """Accuracy against confidence of the most probable class, in bins of confidence.

    Args:
        probs: Class probabilities, (n, K).
        labels: True classes, integers (n,) in {0, ..., K-1}.
        num_bins: Number of bins, at least 1.
        binning: ``"equal_width"``: the bins (i/num_bins, (i+1)/num_bins]; a confidence within
            1e-6 above an edge counts as on it. (torchmetrics closes its bins on the left instead,
            and so gives confidences of exactly 1 a bin of their own.) ``"equal_mass"``: as many
            rows in every bin as ties allow; equal confidences always share a bin, the one that
            holds their middle rank.

    Returns:
        The bins that hold at least one row, as `sklearn.calibration.calibration_curve` does.

    Raises:
        InputError: If an argument is not as described, or a label is -1.

    Examples:
        >>> reliability([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]], [0, 1, 1]).counts
        array([1, 2])
    """
    probs, labels = _check(probs, labels)
    if num_bins < 1:
        raise InputError(f"num_bins is {num_bins}; expected at least 1: 15 is customary.")
    find_bins = _BINNINGS[one_of(binning, _BINNINGS, "binning")]
    confidence, correct = top_label(probs, labels)
    index = find_bins(confidence, num_bins)
    counts = np.bincount(index, minlength=num_bins)
    filled = counts > 0
    counts = counts[filled]
    total_confidence = np.bincount(index, confidence, num_bins)[filled]
    total_correct = np.bincount(index, correct, num_bins)[filled]
    return Reliability(total_confidence / counts, total_correct / counts, counts)


def equal_width_bins(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    """Index of each row's bin of equal width, (n,), from 0 for the least confident."""
    above = np.ceil((confidence - ROUNDING) * num_bins).astype(np.intp)
    return above.clip(1, num_bins) - 1


def _equal_mass_bins(confidence: np.ndarray, num_bins: int) -> np.ndarray:
    order, sizes = ranked(confidence)
    middle_rank = len(confidence) - np.cumsum(sizes) + sizes / 2
    index = np.empty(len(confidence), dtype=np.intp)
    index[order] = np.repeat(num_bins * middle_rank // len(confidence), sizes)
    return index


_BINNINGS = {"equal_width": equal_width_bins, "equal_mass": _equal_mass_bins}


def _check(probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and labels that belong to a class each."""
    probs = check_probs(probs)
    labels = check_labels(labels, probs)
    check_labelled(labels)
    return probs, labels
