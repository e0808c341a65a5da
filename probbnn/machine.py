"""The machine and the packages that something ran on."""

import contextlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from probbnn import __version__

__all__ = ["available_memory", "environment", "num_cores"]

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


def available_memory() -> int | None:
    """Bytes of the host's memory that are free or can be freed; ``None`` where nobody says."""
    found = []
    with contextlib.suppress(OSError, ValueError, StopIteration):  # Linux
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        found.append(1024 * int(line.split()[1]))
    with contextlib.suppress(OSError, ValueError):  # and a container, whose limit is lower
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{x}").read_text()) for x in _CGROUP)
        found.append(limit - used)
    return max(0, min(found)) if found else None


_CGROUP = ("max", "current")


def _versions() -> dict[str, str]:
    """Of the packages that are installed: some come with extras alone."""
    found = {}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
