"""Running scores and PSIS-LOO: by hand, and where they are known."""

import numpy as np
import xarray as xr
from chains import as_tree, held_out, per_draw
from numpy.testing import assert_allclose, assert_array_equal

import probbnn as pb


def test_running_scores_by_hand():
    """Two chains of two draws at two held-out examples of class 0."""
    first = np.array([[[0.9, 0.3], [0.7, 0.5]], [[0.2, 0.2], [0.1, 0.4]]])
    c = pb.diagnose(as_tree(np.zeros((2, 2, 1)), **held_out(first)))
    averages = np.array([[0.55, 0.25], [0.475, 0.35]])
    assert_allclose(c.running.nll, -np.log(averages).mean(axis=1))
    assert c.running.held_out
    assert_array_equal(c.running.accuracy, [0.5, 0.0])


def test_running_scores_of_impossible_classes_are_those_of_the_metrics():
    """Logits may be thousands apart: probability zero, which `metrics.nll` counts as its floor."""
    probs = np.array([[[[0.0, 1.0], [1.0, 0.0]]]])
    predictions = xr.Dataset(
        {
            "probability": (("chain", "draw", "example", "class"), probs),
            "log_likelihood": (("chain", "draw", "example"), [[[-5e5, 0.0]]]),
        }
    )
    data = xr.Dataset({"targets": ("example", [0, 0])})
    groups = {"/predictions": predictions, "/predictions_constant_data": data}
    c = pb.diagnose(as_tree(np.zeros((1, 1, 1)), **groups))
    assert_allclose(c.running.nll, pb.metrics.nll(probs[0, 0], [0, 0]))


def test_psis_loo_is_right_where_it_is_known():
    """y ~ N(θ, 1), flat prior: without yᵢ, θ is N(mean of the others, 1/(n − 1))."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=30)
    theta = rng.normal(y.mean(), 1 / np.sqrt(30), size=(4, 1_000, 1))
    values = -0.5 * (y - theta) ** 2 - 0.5 * np.log(2 * np.pi)
    loo = pb.diagnose(as_tree(theta, **{"/log_likelihood": per_draw("y", values, "n")})).loo
    others, variance = (y.sum() - y) / 29, 1 + 1 / 29
    exact = -0.5 * (y - others) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    assert_allclose(loo.elpd, exact.sum(), atol=0.05)
    assert_allclose(loo.p_loo, 1, atol=0.4)
    assert loo.pareto_k.shape == (30,)
    assert loo.share_bad == 0
