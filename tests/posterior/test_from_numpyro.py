"""NumPyro models as targets, against NumPyro's own densities and closed forms."""

import subprocess
import sys
import warnings
from dataclasses import replace
from functools import cache, partial

import blackjax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import stationary
from flax import nnx
from numpy.testing import assert_allclose
from numpyro import distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.contrib.module import flax_module, random_flax_module, random_nnx_module
from numpyro.infer import HMCECS, MCMC, NUTS, Predictive
from numpyro.infer.reparam import LocScaleReparam
from numpyro.infer.util import log_density, potential_energy
from scipy import stats

import probbnn as pb
from probbnn.data import sources

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, D = 23, 3  # no round batch size divides N
CLOSE = partial(assert_allclose, rtol=1e-9, atol=1e-9)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D))
Y = X @ [1.0, -2.0, 0.5] + 0.3 * RNG.normal(size=N)
COUNTS = RNG.poisson(2.0, size=N)
GROUP = RNG.integers(4, size=N)
SERIES = RNG.normal(size=(N, 6))


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


# Models: each with the number of rows it is written to look at


def regression(x, y, rows=None, *, noise_scale=1.0):
    w = numpyro.sample("w", dist.Normal(0, 2).expand([D]).to_event(1))
    noise = numpyro.sample("noise", dist.HalfNormal(noise_scale))
    with numpyro.plate("data", len(y), subsample_size=rows) as indices:
        numpyro.sample("obs", dist.Normal(x[indices] @ w, noise), obs=y[indices])


def hierarchical(group, y, rows=None):
    center = numpyro.sample("center", dist.Normal(0, 1))
    spread = numpyro.sample("spread", dist.LogNormal(-1, 0.5))
    with numpyro.plate("groups", 4):
        effect = numpyro.sample("effect", dist.Normal(center, spread))
    numpyro.deterministic("range", effect.max() - effect.min())
    with numpyro.plate("data", len(y), subsample_size=rows):
        group, y = numpyro.subsample(group, event_dim=0), numpyro.subsample(y, event_dim=0)
        mean = numpyro.deterministic("mean", effect[group])
        numpyro.sample("obs", dist.StudentT(5.0, mean, 0.4), obs=y)


def several_observed(x, y, counts, series, rows=None):
    """Observed sites of several shapes, factors, and handlers that scale and mask."""
    top = numpyro.sample("top", dist.Gamma(2.0, 1.0))
    share = numpyro.sample("share", dist.Dirichlet(jnp.ones(D)))
    low = numpyro.sample("low", dist.Uniform(-top, top))  # a support that moves
    numpyro.sample("measured", dist.Normal(top, 0.1), obs=1.3)
    numpyro.factor("belief", -(low**2))
    with numpyro.plate("data", len(y), subsample_size=rows, dim=-2) as indices:
        mean = (x[indices] @ share + low)[:, None]
        numpyro.sample("value", dist.Normal(mean, 1.0), obs=y[indices][:, None])
        with handlers.scale(scale=0.3):
            numpyro.sample("count", dist.Poisson(top), obs=counts[indices][:, None])
        with numpyro.plate("time", 6), handlers.mask(mask=series[indices] > -1):
            numpyro.sample("series", dist.Normal(mean, top), obs=series[indices])
        numpyro.factor("weight", -0.1 * mean**2)
        vectors = dist.MultivariateNormal(share * mean[..., None], jnp.eye(D))
        numpyro.sample("vectors", vectors, obs=x[indices][:, None])


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.tanh(nn.Dense(4)(x)))[..., 0]


def linen_network(x, y, rows=None):
    net = random_flax_module("nn", Net(), dist.Normal(0, 0.5), input_shape=(1, D))
    noise = numpyro.sample("noise", dist.LogNormal(0, 1))
    with numpyro.plate("data", len(y), subsample_size=rows):
        x, y = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
        numpyro.sample("obs", dist.Normal(net(x), noise), obs=y)


def nnx_network(x, y, rows=None):
    net = random_nnx_module("nn", nnx.Linear(D, 1, rngs=nnx.Rngs(0)), dist.Normal(0, 0.5))
    with numpyro.plate("data", len(y), subsample_size=rows) as indices:
        numpyro.sample("obs", dist.Normal(net(x[indices])[:, 0], 0.3), obs=y[indices])


def random_walk(series, rows=None):
    def step(previous, _):
        current = numpyro.sample("walk", dist.Normal(previous, 0.5))
        return current, current

    _, walk = scan(step, jnp.zeros(()), None, length=6)
    spread = numpyro.sample("spread", dist.HalfCauchy(1.0))
    with numpyro.plate("data", len(series), subsample_size=rows) as indices:
        numpyro.sample("obs", dist.Normal(walk, spread).to_event(1), obs=series[indices])


def reparametrised(group, y, rows=None):
    config = {"effect": LocScaleReparam(0)}
    handlers.reparam(partial(hierarchical, group, y, rows), config=config)()


def improper(y, rows=None):
    center = numpyro.sample("center", dist.ImproperUniform(dist.constraints.positive, (), ()))
    with numpyro.plate("data", len(y), subsample_size=rows) as indices:
        numpyro.sample("obs", dist.Normal(center, 1.0), obs=y[indices])


ARGS = {
    regression: (X, Y),
    hierarchical: (GROUP, Y),
    several_observed: (X, Y, COUNTS, SERIES),
    linen_network: (X, Y),
    nnx_network: (X, Y),
    random_walk: (SERIES,),
    reparametrised: (GROUP, Y),
    improper: (Y,),
}


# Those that take long to compile.
LONG = (several_observed, linen_network, nnx_network)


def models(*some):
    cases = [pytest.param(m, marks=pytest.mark.slow) if m in LONG else m for m in some]
    return pytest.mark.parametrize("model", cases, ids=lambda model: model.__name__)


def on_device(args):
    return tuple(map(jnp.asarray, args))


@cache
def target_of(model):
    return pb.from_numpyro(model, *ARGS[model], 7)


def random_position(target, seed=1):
    """Not from the prior: NumPyro's transforms need not invert each other far out."""
    leaves, structure = jax.tree.flatten(target.init(jax.random.key(0)))
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [jnp.array(rng.normal(size=x.shape)) for x in leaves])


# Values


@models(*ARGS)
def test_log_density_is_numpyros_on_all_the_data(model):
    target = target_of(model)
    value_and_grad = jax.jit(jax.value_and_grad(target.logdensity_fn))
    potential = jax.jit(
        jax.value_and_grad(partial(potential_energy, model, on_device(ARGS[model]), {}))
    )
    for seed in (1, 2):
        position = random_position(target, seed)
        value, gradient = value_and_grad(position)
        exact, exact_gradient = potential(position)
        assert value.dtype == np.float64
        CLOSE(value, -exact)
        jax.tree.map(lambda a, b: CLOSE(a, -b), gradient, exact_gradient)


def test_prior_and_likelihood_are_scipys():
    target = pb.from_numpyro(regression, X, Y, 5)
    w, log_noise = np.array([0.3, -1.0, 2.0]), -0.4
    position = {"w": jnp.array(w), "noise": jnp.array(log_noise)}
    noise = np.exp(log_noise)
    jacobian = log_noise
    prior = stats.norm.logpdf(w, scale=2).sum() + stats.halfnorm.logpdf(noise) + jacobian
    loglikelihoods = stats.norm.logpdf(Y, X @ w, noise)
    CLOSE(target.logprior_fn(position), prior)
    for rows in ([3], [5, 2, 2], np.arange(N)[::-1], [*range(N), 4]):
        batch = pb.Batch(jnp.array(rows), jnp.array(rows))
        values = target.pointwise_loglikelihood_fn(position, batch)
        CLOSE(values, loglikelihoods[np.array(rows)])


@pytest.mark.parametrize(
    ("model", "positive"),
    [(regression, "noise"), (hierarchical, "spread")],
    ids=["regression", "hierarchical"],
)
def test_the_models_own_values_have_its_density(model, positive):
    """Times the Jacobian of exp, by which the one constrained site is reached."""
    target = target_of(model)
    position = random_position(target)
    values = target.constrain(position)
    CLOSE(values[positive], np.exp(position[positive]))
    exact = log_density(model, on_device(ARGS[model]), {}, values)[0]
    CLOSE(target.logdensity_fn(position), exact + position[positive])


@models(regression, hierarchical, several_observed)
def test_any_order_of_rows_gives_their_log_likelihoods(model):
    """A minibatch as long as the data is what numpyro.subsample does not subsample."""
    target = target_of(model)
    position = random_position(target)
    pointwise = jax.jit(target.pointwise_loglikelihood_fn)
    each = np.array([pointwise(position, pb.Batch(i, i))[0] for i in np.arange(N)[:, None]])
    assert np.ptp(each) > 0
    for length in (1, 4, N - 1, N, N + 5):
        rows = np.random.default_rng(length).integers(N, size=length)
        CLOSE(pointwise(position, pb.Batch(rows, rows)), each[rows])


@pytest.mark.parametrize("rows", [None, 1, N])
def test_any_subsample_size_will_do(rows):
    target = pb.from_numpyro(regression, X, Y, rows)
    position = random_position(target)
    exact = potential_energy(regression, on_device((X, Y)), {}, position)
    CLOSE(target.logdensity_fn(position), -exact)


def test_one_row_is_data_enough():
    target = pb.from_numpyro(regression, X[:1], Y[:1], 1)
    position = random_position(target)
    CLOSE(
        target.logdensity_fn(position),
        -potential_energy(regression, on_device((X[:1], Y[:1])), {}, position),
    )


def test_arguments_by_name_reach_the_model():
    position = {"w": jnp.ones(D), "noise": jnp.array(0.2)}
    target = pb.from_numpyro(regression, X, y=Y, noise_scale=0.1, rows=4)
    exact = -potential_energy(regression, on_device((X, Y)), {"noise_scale": 0.1}, position)
    CLOSE(target.logdensity_fn(position), exact)


def test_indices_count_from_0_to_n():
    target = target_of(regression)
    for indices in (target.data.inputs, target.data.targets):
        assert indices.dtype == np.int32
        assert list(indices) == list(range(N))
    assert (target.data_size, target.plate, target.sites) == (N, "data", ["w", "noise"])


def test_numpyro_does_not_warn_of_minibatches():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        target = pb.from_numpyro(regression, X, Y, 7)
        target.grad_estimator(
            random_position(target), (target.data.inputs[:3], target.data.inputs[:3])
        )


def test_importing_the_library_does_not_import_numpyro():
    code = "import sys, probbnn; sys.exit('numpyro' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Minibatches


def epoch_of(target, batch_size):
    """The minibatches of one epoch, stacked."""

    def step(stream, t):
        return target.data.next(stream, t)

    stream = target.data.init(jax.random.key(0), batch_size)
    return jax.lax.scan(step, stream, jnp.arange(-(-target.data_size // batch_size)))[1]


@models(regression, hierarchical, several_observed, linen_network)
def test_estimates_average_to_the_full_data_over_an_epoch(model):
    target = target_of(model)
    position = random_position(target)
    batches = epoch_of(target, 5)  # the last one is ragged
    weights = batches.mask.sum(axis=1) / N
    estimates = jax.jit(jax.vmap(target.value_and_grad_estimator, (None, 0)))(position, batches)
    value, gradient = jax.tree.map(lambda xs: jnp.tensordot(weights, xs, 1), estimates)
    exact, exact_gradient = jax.value_and_grad(target.logdensity_fn)(position)
    CLOSE(value, exact)
    jax.tree.map(CLOSE, gradient, exact_gradient)


@pytest.mark.parametrize("block_size", [1, 7, 22])
def test_blocks_do_not_change_the_log_density(monkeypatch, block_size):
    target = target_of(regression)
    position = random_position(target)
    whole = target.logdensity_fn(position)
    monkeypatch.setattr(sources, "_BLOCK_SIZE", block_size)
    CLOSE(target.logdensity_fn(position), whole)


def test_masked_rows_count_for_nothing_even_without_density():
    """Row 5 is observed outside the support that it needs: −inf, and NaN in a gradient."""

    def model(y):
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        with numpyro.plate("data", len(y), subsample_size=2) as indices:
            y = y[indices]
            numpyro.sample("obs", dist.Normal(0.0, scale * jnp.sqrt(y)), obs=y)

    target = pb.from_numpyro(model, np.array([1.0, 2.0, 3.0, 4.0, 5.0, -1.0, 6.0]))
    position = {"scale": jnp.array(0.3)}
    assert np.isnan(jax.jit(target.logdensity_fn)(position))
    rows, mask = jnp.array([5, 2, 5, 4]), jnp.array([False, True, False, True])
    estimate = jax.jit(target.value_and_grad_estimator)
    masked = estimate(position, pb.Batch(rows, rows, mask))
    jax.tree.map(CLOSE, masked, estimate(position, (rows[mask], rows[mask])))
    values = target.pointwise_loglikelihood_fn(position, pb.Batch(rows, rows, mask))
    assert list(values == 0) == [True, False, True, False]


def test_control_variates_leave_no_noise_at_the_center():
    target = target_of(regression)
    center = random_position(target)
    centered = target.with_control_variates(center)
    exact = jax.grad(target.logdensity_fn)(center)
    jax.tree.map(CLOSE, centered.grad_estimator(center, (jnp.arange(4), jnp.arange(4))), exact)


# Positions and the model's own values


@pytest.mark.slow
def test_constrain_keeps_leading_axes_and_works_under_vmap():
    target = target_of(several_observed)
    positions = jax.vmap(jax.vmap(target.init))(jax.random.split(jax.random.key(0), (3, 5)))
    assert positions["share"].shape == (3, 5, D - 1)
    values = jax.jit(target.constrain)(jax.tree.map(np.asarray, positions))
    mapped = jax.jit(jax.vmap(jax.vmap(target.constrain)))(positions)
    assert values["share"].shape == (3, 5, D)
    for name, value in values.items():
        CLOSE(value, mapped[name])
    one = jax.jit(target.constrain)(jax.tree.map(lambda leaf: leaf[1, 2], positions))
    CLOSE(values["low"][1, 2], one["low"])
    CLOSE(values["share"].sum(axis=-1), np.ones((3, 5)))
    assert (np.abs(values["low"]) < values["top"]).all()


@pytest.mark.parametrize("model", [hierarchical, reparametrised])
def test_deterministic_sites_are_constrained_outside_the_plate(model):
    target = target_of(model)
    values = target.constrain(random_position(target))
    assert set(values) == {*target.sites, "effect", "range"}  # and not "mean", in the plate
    CLOSE(values["range"], np.ptp(values["effect"]))


def test_a_position_with_other_sites_is_refused():
    target = target_of(regression)
    for wrong in ({"w": np.zeros(D)}, {"noise": 0.0}, np.zeros(D)):
        with pytest.raises(pb.InputError, match="the position has no (w|noise); one of this"):
            target.constrain(wrong)
    with pytest.raises(pb.InputError, match=r"\['w'\] has shape \(4,\)"):
        target.constrain({"w": np.zeros(4), "noise": 0.0})


def test_starts_are_draws_of_the_prior():
    """Kolmogorov-Smirnov, wrongly alarmed once in 10⁴ runs of each."""
    target = target_of(regression)
    starts = jax.vmap(target.init)(jax.random.split(jax.random.key(0), 2_000))
    assert stats.kstest(starts["w"].ravel(), stats.norm(scale=2).cdf).pvalue > 1e-4
    assert stats.kstest(np.exp(starts["noise"]), stats.halfnorm.cdf).pvalue > 1e-4


def test_an_improper_prior_starts_somewhere():
    target = target_of(improper)
    starts = jax.vmap(target.init)(jax.random.split(jax.random.key(0), 50))["center"]
    assert (np.abs(starts) <= 2).all()
    assert np.ptp(starts) > 1


# Through the library, and BlackJAX


@pytest.mark.parametrize(
    "method", ["map", "ensemble", "sgld", "psgld", "sghmc", "blackjax_sghmc", "sgnht"]
)
def test_every_minibatch_method_samples_it(method):
    target = target_of(hierarchical)
    draws = pb.sample(
        jax.random.key(0),
        target,
        method,
        step_size=1e-3,
        num_steps=20,
        batch_size=5,
        progress=False,
    )
    values = target.constrain(draws.positions)
    assert values["effect"].shape == (draws.num_chains, draws.num_draws, 4)
    assert (values["spread"] > 0).all()


def test_draws_are_measured_and_converted():
    target = target_of(regression)
    draws = pb.sample(
        jax.random.key(0),
        target,
        "sgld",
        step_size=1e-4,
        num_steps=50,
        batch_size=5,
        progress=False,
        initial_positions={"w": np.tile([1.0, -2.0, 0.5], (4, 1)), "noise": np.full(4, -1.0)},
    )
    meters = pb.measure_temperature(jax.random.key(1), target, draws)
    assert set(meters.gradient_noise_by_layer) == {"w", "noise"}
    tree = pb.to_datatree(draws, target)
    first = jax.tree.map(lambda leaf: leaf[1, 2], draws.positions)
    CLOSE(tree["posterior"]["log_density"][1, 2], target.logdensity_fn(first))


def test_predict_names_numpyros_predictive_which_takes_the_draws():
    def model(x, y=None):
        w = numpyro.sample("w", dist.Normal(0, 2).expand([D]).to_event(1))
        with numpyro.plate("data", len(x)) as indices:
            y = None if y is None else y[indices]
            numpyro.sample("obs", dist.Normal(x[indices] @ w, 0.3), obs=y)

    target = pb.from_numpyro(model, X, Y)
    draws = pb.sample(jax.random.key(0), target, "sgld", num_steps=20, batch_size=5, progress=False)
    with pytest.raises(pb.InputError, match="use numpyro.infer.Predictive"):
        pb.predict(target, draws, X)
    predictive = Predictive(model, target.constrain(draws.positions), batch_ndims=2)
    assert predictive(jax.random.key(1), jnp.array(X[:6]))["obs"].shape == (4, 10, 6)


def test_blackjax_nuts_takes_the_steps_of_numpyros_potential():
    target = target_of(hierarchical)
    start = random_position(target)

    def path(logdensity_fn):
        nuts = blackjax.nuts(logdensity_fn, step_size=0.1, inverse_mass_matrix=jnp.ones(6))
        state, step = nuts.init(start), jax.jit(nuts.step)
        for key in jax.random.split(jax.random.key(0), 3):
            state, _ = step(key, state)
        return state.position

    potential = partial(potential_energy, hierarchical, on_device((GROUP, Y)), {})
    ours = path(target.logdensity_fn)
    jax.tree.map(partial(CLOSE, rtol=1e-6), ours, path(lambda position: -potential(position)))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: (a != b).any(), ours, start)))


@pytest.mark.slow
def test_the_model_still_runs_in_numpyros_own_samplers():
    pb.from_numpyro(regression, X, Y, 7)
    mcmc = MCMC(HMCECS(NUTS(regression)), num_warmup=2, num_samples=2, progress_bar=False)
    mcmc.run(jax.random.key(0), *on_device((X, Y)), 7)
    assert mcmc.get_samples()["w"].shape == (2, D)


CONJUGATE_X = np.array([[0.9, 0.3], [-0.4, 0.8], [0.7, -1.1], [0.2, 0.5], [-1.0, 0.4]])
CONJUGATE_Y = np.array([1.5, -2.0, 2.5, 0.5, -0.2])


def conjugate(x, y):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
    with numpyro.plate("data", len(y), subsample_size=4) as indices:
        numpyro.sample("obs", dist.Normal(x[indices] @ w, 1.0), obs=y[indices])


@pytest.mark.parametrize("entry", [stationary.SGLD, stationary.SGHMC], ids=lambda entry: entry.name)
def test_minibatch_chains_have_the_exact_law_of_conjugate_regression(entry):
    """Ragged minibatches of 2 out of 5 rows: by chance it fails at most 7 times in 10⁶ per moment.

    The data are those of `stationary.REGRESSION`, whose closed form is the discretised chain's.
    """
    with jax.enable_x64(False):
        target = pb.from_numpyro(conjugate, CONJUGATE_X, CONJUGATE_Y)

        def estimator(theta, batch):
            value, gradient = target.value_and_grad_estimator({"w": theta}, batch)
            return value, gradient["w"]

        ours = replace(
            stationary.REGRESSION,
            name="NumPyro regression",
            estimator=estimator,
            inputs=target.data.inputs,
            targets=target.data.targets,
        )
        stationary.check(stationary.Case(entry, ours, tolerance=0.02).quantities(), 0.02)


# What is refused


def several_plates(y):
    center = numpyro.sample("center", dist.Normal(0, 1))
    for name in ("one", "two"):
        with numpyro.plate(name, len(y), subsample_size=3) as indices:
            numpyro.sample(f"{name}_obs", dist.Normal(center, 1), obs=y[indices])


def either_plate(y, rows=None):
    center = numpyro.sample("center", dist.Normal(0, 1))
    for name in ("one", "two"):
        with numpyro.plate(name, len(y), subsample_size=rows) as indices:
            numpyro.sample(f"{name}_obs", dist.Normal(center, 1), obs=y[indices])


def no_plate(y):
    numpyro.sample("obs", dist.Normal(numpyro.sample("center", dist.Normal(0, 1)), 1), obs=y)


def no_data_plate(y):
    with numpyro.plate("groups", 2):
        center = numpyro.sample("center", dist.Normal(0, 1))
    numpyro.sample("obs", dist.Normal(center[0], 1), obs=y)


def latent_per_row(y):
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        center = numpyro.sample("center", dist.Normal(0, 1))
        numpyro.sample("obs", dist.Normal(center, 1), obs=y[indices])


def missing_values(y):
    center = numpyro.sample("center", dist.Normal(0, 1))
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        y = y[indices]
        numpyro.sample("obs", dist.Normal(center, 1), obs=y, obs_mask=y > 0)


def discrete_latent(y):
    kind = numpyro.sample("kind", dist.Bernoulli(0.5))
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        numpyro.sample("obs", dist.Normal(kind, 1), obs=y[indices])


def nothing_observed(y):
    center = numpyro.sample("center", dist.Normal(0, 1))
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        batch = y[indices]
    numpyro.sample("obs", dist.Normal(center, 1), obs=batch)


def nothing_sampled(y):
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        numpyro.sample("obs", dist.Normal(0, 1), obs=y[indices])


def with_param(y):
    center = numpyro.sample("center", dist.Normal(0, 1))
    spread = numpyro.param("spread", 1.0)
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        numpyro.sample("obs", dist.Normal(center, spread), obs=y[indices])


def half_a_prior(y):
    net = random_flax_module("nn", nn.Dense(1), {"bias": dist.Normal(0, 1)}, input_shape=(1, 1))
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        numpyro.sample("obs", dist.Normal(net(y[indices][:, None])[:, 0], 1), obs=y[indices])


class BatchNorm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.BatchNorm(use_running_average=False)(x))


def batch_norm(y):
    net = flax_module("nn", BatchNorm(), input_shape=(1, 1), mutable=["batch_stats"])
    numpyro.sample("center", dist.Normal(0, 1))
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        numpyro.sample("obs", dist.Normal(net(y[indices][:, None])[:, 0], 1), obs=y[indices])


def all_the_data(y, rows=None):
    center = numpyro.sample("center", dist.Normal(0, 1))
    with numpyro.plate("data", len(y), subsample_size=rows):
        numpyro.sample("obs", dist.Normal(center, 1), obs=y)


def all_the_inputs(y):
    center = numpyro.sample("center", dist.Normal(0, 1))
    with numpyro.plate("data", len(y)) as indices:
        numpyro.sample("obs", dist.Normal(center * y, 1), obs=y[indices])


def cut_by_hand(batch):
    center = numpyro.sample("center", dist.Normal(0, 1))
    with numpyro.plate("data", 1_000, subsample_size=len(batch)):
        numpyro.sample("obs", dist.Normal(center, 1), obs=batch)


def fixed_length(y):
    center = numpyro.sample("center", dist.Normal(0, 1))
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        numpyro.sample("obs", dist.Normal(center * jnp.ones(3), 1), obs=y[indices])


def first_rows(y):
    center = numpyro.sample("center", dist.Normal(0, 1))
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        numpyro.sample("obs", dist.Normal(center, 1), obs=y[: len(indices)])


def centered_batch(y):
    center = numpyro.sample("center", dist.Normal(0, 1))
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        y = y[indices]
        numpyro.sample("obs", dist.Normal(center, 1), obs=y - y.mean())


def factor_outside(y):
    center = numpyro.sample("center", dist.Normal(0, 1))
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        batch = y[indices]
        numpyro.sample("obs", dist.Normal(center, 1), obs=batch)
    numpyro.factor("outside", -((batch - center) ** 2).sum())


def pairs_of_rows(y):
    center = numpyro.sample("center", dist.Normal(0, 1))
    with numpyro.plate("data", len(y), subsample_size=3, dim=-2) as indices:
        numpyro.sample("obs", dist.Normal(center + y[indices], 1), obs=y[indices][:, None])


def dropout(y):
    center = numpyro.sample("center", dist.Normal(0, 1))
    keep = jax.random.bernoulli(numpyro.prng_key(), 0.5)
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        numpyro.sample("obs", dist.Normal(center * keep, 1), obs=y[indices])


def branching(y):
    center = numpyro.sample("center", dist.Normal(0, 1))
    with numpyro.plate("data", len(y), subsample_size=3) as indices:
        numpyro.sample("obs", dist.Normal(center if center > 0 else 0.0, 1), obs=y[indices])


FOLLOW = "does not follow the indices of plate 'data': on {} of its {} rows, .*; in the plate, use"


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        (7, (), "model is a int; give a NumPyro model, a function"),
        (regression, (X,), "cannot be run under JAX on the given arguments: .*'y'"),
        (branching, (Y,), "cannot be run under JAX on the given arguments: .*traced array"),
        (several_plates, (Y,), "plates 'one', 'two' could all be the one over the data; exactly"),
        (either_plate, (Y,), "plates 'one', 'two' could all be"),
        (either_plate, (Y, N), "plates 'one', 'two' could all be"),
        (no_plate, (Y,), r"has no plate over its data \(none\); put the observed sites into"),
        (no_data_plate, (Y,), r"\(only 'groups', not with observed sites alone\)"),
        (latent_per_row, (Y,), "latent sites 'center' are inside plate 'data', one value per row"),
        (missing_values, (Y,), "latent sites 'obs_unobserved' are inside plate 'data'"),
        (discrete_latent, (Y,), "latent sites 'kind' are discrete, .*; sum them out"),
        (nothing_observed, (Y,), "plate 'data' has no observed site; at least one is expected"),
        (nothing_sampled, (Y,), "the model has no latent site; there is nothing to sample"),
        (with_param, (Y,), "params 'spread' have no prior, .*; make them numpyro.sample sites"),
        (half_a_prior, (Y,), r"params 'nn\$params' have no prior"),
        (batch_norm, (Y,), r"(params 'nn\$params' have no prior|keeps mutable state)"),
        (all_the_data, (Y,), FOLLOW.format(2, N)),
        (all_the_data, (Y[:3],), FOLLOW.format(2, 3)),
        (all_the_data, (Y[:2],), r"on 1 of its 2 rows, site 'obs' has 2 rows"),
        (all_the_inputs, (Y,), FOLLOW.format(2, N)),
        (cut_by_hand, (Y,), FOLLOW.format(2, 1000)),
        (cut_by_hand, (Y[:2],), FOLLOW.format(3, 1000)),
        (fixed_length, (Y,), FOLLOW.format(2, N)),
        (dropout, (Y,), FOLLOW.format(2, N)),
        (first_rows, (Y,), f"the log likelihood of row {N - 1} of plate 'data' is .* or .*, dep"),
        (centered_batch, (Y,), "mix no rows of a minibatch"),
        (centered_batch, (Y[:3],), "mix no rows of a minibatch"),
        (pairs_of_rows, (Y,), "mix no rows of a minibatch"),
        (several_observed, (X, Y, COUNTS, SERIES), "plates 'data', 'time' could all be"),
        (factor_outside, (Y,), "the sites outside plate 'data' depend on its indices"),
    ],
)
def test_what_has_no_minibatches_is_refused_in_one_clear_line(model, args, message):
    with pytest.raises(pb.InputError, match=message) as caught:
        pb.from_numpyro(model, *args)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("inputs", [X, Y, np.array(3)])
def test_a_minibatch_of_data_instead_of_indices_is_refused(inputs):
    target = target_of(regression)
    with pytest.raises(pb.InputError, match=r"they are the indices of rows, integers"):
        target.pointwise_loglikelihood_fn(random_position(target), pb.Batch(inputs, inputs))
