"""Fidelity: distances of a predictive to that of a reference posterior.

The reference is a sampler that is trusted, such as long full-batch NUTS. What it has of Monte Carlo
error counts against both: a second run of it, of the same length, shows how near zero one can get.

Source: Izmailov et al. (2021), "What are Bayesian neural network posteriors really like?", and the
NeurIPS 2021 competition "Approximate inference in Bayesian deep learning" (Wilson et al., 2022),
for agreement and total variation.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from probbnn.errors import InputError
from probbnn.metrics._inputs import HasProbs, check_probs
from probbnn.metrics._tables import Intervals
from probbnn.metrics.bootstrap import Interval, bootstrap_means
from probbnn.metrics.ood import entropy

__all__ = ["Fidelity", "agreement", "entropy_error", "evaluate_fidelity", "total_variation"]


def agreement(probs: npt.ArrayLike | HasProbs, reference: npt.ArrayLike | HasProbs) -> float:
    """Fraction of inputs on which both predict the same class, in [0, 1]; 1 is perfect.

    Of classes that are equally probable the one with the lowest index is the prediction.

    Args:
        probs: Class probabilities, (n, K), or an object with such an array as ``.probs``.
        reference: Those of the reference for the same inputs, likewise.

    Raises:
        InputError: If ``probs`` or ``reference`` is not as described, or their shapes differ.

    Examples:
        >>> agreement([[0.9, 0.1], [0.4, 0.6]], [[0.6, 0.4], [0.7, 0.3]])
        0.5
    """
    return float(_agreement_rows(*_check_pair(probs, reference)).mean())


def _agreement_rows(probs: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return probs.argmax(axis=1) == reference.argmax(axis=1)


def total_variation(probs: npt.ArrayLike | HasProbs, reference: npt.ArrayLike | HasProbs) -> float:
    """Mean total variation distance over inputs, ½ Σ_k |p_k - r_k|, in [0, 1]; 0 is perfect.

    Of an input it is the most by which the two can differ on the probability of any set of classes.

    Args:
        probs: Class probabilities, (n, K), or an object with such an array as ``.probs``.
        reference: Those of the reference for the same inputs, likewise.

    Raises:
        InputError: If ``probs`` or ``reference`` is not as described, or their shapes differ.

    Examples:
        >>> total_variation([[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]])
        0.25
    """
    return float(_total_variation_rows(*_check_pair(probs, reference)).mean())


def _total_variation_rows(probs: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return 0.5 * np.abs(probs - reference).sum(axis=1)


def entropy_error(probs: npt.ArrayLike | HasProbs, reference: npt.ArrayLike | HasProbs) -> float:
    """Mean over inputs of |H(p) - H(r)| in nats, in [0, log K]; 0 is perfect.

    Whether each input is as uncertain as it should be, whichever classes it is torn between. Taken
    input by input, so that too much here does not make up for too little there.

    Args:
        probs: Class probabilities, (n, K), or an object with such an array as ``.probs``.
        reference: Those of the reference for the same inputs, likewise.

    Raises:
        InputError: If ``probs`` or ``reference`` is not as described, or their shapes differ.

    Examples:
        >>> round(entropy_error([[1.0, 0.0], [0.5, 0.5]], [[0.5, 0.5], [0.0, 1.0]]), 6)
        0.693147
    """
    return float(_entropy_error_rows(*_check_pair(probs, reference)).mean())


def _entropy_error_rows(probs: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return np.abs(entropy(probs) - entropy(reference))


def _check_pair(
    probs: npt.ArrayLike | HasProbs, reference: npt.ArrayLike | HasProbs
) -> tuple[np.ndarray, np.ndarray]:
    checked = check_probs(probs)
    try:
        checked_reference = check_probs(reference)
    except InputError as error:
        raise InputError(f"reference: {error}") from None
    if checked.shape != checked_reference.shape:
        raise InputError(
            f"probs has shape {checked.shape} and reference {checked_reference.shape}; expected "
            "the same: predict with both for the same inputs."
        )
    return checked, checked_reference


@dataclass(frozen=True)
class Fidelity(Intervals):
    """How close a predictive is to that of a reference, with 95 % bootstrap intervals.

    ``print`` it for a table.

    Attributes:
        agreement: See `agreement`.
        total_variation: See `total_variation`.
        entropy_error: See `entropy_error`, in nats.
    """

    _title: ClassVar = "fidelity"

    agreement: Interval
    total_variation: Interval
    entropy_error: Interval


def evaluate_fidelity(
    probs: npt.ArrayLike | HasProbs,
    reference: npt.ArrayLike | HasProbs,
    *,
    num_resamples: int = 500,
    seed: int = 0,
) -> Fidelity:
    """How close a predictive is to that of a reference posterior, with 95 % bootstrap intervals.

    All intervals come from the same resamples of inputs. They tell nothing about other draws of
    either posterior: see `bootstrap`.

    Args:
        probs: Class probabilities, (n, K), or an object with such an array as ``.probs``.
        reference: Those of the reference for the same inputs, likewise.
        num_resamples: Number of bootstrap resamples, at least 1.
        seed: Seed of the bootstrap.

    Raises:
        InputError: If an argument is not as described, or the shapes differ.

    Examples:
        >>> print(evaluate_fidelity([[0.9, 0.1]] * 10, [[0.8, 0.2]] * 10))
        fidelity         value [95 % interval]
        agreement        1 [1, 1]
        total_variation  0.1 [0.1, 0.1]
        entropy_error    0.1753 [0.1753, 0.1753]
    """
    pair = _check_pair(probs, reference)
    return Fidelity(
        *bootstrap_means(
            _agreement_rows(*pair),
            _total_variation_rows(*pair),
            _entropy_error_rows(*pair),
            num_resamples=num_resamples,
            seed=seed,
        )
    )
