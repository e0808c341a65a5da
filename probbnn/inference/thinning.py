"""Evenly spaced items of a stream of unknown length, in a buffer of fixed size.

With a capacity of C, every item is kept until C have come; from then on every second one, and the
distance doubles again whenever the buffer is full. What is kept depends on how many items have come
and on nothing else, so a run that is made longer keeps what the longer run would have kept.

Nothing is ever moved: what stage j keeps, numbers m·2^j for m < C, stands where the bits of m,
rotated by j, say. A new number then falls on one that the stage has just given up.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["capacity_for", "kept", "slot"]

_Number = TypeVar("_Number", jax.Array, np.ndarray)


def capacity_for(wanted: int) -> int:
    """The largest power of two, from 2 on, that is no more than ``wanted``.

    Examples:
        >>> capacity_for(1_000), capacity_for(1)
        (512, 2)
    """
    return max(2, 1 << (max(wanted, 1).bit_length() - 1))


def slot(number: jax.Array, capacity: int) -> jax.Array:
    """Where the item with this number goes, an int32 scalar; ``capacity`` if it is not kept."""
    stage = 32 - jax.lax.clz(number // capacity)
    is_kept = (number >> stage) << stage == number
    return jnp.where(is_kept, _rotated(number >> stage, stage, capacity), capacity)


def kept(count: int, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the items that are kept of the first ``count``, and their slots.

    Examples:
        >>> numbers, slots = kept(10, 4)
        >>> numbers.tolist(), slots.tolist()
        ([0, 4, 8], [0, 1, 2])
    """
    stage = max(count - 1, 0) // capacity
    stage = stage.bit_length()
    index = np.arange(-(-count // (1 << stage)))
    return index << stage, _rotated(index, np.asarray(stage), capacity)


def _rotated(index: _Number, by: _Number, capacity: int) -> _Number:
    """``index``, a number below ``capacity``, with its bits rotated to the left."""
    num_bits = capacity.bit_length() - 1
    by = by % num_bits
    return (index << by | index >> (num_bits - by)) & (capacity - 1)
