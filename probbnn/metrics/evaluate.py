"""All metrics of a predictive at once, each with its bootstrap interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from probbnn.errors import InputError
from probbnn.metrics._inputs import check_labels, check_probs, top_label
from probbnn.metrics.bootstrap import Interval, bootstrap_each
from probbnn.metrics.calibration import brier_rows, ece_of, nll_rows, reliability_of
from probbnn.metrics.ood import aupr_of, auroc_of, check_scores, fpr95_of, rank
from probbnn.metrics.selective import (
    TENTHS,
    AccuracyVsConfidence,
    accuracy_vs_confidence_of,
    augrc_of,
    aurc_of,
    eaurc_of,
    expected_errors,
)

__all__ = ["Evaluation", "HasProbs", "OodEvaluation", "OodMetrics", "evaluate", "evaluate_ood"]


class HasProbs(Protocol):
    """An object that carries class probabilities, such as a predictive."""

    @property
    def probs(self) -> Any:
        """Class probabilities, (n, K)."""


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
        header = ("confidence >=", "predicted", f"accuracy {_BRACKETS}")
        return "\n".join(
            [
                *_table([(f"{self.num_rows} rows", f"value {_BRACKETS}"), *metrics]),
                "",
                *_table([header, *self.thresholds.rows()]),
            ]
        )

    def to_dict(self) -> dict[str, Any]:
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


_BRACKETS = "[95 % interval]"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


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
    columns = [confidence, correct]
    if num_labelled == len(labels):
        columns += [nll_rows(probs, labels), brier_rows(probs, labels)]
    by_confidence = np.argsort(-confidence, kind="stable")
    names = _ANY_LABELS + (_ALL_LABELLED if len(columns) > 2 else ())
    intervals = bootstrap_each(
        _all_metrics,
        *(column[by_confidence] for column in columns),
        num_resamples=num_resamples,
        seed=seed,
    )
    found = dict(zip(names, intervals[2 * len(TENTHS) :], strict=True))
    _, low, high = np.array(intervals[: len(TENTHS)]).T
    _, coverage_low, coverage_high = np.array(intervals[len(TENTHS) : 2 * len(TENTHS)]).T
    table = accuracy_vs_confidence_of(confidence, correct, np.array(TENTHS))
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
        thresholds=table._replace(
            low=low, high=high, coverage_low=coverage_low, coverage_high=coverage_high
        ),
    )


_ANY_LABELS = ("accuracy", "error", "aurc", "eaurc", "augrc")
_ALL_LABELLED = ("nll", "brier", "ece", "ece_equal_mass")


def _all_metrics(
    confidence: np.ndarray, correct: np.ndarray, *proper_scores: np.ndarray
) -> list[float]:
    """Accuracy and coverage at `TENTHS`, `_ANY_LABELS`, and given more rows `_ALL_LABELLED`."""
    errors = expected_errors(confidence, correct)
    at_tenths = accuracy_vs_confidence_of(confidence, correct, np.array(TENTHS))
    numbers = [
        *at_tenths.accuracy,
        *at_tenths.coverage,
        correct.mean(),
        1 - correct.mean(),
        aurc_of(errors),
        eaurc_of(errors),
        augrc_of(errors),
    ]
    if proper_scores:
        numbers += [rows.mean() for rows in proper_scores]
        numbers.append(ece_of(reliability_of(confidence, correct, 15, "equal_width")))
        numbers.append(ece_of(reliability_of(confidence, correct, 15, "equal_mass")))
    return numbers


class OodMetrics(NamedTuple):
    """How well one score tells out-of-distribution from in-distribution inputs.

    Attributes:
        auroc: See `auroc`.
        aupr: See `aupr`.
        fpr95: See `fpr95`.
    """

    auroc: Interval
    aupr: Interval
    fpr95: Interval


@dataclass(frozen=True)
class OodEvaluation:
    """Out-of-distribution detection by each score, with 95 % bootstrap intervals.

    ``print`` it for a table.

    Attributes:
        scores: Metrics for each score, by its name.
    """

    scores: dict[str, OodMetrics]

    def __str__(self) -> str:
        header = ("score", *(f"{name} {_BRACKETS}" for name in OodMetrics._fields))
        rows = [(name, *map(str, metrics)) for name, metrics in self.scores.items()]
        return "\n".join(_table([header, *rows]))

    def to_dict(self) -> dict[str, Any]:
        """Name of score -> name of metric -> value, low and high, for JSON."""
        return {
            name: {metric: interval.to_dict() for metric, interval in metrics._asdict().items()}
            for name, metrics in self.scores.items()
        }


def evaluate_ood(
    in_scores: Mapping[str, npt.ArrayLike],
    out_scores: Mapping[str, npt.ArrayLike],
    *,
    num_resamples: int = 500,
    seed: int = 0,
) -> OodEvaluation:
    """AUROC, AUPR and FPR95 of each score, with 95 % bootstrap intervals.

    Out-of-distribution is the positive class, larger scores mean more of it. The two data sets are
    resampled independently.

    Args:
        in_scores: Name of score -> scores of the in-distribution inputs, (n,).
        out_scores: The same names -> scores of the out-of-distribution inputs, (m,).
        num_resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the bootstrap; every score sees the same resamples.

    Raises:
        InputError: If the names differ, there are none, or scores are not as described.

    Examples:
        >>> scores = evaluate_ood({"entropy": [0.1, 0.2]}, {"entropy": [0.3, 0.9]}).scores
        >>> print(scores["entropy"].auroc)
        1 [1, 1]
    """
    if not in_scores or set(in_scores) != set(out_scores):
        raise InputError(
            f"in_scores has {sorted(in_scores)} and out_scores {sorted(out_scores)}; expected the "
            "same names, at least one: compute every score for both data sets."
        )
    return OodEvaluation(
        {
            name: OodMetrics(
                *bootstrap_each(
                    _ood_metrics,
                    _descending(in_scores[name], f"in_scores[{name!r}]"),
                    _descending(out_scores[name], f"out_scores[{name!r}]"),
                    paired=False,
                    num_resamples=num_resamples,
                    seed=seed,
                )
            )
            for name in in_scores
        }
    )


def _descending(scores: npt.ArrayLike, name: str) -> np.ndarray:
    return np.sort(check_scores(scores, name))[::-1]


def _ood_metrics(score_in: np.ndarray, score_out: np.ndarray) -> list[float]:
    ranking = rank(score_in, score_out)
    return [auroc_of(ranking), aupr_of(ranking), fpr95_of(ranking)]
