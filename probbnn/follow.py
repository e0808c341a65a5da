"""What is followed of each draw, along the chains: its parameters, its density, what it says.

The same functions of a position serve while sampling, as collectors, and afterwards, folded over
stored draws.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.data.sources import arrays_of, num_examples
from probbnn.errors import InputError
from probbnn.inference.collectors import Thinned, at_each_draw
from probbnn.inference.draws import Draws
from probbnn.posterior.base import Posterior
from probbnn.posterior.flax import LogDensity
from probbnn.subsample import random_subset
from probbnn.tree import layers, leaf_names
from probbnn.types import Batch, Position, PyTree

__all__ = ["Follow", "Followed", "Values", "parameter_names"]

# What is followed at most, so that it stays small for any network and data.
_NUM_WEIGHTS = 32
_NUM_EXAMPLES = 500

_BOUNDARY = "boundary"

# Draws per chain that are followed of a run of any length, a power of two: enough for a verdict.
_CAPACITY = 512


class Values(NamedTuple):
    """What was followed at some of the draws.

    Attributes:
        numbers: of these draws, ``(draw,)``.
        values: a pytree of arrays ``(chain, draw, …)``.
    """

    numbers: np.ndarray
    values: PyTree


Followed = Mapping[str, Values]
"""By name of what is followed."""


class _Look(NamedTuple):
    """One thing that is followed: ``function(*arrays, position)``."""

    function: Callable[..., PyTree]
    arrays: tuple[Any, ...] = ()


@dataclass(frozen=True, eq=False)
class Follow:
    """What is followed of each draw, and where.

    Attributes:
        target: the posterior, ``None``: the parameters alone.
        probes: named sets of inputs, checked.
        examples: indices of the training examples whose likelihood is followed.
        training: these examples.
        num_boundary: how many of the probes called "boundary" stay at the end: those between whose
            two most probable classes the draws can decide least.
        held_out: indices of the held-out examples, ``None`` without any.
        predicted: these examples.
        classes: what the held-out data call the classes.
    """

    target: Posterior | None
    probes: Mapping[str, Any]
    examples: np.ndarray | None = None
    training: Batch | None = None
    num_boundary: int = 0
    held_out: np.ndarray | None = None
    predicted: tuple[Any, Any] | None = None
    classes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        target: Posterior | None,
        probes: Mapping[str, Any] | None = None,
        held_out: Any = None,
        num_boundary: int = 0,
        num_held_out: int = _NUM_EXAMPLES,
    ) -> "Follow":
        """What `probbnn.to_datatree` follows; see there, and the attributes.

        Raises:
            InputError: if there are probes or held-out data and no network to evaluate there, or
                they are not like the data.
        """
        examples = training = index = predicted = None
        if target is not None:
            examples = random_subset(target.data_size, _NUM_EXAMPLES)
            training = target.data.gather(examples)
        checked: dict[str, Any] = {}
        names: Sequence[str] = ()
        if probes or held_out is not None:
            network = _network(target)
            _check_names(probes or {})
            checked = {k: network.check_inputs(inputs) for k, inputs in (probes or {}).items()}
            if held_out is not None:
                inputs, targets = arrays_of(held_out)
                index = random_subset(num_examples(inputs), num_held_out)
                inputs, targets = jax.tree.map(lambda leaf: leaf[index], (inputs, targets))
                inputs = network.check_inputs(inputs)
                predicted = inputs, network.check_targets(targets, inputs)
            names = getattr(held_out, "classes", ()) or getattr(network.likelihood, "classes", ())
        names = tuple(names)
        return cls(target, checked, examples, training, num_boundary, index, predicted, names)

    @property
    def probe_inputs(self) -> Any:
        """All probes, one set after the other."""
        return jax.tree.map(lambda *parts: np.concatenate(parts), *self.probes.values())

    @property
    def _looks(self) -> dict[str, _Look]:
        looks = {"parameters": _Look(_parameters)}
        target = self.target
        if target is None or self.training is None:
            return looks
        looks["log_density"] = _Look(target.logdensity_fn)
        looks["log_prior"] = _Look(target.logprior_fn)
        looks["log_likelihood"] = _Look(target.loglikelihoods, self.training[:2])
        if isinstance(target, LogDensity):
            if self.probes:
                looks["probes"] = _Look(target.values, (self.probe_inputs,))
            if self.predicted is not None:
                inputs, _ = self.predicted
                looks["held-out values"] = _Look(target.values, (inputs,))
                looks["held-out log likelihood"] = _Look(target.loglikelihoods, self.predicted)
        return looks

    @property
    def collectors(self) -> dict[str, Thinned]:
        """What follows draws as they come, at evenly spaced ones: for `probbnn.sample`."""
        return {
            name: Thinned(look.function, _CAPACITY, jax.tree.map(jnp.asarray, look.arrays))
            for name, look in self._looks.items()
        }

    def collected(self, draws: Draws) -> Followed:
        """What these collectors have kept."""
        return {name: Values(*draws.collected[name]) for name in self._looks}

    def at_the_boundary(self, followed: Followed) -> "tuple[Follow, Followed]":
        """The same with those probes alone that are at the boundary, of all its candidates."""
        sets = list(self.probes)
        if _BOUNDARY not in sets or not self.num_boundary:
            return self, followed
        numbers, values = followed["probes"]
        sizes = [num_examples(inputs) for inputs in self.probes.values()]
        first = sum(sizes[: sets.index(_BOUNDARY)])
        candidates = slice(first, first + num_examples(self.probes[_BOUNDARY]))
        means = values[:, :, candidates].mean(axis=(0, 1))
        second, best = np.moveaxis(np.partition(means, -2, axis=-1)[..., -2:], -1, 0)
        margins = (best - second).reshape(len(means), -1).mean(axis=1)
        nearest = np.sort(np.argsort(margins, kind="stable")[: self.num_boundary])
        kept = np.ones(sum(sizes), bool)
        kept[candidates] = np.isin(np.arange(len(means)), nearest)
        chosen = jax.tree.map(lambda leaf: leaf[nearest], self.probes[_BOUNDARY])
        probes = {**self.probes, _BOUNDARY: chosen}
        followed = {**followed, "probes": Values(numbers, values[:, :, kept])}
        return replace(self, probes=probes), followed

    def along(self, draws: Draws) -> Followed:
        """The same of stored draws, of each of them."""
        numbers = np.arange(draws.num_draws)
        return {
            name: Values(numbers, at_each_draw(self.target, look.function, look.arrays, draws))
            for name, look in self._looks.items()
        }


def _check_names(probes: Mapping[str, Any]) -> None:
    for name in probes:
        if not isinstance(name, str) or not name.isprintable():
            raise InputError(
                f"a set of probes is called {name!r}; names must be strings of printable "
                "characters, which files can hold"
            )


def _network(target: Posterior | None) -> LogDensity:
    if not isinstance(target, LogDensity):
        given = "no target" if target is None else f"a {type(target).__name__}"
        raise InputError(
            f"to_datatree got probes or held-out data and {given} to evaluate there; give the "
            "LogDensity that was sampled"
        )
    return target


def _parameters(position: Position) -> dict[str, jax.Array]:
    """Norms of the layers, and a few of the weights."""
    leaves = [leaf.astype(jnp.promote_types(leaf.dtype, "float32")) for leaf in _leaves(position)]
    squares = [jnp.sum(jnp.square(leaf)) for leaf in leaves]
    norms = [jnp.sqrt(sum(squares[i] for i in index)) for index in layers(position).values()]
    weights = [leaves[which][index] for which, index in _chosen(position)]
    return {"layer_norm": jnp.stack(norms), "weight": jnp.stack(weights)}


def _leaves(position: Position) -> list[Any]:
    return jax.tree.leaves(position)


def _chosen(position: Position) -> list[tuple[int, tuple[int, ...]]]:
    """Leaf, and place in it, of a few random weights, the same in every run."""
    shapes = [leaf.shape for leaf in _leaves(position)]
    offsets = np.cumsum([0, *(int(np.prod(shape)) for shape in shapes)])
    numbers = random_subset(int(offsets[-1]), _NUM_WEIGHTS)
    places = np.searchsorted(offsets, numbers, "right") - 1
    return [
        (int(which), tuple(map(int, np.unravel_index(number - offsets[which], shapes[which]))))
        for number, which in zip(numbers, places, strict=True)
    ]


def parameter_names(position: Position) -> tuple[list[str], list[str]]:
    """Names of the layers and of the chosen weights of a position."""
    names = leaf_names(position)
    labels = [
        names[which] + (f"[{','.join(map(str, index))}]" if index else "")
        for which, index in _chosen(position)
    ]
    return list(layers(position)), labels
