"""Out-of-distribution detection against closed forms and independent libraries."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from predictions import PROBS, assert_clean
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from probbnn import metrics as m
from probbnn.errors import InputError


def score_case(decimals=None):
    rng = np.random.default_rng(2)
    score_in, score_out = rng.random(1500), rng.random(1000) ** 0.5
    if decimals is None:
        return score_in, score_out
    return score_in.round(decimals), score_out.round(decimals)


def sklearn_pair(score_in, score_out):
    return np.repeat([0, 1], [len(score_in), len(score_out)]), np.append(score_in, score_out)


score_lists = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=20)


def test_scores_run_from_certain_to_uniform():
    probs = np.array([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]])
    assert_allclose(m.max_prob_score(probs), [0, 0.75, 0.5])
    assert_allclose(m.entropy(probs), np.log([1, 4, 2]))


@given(score_in=score_lists, score_out=score_lists)
def test_auroc_is_the_share_of_pairs_in_order(score_in, score_out):
    pairs = [(a < b) + (a == b) / 2 for a in score_in for b in score_out]
    assert_allclose(m.auroc(score_in, score_out), np.mean(pairs))
    assert_allclose(m.auroc(score_in, score_out), 1 - m.auroc(score_out, score_in))


@given(score_in=score_lists, score_out=score_lists)
def test_fpr95_by_definition(score_in, score_out):
    score_in, score_out = np.array(score_in), np.array(score_out)
    # The highest threshold that misses at most one in twenty.
    feasible = [t for t in score_out if 20 * (score_out < t).sum() <= len(score_out)]
    assert m.fpr95(score_in, score_out) == (score_in >= max(feasible)).mean()


@pytest.mark.parametrize("decimals", [None, 1, 0])
def test_ood_metrics_agree_with_sklearn(decimals):
    score_in, score_out = score_case(decimals)
    labels, scores = sklearn_pair(score_in, score_out)
    assert_allclose(m.auroc(score_in, score_out), roc_auc_score(labels, scores))
    assert_allclose(m.aupr(score_in, score_out), average_precision_score(labels, scores))
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert_allclose(m.fpr95(score_in, score_out), fpr[tpr >= 0.95 - 1e-12][0])


# Golden values: torchmetrics 1.9.0 on torch 2.13.0 (CPU), results in float32: binary_auroc,
# binary_average_precision, 1 - binary_specificity_at_sensitivity(min_sensitivity=0.95).
# FPR95 of torch-uncertainty 0.13.0 is the same.
@pytest.mark.parametrize(
    ("decimals", "auroc", "aupr", "fpr95"),
    [
        (None, 0.6490933299064636, 0.503256618976593, 0.7639999985694885),
        (1, 0.6476746201515198, 0.49592870473861694, 0.8553333282470703),
    ],
)
def test_ood_metrics_agree_with_torchmetrics(decimals, auroc, aupr, fpr95):
    scores = score_case(decimals)
    assert_allclose(m.auroc(*scores), auroc, rtol=1e-6)
    assert_allclose(m.aupr(*scores), aupr, rtol=1e-6)
    assert_allclose(m.fpr95(*scores), fpr95, rtol=1e-6)


def test_evaluate_ood_reports_each_metric_and_its_bootstrap():
    cases = {"entropy": score_case(), "votes": score_case(1)}
    result = m.evaluate_ood(
        {name: s for name, (s, _) in cases.items()},
        {name: s for name, (_, s) in cases.items()},
        num_resamples=20,
        seed=8,
    )
    for name, scores in cases.items():
        descending = [np.sort(s)[::-1] for s in scores]
        for metric in ("auroc", "aupr", "fpr95"):
            expected = m.bootstrap(
                getattr(m, metric), *descending, paired=False, num_resamples=20, seed=8
            )
            assert_allclose(getattr(result.scores[name], metric), expected, rtol=1e-12)
        assert name in str(result)
    assert_clean(result)


@settings(deadline=None, max_examples=30)
@given(score_in=score_lists, score_out=score_lists, seed=st.integers(0, 99))
def test_resamples_at_once_are_the_resamples_one_by_one(score_in, score_out, seed):
    """Ties within and between the two; a score for other inputs beside it changes nothing."""
    result = m.evaluate_ood(
        {"few": score_in, "many": score_case()[0]},
        {"few": score_out, "many": score_case()[1]},
        num_resamples=4,
        seed=seed,
    )
    labels = np.repeat([0, 1], [len(score_in), len(score_out)])

    def by_sklearn(a, b):
        scores = np.append(a, b)
        fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
        return [
            roc_auc_score(labels, scores),
            average_precision_score(labels, scores),
            fpr[tpr >= 0.95 - 1e-12][0],
        ]

    descending = [np.sort(s)[::-1] for s in (score_in, score_out)]
    expected = m.bootstrap_each(by_sklearn, *descending, paired=False, num_resamples=4, seed=seed)
    assert_allclose(result.scores["few"], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: m.entropy(PROBS * 3), "softmax"),
        (lambda: m.auroc([], [1.0]), r"score_in has shape \(0,\)"),
        (lambda: m.aupr([1.0], [[1.0]]), r"score_out has shape \(1, 1\)"),
        (lambda: m.fpr95([1.0], [np.inf]), "score_out: 1 of 1"),
        (lambda: m.evaluate_ood({"a": [1.0]}, {"b": [1.0]}), r"\['a'\] and out_scores \['b'\]"),
        (lambda: m.evaluate_ood({}, {}), "at least one"),
        (lambda: m.evaluate_ood({"a": [1.0]}, {"a": [np.nan]}), r"out_scores\['a'\]"),
    ],
)
def test_bad_options_are_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
