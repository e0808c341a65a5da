"""Likelihoods against SciPy, and what is predicted by them against a plain loop over draws."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import random_draws
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

import probbnn as pb

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
N = 23
INPUTS = RNG.normal(size=(N, 3)).astype(np.float32)
LABELS = RNG.integers(2, size=N)
VALUES, PAIRS = (RNG.normal(size=shape).astype(np.float32) for shape in ((N,), (N, 2)))
COUNTS = RNG.poisson(3, size=N)
IMAGES = RNG.integers(256, size=(N, 4, 4, 1), dtype=np.uint8)
PIXELS = RNG.integers(3, size=(N, 4, 4))


def linear(num_outputs):
    return pb.MLP(hidden=(), num_outputs=num_outputs)


class Heads(nn.Module):
    """Mean and log standard deviation by name."""

    @nn.compact
    def __call__(self, x):
        return {"mean": nn.Dense(1)(x), "log_std": nn.Dense(1)(x)}


class PerPixel(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(3, (3, 3))(x)


class LaplaceNoise(pb.Likelihood):
    """A likelihood of one's own: |y − output| is exponential, and its scale is learned."""

    def parameters(self, output_shape):
        return {"log_scale": jnp.zeros(())}

    def log_prior(self, log_scale):
        return -0.5 * log_scale**2

    def log_prob(self, outputs, targets, log_scale):
        distance = jnp.abs(targets - outputs[:, 0]) / jnp.exp(log_scale)
        return -distance - log_scale - jnp.log(2.0)

    def check(self, output_shape, targets):
        if output_shape != (1,):
            raise pb.InputError(f"one output is expected, and there are {output_shape}")

    def moments(self, outputs, log_scale):
        return outputs, jnp.full(outputs.shape, 2 * jnp.exp(2 * log_scale))

    def sample(self, rng_key, outputs, log_scale):
        return outputs + jnp.exp(log_scale) * jax.random.laplace(rng_key, outputs.shape)


TARGETS = {
    "Bernoulli": lambda: pb.LogDensity(linear(1), (INPUTS, LABELS), likelihood=pb.Bernoulli()),
    "class per pixel": lambda: pb.LogDensity(PerPixel(), (IMAGES, PIXELS)),
    "Gaussian": lambda: pb.LogDensity(linear(1), (INPUTS, VALUES), likelihood=pb.Gaussian(0.4)),
    "Gaussian per output": lambda: pb.LogDensity(
        linear(2), (INPUTS, PAIRS), likelihood=pb.Gaussian((0.4, 2.0))
    ),
    "LearnedGaussian": lambda: pb.LogDensity(
        linear(2), (INPUTS, PAIRS), likelihood=pb.LearnedGaussian()
    ),
    "heteroscedastic": lambda: pb.LogDensity(
        linear(2), (INPUTS, VALUES), likelihood=pb.HeteroscedasticGaussian()
    ),
    "heads by name": lambda: pb.LogDensity(
        Heads(), (INPUTS, VALUES), likelihood=pb.HeteroscedasticGaussian()
    ),
    "StudentT": lambda: pb.LogDensity(linear(1), (INPUTS, VALUES), likelihood=pb.StudentT(df=5.0)),
    "Poisson": lambda: pb.LogDensity(linear(1), (INPUTS, COUNTS), likelihood=pb.Poisson()),
    "NegativeBinomial": lambda: pb.LogDensity(
        linear(1), (INPUTS, COUNTS), likelihood=pb.NegativeBinomial()
    ),
    "own": lambda: pb.LogDensity(linear(1), (INPUTS, VALUES), likelihood=LaplaceNoise()),
    "standardised": lambda: pb.LogDensity(
        linear(1),
        (1e3 + 50 * INPUTS, 2e5 + 1e5 * VALUES),
        likelihood=pb.StudentT(df=5.0),
        standardise=True,
    ),
}
OF_VALUES = [name for name in TARGETS if name not in ("Bernoulli", "class per pixel")]


@pytest.fixture(scope="module")
def made():
    """Each target with draws of it that differ, and what is predicted by them."""
    cache = {}

    def get(name):
        if name not in cache:
            target = TARGETS[name]()
            draws = random_draws(target, num_chains=2, num_draws=30)
            for leaf in jax.tree.leaves(draws.positions):
                leaf += 0.2 * RNG.normal(size=leaf.shape)
            inputs = target.data.gather(slice(None)).inputs
            cache[name] = target, draws, inputs, pb.predict(target, draws, inputs)
        return cache[name]

    return get


def of_each(draws, function):
    """What a function gives of each position, ``(draw, …)``."""
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws.positions)
    return jax.tree.map(lambda x: np.asarray(x, float), jax.jit(jax.vmap(function))(flat))


OUT, OUT2 = (RNG.normal(size=(7, k)).astype(np.float32) for k in (1, 2))
Y, Y2, K = RNG.normal(size=7), RNG.normal(size=(7, 2)), RNG.poisson(3, size=7)


@pytest.mark.parametrize(
    ("likelihood", "outputs", "targets", "own", "exact"),
    [
        (
            pb.Bernoulli(),
            OUT,
            K % 2,
            {},
            lambda: stats.bernoulli(special.expit(OUT[:, 0])).logpmf(K % 2),
        ),
        (
            pb.Gaussian((0.5, 2.0)),
            OUT2,
            Y2,
            {},
            lambda: stats.norm(OUT2, [0.5, 2.0]).logpdf(Y2).sum(axis=1),
        ),
        (
            pb.LearnedGaussian(),
            OUT2,
            Y2,
            {"log_noise_scale": jnp.array([-1.0, 0.5])},
            lambda: stats.norm(OUT2, np.exp([-1.0, 0.5])).logpdf(Y2).sum(axis=1),
        ),
        (
            pb.HeteroscedasticGaussian(),
            OUT2,
            Y,
            {},
            lambda: stats.norm(OUT2[:, 0], np.exp(OUT2[:, 1])).logpdf(Y),
        ),
        (
            pb.StudentT(df=3.0, scale=0.7),
            OUT,
            Y,
            {},
            lambda: stats.t(3, OUT[:, 0], 0.7).logpdf(Y),
        ),
        (pb.Poisson(), OUT, K, {}, lambda: stats.poisson(np.exp(OUT[:, 0])).logpmf(K)),
        (
            pb.NegativeBinomial(),
            OUT,
            K,
            {"log_concentration": jnp.float32(0.3)},
            lambda: stats.nbinom(
                np.exp(0.3), np.exp(0.3) / (np.exp(0.3) + np.exp(OUT[:, 0]))
            ).logpmf(K),
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, pb.Likelihood) else "",
)
def test_log_probabilities_are_scipys(likelihood, outputs, targets, own, exact):
    found = likelihood.log_prob(jnp.asarray(outputs), jnp.asarray(targets), **own)
    assert_allclose(found, exact(), rtol=2e-5)


def test_classes_of_pixels_are_independent_given_the_outputs():
    logits = RNG.normal(size=(5, 4, 4, 3)).astype(np.float32)
    labels = RNG.integers(3, size=(5, 4, 4))
    exact = np.take_along_axis(special.log_softmax(logits, axis=-1), labels[..., None], axis=-1)
    found = pb.Categorical().log_prob(jnp.asarray(logits), jnp.asarray(labels))
    assert_allclose(found, exact.sum(axis=(1, 2, 3)), rtol=1e-5)


def test_predictions_of_a_single_logit_are_those_of_two_classes(made):
    target, draws, inputs, predictive = made("Bernoulli")
    probs = special.expit(of_each(draws, lambda p: target.apply(p, inputs)[:, 0]))
    assert_allclose(predictive.probs, np.stack([1 - probs, probs], axis=-1).mean(axis=0), atol=1e-6)
    entropies = stats.entropy(np.stack([1 - probs, probs]), axis=0).mean(axis=0)
    assert_allclose(predictive.expected_entropy, entropies, atol=1e-6)
    evaluation = pb.evaluate(predictive, LABELS, num_resamples=10)
    assert evaluation.accuracy.value == np.mean((probs.mean(axis=0) > 0.5) == LABELS)


def test_each_pixel_has_probabilities(made):
    target, draws, inputs, predictive = made("class per pixel")
    probs = special.softmax(of_each(draws, lambda p: target.apply(p, inputs)), axis=-1)
    assert_allclose(predictive.probs, probs.mean(axis=0), atol=1e-6)
    assert predictive.mutual_information.shape == (N, 4, 4)
    assert predictive.mutual_information.max() > 0
    evaluation = pb.evaluate(predictive, PIXELS, num_resamples=10)
    right = predictive.probs.argmax(axis=-1) == PIXELS
    assert evaluation.accuracy.value == pytest.approx(right.mean())
    assert evaluation.num_rows == N * 16
    # Whole images are resampled, so that pixels that are alike do not count as so many.
    alike = np.repeat(right[:, :1, :1], 4, axis=1).repeat(4, axis=2)
    one, many = (
        pb.evaluate(np.stack([0.4 + 0.2 * r, 0.6 - 0.2 * r], axis=-1), np.zeros_like(r, int))
        for r in (alike[:, 0, 0], alike)
    )
    assert_allclose(many.accuracy, one.accuracy, atol=0.05)  # and not a quarter as wide


@pytest.mark.parametrize("name", OF_VALUES)
def test_mean_and_both_parts_of_the_spread_are_those_of_the_mixture(made, name):
    """The law of total variance, from moments draw by draw."""
    target, draws, inputs, predictive = made(name)

    def moments(position):
        outputs = target.apply(position, inputs)
        return target.likelihood.moments(outputs, **target.split(position).likelihood)

    means, variances = of_each(draws, moments)
    assert_allclose(predictive.mean, means.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert_allclose(predictive.epistemic_std, means.std(axis=0), rtol=2e-3)
    aleatoric = np.broadcast_to(predictive.aleatoric_std, predictive.mean.shape)
    assert_allclose(aleatoric, np.sqrt(variances.mean(axis=0)), rtol=1e-4)
    assert_allclose(predictive.std**2, predictive.epistemic_std**2 + aleatoric**2, rtol=1e-6)
    assert predictive.num_draws == 60


@pytest.mark.parametrize("name", TARGETS)
def test_replicates_are_like_the_targets_and_have_the_predictives_moments(made, name):
    target, draws, inputs, predictive = made(name)
    drawn = pb.posterior_predictive(jax.random.key(1), target, draws, inputs)
    data = np.asarray(target.data.gather(slice(None)).targets)
    assert drawn.shape == (2, 30, *data.shape)
    assert np.isfinite(drawn).all()
    assert (drawn.dtype.kind in "iu") == (data.dtype.kind in "iu")
    if name in OF_VALUES:
        flat = drawn.reshape(60, N, -1).astype(float)
        z = (flat.mean(axis=0) - predictive.mean) / predictive.std * np.sqrt(60)
        # A hundred means of 60 draws: 5 standard errors; their tails are heavier than normal.
        assert np.abs(z).max() < 5
    assert_array_equal(drawn, pb.posterior_predictive(jax.random.key(1), target, draws, inputs))


@pytest.mark.parametrize("name", OF_VALUES)
def test_predictives_of_values_are_evaluated_and_have_quantiles(made, name):
    target, draws, inputs, predictive = made(name)
    targets = np.asarray(target.data.gather(slice(None)).targets)
    density = pb.log_predictive(target, draws, inputs, targets)
    evaluation = predictive.evaluate(targets, density, num_resamples=5)
    assert evaluation.nll.value == pytest.approx(-density.mean(), rel=1e-6)
    error = predictive.mean - targets.reshape(predictive.mean.shape)
    rmse = np.sqrt(np.mean(error**2))
    assert evaluation.rmse.value == pytest.approx(rmse, rel=1e-5)
    found = pb.evaluate(predictive, targets, num_resamples=5)
    assert 0 <= found.coverage_90.value <= 1
    assert (predictive.quantile(0.05) <= predictive.quantile(0.95)).all()
    assert predictive.quantile(0.5).shape == predictive.mean.shape
    if isinstance(predictive, pb.SampledPredictive):
        # Each draw has noise of its own: the replicates are as wide as the moments say.
        replicates = predictive.replicates.reshape(-1, *predictive.mean.shape).astype(float)
        assert_allclose(np.median(replicates.std(axis=0) / predictive.std), 1, rtol=0.1)
    by_output = {
        f"{metric}[{k}]"
        for metric in ("rmse", "crps", "coverage_50", "coverage_90")
        for k in (0, 1)
    }
    assert set(found.by_output) == (by_output if predictive.mean.shape[1] == 2 else set())


def test_pit_of_counts_is_uniform_where_the_predictive_is_right():
    """Ties are broken at random: Kolmogorov-Smirnov at 10⁻³."""
    counts, replicates = RNG.poisson(1.3, 400), RNG.poisson(1.3, (500, 400))
    ranks = pb.metrics.pit(replicates, counts)[:, 0]
    assert stats.kstest(ranks, "uniform").pvalue > 1e-3
    wrong = pb.metrics.pit(replicates + 1, counts)[:, 0]
    assert stats.kstest(wrong, "uniform").pvalue < 1e-6
    evaluation = pb.metrics.evaluate_replicates(replicates, counts, num_resamples=20)
    assert (
        evaluation.pit_error.value
        < 0.1
        < 0.3
        < pb.metrics.evaluate_replicates(replicates + 1, counts, num_resamples=20).pit_error.value
    )


def test_outputs_of_different_noise_each_learn_their_own():
    """True noises .1, .5 and 2, which one σ for all would cover on average alone."""
    rng = np.random.default_rng(3)
    inputs = rng.normal(size=(600, 2)).astype(np.float32)
    noise = np.array([0.1, 0.5, 2.0])
    targets = (inputs @ rng.normal(size=(2, 3)) + noise * rng.normal(size=(600, 3))).astype("f")
    target = pb.LogDensity(linear(3), (inputs, targets), likelihood=pb.LearnedGaussian())
    draws = pb.sample(
        jax.random.key(0), target, "map", num_steps=1_500, step_size=0.02, progress=False
    )
    assert_allclose(np.exp(draws.positions["log_noise_scale"][0, -1]), noise, rtol=0.15)
    found = pb.evaluate(pb.predict(target, draws, inputs), targets, num_resamples=20)
    assert_allclose([found.by_output[f"coverage_90[{k}]"].value for k in range(3)], 0.9, atol=0.05)


# Weights and names


def test_class_weights_temper_the_posterior_and_not_the_score(classes):
    inputs, labels = classes
    weights = (1.0, 19.0, 1.0, 2.0)
    plain = pb.LogDensity(linear(4), classes)
    tempered = pb.LogDensity(linear(4), classes, likelihood=pb.Categorical(class_weights=weights))
    position = plain.init(jax.random.key(0))
    log_probs = plain.loglikelihoods(inputs, labels, position)
    found = tempered.logdensity_fn(position) - tempered.logprior_fn(position)
    assert_allclose(found, (np.array(weights)[labels] * log_probs).sum(), rtol=1e-5)
    draws = random_draws(plain)
    assert_array_equal(
        pb.log_predictive(tempered, draws, inputs, labels),
        pb.log_predictive(plain, draws, inputs, labels),
    )


def test_an_example_of_weight_two_counts_twice(classes):
    inputs, labels = classes
    weights = 1 + (np.arange(N) < 5)
    twice = np.repeat(np.arange(N), weights)
    one = pb.LogDensity(linear(4), classes, weights=weights)
    two = pb.LogDensity(linear(4), (inputs[twice], labels[twice]))
    position = one.init(jax.random.key(0))
    assert_allclose(one.logdensity_fn(position), two.logdensity_fn(position), rtol=1e-5)
    # Minibatches have the weights of their own rows: they average to all the data.
    batches = [one.data.gather(np.arange(i, N, 5)) for i in range(5)]
    likelihood = sum(one.pointwise_loglikelihood_fn(position, b).sum() for b in batches)
    exact = one.logdensity_fn(position) - one.logprior_fn(position)
    assert_allclose(likelihood, exact, rtol=1e-5)


def test_labels_may_be_names_and_keep_them(classes):
    inputs, labels = classes
    names = np.array(["plum", "fig", "pear", "apple"])
    target = pb.LogDensity(linear(4), (inputs, names[labels]))
    assert target.likelihood.classes == ("apple", "fig", "pear", "plum")
    predictive = pb.predict(target, random_draws(target), inputs)
    evaluation = pb.evaluate(predictive, names[labels], num_resamples=5)
    chosen = np.array(predictive.classes)[predictive.probs.argmax(axis=1)]
    assert evaluation.accuracy.value == np.mean(chosen == names[labels])
    assert set(evaluation.by_class) == set(names[labels])
    recall = [np.mean(chosen[names[labels] == name] == name) for name in sorted(set(names))]
    assert evaluation.balanced_accuracy.value == pytest.approx(np.mean(recall))
    assert evaluation.by_class["fig"].value == pytest.approx(recall[1])
    numbers = pb.LogDensity(linear(4), (inputs, np.argsort(np.argsort(names))[labels]))
    position = target.init(jax.random.key(0))
    assert_allclose(target.logdensity_fn(position), numbers.logdensity_fn(position), rtol=1e-6)
    draws = random_draws(target)
    with pytest.raises(pb.InputError, match="name the class quince; the classes are apple, fig"):
        pb.log_predictive(target, draws, inputs, np.where(labels == 0, "quince", "fig"))


# What does not fit


@pytest.mark.parametrize(
    ("module", "targets", "likelihood", "message"),
    [
        (linear(1), LABELS, "categorical", "likelihood is 'categorical'; give an instance"),
        (linear(1), VALUES, pb.Gaussian, "likelihood is <class .*; give an instance"),
        (linear(1), np.array(["a", "b"])[LABELS], pb.Gaussian(), "strings; a Gaussian .* numbers"),
        (linear(1), LABELS, pb.Categorical(), "give likelihood=Bernoulli()"),
        (linear(3), LABELS, pb.Bernoulli(), "takes one logit .*multilabel, are left out"),
        (linear(1), LABELS + 1, pb.Bernoulli(), "label 2 at index .* must be 0 to 1"),
        (linear(1), LABELS[:, None], pb.Bernoulli(), r"give targets\[:, 0\]"),
        (linear(2), LABELS, pb.Categorical((1.0, 2.0, 3.0)), "3 class weights .* and 2 classes"),
        (linear(2), LABELS, pb.Categorical((1.0, -2.0)), "must be positive and finite"),
        (linear(1), COUNTS - 4, pb.Poisson(), "is no count; a Poisson likelihood needs whole"),
        (linear(1), COUNTS + 0.5, pb.NegativeBinomial(), "is no count"),
        (linear(1), COUNTS, pb.NegativeBinomial(-1.0), "concentration is -1.0; it must be pos"),
        (linear(1), VALUES, pb.StudentT(df=2.0), "df is 2.0; it must be finite and above 2"),
        (linear(2), PAIRS, pb.Gaussian((0.1, 0.2, 0.3)), "3 noise scales for outputs of shape"),
        (linear(3), VALUES, pb.HeteroscedasticGaussian(), r"takes \(2k,\) for k targets"),
        (Heads(), VALUES, pb.Gaussian(), r"several outputs \(log_std, mean\); a Gaussian"),
        (PerPixel(), PIXELS[:, 0], pb.Categorical(), r"needs integers of shape \(n, 4, 4\)"),
    ],
)
def test_what_does_not_fit_is_one_line(module, targets, likelihood, message):
    inputs = IMAGES if isinstance(module, PerPixel) else INPUTS
    with pytest.raises(pb.InputError, match=message) as caught:
        pb.LogDensity(module, (inputs, targets), likelihood=likelihood)
    assert "\n" not in str(caught.value)


def test_a_likelihood_that_only_samples_says_what_predictions_need(classes):
    class Bare(LaplaceNoise):
        moments, sample = pb.Likelihood.moments, pb.Likelihood.sample

    target = pb.LogDensity(linear(1), (INPUTS, VALUES), likelihood=Bare())
    draws = random_draws(target)
    with pytest.raises(pb.InputError, match="no predictive for a Bare .* moments and sample"):
        pb.predict(target, draws, INPUTS)
    with pytest.raises(pb.InputError, match="give it the method sample"):
        pb.posterior_predictive(jax.random.key(0), target, draws, INPUTS)


def test_replicates_come_of_draws_on_disk_as_of_those_in_memory(tmp_path):
    target = TARGETS["Poisson"]()
    settings = {"num_chains": 2, "num_steps": 20, "progress": False}
    kept = pb.sample(jax.random.key(0), target, "sgld", out=tmp_path / "run", **settings)
    draws = pb.sample(jax.random.key(0), target, "sgld", **settings)
    stored, held = (pb.predict(target, d, INPUTS) for d in (kept, draws))
    assert held.replicates.shape == (1_000, N)
    assert_array_equal(stored.replicates, held.replicates)
