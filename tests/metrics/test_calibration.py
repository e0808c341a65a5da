"""Accuracy, proper scores and calibration against closed forms and independent libraries."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from predictions import LABELS, PROBS, softmax_case, vote_case
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from probbnn import metrics as m
from probbnn.errors import InputError


def test_accuracy_takes_the_first_of_tied_classes_and_counts_no_class_as_wrong():
    probs = [[0.5, 0.5], [0.5, 0.5], [0.2, 0.8], [0.2, 0.8]]
    assert m.accuracy(probs, [0, 1, 1, -1]) == 0.5


@pytest.mark.parametrize("case", [softmax_case, vote_case])
def test_proper_scores_agree_with_sklearn(case):
    probs, labels = case()
    floored = np.maximum(probs, m.NLL_FLOOR)
    if (probs > 0).all():
        assert_allclose(m.nll(probs, labels), log_loss(labels, probs), rtol=1e-12)
    assert_allclose(m.nll(probs, labels), -np.log(floored[range(2000), labels]).mean())
    one_vs_rest = [brier_score_loss(labels == k, probs[:, k]) for k in range(10)]
    assert_allclose(m.brier(probs, labels), sum(one_vs_rest), rtol=1e-12)


def test_nll_of_a_class_without_votes_is_the_floor():
    assert_allclose(m.nll([[1.0, 0.0]], [1]), 87.336545, rtol=1e-7)
    assert m.nll([[1.0, 0.0]], [0]) == 0
    assert_allclose(m.nll(np.float32([[1.0, 1e-37]]), [1]), 37 * np.log(10), rtol=1e-6)


def test_brier_spans_zero_to_two():
    assert m.brier([[1.0, 0.0, 0.0]], [0]) == 0
    assert m.brier([[1.0, 0.0, 0.0]], [1]) == 2


def test_ece_by_hand():
    # Two bins: confidences .6 .7 .8 in (1/2, 1] with two of three right, .4 in (0, 1/2], right.
    probs = [[0.6, 0.3, 0.1], [0.7, 0.3, 0], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3]]
    labels = [0, 1, 1, 1]
    assert_allclose(m.ece(probs, labels, num_bins=2), (0.6 + 3 * abs(2 / 3 - 0.7)) / 4)
    # Of equal mass: .4 .6 (both right) and .7 .8 (one right).
    expected = (2 * abs(1 - 0.5) + 2 * abs(0.5 - 0.75)) / 4
    assert_allclose(m.ece(probs, labels, num_bins=2, binning="equal_mass"), expected)
    assert_array_equal(m.reliability(probs, labels, 2, "equal_mass").counts, [2, 2])


# Golden values: torchmetrics 1.9.0 on torch 2.13.0 (CPU), which bins in float32:
# multiclass_calibration_error(probs, labels, 10, n_bins=15, norm="l1").
@pytest.mark.parametrize(
    ("case", "expected"), [(softmax_case, 0.1566736251115799), (vote_case, 0.2060001939535141)]
)
def test_ece_agrees_with_torchmetrics(case, expected):
    assert_allclose(m.ece(*case()), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("binning", "strategy"), [("equal_width", "uniform"), ("equal_mass", "quantile")]
)
def test_reliability_agrees_with_sklearn(binning, strategy):
    probs, labels = softmax_case(n=1500)
    bins = m.reliability(probs, labels, 15, binning)
    correct, confidence = probs.argmax(1) == labels, probs.max(1)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=15, strategy=strategy)
    assert_allclose(bins.accuracy, accuracy)
    assert_allclose(bins.confidence, mean)
    assert bins.counts.sum() == 1500
    if binning == "equal_mass":
        assert_array_equal(bins.counts, np.full(15, 100))


def test_equal_mass_bins_keep_ties_together():
    probs, labels = vote_case()
    confidence, _, counts = m.reliability(probs, labels, 15, "equal_mass")
    levels, level_counts = np.unique(probs.max(1), return_counts=True)
    ends = set(np.cumsum(level_counts))
    assert len(confidence) <= len(levels)
    assert set(np.cumsum(counts)) <= ends
    # Of ten rows the eight tied ones have the middle rank 5, where the second half begins.
    confidence = np.array([0.6] + [0.7] * 8 + [0.8])
    halves = m.reliability(np.stack([confidence, 1 - confidence], 1), [0] * 10, 2, "equal_mass")
    assert_array_equal(halves.counts, [1, 9])


@pytest.mark.parametrize("num_votes", [10, 15, 30])
def test_bin_edges_do_not_depend_on_float_precision(num_votes):
    probs, labels = vote_case(num_votes)
    exact = m.reliability(probs, labels)
    single = m.reliability(probs.astype(np.float32), labels)
    assert_array_equal(exact.counts, single.counts)
    # On an edge i/15 a confidence belongs to the bin below it.
    rank = np.round(probs.max(1) * num_votes).astype(int)
    assert_array_equal(exact.counts, np.unique(-(-rank * 15 // num_votes), return_counts=True)[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: m.nll(PROBS, [0, -1]), "1 of 2 are -1"),
        (lambda: m.brier(PROBS, [0, -1]), "1 of 2 are -1"),
        (lambda: m.ece(PROBS, [0, -1]), "1 of 2 are -1"),
        (lambda: m.ece(PROBS, LABELS, num_bins=0), "num_bins is 0"),
        (lambda: m.ece(PROBS, LABELS, binning="equal"), "equal_width, equal_mass"),
    ],
)
def test_bad_options_are_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
