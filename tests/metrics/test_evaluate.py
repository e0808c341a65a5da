"""Every metric of class probabilities at once: each is itself, with its own bootstrap."""

import sys
import types

import numpy as np
import pytest
from helpers import toy_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from predictions import ROW_METRICS, assert_clean, softmax_case, vote_case, votes_and_labels

from probbnn import metrics as m
from probbnn.errors import InputError


@settings(deadline=None)
@given(case=votes_and_labels(lowest_label=0), seed=st.integers(0, 99))
def test_no_metric_depends_on_the_order_of_the_rows(case, seed):
    probs, labels = case
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    for name in ROW_METRICS:
        metric = getattr(m, name)
        assert_allclose(
            metric(probs[shuffled], labels[shuffled]), metric(probs, labels), atol=1e-12
        )
    assert_allclose(
        m.ece(probs[shuffled], labels[shuffled], 4, "equal_mass"),
        m.ece(probs, labels, 4, "equal_mass"),
        atol=1e-12,
    )


@pytest.mark.parametrize("case", [softmax_case, vote_case])
def test_evaluate_reports_each_metric_and_its_bootstrap(case):
    probs, labels = case()
    by_confidence = np.argsort(-probs.max(1), kind="stable")
    probs, labels = probs[by_confidence], labels[by_confidence]
    result = m.evaluate(probs, labels, num_resamples=20, seed=7)

    def intervals(metric):
        return m.bootstrap(metric, probs, labels, num_resamples=20, seed=7)

    for name in ROW_METRICS:
        assert_allclose(getattr(result, name), intervals(getattr(m, name)), rtol=1e-9, atol=1e-12)
    equal_mass = intervals(lambda p, y: m.ece(p, y, 15, "equal_mass"))
    assert_allclose(result.ece_equal_mass, equal_mass, rtol=1e-9)
    assert_allclose(result.error, intervals(lambda p, y: 1 - m.accuracy(p, y)))
    table = m.accuracy_vs_confidence(probs, labels)
    assert_array_equal(result.thresholds.num_predicted, table.num_predicted)
    assert_array_equal(result.thresholds.accuracy, table.accuracy)
    at_06 = intervals(lambda p, y: m.accuracy_vs_confidence(p, y, [0.6]).accuracy[0])
    assert_allclose((result.thresholds.low[6], result.thresholds.high[6]), at_06[1:])


@settings(deadline=None, max_examples=50)
@given(case=votes_and_labels(lowest_label=0), seed=st.integers(0, 99))
def test_resamples_at_once_are_the_resamples_one_by_one(case, seed):
    probs, labels = case
    by_confidence = np.argsort(-probs.max(1), kind="stable")
    probs, labels = probs[by_confidence], labels[by_confidence]
    result = m.evaluate(probs, labels, num_resamples=4, seed=seed)

    def one_by_one(p, y):
        table = m.accuracy_vs_confidence(p, y)
        return [
            *table.accuracy,
            *table.coverage,
            *(getattr(m, name)(p, y) for name in ROW_METRICS),
            m.ece(p, y, 15, "equal_mass"),
        ]

    intervals = m.bootstrap_each(one_by_one, probs, labels, num_resamples=4, seed=seed)
    bounds = np.array(intervals)[:, 1:]
    thresholds = result.thresholds
    assert_allclose(np.stack([thresholds.low, thresholds.high], 1), bounds[:11], rtol=1e-12)
    coverage = np.stack([thresholds.coverage_low, thresholds.coverage_high], 1)
    assert_allclose(coverage, bounds[11:22], rtol=1e-12)
    found = [getattr(result, name) for name in [*ROW_METRICS, "ece_equal_mass"]]
    assert_allclose(found, intervals[22:], rtol=1e-12, atol=1e-12)


def test_bins_of_resamples_hold_the_ties_that_they_hold_one_by_one():
    """Of more rows than bins, so that blocks of ties share them and end on their limits."""
    votes, classes = vote_case()
    for number in (45, 60):
        probs, labels = votes[:number], classes[:number]
        found = m.evaluate(probs, labels, num_resamples=50).ece_equal_mass
        one_by_one = m.bootstrap(
            lambda p, y: m.ece(p, y, 15, "equal_mass"),
            *(x[np.argsort(-probs.max(1), kind="stable")] for x in (probs, labels)),
            num_resamples=50,
        )
        assert_allclose(found, one_by_one, rtol=1e-12)


def test_evaluate_takes_a_predictive():
    probs, labels = softmax_case(n=20)
    predictive = types.SimpleNamespace(probs=probs.astype(np.float32))
    assert m.evaluate(predictive, labels, num_resamples=2).accuracy.value == m.accuracy(
        probs, labels
    )


@settings(deadline=None, max_examples=50)
@given(case=votes_and_labels(), num_resamples=st.integers(1, 3))
def test_no_evaluation_shows_nan(case, num_resamples):
    assert_clean(m.evaluate(*case, num_resamples=num_resamples))


def test_evaluation_without_labels():
    probs, _ = vote_case()
    result = m.evaluate(probs[:50], np.full(50, -1), num_resamples=10)
    assert result.accuracy == (0, 0, 0)
    assert result.nll is result.brier is result.ece is result.ece_equal_mass is None
    assert str(result).count("no labels") == 4
    assert result.to_dict()["nll"] is None
    assert_clean(result)


def test_evaluation_with_some_rows_of_no_class():
    result = m.evaluate([[0.9, 0.1], [0.6, 0.4]], [0, -1], num_resamples=10)
    assert result.accuracy.value == 0.5
    assert result.nll is None
    assert "1 of 2 rows labelled" in str(result)


def test_evaluation_table_says_no_predictions():
    result = m.evaluate([[0.7, 0.3]] * 3, [0, 0, 1], num_resamples=10)
    assert str(result).splitlines()[-1].split() == ["1", "0.0", "%", "(0)", "no", "predictions"]
    assert result.to_dict()["thresholds"]["accuracy"][-1] is None
    assert result.to_dict()["thresholds"]["high"][-1] is None


def test_of_very_many_rows_a_part_is_resampled_and_the_intervals_are_those_of_all(monkeypatch):
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, size=8_000)
    labels = (rng.random(8_000) > confidence).astype(int)
    probs = np.stack([confidence, 1 - confidence], axis=1)
    exact = m.evaluate(probs, labels)
    monkeypatch.setattr(sys.modules["probbnn.metrics.bootstrap"], "_MOST_ROWS", 2_000)
    found = m.evaluate(probs, labels)
    for name in ("accuracy", "nll", "brier", "aurc", "augrc"):
        one, all_ = getattr(found, name), getattr(exact, name)
        assert one.value == pytest.approx(all_.value)
        # A quarter of the rows has a spread of its own, and 500 resamples theirs: within 20 %.
        assert (one.high - one.low) / (all_.high - all_.low) == pytest.approx(1, abs=0.2)
    mean = types.SimpleNamespace(mean=confidence, std=np.full(8_000, 0.3))
    values = m.evaluate_regression(mean, confidence + 0.3 * rng.normal(size=8_000))
    assert 0.29 < values.rmse.low < values.rmse.value < values.rmse.high < 0.31


def test_a_data_set_stands_for_its_labels():
    data = toy_dataset(n=6, classes=3)
    probs = np.eye(3)[data.labels]
    assert m.evaluate(probs, data, num_resamples=2).accuracy.value == 1
    with pytest.raises(InputError, match="Dataset; "):
        m.evaluate(data, probs)
    predictive = types.SimpleNamespace(probs=probs, classes=data.classes)
    names = np.array(data.classes)[data.labels]
    evaluation = m.evaluate(predictive, names, num_resamples=2)
    assert evaluation.accuracy.value == 1
    assert list(evaluation.by_class) == ["a", "b", "c"]
