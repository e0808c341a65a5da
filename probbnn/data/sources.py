"""Sources of data: which examples make a minibatch, and where they are.

An epoch is a fresh random permutation of the data cut into ⌈N/b⌉ minibatches; the last one is
padded and masked where b does not divide N. Averaged over an epoch with the number of unmasked
examples as weights, the minibatch gradients are exactly the full-data gradient.

`init_indices` and `next_indices` say which examples those are. A source gathers them from where
they are, so that the same key gives the same minibatches wherever that is.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.arrays import unmasked
from probbnn.errors import InputError
from probbnn.types import Batch, PRNGKey

__all__ = [
    "DeviceArrays",
    "IndexStream",
    "arrays_of",
    "check_batch_size",
    "init_indices",
    "next_indices",
]

# Examples evaluated at once by what looks at all the data: bounds its memory.
_BLOCK_SIZE = 2_000


class IndexStream(NamedTuple):
    """State of a stream of minibatches' indices.

    Attributes:
        rng_key: what all epochs' permutations derive from.
        order: the current epoch's permutation, int32 of shape ``(⌈N/b⌉, b)``; entries past the
            end of the data are padding.
    """

    rng_key: PRNGKey
    order: jax.Array


def check_batch_size(data_size: int, batch_size: int) -> None:
    """Raise `InputError` unless ``batch_size`` is between 1 and ``data_size``."""
    if not 1 <= batch_size <= data_size:
        raise InputError(
            f"batch_size is {batch_size} and the data have {data_size} examples; choose a "
            f"batch size from 1 to {data_size}"
        )


def init_indices(rng_key: PRNGKey, data_size: int, batch_size: int) -> IndexStream:
    """A stream of minibatches of ``batch_size`` out of ``data_size`` examples.

    Raises:
        InputError: if ``batch_size`` is not between 1 and ``data_size``.
    """
    check_batch_size(data_size, batch_size)
    num_batches = -(-data_size // batch_size)
    return IndexStream(rng_key, jnp.zeros((num_batches, batch_size), jnp.int32))


def next_indices(
    stream: IndexStream, step: jax.Array, data_size: int
) -> tuple[IndexStream, jax.Array, jax.Array]:
    """Indices and mask, ``(b,)`` each, of the minibatch of step number ``step``.

    ``step`` is an int32 scalar, counted from 0. Must be called with consecutive steps: the
    permutation is renewed at the first step of each epoch.
    """
    num_batches, batch_size = stream.order.shape
    epoch, position = jnp.divmod(step, num_batches)

    def renew() -> jax.Array:
        order = jax.random.permutation(jax.random.fold_in(stream.rng_key, epoch), data_size)
        padding = num_batches * batch_size - data_size
        return jnp.pad(order.astype(jnp.int32), (0, padding)).reshape(num_batches, batch_size)

    # All chains share the step number, so under vmap this stays a branch, taken once an epoch.
    order = jax.lax.cond(position == 0, renew, lambda: stream.order)
    mask = position * batch_size + jnp.arange(batch_size) < data_size
    return stream._replace(order=order), order[position], mask


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class DeviceArrays:
    """Data in the memory of the device.

    Attributes:
        inputs: shape ``(N, …)``.
        targets: shape ``(N, …)``.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> source = DeviceArrays(jnp.arange(5.0), jnp.arange(5))
        >>> stream = source.init(jax.random.key(0), batch_size=2)
        >>> stream, batch = source.next(stream, jnp.asarray(0))
        >>> batch.inputs.shape, source.size, source.num_blocks
        ((2,), 5, 1)
    """

    inputs: jax.Array
    targets: jax.Array

    @property
    def size(self) -> int:
        """N, the number of examples."""
        return len(self.inputs)

    def init(self, rng_key: PRNGKey, batch_size: int) -> IndexStream:
        """A stream of minibatches of ``batch_size`` examples.

        Raises:
            InputError: if ``batch_size`` is not between 1 and N.
        """
        return init_indices(rng_key, self.size, batch_size)

    def next(self, stream: IndexStream, step: jax.Array) -> tuple[IndexStream, Batch]:
        """The minibatch of step number ``step``, counted from 0; steps come one by one."""
        if len(stream.order) == 1:
            # All the data: their order does not matter, and chains can share them.
            return stream, Batch(self.inputs, self.targets, jnp.ones(self.size, bool))
        stream, index, mask = next_indices(stream, step, self.size)
        return stream, self.gather(index)._replace(mask=mask)

    def gather(self, index: jax.Array | np.ndarray | slice) -> Batch:
        """The examples at these indices; a slice makes no copy of all of them."""
        return Batch(self.inputs[index], self.targets[index])

    @property
    def num_blocks(self) -> int:
        """In how many blocks `block` gives all of the data."""
        return -(-self.size // _BLOCK_SIZE)

    def block(self, number: jax.Array) -> Batch:
        """All of the data, part by part: a slice of fixed length.

        The last one reaches back over its predecessor where N is no multiple of the length, and
        masks what that one had.
        """
        if self.num_blocks == 1:
            return Batch(self.inputs, self.targets)
        length = -(-self.size // self.num_blocks)
        start = jnp.minimum(number * length, self.size - length)
        return Batch(
            jax.lax.dynamic_slice_in_dim(self.inputs, start, length),
            jax.lax.dynamic_slice_in_dim(self.targets, start, length),
            mask=start + jnp.arange(length) >= number * length,
        )


def arrays_of(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of data, one row for each example.

    Args:
        data: a `Dataset`, a `Regression`, or a pair ``(inputs, targets)``.

    Raises:
        InputError: if it is nothing of the kind, or inputs are not finite.
    """
    if hasattr(data, "inputs") and hasattr(data, "targets"):
        data = data.inputs, data.targets
    if not (isinstance(data, tuple) and len(data) == 2):
        raise InputError(
            f"data is a {type(data).__name__}; give a Dataset or a pair (inputs, targets), or a "
            "Regression"
        )
    inputs, targets = unmasked(data[0], "inputs"), unmasked(data[1], "targets")
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets) or not len(inputs):
        raise InputError(
            f"inputs have shape {inputs.shape} and targets {targets.shape}; they need the same "
            "number of examples, at least one, along the first axis"
        )
    if inputs.dtype.kind not in "biuf" or targets.dtype.kind not in "biuf":
        raise InputError(
            f"inputs are {inputs.dtype} and targets {targets.dtype}; both must be numbers: encode "
            "anything else first"
        )
    if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
        raise InputError("inputs contain NaN or infinity; remove or impute those examples")
    return inputs, targets
