"""The temperature meters: against closed forms, against sampled variances, and their verdicts."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import probbnn as pb
from probbnn.diagnostics import TemperatureMeters
from probbnn.metrics import Interval

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, B = 1000, 10


@pytest.fixture(scope="module")
def regression_1000():
    """A conjugate linear regression of two layers, its posterior precision and its mode."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 3)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5] + rng.normal(size=N)).astype(np.float32)
    target = pb.LogDensity(
        (
            lambda key, inputs: {"one": {"w": jnp.zeros(1)}, "two": {"w": jnp.zeros(2)}},
            lambda theta, inputs: inputs @ jnp.concatenate([theta["one"]["w"], theta["two"]["w"]]),
        ),
        (x, y),
        prior_scale=10.0,
        likelihood=pb.Gaussian(1.0),
    )
    precision = x.T @ x + np.eye(3) / 100
    return target, precision, np.linalg.solve(precision, x.T @ y)


def sample(target, method, **settings):
    settings = {"num_chains": 20, "num_steps": 8_000, "batch_size": B, **settings}
    return pb.sample(jax.random.key(0), target, method, thinning=20, progress=False, **settings)


def measure(target, draws, **settings):
    return pb.measure_temperature(jax.random.key(1), target, draws, num_draws=2_000, **settings)


def flat(position):
    """The coordinates in one array, leaves of shape ``(chain, draw, …)``."""
    return np.concatenate([position["one"]["w"], position["two"]["w"]], axis=-1)


def variance_ratio(draws, precision):
    """Mean variance of the draws in units of the posterior's, over its principal axes."""
    covariances = [np.cov(chain.T) for chain in flat(draws.positions)]
    return np.trace(precision @ np.mean(covariances, axis=0)) / 3


@pytest.fixture(scope="module")
def hot(regression_1000):
    """SGLD with a batch of 10 and a step far too large: the example of the field's folklore."""
    return sample(regression_1000[0], "sgld", step_size=2e-4)


# Gradient noise


def per_example_variance(target, position, batch_size):
    """Var[ĝ] of each coordinate over minibatches without replacement, from all N gradients."""
    one = jax.grad(target.loglikelihood_fn)
    grads = jax.vmap(lambda x, y: flat_grad(one(position, (x, y))))(
        target.data.inputs, target.data.targets
    )
    return np.asarray(grads).var(axis=0, ddof=1) * N**2 / batch_size * (1 - batch_size / N)


def flat_grad(tree):
    return jnp.concatenate([tree["one"]["w"], tree["two"]["w"]])


def test_gradient_noise_is_half_h_times_the_variance_of_the_gradient(regression_1000, hot):
    """½h·Var[ĝ] in closed form; 20 chains × 100 minibatches, 4.5 standard errors: 7e-6."""
    target, _, _ = regression_1000
    meters = measure(target, hot, num_minibatches=100)
    last = [jax.tree.map(lambda leaf, c=c: leaf[c, -1], hot.positions) for c in range(20)]
    exact = 0.5 * 2e-4 * np.mean([per_example_variance(target, p, B) for p in last], axis=0)
    noise, layers = meters.gradient_noise, meters.gradient_noise_by_layer
    for meter, value in (
        (noise, exact.mean()),
        (layers["one"], exact[:1].mean()),
        (layers["two"], exact[1:].mean()),
    ):
        assert abs(meter.value - value) < 4.5 * (meter.high - meter.low) / 4
        assert meter.high - meter.low < 0.25 * value


def test_gradient_noise_is_in_units_of_the_temperature(regression_1000, hot):
    once, twice = (
        measure(regression_1000[0], replace(hot, temperature=t)).gradient_noise for t in (1.0, 2.0)
    )
    assert_allclose(twice, np.divide(once, 2), rtol=1e-6)


def test_the_meters_see_what_r_hat_does_not(regression_1000, hot):
    """The variance is 12 times too large, both meters say so, and R-hat is content."""
    import arviz as az

    target, precision, _ = regression_1000
    ratio = variance_ratio(hot, precision)
    meters = measure(target, hot)
    assert 11 < ratio < 14
    assert_allclose(meters.configurational.value, ratio, rtol=0.08)
    # SGLD's own discretisation adds 1/(1 − hΛ/2) to what the noise predicts.
    assert_allclose((1 + meters.gradient_noise.value) / 0.9, ratio, rtol=0.15)
    assert max(float(az.rhat(flat(hot.positions)[..., i])) for i in range(3)) < 1.02
    assert meters.verdict.startswith("sampling at T ≈ 1")
    assert meters.verdict.endswith("smaller step, larger batch or control variates")


@pytest.mark.parametrize("method", ["psgld", "sghmc"])
def test_preconditioner_and_friction_count(regression_1000, method):
    """Where a chain forgets within an epoch, the predicted heat is the measured one."""
    target, precision, _ = regression_1000
    settings = {"step_size": 0.06} if method == "psgld" else {"step_size": 0.03, "friction": 0.5}
    draws = sample(target, method, **settings)
    meters = measure(target, draws)
    ratio = variance_ratio(draws, precision)
    assert ratio > 2
    assert_allclose(1 + meters.gradient_noise.value, ratio, rtol=0.25)
    assert_allclose(meters.configurational.value, ratio, rtol=0.1)


def test_a_full_batch_has_no_noise(regression_1000):
    target, _, _ = regression_1000
    draws = sample(target, "sgld", step_size=2e-4, batch_size=N, num_steps=200)
    assert measure(target, draws).gradient_noise.high < 1e-6


def test_control_variates_take_the_noise_away(regression_1000, hot):
    target, precision, mode = regression_1000
    center = {"one": {"w": mode[:1]}, "two": {"w": mode[1:]}}
    centered = target.with_control_variates(center)
    draws = sample(centered, "sgld", step_size=2e-4)
    assert measure(target, hot).gradient_noise.value > 10
    assert measure(centered, draws).gradient_noise.value < 0.1
    assert variance_ratio(draws, precision) < 1.25


# Configurational and kinetic temperature


@pytest.mark.parametrize("temperature", [0.5, 3.0])
@pytest.mark.parametrize("num_chains", [1, 6])
def test_the_configurational_temperature_of_exact_draws_is_their_temperature(
    regression_1000, temperature, num_chains
):
    """3,000 independent draws; 4.5 standard errors: fails 7 in 10⁶ times each."""
    target, precision, mode = regression_1000
    rng = np.random.default_rng(0)
    theta = rng.multivariate_normal(
        mode, temperature * np.linalg.inv(precision), size=(num_chains, 3_000 // num_chains)
    ).astype(np.float32)
    draws = pb.Draws(
        positions={"one": {"w": theta[..., :1]}, "two": {"w": theta[..., 1:]}},
        method="exact",
        temperature=temperature,
    )
    meters = pb.measure_temperature(jax.random.key(0), target, draws, num_draws=3_000)
    for meter in (meters.configurational, *meters.configurational_by_layer.values()):
        error = (meter.high - meter.low) / 4
        assert abs(meter.value - temperature) < 4.5 * error
        assert error < 0.05 * temperature
    assert meters.gradient_noise is None
    assert meters.kinetic is None
    assert meters.verdict == f"sampling at T ≈ {meters.configurational.value:.2g}, as asked"


def test_the_kinetic_temperature_is_that_of_the_draws(regression_1000):
    target, _, _ = regression_1000
    draws = sample(target, "sghmc", step_size=1e-3, temperature=2.0, batch_size=N, num_steps=4_000)
    kinetic = measure(target, draws).kinetic
    assert kinetic.low < 2 < kinetic.high
    assert kinetic.high - kinetic.low < 0.2
    assert_allclose(kinetic.value, draws.sample_stats["kinetic_temperature"].mean())


def test_a_network_has_a_meter_for_each_layer(target, sampled):
    meters = pb.measure_temperature(jax.random.key(0), target, sampled)
    assert set(meters.configurational_by_layer) == {"Dense_0", "Dense_1"}
    assert set(meters.gradient_noise_by_layer) == {"Dense_0", "Dense_1"}
    assert meters.num_parameters == target.num_parameters(target.init(jax.random.key(0)))
    sizes = {"Dense_0": 20, "Dense_1": 24}
    mean = sum(meters.configurational_by_layer[k].value * n for k, n in sizes.items()) / 44
    assert_allclose(mean, meters.configurational.value, rtol=1e-5)
    assert "Dense_1" in str(meters)
    assert meters.to_dict()["verdict"] == meters.verdict


@pytest.mark.parametrize("num_chains", [1, 2])
def test_the_meters_say_which_draws_they_measured(target, num_chains):
    draws = pb.sample(
        jax.random.key(0),
        target,
        "sgld",
        num_chains=num_chains,
        num_steps=22,
        thinning=2,
        batch_size=5,
        progress=False,
    )
    meters = pb.measure_temperature(jax.random.key(0), target, draws, num_draws=4)
    by_draw = meters.sample_stats["configurational_temperature"]
    measured = np.isfinite(by_draw)
    # The halves of a single chain stand for two, and leave an odd first draw out.
    expected = np.zeros((num_chains, draws.num_draws), bool)
    ends = [0, draws.num_draws - 1]
    if num_chains == 1:
        half, odd = divmod(draws.num_draws, 2)
        ends = [odd, odd + half - 1, odd + half, draws.num_draws - 1]
    expected[:, ends] = True
    assert_array_equal(measured, expected)
    assert_allclose(by_draw[measured].mean(), meters.configurational.value)
    # At one draw by hand.
    c = 0 if num_chains == 1 else 1
    at = jax.tree.map(lambda leaf: leaf[c, -1], draws.positions)
    others = jax.tree.map(
        lambda leaf: leaf[0, odd : odd + half].mean(0) if num_chains == 1 else leaf[0].mean(0),
        draws.positions,
    )
    gradient = jax.grad(target.logdensity_fn)(at)
    products = jax.tree.map(lambda x, m, g: -np.vdot(x - m, g), at, others, gradient)
    assert_allclose(by_draw[c, -1], sum(jax.tree.leaves(products)) / 44, rtol=1e-4)
    noise = meters.sample_stats["gradient_noise"]
    assert np.isnan(noise[:, :-1]).all()
    assert_allclose(noise[:, -1].mean(), meters.gradient_noise.value, rtol=1e-5)


# Verdicts


@pytest.mark.parametrize(
    ("configurational", "noise", "verdict"),
    [
        ((3.2, 3.0, 3.4), 2.1, "T ≈ 3.2, not 1: smaller step, larger batch or control variates"),
        ((3.2, 3.0, 3.4), 0.02, "minibatch noise explains 2% of T only; smaller step, or more"),
        ((3.2, 3.0, 3.4), None, "T ≈ 3.2, not 1: smaller step, larger batch or control variates"),
        ((0.4, 0.3, 0.5), 0.0, "T ≈ 0.4, not 1: the chains are probably still on their way"),
        ((-2.0, -3.0, -1.0), 0.0, "T ≈ -2, not 1: the chains are probably still on their way"),
        ((1.0, 0.9, 1.1), 0.5, "T ≈ 1, as asked$"),
        ((1.0, 0.9, 1.1), 0.1, "T ≈ 1, as asked; but minibatch noise adds 10% wherever"),
        ((1.0, np.nan, np.nan), 0.5, "cannot tell the temperature.*; but minibatch noise adds 50%"),
        ((1.45, 1.0, 1.9), 0.0, "cannot tell the temperature: 1.45 "),
        ((0.743, 0.47, 1.02), None, "cannot tell the temperature: 0.743 "),
        ((1.0, 0.2, 1.8), 0.0, "cannot tell the temperature: 1 \\[0.2, 1.8\\], asked 1; measure"),
        ((1.0, np.nan, np.nan), 0.0, "cannot tell the temperature"),
        ((1.05, 1.0, 1.1), 0.05, "sampling at T ≈ 1.1, as asked"),
    ],
)
def test_verdicts(configurational, noise, verdict):
    meters = TemperatureMeters(
        temperature=1.0,
        configurational=Interval(*configurational),
        configurational_by_layer={},
        gradient_noise=None if noise is None else Interval(noise, 0.9 * noise, 1.1 * noise),
        gradient_noise_by_layer={},
        kinetic=None,
        num_parameters=10,
    )
    with pytest.raises(AssertionError, match=verdict):
        raise AssertionError(meters.verdict)


# Refusals


def test_a_point_estimate_has_no_temperature(target, draws):
    with pytest.raises(pb.InputError, match="by hand has no temperature"):
        pb.measure_temperature(jax.random.key(0), target, draws)


@pytest.mark.parametrize("name", ["num_draws", "num_minibatches"])
def test_counts_must_be_positive(target, sampled, name):
    with pytest.raises(pb.InputError, match=f"{name} is 0; it must be at least 1"):
        pb.measure_temperature(jax.random.key(0), target, sampled, **{name: 0})


def test_draws_of_another_network_are_refused(regression, sampled):
    with pytest.raises(pb.InputError, match="position"):
        pb.measure_temperature(jax.random.key(0), regression, sampled)
