"""pSGLD: its arithmetic against NumPy, its law against closed forms, its noise, its keys."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from stationary import skewed

import probbnn as pb
from probbnn.samplers import psgld
from probbnn.samplers.noise import normal_like
from probbnn.samplers.preconditioners import RMSPreconditioner

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLOSE = partial(assert_allclose, rtol=2e-5, atol=2e-6)
START = {"a": jnp.array([0.5, -1.0, 2.0]), "b": jnp.array([[3.0], [0.1]])}


def noise_of(rng_key, position):
    """The normals of the step that `rng_key` drives."""
    return normal_like(jax.random.split(rng_key)[0], position)


# One step, written out


@pytest.mark.parametrize(
    ("decay", "damping", "temperature", "bias_correction", "freeze_after"),
    [
        (0.99, 1.0, 1.0, True, None),
        (0.9, 0.3, 0.25, True, 3),
        (0.9, 1e-5, 4.0, False, 1),
        (0.0, 0.1, 1.0, False, None),
    ],
)
def test_steps_are_the_update_equations(decay, damping, temperature, bias_correction, freeze_after):
    def step_size(t):
        return 0.01 / (1 + t)

    sampler = pb.psgld(
        skewed,
        step_size,
        temperature,
        decay=decay,
        damping=damping,
        bias_correction=bias_correction,
        freeze_after=freeze_after,
    )
    state, step = sampler.init(START), jax.jit(sampler.step)
    theta = {name: np.asarray(x, float) for name, x in START.items()}
    second = {name: np.zeros(x.shape) for name, x in START.items()}
    for t, key in enumerate(jax.random.split(jax.random.key(0), 5)):
        minibatch, xi = 1.0 + t, noise_of(key, START)
        value = sum((minibatch * x - np.exp(x)).sum() for x in theta.values())
        gradient = {name: minibatch - np.exp(x) for name, x in theta.items()}
        averaged = t + 1 if freeze_after is None else min(t + 1, freeze_after)
        c = 1 - decay**averaged if bias_correction else 1.0
        for name, g in gradient.items():
            if freeze_after is None or t < freeze_after:
                second[name] = decay * second[name] + (1 - decay) * g**2
            scale = 1 / (damping + np.sqrt(second[name] / c))
            h = step_size(t)
            drift, noise = h * scale * g, np.sqrt(2 * h * temperature * scale) * xi[name]
            theta[name] = theta[name] + drift + noise
        state, info = step(key, state, minibatch)
        jax.tree.map(CLOSE, state.position, theta)
        jax.tree.map(CLOSE, state.second_moment, second)
        CLOSE(info.logdensity, value)
        CLOSE(info.grad_norm, np.sqrt(sum((g**2).sum() for g in gradient.values())))
        assert state.step == t + 1


def test_first_step_is_full_sized_only_with_bias_correction():
    """Without it, V₀ = 0 makes the first step 1/√(1−α) times too large."""
    drifts = []
    for correction in (True, False):
        rms = RMSPreconditioner(bias_correction=correction, damping=1e-6)
        kernel = psgld.build_kernel(rms)
        args = (jax.random.key(0), psgld.init(START), skewed, 1.0, 0.01, 0.0)
        drifts.append(kernel(*args)[0].position["a"] - START["a"])
    CLOSE(drifts[0], 0.01 * np.sign(1 - np.exp(START["a"])), rtol=1e-3)
    CLOSE(drifts[1] / drifts[0], 10, rtol=1e-3)


# Γ


def banana(position, minibatch=None):
    """A 2-D log density with a Hessian that is neither constant nor diagonal."""

    def logdensity(theta):
        x, y = theta
        return -(x**4) / 4 - x**2 * y**2 / 2 + x * y - y**2 + x

    return jax.value_and_grad(logdensity)(position)


def stretched(position, minibatch=None):
    return -0.5 * jnp.sum(jnp.array([1.0, 100.0]) * position**2), -jnp.array([1, 100.0]) * position


STATE = psgld.PSGLDState(
    jnp.array([0.7, -1.2]), jnp.array([2.0, 0.5]), jnp.array(3, jnp.int32), jnp.zeros(2)
)


def gamma_of(kind, target, key=None, state=STATE, **settings):
    """Γ as the difference that switching it on makes to one step at h = T = 1."""
    rms = RMSPreconditioner(**{"decay": 0.8, "damping": 0.5, **settings})
    key = jax.random.key(0) if key is None else key
    with_gamma, without = (
        psgld.build_kernel(rms, gamma)(key, state, target, None, 1.0)[0].position
        for gamma in (kind, None)
    )
    return with_gamma - without


@pytest.mark.parametrize("bias_correction", [True, False])
@pytest.mark.parametrize("target", [banana, stretched])
def test_exact_gamma_is_the_derivative_of_the_preconditioner(target, bias_correction):
    def preconditioner(theta):
        second = 0.8 * STATE.second_moment + 0.2 * target(theta)[1] ** 2
        return 1 / (0.5 + jnp.sqrt(second / (1 - 0.8**4 if bias_correction else 1)))

    exact = jnp.diag(jax.jacfwd(preconditioner)(STATE.position))
    if bias_correction:  # V's start at 0 is corrected for, and D's is not
        exact *= 1 - 0.8**4
    gamma = gamma_of("exact", target, bias_correction=bias_correction)
    CLOSE(gamma, exact, rtol=1e-3, atol=1e-6)


def test_gamma_remembers_as_long_as_the_second_moment_does():
    """D ← αD + (1−α) ∂g²/∂θ, the derivative of V along a chain that hardly moves."""
    kernel = psgld.build_kernel(RMSPreconditioner(decay=0.8, damping=0.5), "exact")
    state, slope = psgld.init(STATE.position, "exact"), np.zeros(2)
    for t in range(3):
        slope = 0.8 * slope + 0.2 * 2 * np.array([1.0, 100.0]) ** 2 * np.asarray(state.position)
        state, _ = kernel(jax.random.key(t), state, stretched, None, 1e-3)
        CLOSE(state.slope, slope)
    older = STATE._replace(slope=jnp.array([3.0, -7.0]))
    difference = gamma_of("exact", stretched, state=older) - gamma_of("exact", stretched)
    root = jnp.sqrt(
        (0.8 * STATE.second_moment + 0.2 * stretched(STATE.position)[1] ** 2) / (1 - 0.8**4)
    )
    CLOSE(difference, -0.5 / (0.5 + root) ** 2 * 0.8 * older.slope / root, rtol=1e-3)


def test_exact_gamma_by_hand_on_a_quadratic():
    """Γ = −G² (1−α) g H / √V with g = −Λθ and H = −Λ, so the sign of −θ (from V₀ = 0)."""
    state = psgld.init(jnp.array([2.0, -0.3]), "exact")
    precision = np.array([1.0, 100.0])
    g = -precision * np.array([2.0, -0.3])
    root = np.sqrt(0.2 * g**2)
    by_hand = (1 / (0.5 + root)) ** 2 * 0.2 * g * precision / root
    CLOSE(gamma_of("exact", stretched, state=state, bias_correction=False), by_hand, rtol=1e-3)


def test_hutchinson_is_exact_where_the_hessian_is_diagonal():
    assert_array_equal(gamma_of("hutchinson", stretched), gamma_of("exact", stretched))


def test_hutchinson_averages_to_the_exact_gamma():
    """Mean over 4,000 probes within 4.5 standard errors: fails 1 in 70,000 times."""
    keys = jax.random.split(jax.random.key(1), 4000)
    estimates = jax.jit(jax.vmap(lambda key: gamma_of("hutchinson", banana, key)))(keys)
    error = estimates.std(axis=0) / np.sqrt(4000)
    exact = gamma_of("exact", banana)
    assert (estimates.std(axis=0) > 0.01).all()
    assert (np.abs(estimates.mean(axis=0) - exact) < 4.5 * error + 1e-5).all()


def test_gamma_is_zero_once_frozen():
    assert_array_equal(gamma_of("exact", banana, freeze_after=3), 0)
    assert (gamma_of("exact", banana, freeze_after=4) != 0).all()


# The law, as far as it is not in test_stationary


@pytest.mark.parametrize("decay", [0.9, 0.99])
def test_gamma_makes_the_law_right_while_v_remembers(decay):
    """Without Γ the variance is 1.38 and 1.17, with the newest term of D alone 1.32 and 1.16.

    1,000 chains × 3,000 steps, some 35 relaxation times: σ = 0.8 %, discretisation and what the
    chain moves within V's memory up to 3 %; bound 6 %.
    """
    sampler = pb.psgld(lambda theta, _: (0.0, -theta), 0.02, decay=decay, gamma="hutchinson")
    state = sampler.init(jax.random.normal(jax.random.key(0), (1_000,)))

    def step(t, carry):
        state, total = carry
        state, _ = sampler.step(jax.random.fold_in(jax.random.key(7), t), state, None)
        return state, total + jnp.where(t >= 600, jnp.mean(state.position**2), 0.0)

    _, total = jax.jit(lambda state: jax.lax.fori_loop(0, 3_600, step, (state, 0.0)))(state)
    assert_allclose(total / 3_000, 1.0, atol=0.06)


# The notebook's own loops, on its own objective, against ours on the posterior's scale


@pytest.fixture(scope="module")
def notebook():
    """(N, target, objective): the notebook's objective, and the posterior of which it is −1/10N."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(30, 4, 4, 1), dtype=np.uint8), np.arange(30) % 10
    module, size = pb.MLP(hidden=(6,)), 30
    target = pb.LogDensity(module, (images, labels), prior_scale=(10 * size * 1e-4) ** -0.5)

    def objective(params, images, labels):
        logits = module.apply({"params": params}, images / 255)
        penalty = 0.5 * sum(jnp.sum(p**2) for p in jax.tree.leaves(params))
        onehot = jax.nn.one_hot(labels, 10)
        return -jnp.mean(onehot * jax.nn.log_softmax(logits)) + 1e-4 * penalty

    return size, target, jax.jit(jax.grad(objective))


def batches(target, num_steps):
    for t in range(num_steps):
        rows = np.random.default_rng(t).permutation(target.data_size)[:10]
        yield pb.Batch(target.data.inputs[rows], target.data.targets[rows])


def test_the_notebooks_sgld_is_psgld_at_ten_n(notebook):
    """r ← βr + (1−β)g², s = h/(√r + 1e-9), θ ← θ + s·g + √(2s)·ξ, g of −objective; 20 steps."""
    size, target, objective_gradient = notebook
    h, beta = 5e-3, 0.9
    sampler = pb.psgld(
        target.value_and_grad_estimator,
        h,
        temperature=10 * size,
        decay=beta,
        damping=1e-9 * 10 * size,
        bias_correction=False,
    )
    theta = target.init(jax.random.key(0))
    r = jax.tree.map(jnp.zeros_like, theta)
    state, step = sampler.init(theta), jax.jit(sampler.step)

    @jax.jit
    def notebook_step(theta, r, g, xi):
        r = jax.tree.map(lambda r, g: beta * r + (1 - beta) * g**2, r, g)
        s = jax.tree.map(lambda r: h / (jnp.sqrt(r) + 1e-9), r)
        return jax.tree.map(
            lambda x, s, g, xi: x - s * g + jnp.sqrt(2 * s) * xi, theta, s, g, xi
        ), r

    keys = jax.random.split(jax.random.key(1), 20)
    for key, batch in zip(keys, batches(target, 20), strict=True):
        g = objective_gradient(theta, batch.inputs, batch.targets)
        theta, r = notebook_step(theta, r, g, noise_of(key, theta))
        state, _ = step(key, state, batch)
    jax.tree.map(partial(CLOSE, rtol=1e-3, atol=1e-3), state.position, theta)


def test_the_notebooks_rmsprop_is_map_with_rmsprop(notebook):
    """v ← γv + (1−γ)g², θ ← θ − η·g/√(v + 1e-8). Our loss is 10 × theirs, so ε is 100 × theirs."""
    _, target, objective_gradient = notebook
    theta = target.init(jax.random.key(0))
    settings = {"optimizer": "rmsprop", "eps": 1e-6, "step_size": 1e-3}
    optimiser = pb.METHODS["map"](**settings).build(target, num_warmup=0, batch_size=5)
    v = jax.tree.map(jnp.zeros_like, theta)
    state, step = optimiser.init(theta), jax.jit(optimiser.step)

    @jax.jit
    def notebook_step(theta, v, g):
        v = jax.tree.map(lambda v, g: 0.9 * v + 0.1 * g**2, v, g)
        return jax.tree.map(lambda x, v, g: x - 1e-3 * g / jnp.sqrt(v + 1e-8), theta, v, g), v

    for batch in batches(target, 20):
        g = objective_gradient(theta, batch.inputs, batch.targets)
        theta, v = notebook_step(theta, v, g)
        state, _ = step(jax.random.key(0), state, batch)
    jax.tree.map(CLOSE, state.position, theta)


# Positions and settings


def test_a_position_may_be_one_array_or_mix_dtypes():
    position = {"half": jnp.ones(3, jnp.bfloat16), "single": jnp.ones((2, 2)), "empty": {}}
    for gamma in (None, "hutchinson"):
        sampler = pb.psgld(skewed, 0.01, gamma=gamma, freeze_after=2)
        state, info = jax.jit(sampler.step)(jax.random.key(0), sampler.init(position), 1.0)
        dtypes = partial(jax.tree.map, lambda leaf: (leaf.dtype, leaf.shape))
        assert dtypes(state) == dtypes(sampler.init(position))
        assert np.isfinite(info.logdensity)
    scalar, _ = pb.psgld(skewed, 0.01).step(jax.random.key(0), psgld.init(jnp.array(1.0)), 1.0)
    assert scalar.position.shape == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.0}, "decay is 1.0; it must be at least 0 and less than 1"),
        ({"decay": -0.1}, "decay is -0.1"),
        ({"damping": 0.0}, "damping is 0.0; it must be positive and finite"),
        ({"damping": np.inf}, "damping is inf"),
        ({"damping": np.nan}, "damping is nan"),
        ({"gamma": "on"}, "gamma is 'on'; choose None, 'exact' or 'hutchinson'"),
        ({"freeze_after": 0}, "freeze_after is 0; the preconditioner needs at least one step"),
        ({"step_size": 0.0}, "step_size is 0.0; it must be positive and finite"),
        ({"step_size": np.nan}, "step_size is nan"),
        ({"temperature": -1.0}, "temperature is -1.0; it must be positive and finite"),
        ({"temperature": np.inf}, "temperature is inf"),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(pb.InputError, match=message):
        pb.psgld(skewed, **{"step_size": 0.1, **settings})


# Noise


@pytest.mark.parametrize("sizes", [(1,), (2,), (7,), (3, 4), (5, 1, 1000)])
def test_normals_are_the_inverse_cdf_of_one_threefry_stream(sizes):
    key, total = jax.random.key(3), sum(sizes)
    words = threefry_2x32(jax.random.key_data(key), jnp.arange(total + total % 2, dtype=jnp.uint32))
    exact = stats.norm.ppf(((np.asarray(words) >> 9) + 0.5) / 2**23)[:total]
    leaves = normal_like(key, [jnp.zeros(size, jnp.float32) for size in sizes])
    assert_allclose(np.concatenate(leaves), exact, rtol=2e-4, atol=1e-6)


def test_normals_are_standard_and_independent():
    """Kolmogorov–Smirnov at 1e-4, kurtosis and correlations at 4.5 σ: fails 1 in 5,000 times."""
    n = 100_000
    position = {"a": jnp.zeros(n), "b": jnp.zeros((n // 2, 2))}
    one, other = (normal_like(jax.random.key(seed), position) for seed in (0, 1))
    samples = np.array([leaf.ravel() for tree in (one, other) for leaf in tree.values()], float)
    for sample in samples:
        assert stats.kstest(sample, "norm").pvalue > 1e-4
        assert abs((sample**4).mean() - 3) < 4.5 * np.sqrt(96 / n)
        assert 4 < np.abs(sample).max() < 5.5
        assert abs(np.corrcoef(sample[1:], sample[:-1])[0, 1]) < 4.5 / np.sqrt(n)
    for x in (samples, samples**2):
        assert np.abs(np.corrcoef(x) - np.eye(4)).max() < 4.5 / np.sqrt(n)


def test_normals_of_vmapped_keys_are_those_of_each_key():
    keys, position = jax.random.split(jax.random.key(0), 3), {"a": jnp.zeros(5)}
    together = jax.vmap(lambda key: normal_like(key, position))(keys)["a"]
    assert_array_equal(together, [normal_like(key, position)["a"] for key in keys])
    assert len(np.unique(together)) == 15


def test_normals_for_other_dtypes_and_keys_come_from_jax():
    position = {"a": jnp.zeros(2000, jnp.bfloat16), "b": jnp.zeros(2000, jnp.float32)}
    rbg = normal_like(jax.random.key(0, impl="rbg"), {"b": jnp.zeros(2000)})
    mixed = normal_like(jax.random.key(0), position)
    assert {name: x.dtype for name, x in mixed.items()} == {"a": jnp.bfloat16, "b": jnp.float32}
    for sample in (*mixed.values(), rbg["b"]):
        assert abs(np.asarray(sample, float).std() - 1) < 0.08  # 5 σ
    assert abs(np.corrcoef(*(np.asarray(x, float) for x in mixed.values()))[0, 1]) < 0.11


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_leaves_of_other_dtypes_have_noise_of_their_own(dtype):
    """Correlation of 2,000 pairs at 5 σ: fails 6 in 10⁷ times."""
    with jax.enable_x64(True):
        position = {name: jnp.zeros(2_000, dtype) for name in ("a", "b")}
        one, other = normal_like(jax.random.key(0), position).values()
        assert one.dtype == other.dtype == dtype
        one, other = np.asarray(one, float), np.asarray(other, float)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.11
    if dtype == jnp.float64:  # with all of its digits
        assert (one != one.astype(np.float32)).mean() > 0.99


# Keys


@pytest.mark.parametrize("gamma", [None, "exact", "hutchinson"])
def test_no_key_is_used_twice_in_a_step(gamma):
    with jax.debug_key_reuse(True):
        sampler = pb.psgld(skewed, 0.01, gamma=gamma)
        jax.jit(sampler.step)(jax.random.key(0), sampler.init(START), 1.0)


def test_noise_and_probe_have_keys_of_their_own(monkeypatch):
    """The reuse checker does not see into `normal_like`, so the two keys are looked at here."""
    seen = []

    def record(rng_key, grad_fn, position):
        seen.append(rng_key)
        return jax.tree.map(jnp.zeros_like, position)

    monkeypatch.setitem(psgld._HESSIAN_DIAGONALS, "exact", record)
    monkeypatch.setattr(
        psgld, "normal_like", lambda key, position: seen.append(key) or normal_like(key, position)
    )
    key = jax.random.key(0)
    kernel = psgld.build_kernel(RMSPreconditioner(), "exact")
    kernel(key, psgld.init(START, "exact"), skewed, 1.0, 0.01)
    data = {tuple(np.asarray(jax.random.key_data(k)).tolist()) for k in (*seen, key)}
    assert len(seen) == 2
    assert len(data) == 3
