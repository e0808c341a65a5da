"""Minibatch streams: every example once an epoch, each epoch anew, each chain on its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import probbnn as pb
from probbnn.data import sources as minibatch


def stream_of(rng_key, data_size, batch_size, num_steps):
    """Indices and masks, each ``(step, b)``: the data are their own indices."""
    data = jnp.arange(data_size)

    def step(stream, t):
        stream, batch = minibatch.next_minibatch(stream, t, data, data)
        return stream, (batch.inputs, batch.targets, batch.mask)

    stream = minibatch.init(rng_key, data_size, batch_size)
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
        minibatch.init(jax.random.key(0), 23, batch_size)
