"""Draws as an ArviZ tree: what they are, what they predict, and the data beside them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from probbnn.data.sources import arrays_of, num_examples
from probbnn.errors import InputError
from probbnn.inference.draws import Draws
from probbnn.posterior.base import Posterior
from probbnn.posterior.flax import LogDensity
from probbnn.predictive import logdensities, loglikelihoods, logpriors, values_per_draw
from probbnn.subsample import random_subset
from probbnn.tree import layers, leaf_names
from probbnn.types import Batch, Position

__all__ = ["to_datatree"]

# What the tree keeps at most, so that it stays small for any network and data.
_NUM_WEIGHTS = 32
_NUM_EXAMPLES = 500


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
    chains = {"chain": ("chain", np.arange(draws.num_chains))}
    of_draws = chains | {"draw": ("draw", np.arange(draws.num_draws))}
    posterior = of_draws | _parameters(draws.positions)
    groups = {"sample_stats": of_draws | _statistics(draws)}
    if meters is not None:
        measured: _Variables = {k: (_DRAWS, v) for k, v in meters.sample_stats.items()}
        groups["sample_stats"] |= measured
    if draws.trace:
        groups["trace"] = chains | _trace(draws)
    if target is not None:
        posterior |= _densities(target, draws)
        likelihoods, observed = _training(target, draws)
        groups |= {"log_likelihood": of_draws | likelihoods, "observed_data": observed}
    if probes or held_out is not None:
        network = _network(target)
        names = getattr(held_out, "classes", ()) or getattr(network.likelihood, "classes", ())
        if probes:
            outputs, inputs = _at_probes(network, draws, probes, names)
            groups |= {"posterior_predictive": of_draws | outputs, "constant_data": inputs}
        if held_out is not None:
            outputs, inputs = _at_held_out(network, draws, held_out, names)
            groups |= {
                "predictions": of_draws | outputs,
                "predictions_constant_data": inputs,
            }
    tree = xr.DataTree.from_dict(
        {
            f"/{group}": xr.Dataset(variables).set_coords(_ALONG & variables.keys())
            for group, variables in {"posterior": posterior, **groups}.items()
        }
    )
    tree.attrs["method"] = draws.method
    if draws.temperature is not None:
        tree.attrs["temperature"] = draws.temperature
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


def _parameters(positions: Position) -> _Variables:
    """Norms of the layers and a few of the weights, with no copy of them all."""
    names, leaves = leaf_names(positions), jax.tree.leaves(positions)
    members = layers(positions)
    squares = np.stack(
        [
            # In float64, and without a copy of the leaf in it.
            np.einsum("cdk,cdk->cd", flat, flat, dtype=float)
            for flat in (np.asarray(leaf).reshape(*leaf.shape[:2], -1) for leaf in leaves)
        ]
    )
    norms = [np.sqrt(squares[index].sum(axis=0)) for index in members.values()]
    offsets = np.cumsum([0, *(leaf[0, 0].size for leaf in leaves)])
    chosen = random_subset(int(offsets[-1]), _NUM_WEIGHTS)
    weights, labels = [], []
    for number, which in zip(chosen, np.searchsorted(offsets, chosen, "right") - 1, strict=True):
        index = np.unravel_index(number - offsets[which], leaves[which].shape[2:])
        weights.append(leaves[which][:, :, *index])
        labels.append(names[which] + (f"[{','.join(map(str, index))}]" if index else ""))
    return {
        "layer": ("layer", list(members)),
        "layer_norm": ((*_DRAWS, "layer"), np.stack(norms, axis=-1)),
        "parameter": ("parameter", labels),
        "weight": ((*_DRAWS, "parameter"), np.stack(weights, axis=-1)),
    }


def _densities(target: Posterior, draws: Draws) -> _Variables:
    return {
        "log_density": (_DRAWS, logdensities(target, draws)),
        "log_prior": (_DRAWS, logpriors(target, draws)),
    }


def _statistics(draws: Draws) -> _Variables:
    variables: _Variables = {name: (_DRAWS, stat) for name, stat in draws.sample_stats.items()}
    if draws.temperature is not None:
        shape = (draws.num_chains, draws.num_draws)
        variables["temperature"] = (_DRAWS, np.full(shape, draws.temperature))
    for name, along in (("step", draws.draw_steps), ("passes", draws.passes)):
        if along is not None:
            variables[name] = ("draw", along)
    return variables


def _trace(draws: Draws) -> _Variables:
    return {
        "step": ("step", draws.trace_steps),
        **{name: (("chain", "step"), values) for name, values in draws.trace.items()},
    }


def _training(target: Posterior, draws: Draws) -> tuple[_Variables, _Variables]:
    """Log likelihood of some training examples, and their targets."""
    index = random_subset(target.data_size, _NUM_EXAMPLES)
    some = target.data.gather(index)
    examples = {"example": ("example", index)}
    return (
        examples | {"targets": ((*_DRAWS, "example"), loglikelihoods(target, draws, some))},
        examples | _constants("targets", some.targets, "example"),
    )


def _network(target: Posterior | None) -> LogDensity:
    if not isinstance(target, LogDensity):
        given = "no target" if target is None else f"a {type(target).__name__}"
        raise InputError(
            f"to_datatree got probes or held-out data and {given} to evaluate there; give the "
            "LogDensity that was sampled"
        )
    return target


def _at_probes(
    target: LogDensity, draws: Draws, probes: Mapping[str, Any], classes: Sequence[str]
) -> tuple[_Variables, _Variables]:
    """What each draw says at the probes, and the probes themselves."""
    for name in probes:
        if not isinstance(name, str) or not name.isprintable():
            raise InputError(
                f"a set of probes is called {name!r}; names must be strings of printable "
                "characters, which files can hold"
            )
    sets = {name: target.check_inputs(inputs) for name, inputs in probes.items()}
    names = [f"{name}[{i}]" for name, inputs in sets.items() for i in range(num_examples(inputs))]
    inputs = jax.tree.map(lambda *leaves: np.concatenate(leaves), *sets.values())
    probe = {"probe": ("probe", names)}
    return (
        probe | _outputs(target, draws, inputs, "probe", classes),
        probe | _constants("inputs", inputs, "probe"),
    )


def _at_held_out(
    target: LogDensity, draws: Draws, held_out: Any, classes: Sequence[str]
) -> tuple[_Variables, _Variables]:
    """What each draw says at some held-out examples, and the examples themselves."""
    inputs, targets = arrays_of(held_out)
    index = random_subset(num_examples(inputs), _NUM_EXAMPLES)
    inputs, targets = jax.tree.map(lambda leaf: leaf[index], (inputs, targets))
    inputs = target.check_inputs(inputs)
    targets = target.check_targets(targets, inputs)
    examples = {"example": ("example", index)}
    everything = Batch(*jax.tree.map(jnp.asarray, (inputs, targets)))
    return (
        examples
        | _outputs(target, draws, inputs, "example", classes)
        | {
            "log_likelihood": (
                (*_DRAWS, "example"),
                loglikelihoods(target, draws, everything),
            )
        },
        examples
        | _constants("inputs", inputs, "example")
        | _constants("targets", targets, "example"),
    )


def _outputs(
    target: LogDensity, draws: Draws, inputs: Any, dim: str, classes: Sequence[str]
) -> _Variables:
    kind = target.likelihood.quantity
    outputs = values_per_draw(target, draws, inputs)
    leading, dims = outputs.shape[:3], [dim]
    if kind == "probability" and outputs.ndim > 4:
        outputs = outputs.reshape(*leading, -1, outputs.shape[-1])
        dims.append("pixel")
    else:
        outputs = outputs.reshape(*leading, -1)
    number = outputs.shape[-1]
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
