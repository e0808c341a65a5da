"""Metrics of regressions against SciPy and numerical integration."""

import json
import types

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import integrate, stats

from probbnn import metrics as m
from probbnn.errors import InputError


def simulated(n=400, seed=0):
    rng = np.random.default_rng(seed)
    mean, std = rng.normal(size=n), rng.uniform(0.2, 2.0, size=n)
    return types.SimpleNamespace(mean=mean, std=std), rng.normal(mean, std)


def value_of(name, mean, std, target):
    pred = types.SimpleNamespace(mean=[mean], std=[std])
    return getattr(m.evaluate_regression(pred, [target], num_resamples=1), name).value


@pytest.mark.parametrize(
    ("mean", "std", "target"), [(0.0, 1.0, 0.0), (0.3, 0.7, -1.0), (-2.0, 3.0, 4.5), (0, 1e-3, 1)]
)
def test_crps_is_its_integral(mean, std, target):
    """∫ (F(y) − 1[y ≥ target])² dy, on both sides of the target."""
    ends = min(mean - 12 * std, target), max(mean + 12 * std, target)
    kinks = [mean - 5 * std, mean, mean + 5 * std]
    below, _ = integrate.quad(
        lambda y: stats.norm.cdf(y, mean, std) ** 2, ends[0], target, points=kinks, limit=200
    )
    above, _ = integrate.quad(
        lambda y: stats.norm.sf(y, mean, std) ** 2, target, ends[1], points=kinks, limit=200
    )
    assert_allclose(value_of("crps", mean, std, target), below + above, rtol=1e-6)


def test_metrics_are_their_definitions_with_bootstrap_intervals():
    pred, targets = simulated()
    low, high = stats.norm.interval(0.9, pred.mean, pred.std)
    inner = stats.norm.interval(0.5, pred.mean, pred.std)
    by_row = {
        "rmse": (targets - pred.mean) ** 2,
        "nll": -stats.norm.logpdf(targets, pred.mean, pred.std),
        "coverage_50": (inner[0] <= targets) & (targets <= inner[1]),
        "coverage_90": (low <= targets) & (targets <= high),
        "width_90": high - low,
    }
    result = m.evaluate_regression(pred, targets, num_resamples=20, seed=3)
    for name, rows in by_row.items():
        mean = (lambda x: np.sqrt(x.mean())) if name == "rmse" else np.mean
        expected = m.bootstrap(mean, rows, num_resamples=20, seed=3)
        assert_allclose(getattr(result, name), expected, rtol=1e-10, err_msg=name)
    names = [name for name in vars(result) if name != "by_output"]
    assert list(result.to_dict()) == names
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()
    assert [line.split()[0] for line in str(result).splitlines()] == ["regression", *names]


def test_calibrated_predictions_cover_and_overconfident_ones_do_not():
    pred, targets = simulated(n=4_000)
    result = m.evaluate_regression(pred, targets, num_resamples=2)
    # Binomial: five standard errors of 0.0079 and 0.0047.
    assert abs(result.coverage_50.value - 0.5) < 0.04
    assert abs(result.coverage_90.value - 0.9) < 0.024
    sure = types.SimpleNamespace(mean=pred.mean, std=pred.std / 3)
    overconfident = m.evaluate_regression(sure, targets, num_resamples=2)
    assert overconfident.coverage_90.value < 0.5
    assert overconfident.rmse.value == result.rmse.value
    assert overconfident.nll.value > result.nll.value
    assert overconfident.crps.value > result.crps.value


def test_several_outputs_average_and_their_log_densities_add():
    pred, targets = simulated()
    pair = types.SimpleNamespace(mean=pred.mean.reshape(200, 2), std=pred.std.reshape(200, 2))
    one = m.evaluate_regression(pred, targets, num_resamples=2)
    two = m.evaluate_regression(pair, targets.reshape(200, 2), num_resamples=2)
    for name in one.to_dict():
        factor = 2 if name == "nll" else 1
        assert_allclose(getattr(two, name).value, factor * getattr(one, name).value)
    assert (
        two.by_output["coverage_90[1]"]
        == m.evaluate_regression(
            types.SimpleNamespace(mean=pair.mean[:, 1], std=pair.std[:, 1]),
            targets.reshape(200, 2)[:, 1],
            num_resamples=2,
        ).coverage_90
    )


@pytest.mark.parametrize(
    ("mean", "std", "reference_mean", "reference_std"),
    [
        (0.0, 1.0, 0.5, 1.0),
        (0.0, 1.0, 0.0, 2.0),
        (1.0, 0.3, -0.5, 1.7),
        (-1.0, 1.7, 2.0, 0.3),
        (0.0, 1.0, 1e-3, 1.0 + 1e-9),
        (0.0, 1.0, 0.0, 1.0 + 1e-4),
        (0.0, 1.0, 50.0, 2.0),
        (3.0, 2.0, 3.0, 2.0),
    ],
)
def test_fidelity_is_its_definition(mean, std, reference_mean, reference_std):
    arrays = [[mean], [std], [reference_mean], [reference_std]]
    result = m.regression_fidelity(*arrays, num_resamples=1)
    assert_allclose(result.mean_error.value, abs(mean - reference_mean) / reference_std)
    assert_allclose(result.spread_error.value, abs(np.log(std / reference_std)))
    grid = np.linspace(-20, 70, 2_000_001)
    gap = stats.norm.pdf(grid, mean, std) - stats.norm.pdf(grid, reference_mean, reference_std)
    exact = 0.5 * np.trapezoid(np.abs(gap), grid)
    assert_allclose(result.total_variation.value, exact, rtol=1e-6, atol=1e-9)


def test_fidelity_averages_over_inputs_and_outputs_with_bootstrap_intervals():
    rng = np.random.default_rng(0)
    means, stds = rng.normal(size=(2, 40, 2)), rng.uniform(0.5, 2, size=(2, 40, 2))
    result = m.regression_fidelity(means[0], stds[0], means[1], stds[1], num_resamples=30, seed=5)
    error = np.abs(means[0] - means[1]) / stds[1]
    expected = m.bootstrap(np.mean, error.mean(axis=1), num_resamples=30, seed=5)
    assert_allclose(result.mean_error, expected)
    swapped = m.regression_fidelity(means[1], stds[1], means[0], stds[0], num_resamples=1)
    assert_allclose(swapped.total_variation.value, result.total_variation.value)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()
    assert [line.split()[0] for line in str(result).splitlines()] == ["fidelity", *vars(result)]


# What is refused

Y, ONE = np.zeros(6), np.ones(3)
PRED = types.SimpleNamespace(mean=np.zeros(6), std=np.ones(6))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: m.evaluate_regression(PRED, Y[:5]), r"targets have shape \(5,\) and there are 6"),
        (lambda: m.evaluate_regression(PRED, Y + np.nan), "targets contain NaN"),
        (lambda: m.evaluate_regression(PRED, Y, ONE), r"log_predictive has shape \(3,\)"),
        (
            lambda: m.evaluate_regression(types.SimpleNamespace(mean=Y, std=Y), Y),
            "positive finite standard deviations",
        ),
        (
            lambda: m.evaluate_regression(types.SimpleNamespace(mean=Y, std=1.0), Y),
            r"mean has shape \(6,\) and std \(\)",
        ),
        (lambda: m.regression_fidelity(ONE, ONE, ONE[:2], ONE[:2]), r"\(3, 1\) .* \(2, 1\)"),
        (lambda: m.regression_fidelity(ONE, ONE, ONE, -ONE), "^reference: .* positive"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
