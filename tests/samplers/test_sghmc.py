"""SGHMC: its arithmetic against NumPy, its momentum, its preconditioner. See test_stationary."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from stationary import skewed

import probbnn as pb
from probbnn.samplers import sghmc
from probbnn.samplers.noise import normal_like
from probbnn.samplers.preconditioners import RMSPreconditioner

pytestmark = pytest.mark.usefixtures("quick_compilation")

START = {"a": jnp.array([0.5, -1.0, 2.0]), "b": jnp.array([[3.0], [0.1]])}
EXACT = partial(assert_allclose, rtol=1e-12, atol=1e-14)


def step_size(t):
    return 0.02 / (1 + t)


@pytest.mark.parametrize(
    ("friction", "temperature", "rms"),
    [
        (0.1, 1.0, None),
        (0.3, 4.0, None),
        (1.0, 0.25, None),
        (0.2, 4.0, {"decay": 0.9, "damping": 0.3, "bias_correction": True, "freeze_after": 3}),
        (0.2, 0.25, {"decay": 0.99, "damping": 1e-3, "bias_correction": False}),
    ],
)
def test_steps_are_the_update_equations(friction, temperature, rms):
    """Six steps in float64 against NumPy: momentum carried, never redrawn, never dropped."""
    with jax.enable_x64(True):
        start = jax.tree.map(lambda leaf: leaf.astype(float), START)
        settings = {} if rms is None else {"preconditioner": "rms", **rms}
        sampler = pb.sghmc(skewed, step_size, temperature, friction=friction, **settings)
        state, step = sampler.init(start), jax.jit(sampler.step)
        theta = {name: np.asarray(x) for name, x in start.items()}
        u = {name: np.zeros(x.shape) for name, x in theta.items()}
        v = {name: np.zeros(x.shape) for name, x in theta.items()}
        kept, frozen_at = 1 - friction, (rms or {}).get("freeze_after", np.inf)
        for t, key in enumerate(jax.random.split(jax.random.key(0), 6)):
            minibatch, xi = 1.0 + t, normal_like(key, start)
            value = sum((minibatch * x - np.exp(x)).sum() for x in theta.values())
            grad = {name: minibatch - np.exp(x) for name, x in theta.items()}
            for name in theta:
                g = 1.0
                if rms is not None:
                    if t < frozen_at:
                        v[name] = rms["decay"] * v[name] + (1 - rms["decay"]) * grad[name] ** 2
                    seen = min(t + 1, frozen_at)
                    c = 1 - rms["decay"] ** seen if rms["bias_correction"] else 1.0
                    g = 1 / (rms["damping"] + np.sqrt(v[name] / c))
                pace = np.sqrt(step_size(t) * g)
                u[name] = u[name] + pace * grad[name]
                theta[name] = theta[name] + pace * u[name] / 2
                noise = np.sqrt(temperature * (1 - kept**2)) * np.asarray(xi[name])
                u[name] = kept * u[name] + noise
                theta[name] = theta[name] + pace * u[name] / 2
            state, info = step(key, state, minibatch)
            jax.tree.map(EXACT, state.position, theta)
            jax.tree.map(EXACT, state.momentum, u)
            if rms is None:
                assert state.second_moment == ()
            else:
                jax.tree.map(EXACT, state.second_moment, v)
            EXACT(info.logdensity, value)
            EXACT(info.grad_norm, np.sqrt(sum((g**2).sum() for g in grad.values())))
            EXACT(info.step_size, step_size(t))
            EXACT(info.kinetic_temperature, sum((x**2).sum() for x in u.values()) / 5)
            assert state.step == t + 1


def free(position, minibatch=None):
    """No force at all."""
    return 0.0, jax.tree.map(jnp.zeros_like, position)


def test_without_force_or_noise_momentum_decays_by_the_friction():
    """T → 0: u ← (1−a)u, and the position moves by √h(1−a/2)·u; the momentum is not redrawn."""
    sampler = pb.sghmc(free, 0.04, 1e-30, friction=0.25)
    state = sampler.init(jnp.zeros(3))._replace(momentum=jnp.array([1.0, -2.0, 0.5]))
    for t in range(4):
        u = 0.75**t * np.array([1.0, -2.0, 0.5])
        before, (state, _) = state.position, sampler.step(jax.random.key(t), state, None)
        assert_allclose(state.momentum, 0.75 * u, rtol=1e-6)
        assert_allclose(state.position - before, 0.2 * (1 - 0.25 / 2) * u, rtol=1e-5)


@pytest.mark.parametrize(("friction", "temperature"), [(0.1, 4.0), (1.0, 0.25)])
def test_momentum_forgets_at_the_friction_and_keeps_its_temperature(friction, temperature):
    """Its autocorrelation is (1−a)^k, its variance T: 40,000 free chains, 4.5 σ, 7 in 10⁶ each."""
    sampler, size = pb.sghmc(free, 1.0, temperature, friction=friction), 40_000
    momentum = np.sqrt(temperature) * jax.random.normal(jax.random.key(9), (size,))
    state = sampler.init(jnp.zeros(size))._replace(momentum=momentum)
    step = jax.jit(sampler.step)
    for k in range(1, 4):
        state, info = step(jax.random.key(k), state, None)
        later = state.momentum
        assert abs(np.corrcoef(momentum, later)[0, 1] - (1 - friction) ** k) < 4.5 / size**0.5
        assert abs(np.var(later) / temperature - 1) < 4.5 * (2 / size) ** 0.5
        assert_allclose(info.kinetic_temperature, np.mean(np.asarray(later, float) ** 2), rtol=1e-4)


def test_a_frozen_preconditioner_stays_and_an_adapting_one_does_not():
    settings = {"preconditioner": "rms", "decay": 0.5}
    for freeze_after in (2, None):
        sampler = pb.sghmc(skewed, 0.01, freeze_after=freeze_after, **settings)
        state, step = sampler.init(START), jax.jit(sampler.step)
        gains, seconds = [], []
        for t in range(4):
            state, _ = step(jax.random.key(t), state, 1.0 + t)
            gains.append(sampler.noise_gain(state)["a"])
            seconds.append(state.second_moment["a"])
        assert (seconds[1] != seconds[0]).all()
        assert (gains[1] != gains[0]).all()
        for x in (seconds, gains):
            if freeze_after == 2:
                assert_array_equal(x[3], x[1])
            else:
                assert (x[3] != x[1]).all()


def test_the_kernel_takes_step_size_and_temperature_by_the_step():
    kernel = sghmc.build_kernel(0.3, RMSPreconditioner())
    sampler = pb.sghmc(skewed, 0.02, 4.0, friction=0.3, preconditioner="rms")
    key, state = jax.random.key(0), sghmc.init(START, RMSPreconditioner())
    by_hand, _ = jax.jit(lambda h, t: kernel(key, state, skewed, 1.0, h, t))(0.02, 4.0)
    state, _ = jax.jit(sampler.step)(key, sampler.init(START), 1.0)
    jax.tree.map(partial(assert_allclose, rtol=1e-6), by_hand, state)
