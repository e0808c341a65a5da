"""A directory of results: claimed before anything is computed, its files never half written."""

import contextlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from probbnn import __version__
from probbnn.errors import InputError

__all__ = ["claim", "environment", "write_json", "written_atomically"]

_VERSIONED = (
    "jax",
    "jaxlib",
    "flax",
    "blackjax",
    "optax",
    "numpyro",
    "arviz",
    "numpy",
    "scipy",
    "xarray",
    "scikit-learn",
    "tensorflow-datasets",
)


def environment() -> dict[str, Any]:
    """Versions, Python and device, as they go on record."""
    return {
        "versions": {
            "probbnn": __version__,
            **{name: metadata.version(name) for name in _VERSIONED},
        },
        "python": platform.python_version(),
        "device": {
            "platform": jax.default_backend(),
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "cpu_cores": os.cpu_count(),
        },
    }


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
    """Write ``content`` to ``path``, atomically; settings that JSON lacks as their ``str``."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    with written_atomically(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, renamed at the end: nothing is lost on the way."""
    beside = path.with_name(path.name + ".part")
    yield beside
    beside.replace(path)


def _plain(value: Any) -> Any:
    """What JSON has for a setting that it does not know."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value.item() if isinstance(value, np.generic) else str(value)
