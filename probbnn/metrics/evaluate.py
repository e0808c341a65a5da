"""All metrics of a predictive at once, each with its bootstrap interval."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, overload

import numpy as np
import numpy.typing as npt

from probbnn.arrays import unmasked
from probbnn.errors import InputError
from probbnn.metrics._inputs import HasProbs, check_labels, check_probs, probs_of, top_label
from probbnn.metrics._resamples import RankedRows
from probbnn.metrics._tables import BRACKETS, Printed, table
from probbnn.metrics.bootstrap import Interval, bootstrap_rows, means
from probbnn.metrics.calibration import brier_rows, nll_rows
from probbnn.metrics.selective import TENTHS, AccuracyVsConfidence, accuracy_vs_confidence_of

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, repr=False)
class Evaluation(Printed):
    """Metrics of a predictive on labelled data, with 95 % bootstrap intervals.

    ``print`` it for a table. ``nll``, ``brier``, ``ece`` and ``ece_equal_mass`` are None unless
    every row belongs to a class.

    Attributes:
        num_rows: Number of rows evaluated.
        num_labelled: Number of those that belong to a class (label not -1).
        accuracy: See `accuracy`.
        error: One minus accuracy.
        nll: See `nll`, in nats.
        brier: See `brier`.
        ece: See `ece`, 15 bins of equal width.
        ece_equal_mass: See `ece`, 15 bins of equal mass.
        aurc: See `aurc`.
        eaurc: See `eaurc`.
        augrc: See `augrc`.
        thresholds: See `accuracy_vs_confidence`, at 0, 0.1, ..., 1.0.
        balanced_accuracy: Mean over the classes of the fraction of their rows that are right
            (their recall); None unless every class has a row.
        by_class: The recall of each class by its name, or number; of those that have rows.
    """

    num_rows: int
    num_labelled: int
    accuracy: Interval
    error: Interval
    nll: Interval | None
    brier: Interval | None
    ece: Interval | None
    ece_equal_mass: Interval | None
    aurc: Interval
    eaurc: Interval
    augrc: Interval
    thresholds: AccuracyVsConfidence
    balanced_accuracy: Interval | None = None
    by_class: Mapping[str, Interval] = field(default_factory=dict)

    def __repr__(self) -> str:
        shown = {"accuracy": self.accuracy, "nll": self.nll, "ece": self.ece}
        parts = [f"{name} {interval}" for name, interval in shown.items() if interval is not None]
        return f"Evaluation({self.num_rows} rows: {', '.join(parts)})"

    def __str__(self) -> str:
        undefined = (
            f"{self.num_labelled} of {self.num_rows} rows labelled"
            if self.num_labelled
            else "no labels"
        )
        metrics = [
            (name, undefined if interval is None else str(interval))
            for name, interval in self._metrics().items()
        ]
        header = ("confidence >=", "predicted", f"accuracy {BRACKETS}")
        return "\n".join(
            [
                *table([(f"{self.num_rows} rows", f"value {BRACKETS}"), *metrics]),
                "",
                *table([header, *self.thresholds.rows()]),
            ]
        )

    def to_dict(self) -> dict[str, object]:
        """Everything as numbers, lists and dicts for JSON, with None for what is undefined."""
        metrics = {
            name: None if interval is None else interval.to_dict()
            for name, interval in self._metrics().items()
        }
        return {
            "num_rows": self.num_rows,
            "num_labelled": self.num_labelled,
            **metrics,
            **{f"accuracy[{name}]": interval.to_dict() for name, interval in self.by_class.items()},
            "thresholds": self.thresholds.to_dict(),
        }

    def _metrics(self) -> dict[str, Interval | None]:
        balanced = {"balanced_accuracy": self.balanced_accuracy}
        return {
            "accuracy": self.accuracy,
            **(balanced if self.balanced_accuracy else {}),
            "error": self.error,
            "nll": self.nll,
            "brier": self.brier,
            "ece": self.ece,
            "ece_equal_mass": self.ece_equal_mass,
            "aurc": self.aurc,
            "eaurc": self.eaurc,
            "augrc": self.augrc,
        }


class _HasEvaluate(Protocol):
    """A predictive that brings its own metrics, as those of real values and counts do."""

    def evaluate(
        self, targets: npt.ArrayLike, *, num_resamples: int = 500, seed: int = 0
    ) -> Any: ...


@overload
def evaluate(
    probs: npt.ArrayLike | HasProbs,
    labels: Any,
    *,
    num_resamples: int = 500,
    seed: int = 0,
) -> Evaluation: ...


@overload
def evaluate(
    probs: _HasEvaluate, labels: Any, *, num_resamples: int = 500, seed: int = 0
) -> Any: ...


def evaluate(probs: Any, labels: Any, *, num_resamples: int = 500, seed: int = 0) -> Any:
    """Every metric of a predictive against the truth, with 95 % bootstrap intervals.

    All intervals come from the same resamples of rows: see `bootstrap` for what they mean. The
    interval of an accuracy above a threshold leaves out the resamples in which nothing passes, and
    has no width where all of its predictions are right, or all wrong. Where there is a label for
    each pixel or token, whole examples are resampled. Of more than 100,000 rows a random part is,
    and the intervals are scaled to what all of them leave open.

    Args:
        probs: Class probabilities, (n, K) or (n, ..., K), or an object with such an array as
            ``.probs``; or a predictive of real values or counts, which has a method ``evaluate``.
        labels: True classes, integers (n,) or (n, ...), names of classes that the predictive
            knows, or a data set. -1 belongs to no class: always wrong, and the metrics that need
            a class for every row are None. For other predictives the true values.
        num_resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the bootstrap.

    Raises:
        InputError: If an argument is not as described.

    Examples:
        >>> probs = [[0.9, 0.1]] * 6 + [[0.4, 0.6]] * 4
        >>> print(evaluate(probs, [0] * 5 + [1] * 5))
        10 rows            value [95 % interval]
        accuracy           0.9 [0.7, 1]
        balanced_accuracy  0.9 [0.6667, 1]
        ...
        confidence >=  predicted     accuracy [95 % interval]
        0              100.0 % (10)  0.9 [0.7, 1]
        ...
        1              0.0 % (0)     no predictions
    """
    labels = getattr(labels, "targets", labels)
    if hasattr(probs, "evaluate"):
        return probs.evaluate(labels, num_resamples=num_resamples, seed=seed)
    classes = tuple(getattr(probs, "classes", ()))
    probs = unmasked(probs_of(probs), "probs")
    labels = _encoded(unmasked(labels, "labels"), classes)
    num_examples, rows_each = len(probs) if probs.ndim else 0, 1
    if probs.ndim > 2:
        if labels.shape != probs.shape[:-1]:
            raise InputError(
                f"labels have shape {labels.shape} and probs has shape {probs.shape}; expected one "
                "label for each row of probabilities."
            )
        rows_each = int(np.prod(probs.shape[1:-1]))
        probs, labels = probs.reshape(-1, probs.shape[-1]), labels.reshape(-1)
    probs = check_probs(probs)
    labels = check_labels(labels, probs)
    confidence, correct = top_label(probs, labels)
    num_labelled = int(np.count_nonzero(labels >= 0))
    present = np.unique(labels[labels >= 0])
    names, scores = _ANY_LABELS, None
    if num_labelled == len(labels):
        names += _ALL_LABELLED
        scores = np.stack([nll_rows(probs, labels), brier_rows(probs, labels)])

    def metrics_of(examples: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The metrics of resamples of these examples."""
        some = (examples[:, None] * rows_each + np.arange(rows_each)).ravel()
        order = np.argsort(-confidence[some], kind="stable")
        example, some = order // rows_each, some[order]
        rows = RankedRows(confidence[some], correct[some], np.array(TENTHS), num_bins=15)
        of_rows = None if scores is None else scores.take(some, axis=1)
        recall = _Recall(labels[some], correct[some], present)

        def metrics(counts: np.ndarray) -> np.ndarray:
            if rows_each > 1:  # rows of their own are exchangeable: any order will do
                counts = counts.take(example, axis=1)
            resamples = rows.resamples(counts)
            accuracy = rows.accuracy(resamples)
            columns = [*rows.at_thresholds(resamples), accuracy, 1 - accuracy]
            columns += rows.areas(resamples)
            if of_rows is not None:
                columns += [means(counts, of_rows), *rows.calibration_errors(resamples)]
            return np.column_stack([*columns, recall(counts)])

        return metrics

    intervals = bootstrap_rows(
        metrics_of, num_examples, rows_each, num_resamples=num_resamples, seed=seed
    )
    _, low, high = np.array(intervals[: len(TENTHS)]).T
    _, coverage_low, coverage_high = np.array(intervals[len(TENTHS) : 2 * len(TENTHS)]).T
    others = intervals[2 * len(TENTHS) :]
    found = dict(zip(names, others[: len(names)], strict=True))
    by_class = {
        classes[number] if classes else str(number): interval
        for number, interval in zip(present.tolist(), others[len(names) + 1 :], strict=True)
    }
    balanced = others[len(names)] if len(by_class) == probs.shape[1] else None
    thresholds = accuracy_vs_confidence_of(confidence, correct, np.array(TENTHS))
    return Evaluation(
        num_rows=len(labels),
        num_labelled=num_labelled,
        accuracy=found["accuracy"],
        error=found["error"],
        nll=found.get("nll"),
        brier=found.get("brier"),
        ece=found.get("ece"),
        ece_equal_mass=found.get("ece_equal_mass"),
        aurc=found["aurc"],
        eaurc=found["eaurc"],
        augrc=found["augrc"],
        thresholds=thresholds._replace(
            low=low, high=high, coverage_low=coverage_low, coverage_high=coverage_high
        ),
        balanced_accuracy=balanced,
        by_class=by_class,
    )


_ANY_LABELS: tuple[str, ...] = ("accuracy", "error", "aurc", "eaurc", "augrc")
_ALL_LABELLED = ("nll", "brier", "ece", "ece_equal_mass")


class _Recall:
    """Share of the rows of each of some classes that are right, in resamples of them."""

    def __init__(self, labels: np.ndarray, correct: np.ndarray, classes: np.ndarray) -> None:
        self._rows = [np.flatnonzero(labels == number) for number in classes]
        self._right = [rows[correct[rows]] for rows in self._rows]

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        """Their mean, and that of each class, of resamples (block, n): (block, 1 + classes)."""
        shape = (len(self._rows), len(counts))
        drawn, right = (
            np.reshape([counts.take(rows, axis=1).sum(axis=1) for rows in which], shape).T
            for which in (self._rows, self._right)
        )
        recall = np.full(drawn.shape, np.nan)
        np.divide(right, drawn, out=recall, where=drawn > 0)
        # A class that a resample misses is left out of its mean.
        known = drawn > 0
        mean = np.full(len(counts), np.nan)
        total = np.where(known, recall, 0).sum(axis=1)
        np.divide(total, known.sum(axis=1), out=mean, where=known.any(axis=1))
        return np.column_stack([mean, recall])


def _encoded(labels: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Names of classes as their numbers; -1 for a name that is none of them."""
    if labels.dtype.kind not in "UO" or not classes:
        return labels
    number = {name: i for i, name in enumerate(classes)}
    return np.vectorize(lambda name: number.get(str(name), -1), otypes=[int])(labels)
