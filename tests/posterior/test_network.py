"""Sampled parameters, frozen ones and state: what a position holds and what stays as it was."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import freeze
from helpers import random_draws
from numpy.testing import assert_allclose, assert_array_equal

import probbnn as pb

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODULE = pb.MLP(hidden=(5,), num_outputs=4)


class LinenBatchNorm(nn.Module):
    train: bool = False

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.BatchNorm(use_running_average=not self.train)(x))


class NNXBatchNorm(nnx.Module):
    def __init__(self, rngs):
        self.norm, self.dense = nnx.BatchNorm(3, rngs=rngs), nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.norm(x))


@pytest.fixture(scope="module")
def trained(classes):
    """Variables as training leaves them: none of them what an initialiser gives."""
    variables = MODULE.init(jax.random.key(3), classes[0])
    return jax.tree.map(lambda leaf: leaf + 0.3, variables)


@pytest.mark.parametrize("wrap", [dict, freeze], ids=["dict", "FrozenDict"])
@pytest.mark.parametrize(
    ("trainable", "sampled"),
    [
        ("Dense_1", {"Dense_1": {"bias", "kernel"}}),
        ("Dense_0.kernel", {"Dense_0": {"kernel"}}),
        (lambda path: path.endswith("bias"), {"Dense_0": {"bias"}, "Dense_1": {"bias"}}),
        (None, {"Dense_0": {"bias", "kernel"}, "Dense_1": {"bias", "kernel"}}),
    ],
)
def test_only_what_is_trainable_is_sampled(classes, trained, wrap, trainable, sampled):
    target = pb.LogDensity(MODULE, classes, trainable=trainable, variables=wrap(trained))
    position = target.init(jax.random.key(0))
    assert {layer: set(leaves) for layer, leaves in position.items()} == sampled
    position = jax.tree.map(lambda leaf: leaf - 0.7, position)
    whole = {
        layer: {**leaves, **position.get(layer, {})} for layer, leaves in trained["params"].items()
    }
    inputs = classes[0]
    assert_allclose(
        target.apply(position, inputs), MODULE.apply({"params": whole}, inputs), rtol=1e-6
    )
    draws = pb.sample(jax.random.key(1), target, "sgld", num_steps=4, progress=False)
    assert jax.tree.structure(draws.positions) == jax.tree.structure(position)


def test_frozen_parameters_are_read_from_an_orbax_directory(classes, trained, tmp_path):
    checkpoint = pytest.importorskip("orbax.checkpoint")
    checkpoint.PyTreeCheckpointer().save(tmp_path / "trained", trained)
    target, same = (
        pb.LogDensity(MODULE, classes, trainable="Dense_1", variables=variables)
        for variables in (tmp_path / "trained", trained)
    )
    position = target.init(jax.random.key(0))
    assert_allclose(target.apply(position, classes[0]), same.apply(position, classes[0]))
    with pytest.raises(pb.InputError, match="there is no checkpoint at .*; give the directory"):
        pb.LogDensity(MODULE, classes, variables=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(pb.InputError, match="empty is no checkpoint of Orbax"):
        pb.LogDensity(MODULE, classes, variables=tmp_path / "empty")


def test_the_prior_is_that_of_the_sampled_parameters(classes, trained):
    target = pb.LogDensity(
        MODULE, classes, trainable="Dense_1", variables=trained, prior_scale={"Dense_1": 2.0}
    )
    position = target.init(jax.random.key(0))
    assert_allclose(
        target.logprior_fn(position), pb.GaussianPrior(2.0).log_prob(position), rtol=1e-6
    )


def test_given_batch_statistics_are_constants(classes):
    inputs, _ = classes
    _, updated = LinenBatchNorm(train=True).init_with_output(jax.random.key(0), inputs)
    target = pb.LogDensity(LinenBatchNorm(), classes, variables=updated)
    position = target.init(jax.random.key(1))
    assert set(position) == {"BatchNorm_0", "Dense_0"}
    exact = LinenBatchNorm().apply(
        {"params": position, "batch_stats": updated["batch_stats"]}, inputs
    )
    assert_allclose(target.apply(position, inputs), exact, rtol=1e-6)
    with pytest.raises(pb.InputError, match=r"\(batch_stats\), .*; give its trained values"):
        pb.LogDensity(LinenBatchNorm(), classes)


def test_an_nnx_instance_brings_its_frozen_parameters_and_its_statistics(classes):
    inputs, _ = classes
    module = NNXBatchNorm(nnx.Rngs(0))
    module(inputs + 5)  # in train mode: the running statistics move
    module.eval()
    target = pb.LogDensity(module, classes, trainable="dense")
    position = target.init(jax.random.key(1))
    assert set(position) == {"dense"}
    same = {"dense": nnx.to_pure_dict(nnx.state(module.dense, nnx.Param))}
    assert_allclose(target.apply(same, inputs), module(inputs), rtol=1e-5)
    assert abs(module.norm.mean[...]).min() > 0.04
    # A new module has seen no data, and its statistics are nobody's.
    with pytest.raises(pb.InputError, match="batch_stats"):
        pb.LogDensity(NNXBatchNorm, classes)


def test_outputs_are_float32_at_least_and_images_are_scaled(classes):
    images = np.full((2, 3), 255, np.uint8)
    target = pb.LogDensity(nn.Dense(4, dtype=jnp.bfloat16), (images, classes[1][:2]), images=True)
    position = jax.tree.map(jnp.ones_like, target.init(jax.random.key(0)))
    outputs = target.apply(position, images)
    assert outputs.dtype == jnp.float32
    assert_array_equal(outputs, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trainable": "Dense_1"}, "there are no variables; give the values of the frozen"),
        ({"trainable": "head", "variables": True}, "'head', which is no parameter's; they are"),
        ({"module": nnx.Linear, "variables": True}, "belong to a Linen module"),
        ({"module": lambda rngs: None, "trainable": "x"}, "says nothing of the values"),
    ],
)
def test_what_cannot_be_frozen_is_one_line(classes, trained, settings, message):
    module = settings.pop("module", MODULE) if "module" in settings else MODULE
    given = {**settings, "variables": trained} if "variables" in settings else settings
    with pytest.raises(pb.InputError, match=message) as caught:
        pb.LogDensity(module, classes, **given)
    assert "\n" not in str(caught.value)


# Modules that are told that they are evaluated


class Dropout(nn.Module):
    """Whose layers are told by an argument of the call."""

    @nn.compact
    def __call__(self, x, train=True):
        return nn.Dense(4)(nn.Dropout(0.9, deterministic=not train)(x))


class DropoutDeterministic(nn.Module):
    @nn.compact
    def __call__(self, x, *, deterministic):
        return nn.Dense(4)(nn.Dropout(0.9, deterministic=deterministic)(x))


class Sows(nn.Module):
    @nn.compact
    def __call__(self, x):
        self.sow("intermediates", "hidden", x)
        return nn.Dense(4)(x)


class Spectral(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        return nn.SpectralNorm(nn.Dense(4))(x, update_stats=train)


class NNXDropout(nnx.Module):
    def __init__(self, rngs):
        self.dropout, self.dense = nnx.Dropout(0.9, rngs=rngs), nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.dropout(x))


@pytest.mark.parametrize("module", [Dropout(), DropoutDeterministic(), Sows(), NNXDropout])
def test_modules_are_applied_in_eval_mode(classes, module):
    target = pb.LogDensity(module, classes)
    position = target.init(jax.random.key(0))
    dense = position.get("Dense_0", position.get("dense"))
    exact = classes[0] @ dense["kernel"] + dense["bias"]
    assert_allclose(target.apply(position, classes[0]), exact, rtol=1e-5, atol=1e-6)


def test_spectral_normalisation_takes_its_trained_state(classes):
    variables = Spectral().init(jax.random.key(0), classes[0])
    target = pb.LogDensity(Spectral(), classes, variables=variables)
    exact = Spectral().apply(variables, classes[0], train=False)
    assert_allclose(target.apply(variables["params"], classes[0]), exact, rtol=1e-5)


class AlwaysDropout(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.Dropout(0.5, deterministic=False)(x))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Spectral(), r"\(batch_stats\), .*; give its trained values \(variables="),
        (AlwaysDropout(), "draws random numbers .* an argument deterministic or train"),
    ],
)
def test_the_message_names_the_way_out_of_this_very_trouble(classes, module, message):
    with pytest.raises(pb.InputError, match=message) as caught:
        pb.LogDensity(module, classes)
    assert "\n" not in str(caught.value)
    assert "BatchNorm" not in str(caught.value)


# Several inputs and outputs


class Two(nn.Module):
    """Of two arrays, given as they come."""

    @nn.compact
    def __call__(self, both):
        one, two = both.values() if isinstance(both, dict) else both
        return nn.Dense(4)(jnp.concatenate([one, two], axis=1))


@pytest.mark.parametrize("kind", [tuple, dict])
def test_inputs_may_be_several_arrays(classes, kind):
    inputs, labels = classes
    both = (inputs[:, :1], inputs[:, 1:])
    both = {"a": both[0], "b": both[1]} if kind is dict else both
    target = pb.LogDensity(Two(), (both, labels))
    one = pb.LogDensity(nn.Dense(4), classes)
    position = target.init(jax.random.key(0))
    assert_allclose(
        target.logdensity_fn(position), one.logdensity_fn(position["Dense_0"]), rtol=1e-5
    )
    draws = pb.sample(jax.random.key(1), target, "psgld", num_steps=6, batch_size=5, progress=False)
    predictive = pb.predict(target, draws, both)
    same = pb.Draws(draws.positions["Dense_0"], "sgld")
    assert_allclose(predictive.probs, pb.predict(one, same, inputs).probs, rtol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (lambda both: both[0], "inputs are one array; those of the data were a tuple of 2"),
        (lambda both: {"a": both[0], "b": both[1]}, "a dict of a, b; those of the data were a tup"),
        (lambda both: (both[0], both[1][:3]), "inputs have 23 and 3 rows; give as many of each"),
        (lambda both: (both[1], both[0]), r"inputs have shape \(23, 2\); the network was built on"),
    ],
)
def test_several_inputs_of_another_kind_are_one_line(classes, inputs, message):
    both = (classes[0][:, :1], classes[0][:, 1:])
    target = pb.LogDensity(Two(), (both, classes[1]))
    with pytest.raises(pb.InputError, match=message):
        target.check_inputs(inputs(both))


class SeveralOutputs(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x), x


def test_an_output_too_many_is_one_line(classes):
    with pytest.raises(pb.InputError, match=r"gives several outputs \(0, 1\); a Categorical lik"):
        pb.LogDensity(SeveralOutputs(), classes)


# What is an image, a token, a number


def test_whether_uint8_are_images_is_said_once_and_kept(classes):
    labels = classes[1]
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(23, 4, 4, 1), dtype=np.uint8)
    flat = images.reshape(23, 16)
    with pytest.raises(pb.InputError, match="uint8 of shape .*; give images=True .* or images=F"):
        pb.LogDensity(nn.Dense(4), (flat, labels))
    scaled, raw = (pb.LogDensity(nn.Dense(4), (flat, labels), images=k) for k in (True, False))
    position = scaled.init(jax.random.key(0))
    exact = flat / 255.0 @ position["kernel"] + position["bias"]
    assert_allclose(scaled.apply(position, flat), exact, rtol=1e-4, atol=1e-5)
    exact = flat.astype(float) @ position["kernel"] + position["bias"]
    assert_allclose(raw.apply(position, flat), exact, rtol=1e-4, atol=1e-3)
    # Floats from 0 to 255 are no such images, and those from 0 to 1 are.
    with pytest.raises(pb.InputError, match="from 0 to 25[0-9] and the data were uint8 images, "):
        scaled.check_inputs(flat.astype(np.float32))
    fractions = (flat / 255).astype(np.float32)
    assert_allclose(
        scaled.apply(position, scaled.check_inputs(fractions)),
        exact_of(fractions, position),
        rtol=1e-4,
        atol=1e-5,
    )


def exact_of(inputs, position):
    return inputs @ np.asarray(position["kernel"], float) + position["bias"]


class Tokens(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        return nn.Dense(4)(nn.Embed(50, 3)(tokens).mean(axis=1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_tokens_are_taken_as_they_are_and_one_outside_the_vocabulary_is_named(classes, dtype):
    tokens = np.random.default_rng(0).integers(50, size=(23, 6)).astype(dtype)
    images = False if dtype == np.uint8 else None
    target = pb.LogDensity(Tokens(), (tokens, classes[1]), images=images)
    draws = pb.sample(jax.random.key(0), target, "sgld", num_steps=4, progress=False)
    position = jax.tree.map(lambda leaf: leaf[0, 0], draws.positions)
    exact = position["Embed_0"]["embedding"][tokens].mean(axis=1) @ position["Dense_0"]["kernel"]
    assert_allclose(
        target.apply(position, tokens), exact + position["Dense_0"]["bias"], rtol=1e-4, atol=1e-5
    )
    other = tokens.copy()
    other[7, 2] = 99
    with pytest.raises(pb.InputError, match="prediction for input 7 is not finite.*vocabulary"):
        pb.predict(target, draws, other)


# Units


def test_raw_units_are_warned_of_and_standardised_on_request(values):
    inputs, targets = values
    inputs, targets = 1e3 + 50 * inputs, 192_940 + 101_489 * targets
    module = pb.MLP(hidden=(), num_outputs=1)
    with pytest.warns(UserWarning, match="targets have mean .*; give standardise=True"):
        pb.LogDensity(module, (inputs, targets), likelihood=pb.LearnedGaussian())
    target = pb.LogDensity(
        module, (inputs, targets), likelihood=pb.LearnedGaussian(), standardise=True
    )
    draws = pb.sample(
        jax.random.key(0), target, "map", num_steps=1_000, step_size=0.02, progress=False
    )
    predictive = pb.predict(target, draws, inputs)
    # In dollars: a linear function of noise .3 × 101,489 explains nearly all of it.
    assert abs(predictive.mean.mean() / targets.mean() - 1) < 0.05
    assert pb.evaluate(predictive, targets, num_resamples=5).rmse.value < 0.3 * targets.std()
    # The density is that of the targets as they are: its Jacobian is in it.
    standard = pb.LogDensity(
        module,
        (
            (inputs - inputs.mean(axis=0)) / inputs.std(axis=0),
            (targets - targets.mean()) / targets.std(),
        ),
        likelihood=pb.LearnedGaussian(),
    )
    position = target.init(jax.random.key(1))
    jacobian = len(targets) * np.log(targets.std())
    assert_allclose(
        target.logdensity_fn(position), standard.logdensity_fn(position) - jacobian, rtol=1e-4
    )


def test_a_noise_scale_that_is_given_stays_in_the_units_of_the_targets(values):
    inputs, targets = values[0], 100 + 20 * values[1]
    target = pb.LogDensity(
        pb.MLP(hidden=(), num_outputs=1),
        (inputs, targets),
        likelihood=pb.Gaussian(6.0),
        standardise=True,
    )
    predictive = pb.predict(target, random_draws(target), inputs)
    assert_allclose(predictive.noise_std, 6.0, rtol=1e-6)


def together(change):
    """A linear module whose outputs ``change`` sees as a batch."""
    return (lambda key, x: {"w": jnp.ones((x.shape[1], 4))}), lambda p, x: change(x @ p["w"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y.mean(0, keepdims=True), r"\(1, 4\) for one example and \(1, 4\) for two"),
        (lambda y: y.sum(0), r"\(4,\) for one example and \(4,\) for two"),
        (lambda y: jnp.concatenate([y, y]), r"\(2, 4\) for one example and \(4, 4\) for two"),
    ],
)
def test_a_module_that_loses_examples_is_refused(classes, change, message):
    with pytest.raises(pb.InputError, match=message):
        pb.LogDensity(together(change), classes)


@pytest.mark.parametrize(
    "change",
    [lambda y: y - y.mean(0), lambda y: y[::-1], lambda y: jax.nn.softmax(y, axis=0)],
)
def test_a_module_that_mixes_examples_is_not_sampled(classes, tmp_path, change):
    inputs, labels = classes
    varied = inputs * np.array([1.0, 5.0, 2.0], np.float32)
    module = (lambda key, x: jax.random.normal(key, (3, 4))), lambda w, x: change(x @ w)
    target = pb.LogDensity(module, (varied, labels))
    out = tmp_path / "out"
    with pytest.raises(pb.InputError, match="depends on the other examples of its batch"):
        pb.sample(jax.random.key(0), target, "sgld", batch_size=5, num_steps=4, out=out)
    assert not out.exists()
