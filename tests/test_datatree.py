"""Draws, and their way into ArviZ and NetCDF and back."""

import arviz as az
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
import xarray as xr
from helpers import NUM_INPUTS, random_draws
from numpy.testing import assert_allclose, assert_array_equal
from numpyro import distributions as dist

import probbnn as pb
from probbnn.predictive import values_per_draw
from probbnn.tree import layers, leaf_names

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def probes(classes):
    return {"train": classes[0][:2], "far": 10 + classes[0][:1]}


@pytest.fixture(scope="module")
def images():
    """Four 2x2 images of three classes that have names."""
    pixels = np.random.default_rng(0).integers(256, size=(4, 2, 2, 1), dtype=np.uint8)
    return pb.Dataset(pixels, np.array([0, 1, 2, 1]), ("cat", "dog", "<b>"), "pets", "test")


@pytest.fixture(scope="module")
def tree(target, sampled, probes, classes):
    return pb.to_datatree(sampled, target, probes, held_out=classes)


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
    sizes = {"chain": 2, "draw": 4}
    assert {name: dict(group.sizes) for name, group in tree.children.items()} == {
        "posterior": {**sizes, "layer": 2, "parameter": 32},
        "sample_stats": sizes,
        "trace": {"chain": 2, "step": 20},
        "log_likelihood": {**sizes, "example": 23},
        "observed_data": {"example": 23},
        "posterior_predictive": {**sizes, "probe": 3, "class": 4},
        "constant_data": {"probe": 3, "axis_1": 3},
        "predictions": {**sizes, "example": 23, "class": 4},
        "predictions_constant_data": {"example": 23, "axis_1": 3},
    }
    assert list(tree["posterior_predictive"]["probe"].values) == ["train[0]", "train[1]", "far[0]"]
    assert list(tree["posterior"]["layer"].values) == ["Dense_0", "Dense_1"]
    assert_array_equal(tree["sample_stats"]["step"], sampled.draw_steps)
    assert_array_equal(tree["sample_stats"]["passes"], sampled.passes)
    assert_array_equal(tree["trace"]["step"], sampled.trace_steps)
    assert tree["sample_stats"]["logdensity"].dims == ("chain", "draw")
    assert (tree["sample_stats"]["temperature"] == 2).all()
    assert tree.attrs == {"method": "sgld", "temperature": 2.0}


def test_the_tree_holds_what_each_draw_is_and_says(tree, target, sampled, probes, classes):
    inputs, labels = classes
    at = jax.tree.map(lambda leaf: leaf[1, 2], sampled.positions)
    here = {"chain": 1, "draw": 2}
    posterior = tree["posterior"].isel(here)
    norm = np.sqrt(sum(np.square(leaf).sum() for leaf in at["Dense_0"].values()))
    assert_allclose(posterior["layer_norm"].sel(layer="Dense_0"), norm, rtol=1e-6)
    assert_allclose(posterior["log_density"], target.logdensity_fn(at), rtol=1e-5)
    assert_allclose(posterior["log_prior"], target.logprior_fn(at), rtol=1e-5)
    log_probs = jax.nn.log_softmax(target.apply(at, inputs))[np.arange(23), labels]
    for group, name in (("log_likelihood", "targets"), ("predictions", "log_likelihood")):
        assert_allclose(tree[group][name].isel(here), log_probs, atol=1e-5)
    for group in ("observed_data", "predictions_constant_data"):
        assert_array_equal(tree[group]["targets"], labels)
    probs = jax.nn.softmax(target.apply(at, probes["train"]))
    said = tree["posterior_predictive"]["probability"].isel(here)
    assert_allclose(said[:2], probs, atol=1e-6)
    assert_array_equal(tree["constant_data"]["inputs"][:2], probes["train"])


def test_what_the_meters_measured_is_in_the_tree(target, sampled):
    meters = pb.measure_temperature(jax.random.key(0), target, sampled, num_draws=4)
    stats = pb.to_datatree(sampled, target, meters=meters)["sample_stats"]
    for name in ("configurational_temperature", "gradient_noise"):
        assert stats[name].dims == ("chain", "draw")
        assert_array_equal(stats[name], meters.sample_stats[name])
    assert_allclose(stats["configurational_temperature"].mean(), meters.configurational.value)


def test_the_weights_are_few_readable_and_always_the_same(tree, sampled):
    weights = tree["posterior"]["weight"]
    for name in weights["parameter"].values:
        layer, leaf, *index = name.replace("[", ".").replace("]", "").replace(",", ".").split(".")
        leaf = sampled.positions[layer][leaf]
        expected = leaf[:, :, *map(int, index)]
        assert_array_equal(weights.sel(parameter=name), expected)
    again = pb.to_datatree(pb.Draws(sampled.positions, "again"))["posterior"]["weight"]
    assert_array_equal(again, weights)


def test_all_of_a_few_weights_are_there_from_the_first_of_each_leaf_to_the_last():
    leaves = {"a": (2, 3, 2, 2), "b": (2, 3), "c": (2, 3, 2)}
    positions = {k: np.random.default_rng(0).normal(size=shape) for k, shape in leaves.items()}
    weights = pb.to_datatree(pb.Draws(positions, "by hand"))["posterior"]["weight"]
    names = ["a[0,0]", "a[0,1]", "a[1,0]", "a[1,1]", "b", "c[0]", "c[1]"]
    assert list(weights["parameter"].values) == names
    flat = [positions[k].reshape(2, 3, -1) for k in leaves]
    # In float32, which JAX makes of them.
    assert_array_equal(weights, np.concatenate(flat, axis=-1).astype(weights.dtype))


def test_large_data_and_networks_stay_small():
    positions = {"a/b": {"w": np.zeros((2, 3, 50, 40), np.float32)}, "c": np.ones((2, 3))}
    steps = np.arange(1, 5_001, 5)
    trace = {"logdensity": np.zeros((2, 1_000))}
    tree = pb.to_datatree(pb.Draws(positions, "by hand", trace=trace, trace_steps=steps))
    assert tree["posterior"].sizes["parameter"] == 32
    assert tree["trace"].sizes["step"] == 1_000
    assert tree["trace"]["step"][-1] == 4_996
    assert list(tree["posterior"]["layer"].values) == ["a.b", "c"]
    assert_array_equal(tree["posterior"]["layer_norm"].sel(layer="c"), np.ones((2, 3)))


def test_no_more_than_500_examples_are_kept(linear_regression, values):
    inputs, targets = (np.tile(x, (50,) + (1,) * (x.ndim - 1)) for x in values)
    target = pb.LogDensity(
        (lambda key, x: np.zeros(3), lambda theta, x: x @ theta),
        (inputs, targets),
        likelihood=pb.Gaussian(0.3),
    )
    draws = pb.Draws(np.zeros((2, 4, 3), np.float32), "by hand")
    tree = pb.to_datatree(draws, target, held_out=(inputs, targets))
    assert tree["log_likelihood"].sizes["example"] == 500
    example = tree["predictions"]["example"].values
    assert len(np.unique(example)) == 500
    assert_array_equal(tree["predictions_constant_data"]["targets"], targets[example])
    assert tree["posterior"]["layer"].values == ["parameters"]


def test_classes_are_called_what_the_data_set_calls_them(images):
    target = pb.LogDensity(pb.MLP(hidden=(2,), num_outputs=3), images)
    positions = jax.tree.map(lambda x: np.array(x)[None, None], target.init(jax.random.key(0)))
    tree = pb.to_datatree(pb.Draws(positions, "map"), target, {"some": images}, held_out=images)
    for group in ("posterior_predictive", "predictions"):
        assert list(tree[group]["class"].values) == ["cat", "dog", "<b>"]
    assert tree["constant_data"]["inputs"].dims == ("probe", "height", "width", "channel")
    plain = pb.to_datatree(pb.Draws(positions, "map"), target, {"some": images.images})
    # The likelihood knows them from the training data.
    assert list(plain["posterior_predictive"]["class"].values) == ["cat", "dog", "<b>"]


def test_without_a_target_the_tree_is_smaller(sampled, target, probes):
    tree = pb.to_datatree(sampled)
    assert set(tree.children) == {"posterior", "sample_stats", "trace"}
    assert set(tree["posterior"].data_vars) == {"layer_norm", "weight"}
    tree = pb.to_datatree(sampled, target)
    assert "log_density" in tree["posterior"]
    assert "posterior_predictive" not in tree.children
    for given in ({"probes": probes}, {"held_out": (np.zeros((2, 3)), np.zeros(2, int))}):
        with pytest.raises(pb.InputError, match="no target to evaluate there"):
            pb.to_datatree(sampled, **given)


def test_held_out_data_must_be_like_the_data(sampled, target, classes):
    inputs, labels = classes
    with pytest.raises(pb.InputError, match="label 9"):
        pb.to_datatree(sampled, target, held_out=(inputs, np.full(len(inputs), 9)))
    with pytest.raises(pb.InputError, match="same number of examples"):
        pb.to_datatree(sampled, target, held_out=(inputs, labels[:-1]))


def test_names_of_leaves_are_readable_and_unique():
    tree = {"a": {"b": 1.0}, "a.b": 2.0, "a/b": {"w": 3.0}, "c": [4.0, 5.0]}
    assert leaf_names(tree) == ["a.b", "a.b_2", "a.b.w", "c.0", "c.1"]
    assert layers(tree) == {"a": [0], "a.b": [1], "a.b_2": [2], "c": [3, 4]}
    assert (leaf_names(0.0), layers(0.0)) == (["parameters"], {"parameters": [0]})


def test_the_least_decided_inputs_are_at_the_boundary():
    probs = np.array([[0.9, 0.05, 0.05], [0.5, 0.5, 0.0], [0.1, 0.5, 0.4], [0.3, 0.3, 0.4]])
    predictive = pb.Predictive(probs, probs, probs, np.zeros(4), 1)
    assert list(predictive.least_decided(3)) == [1, 2, 3]


def test_point_estimates_have_no_temperature(sampled):
    assert pb.to_datatree(pb.Draws(sampled.positions, "map")).attrs == {"method": "map"}


def test_arviz_takes_the_tree(tree):
    """The calls that the docs print, on both versions of ArviZ."""
    summary = az.summary(pb.to_arviz(tree), round_to="none")
    assert {"log_density", "layer_norm[Dense_0]", "layer_norm[Dense_1]"} <= set(summary.index)
    assert list(az.summary(pb.to_arviz(tree), var_names="log_density").index) == ["log_density"]
    for values in (az.rhat(pb.to_arviz(tree)), az.ess(pb.to_arviz(tree))):
        assert np.isfinite(values["log_density"])
    with pytest.raises(pb.InputError, match="to_arviz was given a Draws; give what to_datatree"):
        pb.to_arviz(pb.Draws({"w": np.ones((2, 3))}, "by hand"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of a k that is too large
def test_arviz_takes_the_likelihoods(target):
    tree = pb.to_datatree(random_draws(target, 2, 20), target)
    loo = az.loo(pb.to_arviz(tree), pointwise=True)
    assert np.isfinite(loo.elpd_loo if hasattr(loo, "elpd_loo") else loo.elpd)


@pytest.mark.parametrize("plot", ["plot_trace", "plot_rank", "plot_autocorr", "plot_forest"])
def test_arviz_plots_the_tree(tree, plot):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    getattr(az, plot)(pb.to_arviz(tree), var_names=["log_density", "layer_norm"])
    matplotlib.pyplot.close("all")


def test_the_tree_survives_netcdf(tree, tmp_path):
    tree.to_netcdf(tmp_path / "draws.nc")
    with xr.open_datatree(tmp_path / "draws.nc") as back:
        back.load()
    assert back.identical(tree)


def test_regression_draws_have_a_tree_too(regression, regression_draws, values):
    tree = pb.to_datatree(regression_draws, regression, {"train": values[0][:2]})
    assert "posterior_predictive" in tree.children


def test_a_numpyro_target_has_likelihoods_and_no_probes():
    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0, 1))
        with numpyro.plate("data", len(y), subsample_size=5) as rows:
            numpyro.sample("y", dist.Normal(mean, 1), obs=y[rows])

    y = np.linspace(-1, 1, 12)
    target = pb.from_numpyro(model, y)
    means = np.array([[0.0, 1.0], [2.0, 3.0]], np.float32)
    draws = pb.Draws({"mean": means}, "by hand")
    tree = pb.to_datatree(draws, target)
    exact = -0.5 * (y - means[..., None]) ** 2 - 0.5 * np.log(2 * np.pi)
    assert_allclose(tree["log_likelihood"]["targets"], exact, rtol=1e-5, atol=1e-6)
    assert list(tree["posterior"]["parameter"].values) == ["mean"]
    with pytest.raises(pb.InputError, match="a NumPyroPosterior to evaluate there"):
        pb.to_datatree(draws, target, {"x": np.zeros((1, 1))})


class Both(nn.Module):
    """Of two arrays, of different shapes."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(jnp.concatenate([x["table"], x["image"].mean(axis=(1, 2))], axis=1))


def test_each_array_of_inputs_and_targets_has_a_place(tmp_path):
    rng = np.random.default_rng(0)
    inputs = {"table": rng.normal(size=(9, 3)), "image": rng.normal(size=(9, 4, 4, 1))}
    inputs = {name: values.astype(np.float32) for name, values in inputs.items()}
    targets = rng.normal(size=(9, 2)).astype(np.float32)
    target = pb.LogDensity(Both(), (inputs, targets), likelihood=pb.Gaussian())
    some = {name: values[:2] for name, values in inputs.items()}
    tree = pb.to_datatree(random_draws(target), target, {"a": some}, held_out=(inputs, targets))
    assert tree["posterior_predictive"]["output"].shape == (3, 7, 2, 2)
    constants = tree["predictions_constant_data"]
    assert set(constants.data_vars) == {"inputs.table", "inputs.image", "targets"}
    assert_array_equal(constants["inputs.table"], inputs["table"])
    tree.to_netcdf(tmp_path / "draws.nc")


@pytest.mark.parametrize("name", ["a\x00b", "a\nb", 3])
def test_a_name_of_probes_that_no_file_holds_is_one_line(target, draws, classes, name):
    with pytest.raises(pb.InputError, match="set of probes is called .*; names must be") as caught:
        pb.to_datatree(draws, target, {name: classes[0][:1]})
    assert "\n" not in str(caught.value)


def test_what_each_draw_says_stands_at_its_place(target, draws):
    inputs = np.random.default_rng(0).normal(size=(8, NUM_INPUTS)).astype(np.float32)
    found = values_per_draw(target, draws, inputs)
    for chain in range(draws.num_chains):
        for draw in (0, draws.num_draws - 1):
            position = jax.tree.map(lambda leaf, c=chain, d=draw: leaf[c, d], draws.positions)
            assert_allclose(found[chain, draw], target.values(inputs, position), rtol=1e-5)
