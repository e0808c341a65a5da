"""From draws of the parameters to predictions: averaged over draws with bounded memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.errors import InputError
from probbnn.inference.draws import Draws
from probbnn.posterior.base import Minibatch, Target
from probbnn.posterior.flax import LogDensity
from probbnn.posterior.likelihoods import Categorical, Gaussian, LearnedGaussian

__all__ = [
    "GaussianPredictive",
    "Predictive",
    "log_predictive",
    "logdensities",
    "loglikelihoods",
    "logpriors",
    "outputs_per_draw",
    "predict",
]

# Draws × inputs evaluated at once, which bounds the memory of a prediction.
_BLOCK_DRAWS = 16
_BLOCK_INPUTS = 1_000


@dataclass(frozen=True)
class Predictive:
    """Predictions of a classifier for n inputs and K classes, averaged over draws.

    With one draw (a point estimate, the *plug-in*) the first three are the softmax of that
    network, its one-hot argmax, and the softmax again.

    Attributes:
        probs: mean of the draws' softmax, shape ``(n, K)``: the posterior predictive.
        votes: fraction of the draws whose argmax is each class, ``(n, K)``.
        mean_logits_probs: softmax of the draws' mean logits, ``(n, K)``.
        expected_entropy: mean of the draws' entropies, nats, ``(n,)``.
        num_draws: over how many draws (of all chains) the averages run.
    """

    probs: np.ndarray
    votes: np.ndarray
    mean_logits_probs: np.ndarray
    expected_entropy: np.ndarray
    num_draws: int

    @property
    def entropy(self) -> np.ndarray:
        """Entropy of `probs`, nats, ``(n,)``: the total uncertainty."""
        from probbnn.metrics import entropy

        return entropy(self.probs)

    @property
    def ood_scores(self) -> dict[str, np.ndarray]:
        """Scores that are larger the less an input looks like the data, each ``(n,)``."""
        from probbnn.metrics import max_prob_score

        return {
            "max probability": max_prob_score(self.probs),
            "entropy": self.entropy,
            "mutual information": self.mutual_information,
        }

    @property
    def mutual_information(self) -> np.ndarray:
        """Entropy minus expected entropy, nats, ``(n,)``: what the draws disagree about."""
        return np.maximum(self.entropy - self.expected_entropy, 0.0)

    def least_decided(self, num_inputs: int) -> np.ndarray:
        """Indices of the inputs whose two most probable classes are closest: the boundary's."""
        second, first = np.partition(self.probs, -2, axis=1)[:, -2:].T
        return np.argsort(first - second, kind="stable")[:num_inputs]


@dataclass(frozen=True)
class GaussianPredictive:
    """Predictions of a regression network for n inputs, averaged over draws.

    Attributes:
        mean: shape ``(n, …)``, in units of the targets.
        epistemic_std: standard deviation of the network's output over the draws, ``(n, …)``.
        noise_std: standard deviation of the observation noise, a scalar; where it is learned,
            the root of the draws' mean variance.
        num_draws: over how many draws (of all chains) the averages run.
    """

    mean: np.ndarray
    epistemic_std: np.ndarray
    noise_std: float
    num_draws: int

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of a new observation, ``(n, …)``."""
        return np.sqrt(self.epistemic_std**2 + self.noise_std**2)


def predict(target: LogDensity, draws: Draws, inputs: Any) -> Predictive | GaussianPredictive:
    """Predictions at ``inputs``, averaged over all draws of all chains.

    Args:
        target: the `LogDensity` that the draws were drawn from.
        draws: what `sample` returned. One draw gives the plug-in predictive.
        inputs: a `Dataset`, a `Regression`, or an array of shape ``(n, *input_shape)``, raw as
            the data were (uint8 images as uint8).

    Returns:
        A `Predictive` for a classifier, a `GaussianPredictive` for a Gaussian likelihood, its
        noise given or learned.

    Raises:
        InputError: if the inputs are not shaped like the data, or there are none.
    """
    inputs = _check_inputs(target, inputs)
    match target.likelihood:
        case Categorical():
            return _predict_classes(target, draws, inputs)
        case Gaussian(scale):
            return _predict_values(target, draws, inputs, scale)
        case LearnedGaussian():
            variances = np.exp(2 * np.asarray(draws.positions["log_noise_scale"], float))
            values = _predict_values(target, draws, inputs, float(np.sqrt(variances.mean())))
            return replace(
                values, mean=values.mean[:, :-1], epistemic_std=values.epistemic_std[:, :-1]
            )
    raise InputError(
        f"there is no predictive for a {type(target.likelihood).__name__} likelihood; use "
        "target.apply on each draw"
    )


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
    parts = []
    for rows in _blocks_of_inputs(inputs):
        sums = [
            _block_log_sum(
                target.apply, target.likelihood.log_prob, block, inputs[rows], targets[rows]
            )
            for block in _blocks_of_draws(draws)
        ]
        parts.append(np.logaddexp.reduce(np.asarray(sums, float)))
    return np.concatenate(parts) - np.log(draws.num_chains * draws.num_draws)


def _check_inputs(target: LogDensity, inputs: Any) -> np.ndarray:
    inputs = target.check_inputs(inputs)
    if not len(inputs):
        raise InputError("there are no inputs to predict; give at least one")
    return inputs


def outputs_per_draw(target: LogDensity, draws: Draws, inputs: Any) -> tuple[str, np.ndarray]:
    """What each draw says at a few inputs, ``(chain, draw, n, K)``.

    Returns:
        ``("probability", softmax)`` for a classifier, ``("output", outputs)`` otherwise, where a
        learned noise is left out.
    """
    inputs = target.check_inputs(inputs)
    is_classifier = isinstance(target.likelihood, Categorical)
    blocks = [_block_outputs(target.apply, b, inputs) for b in _blocks_of_draws(draws)]
    outputs = np.concatenate([np.asarray(block) for block in blocks])
    outputs = outputs.astype(np.result_type(outputs, np.float32))
    if is_classifier:
        outputs = _softmax(outputs)
    if isinstance(target.likelihood, LearnedGaussian):
        outputs = outputs[..., :-1]
    shape = (draws.num_chains, draws.num_draws, len(inputs), -1)
    return "probability" if is_classifier else "output", outputs.reshape(shape)


def logdensities(target: Target, draws: Draws) -> np.ndarray:
    """Full-data log density of each draw, shape ``(chain, draw)``."""
    return _each_draw(target.logdensity_fn, draws)


def logpriors(target: Target, draws: Draws) -> np.ndarray:
    """Log density of the prior at each draw, shape ``(chain, draw)``."""
    return _each_draw(target.logprior_fn, draws)


def loglikelihoods(target: Target, draws: Draws, inputs: Any, targets: Any) -> np.ndarray:
    """Log likelihood of each example at each draw, nats, shape ``(chain, draw, n)``.

    Args:
        target: the `Target` that the draws were drawn from.
        draws: what `sample` returned.
        inputs: shape ``(n, …)``, like the target's own; so few that they are evaluated at once.
        targets: shape ``(n, …)``, like the target's own.
    """
    examples = Minibatch(jnp.asarray(inputs), jnp.asarray(targets))
    return _each_draw(lambda position: target.pointwise_loglikelihood_fn(position, examples), draws)


def _each_draw(function: Callable, draws: Draws) -> np.ndarray:
    evaluate = jax.jit(partial(jax.lax.map, function))
    values = np.concatenate([np.asarray(evaluate(block)) for block in _blocks_of_draws(draws)])
    return values.reshape(draws.num_chains, draws.num_draws, *values.shape[1:])


class _Sums(NamedTuple):
    """Sums over draws, for each input."""

    probs: Any
    votes: Any
    logits: Any
    entropy: Any


def _predict_classes(target: LogDensity, draws: Draws, inputs: np.ndarray) -> Predictive:
    sums, count = _sum_over_draws(target, draws, inputs, _class_summary)
    mean = jax.tree.map(lambda total: total / count, sums)
    return Predictive(
        probs=mean.probs / mean.probs.sum(axis=-1, keepdims=True),
        votes=mean.votes,
        mean_logits_probs=_softmax(mean.logits),
        expected_entropy=mean.entropy,
        num_draws=count,
    )


def _predict_values(
    target: LogDensity, draws: Draws, inputs: np.ndarray, noise_std: float
) -> GaussianPredictive:
    # Sums of squares around one draw's outputs: no cancellation when the draws agree closely.
    first = next(_blocks_of_draws(draws))
    one = jax.tree.map(lambda leaf: leaf[:1], first)
    shift = np.concatenate(
        [_block_outputs(target.apply, one, inputs[rows])[0] for rows in _blocks_of_inputs(inputs)]
    )
    (total, squares), count = _sum_over_draws(target, draws, inputs, _deviations, shift)
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0.0)
    return GaussianPredictive(shift + mean, np.sqrt(variance), noise_std, count)


def _sum_over_draws(
    target: LogDensity, draws: Draws, inputs: np.ndarray, summarise: Callable, *per_input: Any
) -> tuple[Any, int]:
    """Sum of ``summarise(*per_input, outputs)`` over draws (float64 on the host), and their number.

    ``per_input`` are arrays with the leading axis of the inputs.
    """
    parts = []
    for rows in _blocks_of_inputs(inputs):
        rest = [array[rows] for array in per_input]
        blocks = (
            _block_sum(target.apply, summarise, block, inputs[rows], *rest)
            for block in _blocks_of_draws(draws)
        )
        parts.append(_add_up(jax.tree.map(lambda x: np.asarray(x, float), s) for s in blocks))
    sums = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    return sums, draws.num_chains * draws.num_draws


# Compiled once per network, summary and shape; `apply` holds no data, so the cache keeps none.
@partial(jax.jit, static_argnums=(0, 1))
def _block_sum(
    apply: Callable, summarise: Callable, positions: Any, inputs: jax.Array, *per_input: jax.Array
) -> Any:
    def one(position: Any) -> Any:
        return summarise(*per_input, apply(position, inputs))

    return jax.tree.map(lambda leaf: leaf.sum(axis=0), jax.lax.map(one, positions))


@partial(jax.jit, static_argnums=0)
def _block_outputs(apply: Callable, positions: Any, inputs: jax.Array) -> jax.Array:
    return jax.lax.map(lambda position: apply(position, inputs), positions)


@partial(jax.jit, static_argnums=(0, 1))
def _block_log_sum(
    apply: Callable, log_prob: Callable, positions: Any, inputs: jax.Array, targets: jax.Array
) -> jax.Array:
    def one(position: Any) -> jax.Array:
        return log_prob(apply(position, inputs), targets)

    return jax.nn.logsumexp(jax.lax.map(one, positions), axis=0)


def _class_summary(logits: jax.Array) -> _Sums:
    log_probs = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    probs = jnp.exp(log_probs)
    votes = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])
    # x log x → 0 where a probability underflows.
    entropy = -jnp.sum(jnp.where(probs > 0, probs * log_probs, 0.0), axis=-1)
    return _Sums(probs, votes, logits, entropy)


def _deviations(shift: jax.Array, outputs: jax.Array) -> tuple[jax.Array, jax.Array]:
    return outputs - shift, (outputs - shift) ** 2


def _add_up(trees: Iterator[Any]) -> Any:
    total = next(trees)
    for tree in trees:
        total = jax.tree.map(np.add, total, tree)
    return total


def _blocks_of_inputs(inputs: np.ndarray) -> list[slice]:
    return [slice(i, i + _BLOCK_INPUTS) for i in range(0, len(inputs), _BLOCK_INPUTS)]


def _blocks_of_draws(draws: Draws) -> Iterator[Any]:
    """Positions of all chains' draws in blocks of bounded size, leaves ``(draws, …)``."""
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws.positions)
    for start in range(0, draws.num_chains * draws.num_draws, _BLOCK_DRAWS):
        yield jax.tree.map(lambda leaf, s=start: leaf[s : s + _BLOCK_DRAWS], flat)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
