"""Predictions made of draws as they come are those made of them afterwards."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

import probbnn as pb
from probbnn import predictive
from probbnn.predictive import Predictions

pytestmark = pytest.mark.usefixtures("quick_compilation")
SETTINGS = {"num_chains": 2, "num_steps": 20, "batch_size": 5, "progress": False}


def both(target, sets, scored=None):
    """Of one run: made on the way, and made of its draws."""
    predictions = Predictions(target, sets, scored)
    draws = pb.sample(
        jax.random.key(0), target, "sgld", **SETTINGS, collectors=predictions.collectors
    )
    after = {label: pb.predict(target, draws, inputs) for label, inputs in sets.items()}
    return predictions, draws, after


@pytest.mark.parametrize("block", [4, 23, 1_000])
def test_of_a_classifier(target, classes, monkeypatch, block):
    """Whatever the blocks; the last one may be ragged, and a set may begin within one."""
    monkeypatch.setattr(predictive, "_BLOCK_INPUTS", block)
    sets = {"test": classes[0], "far": 9 * classes[0][:7]}
    predictions, draws, after = both(target, sets)
    for label, found in predictions.of(draws).items():
        assert found.num_draws == 20
        for name in ("probs", "votes", "mean_logits_probs", "expected_entropy"):
            assert_allclose(getattr(found, name), getattr(after[label], name), atol=1e-6)
    assert predictions.log_density(draws) is None


def test_of_a_regression_with_a_noise_of_its_own(values):
    inputs, targets = values
    target = pb.LogDensity(
        pb.MLP(hidden=(5,), num_outputs=1), values, likelihood=pb.LearnedGaussian()
    )
    predictions, draws, after = both(target, {"test": inputs}, ("test", targets))
    (found,) = predictions.of(draws).values()
    for name in ("mean", "epistemic_std", "noise_std"):
        assert_allclose(getattr(found, name), getattr(after["test"], name), rtol=1e-4)
    exact = pb.log_predictive(target, draws, inputs, targets)
    assert_allclose(predictions.log_density(draws), exact, rtol=1e-4)
    assert np.ptp(exact) > 0
