"""The chain runner: bookkeeping, randomness and guards, on kernels whose path is known."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from blackjax.base import SamplingAlgorithm
from helpers import Examples, new_run, run_kernel
from numpy.testing import assert_allclose, assert_array_equal

import probbnn as pb
from probbnn.inference import plan
from probbnn.inference.runner import DivergenceError, advance, finish, init_run
from probbnn.samplers.from_optax import optimizer

pytestmark = pytest.mark.usefixtures("quick_compilation")

DATA = jnp.arange(23.0)


class State(NamedTuple):
    position: Any
    step: jax.Array


class Info(NamedTuple):
    logdensity: jax.Array
    grad_norm: jax.Array


def kernel(move):
    """A kernel whose positions are ``move(rng_key, position, minibatch, step)``."""

    def init(position):
        return State(position, jnp.zeros((), jnp.int32))

    def step(rng_key, state, minibatch):
        position = move(rng_key, state.position, minibatch, state.step)
        total = jnp.asarray(jax.tree.leaves(state.position)[0], float).sum()
        return State(position, state.step + 1), Info(total, minibatch.inputs.sum())

    return SamplingAlgorithm(init, step)


WALK = kernel(lambda key, x, batch, t: x + jax.random.normal(key, x.shape) + batch.inputs.mean())
MINIBATCHES = kernel(lambda key, x, batch, t: (batch.inputs, batch.mask))
KEYS = kernel(lambda key, x, batch, t: jax.random.key_data(key))


def run(algorithm, positions, seed=0, data=DATA, **settings):
    settings = {"batch_size": 5, "num_steps": 40, **settings}
    return run_kernel(jax.random.key(seed), algorithm, Examples(data), positions, **settings)


def minibatches_of(num_chains=2, data_size=23, **settings):
    """Indices of the examples that each chain saw, (chain, step, b), and their masks."""
    b = settings.get("batch_size", 5)
    start = jnp.zeros((num_chains, b)), jnp.zeros((num_chains, b), bool)
    data = jnp.arange(float(data_size))
    return run(MINIBATCHES, start, data=data, **settings)[0].positions


START = jnp.zeros((3, 2))


@pytest.fixture(scope="module")
def walk():
    """Three random walks of 40 steps, every position kept."""
    return run(WALK, START)[0]


# How a run is cut has no influence on it


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_CHUNK_STEPS", 7),
        ("_CHUNK_SECONDS", 0.0),
    ],
)
def test_chunks_do_not_change_a_bit(monkeypatch, name, value, walk):
    monkeypatch.setattr(plan, name, value)
    result, state = run(WALK, START, num_warmup=5, thinning=3)
    # 35 steps after warm-up make 11 draws; two steps are left over.
    assert_array_equal(result.draw_steps, 5 + 3 * np.arange(1, 12))
    assert_array_equal(result.positions, walk.positions[:, result.draw_steps - 1])
    jax.tree.map(assert_array_equal, result.trace, walk.trace)
    assert_array_equal(state.positions, walk.positions[:, -1])
    assert state.clock.step == 40


@pytest.mark.parametrize(
    ("num_steps", "num_warmup", "thinning", "draw_steps"),
    [
        (40, 39, 1, [40]),
        (40, 0, 40, [40]),
        (38, 10, 9, [19, 28, 37]),
    ],
)
def test_draws_are_the_positions_after_their_steps(
    num_steps, num_warmup, thinning, draw_steps, walk
):
    result, _ = run(WALK, START, num_steps=num_steps, num_warmup=num_warmup, thinning=thinning)
    assert_array_equal(result.draw_steps, draw_steps)
    assert_array_equal(result.positions, walk.positions[:, result.draw_steps - 1])
    assert result.trace["logdensity"].shape == (3, num_steps)


def test_the_trace_holds_what_each_step_saw(walk):
    assert_allclose(walk.trace["logdensity"][:, 0], 0)
    assert_allclose(walk.trace["logdensity"][:, 1:], walk.positions[:, :-1].sum(axis=-1), rtol=1e-5)


def test_the_callers_arrays_are_left_alone():
    positions = {"x": jnp.ones((2, 3)), "y": np.ones((2, 1), np.float32)}
    double = kernel(lambda key, x, batch, t: jax.tree.map(lambda leaf: 2 * leaf, x))
    result, _ = run(double, positions, num_steps=3)
    jax.tree.map(lambda leaf: assert_array_equal(leaf, 1), positions)
    assert_array_equal(result.positions["x"][..., 0], [[2, 4, 8]] * 2)
    assert_array_equal(DATA, np.arange(23))


# Randomness


def test_a_key_fixes_everything_and_chains_differ(walk):
    again, _ = run(WALK, START)
    assert_array_equal(again.positions, walk.positions)
    assert (run(WALK, START, seed=1)[0].positions != walk.positions).all()
    assert len(np.unique(walk.positions[:, 0])) == START.size


def test_no_two_steps_chains_or_streams_share_a_key():
    result, state = run(KEYS, jnp.zeros((3, 2), jnp.uint32))
    streams = jax.random.key_data(state.stream.rng_key)
    epochs = jax.vmap(lambda key: jax.vmap(lambda e: jax.random.fold_in(key, e))(jnp.arange(8)))(
        state.stream.rng_key
    )
    used = [result.positions, jax.random.key_data(state.rng_key), streams]
    used.append(jax.random.key_data(epochs))
    keys = np.concatenate([np.asarray(x).reshape(-1, 2) for x in used])
    assert len(np.unique(keys, axis=0)) == len(keys) == 3 * (40 + 1 + 1 + 8)


def test_each_chain_draws_its_own_minibatches():
    """Correlation of 20,000 indices between chains: σ = 0.007; fails 7 in 10⁶ times."""
    inputs, _ = minibatches_of(data_size=500, batch_size=50, num_steps=400)
    assert abs(np.corrcoef(inputs.reshape(2, -1))[0, 1]) < 4.5 * 0.0071
    assert (inputs[0] == inputs[1]).mean() < 0.01


def test_shared_minibatches_are_shared():
    inputs, masks = minibatches_of(shared_minibatches=True)
    assert_array_equal(inputs[0], inputs[1])
    # Still epochs: each example once in every five minibatches of five.
    assert_array_equal(masks.sum(axis=2), [[5, 5, 5, 5, 3] * 8] * 2)
    for epoch, mask in zip(inputs[0].reshape(8, 25), masks[0].reshape(8, 25), strict=True):
        assert_array_equal(np.sort(epoch[mask]), np.arange(23))


@pytest.mark.parametrize("shared", [False, True])
def test_optimisers_from_one_start_stay_together_only_with_shared_minibatches(target, shared):
    position = target.init(jax.random.key(0))
    descent = optimizer(target.value_and_grad_estimator, optax.sgd(0.1), target.data_size)
    result, _ = run_kernel(
        jax.random.key(1),
        descent,
        target,
        jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), position),
        batch_size=5,
        num_steps=4,
        shared_minibatches=shared,
    )
    kernels = result.positions["Dense_1"]["kernel"]
    assert (np.ptp(kernels, axis=0).max() == 0) == shared


@pytest.mark.parametrize(("shared", "low", "high"), [(False, -0.2, 0.2), (True, 0.7, 1.0)])
def test_sharing_minibatches_correlates_chains(shared, low, high):
    """Conjugate Gaussian mean, minibatch noise above the Langevin noise: 2 chains × 4,000 steps.

    About 1,300 independent pairs, σ = 0.03 where chains are independent: fails below 1 in 10⁹.
    """
    data = jnp.array(np.random.default_rng(0).normal(size=200), jnp.float32)

    def gaussian(theta, batch):
        scale = 200 / batch.mask.sum()
        return 0.0, -theta + scale * jnp.sum(jnp.where(batch.mask, batch.inputs - theta, 0))

    result, _ = run(
        pb.sgld(gaussian, 3e-3), jnp.zeros(2), data=data, num_steps=4000, shared_minibatches=shared
    )
    assert low < np.corrcoef(result.positions[:, 100:])[0, 1] < high


# Chains that leave the finite numbers


def jumping(steps):
    """Chain c jumps to NaN in step ``steps[c]``, so that the step after sees it."""
    steps = jnp.array(steps)
    return kernel(lambda key, x, batch, t: jnp.where(t == steps[x.astype(int)], jnp.nan, x))


def test_a_diverging_chain_is_reported_by_chain_and_step(monkeypatch):
    monkeypatch.setattr(plan, "_CHUNK_STEPS", 4)
    with pytest.raises(DivergenceError) as caught:
        run(jumping([99, 13, 99]), jnp.arange(3.0))
    error = caught.value
    assert_array_equal(error.steps, [-1, 14, -1])
    assert "1 of 3 chains became non-finite (chain 1 at step 14); try a smaller" in str(error)
    # What all chains kept before that step is there.
    assert_array_equal(error.draws.draw_steps, np.arange(1, 14))
    assert_array_equal(error.draws.positions, np.repeat([[0.0], [1], [2]], 13, axis=1))
    assert error.draws.trace["logdensity"].shape[0] == 3


def test_many_diverging_chains_are_summed_up():
    with pytest.raises(DivergenceError, match=r"8 of 8 .*chain 4 at step 3 and 3 more\)"):
        run(jumping([2] * 8), jnp.arange(8.0))


@pytest.fixture(scope="module")
def bad_start():
    with pytest.raises(DivergenceError) as caught:
        run(WALK, jnp.array([[0.0], [np.nan]]))
    return caught.value


def test_a_start_that_is_not_finite_is_reported_at_step_zero(bad_start):
    assert "1 of 2 chains became non-finite (chain 1 at step 0)" in str(bad_start)
    assert_array_equal(bad_start.steps, [-1, 0])


def test_divergence_at_the_start_gives_no_draws(bad_start):
    assert bad_start.draws.positions.shape == (2, 0, 1)
    assert len(bad_start.draws.draw_steps) == 0


def test_divergence_in_the_last_step_is_reported():
    with pytest.raises(DivergenceError):
        run(jumping([99, 39, 99]), jnp.arange(3.0))


# Numbers that do not fit


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0 and thinning 1; both must be at least 1"),
        ({"thinning": 0}, "num_steps is 40 and thinning 0"),
        ({"num_warmup": -1}, "num_warmup is -1 of 40 steps .* so it can be 0 to 39"),
        ({"num_warmup": 40}, "num_warmup is 40 .* must\\s+leave at least one draw"),
        ({"num_warmup": 31, "thinning": 10}, "so it can be 0 to 30"),
        ({"batch_size": 24}, "batch_size is 24 and the data have 23 examples"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 24, "shared_minibatches": True}, "batch_size is 24"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(pb.InputError, match=message):
        run(WALK, START, **settings)


# A run is its state


def test_a_run_goes_on_from_any_of_its_states(walk):
    """The state leaves the device and comes back on the way."""
    run = new_run(WALK, Examples(DATA), batch_size=5, num_steps=40)
    state = init_run(jax.random.key(0), run, START)
    while not run.is_finished(state):
        state = advance(run, jax.tree.map(jnp.copy, state))
    draws = finish(run, state)
    assert_array_equal(draws.positions, walk.positions)
    jax.tree.map(assert_array_equal, draws.trace, walk.trace)


def test_what_is_kept_by_now_can_be_looked_at(monkeypatch, walk):
    monkeypatch.setattr(plan, "_CHUNK_STEPS", 7)
    run = new_run(WALK, Examples(DATA), batch_size=5, num_steps=40)
    state = init_run(jax.random.key(0), run, START)
    assert finish(run, state).num_draws == 0
    while not run.is_finished(state):
        state = advance(run, state)
        step = int(state.clock.step)
        draws = finish(run, state)
        assert_array_equal(draws.positions, walk.positions[:, :step])
        assert_array_equal(draws.trace["logdensity"], walk.trace["logdensity"][:, :step])
        assert_array_equal(draws.trace_steps, np.arange(1, step + 1))
        assert_array_equal(draws.draw_steps, np.arange(1, step + 1))


@pytest.mark.parametrize("shared", [False, True])
def test_threads_give_what_a_batch_of_chains_gives(shared):
    """Up to rounding: the two programs are compiled differently."""
    settings = {"num_warmup": 5, "thinning": 3, "shared_minibatches": shared}
    vectorized, last = run(WALK, START, **settings)
    parallel, state = run(WALK, START, chain_method="parallel", **settings)
    assert_allclose(parallel.positions, vectorized.positions, rtol=1e-5)
    assert_allclose(parallel.trace["logdensity"], vectorized.trace["logdensity"], rtol=1e-4)
    assert jax.tree.structure(state) == jax.tree.structure(last)
    for one, other in zip(jax.tree.leaves(state[:6]), jax.tree.leaves(last[:6]), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


def test_a_long_trace_is_thinned_as_it_is_recorded():
    every, _ = run(WALK, START, num_steps=1_000, num_warmup=999)
    fourth, _ = run(WALK, START, num_steps=2_500, num_warmup=999, thinning=100)
    assert_array_equal(every.trace_steps, np.arange(1, 1_001))
    assert_array_equal(fourth.trace_steps, np.arange(1, 2_501, 4))
    same = fourth.trace_steps <= 1_000
    assert_array_equal(
        fourth.trace["logdensity"][:, same],
        every.trace["logdensity"][:, fourth.trace_steps[same] - 1],
    )


# Warm-up and what it leaves


class Tuned(NamedTuple):
    position: jax.Array
    size: jax.Array
    tuning: Any


def adaptive():
    """Steps of 1 in warm-up, which count themselves; then steps as large as that count."""

    def init(position, rng_key=None):
        return Tuned(position, jnp.zeros(()), jnp.zeros(()))

    def adapt(rng_key, state, batch):
        moved = state._replace(position=state.position + 1, tuning=state.tuning + 1)
        return moved, Info(state.position.sum(), jnp.zeros(()))

    def settle(state):
        return Tuned(state.position, state.tuning, ())

    def step(rng_key, state, batch):
        return state._replace(position=state.position + state.size), Info(
            state.position.sum(), jnp.zeros(())
        )

    return pb.Kernel(init, step, adapt, settle)


@pytest.mark.parametrize("chain_method", ["vectorized", "parallel"])
def test_warm_up_adapts_and_then_settles(chain_method):
    draws, state = run(
        adaptive(), jnp.arange(2.0), num_steps=9, num_warmup=6, chain_method=chain_method
    )
    assert_array_equal(draws.positions, [[12, 18, 24], [13, 19, 25]])
    assert_array_equal(draws.trace["logdensity"][0], [0, 1, 2, 3, 4, 5, 6, 12, 18])
    assert state.kernel.tuning == ()


def test_without_warm_up_it_settles_at_the_start():
    draws, _ = run(adaptive(), jnp.arange(2.0), num_steps=3)
    assert_array_equal(draws.positions, [[0, 0, 0], [1, 1, 1]])
