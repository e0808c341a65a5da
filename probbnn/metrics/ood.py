"""Does it know what it does not know? Out-of-distribution scores, and how well they separate.

A score is larger for inputs that look more out-of-distribution. The third usual score, mutual
information (entropy of the mean minus mean entropy over draws), needs the draws and arrives here
as an array. Out-of-distribution is the positive class in every metric of this module.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from probbnn.errors import InputError
from probbnn.metrics._inputs import check_probs, ranked

__all__ = ["aupr", "auroc", "entropy", "fpr95", "max_prob_score"]


def max_prob_score(probs: npt.ArrayLike) -> np.ndarray:
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


def entropy(probs: npt.ArrayLike) -> np.ndarray:
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
    return auroc_of(_check_and_rank(score_in, score_out))


class Ranking(NamedTuple):
    """How many inputs each threshold flags, from the strictest threshold to the laxest.

    Entry 0 flags none; after that comes one entry for each distinct score, which flags the inputs
    with at least that score. Equal scores are flagged together, so ties have no order.

    Attributes:
        false_positives: In-distribution inputs flagged, (thresholds + 1,), from 0 to n.
        true_positives: Out-of-distribution inputs flagged, likewise, from 0 to m.
    """

    false_positives: np.ndarray
    true_positives: np.ndarray


def auroc_of(ranking: Ranking) -> float:
    """Area under the ROC curve of a ranking."""
    fp, tp = ranking
    return float(np.trapezoid(tp, fp) / (fp[-1] * tp[-1]))


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
    return aupr_of(_check_and_rank(score_in, score_out))


def aupr_of(ranking: Ranking) -> float:
    """Average precision of a ranking."""
    fp, tp = ranking
    precision = tp[1:] / (tp[1:] + fp[1:])
    return float((np.diff(tp) * precision).sum() / tp[-1])


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
    return fpr95_of(_check_and_rank(score_in, score_out))


def fpr95_of(ranking: Ranking) -> float:
    """False-positive rate of a ranking at the first threshold with 95 % true positives."""
    fp, tp = ranking
    first = np.argmax(100 * tp >= 95 * tp[-1])  # in integers: 0.95 is no float
    return float(fp[first] / fp[-1])


def rank(score_in: np.ndarray, score_out: np.ndarray) -> Ranking:
    """Rank checked scores (n,) and (m,). Fast if each of them is already in descending order."""
    order, sizes = ranked(np.concatenate([score_in, score_out]))
    flagged = np.append(0, np.cumsum(sizes))
    tp = np.append(0, np.cumsum(order >= len(score_in)))[flagged]
    return Ranking(flagged - tp, tp)


def check_scores(scores: npt.ArrayLike, name: str) -> np.ndarray:
    """Return scores (n,) as float64.

    Raises:
        InputError: If they are empty, not one-dimensional or not finite.
    """
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


def _check_and_rank(score_in: npt.ArrayLike, score_out: npt.ArrayLike) -> Ranking:
    return rank(check_scores(score_in, "score_in"), check_scores(score_out, "score_out"))
