"""Convergence diagnostics: against closed forms and ArviZ, with faults planted, from any tree."""

import json

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import xarray as xr
from helpers import random_draws
from numpy.testing import assert_allclose, assert_array_equal
from numpyro import distributions as dist

import probbnn as pb
from probbnn.diagnostics import ranks

OLD_ARVIZ = az.__version__.startswith("0.")


def autoregressive(rho, num_chains, num_draws, num_values, seed=0):
    """Stationary AR(1) chains of variance 1."""
    noise = np.random.default_rng(seed).normal(size=(num_chains, num_draws, num_values))
    values = noise.copy()
    for t in range(1, num_draws):
        values[:, t] = rho * values[:, t - 1] + np.sqrt(1 - rho**2) * noise[:, t]
    return values


def as_tree(values, **groups):
    posterior = xr.Dataset({"theta": (("chain", "draw", "unit"), values)})
    return xr.DataTree.from_dict({"/posterior": posterior, **groups})


def per_draw(name, values, *dims):
    return xr.Dataset({name: (("chain", "draw", *dims), values)})


# The statistics themselves


@pytest.mark.parametrize("shape", [(4, 100), (3, 51), (1, 40), (2, 4), (5, 9)])
def test_the_statistics_are_those_of_arviz(shape):
    values = np.concatenate([autoregressive(rho, *shape, 5) for rho in (-0.7, 0, 0.9)], axis=-1)
    values[0, :, 3] += 2
    dataset = xr.Dataset({f"v{i}": (("chain", "draw"), values[..., i]) for i in range(15)})
    data = dataset if OLD_ARVIZ else xr.DataTree.from_dict({"/posterior": dataset})

    def arviz(function, **settings):
        return np.array([float(x) for x in function(data, **settings).data_vars.values()])

    assert_allclose(ranks.ess_bulk(values), arviz(az.ess, method="bulk"))
    assert_allclose(ranks.ess_mean(values), arviz(az.ess, method="mean"))
    assert_allclose(ranks.mcse_mean(values), arviz(az.mcse, method="mean"))
    if shape[1] % 2 == 0:  # of an odd number ArviZ may leave out the one draw that is in the tail
        assert_allclose(ranks.ess_tail(values), arviz(az.ess, method="tail", prob=(0.05, 0.95)))
    if shape[0] > 1:
        assert_allclose(ranks.rhat(values), arviz(az.rhat))
    if shape[0] == 4 and not OLD_ARVIZ:
        groups = np.array([0, 0, 1, 1])
        expected = arviz(az.rhat_nested, superchain_ids=groups)
        assert_allclose(ranks.nested_rhat(values, groups), expected)


def test_independent_draws_have_r_hat_1_and_count_in_full():
    """The mean ESS of 200 quantities is known to 1 %; R-hat − 1 to 1/(2 · 500)."""
    values = np.random.default_rng(0).normal(size=(4, 1_000, 200))
    assert np.quantile(ranks.rhat(values), 0.95) < 1.005
    assert_allclose(ranks.ess_bulk(values).mean(), 4_000, rtol=0.05)
    assert_allclose(ranks.mcse_mean(values).mean(), 1 / np.sqrt(4_000), rtol=0.05)


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_the_ess_of_an_autoregression_is_known(rho):
    """n(1 − ρ)/(1 + ρ)."""
    values = autoregressive(rho, 4, 2_000, 100)
    assert_allclose(ranks.ess_mean(values).mean(), 8_000 * (1 - rho) / (1 + rho), rtol=0.06)


def test_nested_r_hat_sees_what_groups_of_short_chains_do_not_share():
    values = np.random.default_rng(0).normal(size=(16, 10, 50))
    groups = np.repeat(np.arange(4), 4)
    assert np.median(ranks.nested_rhat(values, groups)) < 1.05
    values += groups[:, None, None]
    assert np.median(ranks.nested_rhat(values, groups)) > 1.3


def test_chains_that_stand_still_apart_have_no_finite_r_hat():
    values = np.tile(np.arange(4.0)[:, None, None], (1, 10, 1))
    assert_array_equal(ranks.rhat(values), [np.inf])


# From a tree


@pytest.fixture(scope="module")
def convergence(sampled, target, classes):
    probes = {"in": classes[0][:3], "out": classes[0][:2] + 9}
    return pb.diagnose(sampled.to_datatree(target, probes, held_out=classes))


def test_a_tree_of_a_network_is_judged_by_its_function(convergence):
    assert convergence.space == "probe values"
    assert len(convergence.function.names) == 5 * 4
    assert convergence.function.names[4] == "probability[in[1], 0]"
    assert len(convergence.parameters.names) == 32
    assert convergence.parameters.names[0].startswith("weight[Dense_0.")
    assert (convergence.method, convergence.temperature) == ("sgld", 2.0)
    assert convergence.drift is not None


def test_every_diagnostic_says_what_it_means_and_what_to_do(convergence):
    for name, diagnostic in convergence.diagnostics.items():
        for sentence in (diagnostic.meaning, diagnostic.advice):
            assert sentence.endswith("."), name
            assert len(sentence) > 20, name
        assert diagnostic.title in str(convergence)
        missing = name in convergence.missing
        assert diagnostic.result.startswith("unknown") == missing
        assert (not diagnostic.numbers) == missing


def test_it_is_json_and_the_same_after_netcdf(sampled, target, classes, tmp_path):
    tree = sampled.to_datatree(target, {"in": classes[0]}, held_out=classes)
    content = json.dumps(pb.diagnose(tree).to_dict(), allow_nan=False)
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "draws.nc", engine="h5netcdf") as back:
        assert json.dumps(pb.diagnose(back).to_dict(), allow_nan=False) == content


def test_values_that_never_change_are_counted_and_left_out():
    values = np.random.default_rng(0).normal(size=(4, 1_000, 5))
    values[..., 2] = 1.0
    mixing = pb.diagnose(as_tree(values)).parameters
    assert (mixing.num_constant, mixing.num_varying) == (1, 4)
    assert np.isnan(mixing.rhat[2])
    assert mixing.share_converged == 1
    assert "constant: 1" in pb.diagnose(as_tree(values)).diagnostics["parameters"].result
    frozen = pb.diagnose(as_tree(np.ones((4, 100, 2))))
    assert "none of the 2 values ever changes" in str(frozen)
    json.dumps(frozen.to_dict(), allow_nan=False)


def test_a_stuck_chain_stands_out():
    values = np.random.default_rng(0).normal(size=(4, 500, 20))
    values[2] = 1e-3 * values[2] + 1
    c = pb.diagnose(as_tree(values))
    assert c.parameters.share_above(1.05) == 1
    assert c.spread[2] < 0.01
    assert c.spread[[0, 1, 3]].min() > 0.8
    assert c.leave_one_chain_out.argmin() == 2
    assert c.leave_one_chain_out[2] < 0.1
    assert c.leave_one_chain_out[[0, 1, 3]].min() == 1


def test_within_chain_r_hat_tells_regions_from_unfinished_chains():
    settled = np.random.default_rng(0).normal(size=(4, 500, 20))
    apart = settled + 5 * np.arange(4)[:, None, None]
    drifting = settled + np.linspace(0, 5, 500)[:, None]
    assert np.median(pb.diagnose(as_tree(apart)).within_chain) < 1.02
    assert np.median(pb.diagnose(as_tree(apart)).parameters.rhat) > 1.5
    assert np.median(pb.diagnose(as_tree(drifting)).within_chain) > 1.5


def test_chains_that_share_their_noise_move_together():
    own = autoregressive(0.8, 4, 500, 20)
    shared = np.sqrt(0.1) * own + np.sqrt(0.9) * autoregressive(0.8, 1, 500, 20, seed=1)
    on_the_way = own + np.linspace(0, 5, 500)[:, None]
    assert_allclose(pb.diagnose(as_tree(shared)).cross_chain.correlation, 0.9, atol=0.02)
    for values in (own, on_the_way):
        correlation, noise = pb.diagnose(as_tree(values)).cross_chain
        assert abs(correlation) < 4 * noise < 0.05


def test_running_scores_and_disagreement_of_chains():
    """Two chains of two draws at two held-out examples of class 0, computed by hand."""
    first = np.array([[[0.9, 0.3], [0.7, 0.5]], [[0.2, 0.2], [0.1, 0.4]]])
    probs = np.stack([first, 1 - first], axis=-1)
    predictions = xr.Dataset(
        {
            "probability": (("chain", "draw", "example", "class"), probs),
            "log_likelihood": (("chain", "draw", "example"), np.log(first)),
        }
    )
    data = xr.Dataset({"targets": ("example", [0, 0])})
    groups = {"/predictions": predictions, "/predictions_constant_data": data}
    c = pb.diagnose(as_tree(np.zeros((2, 2, 1)), **groups))
    averages = np.array([[0.55, 0.25], [0.475, 0.35]])
    assert_allclose(c.running.nll, -np.log(averages).mean(axis=1))
    assert c.running.held_out
    assert_array_equal(c.running.accuracy, [0.5, 0.0])
    assert_allclose(c.disagreement.total_variation, [(0.65 + 0.1) / 2] * 2)
    assert c.disagreement.top_class == 0.5
    for name in ("function", "parameters", "nested_rhat"):
        assert c.missing[name] == "needs at least 4 draws per chain"
    assert c.judged is None


def test_running_scores_of_impossible_classes_are_those_of_the_metrics():
    """Logits may be thousands apart: probability zero, which `metrics.nll` counts as its floor."""
    probs = np.array([[[[0.0, 1.0], [1.0, 0.0]]]])
    predictions = xr.Dataset(
        {
            "probability": (("chain", "draw", "example", "class"), probs),
            "log_likelihood": (("chain", "draw", "example"), [[[-5e5, 0.0]]]),
        }
    )
    data = xr.Dataset({"targets": ("example", [0, 0])})
    groups = {"/predictions": predictions, "/predictions_constant_data": data}
    c = pb.diagnose(as_tree(np.zeros((1, 1, 1)), **groups))
    assert_allclose(c.running.nll, pb.metrics.nll(probs[0, 0], [0, 0]))


def test_the_log_density_drifts_by_its_trace_or_else_by_its_draws():
    level = np.random.default_rng(0).normal(size=(4, 1_000))
    rising = level + np.linspace(0, 20, 1_000)
    late = level + np.where(np.arange(1_000) < 500, -20, 0)
    apart = level + 5 * np.arange(4)[:, None]

    def drift(values, group, dim, name="logdensity", **groups):
        groups[group] = xr.Dataset({name: (("chain", dim), values)})
        return pb.diagnose(as_tree(level[..., None], **groups)).drift

    for where in (("/trace", "step"), ("/sample_stats", "draw"), ("/sample_stats", "draw", "lp")):
        assert drift(rising, *where) > 1.5
        assert drift(late, *where) < 1.01  # its first half is no matter
        assert drift(apart, *where) < 1.01  # nor is where a chain is, if it stays there
    assert pb.diagnose(as_tree(level[..., None])).drift is None


@pytest.mark.parametrize(("warmup", "drifts"), [(700, False), (990, True)])
def test_warm_up_is_no_drift_where_enough_follows_it(warmup, drifts):
    steps = np.arange(1, 1_001)
    values = np.random.default_rng(0).normal(size=(4, 1_000)) + 20 * np.minimum(steps / warmup, 1)
    trace = xr.Dataset({"logdensity": (("chain", "step"), values)}, {"step": steps})
    kept = np.arange(warmup + 1, 1_001, 9)
    stats = xr.Dataset({"step": ("draw", kept)})
    tree = as_tree(np.zeros((4, len(kept), 1)), **{"/trace": trace, "/sample_stats": stats})
    assert (pb.diagnose(tree).drift > 1.1) == drifts


def test_psis_loo_is_right_where_it_is_known():
    """y ~ N(θ, 1), flat prior: without yᵢ, θ is N(mean of the others, 1/(n − 1))."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=30)
    theta = rng.normal(y.mean(), 1 / np.sqrt(30), size=(4, 1_000, 1))
    values = -0.5 * (y - theta) ** 2 - 0.5 * np.log(2 * np.pi)
    loo = pb.diagnose(as_tree(theta, **{"/log_likelihood": per_draw("y", values, "n")})).loo
    others, variance = (y.sum() - y) / 29, 1 + 1 / 29
    exact = -0.5 * (y - others) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    assert_allclose(loo.elpd, exact.sum(), atol=0.05)
    assert_allclose(loo.p_loo, 1, atol=0.4)
    assert loo.pareto_k.shape == (30,)
    assert loo.share_bad == 0


def test_draws_that_are_not_finite_are_counted():
    values = np.random.default_rng(0).normal(size=(4, 50, 3))
    values[1, 7:9, 0] = np.nan
    assert pb.diagnose(as_tree(values)).num_nonfinite == 2


# Trees of others


@pytest.fixture(scope="module")
def mcmc():
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(x @ w, 1), obs=y)

    x = jax.random.normal(jax.random.key(0), (40, 2))
    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(model),
        num_warmup=200,
        num_samples=500,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(1), x, x @ jnp.array([1.0, -1.0]))
    return mcmc


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_numpyro_run_is_accepted(mcmc):
    c = pb.diagnose(az.from_numpyro(mcmc, log_likelihood=True))
    assert (c.num_chains, c.num_draws, c.space) == (4, 500, "parameters")
    assert c.parameters.names == ["w[0]", "w[1]"]
    assert c.parameters.share_above(1.05) == 0
    assert c.num_divergent == 0
    assert c.loo is not None
    assert not c.running.held_out
    assert c.missing["function"] == "no probes"
    assert "unknown: no probes" in str(c)


def test_new_observations_are_not_taken_for_the_function():
    noise = per_draw("y", np.random.default_rng(0).normal(size=(4, 100, 3)), "n")
    c = pb.diagnose(as_tree(autoregressive(0.99, 4, 100, 2), **{"/posterior_predictive": noise}))
    assert c.function is None


def test_short_chains_of_known_starts_have_a_nested_r_hat():
    """Four starts, sixteen chains from each: they have forgotten them, or they have not."""
    groups = np.repeat(np.arange(4), 16)
    forgotten = np.random.default_rng(0).normal(size=(64, 8, 3))
    remembered = forgotten + 5 * groups[:, None, None]
    c = pb.diagnose(as_tree(forgotten), superchains=groups)
    assert c.num_superchains == 4
    bound = c.diagnostics["nested_rhat"].numbers["independent_draws"]
    assert bound == np.sqrt(1 + 1 / 16)
    assert np.max(c.nested_rhat) < bound
    assert np.min(pb.diagnose(as_tree(remembered), superchains=groups).nested_rhat) > 2
    # Chains of unknown starts cannot be grouped: their dispersion would be in both variances.
    assert "known to share their starts" in pb.diagnose(as_tree(remembered)).missing["nested_rhat"]


@pytest.mark.parametrize("groups", [[0, 0, 1], [0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 0, 1]])
def test_superchains_must_be_equal_groups(groups):
    tree = as_tree(np.random.default_rng(0).normal(size=(4, 20, 1)))
    with pytest.raises(pb.InputError, match=r"superchains has \d entries .* 4 chains; give"):
        pb.diagnose(tree, superchains=groups)


def test_point_estimates_are_told_apart(target, classes):
    tree = random_draws(target, 3, 1).to_datatree(target, {"in": classes[0]})
    c = pb.diagnose(tree)
    assert c.judged is None
    assert c.disagreement is not None


@pytest.mark.parametrize("given", [xr.DataTree(), {"theta": 1}])
def test_what_has_no_posterior_is_refused(given):
    with pytest.raises(pb.InputError, match="no group posterior with dims chain and draw"):
        pb.diagnose(given)


# Trees that others made


def test_indicators_counts_and_text_are_taken_or_left():
    rng = np.random.default_rng(0)
    shape = (4, 200)
    posterior = xr.Dataset(
        {
            "switch": (("chain", "draw"), rng.random(shape) < 0.5),
            "count": (("chain", "draw"), rng.integers(9, size=shape)),
            "name": (("chain", "draw"), np.full(shape, "a")),
            "fixed": ("unit", [1.0, 2.0]),
        }
    )
    c = pb.diagnose(xr.DataTree.from_dict({"/posterior": posterior}))
    assert sorted(c.parameters.names) == ["count", "switch"]
    assert c.parameters.share_above(1.05) == 0


def test_variables_of_other_shapes_are_no_probes():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 50, 3))
    elsewhere = {
        # What ArviZ calls the axes of a NumPyro site.
        "/posterior_predictive": {
            "probability": (("chain", "draw", "p_dim_0"), rng.random((2, 50, 4)))
        },
        "/predictions": {"probability": (("chain", "draw", "p_dim_0"), rng.random((2, 50, 4)))},
        "/log_likelihood": {"y": ("y_dim_0", rng.random(5))},
    }
    c = pb.diagnose(as_tree(values, **{k: xr.Dataset(v) for k, v in elsewhere.items()}))
    assert c.running is c.disagreement is c.loo is None
    fewer = xr.Dataset({"output": (("chain", "draw", "probe"), rng.random((2, 10, 4)))})
    assert pb.diagnose(as_tree(values, **{"/posterior_predictive": fewer})).space == "parameters"


def test_a_log_density_alone_is_judged():
    posterior = xr.Dataset(
        {"log_density": (("chain", "draw"), np.random.default_rng(0).normal(size=(4, 500)))}
    )
    assert pb.diagnose(xr.DataTree.from_dict({"/posterior": posterior})).parameters.num_varying == 1


def test_values_that_are_not_finite_are_no_constants():
    values = np.random.default_rng(0).normal(size=(4, 500, 3))
    values[0, 7, 1] = np.nan
    values[..., 2] = 1.0
    c = pb.diagnose(as_tree(values))
    assert (c.parameters.num_constant, c.parameters.num_varying) == (1, 1)
    assert c.parameters.nonfinite == ["theta[1]"]
    assert c.num_nonfinite == 1


def test_no_draws_are_refused():
    with pytest.raises(pb.InputError, match="the posterior has 4 chains of 0 draws"):
        pb.diagnose(as_tree(np.zeros((4, 0, 1))))
