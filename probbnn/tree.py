"""Names that a person reads for the leaves and layers of a pytree of parameters."""

from collections.abc import Iterable
from typing import Any

import jax

__all__ = ["layers", "leaf_names"]


def leaf_names(tree: Any) -> list[str]:
    """Dotted path of each leaf, in the order of `jax.tree.leaves`; no two are the same.

    A slash inside a key becomes a dot, since NetCDF and ArviZ keep it for groups. Where two paths
    then read alike, the later one gets a number. A tree that is a bare array has one leaf,
    ``"parameters"``.

    Examples:
        >>> leaf_names({"block/Dense_0": {"kernel": 0.0, "bias": 0.0}})
        ['block.Dense_0.bias', 'block.Dense_0.kernel']
    """
    return _unique(_dotted(path) for path, _ in jax.tree.leaves_with_path(tree))


def layers(tree: Any) -> dict[str, list[int]]:
    """Indices of the leaves of each layer, by the layer's dotted path.

    A layer is what holds the leaves; a leaf that nothing holds is a layer of its own.

    Examples:
        >>> layers({"Dense_0": {"kernel": 0.0, "bias": 0.0}, "scale": 0.0})
        {'Dense_0': [0, 1], 'scale': [2]}
    """
    members: dict[Any, list[int]] = {}
    for index, (path, _) in enumerate(jax.tree.leaves_with_path(tree)):
        members.setdefault(path[:-1] or path, []).append(index)
    return dict(zip(_unique(map(_dotted, members)), members.values(), strict=True))


def _dotted(path: Any) -> str:
    name = jax.tree_util.keystr(path, simple=True, separator=".").replace("/", ".")
    return name or "parameters"


def _unique(names: Iterable[str]) -> list[str]:
    taken: dict[str, None] = {}
    for name in names:
        candidate, number = name, 2
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken[candidate] = None
    return list(taken)
