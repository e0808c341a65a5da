"""Numbers stay what they are on the way to the device, or are refused."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probbnn as pb
from probbnn.arrays import on_device, with_dtype
from probbnn.errors import InputError

X = np.random.default_rng(0).normal(size=(6, 2))
LINEAR = (lambda key, x: jnp.zeros(2), lambda w, x: (x @ w)[:, None])


def density(inputs, targets):
    return pb.LogDensity(LINEAR, (inputs, targets), likelihood=pb.Gaussian(1.0))


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        (X, np.full(6, 3_000_000_000), "targets hold 3,000,000,000, which int32 cannot"),
        (X, np.full(6, -3_000_000_000), "targets hold -3,000,000,000, which int32 cannot"),
        ((X * 1e12).astype(int), X[:, 0], "inputs hold .*, which int32 cannot"),
        (X.astype("u8") + 2**40, X[:, 0], "inputs hold .*, which uint32 cannot"),
        (np.where(X > 1, 1e300, X), X[:, 0], r"inputs hold 1e\+300, which float32 cannot"),
        (X, np.full(6, -1e39), r"targets hold 1e\+39, which float32 cannot"),
        (X + [0, 1.7e9], X[:, 0], "inputs vary by .* around 170000000.*; subtract the mean"),
        (np.ma.masked_greater(X, 1), X[:, 0], "inputs are a masked array"),
        (X, np.ma.masked_greater(X[:, 0], 1), "targets are a masked array"),
    ],
)
def test_a_number_that_would_become_another_is_refused(inputs, targets, message):
    with pytest.raises(InputError, match=message) as caught:
        density(inputs, targets)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", ["f8", "f4", "i8", "i4", "u1", "?", "f2"])
def test_what_fits_is_as_it_was(dtype):
    array = np.array([[0, 1], [1, 100]]).astype(dtype)
    moved = on_device(array, "inputs")
    assert moved.dtype == jax.dtypes.canonicalize_dtype(array.dtype)
    np.testing.assert_array_equal(np.asarray(moved).astype(dtype), array)


def test_a_constant_column_and_missing_values_are_no_rounding():
    array = np.array([[1.7e9, np.nan], [1.7e9, np.inf]])
    assert with_dtype(array, np.float32, "inputs").dtype == np.float32


def test_inputs_to_predict_are_held_to_the_same():
    target = density(X, X[:, 0])
    with pytest.raises(InputError, match="inputs hold"):
        target.check_inputs(np.full((1, 2), 2**40))
    with pytest.raises(InputError, match="masked"):
        target.check_inputs(np.ma.masked_greater(X, 1))


def test_a_density_stays_when_its_arrays_change():
    # With this alignment a device on the host can take the memory itself.
    memory = np.zeros(8 * 4_096 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    inputs = memory[start : start + 8 * 4_096].view(np.float32).reshape(-1, 2)
    target = density(inputs, np.zeros(4_096, np.float32))
    position = jnp.ones(2)
    before = target.logdensity_fn(position)
    inputs[:] = 1
    assert target.logdensity_fn(position) == before


def test_metrics_do_not_look_through_a_mask():
    probs = np.full((4, 2), 0.5)
    with pytest.raises(InputError, match="labels are a masked array"):
        pb.evaluate(probs, np.ma.masked_equal([0, 1, 0, 1], 1))


def test_nothing_is_warned_of_what_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="inputs hold"):
            density(np.array([[1e300], [0.0]]), np.zeros(2))
