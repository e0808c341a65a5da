"""From draws of the parameters to predictions: averaged over draws with bounded memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.data.sources import num_examples
from probbnn.errors import InputError
from probbnn.inference.collectors import Averages, LogMeanExp, at_each_draw, fold
from probbnn.inference.draws import Draws
from probbnn.posterior.flax import LogDensity
from probbnn.posterior.likelihoods import Summary
from probbnn.posterior.predictives import SampledPredictive
from probbnn.subsample import evenly_spaced
from probbnn.types import Collector, Position, PRNGKey, PyTree

__all__ = [
    "Predictions",
    "log_predictive",
    "posterior_predictive",
    "predict",
    "values_per_draw",
]

# Inputs evaluated at once, which bounds the memory of a prediction.
_BLOCK_INPUTS = 1_000
# New observations of each input that a predictive without a closed form keeps: so many, and fewer
# of very many inputs, of all of which together it keeps about so many at most.
_NUM_REPLICATES = 100, 1_000
_MAX_REPLICATED = 10**8


def predict(target: LogDensity, draws: Draws, inputs: Any) -> Any:
    """Predictions at ``inputs``, averaged over all draws of all chains.

    Args:
        target: the `LogDensity` that the draws were drawn from.
        draws: what `sample` returned. One draw gives the plug-in predictive.
        inputs: a `Dataset`, a `Regression`, or an array of shape ``(n, *input_shape)``, raw as
            the data were (uint8 images as uint8).

    Returns:
        What the likelihood makes of them: a `Predictive` for classes, a `GaussianPredictive`
        for Gaussian likelihoods, a `SampledPredictive` for others.

    Raises:
        InputError: if the inputs are not shaped like the data, there are none, the likelihood
            has no predictive, or a prediction is not finite.
    """
    inputs = _check_inputs(target, inputs)
    parts = [fold(target, Averages(target.summarise, (block,)), draws) for block in _blocks(inputs)]
    mean, variance, num_draws = parts[0]
    by_input = _is_by_input(target, inputs)
    if len(parts) > 1:

        def join(is_by_input: bool, *leaves: np.ndarray) -> np.ndarray:
            return np.concatenate(leaves) if is_by_input else leaves[0]

        mean = jax.tree.map(join, by_input, *(part[0] for part in parts))
        variance = jax.tree.map(join, by_input.spread, *(part[1] for part in parts))
    return _predictive(target, mean, variance, num_draws, draws, inputs)


def _predictive(
    target: LogDensity,
    mean: Summary,
    variance: PyTree,
    num_draws: int,
    draws: Draws,
    inputs: Any,
) -> Any:
    """The predictive of averages over draws, some of which are at hand."""
    _check_finite(mean, _is_by_input(target, inputs))
    predictive = target.likelihood.predictive(mean, variance, num_draws)
    if isinstance(predictive, SampledPredictive):
        predictive = replace(predictive, replicates=_replicates(target, draws, inputs))
    return predictive


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions at several sets of inputs, made of draws as they come.

    Attributes:
        target: the `LogDensity` that is sampled.
        sets: inputs by label.
        scored: a label, and targets of whose log density the predictive is asked for too.
    """

    target: LogDensity
    sets: Mapping[str, Any]
    scored: tuple[str, Any] | None = None

    @property
    def collectors(self) -> dict[str, Collector]:
        """What is to be collected, for `probbnn.sample`."""
        # All sets in one program, so that there is one network to compile.
        everything = jax.tree.map(lambda *parts: np.concatenate(parts), *self.sets.values())
        summarise = _in_blocks(self.target, self.target.summarise)
        found: dict[str, Collector] = {"averages": Averages(summarise, _stacked((everything,)))}
        if self.scored is not None:
            label, targets = self.scored
            function = _in_blocks(self.target, self.target.loglikelihoods)
            arrays = _stacked((self.sets[label], targets))
            found["log predictive"] = LogMeanExp(function, arrays)
        return found

    def of(self, draws: Draws, kept: Draws | None = None) -> dict[str, Any]:
        """What `predict` returns for each set.

        Args:
            draws: with what was collected of them.
            kept: those whose positions were kept, of which new observations are drawn where a
                likelihood has no predictive in closed form; default: all.

        Raises:
            InputError: if a prediction is not finite.
        """
        mean, variance, num_draws = draws.collected["averages"]
        by_input = _is_by_input(self.target, next(iter(self.sets.values())))
        found, start = {}, 0
        for label, inputs in self.sets.items():
            rows = slice(start, start + num_examples(inputs))
            start = rows.stop
            pick = partial(_rows, rows)
            found[label] = _predictive(
                self.target,
                jax.tree.map(pick, by_input, mean),
                jax.tree.map(pick, by_input.spread, variance),
                num_draws,
                draws if kept is None else kept,
                inputs,
            )
        return found

    def log_density(self, draws: Draws) -> np.ndarray | None:
        """What `log_predictive` returns for the scored set, ``None`` if there is none."""
        if self.scored is None:
            return None
        return _flat(draws.collected["log predictive"])[: num_examples(self.scored[1])]


def _in_blocks(target: LogDensity, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """``function(*arrays, position)`` over `_stacked` arrays, the same object at each call."""

    def build() -> Callable[..., PyTree]:
        def over_blocks(*arrays_and_position: Any) -> PyTree:
            *arrays, position = arrays_and_position
            return jax.lax.map(lambda blocks: function(*blocks, position), tuple(arrays))

        return over_blocks

    return target.program(("in blocks", function), build)


def _stacked(arrays: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arrays ``(n, …)`` in blocks ``(blocks, rows, …)``, the last one filled with its last row."""
    size = num_examples(arrays)
    rows = min(size, _BLOCK_INPUTS)
    index = np.arange(-(-size // rows) * rows).clip(max=size - 1).reshape(-1, rows)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), arrays)


def _flat(blocks: np.ndarray) -> np.ndarray:
    return blocks.reshape(-1, *blocks.shape[2:])


def _rows(rows: slice, is_by_input: bool, blocks: np.ndarray) -> np.ndarray:
    return _flat(blocks)[rows] if is_by_input else blocks[0]


def posterior_predictive(
    rng_key: PRNGKey, target: LogDensity, draws: Draws, inputs: Any
) -> np.ndarray:
    """New observations at ``inputs``, one from each draw: shape ``(chain, draw, n, …)``.

    Args:
        rng_key: the only source of randomness.
        target: the `LogDensity` that the draws were drawn from.
        draws: what `sample` returned.
        inputs: as for `predict`.

    Raises:
        InputError: as for `predict`, or if the likelihood cannot be drawn from.

    Examples:
        >>> import jax, probbnn as pb
        >>> train, test = pb.load("digits")
        >>> target = pb.LogDensity(pb.MLP(hidden=(10,)), train)
        >>> draws = pb.sample(jax.random.key(0), target, num_steps=20, progress=False)
        >>> pb.posterior_predictive(jax.random.key(1), target, draws, test[:5]).shape
        (4, 10, 5)
    """
    inputs = _check_inputs(target, inputs)
    shape = draws.num_chains, draws.num_draws
    draw = target.program("observation", lambda: _Observation(target))
    parts = []
    for index, block in enumerate(_blocks(inputs)):
        keys = jax.random.split(jax.random.fold_in(rng_key, index), shape)
        # Each draw takes its key along.
        both = {"position": draws.positions, "key": np.asarray(jax.random.key_data(keys))}
        parts.append(at_each_draw(target, draw, (block,), Draws(both, draws.method)))
    return np.concatenate(parts, axis=2)


def _replicates(target: LogDensity, draws: Draws, inputs: Any) -> np.ndarray:
    """Some hundreds of new observations for each input, ``(S, n, …)``.

    The random key of a draw is a function of the draw: the same draws predict the same.
    """
    num_values = num_examples(inputs) * target.data.gather(slice(1)).targets.size
    wanted = int(np.clip(_MAX_REPLICATED // num_values, *_NUM_REPLICATES))
    some = _evenly_spaced(draws, wanted)
    size = some.num_draws
    number = -(-wanted // size)
    draw = target.program(("replicates", number), lambda: _Replicates(target, number))
    parts = []
    for index, block in enumerate(_blocks(inputs)):
        drawn = at_each_draw(target, draw, (np.uint32(index), block), some)[0]
        parts.append(drawn.reshape(-1, *drawn.shape[2:]))
    return np.concatenate(parts, axis=1)


class _Replicates:
    """Observations at some inputs, a function that is the same for each call of a target's."""

    def __init__(self, target: LogDensity, number: int) -> None:
        self._target, self._number = target, number

    def __call__(self, index: jax.Array, inputs: Any, position: Position) -> jax.Array:
        bits = [
            jnp.sum(jax.lax.bitcast_convert_type(leaf.astype(jnp.float32), jnp.uint32))
            for leaf in jax.tree.leaves(position)
        ]
        key = jax.random.fold_in(jax.random.key(0), jnp.stack(bits).sum().astype(jnp.uint32))
        keys = jax.random.split(jax.random.fold_in(key, index), self._number)
        return jax.vmap(self._target.sample_targets, (0, None, None))(keys, inputs, position)


def _evenly_spaced(draws: Draws, number: int) -> Draws:
    """At most so many of the draws of all chains, as those of one."""
    chains, rows = np.divmod(
        evenly_spaced(draws.num_chains * draws.num_draws, number), draws.num_draws
    )

    def some(leaf: Any) -> np.ndarray:
        # Chain by chain, as draws on disk are read.
        return np.concatenate([leaf[c, rows[chains == c]] for c in np.unique(chains)])[None]

    return Draws(jax.tree.map(some, draws.positions), draws.method)


class _Observation:
    """An observation at some inputs, a function that is the same for each call of a target's."""

    def __init__(self, target: LogDensity) -> None:
        self._target = target

    def __call__(self, inputs: Any, both: dict[str, Any]) -> jax.Array:
        key = jax.random.wrap_key_data(both["key"])
        return self._target.sample_targets(key, inputs, both["position"])


def _is_by_input(target: LogDensity, inputs: Any) -> Summary:
    """Which arrays of a summary have an axis of the inputs; the variance of a noise has none."""

    def summary_of(number: int) -> Summary:
        few = jax.tree.map(lambda leaf: leaf[:1].repeat(number, 0), inputs)
        summary: Summary = jax.eval_shape(target.summarise, few, target.shapes)
        return summary

    few, more = summary_of(1), summary_of(2)
    return jax.tree.map(lambda one, two: one.shape != two.shape, few, more)


def _check_finite(mean: Summary, by_input: Summary) -> None:
    """Raise `InputError` if a prediction is not finite, and say at which input."""
    bad: list[np.ndarray] = []
    for leaf, is_by_input in zip(jax.tree.leaves(mean), jax.tree.leaves(by_input), strict=True):
        if is_by_input:
            bad.append(~np.isfinite(leaf).reshape(len(leaf), -1).all(axis=1))
    rows = np.flatnonzero(np.any(bad, axis=0)) if bad else np.empty(0, int)
    if not rows.size:
        return
    if len(rows) == len(bad[0]):
        raise InputError(
            "no prediction is finite; look at the draws, which may have diverged "
            "(draws.sample_stats['logdensity'])"
        )
    raise InputError(
        f"the prediction for input {rows[0]} is not finite, nor are {len(rows) - 1} others of "
        f"{len(bad[0])}; look at that input: a token outside the vocabulary and numbers that are "
        "too large for float32 give NaN"
    )


def log_predictive(target: LogDensity, draws: Draws, inputs: Any, targets: Any) -> np.ndarray:
    """Log density of held-out targets under the posterior predictive, nats, ``(n,)``.

    The likelihood averaged over all S draws of all chains, log 1/S Σ_s p(y | x, θ_s): the mixture
    itself, whatever its shape, and a proper score of it. Its negative mean is the test NLL.

    Args:
        target: the `LogDensity` that the draws were drawn from, with any likelihood.
        draws: what `sample` returned.
        inputs: as for `predict`.
        targets: labels ``(n,)`` or values like those of the data, on the same scale. Weights of
            classes play no part.

    Raises:
        InputError: if inputs or targets are not like the data, or differ in number.
    """
    inputs, targets = _check_inputs(target, inputs), target.check_targets(targets, inputs)
    return np.concatenate(
        [
            fold(target, LogMeanExp(target.loglikelihoods, (block, some)), draws)
            for block, some in zip(_blocks(inputs), _blocks(targets), strict=True)
        ]
    )


def values_per_draw(target: LogDensity, draws: Draws, inputs: Any) -> np.ndarray:
    """What each draw says at a few inputs, ``(chain, draw, n, …, K)``.

    For a classifier class probabilities, for a regression the network's outputs: what
    `Likelihood.quantity` names.
    """
    inputs = target.check_inputs(inputs)
    return at_each_draw(target, target.values, (inputs,), draws)


def _check_inputs(target: LogDensity, inputs: Any) -> Any:
    inputs = target.check_inputs(inputs)
    if not num_examples(inputs):
        raise InputError("there are no inputs to predict; give at least one")
    return inputs


def _blocks(arrays: Any) -> list[Any]:
    return [
        jax.tree.map(lambda leaf, i=i: leaf[i : i + _BLOCK_INPUTS], arrays)
        for i in range(0, num_examples(arrays), _BLOCK_INPUTS)
    ]
