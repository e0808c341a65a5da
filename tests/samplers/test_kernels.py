"""The contract that all kernels keep: what they take, what they return, their keys and dtypes."""

import inspect
from functools import cache, partial

import blackjax as blackjax_library
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose
from stationary import skewed

import probbnn as pb
from probbnn.samplers import from_blackjax as blackjax
from probbnn.samplers.from_optax import optimizer
from probbnn.samplers.noise import normal_like

pytestmark = pytest.mark.usefixtures("quick_compilation")

FACTORIES = {
    "sgld": pb.sgld,
    "psgld": pb.psgld,
    "psgld, exact": partial(pb.psgld, gamma="exact"),
    "psgld, hutchinson": partial(pb.psgld, gamma="hutchinson"),
    "sghmc": pb.sghmc,
    "sghmc, rms": partial(pb.sghmc, preconditioner="rms"),
    "blackjax_sghmc": partial(blackjax.sghmc, num_integration_steps=3),
    "sgnht": blackjax.sgnht,
}
NAMES = [*FACTORIES, "optax"]
WITH_GAIN = {name for name in FACTORIES if name.startswith(("sgld", "psgld", "sghmc"))}

STATE_FIELDS = {
    "sgld": ("position", "step"),
    "psgld": ("position", "second_moment", "step", "slope"),
    "sghmc": ("position", "momentum", "second_moment", "step"),
    "blackjax_sghmc": ("position", "step"),
    "sgnht": ("position", "momentum", "xi", "step"),
    "optax": ("position", "opt_state"),
}
INFO_FIELDS = {"optax": ("logdensity", "grad_norm")}
INFO_FIELDS |= dict.fromkeys(
    ("sgld", "psgld", "blackjax_sghmc"), (*INFO_FIELDS["optax"], "step_size")
)
INFO_FIELDS |= dict.fromkeys(("sghmc", "sgnht"), (*INFO_FIELDS["sgld"], "kinetic_temperature"))

POSITION = {"a": jnp.array([0.5, -1.0, 2.0]), "b": {"c": jnp.array([[1.5], [0.1]])}}
MIXED = {
    "half": jnp.ones(3, jnp.bfloat16),
    "single": jnp.ones((2, 2)),
    "scalar": jnp.array(0.5),
    "deeper": [{"empty": {}}, (jnp.zeros(1),)],
}
ESTIMATE, CLOSE = jax.jit(skewed), partial(assert_allclose, rtol=1e-5, atol=1e-6)
FAR = 0.2  # a step size that shows in bfloat16


def build(name, h=0.01, temperature=1.0):
    if name == "optax":
        return optimizer(skewed, optax.adam(h), data_size=10)
    return FACTORIES[name](skewed, h, temperature)


def scan(kernel, position, num_steps=3):
    """States and infos after each step, leaves (step, …): needs a state like the one before."""

    def step(state, key):
        state, info = kernel.step(key, state, 1.5)
        return state, (state, info)

    keys = jax.random.split(jax.random.key(0), num_steps)
    return jax.lax.scan(step, kernel.init(position), keys)[1]


@cache
def mixed(name):
    """On `MIXED`: the first state, and states and infos of a scan, with their noise gains."""
    kernel = build(name, FAR)

    def run(position):
        start, (states, infos) = kernel.init(position), scan(kernel, position)
        last = jax.tree.map(lambda leaf: leaf[-1], states)
        gains = [kernel.noise_gain(state) for state in (start, last)] if kernel.noise_gain else None
        return start, states, infos, gains

    return jax.device_get(jax.jit(run)(MIXED))


@cache
def one_step(name):
    """On `POSITION`: the first state, and the compiled step."""
    kernel = build(name)
    return jax.device_get(jax.jit(kernel.init)(POSITION)), jax.jit(kernel.step)


def like(tree, batch=()):
    """Structure, shapes and dtypes."""
    return jax.tree.map(lambda leaf: ((*batch, *leaf.shape), leaf.dtype), tree)


def all_finite(tree):
    return all(np.isfinite(np.asarray(leaf, float)).all() for leaf in jax.tree.leaves(tree))


# What goes in and what comes out


@pytest.mark.parametrize("name", FACTORIES)
def test_factories_begin_with_estimator_step_size_and_temperature(name):
    parameters = inspect.signature(FACTORIES[name]).parameters
    assert list(parameters)[:3] == ["value_and_grad_estimator", "step_size", "temperature"]
    assert parameters["temperature"].default == 1.0
    kinds = {p.kind for p in list(parameters.values())[3:]}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}


@pytest.mark.parametrize("name", NAMES)
def test_mixed_positions_pass_a_scan_unchanged_in_form(name):
    kind = name.split(",")[0]
    start, states, infos, _ = mixed(name)
    assert isinstance(build(name), pb.Kernel)
    assert like(states) == like(start, batch=(3,))
    assert like(states.position) == like(MIXED, batch=(3,))
    assert states._fields == STATE_FIELDS[kind]
    assert infos._fields == INFO_FIELDS[kind]
    assert {values.shape for values in infos} == {(3,)}
    assert all_finite((states, infos))
    moved = jax.tree.map(lambda x, y: (x != np.asarray(y)).any(), states.position, MIXED)
    assert all(jax.tree.leaves(moved))
    if "step" in states._fields:
        assert states.step.tolist() == [1, 2, 3]
        assert_allclose(infos.step_size, FAR)


@pytest.mark.parametrize("name", NAMES)
def test_noise_gain_is_positive_and_like_the_position(name):
    *_, gains = mixed(name)
    assert (gains is not None) == (name in WITH_GAIN)
    for gain in gains or []:
        assert like(gain) == like(MIXED)
        assert all_finite(gain)
        assert all((leaf > 0).all() for leaf in jax.tree.leaves(gain))


@pytest.mark.parametrize("name", NAMES)
def test_a_step_reports_what_it_saw_and_chains_side_by_side_are_chains_one_by_one(name):
    state, step = one_step(name)
    moved = jax.tree.map(lambda x: x + np.float32(1), state.position)
    starts = [state, state._replace(position=moved)]
    states = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
    keys = jax.random.split(jax.random.key(0))
    together = jax.device_get(jax.jit(jax.vmap(step, (0, 0, None)))(keys, states, 1.5))
    for i, start in enumerate(starts):
        after, info = step(keys[i], start, 1.5)
        value, grad = ESTIMATE(start.position, 1.5)
        CLOSE(info.logdensity, value)
        CLOSE(info.grad_norm, np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grad))))
        jax.tree.map(lambda x, y, i=i: CLOSE(x[i], y), together, (after, info))


# Keys


@pytest.mark.parametrize("name", NAMES)
def test_the_key_is_the_only_randomness(name):
    """Two steps, because a thermostat's noise reaches the position a step late."""
    start, step = one_step(name)
    ends = []
    for seeds in ((0, 1), (0, 1), (2, 3)):
        state = start
        for seed in seeds:
            state, _ = step(jax.random.key(seed), state, 1.5)
        ends.append(np.asarray(state.position["a"]))
    assert (ends[0] == ends[1]).all()
    assert (ends[0] == ends[2]).any() == (name == "optax")


@pytest.mark.parametrize("name", NAMES)
def test_no_key_is_used_twice_in_a_step(name):
    """By us. BlackJAX's SGHMC does it inside, with a key that JAX does not follow."""
    kernel = build(name)
    state = kernel.init(jnp.ones(2))
    with jax.debug_key_reuse(True):
        jax.jit(kernel.step)(jax.random.key(0), state, 1.5)


def test_blackjaxs_key_reuse_leaves_no_correlation():
    """Its momentum and its inner steps' noise, over 40,000 keys: 4.5 σ, fails 7 in 10⁶ times each.

    This is why the laws of `blackjax_sghmc` may take the two for independent.
    """
    keys = jax.random.split(jax.random.key(0), 40_000)
    noise = jax.vmap(lambda key: blackjax_library.util.generate_gaussian_noise(key, jnp.zeros(2)))
    inner = jax.vmap(lambda key: jax.random.split(key, 3))(keys)
    samples = np.concatenate([noise(keys), *(noise(inner[:, i]) for i in range(3))], axis=1)
    for x in (samples, samples**2):
        correlations = np.corrcoef(x.T)[np.triu_indices(8, 1)]
        assert np.abs(correlations).max() < 4.5 / np.sqrt(len(keys))


# Precision


def in_float64(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


@pytest.mark.parametrize("name", NAMES)
def test_float64_in_is_float64_out_and_agrees_with_float32(name):
    """At a temperature that leaves no noise to speak of, where there is a choice."""
    settings = {} if name in ("blackjax_sghmc", "optax") else {"temperature": 1e-14}
    run = jax.jit(partial(scan, build(name, **settings)))
    narrow = in_float64(run(np.float32([0.5, -1, 2]))[0].position)
    with jax.enable_x64(True):
        states, infos = run(np.array([0.5, -1, 2]))
        dtypes = {x.dtype for x in jax.tree.leaves((states, infos))}
        assert dtypes <= {np.dtype(np.float64), np.dtype(np.int32)}
        if name != "blackjax_sghmc":
            assert_allclose(narrow, states.position, rtol=1e-4, atol=1e-5)


def test_psgld_in_float64_is_its_update_equations():
    """θ ← θ + hGg + √(2hTG)ξ to twelve digits, G frozen after three of five steps."""
    h, t, decay, damping = 0.01, 0.25, 0.9, 0.3
    with jax.enable_x64(True):
        kernel = pb.psgld(skewed, h, t, decay=decay, damping=damping, freeze_after=3)
        theta = in_float64(POSITION)
        states, _ = jax.device_get(jax.jit(partial(scan, kernel, num_steps=5))(theta))
        normals = jax.jit(lambda key: normal_like(jax.random.split(key)[0], theta))
        v = jax.tree.map(np.zeros_like, theta)
        for step, key in enumerate(jax.random.split(jax.random.key(0), 5)):
            xi = jax.device_get(normals(key))
            grad = jax.tree.map(lambda x: 1.5 - np.exp(x), theta)
            if step < 3:
                v = jax.tree.map(lambda v, g: decay * v + (1 - decay) * g**2, v, grad)
            c = 1 - decay ** min(step + 1, 3)
            g = jax.tree.map(lambda v, c=c: 1 / (damping + np.sqrt(v / c)), v)
            theta = jax.tree.map(
                lambda x, g, grad, xi: x + h * g * grad + np.sqrt(2 * h * t * g) * xi,
                theta,
                g,
                grad,
                xi,
            )
            jax.tree.map(
                lambda x, y, step=step: assert_allclose(x[step], y, rtol=1e-12),
                states.position,
                theta,
            )


# Bad settings


@pytest.mark.parametrize("name", FACTORIES)
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
@pytest.mark.parametrize("setting", ["h", "temperature"])
def test_step_size_and_temperature_must_be_positive_and_finite(name, setting, value):
    message = {"h": "step_size"}.get(setting, setting) + f" is {value}; "
    with pytest.raises(pb.InputError, match=message):
        build(name, **{setting: value})


@pytest.mark.parametrize(
    ("factory", "settings", "message"),
    [
        *(
            (pb.sghmc, {"friction": value}, f"friction is {value}; it must be more than 0 and at")
            for value in (0.0, -0.1, 1.1, np.nan)
        ),
        (pb.sghmc, {"preconditioner": "adam"}, "preconditioner is 'adam'; choose None or 'rms'"),
        (pb.sghmc, {"preconditioner": "rms", "decay": 1.0}, "decay is 1.0"),
        (pb.sghmc, {"preconditioner": "rms", "damping": 0.0}, "damping is 0.0"),
        (pb.sghmc, {"preconditioner": "rms", "freeze_after": 0}, "freeze_after is 0"),
        *(
            (factory, {"alpha": value}, f"alpha is {value}; it must be positive and finite")
            for factory in (blackjax.sghmc, blackjax.sgnht)
            for value in (0.0, -1.0, np.nan, np.inf)
        ),
        (blackjax.sghmc, {"num_integration_steps": 0}, "num_integration_steps is 0; at least 2"),
        (blackjax.sghmc, {"temperature": 2.0}, r"temperature is 2.0; .* use probbnn's own sghmc"),
    ],
)
def test_settings_outside_their_range_are_refused(factory, settings, message):
    with pytest.raises(pb.InputError, match=message) as caught:
        factory(skewed, 0.1, **settings)
    assert "\n" not in str(caught.value)
