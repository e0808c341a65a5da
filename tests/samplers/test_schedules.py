"""Cyclical step sizes: the schedule of the paper, silence while exploring, draws after it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from stationary import skewed

import probbnn as pb
from probbnn.samplers.from_blackjax import sgnht

pytestmark = pytest.mark.usefixtures("quick_compilation")

FACTORIES = {"sgld": pb.sgld, "psgld": pb.psgld, "sghmc": pb.sghmc, "sgnht": sgnht}
LENGTHS = [(10, 0.8), (10, 0.64), (7, 0.0), (12, 0.25), (30, 0.1), (100, 0.5), (2, 0.5)]


# The schedule


@pytest.mark.parametrize(("total", "cycles"), [(1_000, 4), (1_000, 3), (90, 1)])
def test_step_sizes_are_the_papers(total, cycles):
    """Eq. 1: α_k = α₀/2·[cos(π·mod(k−1, ⌈K/M⌉)/⌈K/M⌉) + 1] for k = 1 … K, here at step k − 1."""
    length = -(-total // cycles)
    k = np.arange(1, total + 1)
    alpha = 0.3 / 2 * (np.cos(np.pi * ((k - 1) % length) / length) + 1)
    schedule = pb.Cyclical(0.3, length)
    assert_allclose(schedule(jnp.arange(total)), alpha, rtol=1e-5, atol=1e-7)
    assert_allclose(jax.jit(schedule)(jnp.int32(length)), 0.3)
    assert (np.asarray(schedule(jnp.arange(total))) > 0).all()


@pytest.mark.parametrize(("length", "exploration"), LENGTHS)
def test_phases_are_the_steps_that_sample(length, exploration):
    """Algorithm 1: explore while mod(k−1, L)/L < β."""
    schedule, steps = pb.Cyclical(0.1, length, exploration), np.arange(3 * length)
    sampling = steps[(steps % length) / length >= exploration]
    assert_array_equal(steps[np.asarray(schedule.is_sampling(jnp.asarray(steps)))], sampling)
    for num_steps in range(1, 3 * length):
        phases = [np.arange(*phase) for phase in schedule.sampling_phases(num_steps)]
        assert_array_equal(np.concatenate([[], *phases]), sampling[sampling < num_steps])


def test_every_cycle_samples_at_least_once():
    assert list(pb.Cyclical(0.1, 10, 0.999).sampling_phases(25)) == [(9, 10), (19, 20)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(
            ({"peak": value}, f"peak is {value}; a step size must be positive and finite")
            for value in (0.0, -0.1, np.nan, np.inf)
        ),
        ({"cycle_length": 1}, "cycle_length is 1; it must be a whole number, at least 2"),
        ({"cycle_length": 10.5}, "cycle_length is 10.5"),
        ({"cycle_length": np.nan}, "cycle_length is nan"),
        ({"cycle_length": 0}, "cycle_length is 0"),
        *(
            ({"exploration": value}, f"exploration is {value}; it must be at least 0 and less than")
            for value in (1.0, -0.1, np.nan)
        ),
    ],
)
def test_settings_outside_their_range_are_refused(settings, message):
    with pytest.raises(pb.InputError, match=message) as caught:
        pb.Cyclical(**{"peak": 0.1, "cycle_length": 10, **settings})
    assert "\n" not in str(caught.value)


# Kernels on it


SCHEDULE = pb.Cyclical(0.02, 6, 0.5)  # explores in steps 0, 1, 2 and 6, 7, 8


def path(kernel, state, keys):
    """The state before each step, and the last one: leaves (step + 1, …)."""
    states = [state]
    step = jax.jit(kernel.step)
    for key in keys:
        states.append(step(key, states[-1], 1.5)[0])
    return states


@pytest.mark.parametrize("name", FACTORIES)
def test_there_is_noise_only_while_sampling(name):
    """Two keys, one start: in one state until the first step that samples.

    From there on each step is that of the same kernel with the step size and the temperature T
    that the schedule says; and of the kernel with T next to nothing in the next exploration.
    """
    start, temperature = jnp.array([0.5, -1.0, 2.0]), 4.0
    kernel = FACTORIES[name](skewed, SCHEDULE, temperature)
    paths = [
        path(kernel, kernel.init(start), jax.random.split(jax.random.key(seed), 8))
        for seed in (0, 1)
    ]
    together = [
        all(jax.tree.leaves(jax.tree.map(np.array_equal, *(states[t] for states in paths))))
        for t in range(9)
    ]
    assert together == [True] * 4 + [False] * 5
    step = {
        t: jax.jit(FACTORIES[name](skewed, lambda step: SCHEDULE(step), t).step)
        for t in (temperature, 1e-20)
    }
    keys = jax.random.split(jax.random.key(0), 8)
    for t, (before, after) in enumerate(zip(paths[0], paths[0][1:], strict=False)):
        expected, _ = step[temperature if SCHEDULE.is_sampling(t) else 1e-20](keys[t], before, 1.5)
        jax.tree.map(lambda x, y: assert_allclose(x, y, rtol=1e-6, atol=1e-7), after, expected)


# Draws


def sample(target, method="sgld", schedule=None, **settings):
    schedule = pb.Cyclical(1e-4, 10, 0.6) if schedule is None else schedule
    settings = {"num_chains": 2, "num_steps": 35, "batch_size": 23, "progress": False, **settings}
    return pb.sample(jax.random.key(0), target, method, step_size=schedule, **settings)


@pytest.fixture(scope="module")
def every_draw(linear_regression):
    """All that can be kept of 35 steps, and the positions after each of them."""
    seen = []
    draws = sample(
        linear_regression,
        num_warmup=0,
        thinning=1,
        callback=lambda step, positions: seen.append(np.array(positions)),
        callback_steps=range(1, 36),
    )
    return draws, np.stack(seen, axis=1)


def test_draws_are_the_positions_of_the_sampling_phases(every_draw):
    """Steps 6 to 9 of each ten sample: the positions after 7 to 10, 17 to 20, 27 to 30."""
    draws, seen = every_draw
    steps = np.array([7, 8, 9, 10, 17, 18, 19, 20, 27, 28, 29, 30])
    assert_array_equal(draws.draw_steps, steps)
    assert_array_equal(draws.positions, seen[:, steps - 1])
    h = np.asarray(pb.Cyclical(1e-4, 10)(jnp.arange(35)))
    assert_allclose(draws.trace["step_size"], [h, h], rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "draw_steps"),
    [
        ({"thinning": 2}, [19, 28, 30]),  # half the steps, 17, are warm-up
        ({"num_warmup": 0, "thinning": 3}, [9, 19, 29]),
        ({"num_warmup": 8, "thinning": 1, "num_steps": 18}, [9, 10, 17, 18]),
        ({"num_warmup": 9, "thinning": 2, "num_steps": 18}, [18]),
        ({"num_warmup": 25}, [27, 28, 29, 30]),
    ],
)
def test_thinning_and_warm_up_within_the_phases(
    linear_regression, every_draw, settings, draw_steps
):
    draws = sample(linear_regression, **settings)
    assert_array_equal(draws.draw_steps, draw_steps)
    assert_array_equal(draws.positions, every_draw[1][:, np.array(draw_steps) - 1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 6, "num_warmup": 0}, "no phase of 6 steps samples for 1 steps"),
        ({"num_warmup": 30}, "samples for 1 steps, one draw's worth, after a warm-up of 30; take"),
        ({"thinning": 5}, "no phase of 35 steps samples for 5 steps"),
    ],
)
def test_a_run_that_keeps_nothing_is_refused(linear_regression, settings, message):
    with pytest.raises(pb.InputError, match=message) as caught:
        sample(linear_regression, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["psgld", "sghmc", "sgnht", "map"])
def test_methods_take_it_and_say_so(linear_regression, method):
    """Optimisers too, which have no noise to turn off: they keep their last step as ever."""
    num_chains = 1 if method == "map" else 2
    draws = sample(linear_regression, method, num_chains=num_chains)
    assert_array_equal(
        draws.draw_steps, [35] if method == "map" else [*range(18, 21), *range(27, 31)]
    )
    assert draws.settings["step_size"] == pb.Cyclical(1e-4, 10, 0.6)
    assert np.isfinite(draws.positions).all()
