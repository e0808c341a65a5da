"""Regression with learned noise: its density, its predictive; against SciPy and plain loops."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from flax import nnx
from helpers import NUM_INPUTS, random_draws
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.special import logsumexp

import probbnn as pb
from probbnn import predictive
from probbnn.inference import collectors

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLOSE = partial(assert_allclose, rtol=2e-5, atol=2e-5)

LINEAR = (lambda key, x: jnp.zeros(NUM_INPUTS), lambda theta, x: x @ theta)


@pytest.fixture(scope="module")
def learned(values):
    return pb.LogDensity(
        pb.MLP(hidden=(5,), num_outputs=1),
        values,
        likelihood=pb.LearnedGaussian(0.5),
        prior_scale=0.7,
    )


@pytest.fixture(scope="module")
def learned_draws(learned):
    """Three chains of seven draws, each with a noise of its own."""
    draws = random_draws(learned)
    noise = np.random.default_rng(2).normal(-0.5, 0.6, size=(3, 7)).astype(np.float32)
    return pb.Draws({**draws.positions, "log_noise_scale": noise}, "by hand")


@pytest.fixture(scope="module")
def held_out():
    return np.random.default_rng(4).normal(size=(9, NUM_INPUTS)).astype(np.float32)


def each(draws):
    """The draws one by one, chain after chain."""
    for c in range(draws.num_chains):
        for d in range(draws.num_draws):
            yield jax.tree.map(lambda leaf, c=c, d=d: leaf[c, d], draws.positions)


@pytest.fixture(scope="module")
def means(learned, learned_draws, held_out):
    """``(draw, n)``, by the module alone."""
    module = pb.MLP(hidden=(5,), num_outputs=1)
    apply = jax.jit(lambda network: module.apply({"params": network}, held_out))
    return np.array([apply(position["network"])[:, 0] for position in each(learned_draws)], float)


# The likelihood


def test_learned_noise_is_scipys_density_of_network_and_log_sigma(values):
    """Linear regression: log N(θ; 0, τ²) + log N(log σ; 0, s²) + Σ log N(y; xθ, σ²)."""
    x, y = (array.astype(float) for array in values)
    with jax.enable_x64(True):
        target = pb.LogDensity(LINEAR, (x, y), likelihood=pb.LearnedGaussian(0.4), prior_scale=0.7)
        for draw in np.random.default_rng(0).normal(size=(5, NUM_INPUTS + 1)):
            theta, log_sigma = draw[:-1], draw[-1]
            position = {"network": jnp.array(theta), "log_noise_scale": jnp.array(log_sigma)}
            logprior = stats.norm.logpdf(theta, scale=0.7).sum() + stats.norm.logpdf(
                log_sigma, scale=0.4
            )
            pointwise = stats.norm.logpdf(y, x @ theta, np.exp(log_sigma))
            assert_allclose(target.logprior_fn(position), logprior, rtol=1e-9)
            assert_allclose(
                target.pointwise_loglikelihood_fn(position, pb.Batch(x, y)),
                pointwise,
                rtol=1e-9,
            )
            assert_allclose(target.logdensity_fn(position), logprior + pointwise.sum(), rtol=1e-9)
            slope = jax.grad(target.logdensity_fn)(position)["log_noise_scale"]
            z = (y - x @ theta) / np.exp(log_sigma)
            assert_allclose(slope, (z**2 - 1).sum() - log_sigma / 0.4**2, rtol=1e-9)


class NNXLinear(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(NUM_INPUTS, 2, rngs=rngs)

    def __call__(self, x):
        return self.linear(x)


@pytest.mark.parametrize(
    ("make", "num_outputs"),
    [
        (lambda: nn.Dense(2), 2),
        (lambda: nn.Dense(2, dtype=jnp.bfloat16), 2),
        (lambda: NNXLinear(nnx.Rngs(0)), 2),
        (lambda: NNXLinear, 2),
        (lambda: LINEAR, 1),
    ],
    ids=["Linen", "Linen bfloat16", "NNX instance", "NNX constructor", "init and apply"],
)
def test_any_module_is_joined_by_the_noise(values, make, num_outputs):
    inputs = values[0]
    targets = np.repeat(values[1][:, None], num_outputs, axis=1)
    plain = pb.LogDensity(make(), (inputs, targets), likelihood=pb.Gaussian())
    target = pb.LogDensity(make(), (inputs, targets), likelihood=pb.LearnedGaussian())
    start = target.init(jax.random.key(0))
    jax.tree.map(assert_array_equal, start["network"], plain.init(jax.random.key(0)))
    assert_array_equal(start["log_noise_scale"], np.zeros(() if num_outputs == 1 else (2,)))
    position = {**start, "log_noise_scale": start["log_noise_scale"] - jnp.float32(0.3)}
    outputs = target.apply(position, inputs)
    assert outputs.dtype == jnp.zeros(()).dtype
    assert target.output_shape == plain.output_shape
    network = np.asarray(plain.apply(start["network"], inputs), float).reshape(-1, num_outputs)
    CLOSE(np.asarray(outputs).reshape(-1, num_outputs), network)
    exact = stats.norm.logpdf(targets, network, np.exp(-0.3)).sum(axis=1)
    batch = pb.Batch(inputs, targets)
    CLOSE(target.pointwise_loglikelihood_fn(position, batch), exact)


def test_prior_scales_are_those_of_the_network_beside_the_noises_own(values):
    scales = {"Dense_0": 2.0, "Dense_1": {"bias": 0.5, "kernel": 0.1}}
    target = pb.LogDensity(
        pb.MLP(hidden=(5,), num_outputs=1),
        values,
        likelihood=pb.LearnedGaussian(0.3),
        prior_scale=scales,
    )
    assert target.prior.scales(target.shapes["network"]) == {
        **scales,
        "Dense_0": {"bias": 2.0, "kernel": 2.0},
    }
    start = target.init(jax.random.key(0))
    at = [target.logprior_fn({**start, "log_noise_scale": jnp.float32(s)}) for s in (0.0, 0.6)]
    CLOSE(at[0] - at[1], stats.norm.logpdf(0, 0, 0.3) - stats.norm.logpdf(0.6, 0, 0.3))


def test_a_log_density_takes_a_regression_and_samples_it():
    train, test = pb.load_regression("diabetes")
    module = pb.MLP(hidden=(5,), num_outputs=1)
    target = pb.LogDensity(module, train, likelihood=pb.LearnedGaussian())
    assert_array_equal(target.data.inputs, train.inputs)
    assert_array_equal(target.data.targets, train.targets)
    draws = pb.sample(
        jax.random.key(0), target, "sghmc", num_chains=2, num_steps=300, progress=False
    )
    assert draws.positions["log_noise_scale"].shape == (2, 150)
    pred = pb.predict(target, draws, test)
    assert_array_equal(pred.mean, pb.predict(target, draws, test.inputs).mean)
    assert 0.4 < pred.noise_std < 0.9  # of targets with spread 1, half of whose variance is known


def test_noise_is_learned_as_its_density_on_a_grid_has_it():
    """Only noise to learn: SGLD on N targets against the density of log σ on a grid."""
    y = np.random.default_rng(0).normal(0.0, 0.5, size=40).astype(np.float32)
    nothing = (lambda key, x: jnp.zeros(0), lambda theta, x: x[:, 0] * 0)
    target = pb.LogDensity(nothing, (y[:, None], y), likelihood=pb.LearnedGaussian(0.5))
    draws = pb.sample(
        jax.random.key(0),
        target,
        "sgld",
        num_chains=64,
        num_steps=600,
        num_warmup=200,
        thinning=20,
        step_size=2e-3,
        progress=False,
    )
    grid = np.linspace(-3, 2, 2001)
    log_density = stats.norm.logpdf(grid, scale=0.5) + stats.norm.logpdf(
        y[:, None], scale=np.exp(grid)
    ).sum(axis=0)
    weights = np.exp(log_density - logsumexp(log_density))
    mean = weights @ grid
    std = np.sqrt(weights @ (grid - mean) ** 2)
    log_sigma = draws.positions["log_noise_scale"]
    # 64 chains, each over several correlation lengths of 1/(80 h) steps: at least 300 draws.
    assert abs(log_sigma.mean() - mean) < 5 * std / np.sqrt(300)
    assert abs(log_sigma.std() / std - 1) < 5 / np.sqrt(600) + 0.05  # and SGLD's step


# Draws of targets


@pytest.mark.parametrize(
    ("likelihood", "outputs", "own"),
    [
        (pb.Categorical(), [[0.3, -0.5, 1.0]], {}),
        (pb.Bernoulli(), [[0.4]], {}),
        (pb.Gaussian((0.3, 2.0)), [[0.3, -0.5]], {}),
        (pb.LearnedGaussian(), [[0.3, -0.5]], {"log_noise_scale": jnp.array([-1.0, 0.5])}),
        (pb.HeteroscedasticGaussian(), [[0.3, -0.5]], {}),
        (pb.StudentT(df=9.0), [[0.3]], {"log_scale": jnp.float32(-0.3)}),
        (pb.Poisson(), [[1.3]], {}),
        (pb.NegativeBinomial(), [[1.3]], {"log_concentration": jnp.float32(0.7)}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, pb.Likelihood) else "",
)
def test_targets_are_drawn_with_the_likelihoods_moments(likelihood, outputs, own):
    """Means and variances of 40,000 draws: 5 standard errors each, 6 in 10⁷ times."""
    outputs = jnp.repeat(jnp.array(outputs), 40_000, axis=0)
    drawn = np.asarray(likelihood.sample(jax.random.key(0), outputs, **own), float)
    if likelihood.quantity == "probability":
        probs = np.asarray(likelihood.values(outputs[:1]))[0]
        drawn = np.eye(len(probs))[drawn.astype(int)]
        mean, variance = probs, probs * (1 - probs)
    else:
        mean, variance = (np.asarray(x[0], float) for x in likelihood.moments(outputs, **own))
    error = np.abs(drawn.mean(axis=0) - mean) / np.sqrt(variance / len(drawn))
    assert (error < 5).all()
    fourth = ((drawn - drawn.mean(axis=0)) ** 4).mean(axis=0)
    noise = np.sqrt((fourth - variance**2).clip(1e-12) / len(drawn))
    assert (np.abs(drawn.var(axis=0) - variance) < 5 * noise + 1e-9).all()


def test_numpyros_model_has_the_same_density(learned, learned_draws):
    position = next(each(learned_draws))
    params = pb.to_numpyro(learned).params(position)
    assert "log_noise_scale" in params
    log_joint, _ = numpyro.infer.util.log_density(pb.to_numpyro(learned), (), {}, params)
    CLOSE(log_joint, learned.logdensity_fn(position))


# Predictions


@pytest.mark.parametrize(("block_draws", "block_inputs"), [(16, 1000), (5, 4)])
def test_predictions_are_those_of_a_plain_loop(
    learned, learned_draws, held_out, means, monkeypatch, block_draws, block_inputs
):
    monkeypatch.setattr(collectors, "_BLOCK_DRAWS", block_draws)
    monkeypatch.setattr(predictive, "_BLOCK_INPUTS", block_inputs)
    sigmas = np.exp(learned_draws.positions["log_noise_scale"].astype(float)).ravel()
    result = pb.predict(learned, learned_draws, held_out)
    assert result.mean.shape == result.epistemic_std.shape == result.std.shape == (9, 1)
    assert result.num_draws == 21
    CLOSE(result.mean[:, 0], means.mean(axis=0))
    assert_allclose(result.epistemic_std[:, 0], means.std(axis=0), rtol=1e-4)
    assert_allclose(result.noise_std, np.sqrt((sigmas**2).mean()), rtol=1e-6)
    assert_allclose(result.std[:, 0], np.sqrt(means.var(axis=0) + (sigmas**2).mean()), rtol=1e-4)
    y = np.linspace(-3, 3, 9)
    exact = logsumexp(stats.norm.logpdf(y, means, sigmas[:, None]), axis=0) - np.log(21)
    for targets in (y, y[:, None]):
        CLOSE(pb.log_predictive(learned, learned_draws, held_out, targets), exact)


def test_outputs_per_draw_leave_the_noise_out(learned, learned_draws, held_out, means):
    outputs = predictive.values_per_draw(learned, learned_draws, held_out)
    assert (learned.likelihood.quantity, outputs.shape) == ("output", (3, 7, 9, 1))
    CLOSE(outputs.reshape(21, 9), means)


def test_log_predictive_of_a_classifier_is_that_of_its_probabilities(target, draws, held_out):
    labels = np.arange(9) % 4
    probs = pb.predict(target, draws, held_out).probs
    CLOSE(
        pb.log_predictive(target, draws, held_out, labels),
        np.log(probs[np.arange(9), labels]),
    )


def test_log_predictive_of_fixed_noise_far_in_the_tails(regression, regression_draws):
    """Densities of e^-5000, which a mean of densities would lose."""
    inputs, y = np.zeros((3, NUM_INPUTS), np.float32), np.full(3, 30.0)
    result = pb.log_predictive(regression, regression_draws, inputs, y)
    apply = jax.jit(regression.apply)
    outputs = np.array([apply(position, inputs)[:, 0] for position in each(regression_draws)])
    exact = logsumexp(stats.norm.logpdf(y, outputs, 0.3), axis=0) - np.log(21)
    assert exact.max() < -4000
    assert_allclose(result, exact, rtol=1e-5)


def test_a_predictive_is_evaluated_by_the_density_of_its_mixture(learned, learned_draws, held_out):
    pred, y = pb.predict(learned, learned_draws, held_out), np.linspace(-1, 1, 9)
    log_density = pb.log_predictive(learned, learned_draws, held_out, y)
    gaussian = pb.evaluate_regression(pred, y, num_resamples=2)
    mixture = pb.evaluate_regression(pred, y, log_density, num_resamples=2)
    assert_allclose(mixture.nll.value, -log_density.mean())
    exact = -stats.norm.logpdf(y, pred.mean[:, 0], pred.std[:, 0]).mean()
    assert_allclose(gaussian.nll.value, exact)
    assert mixture.crps == gaussian.crps


# What is refused

X, Y = np.zeros((6, 3), np.float32), np.zeros(6, np.float32)


def learned_on(inputs, targets, num_outputs=1, **settings):
    module = pb.MLP(hidden=(5,), num_outputs=num_outputs)
    likelihood = pb.LearnedGaussian(settings.pop("noise", 1.0))
    return pb.LogDensity(module, (inputs, targets), likelihood=likelihood, **settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (partial(learned_on, X, Y, noise=s), f"prior scale of log σ is {s}; .* positive")
            for s in (0.0, -1.0, np.nan)
        ),
        (lambda: learned_on(X, Y, 2), r"shape \(\) per example and the network's outputs \(2,\)"),
        (lambda: learned_on(X, Y + np.inf), "targets contain NaN or infinity"),
        (lambda: learned_on(X, Y, prior_scale=0.0), "prior_scale.* is 0.0"),
        (lambda: learned_on(X, Y, prior_scale={"no": 1.0}), "prefix of the parameters'"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(pb.InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (np.zeros(8), r"targets have shape \(8,\) for 9 inputs; give one for each"),
        (np.zeros(()), r"targets have shape \(\) for 9 inputs"),
        (np.zeros((9, 2)), r"targets have shape \(2,\) per example .* \(1,\)"),
        (np.full(9, np.nan), "targets contain NaN"),
    ],
)
def test_held_out_targets_that_do_not_fit_are_refused(
    learned, learned_draws, held_out, targets, message
):
    with pytest.raises(pb.InputError, match=message):
        pb.log_predictive(learned, learned_draws, held_out, targets)
