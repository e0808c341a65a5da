"""Outside libraries behind the kernels' contract: their own steps. Their laws: test_stationary."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import probbnn as pb
from probbnn.samplers.from_blackjax import sgnht
from probbnn.samplers.from_optax import optimizer

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def position(target):
    return target.init(jax.random.key(1))


@pytest.fixture(scope="module")
def batch(classes):
    return pb.Batch(classes[0][:7], classes[1][:7])


@pytest.fixture(scope="module")
def estimate(target, position, batch):
    return jax.jit(target.value_and_grad_estimator)(position, batch)


# SGLD


def test_sgld_is_blackjaxs_step_and_reports_what_it_saw(target, position, batch, estimate):
    sampler = pb.sgld(target.value_and_grad_estimator, lambda t: 0.01 / (1 + t), 2.0)
    state = sampler.init(position)._replace(step=jnp.array(3, jnp.int32))
    state, info = jax.jit(sampler.step)(jax.random.key(0), state, batch)
    theirs = blackjax.sgld(target.grad_estimator)
    expected = jax.jit(theirs.step)(jax.random.key(0), position, batch, 0.01 / 4, 2.0)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.position, expected)
    assert state.step == 4
    value, gradient = estimate
    assert_allclose(info.logdensity, value, rtol=1e-5)
    assert_allclose(info.grad_norm, optax.tree.norm(gradient), rtol=1e-5)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("name", ["step_size", "temperature"])
def test_sgld_refuses_numbers_that_are_not_positive_and_finite(target, name, value):
    with pytest.raises(pb.InputError, match=f"{name} is {value}; it must be positive and finite"):
        pb.sgld(target.value_and_grad_estimator, **{"step_size": 0.1, name: value})


# SGNHT


def test_sgnht_is_blackjaxs_step_with_its_thermostat(target, position, batch):
    sampler = sgnht(target.value_and_grad_estimator, 0.01, 2.0, alpha=0.3)
    theirs = blackjax.sgnht(target.grad_estimator, alpha=0.3)
    momentum = jax.tree.map(jnp.ones_like, position)
    state = sampler.init(position)._replace(momentum=momentum, xi=jnp.asarray(0.7))
    expected = blackjax.sgmcmc.sgnht.SGNHTState(position, momentum, jnp.asarray(0.7))
    state, info = jax.jit(sampler.step)(jax.random.key(0), state, batch)
    expected = jax.jit(theirs.step)(jax.random.key(0), expected, batch, 0.01, 2.0)
    assert abs(expected.xi - 0.7) > 1e-3
    for found, wanted in zip(state[:3], expected, strict=True):
        jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, wanted)
    square = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(state.momentum))
    size = target.num_parameters(position)
    assert_allclose(info.kinetic_temperature, square / size, rtol=1e-5)


# Optax


def test_optax_descends_the_mean_loss(target, position, batch, estimate):
    """Plain SGD with rate η moves by η·∇logdensity/N: the usual loss is −logdensity/N."""
    optimiser = optimizer(target.value_and_grad_estimator, optax.sgd(0.5), target.data_size)
    step = jax.jit(optimiser.step)
    state, info = step(jax.random.key(0), optimiser.init(position), batch)
    value, gradient = estimate
    jax.tree.map(
        lambda new, old, g: assert_allclose(new, old + 0.5 / 23 * g, rtol=1e-5, atol=1e-6),
        state.position,
        position,
        gradient,
    )
    assert_allclose(info.logdensity, value, rtol=1e-5)
    assert_allclose(info.grad_norm, optax.tree.norm(gradient), rtol=1e-5)
    again, _ = step(jax.random.key(1), optimiser.init(position), batch)
    jax.tree.map(assert_array_equal, again.position, state.position)  # the key is not used


def test_adam_finds_the_posterior_mode_of_a_linear_regression(values, linear_regression):
    x, y = values
    target = linear_regression
    draws = pb.sample(
        jax.random.key(0), target, "map", step_size=0.05, num_steps=600, progress=False
    )
    mode = np.linalg.solve(x.T @ x / 0.3**2 + np.eye(3) / 0.7**2, x.T @ y / 0.3**2)
    assert_allclose(draws.positions[0, 0], mode, rtol=1e-3, atol=1e-4)


def test_any_optax_optimiser_is_taken_as_it_is(target, position, batch):
    built = pb.METHODS["map"](optimizer=optax.sgd(0.5)).build(target, num_warmup=0, batch_size=5)
    by_hand = optimizer(target.value_and_grad_estimator, optax.sgd(0.5), target.data_size)
    one, other = (
        jax.jit(o.step)(jax.random.key(0), o.init(position), batch)[0].position
        for o in (built, by_hand)
    )
    jax.tree.map(assert_array_equal, one, other)


def test_unknown_optimizers_are_refused(target):
    with pytest.raises(pb.InputError, match="adma.*adam"):
        pb.METHODS["map"](optimizer="adma")
