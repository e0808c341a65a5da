"""Sampled parameters, frozen ones and state: what a position holds and what stays as it was."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import freeze
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
    target = pb.LogDensity(nn.Dense(4, dtype=jnp.bfloat16), (images, classes[1][:2]))
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
