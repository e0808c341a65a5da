"""Where draws go as they come: to memory, or block by block to disk as Zarr.

Zarr rather than NetCDF, because an array on disk grows by whole chunks, each a file of its own:
what was written stays as it was whatever happens to the next chunk, no library has a half-written
file open, and readers take the blocks they ask for. xarray opens the result (`xarray.open_zarr`).
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from probbnn.errors import requires
from probbnn.tree import leaf_names
from probbnn.types import PyTree

__all__ = ["MemoryStore", "Store", "StoredArray", "ZarrStore"]


class Store(Protocol):
    """Keeps pytrees of arrays ``(chain, draw, …)``, by name, that grow along the draws."""

    def write(self, name: str, start: int, block: PyTree) -> None:
        """Put the draws from number ``start`` on; what was there is replaced, later ones go."""
        ...

    def read(self, name: str, stop: int, chains: Sequence[int]) -> PyTree:
        """The first ``stop`` draws of these chains, leaves that can be sliced like an array."""
        ...


class MemoryStore:
    """Arrays that grow in the memory of the host."""

    def __init__(self) -> None:
        self._parts: dict[str, PyTree] = {}

    def write(self, name: str, start: int, block: PyTree) -> None:
        """See `Store.write`."""
        stop = start + _length(block)
        held = self._parts.get(name)
        room = -1 if held is None else _length(held)
        if stop > room:
            # Twice as much each time; what nobody has written to takes no memory.
            new = jax.tree.map(partial(_larger, size=max(stop, 2 * room)), block)
            if held is not None:
                jax.tree.map(partial(_put, where=slice(start)), new, _first(held, start))
            self._parts[name] = new
        jax.tree.map(partial(_put, where=slice(start, stop)), self._parts[name], block)

    def read(self, name: str, stop: int, chains: Sequence[int]) -> PyTree:
        """See `Store.read`; views where all chains are wanted."""

        def some(leaf: np.ndarray) -> np.ndarray:
            leaf = leaf[:, :stop]
            return leaf if len(chains) == len(leaf) else leaf[list(chains)]

        return jax.tree.map(some, self._parts[name])


class ZarrStore:
    """A Zarr group on disk: a group for each name, an array for each leaf.

    Args:
        path: where it is, or will be.

    Raises:
        InputError: if zarr is not installed.
    """

    def __init__(self, path: Path) -> None:
        with requires("keeping draws on disk", extra="report"):
            import zarr
        self.path = path
        self._group: Any = zarr.open_group(path, mode="a")
        self._structures: dict[str, Any] = {}

    def write(self, name: str, start: int, block: PyTree) -> None:
        """See `Store.write`."""
        leaves, self._structures[name] = jax.tree.flatten(block)
        stop = start + _length(block)
        for label, leaf in zip(leaf_names(block), leaves, strict=True):
            path = f"{name}/{label}"
            if path not in self._group:
                self._create(path, label, leaf)
            array = self._group[path]
            array.resize((leaf.shape[0], stop, *leaf.shape[2:]))
            array[:, start:stop] = _storable(leaf)

    def _create(self, path: str, label: str, leaf: np.ndarray) -> None:
        stored = _storable(leaf[:, :0])
        self._group.create_array(
            path,
            shape=stored.shape,
            # One chain's block a chunk, since readers go through one chain at a time.
            chunks=(1, max(1, leaf.shape[1]), *(max(1, size) for size in leaf.shape[2:])),
            dtype=stored.dtype,
            dimension_names=("chain", "draw", *(f"{label}_{i}" for i in range(leaf.ndim - 2))),
            attributes={"dtype": str(leaf.dtype)},
        )

    def read(self, name: str, stop: int, chains: Sequence[int]) -> PyTree:
        """See `Store.read`; of what another process wrote, a dictionary by dotted path."""
        arrays = dict(self._group[name].arrays())
        structure = self._structures.get(name)
        if structure is None:
            return {label: StoredArray(array, stop, chains) for label, array in arrays.items()}
        template = jax.tree.unflatten(structure, range(structure.num_leaves))
        stored = [StoredArray(arrays[label], stop, chains) for label in leaf_names(template)]
        return jax.tree.unflatten(structure, stored)

    def expect(self, name: str, template: PyTree) -> None:
        """Say of which structure the arrays are that another process wrote."""
        self._structures[name] = jax.tree.structure(template)


class StoredArray:
    """An array ``(chain, draw, …)`` on disk; indexing it reads what is asked for, and no more.

    Attributes:
        shape: of what can be read.
        dtype: of what is read.
    """

    def __init__(self, array: Any, num_draws: int, chains: Sequence[int]) -> None:
        self._array = array
        self._chains = np.asarray(chains, int)
        self.shape = (len(self._chains), num_draws, *array.shape[2:])
        # By way of JAX, whose names NumPy has not all.
        self.dtype = jax.numpy.dtype(array.attrs.get("dtype", str(array.dtype)))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        key = key if isinstance(key, tuple) else (key,)
        chain, draw, *rest = key + (slice(None),) * (2 - len(key))
        chosen, rows = self._chains[chain], np.arange(self.shape[1])[draw]
        # From the lowest to the highest: draws that are asked for together are near each other.
        low, high = (int(rows.min()), int(rows.max()) + 1) if rows.size else (0, 0)
        read = [self._array[int(c), low:high][rows - low] for c in np.atleast_1d(chosen)]
        values = np.stack(read) if read else np.empty((0, *rows.shape, *self.shape[2:]))
        values = values if chosen.ndim else values[0]
        values = values[(slice(None),) * (chosen.ndim + rows.ndim) + tuple(rest)]
        return values.astype(self.dtype, copy=False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


def _length(block: PyTree) -> int:
    return jax.tree.leaves(block)[0].shape[1]


def _larger(leaf: np.ndarray, size: int) -> np.ndarray:
    return np.empty((leaf.shape[0], size, *leaf.shape[2:]), leaf.dtype)


def _first(block: PyTree, number: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[:, :number], block)


def _put(to: np.ndarray, leaf: np.ndarray, where: slice) -> None:
    to[:, where] = leaf


def _storable(leaf: np.ndarray) -> np.ndarray:
    """In float32 where Zarr has no word for the type, such as bfloat16: exact, and read back."""
    return leaf.astype(np.float32) if leaf.dtype.kind == "V" else leaf
