"""What the metrics share: checks of the input, confidence and correctness, ties."""

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from probbnn.arrays import unmasked
from probbnn.errors import InputError

__all__ = [
    "ROUNDING",
    "HasProbs",
    "TopLabel",
    "check_labelled",
    "check_labels",
    "check_probs",
    "ranked",
    "top_label",
]

ROUNDING = 1e-6
"""Confidences closer than this are taken for the same number when compared with a threshold or a
bin edge: 6 votes of 10 are 0.60000002 in float32, and a certain softmax may be 0.9999999."""

_ROW_SUM_TOLERANCE = 1e-3


class HasProbs(Protocol):
    """An object that carries class probabilities, such as a predictive."""

    @property
    def probs(self) -> npt.ArrayLike:
        """Class probabilities, (n, K)."""


class TopLabel(NamedTuple):
    """What a predictive says first, row by row.

    Attributes:
        confidence: Largest probability of each row, (n,), in [0, 1].
        correct: Whether the class that has it is the true one, (n,) of bool. Where several
            classes have it (a split vote), the one with the lowest index is the prediction.
    """

    confidence: np.ndarray
    correct: np.ndarray


def top_label(probs: np.ndarray, labels: np.ndarray) -> TopLabel:
    """Reduce checked probabilities (n, K) and labels (n,) to confidence and correctness."""
    return TopLabel(probs.max(axis=1), probs.argmax(axis=1) == labels)


def ranked(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank values (n,) in descending order, keeping equal ones together.

    Returns:
        The order that sorts them, (n,), and the size of each block of equal values, (blocks,).
    """
    order = np.argsort(-values, kind="stable")  # linear time if sorted, or two sorted runs
    in_order = values[order]
    starts = np.flatnonzero(np.append(True, in_order[1:] != in_order[:-1]))
    return order, np.diff(np.append(starts, len(values)))


def check_probs(probs: npt.ArrayLike | HasProbs) -> np.ndarray:
    """Return class probabilities (n, K) as float64, or say what is wrong with them.

    Args:
        probs: Array (n, K), or an object with such an array as its attribute ``probs``.

    Raises:
        InputError: If the shape is not (n, K) with n >= 1 and K >= 2, or a row is not a
            probability vector (finite, in [0, 1], sum within 1e-3 of 1).
    """
    probs = unmasked(probs_of(probs), "probs").astype(np.float64, copy=False)
    if probs.ndim != 2 or probs.shape[1] < 2:
        raise InputError(
            f"probs has shape {probs.shape}; expected (rows, classes) with at least two classes: "
            "average over draws first, and give both columns of a two-class problem."
        )
    if len(probs) == 0:
        raise InputError("probs has no rows; expected at least one: check what was selected.")
    _check_rows(np.isfinite(probs).all(axis=1), "finite", "look for divergent draws", probs)
    in_range = np.all((probs >= -ROUNDING) & (probs <= 1 + ROUNDING), axis=1)
    _check_rows(in_range, "in [0, 1]", "apply softmax to logits first", probs)
    normalised = np.abs(probs.sum(axis=1) - 1) <= _ROW_SUM_TOLERANCE
    _check_rows(normalised, "probabilities that sum to 1", "apply softmax to logits first", probs)
    return probs.clip(0, 1)


def probs_of(predictive: Any) -> Any:
    """The class probabilities of a predictive, or what was given in its place.

    Raises:
        InputError: If it is a data set.
    """
    if hasattr(predictive, "targets"):
        raise InputError(
            f"probs is a {type(predictive).__name__}; expected what predict(…) says of it: give "
            "that first and the labels second."
        )
    return getattr(predictive, "probs", predictive)


def _check_rows(valid: np.ndarray, expected: str, advice: str, probs: np.ndarray) -> None:
    invalid = np.flatnonzero(~valid)
    if len(invalid):
        first = probs[invalid[0]]
        raise InputError(
            f"probs: {len(invalid)} of {len(valid)} rows are not as expected, {expected} (row "
            f"{invalid[0]} has minimum {first.min():.6g}, sum {first.sum():.6g}): {advice}."
        )


def check_labels(labels: npt.ArrayLike, probs: np.ndarray) -> np.ndarray:
    """Return labels (n,), or those of a data set, as integers that fit ``probs`` (n, K).

    Raises:
        InputError: If ``labels`` is not one integer in {-1, 0, ..., K-1} for each row.
    """
    labels = unmasked(getattr(labels, "targets", labels), "labels")  # of a data set
    num_rows, num_classes = probs.shape
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels has shape {labels.shape} and dtype {labels.dtype}; expected one integer a "
            "row: take the argmax of one-hot labels, or cast with astype(int)."
        )
    if len(labels) != num_rows:
        raise InputError(
            f"labels has {len(labels)} entries and probs {num_rows} rows; expected as many of "
            "both: check that they come from the same data."
        )
    if labels.min() < -1 or labels.max() >= num_classes:
        raise InputError(
            f"labels lie in [{labels.min()}, {labels.max()}]; expected 0 to {num_classes - 1}, the "
            "classes of probs: give -1 to rows that belong to none of them."
        )
    return labels.astype(np.intp)


def check_labelled(labels: np.ndarray) -> None:
    """Say so if a row belongs to no class, for metrics that are undefined then.

    Raises:
        InputError: If a label is -1.
    """
    unlabelled = np.count_nonzero(labels < 0)
    if unlabelled:
        raise InputError(
            f"labels: {unlabelled} of {len(labels)} are -1 (no class), for which this metric is "
            "undefined; expected a class for every row: leave those rows out."
        )
