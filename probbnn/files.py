"""A directory of results: claimed before anything is computed, its files never half written."""

import contextlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from probbnn.errors import InputError

__all__ = ["claim", "plain", "write_json", "written_atomically"]


def claim(directory: Path) -> bool:
    """Make the directory unless it holds anything; whether it is a new one.

    Raises:
        InputError: if it holds something or cannot be written.
    """
    is_new = not directory.exists()
    try:
        if directory.is_dir() and any(directory.iterdir()):
            is_run = any((directory / f"{n}.json").exists() for n in ("run", "comparison"))
            what = "holds another run" if is_run else "is not empty"
            raise InputError(f"output directory {directory} {what}; choose a new one with --out")
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass  # so it can be written
    except OSError as error:
        raise InputError(
            f"output directory {directory} cannot be written ({error.strerror}); choose another "
            "with --out"
        ) from error
    return is_new


def write_json(path: Path, content: Any) -> None:
    """Write what `plain` makes of ``content`` to ``path``, atomically."""
    text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    with written_atomically(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, renamed at the end: nothing is lost on the way."""
    beside = path.with_name(path.name + ".part")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """``value`` as JSON has it: ``None`` for NaN and infinity, ``str`` for what JSON lacks.

    What has a ``to_dict`` is asked for it; other dataclasses and named tuples are their fields.

    Examples:
        >>> plain({"a": np.float32(1), "b": [float("nan"), abs]})
        {'a': 1.0, 'b': [None, '<built-in function abs>']}
    """
    if hasattr(value, "to_dict") and not isinstance(value, type):
        return {str(key): plain(item) for key, item in value.to_dict().items()}
    if is_dataclass(value) and not isinstance(value, type):
        return plain({f.name: getattr(value, f.name) for f in fields(value)})
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | jax.Array):
        return plain(np.asarray(value).tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
