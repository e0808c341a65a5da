"""The machine and the packages that something ran on."""

import os
import platform
from importlib import metadata
from typing import Any

import jax

from probbnn import __version__

__all__ = ["environment", "num_cores"]

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
        "versions": {"probbnn": __version__, **_versions()},
        "python": platform.python_version(),
        "device": {
            "platform": jax.default_backend(),
            "kind": jax.devices()[0].device_kind,
            "count": jax.device_count(),
            "cpu_cores": num_cores(),
        },
    }


def num_cores() -> int:
    """Processor cores that this process may use, which in a container are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions() -> dict[str, str]:
    """Of the packages that are installed: some come with extras alone."""
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
