"""The networks of the presets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import probbnn as pb


def parameters(model, shape=(1, 28, 28, 1), seed=0):
    return jax.jit(model.init)(jax.random.key(seed), jnp.zeros(shape))["params"]


@pytest.fixture(scope="module")
def lenet():
    return parameters(pb.LeNet300100())


def test_lenet_is_784_300_100_10(lenet):
    shapes = [lenet[f"Dense_{i}"]["kernel"].shape for i in range(3)]
    assert shapes == [(784, 300), (300, 100), (100, 10)]
    assert sum(leaf.size for leaf in jax.tree.leaves(lenet)) == 266_610


def test_kernels_start_with_standard_deviation_one_over_root_fan_in_and_biases_at_zero(lenet):
    """235,200 truncated normals: the standard deviation within 1 %, 6 of its standard errors."""
    kernel = np.asarray(lenet["Dense_0"]["kernel"], float)
    assert_allclose(kernel.std(), 784**-0.5, rtol=0.01)
    assert np.abs(kernel).max() < 2.3 * 784**-0.5  # truncated at two of the parent's σ
    assert_array_equal(lenet["Dense_0"]["bias"], 0)


def test_mlp_is_affine_maps_and_activations():
    model, inputs = pb.MLP(hidden=(3,), num_outputs=2, activation=jnp.tanh), np.ones((5, 2, 2))
    p = parameters(model, (1, 2, 2))
    assert model.apply({"params": p}, inputs).shape == (5, 2)
    hidden = np.tanh(inputs.reshape(5, 4) @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"])
    exact = hidden @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]
    assert_allclose(model.apply({"params": p}, inputs), exact, rtol=1e-5)
    assert set(parameters(pb.MLP(hidden=()), (1, 4))) == {"Dense_0"}


def test_compute_dtype_leaves_parameters_in_float32():
    model = pb.MLP(hidden=(3,), dtype=jnp.bfloat16)
    p = parameters(model, (1, 4))
    assert {leaf.dtype for leaf in jax.tree.leaves(p)} == {jnp.dtype(jnp.float32)}
    assert model.apply({"params": p}, jnp.ones((2, 4))).dtype == jnp.bfloat16
