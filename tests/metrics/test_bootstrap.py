"""Bootstrap intervals: coverage, width, and the resamples that they come from."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose

from probbnn import metrics as m
from probbnn.errors import InputError


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


def test_blocks_of_resamples_are_the_same_resamples(monkeypatch):
    values = np.random.default_rng(7).normal(size=(40, 2))

    def intervals():
        alone = m.bootstrap_each(lambda v: v.mean(axis=0), values, num_resamples=30)
        return alone + m.bootstrap_each(
            lambda v, w: [v.mean() - w.mean()], values, values[:9], paired=False, num_resamples=30
        )

    whole = intervals()
    monkeypatch.setattr(sys.modules["probbnn.metrics.bootstrap"], "_BLOCK", 100)
    assert intervals() == whole


@pytest.mark.parametrize(
    ("call", "message"),
    [
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
