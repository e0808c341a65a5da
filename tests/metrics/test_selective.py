"""Selective prediction against closed forms and brute force over the orders of ties."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from predictions import LABELS, PROBS, softmax_case, vote_case, votes_and_labels
from sklearn.metrics import roc_auc_score

from probbnn import metrics as m
from probbnn.errors import InputError


def test_thresholds_by_hand():
    probs = [[1.0, 0.0], [0.6, 0.4], [0.4, 0.6], [0.5, 0.5]]
    table = m.accuracy_vs_confidence(probs, [0, 1, 1, -1])
    assert_array_equal(table.num_predicted, [4, 4, 4, 4, 4, 4, 3, 1, 1, 1, 1])
    assert_allclose(table.coverage, table.num_predicted / 4)
    assert_allclose(table.accuracy, [1 / 2] * 6 + [2 / 3] + [1] * 4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_share_of_ten_votes_passes_its_own_threshold(dtype):
    share = np.arange(5, 11)
    probs = np.stack([share / 10, 1 - share / 10], 1).astype(dtype)
    table = m.accuracy_vs_confidence(probs, np.zeros(6, int))
    assert_array_equal(table.num_predicted[5:], [6, 5, 4, 3, 2, 1])


def test_a_rounded_certainty_passes_one():
    probs = np.float32([[0.9999999, 1e-7], [0.99999, 1e-5]])
    assert m.accuracy_vs_confidence(probs, [0, 0], [1.0]).num_predicted == 1


def test_empty_subsets_say_no_predictions():
    table = m.accuracy_vs_confidence([[0.7, 0.3]], [0], [0.5, 0.9])
    assert np.isnan(table.accuracy[1])
    assert table.rows() == [("0.5", "100.0 % (1)", "1"), ("0.9", "0.0 % (0)", "no predictions")]
    assert table.to_dict()["accuracy"] == [1.0, None]
    assert table.to_dict()["low"] is None


def brute_force_curve(probs, labels):
    """Cumulative errors, averaged over every order of the rows that sorts by confidence."""
    confidence, wrong = probs.max(1), probs.argmax(1) != labels
    orders = [
        list(order)
        for order in itertools.permutations(range(len(labels)))
        if (np.diff(confidence[list(order)]) <= 0).all()
    ]
    return np.mean([wrong[order].cumsum() for order in orders], axis=0)


def test_risk_coverage_areas_agree_with_brute_force_over_tie_orders():
    rng = np.random.default_rng(3)
    for _ in range(30):
        n = rng.integers(1, 7)
        probs = np.array([np.bincount(rng.integers(3, size=4), minlength=3) for _ in range(n)]) / 4
        labels = rng.integers(-1, 3, size=n)
        errors, rank = brute_force_curve(probs, labels), np.arange(1, n + 1)
        curve = m.risk_coverage(probs, labels)
        assert_allclose(curve.coverage, rank / n)
        assert_allclose(curve.risk, errors / rank, atol=1e-12)
        assert_allclose(m.aurc(probs, labels), (errors / rank).mean(), atol=1e-12)
        oracle = np.sort(probs.argmax(1) != labels).cumsum() / rank
        expected = (errors / rank).mean() - oracle.mean()
        assert_allclose(m.eaurc(probs, labels), expected, atol=1e-12)
        trapezoid = (errors.sum() - errors[-1] / 2) / n**2
        assert_allclose(m.augrc(probs, labels), trapezoid, atol=1e-12)


@pytest.mark.parametrize("case", [softmax_case, vote_case])
def test_augrc_satisfies_the_identity_of_traub_et_al(case):
    probs, labels = case()
    correct = probs.argmax(1) == labels
    error, area = 1 - correct.mean(), roc_auc_score(correct, probs.max(1))
    assert_allclose(m.augrc(probs, labels), (1 - area) * (1 - error) * error + error**2 / 2)


def test_areas_agree_with_torch_uncertainty():
    # Golden values: AURC and AUGRC of torch-uncertainty 0.13.0 (torch 2.13.0, float64), which
    # integrates from coverage 1/n to 1 by the trapezoidal rule and divides by 1 - 1/n. The
    # conversion to our definitions is exact.
    probs, labels = softmax_case()
    n, risk = len(labels), m.risk_coverage(probs, labels).risk
    aurc = (n * m.aurc(probs, labels) - (risk[0] + risk[-1]) / 2) / (n - 1)
    augrc = (n * m.augrc(probs, labels) - risk[0] / (2 * n)) / (n - 1)
    assert_allclose(aurc, 0.43385587884230115, rtol=1e-6)
    assert_allclose(augrc, 0.24109117062894553, rtol=1e-6)


def test_selective_limits():
    probs = np.tile([0.4, 0.6], (50, 1))
    right, wrong = np.ones(50, int), np.full(50, -1)
    assert m.aurc(probs, right) == m.eaurc(probs, right) == m.augrc(probs, right) == 0
    assert m.aurc(probs, wrong) == 1
    assert m.eaurc(probs, wrong) == 0
    assert m.augrc(probs, wrong) == 0.5
    half = np.repeat([0, 1], 25)  # one block of ties: every risk is the error rate
    assert_allclose(m.aurc(probs, half), 0.5)


@given(num_right=st.integers(0, 30), num_wrong=st.integers(0, 30))
def test_perfect_ranking_has_no_excess(num_right, num_wrong):
    if num_right + num_wrong == 0:
        return
    confidence = np.linspace(0.9, 0.6, num_right + num_wrong)
    labels = np.repeat([0, 1], [num_right, num_wrong])
    probs = np.stack([confidence, 1 - confidence], 1)
    assert_allclose(m.eaurc(probs, labels), 0, atol=1e-15)
    assert_allclose(m.augrc(probs, labels), (num_wrong / len(labels)) ** 2 / 2)


@settings(deadline=None)
@given(case=votes_and_labels())
def test_selective_metrics_stay_in_range(case):
    assert 0 <= m.eaurc(*case) <= m.aurc(*case) <= 1 + 1e-12
    assert 0 <= m.augrc(*case) <= 0.5


def test_thresholds_that_are_no_list_are_refused():
    with pytest.raises(InputError, match="thresholds is 0.5") as error:
        m.accuracy_vs_confidence(PROBS, LABELS, 0.5)
    assert "\n" not in str(error.value)
