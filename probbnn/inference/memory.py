"""What a run will take of the memory that there is, estimated before it begins."""

import jax

from probbnn.errors import InputError
from probbnn.machine import available_memory
from probbnn.posterior.base import Posterior

__all__ = ["check_memory", "num_bytes"]

# A position, a gradient and what a kernel carries beside them, such as a momentum.
_POSITIONS_PER_CHAIN = 4


def num_bytes(target: Posterior) -> int:
    """Bytes of one position."""
    shapes = jax.eval_shape(target.init, jax.random.key(0))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def check_memory(target: Posterior, num_chains: int, num_draws: int) -> None:
    """Raise `InputError` if there is less memory than a run must have.

    Args:
        target: what is sampled.
        num_chains: how many chains.
        num_draws: draws of each chain that stay in memory.
    """
    available = available_memory()
    if jax.default_backend() != "cpu":
        # Chains are on the device, their draws on the host.
        statistics = jax.local_devices()[0].memory_stats() or {}
        _check(
            num_chains * _POSITIONS_PER_CHAIN * num_bytes(target),
            statistics.get("bytes_limit"),
            f"{num_chains:,} chains",
        )
        needed = num_chains * num_draws * num_bytes(target)
    else:
        needed = num_chains * (_POSITIONS_PER_CHAIN + num_draws) * num_bytes(target)
    draws = f" that keep {num_draws:,} draws each" if num_draws else ""
    _check(needed, available, f"{num_chains:,} chains{draws}")


def _check(needed: int, available: int | None, what: str) -> None:
    if available is not None and needed > available:
        raise InputError(
            f"{what} take {_gigabytes(needed)} of memory at least, and {_gigabytes(available)} are "
            "available; run fewer chains, thin more, or keep draws on disk with out=…"
        )


def _gigabytes(number: int) -> str:
    return f"{number / 1e9:,.1f} GB"
