"""Minibatch streams: every example once an epoch, each chain on its own; data of any kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from numpy.testing import assert_array_equal

import probbnn as pb
from probbnn.data import sources
from probbnn.data.sources import DeviceArrays, arrays_of

pytestmark = pytest.mark.usefixtures("quick_compilation")


def stream_of(rng_key, data_size, batch_size, num_steps):
    """Indices and masks, each ``(step, b)``: the data are their own indices."""
    source = DeviceArrays(jnp.arange(data_size), jnp.arange(data_size))

    def step(stream, t):
        stream, batch = source.next(stream, t)
        return stream, (batch.inputs, batch.targets, batch.mask)

    stream = source.init(rng_key, batch_size)
    return jax.lax.scan(step, stream, jnp.arange(num_steps, dtype=jnp.int32))[1]


@pytest.mark.parametrize(("data_size", "batch_size"), [(12, 4), (23, 5), (7, 7), (7, 6), (5, 1)])
def test_an_epoch_shows_each_example_exactly_once(data_size, batch_size):
    per_epoch = -(-data_size // batch_size)
    inputs, targets, masks = stream_of(jax.random.key(0), data_size, batch_size, 3 * per_epoch)
    assert_array_equal(inputs, targets)
    epochs = [
        inputs[i : i + per_epoch][masks[i : i + per_epoch]]
        for i in range(0, 3 * per_epoch, per_epoch)
    ]
    for epoch in epochs:
        assert_array_equal(np.sort(epoch), np.arange(data_size))
    # Only the last minibatch of an epoch is ragged, and its padding stands at its end.
    counts = masks.sum(axis=1).reshape(3, per_epoch)
    assert (counts[:, :-1] == batch_size).all()
    assert (counts[:, -1] == data_size - batch_size * (per_epoch - 1)).all()
    assert_array_equal(masks, np.arange(batch_size) < np.asarray(masks.sum(axis=1))[:, None])


def test_epochs_differ_and_a_key_repeats_them():
    inputs, _, _ = stream_of(jax.random.key(0), 100, 20, 10)
    first, second = inputs[:5].ravel(), inputs[5:].ravel()
    assert (first != second).mean() > 0.9
    assert_array_equal(inputs, stream_of(jax.random.key(0), 100, 20, 10)[0])
    assert (inputs != stream_of(jax.random.key(1), 100, 20, 10)[0]).mean() > 0.9


def test_chains_draw_independent_minibatches_under_vmap():
    """Correlation of two uniform streams of 40,000 indices: σ = 0.005; fails 6 in 10⁵ times."""
    keys = jax.random.split(jax.random.key(0), 3)
    inputs, _, _ = jax.vmap(lambda key: stream_of(key, 1000, 100, 400))(keys)
    correlations = np.corrcoef(inputs.reshape(3, -1))[np.triu_indices(3, 1)]
    assert np.abs(correlations).max() < 4.2 * 0.005


def test_each_example_is_equally_likely_at_each_place():
    """The first index of 4,000 epochs, χ² with 9 degrees of freedom: fails 1 in 10⁵ times."""
    inputs, _, _ = stream_of(jax.random.key(0), 10, 5, 8000)
    counts = np.bincount(np.asarray(inputs[::2, 0]), minlength=10)
    assert ((counts - 400) ** 2 / 400).sum() < 39.3


@pytest.mark.parametrize("batch_size", [0, -1, 24])
def test_a_batch_size_outside_the_data_is_refused(batch_size):
    message = f"batch_size is {batch_size} and the data have 23 examples; .* from 1 to 23"
    with pytest.raises(pb.InputError, match=message):
        DeviceArrays(jnp.zeros(23), jnp.zeros(23)).init(jax.random.key(0), batch_size)


@pytest.mark.parametrize(("block_size", "num_blocks"), [(4, 6), (22, 2), (23, 1), (1, 23)])
def test_blocks_have_every_example_once(monkeypatch, block_size, num_blocks):
    monkeypatch.setattr(sources, "_BLOCK_SIZE", block_size)
    source = DeviceArrays(jnp.arange(23), -jnp.arange(23))
    assert source.num_blocks == num_blocks
    blocks = [source.block(number) for number in range(num_blocks)]
    assert len({block.inputs.shape for block in blocks}) == 1
    masks = [np.ones(23, bool) if b.mask is None else np.asarray(b.mask) for b in blocks]
    seen = [np.asarray(b.inputs)[mask] for b, mask in zip(blocks, masks, strict=True)]
    assert_array_equal(np.concatenate(seen), np.arange(23))
    for block in blocks:
        assert_array_equal(block.targets, -block.inputs)


def test_a_slice_gathers_without_a_copy_of_all():
    source = DeviceArrays(jnp.arange(5), jnp.arange(5))
    assert source.gather(slice(None)).inputs is source.inputs
    assert_array_equal(source.gather(np.array([3, 1])).inputs, [3, 1])


# What users have


class Tensor:
    """What Torch and TensorFlow offer NumPy."""

    def __init__(self, values):
        self._values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self._values, dtype)


class OnDevice:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy.\nUse Tensor.cpu()")


X = np.arange(12.0, dtype=np.float32).reshape(4, 3)


@pytest.mark.parametrize(
    ("given", "inputs", "targets"),
    [
        ((Tensor(X), Tensor([0, 1, 2, 0])), X, [0, 1, 2, 0]),
        ((X.tolist(), [0, 1, 2, 0]), X, [0, 1, 2, 0]),
        ((pd.DataFrame(X, columns=list("abc")), pd.Series([0, 1, 2, 0])), X, [0, 1, 2, 0]),
        (
            (pd.DataFrame({"a": [1, 2, 3, 4], "b": [True, False, True, True]}), [0, 1, 1, 0]),
            [[1, 1], [2, 0], [3, 1], [4, 1]],
            [0, 1, 1, 0],
        ),
        ((X, pd.Series(["u", "v", "w", "u"])), X, ["u", "v", "w", "u"]),
        ((X, pd.DataFrame({"class": ["u", "v", "w", "u"]})), X, ["u", "v", "w", "u"]),
        ((X, pd.Series(["u", "v", "w", "u"]).astype("category")), X, ["u", "v", "w", "u"]),
    ],
    ids=["tensors", "lists", "frame", "columns", "names", "frame of names", "category"],
)
def test_frames_tensors_and_names_become_arrays(given, inputs, targets):
    found = arrays_of(given)
    assert_array_equal(found[0], inputs)
    assert_array_equal(found[1], targets)
    assert found[0].dtype.kind == "f" or not hasattr(given[0], "columns")


def test_several_inputs_are_arrays_each():
    inputs, _ = arrays_of(({"a": Tensor(X), "b": pd.DataFrame(X)}, [0, 1, 2, 0]))
    assert_array_equal(inputs["a"], X)
    assert_array_equal(inputs["b"], X)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: (pd.DataFrame({"a": [1.0, 2], "town": ["x", "y"]}), [0, 1]), "column 'town' of"),
        (lambda: (scipy.sparse.csr_matrix(X), [0, 1, 2, 0]), r"sparse .* give inputs.toarray\(\)"),
        (lambda: (OnDevice(), [0, 1]), "inputs are a OnDevice, of which NumPy makes no array"),
        (lambda: ((X, X[:2]), [0, 1, 2, 0]), "the same number of examples"),
        (lambda: (np.array(["a", "b"]), [0, 1]), "inputs are <U1 and targets int64; both must be"),
        (lambda: (np.array([X, None], object), [0, 1]), "both must be numbers: encode"),
        (lambda: ({}, [0, 1]), "hold no array; give at least one of each"),
        (lambda: X, "data is a ndarray; give a Dataset or a pair"),
        (lambda: (np.full((2, 1), np.nan), [0, 1]), "inputs contain NaN or infinity"),
    ],
)
def test_what_is_no_array_of_numbers_is_one_line(data, message):
    with pytest.raises(pb.InputError, match=message) as caught:
        arrays_of(data())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones(3), r"weights have shape \(3,\) for 23 examples"),
        (-np.ones(23), "none negative and at least one positive"),
        (np.zeros(23), "none negative and at least one positive"),
        ("balanced", "weights have shape"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(classes, weights, message):
    with pytest.raises(pb.InputError, match=message):
        pb.LogDensity(pb.MLP(hidden=(), num_outputs=4), classes, weights=weights)
