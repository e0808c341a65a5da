"""Draws, and their way into ArviZ and NetCDF and back."""

import jax
import numpy as np
import pytest
import xarray as xr
from numpy.testing import assert_allclose, assert_array_equal

import probbnn as pb


@pytest.fixture(scope="module")
def probes(classes):
    return {"train": classes[0][:2], "far": 10 + classes[0][:1]}


@pytest.fixture(scope="module")
def tree(target, sampled, probes):
    return sampled.to_datatree(target, probes)


def for_arviz(tree):
    """ArviZ, and the tree in the form that it takes: before 1.0 without its preview, not a tree."""
    az = pytest.importorskip("arviz")
    if int(az.__version__.split(".")[0]) >= 1:
        return az, tree
    groups = {name: node.to_dataset() for name, node in tree.children.items()}
    return az, az.InferenceData(**groups)


def test_draws_count_chains_and_draws(sampled):
    assert (sampled.num_chains, sampled.num_draws) == (2, 4)


def test_last_keeps_the_last_draw_of_each_chain(sampled):
    last = sampled.last()
    assert (last.num_chains, last.num_draws) == (2, 1)
    jax.tree.map(
        lambda a, b: assert_array_equal(a[:, 0], b[:, -1]), last.positions, sampled.positions
    )
    assert_array_equal(last.draw_steps, [18])
    for name, stat in last.sample_stats.items():
        assert_array_equal(stat, sampled.sample_stats[name][:, -1:])
    assert last.temperature == sampled.temperature
    assert pb.Draws(sampled.positions, "by hand").last().draw_steps is None


def test_the_tree_has_arvizs_groups_dims_and_coordinates(tree, sampled):
    assert set(tree.children) == {"posterior", "sample_stats", "posterior_predictive"}
    sizes = {"chain": 2, "draw": 4}
    assert dict(tree["posterior"].sizes) == sizes
    assert dict(tree["sample_stats"].sizes) == sizes
    assert dict(tree["posterior_predictive"].sizes) == {**sizes, "probe": 3, "class": 4}
    assert list(tree["posterior_predictive"]["probe"].values) == ["train[0]", "train[1]", "far[0]"]
    assert_array_equal(tree["sample_stats"]["step"], sampled.draw_steps)
    assert tree["sample_stats"]["logdensity"].dims == ("chain", "draw")
    assert tree.attrs == {"method": "sgld", "temperature": 2.0}


def test_the_tree_holds_size_density_and_predictions_of_each_draw(tree, target, sampled, probes):
    kernel = sampled.positions["Dense_0"]["kernel"].astype(float)
    assert_allclose(
        tree["posterior"]["rms_Dense_0.kernel"], np.sqrt((kernel**2).mean(axis=(2, 3))), rtol=1e-6
    )
    at = jax.tree.map(lambda leaf: leaf[1, 2], sampled.positions)
    exact = target.logdensity_fn(at)
    assert_allclose(tree["posterior"]["log_density"][1, 2], exact, rtol=1e-5)
    probs = jax.nn.softmax(target.apply(at, probes["train"]))
    assert_allclose(tree["posterior_predictive"]["probability"][1, 2, :2], probs, atol=1e-6)


def test_without_a_target_the_tree_is_smaller(sampled, target, probes):
    tree = sampled.to_datatree()
    assert set(tree.children) == {"posterior", "sample_stats"}
    assert "log_density" not in tree["posterior"]
    tree = sampled.to_datatree(target)
    assert set(tree.children) == {"posterior", "sample_stats"}
    assert "log_density" in tree["posterior"]
    with pytest.raises(pb.InputError, match="no target to evaluate there"):
        sampled.to_datatree(probes=probes)


def test_point_estimates_have_no_temperature(sampled):
    assert pb.Draws(sampled.positions, "map").to_datatree().attrs == {"method": "map"}


def test_arviz_takes_the_tree(tree):
    az, data = for_arviz(tree)
    summary = az.summary(data, round_to="none")
    assert {"log_density", "rms_Dense_0.kernel", "rms_Dense_1.bias"} <= set(summary.index)
    for values in (az.rhat(data), az.ess(data)):
        assert np.isfinite(values["log_density"])


def test_the_tree_survives_netcdf(tree, tmp_path):
    tree.to_netcdf(tmp_path / "draws.nc")
    with xr.open_datatree(tmp_path / "draws.nc") as back:
        back.load()
    assert back.identical(tree)


def test_regression_draws_have_a_tree_too(regression, regression_draws, values):
    tree = regression_draws.to_datatree(regression, {"train": values[0][:2]})
    assert "posterior_predictive" in tree.children
