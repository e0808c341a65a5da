"""From draws of the parameters to predictions: averaged over draws with bounded memory."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.errors import InputError
from probbnn.inference.collectors import Averages, LogMeanExp, Recorded, fold
from probbnn.inference.draws import Draws
from probbnn.posterior.base import Posterior
from probbnn.posterior.flax import LogDensity
from probbnn.posterior.likelihoods import Summary
from probbnn.types import Collector, PyTree

__all__ = [
    "Predictions",
    "log_predictive",
    "predict",
    "values_per_draw",
]

# Inputs evaluated at once, which bounds the memory of a prediction.
_BLOCK_INPUTS = 1_000


def predict(target: LogDensity, draws: Draws, inputs: Any) -> Any:
    """Predictions at ``inputs``, averaged over all draws of all chains.

    Args:
        target: the `LogDensity` that the draws were drawn from.
        draws: what `sample` returned. One draw gives the plug-in predictive.
        inputs: a `Dataset`, a `Regression`, or an array of shape ``(n, *input_shape)``, raw as
            the data were (uint8 images as uint8).

    Returns:
        What the likelihood makes of them: a `Predictive` for a classifier, a `GaussianPredictive`
        for a Gaussian likelihood, its noise given or learned.

    Raises:
        InputError: if the inputs are not shaped like the data, there are none, or the likelihood
            has no predictive.
    """
    inputs = _check_inputs(target, inputs)
    parts = [fold(target, Averages(target.summarise, (block,)), draws) for block in _blocks(inputs)]
    mean, variance, num_draws = parts[0]
    if len(parts) > 1:
        by_input = _is_by_input(target, inputs)

        def join(is_by_input: bool, *leaves: np.ndarray) -> np.ndarray:
            return np.concatenate(leaves) if is_by_input else leaves[0]

        mean = jax.tree.map(join, by_input, *(part[0] for part in parts))
        variance = jax.tree.map(join, by_input.spread, *(part[1] for part in parts))
    return target.likelihood.predictive(mean, variance, num_draws)


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
            arrays = _stacked((self.sets[label], np.asarray(targets)))
            found["log predictive"] = LogMeanExp(function, arrays)
        return found

    def of(self, draws: Draws) -> dict[str, Any]:
        """What `predict` returns for each set, of the draws that were collected."""
        mean, variance, num_draws = draws.collected["averages"]
        by_input = _is_by_input(self.target, next(iter(self.sets.values())))
        found, start = {}, 0
        for label, inputs in self.sets.items():
            rows = slice(start, start + len(jax.tree.leaves(inputs)[0]))
            start = rows.stop
            pick = partial(_rows, rows)
            found[label] = self.target.likelihood.predictive(
                jax.tree.map(pick, by_input, mean),
                jax.tree.map(pick, by_input.spread, variance),
                num_draws,
            )
        return found

    def log_density(self, draws: Draws) -> np.ndarray | None:
        """What `log_predictive` returns for the scored set, ``None`` if there is none."""
        if self.scored is None:
            return None
        return _flat(draws.collected["log predictive"])[: len(self.scored[1])]


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
    size = len(jax.tree.leaves(arrays)[0])
    rows = min(size, _BLOCK_INPUTS)
    index = np.arange(-(-size // rows) * rows).clip(max=size - 1).reshape(-1, rows)
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[index]), arrays)


def _flat(blocks: np.ndarray) -> np.ndarray:
    return blocks.reshape(-1, *blocks.shape[2:])


def _rows(rows: slice, is_by_input: bool, blocks: np.ndarray) -> np.ndarray:
    return _flat(blocks)[rows] if is_by_input else blocks[0]


def _is_by_input(target: LogDensity, inputs: np.ndarray) -> Summary:
    """Which arrays of a summary have an axis of the inputs; the variance of a noise has none."""
    few, more = (
        jax.eval_shape(target.summarise, inputs[:number], target.shapes) for number in (1, 2)
    )
    return jax.tree.map(lambda one, two: one.shape != two.shape, few, more)


def log_predictive(target: LogDensity, draws: Draws, inputs: Any, targets: Any) -> np.ndarray:
    """Log density of held-out targets under the posterior predictive, nats, ``(n,)``.

    The likelihood averaged over all S draws of all chains, log 1/S Σ_s p(y | x, θ_s): the mixture
    itself, whatever its shape, and a proper score of it. Its negative mean is the test NLL.

    Args:
        target: the `LogDensity` that the draws were drawn from, with any likelihood.
        draws: what `sample` returned.
        inputs: as for `predict`.
        targets: labels ``(n,)`` or values like those of the data, on the same scale.

    Raises:
        InputError: if inputs or targets are not like the data, or differ in number.
    """
    inputs, targets = _check_inputs(target, inputs), np.asarray(targets)
    if targets.shape[:1] != inputs.shape[:1]:
        raise InputError(
            f"targets have shape {targets.shape} for {len(inputs)} inputs; give one for each"
        )
    target.likelihood.check(target.output_shape, targets)
    return np.concatenate(
        [
            fold(target, LogMeanExp(target.loglikelihoods, (block, some)), draws)
            for block, some in zip(_blocks(inputs), _blocks(targets), strict=True)
        ]
    )


def values_per_draw(target: LogDensity, draws: Draws, inputs: Any) -> np.ndarray:
    """What each draw says at a few inputs, ``(chain, draw, n, K)``.

    For a classifier class probabilities, for a regression the network's outputs: what
    `Likelihood.quantity` names.
    """
    inputs = target.check_inputs(inputs)
    values = _of_each_draw(target, draws, target.values, (inputs,))
    return values.reshape(*values.shape[:3], -1)


def _of_each_draw(
    target: Posterior,
    draws: Draws,
    function: Callable[..., jax.Array],
    arrays: tuple[Any, ...] = (),
) -> np.ndarray:
    num_draws = draws.num_chains * draws.num_draws
    values = fold(target, Recorded(function, num_draws, arrays), draws)
    return values.reshape(draws.num_chains, draws.num_draws, *values.shape[2:])


def _check_inputs(target: LogDensity, inputs: Any) -> np.ndarray:
    inputs = target.check_inputs(inputs)
    if not len(inputs):
        raise InputError("there are no inputs to predict; give at least one")
    return inputs


def _blocks(array: np.ndarray) -> list[np.ndarray]:
    return [array[i : i + _BLOCK_INPUTS] for i in range(0, len(array), _BLOCK_INPUTS)]
