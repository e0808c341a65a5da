"""Full-data samplers and fits on a conjugate linear regression, whose posterior has a closed form.

Runs are from fixed keys. Moments are judged by `stationary.check`: 4.5 standard errors, from the
spread between the chains, fit into each tolerance. By chance a moment fails at most 2 times in 10⁵
with 100 chains and 4 times in 10⁵ with 60 (Student's t), had a key not been fixed where it passes.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import stationary
from numpy.testing import assert_allclose, assert_array_equal

import probbnn as pb

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_EXAMPLES, NOISE = 100, 2.0


def _data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_EXAMPLES, 2)) @ np.array([[1.0, 0.6], [0.0, 0.8]])
    y = x @ [1.0, -2.0] + NOISE * rng.normal(size=NUM_EXAMPLES)
    return x.astype(np.float32), y.astype(np.float32)


X, Y = _data()
PRECISION = X.T.astype(float) @ X / NOISE**2 + np.eye(2)
COVARIANCE = np.linalg.inv(PRECISION)  # correlation −0.64
MODE = COVARIANCE @ X.T.astype(float) @ Y / NOISE**2
POSTERIOR = stationary.Moments(MODE, COVARIANCE)
# What independent coordinates fit best, and what the Hessian's diagonal says: 0.58 times as wide.
INDEPENDENT = stationary.Moments(MODE, np.diag(1 / np.diag(PRECISION)))


def linear(apply=lambda theta, inputs: inputs @ theta, **settings):
    """θ is a matrix, so that it is a layer which Laplace takes for the last."""
    init = lambda key, inputs: 0.5 * jax.random.normal(key, (2, 1))  # noqa: E731
    return pb.LogDensity((init, apply), (X, Y), likelihood=pb.Gaussian(NOISE), **settings)


TARGET = linear()


def decaying(num_steps):
    return {"num_steps": num_steps, "step_size": optax.cosine_decay_schedule(0.05, num_steps)}


MCMC = {
    "nuts": {"num_steps": 500, "num_warmup": 200},
    "numpyro_nuts": {"num_steps": 500, "num_warmup": 200},
    "mclmc": {"num_steps": 3_000, "num_warmup": 1_000},
    "hmcecs": {
        "num_steps": 400,
        "num_warmup": 100,
        "batch_size": 50,
        "num_blocks": 5,
        "map_steps": 300,
    },
}
FITS = {
    # Step sizes are the defaults: with them the width must come out right, not only the middle.
    "svi": {"num_steps": 3_000},
    "svi_low_rank": {"num_steps": 3_000},
    "laplace": {"num_steps": 1_000},
    "laplace_diagonal": {"num_steps": 1_000},
}
NUTS = ("nuts", "numpyro_nuts")
# Method: its distribution, the tolerance, and how much of a bias it is granted beside it.
EXPECTED = {
    "nuts": (POSTERIOR, 0.09, 0.0),
    "numpyro_nuts": (POSTERIOR, 0.09, 0.0),
    # No Metropolis test: its bias at the default energy error is below 1 % here.
    "mclmc": (POSTERIOR, 0.05, 0.01),
    # Integrating over minibatches of 50 gives a distribution that is 1.5 % wider.
    "hmcecs": (POSTERIOR, 0.1, 0.02),
    # One draw of the bound's gradient a step leaves the fit itself a little off.
    "svi": (INDEPENDENT, 0.06, 0.01),
    "svi_low_rank": (POSTERIOR, 0.06, 0.01),
    "laplace": (POSTERIOR, 0.05, 0.0),
    "laplace_diagonal": (INDEPENDENT, 0.05, 0.0),
}


@cache
def run(name, thinning=None):
    """Chains that all start at 0, thinned where a test says so."""
    settings = MCMC.get(name) or {**FITS[name], "num_draws": 400}
    num_chains = 60 if name.startswith(("laplace", "hmcecs")) else 100
    return pb.sample(
        jax.random.key(0),
        TARGET,
        name,
        num_chains=num_chains,
        thinning=thinning or 1,
        initial_positions=np.zeros((num_chains, 2, 1), np.float32),
        progress=False,
        **settings,
    )


def short(target, name, *, num_chains=2, num_steps=24, num_warmup=20, seed=0, **settings):
    return pb.sample(
        jax.random.key(seed),
        target,
        name,
        num_chains=num_chains,
        num_steps=num_steps,
        num_warmup=num_warmup,
        progress=False,
        **settings,
    )


# What they sample


def test_the_registry_has_no_other_full_data_method_or_fit():
    kernels = {"map", "ensemble", "sgld", "psgld", "sghmc", "blackjax_sghmc", "sgnht"}
    assert set(pb.METHODS) - kernels == {*MCMC, *FITS} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_means_and_covariances_are_those_of_the_closed_form(name):
    law, tolerance, allowance = EXPECTED[name]
    draws = run(name)
    # MCLMC's draws are correlated over some ten steps: all of them, but no more worth for it.
    sample = stationary.Sample(draws.positions[..., 0].astype(float), None, None)
    stationary.check(stationary.compare(sample, law), tolerance, allowance)
    assert draws.temperature == 1.0


@pytest.mark.parametrize("name", [*NUTS, "svi_low_rank", "laplace"])
def test_the_log_density_beside_a_draw_is_its_own(name):
    draws = run(name)
    exact = jax.jit(jax.vmap(TARGET.logdensity_fn))(draws.positions[:, -1])
    assert_allclose(draws.sample_stats["logdensity"][:, -1], exact, rtol=1e-5)


def test_laplace_in_the_last_layer_is_exact_around_features_that_stay(values):
    """Given the first layer, the last one is a linear regression on its outputs."""
    target = pb.LogDensity(
        pb.MLP(hidden=(3,), num_outputs=1, activation="tanh"),
        values,
        likelihood=pb.Gaussian(0.3),
        prior_scale=0.7,
    )
    draws = short(target, "laplace", num_draws=20_000, **decaying(2_000))
    for chain in range(2):
        first, last = (
            jax.tree.map(lambda leaf, c=chain: leaf[c].astype(float), draws.positions[layer])
            for layer in ("Dense_0", "Dense_1")
        )
        for leaf in jax.tree.leaves(first):
            assert_array_equal(leaf, np.broadcast_to(leaf[0], leaf.shape))
        features = np.tanh(values[0] @ first["kernel"][0] + first["bias"][0])
        features = np.column_stack([np.ones(len(features)), features])
        covariance = np.linalg.inv(features.T @ features / 0.3**2 + np.eye(4) / 0.7**2)
        theta = np.column_stack([last["bias"], last["kernel"][..., 0]])
        # Whitened, the draws have the unit matrix: 4.5 standard errors, 7 in 10⁶ times each.
        root = np.linalg.inv(np.linalg.cholesky(covariance))
        assert_allclose(root @ np.cov(theta.T) @ root.T, np.eye(4), atol=4.5 * (2 / 20_000) ** 0.5)
    assert not np.allclose(*draws.positions["Dense_0"]["kernel"][:, 0])  # two modes


def test_a_saddle_has_no_laplace_approximation():
    """−log density curves down at θ = 0, which NumPyro answers with draws that do not vary."""
    sign = np.sign(Y.sum())
    saddle = linear(lambda theta, inputs: 0 * inputs @ theta + sign * 9 * theta[0, 0] ** 2)
    with pytest.raises(pb.DivergenceError, match=r"1 of 2 chains .*\(chain 1 "):
        short(
            saddle,
            "laplace_diagonal",
            step_size=1e-9,
            initial_positions=np.stack([np.full((2, 1), 0.3), np.zeros((2, 1))]).astype(np.float32),
            num_draws=5,
            on_divergence="stop",
        )


# Keys, chains, thinning, starts


@pytest.mark.parametrize("name", EXPECTED)
def test_every_chain_has_its_own_randomness(name):
    """All start at the same place."""
    positions = run(name).positions
    for draw in (0, -1):
        # NumPyro's NUTS or HMCECS may stay where it is, but not for the whole warm-up.
        assert len(np.unique(positions[:, draw], axis=0)) == len(positions)


@pytest.mark.parametrize(
    "name", ["nuts", *(pytest.param(n, marks=pytest.mark.slow) for n in MCMC if n != "nuts")]
)
def test_thinning_keeps_every_third_draw_of_the_same_chain(name):
    """Which is only so if the same key gives the same chain."""
    every, third = run(name), run(name, thinning=3)
    num_draws = every.num_draws // 3
    assert third.num_draws == num_draws
    assert_array_equal(third.positions, every.positions[:, 2::3][:, :num_draws])
    assert third.passes[-1] <= every.passes[-1]
    assert_allclose(third.passes, every.passes[2::3][:num_draws], rtol=1e-6)
    for stat, values in every.sample_stats.items():
        assert_array_equal(third.sample_stats[stat], values[:, 2::3][:, :num_draws])


@pytest.mark.parametrize("name", ["svi", pytest.param("laplace", marks=pytest.mark.slow)])
def test_the_same_key_gives_the_same_fit_and_draws(name):
    one, again = (short(TARGET, name, num_draws=3, batch_size=10).positions for _ in range(2))
    assert_array_equal(one, again)


SHALLOW = {"max_tree_depth": 1, "target_acceptance_rate": 0.99}
FAR = np.stack([np.full((2, 1), 1e3), MODE[:, None]]).astype(np.float32)


@pytest.mark.parametrize("name", NUTS)
def test_nuts_starts_where_it_is_told_to(name):
    """Twenty steps of two small leapfrogs do not bring it back; uniform(−2, 2) is near the mode."""
    positions = short(TARGET, name, initial_positions=FAR, **SHALLOW).positions
    distance = np.linalg.norm(positions[..., 0] - MODE, axis=-1)
    assert (distance[0] > 500).all()
    assert (distance[1] < 3).all()


@pytest.mark.parametrize("name", ["svi", "laplace"])
def test_fits_start_where_they_are_told_to(name):
    scale = {"init_scale": 1e-3} if name.startswith("svi") else {}
    positions = short(
        TARGET, name, initial_positions=FAR, num_steps=1, num_warmup=0, step_size=1e-6, **scale
    ).positions
    # Laplace draws around its estimate with the posterior's own width, 0.3.
    assert_allclose(positions, np.broadcast_to(FAR[:, None], positions.shape), atol=1.5)


@pytest.mark.parametrize("name", NUTS)
def test_both_ways_to_map_chains_run_on_one_target(name):
    for chain_method in ("vectorized", "parallel"):
        draws = short(TARGET, name, chain_method=chain_method, **SHALLOW)
        assert draws.num_draws == 4


# Passes


def gradient_counter():
    """`TARGET`, and a list to which each example's gradient adds itself as it is computed."""
    seen = []

    @jax.custom_vjp
    def apply(theta, inputs):
        return inputs @ theta

    def backward(inputs, pulled):
        jax.debug.callback(lambda: seen.append(len(inputs)))
        return inputs.T @ pulled, jnp.zeros_like(inputs)

    apply.defvjp(lambda theta, inputs: (inputs @ theta, inputs), backward)
    return linear(apply), seen


@pytest.mark.parametrize(
    ("name", "settings", "uncounted"),
    [
        # At most two gradients of each of the two chains, at their start, are nobody's.
        ("nuts", {"num_warmup": 40, "num_steps": 60}, (0, 4)),
        ("numpyro_nuts", {"num_warmup": 40, "num_steps": 60}, (0, 4)),
        ("mclmc", {"num_warmup": 60, "num_steps": 80}, (0, 4)),
        ("svi", {"batch_size": 20, "chain_method": "parallel"}, (0, 0.8)),
        # A product with each of two columns of the Hessian, counted as two gradients, is seen once.
        ("laplace", {"batch_size": 20, "chain_method": "parallel"}, (-4, -1.6)),
    ],
)
def test_passes_are_the_gradients_that_were_computed(name, settings, uncounted):
    """Counted where the network is differentiated, warm-up and all chains included."""
    target, seen = gradient_counter()
    passes = short(target, name, **settings).passes
    jax.effects_barrier()
    least, most = uncounted
    # NumPyro is set up with one example in each step of SVI: compiled away where nothing counts it.
    counted = sum(size for size in seen if size > 1)
    assert least - 1e-6 <= counted / NUM_EXAMPLES - passes[-1] <= most


@pytest.mark.parametrize("name", NUTS)
def test_passes_of_nuts_grow_by_its_leapfrog_steps(name):
    draws = run(name)
    steps = draws.sample_stats["n_steps"].sum(axis=0)
    assert_allclose(np.diff(draws.passes), steps[1:])
    # At least one gradient in each of the 200 steps of warm-up, and trees that are no deeper.
    warm_up = (draws.passes[0] - steps[0]) / (100 * 200)
    assert 1 <= warm_up <= 5 * steps.mean() / 100


@pytest.mark.slow
def test_passes_of_mclmc_are_two_a_step():
    draws = run("mclmc")
    assert_allclose(draws.passes, 100 * 2 * np.arange(1_001, 3_001))


def test_passes_of_hmcecs_are_of_its_minibatches():
    """The exchanged block, the estimate and the gradients; before, the MAP estimate and proxy."""
    draws = run("hmcecs")
    steps = draws.sample_stats["n_steps"].sum(axis=0)
    per_step = 0.5 * steps + 60 * (0.5 + 0.5 / 5)
    assert_allclose(np.diff(draws.passes), per_step[1:], rtol=1e-3)
    start = 60 * (300 * 0.5 + 2)
    assert draws.passes[0] - start > 60 * 100 * (0.5 + 0.5 + 0.1)


def test_passes_of_svi_are_steps_times_batch_over_n():
    passes = short(TARGET, "svi", num_draws=3, batch_size=10).passes
    assert_allclose(passes, np.full(3, 2 * 24 * 10 / NUM_EXAMPLES))


# Settings, one line each


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        *((name, {"batch_size": 10}, f"batch_size is 10 for {name}") for name in (*NUTS, "mclmc")),
        *((name, {"num_warmup": 19}, "num_warmup is 19; .* at least 20") for name in MCMC),
        *(
            (name, {"shared_minibatches": True}, f"shared_minibatches is True for {name}, which")
            for name in (*NUTS, "mclmc")
        ),
        ("svi", {"guide": "ful"}, "unknown guide 'ful'; expected one of normal, low_rank"),
        ("svi", {"init_scale": 0.0}, "init_scale is 0.0; it must be positive and finite"),
        ("svi", {"num_draws": 0}, "num_draws is 0; it must be positive and finite"),
        ("svi", {"step_size": -1.0}, "step_size is -1.0"),
        ("svi", {"batch_size": 101}, "batch_size is 101 and the data have 100 examples"),
        ("svi", {"temperature": 2.0}, "unknown setting of svi 'temperature'"),
        ("laplace", {"covariance": "full"}, "unknown covariance 'full'"),
        ("laplace", {"num_draws": -1}, "num_draws is -1"),
        *(
            (name, {"target_acceptance_rate": rate}, f"target_acceptance_rate is {rate}; ")
            for name in (*NUTS, "hmcecs")
            for rate in (0.0, 1.0, -0.5, 80, np.nan)
        ),
        *((name, {"max_tree_depth": 0}, "max_tree_depth is 0") for name in (*NUTS, "hmcecs")),
        ("mclmc", {"desired_energy_var": 0.0}, "desired_energy_var is 0.0; it must be positive"),
        ("hmcecs", {"batch_size": 100}, "batch_size is 100 of 100 .* needs fewer"),
        ("hmcecs", {}, "batch_size is 100 of 100 .* needs fewer"),
        ("hmcecs", {"batch_size": 10, "num_blocks": 0}, "num_blocks is 0 and"),
        ("hmcecs", {"batch_size": 10, "num_blocks": 11}, "num_blocks is 11; hmcecs needs"),
        ("hmcecs", {"batch_size": 10, "map_steps": -1}, "map_steps is -1; "),
    ],
)
def test_settings_that_do_not_fit_are_one_line(name, settings, message):
    with pytest.raises(pb.InputError, match=message) as caught:
        short(TARGET, name, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "width", "message"),
    [
        ("laplace_diagonal", 2_000, "10,000 parameters .* at most 5,000: use covariance='last_l"),
        ("laplace", 2_000, "8,000 parameters .* at most 5,000"),
    ],
)
def test_laplace_of_too_many_parameters_is_refused(classes, name, width, message):
    target = pb.LogDensity(
        (
            lambda key, x: {"a": {"w": jnp.ones(width)}, "b": {"w": jnp.ones((width, 4))}},
            lambda theta, x: x[:, :1] * theta["a"]["w"] @ theta["b"]["w"],
        ),
        classes,
    )
    with pytest.raises(pb.InputError, match=message):
        short(target, name)


def test_a_network_without_a_matrix_has_no_last_layer(linear_regression):
    with pytest.raises(pb.InputError, match="no layer .* use covariance='diagonal'"):
        short(linear_regression, "laplace")


# Chains that leave the finite numbers


@pytest.mark.parametrize("name", ["numpyro_nuts", "svi"])
def test_a_chain_that_is_not_finite_is_named(name):
    starts = np.zeros((3, 2, 1), np.float32)
    starts[1] = np.nan
    with pytest.raises(pb.InputError, match="chain 1 starts where parameters is not") as caught:
        short(TARGET, name, num_chains=3, initial_positions=starts, on_divergence="stop")
    error = caught.value.__context__
    assert isinstance(error, pb.DivergenceError)
    assert (error.steps >= 0).tolist() == [False, True, False]
    assert error.draws.num_draws == 0


class Truncated(pb.Gaussian):
    """Impossible where a target is above 1."""

    def log_prob(self, outputs, targets):
        return jnp.where(targets > 1, -jnp.inf, super().log_prob(outputs, targets))


# A method of each kind: BlackJAX's NUTS rejects each step, NumPyro's looks for a start, and a fit
# has a loss of no number.
@pytest.mark.parametrize("name", ["nuts", "numpyro_nuts", "mclmc", "svi", "laplace", "sgld"])
def test_a_start_without_a_density_is_said_to_be_one_and_names_the_row(name):
    target = pb.LogDensity(
        (lambda key, inputs: jnp.zeros((2, 1)), lambda theta, inputs: inputs @ theta),
        (X, Y),
        likelihood=Truncated(NOISE),
    )
    first, others = np.flatnonzero(Y > 1)[0], np.count_nonzero(Y > 1) - 1
    message = f"chain 0 starts where the log likelihood of example {first} is -inf, as .* {others}"
    with pytest.raises(pb.InputError, match=message) as caught:
        short(target, name, num_chains=1)
    assert "step size" not in str(caught.value)
