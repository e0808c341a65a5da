"""Predictions against a plain loop over draws in NumPy."""

import jax
import numpy as np
import pytest
from helpers import random_draws
from numpy.testing import assert_allclose, assert_array_equal
from scipy.special import softmax
from scipy.stats import entropy

import probbnn as pb
from probbnn import predictive
from probbnn.inference import collectors

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def inputs():
    return np.random.default_rng(4).normal(size=(9, 3)).astype(np.float32) * 3


def outputs_by_hand(target, draws, inputs):
    """``(draw, n, K)``: each draw of each chain on its own."""
    apply = jax.jit(target.apply)
    return np.array(
        [
            apply(jax.tree.map(lambda leaf, c=c, d=d: leaf[c, d], draws.positions), inputs)
            for c in range(draws.num_chains)
            for d in range(draws.num_draws)
        ],
        float,
    )


@pytest.fixture(scope="module")
def logits(target, draws, inputs):
    return outputs_by_hand(target, draws, inputs)


@pytest.mark.parametrize(
    ("block_draws", "block_inputs"), [(16, 1000), (1, 4), (5, 9), (21, 1), (1000, 2)]
)
def test_averages_are_those_of_a_plain_loop_in_blocks_of_any_size(
    target, draws, inputs, logits, monkeypatch, block_draws, block_inputs
):
    monkeypatch.setattr(collectors, "_BLOCK_DRAWS", block_draws)
    monkeypatch.setattr(predictive, "_BLOCK_INPUTS", block_inputs)
    result = pb.predict(target, draws, inputs)
    probs = softmax(logits, axis=-1)
    votes = np.eye(4)[logits.argmax(axis=-1)].mean(axis=0)
    assert 0 < votes.max() < 1 or (votes > 0).sum() > 9  # the draws do disagree
    assert result.num_draws == 21
    assert_allclose(result.probs, probs.mean(axis=0), atol=1e-6)
    assert_allclose(result.votes, votes, atol=1e-12)
    assert_allclose(result.mean_logits_probs, softmax(logits.mean(axis=0), axis=-1), atol=1e-6)
    assert_allclose(result.expected_entropy, entropy(probs, axis=-1).mean(axis=0), atol=1e-6)
    total = entropy(probs.mean(axis=0), axis=-1)
    assert_allclose(result.entropy, total, atol=1e-6)
    assert_allclose(result.mutual_information, total - result.expected_entropy, atol=1e-6)


def test_probabilities_are_probabilities(target, draws, inputs):
    result = pb.predict(target, draws, inputs)
    for probs in (result.probs, result.votes, result.mean_logits_probs):
        assert probs.min() >= 0
        assert_allclose(probs.sum(axis=-1), 1, rtol=1e-12)
    assert result.mutual_information.min() >= 0
    assert result.mutual_information.max() > 0.01


def test_one_draw_is_the_plug_in(target, draws, inputs, logits):
    one = pb.Draws(jax.tree.map(lambda leaf: leaf[:1, :1], draws.positions), "map")
    result = pb.predict(target, one, inputs)
    assert result.num_draws == 1
    assert_allclose(result.probs, softmax(logits[0], axis=-1), atol=1e-6)
    assert_allclose(result.mean_logits_probs, result.probs, atol=1e-6)
    assert_array_equal(result.votes, np.eye(4)[logits[0].argmax(axis=-1)])
    # One network disagrees with nobody: there is nothing to detect other inputs by.
    assert set(result.ood_scores) == {"max probability", "entropy"}
    assert not result.mutual_information.any()
    assert "mutual information" in pb.predict(target, draws, inputs).ood_scores


def test_draws_that_agree_have_no_mutual_information(target, draws, inputs):
    same = jax.tree.map(lambda leaf: np.repeat(leaf[:1, :1], 6, axis=1), draws.positions)
    result = pb.predict(target, pb.Draws(same, "map"), inputs)
    assert (result.mutual_information >= 0).all()
    assert_allclose(result.mutual_information, 0, atol=1e-6)


def test_saturated_softmax_has_no_entropy_and_no_nan(target, draws, inputs):
    huge = jax.tree.map(lambda leaf: 1e4 * leaf, draws.positions)
    result = pb.predict(target, pb.Draws(huge, "by hand"), inputs[1:3])
    assert_allclose(result.probs, result.votes, atol=1e-6)
    assert_allclose(result.expected_entropy, 0, atol=1e-6)


def test_regression_mean_and_spread_are_numpys(regression, regression_draws, inputs):
    outputs = outputs_by_hand(regression, regression_draws, inputs)
    result = pb.predict(regression, regression_draws, inputs)
    assert_allclose(result.mean, outputs.mean(axis=0), atol=1e-5)
    assert_allclose(result.epistemic_std, outputs.std(axis=0), rtol=1e-4)
    assert_allclose(result.std, np.sqrt(outputs.var(axis=0) + 0.3**2), rtol=1e-4)
    assert (result.noise_std, result.num_draws) == (0.3, 21)


def test_regression_spread_survives_a_large_mean(values):
    """Spread 1e-2 around 1e3: E[x²] − E[x]² in float32 would have lost it."""
    shift = lambda theta, x: x[:, :1] * 0 + theta  # noqa: E731
    target = pb.LogDensity((lambda key, x: np.zeros(1), shift), values, likelihood=pb.Gaussian())
    theta = (1e3 + 1e-2 * np.random.default_rng(0).normal(size=(2, 50, 1))).astype(np.float32)
    result = pb.predict(target, pb.Draws(theta, "by hand"), values[0][:2])
    assert_allclose(result.epistemic_std, np.full((2, 1), theta.std(dtype=float)), rtol=1e-3)
    assert_allclose(result.mean, theta.mean(dtype=float), rtol=1e-7)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((5, 4), r"inputs have shape \(5, 4\); .* so \(n, 3\) is expected"),
        ((3,), r"inputs have shape \(3,\)"),
        ((5, 3, 1), r"inputs have shape \(5, 3, 1\)"),
        ((), r"inputs have shape \(\)"),
        ((0, 3), "there are no inputs to predict; give at least one"),
    ],
)
def test_inputs_of_the_wrong_shape_are_refused(target, draws, shape, message):
    with pytest.raises(pb.InputError, match=message):
        pb.predict(target, draws, np.zeros(shape, np.float32))


def test_outputs_and_log_densities_of_each_draw(target, draws, inputs, logits, monkeypatch):
    monkeypatch.setattr(collectors, "_BLOCK_DRAWS", 4)
    probs = predictive.values_per_draw(target, draws, inputs)
    assert target.likelihood.quantity == "probability"
    assert_allclose(probs.reshape(21, 9, 4), softmax(logits, axis=-1), atol=1e-6)
    flat = jax.tree.map(lambda leaf: leaf.reshape(21, *leaf.shape[2:]), draws.positions)
    exact = jax.jit(jax.vmap(target.logdensity_fn))(flat)
    values = pb.to_datatree(draws, target)["posterior"]["log_density"].values
    assert values.shape == (3, 7)
    assert_allclose(values.ravel(), exact, rtol=1e-5)


def test_other_likelihoods_have_no_predictive_yet(classes, draws):
    class Flat(pb.Likelihood):
        def log_prob(self, outputs, targets):
            return outputs[:, 0]

        def check(self, output_shape, targets):
            pass

    target = pb.LogDensity(pb.MLP(hidden=(5,), num_outputs=4), classes, likelihood=Flat())
    with pytest.raises(pb.InputError, match="no predictive for a Flat likelihood"):
        pb.predict(target, draws, classes[0])


def test_what_belongs_to_no_input_stays_as_it_is_beside_many_inputs(values, monkeypatch):
    """A noise per output, of as many outputs as there may be inputs in a block."""

    class PerOutput(pb.LearnedGaussian):
        def summarise(self, outputs, **own):
            return pb.Summary(
                jax.numpy.exp(own["log_noise_scale"]) * jax.numpy.arange(2.0), outputs
            )

        def predictive(self, mean, variance, num_draws):
            return mean

    monkeypatch.setattr(predictive, "_BLOCK_INPUTS", 2)
    target = pb.LogDensity(pb.MLP(hidden=(), num_outputs=1), values, likelihood=PerOutput())
    found = pb.predict(target, random_draws(target), values[0][:5])
    assert_allclose(found.averaged, [0.0, 1.0])
    assert found.spread.shape == (5, 1)
