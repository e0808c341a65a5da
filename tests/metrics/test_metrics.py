"""Metrics against closed forms, brute force and independent libraries."""

import itertools
import json
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
    roc_curve,
)

from probbnn import metrics as m
from probbnn.errors import InputError

ROW_METRICS = ["accuracy", "nll", "brier", "ece", "aurc", "eaurc", "augrc"]


def softmax_case(seed=0, n=2000, k=10):
    rng = np.random.default_rng(seed)
    logits = 12.0 * rng.random((n, k))
    probs = np.exp(logits)
    probs /= probs.sum(1, keepdims=True)
    flat = (0.7 * probs + 0.3 / k).cumsum(1)
    labels = (rng.random((n, 1)) > flat).sum(1).clip(0, k - 1)
    return probs, labels


def vote_case(num_votes=10):
    """Histograms of votes drawn from `softmax_case`: confidences full of ties."""
    probs, labels = softmax_case()
    rng = np.random.default_rng(1)
    votes = [
        (rng.random((len(probs), 1)) > probs.cumsum(1)).sum(1).clip(0, 9) for _ in range(num_votes)
    ]
    return np.eye(10)[np.array(votes)].sum(0) / num_votes, labels


def score_case(decimals=None):
    rng = np.random.default_rng(2)
    score_in, score_out = rng.random(1500), rng.random(1000) ** 0.5
    if decimals is None:
        return score_in, score_out
    return score_in.round(decimals), score_out.round(decimals)


def sklearn_pair(score_in, score_out):
    return np.repeat([0, 1], [len(score_in), len(score_out)]), np.append(score_in, score_out)


@st.composite
def votes_and_labels(draw, lowest_label=-1):
    """A few rows of five votes over three classes, and labels."""
    votes = st.lists(st.integers(0, 2), min_size=5, max_size=5)
    rows = draw(st.lists(votes, min_size=1, max_size=12))
    label = st.integers(lowest_label, 2)
    labels = draw(st.lists(label, min_size=len(rows), max_size=len(rows)))
    return np.array([np.bincount(row, minlength=3) / 5 for row in rows]), np.array(labels)


score_lists = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=20)


# Calibration


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


# Selective prediction


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


@settings(deadline=None)
@given(case=votes_and_labels())
def test_selective_metrics_stay_in_range(case):
    assert 0 <= m.eaurc(*case) <= m.aurc(*case) <= 1 + 1e-12
    assert 0 <= m.augrc(*case) <= 0.5


# Out-of-distribution detection


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


# Bootstrap


def test_bootstrap_covers_a_known_mean():
    # 300 data sets of 100 exponentials. The percentile interval's true coverage here is about
    # 0.94 (it is 0.95 only asymptotically): fewer than 267 or more than 294 of 300 has
    # probability 6e-4 for Binomial(300, 0.94).
    rng = np.random.default_rng(4)
    covered = 0
    for seed in range(300):
        interval = m.bootstrap(np.mean, rng.exponential(size=100), num_resamples=200, seed=seed)
        assert interval.low <= interval.value <= interval.high
        covered += interval.low <= 1 <= interval.high
    assert 267 <= covered <= 294


def test_bootstrap_has_the_standard_error_and_is_reproducible():
    values = np.random.default_rng(5).normal(size=2000)
    first = m.bootstrap(np.mean, values, num_resamples=2000)
    width = 2 * 1.96 * values.std() / np.sqrt(2000)
    # A quantile of 2000 resamples is within 4 % of a standard error; 15 % is over 5 deviations.
    assert_allclose(first.high - first.low, width, rtol=0.15)
    assert first == m.bootstrap(np.mean, values, num_resamples=2000)
    assert first != m.bootstrap(np.mean, values, num_resamples=2000, seed=1)
    assert m.bootstrap(np.mean, values, level=0.5).high < first.high


def test_bootstrap_resamples_rows_together_or_samples_apart():
    values = np.random.default_rng(6).normal(size=400)

    def difference(a, b):
        return a.mean() - b.mean()

    assert m.bootstrap(difference, values, values) == (0, 0, 0)
    apart = m.bootstrap(difference, values, values[:100], paired=False, num_resamples=2000)
    error = np.sqrt(values.var() / 400 + values[:100].var() / 100)
    assert_allclose(apart.high - apart.low, 2 * 1.96 * error, rtol=0.15)


def test_bootstrap_leaves_undefined_resamples_out():
    def mean_of_positive(values):
        positive = values[values > 0]
        return positive.mean() if len(positive) else np.nan

    rare = np.append(np.zeros(9), 2.0)
    assert m.bootstrap(mean_of_positive, rare) == (2, 2, 2)
    never = m.bootstrap(mean_of_positive, np.zeros(3))
    assert never.to_dict() == {"value": None, "low": None, "high": None}


# All at once


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


def test_evaluate_takes_a_predictive():
    probs, labels = softmax_case(n=20)
    predictive = types.SimpleNamespace(probs=probs.astype(np.float32))
    assert m.evaluate(predictive, labels, num_resamples=2).accuracy.value == m.accuracy(
        probs, labels
    )


def assert_clean(result):
    """No NaN or Infinity, neither for people nor for machines."""
    assert "nan" not in str(result).lower()
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()


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


# What is refused

PROBS, LABELS = np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1])


@pytest.mark.parametrize("name", [*ROW_METRICS, "reliability", "risk_coverage", "evaluate"])
@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (PROBS[:0], LABELS[:0], "no rows"),
        (PROBS[None], LABELS, r"shape \(1, 2, 2\)"),
        (PROBS[:, :1], LABELS, "two classes"),
        (PROBS * 1.01, LABELS, "sum to 1"),
        (PROBS * [[1], [np.nan]], LABELS, "1 of 2 rows .* finite .row 1"),
        (np.array([[3.0, -2.0], [0.5, 0.5]]), LABELS, "softmax"),
        (PROBS, LABELS[:1], "1 entries and probs 2 rows"),
        (PROBS, LABELS + 1, r"\[1, 2\]; expected 0 to 1"),
        (PROBS, LABELS - 2, r"\[-2, -1\]"),
        (PROBS, LABELS * 1.0, "float64; expected one integer"),
        (PROBS, np.eye(2, dtype=int), "one-hot"),
    ],
)
def test_bad_predictions_are_refused_in_one_line(name, probs, labels, message):
    with pytest.raises(InputError, match=message) as error:
        getattr(m, name)(probs, labels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: m.nll(PROBS, [0, -1]), "1 of 2 are -1"),
        (lambda: m.brier(PROBS, [0, -1]), "1 of 2 are -1"),
        (lambda: m.ece(PROBS, [0, -1]), "1 of 2 are -1"),
        (lambda: m.ece(PROBS, LABELS, num_bins=0), "num_bins is 0"),
        (lambda: m.ece(PROBS, LABELS, binning="equal"), "equal_width, equal_mass"),
        (lambda: m.accuracy_vs_confidence(PROBS, LABELS, 0.5), "thresholds is 0.5"),
        (lambda: m.entropy(PROBS * 3), "softmax"),
        (lambda: m.auroc([], [1.0]), r"score_in has shape \(0,\)"),
        (lambda: m.aupr([1.0], [[1.0]]), r"score_out has shape \(1, 1\)"),
        (lambda: m.fpr95([1.0], [np.inf]), "score_out: 1 of 1"),
        (lambda: m.evaluate_ood({"a": [1.0]}, {"b": [1.0]}), r"\['a'\] and out_scores \['b'\]"),
        (lambda: m.evaluate_ood({}, {}), "at least one"),
        (lambda: m.evaluate_ood({"a": [1.0]}, {"a": [np.nan]}), r"out_scores\['a'\]"),
        (lambda: m.bootstrap(np.mean, []), "rows in each"),
        (lambda: m.bootstrap(np.mean, [1, 2], [1]), "paired=False"),
        (lambda: m.bootstrap(np.mean, [1, 2], num_resamples=0), "num_resamples=0"),
        (lambda: m.bootstrap(np.mean, [1, 2], level=95), "level=95"),
    ],
)
def test_bad_options_are_refused_in_one_line(call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
