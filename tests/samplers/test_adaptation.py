"""Warm-up step by step against BlackJAX's own loops, with the very same random keys."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

import probbnn as pb
from probbnn.samplers.mclmc import MCLMC
from probbnn.samplers.nuts import NUTS

pytestmark = pytest.mark.usefixtures("quick_compilation")

SCALES = np.array([0.1, 1.0, 5.0], np.float32)


def regression(dtype):
    """Of a correlated Gaussian posterior."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(40, 3)) / SCALES).astype(dtype)
    y = (x @ np.array([1.0, -2.0, 0.5]) + rng.normal(size=40)).astype(dtype)
    linear = (lambda key, inputs: jnp.zeros(3), lambda theta, inputs: inputs @ theta)
    return pb.LogDensity(linear, (x, y), likelihood=pb.Gaussian(1.0), prior_scale=3.0)


@pytest.fixture(scope="module")
def target():
    return regression(np.float32)


@pytest.mark.parametrize(("num_warmup", "rate"), [(20, 0.95), (150, 0.8)])
def test_nuts_adapts_as_blackjaxs_windows_do(num_warmup, rate):
    """In float64: the chain is chaotic, and makes much of the rounding of two programs."""
    with jax.enable_x64(True):
        target, start = regression(float), jnp.array([0.5, -0.5, 1.0])
        nuts = NUTS(target_acceptance_rate=rate)
        kernel = nuts.build(target, num_warmup=num_warmup, batch_size=40)
        key = jax.random.key(3)
        warmup = blackjax.window_adaptation(
            blackjax.nuts,
            target.logdensity_fn,
            target_acceptance_rate=rate,
            max_num_doublings=10,
        )
        (state, parameters), _ = warmup.run(key, start, num_warmup)
        keys = jax.random.split(key, num_warmup)

        @jax.jit
        def ours(keys):
            step = lambda state, key: (kernel.adapt(key, state, None)[0], None)  # noqa: E731
            return kernel.settle(jax.lax.scan(step, kernel.init(start), keys)[0])

        found = ours(keys)
        assert_allclose(found.step_size, parameters["step_size"], rtol=1e-6)
        assert_allclose(found.inverse_mass_matrix, parameters["inverse_mass_matrix"], rtol=1e-6)
        assert_allclose(found.position, state.position, rtol=1e-5, atol=1e-8)
        assert found.tuning == ()


def test_mclmc_is_tuned_as_blackjax_tunes_it(target):
    """Step by step with other keys, so in distribution: mean over 64 chains of what is tuned.

    Fails by chance as often as one of five means is off by 4.5 standard errors: 3 times in 10⁵.
    """
    num_warmup, num_chains = 300, 64
    kernel = MCLMC().build(target, num_warmup=num_warmup, batch_size=40)
    step = blackjax.mcmc.mclmc.build_kernel()

    def theirs(key):
        init_key, tune_key = jax.random.split(key)
        state = blackjax.mcmc.mclmc.init(jnp.zeros(3), target.logdensity_fn, init_key)
        _, tuned, _ = blackjax.mclmc_find_L_and_step_size(
            step, 3 * num_warmup, state, tune_key, target.logdensity_fn
        )
        return jnp.log(jnp.stack([tuned.L, tuned.step_size, *tuned.inverse_mass_matrix]))

    def ours(key):
        def adapt(state, number):
            return kernel.adapt(jax.random.fold_in(key, number), state, None)[0], None

        state = kernel.init(jnp.zeros(3), jax.random.fold_in(key, num_warmup))
        state = kernel.settle(jax.lax.scan(adapt, state, jnp.arange(num_warmup))[0])
        return jnp.log(jnp.stack([state.L, state.step_size, *state.inverse_mass_matrix]))

    keys = jax.random.split(jax.random.key(0), (2, num_chains))
    one, other = (
        np.asarray(jax.jit(jax.vmap(f))(k), float)
        for f, k in zip((ours, theirs), keys, strict=True)
    )
    error = np.sqrt((one.var(axis=0, ddof=1) + other.var(axis=0, ddof=1)) / num_chains)
    assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) < 4.5 * error).all()
    # So that the comparison says something: known to better than the scales differ.
    assert (4.5 * error < [0.3, 0.3, 1.1, 1.1, 1.1]).all()
    assert np.ptp(one.mean(axis=0)[2:]) > 1.1


def test_mclmc_of_one_parameter_is_one_line(values):
    inputs, targets = values
    one = (lambda key, x: jnp.zeros(1), lambda theta, x: x[:, :1] * theta)
    target = pb.LogDensity(one, (inputs, targets), likelihood=pb.Gaussian(1.0))
    with pytest.raises(pb.InputError, match="one parameter, and mclmc needs two or more") as caught:
        pb.sample(jax.random.key(0), target, "mclmc", num_steps=100, progress=False)
    assert "\n" not in str(caught.value)


def test_a_step_of_mclmc_is_blackjaxs(target):
    """At an L and a step size that cannot be taken for each other."""
    kernel = MCLMC().build(target, num_warmup=20, batch_size=40)
    state = kernel.init(jnp.ones(3), jax.random.key(0))
    state = state._replace(
        L=jnp.float32(7.0),
        step_size=jnp.float32(0.02),
        inverse_mass_matrix=jnp.array([1.0, 2.0, 3.0]),
        tuning=(),
    )
    expected, info = blackjax.mcmc.mclmc.build_kernel()(
        rng_key=jax.random.key(1),
        state=state.integrator,
        logdensity_fn=target.logdensity_fn,
        inverse_mass_matrix=state.inverse_mass_matrix,
        L=state.L,
        step_size=state.step_size,
    )
    found, report = kernel.step(jax.random.key(1), state, None)
    jax.tree.map(assert_allclose, found.integrator, expected)
    assert_allclose(report.energy_change, info.energy_change)
    assert (report.step_size, report.num_gradients) == (state.step_size, 2)
