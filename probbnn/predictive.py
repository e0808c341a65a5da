"""From draws of the parameters to predictions: averaged over draws with bounded memory."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from probbnn.errors import InputError
from probbnn.inference.collectors import Averages, LogMeanExp, at_each_draw, fold
from probbnn.inference.draws import Draws
from probbnn.posterior.base import Posterior
from probbnn.posterior.flax import LogDensity
from probbnn.posterior.likelihoods import Summary
from probbnn.types import Batch

__all__ = [
    "log_predictive",
    "logdensities",
    "loglikelihoods",
    "logpriors",
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


def logdensities(target: Posterior, draws: Draws) -> np.ndarray:
    """Full-data log density of each draw, shape ``(chain, draw)``."""
    return _of_each_draw(target, draws, target.logdensity_fn)


def logpriors(target: Posterior, draws: Draws) -> np.ndarray:
    """Log density of the prior at each draw, shape ``(chain, draw)``."""
    return _of_each_draw(target, draws, target.logprior_fn)


def loglikelihoods(target: Posterior, draws: Draws, examples: Batch) -> np.ndarray:
    """Log likelihood of each example at each draw, nats, shape ``(chain, draw, n)``.

    Args:
        target: the posterior that the draws were drawn from.
        draws: what `sample` returned.
        examples: like the target's own data; so few that they are evaluated at once.
    """
    return _of_each_draw(target, draws, target.loglikelihoods, (examples.inputs, examples.targets))


def _of_each_draw(
    target: Posterior,
    draws: Draws,
    function: Callable[..., jax.Array],
    arrays: tuple[Any, ...] = (),
) -> np.ndarray:
    return at_each_draw(target, function, arrays, draws)


def _check_inputs(target: LogDensity, inputs: Any) -> np.ndarray:
    inputs = target.check_inputs(inputs)
    if not len(inputs):
        raise InputError("there are no inputs to predict; give at least one")
    return inputs


def _blocks(array: np.ndarray) -> list[np.ndarray]:
    return [array[i : i + _BLOCK_INPUTS] for i in range(0, len(array), _BLOCK_INPUTS)]
