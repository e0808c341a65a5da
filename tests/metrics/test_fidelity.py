"""Fidelity to a reference posterior against closed forms, and what holds for any predictive."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import probbnn as pb
from probbnn import metrics as m

METRICS = ["agreement", "total_variation", "entropy_error"]


def entropy_of(*probs):
    return -sum(p * np.log(p) for p in probs)


@st.composite
def pairs(draw):
    """Two predictives for the same few inputs and two to five classes, certain ones among them."""
    shape = draw(st.integers(1, 8)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    concentration = draw(st.sampled_from([1e-3, 0.3, 1.0, 30.0]))
    probs, reference = rng.dirichlet(np.full(shape[1], concentration), size=(2, shape[0]))
    return probs, reference


# Closed forms


def test_agreement_counts_the_inputs_with_the_same_class():
    reference = [[0.5, 0.3, 0.2], [0.4, 0.4, 0.2], [0.1, 0.2, 0.7]]
    assert m.agreement([[1.0, 0, 0], [0.4, 0.4, 0.2], [0, 0, 1.0]], reference) == 1
    assert m.agreement([[0, 1.0, 0], [0, 1.0, 0], [0, 0, 1.0]], reference) == 1 / 3


def test_total_variation_is_half_the_sum_over_classes():
    # One input, distances .2 .1 .1: half their sum is .2, their sum .4.
    assert_allclose(m.total_variation([[0.5, 0.3, 0.2]], [[0.3, 0.4, 0.3]]), 0.2)
    # Four classes, distances .25 each: half their sum is .5, the largest only .25.
    assert_allclose(m.total_variation([[0.5, 0.5, 0, 0]], [[0.25] * 4]), 0.5)


def test_total_variation_is_a_mean_over_inputs():
    probs, reference = [[1.0, 0], [0.7, 0.3], [0.5, 0.5]], [[0, 1.0], [0.6, 0.4], [0.5, 0.5]]
    assert_allclose(m.total_variation(probs, reference), (1 + 0.1 + 0) / 3)


def test_entropy_error_by_hand_in_nats():
    probs, reference = [[0.9, 0.1], [0.5, 0.5]], [[0.5, 0.5], [0.2, 0.8]]
    too_little, too_much = np.log(2) - entropy_of(0.9, 0.1), np.log(2) - entropy_of(0.2, 0.8)
    assert_allclose(m.entropy_error(probs, reference), (too_little + too_much) / 2)


def test_errors_of_entropy_do_not_cancel_between_inputs():
    # Certain where the reference is uniform, and the reverse: the mean entropies are equal.
    certain_first = [[1.0, 0, 0, 0], [0.25] * 4]
    assert_allclose(m.entropy_error(certain_first, certain_first[::-1]), np.log(4))


def test_each_metric_sees_what_the_others_miss():
    # Another class with the same certainty; the same class with another certainty.
    assert m.entropy_error([[0.8, 0.2]], [[0.2, 0.8]]) == 0
    assert_allclose(m.total_variation([[0.8, 0.2]], [[0.2, 0.8]]), 0.6)
    assert m.agreement([[0.8, 0.2]], [[0.2, 0.8]]) == 0
    assert m.agreement([[0.8, 0.2]], [[0.6, 0.4]]) == 1
    assert m.entropy_error([[0.8, 0.2]], [[0.6, 0.4]]) > 0.1


# What holds for any pair


@settings(deadline=None)
@given(pair=pairs(), seed=st.integers(0, 99))
def test_the_order_of_the_arguments_the_inputs_and_the_classes_does_not_matter(pair, seed):
    probs, reference = pair
    rng = np.random.default_rng(seed)
    inputs, classes = rng.permutation(len(probs)), rng.permutation(probs.shape[1])
    for name in METRICS:
        metric = getattr(m, name)
        value = metric(probs, reference)
        assert metric(reference, probs) == value
        assert_allclose(metric(probs[inputs], reference[inputs]), value, atol=1e-12)
        permuted = metric(probs[:, classes], reference[:, classes])
        assert_allclose(permuted, value, atol=1e-12)


@settings(deadline=None)
@given(pair=pairs())
def test_ranges_and_the_perfect_score(pair):
    probs, reference = pair
    assert 0 <= m.agreement(probs, reference) <= 1
    assert 0 <= m.total_variation(probs, reference) <= 1 + 1e-12
    assert 0 <= m.entropy_error(probs, reference) <= np.log(probs.shape[1]) + 1e-12
    assert [getattr(m, name)(probs, probs) for name in METRICS] == [1, 0, 0]


def test_the_bounds_are_reached():
    one_hot, uniform = np.eye(4), np.full((4, 4), 0.25)
    assert m.agreement(one_hot, one_hot[::-1]) == 0
    assert m.total_variation(one_hot, one_hot[::-1]) == 1
    assert_allclose(m.entropy_error(one_hot, uniform), np.log(4))


# All at once


def some_pair():
    return np.random.default_rng(0).dirichlet(np.ones(5), size=(2, 40))


def test_evaluate_fidelity_reports_each_metric_and_its_bootstrap():
    probs, reference = some_pair()
    result = pb.evaluate_fidelity(probs, reference, num_resamples=30, seed=3)
    assert isinstance(result, pb.Fidelity)
    for name in METRICS:
        expected = m.bootstrap(getattr(m, name), probs, reference, num_resamples=30, seed=3)
        assert_allclose(getattr(result, name), expected, rtol=1e-12)


def test_evaluate_fidelity_takes_predictives():
    probs, reference = some_pair()
    others = {"votes": reference, "mean_logits_probs": reference, "expected_entropy": np.zeros(40)}
    predictive = pb.Predictive(probs, num_draws=2, **others)
    expected = pb.evaluate_fidelity(probs, reference, num_resamples=5)
    assert pb.evaluate_fidelity(predictive, reference, num_resamples=5) == expected
    assert pb.evaluate_fidelity(reference, predictive, num_resamples=5) == expected


def test_fidelity_for_people_and_for_machines():
    result = pb.evaluate_fidelity(*some_pair(), num_resamples=20)
    lines = str(result).splitlines()
    assert [line.split()[0] for line in lines] == ["fidelity", *METRICS]
    assert lines[1:] == [f"{name:<15}  {getattr(result, name)}" for name in METRICS]
    assert result.to_dict() == {name: getattr(result, name)._asdict() for name in METRICS}
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()


# What is refused

PROBS = np.array([[0.9, 0.1], [0.4, 0.6]])


@pytest.mark.parametrize("name", [*METRICS, "evaluate_fidelity"])
@pytest.mark.parametrize(
    ("probs", "reference", "message"),
    [
        (PROBS, PROBS[:1], r"^probs has shape \(2, 2\) and reference \(1, 2\); expected the same"),
        (PROBS, np.full((2, 3), 1 / 3), r"\(2, 2\) and reference \(2, 3\)"),
        (PROBS * 3, PROBS, "^probs: 2 of 2 rows .* softmax"),
        (PROBS, PROBS * 3, "^reference: probs: 2 of 2 rows .* softmax"),
        (PROBS, PROBS * [[1], [np.nan]], "^reference: .* finite .row 1"),
        (PROBS, PROBS[None], r"^reference: .* shape \(1, 2, 2\)"),
        (PROBS[:0], PROBS[:0], "no rows"),
        (PROBS, PROBS.argmax(axis=1), r"^reference: .* shape \(2,\)"),
    ],
)
def test_bad_predictions_are_refused_in_one_line(name, probs, reference, message):
    with pytest.raises(pb.InputError, match=message) as error:
        getattr(m, name)(probs, reference)
    assert "\n" not in str(error.value)


def test_bad_options_are_refused():
    with pytest.raises(pb.InputError, match="num_resamples=0"):
        pb.evaluate_fidelity(PROBS, PROBS, num_resamples=0)
