"""A pytree of arrays and a record in one file, which no code is run to read."""

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from probbnn.errors import InputError
from probbnn.files import plain, written_atomically
from probbnn.types import PyTree

__all__ = ["read_archive", "write_archive"]

_RECORD = "record"
_FORMAT = "probbnn draws 1"


def write_archive(path: str | os.PathLike[str], tree: PyTree, record: dict[str, Any]) -> None:
    """Write arrays in dicts, lists and tuples, and a record of what JSON holds, as ``.npz``.

    Raises:
        InputError: if the tree has other containers, or the file cannot be written.
    """
    path = Path(path).expanduser()
    leaves: list[np.ndarray] = []
    content = {"format": _FORMAT, "record": plain(record), "tree": _described(tree, leaves)}
    text = np.frombuffer(json.dumps(content).encode(), np.uint8)
    try:
        with written_atomically(path) as beside, beside.open("wb") as file:
            arrays: dict[str, Any] = {str(i): _storable(leaf) for i, leaf in enumerate(leaves)}
            arrays[_RECORD] = text
            np.savez(file, **arrays)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}); choose another path"
        ) from error


def read_archive(path: str | os.PathLike[str]) -> tuple[PyTree, dict[str, Any]]:
    """The tree and the record that `write_archive` wrote.

    Raises:
        InputError: if there is no such file, or it is damaged.
    """
    path = Path(path).expanduser()
    try:
        with np.load(path, allow_pickle=False) as file:
            content = json.loads(file[_RECORD].tobytes())
            if content["format"] != _FORMAT:
                raise InputError(f"{path} is of the format {content['format']!r:.40}")
            return _restored(content["tree"], file), content["record"]
    except FileNotFoundError:
        raise InputError(f"there is no file {path}; give what draws.save wrote") from None
    except InputError as error:
        raise InputError(f"{error}; this version reads {_FORMAT!r}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is damaged, or was not written by draws.save; sample again, or give another"
        ) from error


def _described(node: Any, leaves: list[np.ndarray]) -> Any:
    """The containers of a tree as JSON, each array as its number; it goes to ``leaves``."""
    if node is None:
        return None
    if type(node) in (list, tuple):
        return {type(node).__name__: [_described(child, leaves) for child in node]}
    if type(node) is dict and all(isinstance(key, str | int) for key in node):
        return {"dict": [[key, _described(child, leaves)] for key, child in node.items()]}
    if not hasattr(node, "dtype") or not hasattr(node, "shape"):
        raise InputError(
            f"the draws are in a {type(node).__name__}; save writes arrays in dicts, lists and "
            "tuples: convert the positions, or save them by pickle"
        )
    array = np.asarray(node)
    leaves.append(array)
    return {"array": len(leaves) - 1, "dtype": str(array.dtype)}


def _restored(node: Any, arrays: Any) -> Any:
    if node is None:
        return None
    if "array" in node:
        array = arrays[str(node["array"])]
        return array.view(jnp.dtype(node["dtype"])).reshape(array.shape)
    ((kind, children),) = node.items()
    if kind == "dict":
        return {key: _restored(child, arrays) for key, child in children}
    return {"list": list, "tuple": tuple}[kind](_each(children, arrays))


def _each(children: Any, arrays: Any) -> Iterator[Any]:
    return (_restored(child, arrays) for child in children)


def _storable(array: np.ndarray) -> np.ndarray:
    """As integers where NumPy has no word for the type, such as bfloat16."""
    return array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array
