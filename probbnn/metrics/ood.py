"""Out-of-distribution detection: scores of inputs, and how well they separate.

A score is larger for inputs that look more out-of-distribution. The third usual score, mutual
information (entropy of the mean minus mean entropy over draws), needs the draws and arrives here
as an array. Out-of-distribution is the positive class in every metric of this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from probbnn.errors import InputError
from probbnn.metrics._inputs import HasProbs, check_probs
from probbnn.metrics._tables import BRACKETS, table
from probbnn.metrics.bootstrap import Interval, bootstrap_counts, sums_before

__all__ = [
    "OodEvaluation",
    "OodMetrics",
    "aupr",
    "auroc",
    "entropy",
    "evaluate_ood",
    "fpr95",
    "max_prob_score",
]


def max_prob_score(probs: npt.ArrayLike | HasProbs) -> np.ndarray:
    """One minus the largest probability of each row (Hendrycks & Gimpel, 2017).

    Args:
        probs: Class probabilities, (n, K).

    Returns:
        Scores, (n,), in [0, 1 - 1/K]: 0 is certain, 1 - 1/K uniform.

    Raises:
        InputError: If ``probs`` is not as described.

    Examples:
        >>> max_prob_score([[1.0, 0.0], [0.5, 0.5]])
        array([0. , 0.5])
    """
    return 1 - check_probs(probs).max(axis=1)


def entropy(probs: npt.ArrayLike | HasProbs) -> np.ndarray:
    """Shannon entropy of each row in nats.

    Args:
        probs: Class probabilities, (n, K).

    Returns:
        Scores, (n,), in [0, log K]: 0 is certain, log K uniform.

    Raises:
        InputError: If ``probs`` is not as described.

    Examples:
        >>> entropy([[1.0, 0.0], [0.5, 0.5]]).round(6)
        array([0.      , 0.693147])
    """
    return entr(check_probs(probs)).sum(axis=1)


def auroc(score_in: npt.ArrayLike, score_out: npt.ArrayLike) -> float:
    """Area under the ROC curve, in [0, 1]; 0.5 is guessing.

    The probability that an out-of-distribution input scores higher than an in-distribution one,
    a tie counting one half (Mann-Whitney).

    Args:
        score_in: Scores of in-distribution inputs, (n,).
        score_out: Scores of out-of-distribution inputs, (m,).

    Raises:
        InputError: If a score array is empty, not one-dimensional or not finite.

    Examples:
        >>> auroc([0.1, 0.2, 0.3], [0.3, 0.4])
        0.9166666666666666
    """
    return _auroc(_flagged(score_in, score_out)).item()


def aupr(score_in: npt.ArrayLike, score_out: npt.ArrayLike) -> float:
    """Area under the precision-recall curve as average precision, in (0, 1].

    Sum over thresholds of precision times gain in recall, without interpolation, like
    `sklearn.metrics.average_precision_score`. Out-of-distribution is the positive class; guessing
    scores its share m / (n + m), so only pairs of data sets with the same share are comparable.

    Args:
        score_in: Scores of in-distribution inputs, (n,).
        score_out: Scores of out-of-distribution inputs, (m,).

    Raises:
        InputError: If a score array is empty, not one-dimensional or not finite.

    Examples:
        >>> aupr([0.1, 0.2, 0.3], [0.3, 0.4])
        0.8333333333333333
    """
    return _aupr(_flagged(score_in, score_out)).item()


def fpr95(score_in: npt.ArrayLike, score_out: npt.ArrayLike) -> float:
    """False-positive rate at 95 % true-positive rate, in [0, 1]; 0.95 is guessing.

    Out-of-distribution is the positive class: take the highest threshold at which at least 95 %
    of the out-of-distribution inputs score that much or more, and return the fraction of
    in-distribution inputs that do too. No interpolation. (OpenOOD's convention; ODIN and others
    let in-distribution be positive, which is a different number.)

    Args:
        score_in: Scores of in-distribution inputs, (n,).
        score_out: Scores of out-of-distribution inputs, (m,).

    Raises:
        InputError: If a score array is empty, not one-dimensional or not finite.

    Examples:
        >>> fpr95([0.1, 0.2, 0.3, 0.4], [0.3, 0.5])
        0.5
    """
    return _fpr95(_flagged(score_in, score_out)).item()


class _Flagged(NamedTuple):
    """How many inputs are flagged with the score of each out-of-distribution input as threshold.

    From the strictest threshold to the laxest, for each of a block of resamples.

    Attributes:
        counts: How often each out-of-distribution input was drawn, (block, m).
        true_positives: Out-of-distribution inputs with at least that score, (block, m).
        false_positives: In-distribution inputs with at least that score, (block, m).
        above: In-distribution inputs with a higher score, (block, m).
        num_in: Number of in-distribution inputs, n.
    """

    counts: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    above: np.ndarray
    num_in: int


def _auroc(flagged: _Flagged) -> np.ndarray:
    num_out = flagged.counts.shape[1]
    # Pairs in the wrong order, twice, so that a tie counts one half.
    wrong = np.einsum("bm,bm->b", flagged.counts, flagged.false_positives + flagged.above)
    return 1 - wrong / (2 * flagged.num_in * num_out)


def _aupr(flagged: _Flagged) -> np.ndarray:
    num_flagged = flagged.true_positives + flagged.false_positives
    precision = flagged.true_positives / np.maximum(num_flagged, 1, out=num_flagged)
    return np.einsum("bm,bm->b", flagged.counts, precision) / flagged.counts.shape[1]


def _fpr95(flagged: _Flagged) -> np.ndarray:
    num_out = flagged.counts.shape[1]
    first = np.argmax(100 * flagged.true_positives >= 95 * num_out, axis=1)  # 0.95 is no float
    return np.take_along_axis(flagged.false_positives, first[:, None], 1)[:, 0] / flagged.num_in


class _RankedScores:
    """Scores in descending order, and what does not depend on which of them are drawn."""

    def __init__(self, score_in: np.ndarray, score_out: np.ndarray) -> None:
        # Negative, since that is in ascending order.
        score_in, score_out = np.sort(-score_in), np.sort(-score_out)
        self.sizes = len(score_in), len(score_out)
        self._true = np.searchsorted(score_out, score_out, side="right")
        self._false = np.searchsorted(score_in, score_out, side="right")
        self._above = np.searchsorted(score_in, score_out, side="left")

    def flag(
        self, before_in: np.ndarray, before_out: np.ndarray, counts_out: np.ndarray
    ) -> _Flagged:
        """What is flagged of a block of resamples.

        Args:
            before_in: How many in-distribution inputs were drawn before each, (block, n + 1).
            before_out: How many out-of-distribution inputs, likewise, (block, m + 1).
            counts_out: How often each of those was drawn, (block, m).
        """
        return _Flagged(
            counts_out,
            before_out.take(self._true, axis=1),
            before_in.take(self._false, axis=1),
            before_in.take(self._above, axis=1),
            self.sizes[0],
        )


def _flagged(score_in: npt.ArrayLike, score_out: npt.ArrayLike) -> _Flagged:
    ranked = _RankedScores(_check(score_in, "score_in"), _check(score_out, "score_out"))
    counts_in, counts_out = (np.ones((1, size), np.intp) for size in ranked.sizes)
    return ranked.flag(sums_before(counts_in), sums_before(counts_out), counts_out)


def _check(scores: npt.ArrayLike, name: str) -> np.ndarray:
    """Scores (n,) as float64, unless they are empty, not one-dimensional or not finite."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise InputError(
            f"{name} has shape {scores.shape}; expected one score for each of at least one input."
        )
    if not np.isfinite(scores).all():
        raise InputError(
            f"{name}: {np.count_nonzero(~np.isfinite(scores))} of {len(scores)} scores are not "
            "finite; expected numbers only: look for divergent draws."
        )
    return scores


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
        header = ("score", *(f"{name} {BRACKETS}" for name in OodMetrics._fields))
        rows = [(name, *map(str, metrics)) for name, metrics in self.scores.items()]
        return "\n".join(table([header, *rows]))

    def to_dict(self) -> dict[str, dict[str, dict[str, float | None]]]:
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
    ranked = {
        name: _RankedScores(
            _check(in_scores[name], f"in_scores[{name!r}]"),
            _check(out_scores[name], f"out_scores[{name!r}]"),
        )
        for name in in_scores
    }
    found: dict[str, OodMetrics] = {}
    for sizes in {scores.sizes for scores in ranked.values()}:
        alike = {name: scores for name, scores in ranked.items() if scores.sizes == sizes}
        found |= _bootstrap(alike, sizes, num_resamples, seed)
    return OodEvaluation({name: found[name] for name in in_scores})


def _bootstrap(
    ranked: dict[str, _RankedScores], sizes: tuple[int, int], num_resamples: int, seed: int
) -> dict[str, OodMetrics]:
    """Intervals of several scores for the same inputs, drawn once for all of them."""

    def metrics(counts_in: np.ndarray, counts_out: np.ndarray) -> np.ndarray:
        drawn = sums_before(counts_in), sums_before(counts_out), counts_out
        flagged = [scores.flag(*drawn) for scores in ranked.values()]
        return np.column_stack([metric(f) for f in flagged for metric in (_auroc, _aupr, _fpr95)])

    intervals = bootstrap_counts(metrics, *sizes, num_resamples=num_resamples, seed=seed)
    of_each = zip(*3 * [iter(intervals)], strict=True)
    return {name: OodMetrics(*three) for name, three in zip(ranked, of_each, strict=True)}
