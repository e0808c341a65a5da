"""What every method returns: draws of the parameters, how they came about, and an ArviZ view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from probbnn.errors import InputError
from probbnn.subsample import evenly_spaced, random_subset
from probbnn.tree import layers, leaf_names

if TYPE_CHECKING:
    import xarray

    from probbnn.diagnostics.temperature import TemperatureMeters
    from probbnn.posterior.base import Target
    from probbnn.posterior.flax import LogDensity

__all__ = ["Draws"]

# What `Draws.to_datatree` keeps at most, so that the tree stays small for any network and data.
_NUM_WEIGHTS = 32
_NUM_EXAMPLES = 500
_NUM_TRACE_STEPS = 1_000


@dataclass(frozen=True)
class Draws:
    """Draws of a network's parameters from one method.

    Attributes:
        positions: pytree of NumPy arrays of shape ``(chain, draw, …)``.
        method: name of the method.
        temperature: T of the law that was sampled: 1 is the posterior; ``None`` for point
            estimates, which sample nothing, and where a ready-made kernel does not say.
        sample_stats: per-draw statistics of shape ``(chain, draw)``, for instance the minibatch
            estimate of the log density and the norm of its gradient.
        trace: the same statistics at *every* step, warm-up included, shape ``(chain, step)``; empty
            for methods that run whole chains.
        draw_steps: number of steps taken at each draw, shape ``(draw,)``, where known.
        noise_gain: how gradient noise heats each coordinate, per unit of step size, as
            `Kernel.noise_gain` has it at the last step: leaves of shape ``(chain, …)``; ``None``
            where it is unknown.
        passes: gradient evaluations up to each draw, of all chains and warm-up included, in units
            of passes over all the data, shape ``(draw,)``; ``None`` where they were not counted.
        settings: the settings that the method ran with.
        seconds: wall time of the steps, compilation apart.
        compile_seconds: wall time of tracing and compilation.
    """

    positions: Any
    method: str
    temperature: float | None = None
    sample_stats: Mapping[str, np.ndarray] = field(default_factory=dict)
    trace: Mapping[str, np.ndarray] = field(default_factory=dict)
    draw_steps: np.ndarray | None = None
    noise_gain: Any = None
    passes: np.ndarray | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    compile_seconds: float = 0.0

    @property
    def num_chains(self) -> int:
        """Number of chains (or ensemble members)."""
        return jax.tree.leaves(self.positions)[0].shape[0]

    @property
    def num_draws(self) -> int:
        """Number of draws per chain."""
        return jax.tree.leaves(self.positions)[0].shape[1]

    def last(self) -> "Draws":
        """The last draw of each chain alone."""
        return replace(
            self,
            positions=jax.tree.map(lambda leaf: leaf[:, -1:], self.positions),
            sample_stats={name: stat[:, -1:] for name, stat in self.sample_stats.items()},
            draw_steps=None if self.draw_steps is None else self.draw_steps[-1:],
            passes=None if self.passes is None else self.passes[-1:],
        )

    def to_datatree(
        self,
        target: "Target | None" = None,
        probes: Mapping[str, Any] | None = None,
        held_out: Any = None,
        meters: "TemperatureMeters | None" = None,
    ) -> "xarray.DataTree":
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
          ``probability`` over ``class`` for a classifier, ``output`` over ``unit`` otherwise. The
          inputs themselves are in ``constant_data``.
        - ``predictions``, with ``held_out``: the same for 500 random held-out examples, and their
          ``log_likelihood``; inputs and targets are in ``predictions_constant_data``.

        Args:
            target: the `Target` that was sampled.
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
        import xarray as xr

        chains = {"chain": ("chain", np.arange(self.num_chains))}
        of_draws = chains | {"draw": ("draw", np.arange(self.num_draws))}
        posterior = of_draws | _parameters(self.positions)
        groups = {"sample_stats": of_draws | _statistics(self)}
        if meters is not None:
            measured: _Variables = {k: (_DRAWS, v) for k, v in meters.sample_stats.items()}
            groups["sample_stats"] |= measured
        if self.trace:
            groups["trace"] = chains | _thinned(self.trace)
        if target is not None:
            posterior |= _densities(target, self)
            likelihoods, observed = _training(target, self)
            groups |= {"log_likelihood": of_draws | likelihoods, "observed_data": observed}
        if probes or held_out is not None:
            network = _network(target)
            names = getattr(held_out, "classes", ())
            if probes:
                outputs, inputs = _at_probes(network, self, probes, names)
                groups |= {"posterior_predictive": of_draws | outputs, "constant_data": inputs}
            if held_out is not None:
                outputs, inputs = _at_held_out(network, self, held_out, names)
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
        tree.attrs["method"] = self.method
        if self.temperature is not None:
            tree.attrs["temperature"] = self.temperature
        return tree


_DRAWS = ("chain", "draw")
# What it took to come to a draw is a coordinate of it.
_ALONG = {"step", "passes"}

# Name of a variable, or of a coordinate, to its dims and values.
_Variables = dict[str, tuple[Any, Any]]


def _parameters(positions: Any) -> _Variables:
    """Norms of the layers and a few of the weights, with no copy of them all."""
    names, leaves = leaf_names(positions), jax.tree.leaves(positions)
    members = layers(positions)
    squares = np.array(
        [[[np.square(x, dtype=float).sum() for x in chain] for chain in leaf] for leaf in leaves]
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


def _densities(target: "Target", draws: Draws) -> _Variables:
    from probbnn.predictive import logdensities, logpriors

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


def _thinned(trace: Mapping[str, np.ndarray]) -> _Variables:
    num_steps = next(iter(trace.values())).shape[1]
    index = evenly_spaced(num_steps, _NUM_TRACE_STEPS)
    return {
        "step": ("step", index + 1),
        **{name: (("chain", "step"), values[:, index]) for name, values in trace.items()},
    }


def _training(target: "Target", draws: Draws) -> tuple[_Variables, _Variables]:
    """Log likelihood of some training examples, and their targets."""
    from probbnn.predictive import loglikelihoods

    index = random_subset(target.data_size, _NUM_EXAMPLES)
    inputs, targets = target.inputs[index], target.targets[index]
    examples = {"example": ("example", index)}
    values = loglikelihoods(target, draws, inputs, targets)
    return (
        examples | {"targets": ((*_DRAWS, "example"), values)},
        examples | {"targets": (_dims("example", targets), np.asarray(targets))},
    )


def _network(target: "Target | None") -> "LogDensity":
    from probbnn.posterior.flax import LogDensity

    if not isinstance(target, LogDensity):
        given = "no target" if target is None else f"a {type(target).__name__}"
        raise InputError(
            f"to_datatree got probes or held-out data and {given} to evaluate there; give the "
            "LogDensity that was sampled"
        )
    return target


def _at_probes(
    target: "LogDensity", draws: Draws, probes: Mapping[str, Any], classes: Sequence[str]
) -> tuple[_Variables, _Variables]:
    """What each draw says at the probes, and the probes themselves."""
    sets = {name: target.check_inputs(inputs) for name, inputs in probes.items()}
    names = [f"{name}[{i}]" for name, inputs in sets.items() for i in range(len(inputs))]
    inputs = np.concatenate(list(sets.values()))
    probe = {"probe": ("probe", names)}
    return (
        probe | _outputs(target, draws, inputs, "probe", classes),
        probe | {"inputs": (_dims("probe", inputs), inputs)},
    )


def _at_held_out(
    target: "LogDensity", draws: Draws, held_out: Any, classes: Sequence[str]
) -> tuple[_Variables, _Variables]:
    """What each draw says at some held-out examples, and the examples themselves."""
    from probbnn.posterior.flax import arrays_of
    from probbnn.predictive import loglikelihoods

    inputs, targets = arrays_of(held_out)
    index = random_subset(len(inputs), _NUM_EXAMPLES)
    inputs, targets = target.check_inputs(inputs[index]), targets[index]
    target.likelihood.check(target.output_shape, targets)
    examples = {"example": ("example", index)}
    return (
        examples
        | _outputs(target, draws, inputs, "example", classes)
        | {
            "log_likelihood": (
                (*_DRAWS, "example"),
                loglikelihoods(target, draws, inputs, targets),
            )
        },
        examples
        | {
            "inputs": (_dims("example", inputs), inputs),
            "targets": (_dims("example", targets), targets),
        },
    )


def _outputs(
    target: "LogDensity", draws: Draws, inputs: np.ndarray, dim: str, classes: Sequence[str]
) -> _Variables:
    from probbnn.predictive import outputs_per_draw

    kind, outputs = outputs_per_draw(target, draws, inputs)
    number = outputs.shape[-1]
    axis = "class" if kind == "probability" else "unit"
    labels = list(classes) if kind == "probability" and len(classes) == number else range(number)
    return {axis: (axis, np.array(labels)), kind: ((*_DRAWS, dim, axis), outputs)}


def _dims(first: str, array: Any) -> tuple[str, ...]:
    """Names for the axes of an array of examples."""
    if array.ndim == 4:
        return (first, "height", "width", "channel")
    return (first, *(f"axis_{i}" for i in range(1, array.ndim)))
