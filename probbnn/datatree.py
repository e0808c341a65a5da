"""Draws as an ArviZ tree: what they are, what they predict, and the data beside them."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np
import xarray as xr

from probbnn.data.sources import num_examples
from probbnn.follow import Follow, Followed, parameter_names
from probbnn.inference.draws import Draws, named
from probbnn.posterior.base import Posterior
from probbnn.posterior.flax import LogDensity
from probbnn.tree import leaf_names
from probbnn.types import Position

__all__ = ["to_datatree"]


def to_datatree(
    draws: Draws,
    target: Posterior | None = None,
    probes: Mapping[str, Any] | None = None,
    held_out: Any = None,
    meters: "_Meters | None" = None,
) -> xr.DataTree:
    """An ArviZ `DataTree` with dims ``chain, draw`` for `az.summary`, `az.rhat`, `az.loo`, ….

    Its groups, and what each of them takes:

    - ``posterior``: the norm of each layer's parameters, ``layer_norm`` over ``layer``, and
      ``weight``, 32 random ones of all parameters and the same in every run, over
      ``parameter``. With ``target``, the full-data ``log_density`` (of T = 1, whatever was
      sampled) and ``log_prior``.
    - ``sample_stats``: the per-draw statistics and the temperature that was asked for; with
      ``meters`` also what they measured, ``configurational_temperature`` and
      ``gradient_noise``, NaN at draws where they did not.
    - ``trace``: statistics of about 1,000 steps, warm-up included, over ``chain, step``.
    - ``log_likelihood``, with ``target``: that of 500 random *training* examples, ``targets``
      over ``example``, and what they are in ``observed_data``. PSIS-LOO reweights the draws
      to what they would be without an example, and that is an estimate of the prediction of
      unseen data only for an example that the draws have seen. For held-out ones there is
      nothing to take out: average their likelihood over the draws.
    - ``posterior_predictive``, with ``probes``: what each draw says there, over ``probe``:
      ``probability`` over ``class`` for a classifier (and over ``pixel`` where each pixel or
      token has a class), ``output`` over ``unit`` otherwise. The inputs themselves are in
      ``constant_data``.
    - ``predictions``, with ``held_out``: the same for 500 random held-out examples, and their
      ``log_likelihood``; inputs and targets are in ``predictions_constant_data``.

    Args:
        draws: what `sample` returned.
        target: the posterior that was sampled.
        probes: named sets of inputs, each a `Dataset` or an array ``(n, *input_shape)``, where
            the function that the network computes is to be followed: among the data, at the
            boundary between classes (`Predictive.least_decided`), and far from them.
            Coordinates are ``name[i]``.
        held_out: test data, a `Dataset` or a pair ``(inputs, targets)``. Classes are called
            what a `Dataset` calls them, and numbered otherwise.
        meters: what `measure_temperature` returned for these draws.

    Raises:
        InputError: if there are probes or held-out data and no network to evaluate there, or
            they are not like the data.
    """
    follow = Follow.of(target, probes, held_out)
    return tree_of(follow, follow.along(draws), draws, meters)


def tree_of(
    follow: Follow, followed: Followed, draws: Draws, meters: "_Meters | None" = None
) -> xr.DataTree:
    """The tree of what was followed.

    Args:
        follow: what was followed, and where.
        followed: what it was; of a group that was looked at less often, ``draw`` has its draws.
        draws: statistics and trace of all draws; their ``positions`` say no more than the shapes.
        meters: what `measure_temperature` returned for the draws that are followed.
    """
    chains = {"chain": ("chain", np.arange(draws.num_chains))}
    numbers = followed["parameters"].numbers
    of_draws = chains | {"draw": ("draw", numbers)}
    posterior = of_draws | _parameters(followed["parameters"].values, draws.positions)
    groups = {"sample_stats": of_draws | _statistics(draws, numbers)}
    if meters is not None:
        measured: _Variables = {k: (_DRAWS, v) for k, v in meters.sample_stats.items()}
        groups["sample_stats"] |= measured
    if draws.trace:
        groups["trace"] = chains | _trace(draws)
    if follow.training is not None:
        posterior |= {k: (_DRAWS, followed[k].values) for k in ("log_density", "log_prior")}
        examples: _Variables = {"example": ("example", follow.examples)}
        likelihoods: _Variables = {
            "targets": ((*_DRAWS, "example"), followed["log_likelihood"].values)
        }
        groups["log_likelihood"] = of_draws | examples | likelihoods
        groups["observed_data"] = examples | _constants(
            "targets", follow.training.targets, "example"
        )
    if follow.probes:
        probe = _probe(follow)
        said = _outputs(follow, followed["probes"].values, "probe")
        groups["posterior_predictive"] = of_draws | probe | said
        groups["constant_data"] = probe | _constants("inputs", follow.probe_inputs, "probe")
    if follow.predicted is not None:
        groups |= _held_out(follow, followed, chains)
    tree = xr.DataTree.from_dict(
        {
            f"/{group}": xr.Dataset(variables).set_coords(_ALONG & variables.keys())
            for group, variables in {"posterior": posterior, **groups}.items()
        }
    )
    tree.attrs["method"] = draws.method
    if draws.temperature is not None:
        tree.attrs["temperature"] = draws.temperature
    if draws.excluded:
        tree.attrs["excluded"] = named(draws.excluded)
    return tree


class _Meters(Protocol):
    """What the tree takes of `TemperatureMeters`."""

    @property
    def sample_stats(self) -> Mapping[str, np.ndarray]: ...


_DRAWS = ("chain", "draw")
# What it took to come to a draw is a coordinate of it.
_ALONG = {"step", "passes"}

# Name of a variable, or of a coordinate, to its dims and values.
_Variables = dict[str, tuple[Any, Any]]


def _parameters(values: Mapping[str, np.ndarray], positions: Position) -> _Variables:
    layer_names, labels = parameter_names(_one(positions))
    return {
        "layer": ("layer", layer_names),
        "layer_norm": ((*_DRAWS, "layer"), values["layer_norm"]),
        "parameter": ("parameter", labels),
        "weight": ((*_DRAWS, "parameter"), values["weight"]),
    }


def _one(positions: Position) -> Position:
    """Shapes of one position of many."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), positions)


def _statistics(draws: Draws, numbers: np.ndarray) -> _Variables:
    variables: _Variables = {
        name: (_DRAWS, stat[:, numbers]) for name, stat in draws.sample_stats.items()
    }
    if draws.temperature is not None:
        shape = (draws.num_chains, len(numbers))
        variables["temperature"] = (_DRAWS, np.full(shape, draws.temperature))
    for name, along in (("step", draws.draw_steps), ("passes", draws.passes)):
        if along is not None:
            variables[name] = ("draw", along[numbers])
    return variables


def _trace(draws: Draws) -> _Variables:
    return {
        "step": ("step", draws.trace_steps),
        **{name: (("chain", "step"), values) for name, values in draws.trace.items()},
    }


def _probe(follow: Follow) -> _Variables:
    names = [
        f"{name}[{i}]" for name, some in follow.probes.items() for i in range(num_examples(some))
    ]
    return {"probe": ("probe", names)}


def _held_out(follow: Follow, followed: Followed, chains: _Variables) -> dict[str, _Variables]:
    """What the draws say at some held-out examples, and the examples themselves."""
    numbers, outputs = followed["held-out values"]
    assert follow.predicted is not None
    inputs, targets = follow.predicted
    examples: _Variables = {"example": ("example", follow.held_out)}
    log_likelihood = followed["held-out log likelihood"].values
    return {
        "predictions": chains
        | {"draw": ("draw", numbers)}
        | examples
        | _outputs(follow, outputs, "example")
        | {"log_likelihood": ((*_DRAWS, "example"), log_likelihood)},
        "predictions_constant_data": examples
        | _constants("inputs", inputs, "example")
        | _constants("targets", targets, "example"),
    }


def _outputs(follow: Follow, outputs: np.ndarray, dim: str) -> _Variables:
    assert isinstance(follow.target, LogDensity)
    kind = follow.target.likelihood.quantity
    leading, dims = outputs.shape[:3], [dim]
    if kind == "probability" and outputs.ndim > 4:
        outputs = outputs.reshape(*leading, -1, outputs.shape[-1])
        dims.append("pixel")
    else:
        outputs = outputs.reshape(*leading, -1)
    number, classes = outputs.shape[-1], follow.classes
    axis = "class" if kind == "probability" else "unit"
    labels = list(classes) if kind == "probability" and len(classes) == number else range(number)
    return {axis: (axis, np.array(labels)), kind: ((*_DRAWS, *dims, axis), outputs)}


def _constants(what: str, arrays: Any, dim: str) -> _Variables:
    """Inputs or targets of examples, each array of a pytree as a variable."""
    leaves = jax.tree.leaves(arrays)
    if jax.tree_util.all_leaves([arrays]):
        return {what: (_dims(dim, what, arrays), np.asarray(arrays))}
    names = [f"{what}.{name}" for name in leaf_names(arrays)]
    return {
        name: (_dims(dim, name, leaf), np.asarray(leaf))
        for name, leaf in zip(names, leaves, strict=True)
    }


def _dims(first: str, what: str, array: Any) -> tuple[str, ...]:
    """Names for the axes of an array of examples."""
    if array.ndim == 4:
        return (first, "height", "width", "channel")
    # Of several arrays in a group only the inputs have plain names.
    axis = "axis" if what == "inputs" else what
    return (first, *(f"{axis}_{i}" for i in range(1, array.ndim)))
