"""All metrics of a predictive at once, each with its bootstrap interval."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from probbnn.metrics._inputs import HasProbs, check_labels, check_probs, top_label
from probbnn.metrics._resamples import RankedRows
from probbnn.metrics._tables import BRACKETS, table
from probbnn.metrics.bootstrap import Interval, bootstrap_counts, means
from probbnn.metrics.calibration import brier_rows, nll_rows
from probbnn.metrics.selective import TENTHS, AccuracyVsConfidence, accuracy_vs_confidence_of

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
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
            "thresholds": self.thresholds.to_dict(),
        }

    def _metrics(self) -> dict[str, Interval | None]:
        return {
            "accuracy": self.accuracy,
            "error": self.error,
            "nll": self.nll,
            "brier": self.brier,
            "ece": self.ece,
            "ece_equal_mass": self.ece_equal_mass,
            "aurc": self.aurc,
            "eaurc": self.eaurc,
            "augrc": self.augrc,
        }


def evaluate(
    probs: npt.ArrayLike | HasProbs,
    labels: npt.ArrayLike,
    *,
    num_resamples: int = 500,
    seed: int = 0,
) -> Evaluation:
    """Every metric of class probabilities against labels, with 95 % bootstrap intervals.

    All intervals come from the same resamples of rows: see `bootstrap` for what they mean. The
    interval of an accuracy above a threshold leaves out the resamples in which nothing passes, and
    has no width where all of its predictions are right, or all wrong.

    Args:
        probs: Class probabilities, (n, K), or an object with such an array as ``.probs``.
        labels: True classes, integers (n,). -1 belongs to no class: always wrong, and
            the metrics that need a class for every row are None.
        num_resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the bootstrap.

    Raises:
        InputError: If an argument is not as described.

    Examples:
        >>> probs = [[0.9, 0.1]] * 6 + [[0.4, 0.6]] * 4
        >>> print(evaluate(probs, [0] * 5 + [1] * 5))
        10 rows         value [95 % interval]
        accuracy        0.9 [0.7, 1]
        ...
        confidence >=  predicted     accuracy [95 % interval]
        0              100.0 % (10)  0.9 [0.7, 1]
        ...
        1              0.0 % (0)     no predictions
    """
    probs = check_probs(probs)
    labels = check_labels(labels, probs)
    confidence, correct = top_label(probs, labels)
    num_labelled = int(np.count_nonzero(labels >= 0))
    by_confidence = np.argsort(-confidence, kind="stable")
    rows = RankedRows(
        confidence[by_confidence], correct[by_confidence], np.array(TENTHS), num_bins=15
    )
    names, scores = _ANY_LABELS, None
    if num_labelled == len(labels):
        names += _ALL_LABELLED
        scores = np.stack([nll_rows(probs, labels), brier_rows(probs, labels)])
        scores = scores.take(by_confidence, axis=1)

    def metrics(counts: np.ndarray) -> np.ndarray:
        resamples = rows.resamples(counts)
        accuracy = rows.accuracy(resamples)
        columns = [*rows.at_thresholds(resamples), accuracy, 1 - accuracy, *rows.areas(resamples)]
        if scores is not None:
            columns += [means(counts, scores), *rows.calibration_errors(resamples)]
        return np.column_stack(columns)

    intervals = bootstrap_counts(metrics, len(labels), num_resamples=num_resamples, seed=seed)
    _, low, high = np.array(intervals[: len(TENTHS)]).T
    _, coverage_low, coverage_high = np.array(intervals[len(TENTHS) : 2 * len(TENTHS)]).T
    found = dict(zip(names, intervals[2 * len(TENTHS) :], strict=True))
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
    )


_ANY_LABELS: tuple[str, ...] = ("accuracy", "error", "aurc", "eaurc", "augrc")
_ALL_LABELLED = ("nll", "brier", "ece", "ece_equal_mass")
