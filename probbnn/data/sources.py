"""Minibatch streams on the device: epochs without replacement, one stream per chain.

An epoch is a fresh random permutation of the data cut into ⌈N/b⌉ minibatches; the last one is
padded and masked where b does not divide N. Averaged over an epoch with the number of unmasked
examples as weights, the minibatch gradients are exactly the full-data gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from probbnn.errors import InputError
from probbnn.posterior.base import Minibatch

__all__ = ["MinibatchStream", "check_batch_size", "init", "next_minibatch"]


class MinibatchStream(NamedTuple):
    """State of a stream.

    Attributes:
        rng_key: what all epochs' permutations derive from.
        order: the current epoch's permutation, int32 of shape ``(⌈N/b⌉, b)``; entries past the
            end of the data are padding.
    """

    rng_key: jax.Array
    order: jax.Array


def check_batch_size(data_size: int, batch_size: int) -> None:
    """Raise `InputError` unless ``batch_size`` is between 1 and ``data_size``."""
    if not 1 <= batch_size <= data_size:
        raise InputError(
            f"batch_size is {batch_size} and the data have {data_size} examples; choose a "
            f"batch size from 1 to {data_size}"
        )


def init(rng_key: jax.Array, data_size: int, batch_size: int) -> MinibatchStream:
    """A stream of minibatches of ``batch_size`` out of ``data_size`` examples.

    Raises:
        InputError: if ``batch_size`` is not between 1 and ``data_size``.
    """
    check_batch_size(data_size, batch_size)
    num_batches = -(-data_size // batch_size)
    return MinibatchStream(rng_key, jnp.zeros((num_batches, batch_size), jnp.int32))


def next_minibatch(
    stream: MinibatchStream, step: jax.Array, inputs: jax.Array, targets: jax.Array
) -> tuple[MinibatchStream, Minibatch]:
    """The minibatch of step number ``step`` (int32 scalar, counted from 0).

    Must be called with consecutive steps: the permutation is renewed at the first step of each
    epoch. Arrays of shape ``(N, …)`` give a `Minibatch` of shape ``(b, …)``.
    """
    num_batches, batch_size = stream.order.shape
    data_size = inputs.shape[0]
    if num_batches == 1:
        # All the data: their order does not matter, and chains can share them.
        return stream, Minibatch(inputs, targets, jnp.ones(data_size, bool))
    epoch, position = jnp.divmod(step, num_batches)

    def renew() -> jax.Array:
        order = jax.random.permutation(jax.random.fold_in(stream.rng_key, epoch), data_size)
        padding = num_batches * batch_size - data_size
        return jnp.pad(order.astype(jnp.int32), (0, padding)).reshape(num_batches, batch_size)

    # All chains share the step number, so under vmap this stays a branch, taken once an epoch.
    order = jax.lax.cond(position == 0, renew, lambda: stream.order)
    index = order[position]
    mask = position * batch_size + jnp.arange(batch_size) < data_size
    return stream._replace(order=order), Minibatch(inputs[index], targets[index], mask)
