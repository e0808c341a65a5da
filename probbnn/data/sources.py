"""Sources of data: which examples make a minibatch, and where they are.

An epoch is a fresh random permutation of the data cut into ⌈N/b⌉ minibatches; the last one is
padded and masked where b does not divide N. Averaged over an epoch with the number of unmasked
examples as weights, the minibatch gradients are exactly the full-data gradient.

`init_indices` and `next_indices` say which examples those are. A source gathers them from where
they are, so that the same key gives the same minibatches wherever that is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.arrays import unmasked
from probbnn.errors import InputError, first_line
from probbnn.types import Batch, PRNGKey, PyTree

__all__ = [
    "DeviceArrays",
    "IndexStream",
    "arrays_of",
    "as_arrays",
    "check_batch_size",
    "check_finite",
    "init_indices",
    "next_indices",
    "num_examples",
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
        inputs: shape ``(N, …)``, or a pytree of such arrays.
        targets: likewise.
        weights: of each example's log likelihood, ``(N,)``; ``None``: 1.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> source = DeviceArrays(jnp.arange(5.0), jnp.arange(5))
        >>> stream = source.init(jax.random.key(0), batch_size=2)
        >>> stream, batch = source.next(stream, jnp.asarray(0))
        >>> batch.inputs.shape, source.size, source.num_blocks
        ((2,), 5, 1)
    """

    inputs: PyTree
    targets: PyTree
    weights: jax.Array | None = None

    @property
    def size(self) -> int:
        """N, the number of examples."""
        return num_examples(self.inputs)

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
            return stream, self._everything._replace(mask=jnp.ones(self.size, bool))
        stream, index, mask = next_indices(stream, step, self.size)
        return stream, self.gather(index)._replace(mask=mask)

    def gather(self, index: jax.Array | np.ndarray | slice) -> Batch:
        """The examples at these indices; a slice makes no copy of all of them."""
        return jax.tree.map(lambda leaf: leaf[index], self._everything)

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
            return self._everything
        length = -(-self.size // self.num_blocks)
        start = jnp.minimum(number * length, self.size - length)
        block: Batch = jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, length), self._everything
        )
        return block._replace(mask=start + jnp.arange(length) >= number * length)

    @property
    def _everything(self) -> Batch:
        return Batch(self.inputs, self.targets, weights=self.weights)


def num_examples(arrays: PyTree) -> int:
    """Length of the leading axis that all arrays of a pytree share."""
    return len(jax.tree.leaves(arrays)[0])


def arrays_of(data: Any) -> tuple[Any, Any]:
    """Inputs and targets of data, one row for each example.

    Args:
        data: a `Dataset`, a `Regression`, or a pair ``(inputs, targets)``, each an array or
            anything that NumPy makes one of: a data frame or series of numbers, a tensor. Inputs
            may be a tuple or dict of such arrays. Targets may be strings, the names of classes.

    Returns:
        NumPy arrays, or pytrees of them.

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
    inputs, targets = as_arrays(data[0], "inputs"), as_arrays(data[1], "targets")
    leaves = jax.tree.leaves((inputs, targets))
    if not jax.tree.leaves(inputs) or not jax.tree.leaves(targets):
        raise InputError("inputs or targets hold no array; give at least one of each")
    if any(leaf.ndim == 0 or len(leaf) != len(leaves[0]) or not len(leaf) for leaf in leaves):
        shapes = [_described(arrays, lambda leaf: leaf.shape) for arrays in (inputs, targets)]
        raise InputError(
            f"inputs have shape {shapes[0]} and targets {shapes[1]}; they need the same "
            "number of examples, at least one, along the first axis"
        )
    are_numbers = all(leaf.dtype.kind in "biuf" for leaf in jax.tree.leaves(inputs))
    if not are_numbers or any(leaf.dtype.kind not in "biufU" for leaf in jax.tree.leaves(targets)):
        types = [_described(arrays, lambda leaf: leaf.dtype) for arrays in (inputs, targets)]
        raise InputError(
            f"inputs are {types[0]} and targets {types[1]}; both must be numbers: encode "
            "anything else first"
        )
    check_finite(inputs)
    return inputs, targets


def as_arrays(values: Any, what: str) -> Any:
    """``values`` as a NumPy array, or a tuple or dict of arrays as one of NumPy arrays.

    Args:
        values: what a user has: arrays, data frames, tensors.
        what: what they are called.

    Raises:
        InputError: if there is no array to be made of them.
    """
    # A list is an array that has not been made yet.
    return jax.tree.map(lambda leaf: _as_array(leaf, what), values, is_leaf=_is_list)


def check_finite(inputs: Any) -> None:
    """Raise `InputError` if inputs, a pytree of arrays, have numbers that are not finite."""
    for leaf in jax.tree.leaves(inputs):
        if leaf.dtype.kind == "f" and not np.isfinite(leaf).all():
            raise InputError("inputs contain NaN or infinity; remove or impute those examples")


def _is_list(node: Any) -> bool:
    return isinstance(node, list)


def _as_array(values: Any, what: str) -> np.ndarray:
    if hasattr(values, "columns") and hasattr(values, "to_numpy"):
        return _of_frame(values, what)
    if hasattr(values, "toarray") and hasattr(values, "nnz"):
        raise InputError(
            f"{what} are a sparse {type(values).__name__}; a network takes arrays: give "
            f"{what}.toarray()"
        )
    try:
        array = unmasked(values, what)
    except InputError:
        raise
    except Exception as error:  # such as of a tensor that lives elsewhere
        raise InputError(
            f"{what} are a {type(values).__name__}, of which NumPy makes no array "
            f"({first_line(error)}); give an array"
        ) from error
    if array.dtype.kind == "O" and array.size and all(isinstance(x, str) for x in array.flat):
        return array.astype(str)
    if array.dtype.kind == "T":  # NumPy's strings of any length
        return array.astype(str)
    return array


def _of_frame(frame: Any, what: str) -> np.ndarray:
    """The columns of a data frame as floats."""
    columns = {name: np.asarray(frame[name]) for name in frame.columns}
    other = [f"{name!r}" for name, column in columns.items() if column.dtype.kind not in "biuf"]
    if other and what == "targets" and len(columns) == 1:
        return _as_array(next(iter(columns.values())), what)
    if other:
        raise InputError(
            f"{what}: column{'s' * (len(other) > 1)} {', '.join(other)} of the data frame "
            f"{'are' if len(other) > 1 else 'is'} not of numbers; encode or drop "
            f"{'them' if len(other) > 1 else 'it'} first, as with pandas.get_dummies"
        )
    return np.stack([column.astype(np.float32) for column in columns.values()], axis=1)


def _described(arrays: Any, describe: Callable[[np.ndarray], Any]) -> Any:
    """What is to be said of an array, or of each array of a pytree."""
    return jax.tree.map(lambda leaf: f"{describe(leaf)}", arrays)
