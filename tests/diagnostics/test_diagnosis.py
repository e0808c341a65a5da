"""Diagnosis of whole trees: of a network, of a NumPyro run, and of what cannot be judged."""

import json

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import xarray as xr
from chains import as_tree
from helpers import random_draws
from numpyro import distributions as dist

import probbnn as pb

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def tree(sampled, target, classes):
    probes = {"in": classes[0][:3], "out": classes[0][:2] + 9}
    return pb.to_datatree(sampled, target, probes, held_out=classes)


def test_a_tree_of_a_network_is_judged_by_its_function(tree):
    convergence = pb.diagnose(tree)
    assert convergence.space == "probe values"
    assert len(convergence.function.names) == 5 * 4
    assert convergence.function.names[4] == "probability[in[1], 0]"
    assert len(convergence.parameters.names) == 32
    assert convergence.parameters.names[0].startswith("weight[Dense_0.")
    assert (convergence.method, convergence.temperature) == ("sgld", 2.0)
    assert convergence.drift is not None


def test_it_is_json_and_the_same_after_netcdf(tree, tmp_path):
    content = json.dumps(pb.diagnose(tree).to_dict(), allow_nan=False)
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "draws.nc", engine="h5netcdf") as back:
        assert json.dumps(pb.diagnose(back).to_dict(), allow_nan=False) == content


def test_draws_that_are_not_finite_are_counted():
    values = np.random.default_rng(0).normal(size=(4, 50, 3))
    values[1, 7:9, 0] = np.nan
    assert pb.diagnose(as_tree(values)).num_nonfinite == 2


def test_too_few_draws_are_said_to_be_missing():
    c = pb.diagnose(as_tree(np.zeros((2, 2, 1))))
    for name in ("function", "parameters", "nested_rhat"):
        assert c.missing[name] == "needs at least 4 draws per chain"
    assert c.judged is None


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


def test_point_estimates_are_told_apart(target, classes):
    tree = pb.to_datatree(random_draws(target, 3, 1), target, {"in": classes[0]})
    c = pb.diagnose(tree)
    assert c.judged is None
    assert c.disagreement is not None


@pytest.mark.parametrize("given", [xr.DataTree(), {"theta": 1}])
def test_what_has_no_posterior_is_refused(given):
    with pytest.raises(pb.InputError, match="no group posterior with dims chain and draw"):
        pb.diagnose(given)


def test_no_draws_are_refused():
    with pytest.raises(pb.InputError, match="the posterior has 4 chains of 0 draws"):
        pb.diagnose(as_tree(np.zeros((4, 0, 1))))
