"""States of a run on disk, written in the background by Orbax, each whole or not there.

A checkpoint is a numbered directory that Orbax renames into place when all of it is written, so one
that a killed process left half written is never taken for one. Against whatever else may happen to
a file, the checksum of all arrays is kept beside them.
"""

import logging
import textwrap
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.errors import first_line, requires
from probbnn.types import PyTree

__all__ = ["Checkpoints", "Found"]

_KEPT = 2


class Found(NamedTuple):
    """The newest checkpoint that can be read.

    Attributes:
        state: like the template.
        record: what was saved beside it.
        notes: what is wrong with newer ones, a line each.
    """

    state: PyTree
    record: dict[str, Any]
    notes: list[str]


class Checkpoints:
    """The two newest checkpoints of a run.

    Args:
        directory: where they are, or will be.

    Raises:
        InputError: if Orbax is not installed.
    """

    def __init__(self, directory: Path) -> None:
        with requires("a checkpoint", extra="report"):
            import orbax.checkpoint
        self._orbax = orbax.checkpoint
        self._directory = directory.absolute()
        _quieten()
        self._open()

    def _open(self) -> None:
        options = self._orbax.CheckpointManagerOptions(
            max_to_keep=_KEPT, enable_async_checkpointing=True
        )
        self._manager = self._orbax.CheckpointManager(self._directory, options=options)
        self._next = max(self._manager.all_steps(), default=-1) + 1

    def save(self, state: PyTree, record: Mapping[str, Any]) -> str | None:
        """Write a checkpoint in the background; the state may be used up at once.

        Returns:
            Why the one *before* could not be written, if it could not; this one is tried then.
        """
        leaves = [_to_host(leaf) for leaf in jax.tree.leaves(state)]
        trouble = self.wait()
        args = self._orbax.args
        try:
            self._manager.save(
                self._next,
                args=args.Composite(
                    # Orbax has no arrays without elements; the template knows of those.
                    state=args.PyTreeSave({f"{i}": x for i, x in enumerate(leaves) if x.size}),
                    record=args.JsonSave({**record, "checksum": _checksum(leaves)}),
                ),
            )
        except Exception as error:
            trouble = trouble or first_line(error)
            self._open()
        self._next += 1
        return trouble

    def wait(self) -> str | None:
        """Wait until all is written; why it could not be, if it could not."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # whatever the disk, or Orbax, makes of it
            self._open()
            return first_line(error)
        return None

    def newest(self, template: Callable[[Mapping[str, Any]], PyTree]) -> Found | None:
        """The newest checkpoint that can be read; ``None`` if there is none.

        Args:
            template: a state whose structure, shapes and types the one to read has, by its record.
        """
        notes: list[str] = []
        damaged = []
        for number in sorted(self._manager.all_steps(), reverse=True):
            try:
                state, record = self._read(number, template)
            except Exception as error:  # a damaged file can make any of them raise anything
                why = textwrap.shorten(first_line(error), 100, placeholder="…")
                notes.append(f"checkpoint {number} cannot be read ({why})")
                damaged.append(number)
                continue
            for bad in damaged:
                self._manager.delete(bad)
            return Found(state, record, notes)
        if notes:
            return Found(None, {}, notes)
        return None

    def _read(
        self, number: int, template: Callable[[Mapping[str, Any]], PyTree]
    ) -> tuple[PyTree, dict[str, Any]]:
        args = self._orbax.args
        found = self._manager.restore(
            number, args=args.Composite(state=args.PyTreeRestore(), record=args.JsonRestore())
        )
        record = dict(found.record)
        expected, structure = jax.tree.flatten(template(record))
        leaves = []
        for index, like in enumerate(expected):
            host = _to_host(like)
            leaf = np.asarray(found.state[str(index)]) if host.size else host
            if leaf.shape != host.shape or leaf.dtype != host.dtype:
                raise ValueError(
                    f"array {index} is {leaf.dtype}{leaf.shape}, not {host.dtype}{host.shape}"
                )
            leaves.append(leaf)
        if record.pop("checksum") != _checksum(leaves):
            raise ValueError("its checksum is wrong")
        restored = [_to_device(leaf, like) for leaf, like in zip(leaves, expected, strict=True)]
        return jax.tree.unflatten(structure, restored), record

    def close(self) -> None:
        """End the threads that write."""
        self._manager.close()


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(leaf: Any) -> np.ndarray:
    """A copy that stays as it is when the device's memory is used again."""
    return np.array(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _to_device(leaf: np.ndarray, like: Any) -> jax.Array:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.array(leaf), impl=jax.random.key_impl(like))
    return jnp.array(leaf)


def _checksum(leaves: list[np.ndarray]) -> int:
    total = 0
    for leaf in leaves:
        total = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data, total)
    return total


def _quieten() -> None:
    """What Orbax logs of its own ways is no concern of a person who samples."""
    logger = logging.getLogger("absl")
    if _not_of_orbax not in logger.filters:
        logger.addFilter(_not_of_orbax)


def _not_of_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname
