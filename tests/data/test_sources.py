"""Minibatch streams: every example once an epoch, each epoch anew, each chain on its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import probbnn as pb
from probbnn.data import sources
from probbnn.data.sources import DeviceArrays

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
