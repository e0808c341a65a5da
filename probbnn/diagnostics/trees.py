"""From an ArviZ tree to arrays ``(chain, draw, value)``, with a name for each value.

Nothing else here knows how a tree is laid out: which groups there are, and which of their variables
are the function, parameters or neither.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import xarray as xr

from probbnn.subsample import random_subset

__all__ = ["Quantities", "Tree", "class_probabilities", "function", "group", "parameters", "values"]

# Variables of ``posterior_predictive`` that are the function, and not new observations, whose
# noise would make any chain look as if it mixed.
_FUNCTIONS = ("probability", "output")
# Variables of ``posterior`` that are no parameters.
_NO_PARAMETERS = {"log_density", "log_prior", "layer_norm"}
# Of more than this, a random subset says the same.
_MAX_VALUES = 2_000


class Tree(Protocol):
    """What keeps a run in groups: an `xarray.DataTree`, or an ArviZ 0.23 `InferenceData`."""

    def __getitem__(self, name: str, /) -> Any:
        """The group of that name."""


class Quantities(NamedTuple):
    """Numbers that were followed along the chains.

    Attributes:
        names: what each is called, ``(value,)``.
        values: ``(chain, draw, value)``.
    """

    names: list[str]
    values: np.ndarray


def group(tree: Tree, name: str) -> xr.Dataset | None:
    """The group of that name, ``None`` if there is none."""
    try:
        found = tree[name]
    except (KeyError, TypeError):
        return None
    return found.to_dataset() if isinstance(found, xr.DataTree) else found


def parameters(posterior: xr.Dataset) -> Quantities:
    """The parameters, or else whatever the posterior has."""
    names = [name for name in posterior.data_vars if name not in _NO_PARAMETERS]
    return values(posterior[names] if names else posterior)


def function(tree: Tree, num_chains: int, num_draws: int) -> Quantities | None:
    """What is followed at the probes, if it is that of the very draws of the posterior."""
    predictive = group(tree, "posterior_predictive")
    if predictive is None:
        return None
    found = values(predictive[[name for name in _FUNCTIONS if name in predictive]])
    of_these_draws = found.values.shape[:2] == (num_chains, num_draws)
    return found if found.names and of_these_draws else None


def class_probabilities(tree: Tree, name: str, dim: str) -> xr.DataArray | None:
    """A group's class probabilities ``(chain, draw, dim, class)``, as `to_datatree` has them.

    ``None`` if it has none of exactly these dims.
    """
    dims = ("chain", "draw", dim, "class")
    found = group(tree, name)
    if found is None or "probability" not in found or set(found["probability"].dims) != set(dims):
        return None
    return found["probability"].transpose(*dims)


def values(dataset: xr.Dataset) -> Quantities:
    """All numbers of a group, a random subset if there are too many."""
    names: list[str] = []
    columns = []
    for name, variable in dataset.data_vars.items():
        if not {"chain", "draw"} <= set(variable.dims) or variable.dtype.kind not in "biuf":
            continue
        variable = variable.transpose("chain", "draw", ...)
        axes = [
            variable.coords[dim].values if dim in variable.coords else range(size)
            for dim, size in zip(variable.dims[2:], variable.shape[2:], strict=True)
        ]
        names += [_label(str(name), at) for at in itertools.product(*axes)]
        column = variable.values.reshape(*variable.shape[:2], -1)
        columns.append(column if column.dtype.kind == "f" else column.astype(float))
    if not columns:
        nothing = np.empty((dataset.sizes.get("chain", 0), dataset.sizes.get("draw", 0), 0))
        return Quantities([], nothing)
    everything = np.concatenate(columns, axis=-1)
    if len(names) <= _MAX_VALUES:
        return Quantities(names, everything)
    chosen = random_subset(len(names), _MAX_VALUES)
    return Quantities([names[i] for i in chosen], everything[..., chosen])


def _label(name: str, at: Sequence[object]) -> str:
    return f"{name}[{', '.join(map(str, at))}]" if at else name
