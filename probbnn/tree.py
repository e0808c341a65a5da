"""Names that a person reads for the leaves and layers of a pytree of parameters."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

import jax

from probbnn.errors import InputError

__all__ = ["check_structure", "layers", "leaf_names", "matching", "nearest"]


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


def check_structure(position: Any, expected: Any) -> None:
    """Raise `InputError` unless a position is the same nest of containers as the expected one.

    Examples:
        >>> check_structure({"Dense_0": {"bias": 0.0}}, {"Dense_0": {"bias": 0.0, "kernel": 0.0}})
        Traceback (most recent call last):
        probbnn.errors.InputError: the position has no Dense_0.kernel; one of this log density ...
    """
    structures = [str(jax.tree.structure(tree)) for tree in (position, expected)]
    if structures[0] == structures[1]:
        return
    given, wanted = leaf_names(position), leaf_names(expected)
    missing = [name for name in wanted if name not in given]
    other = [name for name in given if name not in wanted]
    if missing:
        what = f"no {missing[0]}"
    elif other:
        what = f"{other[0]}, which this log density has not"
    else:
        kinds = [type(tree).__name__ for tree in (position, expected)]
        what = f"the right names in other containers (a {kinds[0]} where a {kinds[1]} is expected)"
    raise InputError(
        f"the position has {what}; one of this log density has {_some(wanted)}, as init gives it"
    )


def _some(names: list[str]) -> str:
    few = ", ".join(names[:6])
    return few if len(names) <= 6 else f"{few} and {len(names) - 6} more"


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
