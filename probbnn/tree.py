"""Names that a person reads for the leaves and layers of a pytree of parameters."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

import jax

__all__ = ["layers", "leaf_names", "matching", "nearest"]


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


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """The dotted paths that a pattern stands for.

    A pattern is the path of a leaf or of what holds it, with dots or slashes; ``*`` stands for
    anything within one part of a path, and ``**`` for any number of parts.

    Examples:
        >>> names = ["Dense_0.bias", "Dense_0.kernel", "head.Dense_0.bias"]
        >>> matching("Dense_0", names), matching("**/bias", names)
        (['Dense_0.bias', 'Dense_0.kernel'], ['Dense_0.bias', 'head.Dense_0.bias'])
    """
    parts = [
        r"(?:[^.]+\.)*" if part == "**" else re.escape(part).replace(r"\*", "[^.]*") + r"\."
        for part in pattern.replace("/", ".").split(".")
    ]
    regex = re.compile("".join(parts))
    return [name for name in names if regex.match(f"{name}.")]


def nearest(pattern: str, names: Iterable[str]) -> str:
    """A hint for a pattern that matches none of the names; empty where nothing is near.

    Examples:
        >>> nearest("Dens_0", ["Dense_0.bias", "Dense_0.kernel"])
        "; did you mean 'Dense_0'?"
    """
    paths = {".".join(n.split(".")[: i + 1]): None for n in names for i in range(n.count(".") + 1)}
    near = difflib.get_close_matches(pattern.replace("/", "."), list(paths), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


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
