"""Observation models: how probable a target is, given the outputs of the network."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.errors import InputError, is_positive

if TYPE_CHECKING:
    from numpyro.distributions import Distribution

__all__ = ["Categorical", "Gaussian", "LearnedGaussian", "Likelihood"]


class Likelihood(Protocol):
    """What `LogDensity` asks of an observation model.

    Two more methods are used where they exist. ``join(init, apply, prior_scale)`` returns the
    three with the likelihood's own parameters among those of the network (`LearnedGaussian`).
    ``numpyro_distribution(outputs)`` returns the law of the targets as NumPyro has it, with batch
    shape ``(n,)``; observe ``targets.reshape(distribution.shape())``.
    """

    def log_prob(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Log probability of each target, shape ``(n,)``, for outputs of shape ``(n, …)``."""
        ...

    def check(self, output_shape: tuple[int, ...], targets: np.ndarray) -> None:
        """Raise `InputError` unless targets fit outputs of shape ``output_shape`` each."""
        ...


class Categorical(NamedTuple):
    """Class labels 0 … K−1, given K logits (a softmax classifier).

    Examples:
        >>> import jax.numpy as jnp
        >>> Categorical().log_prob(jnp.zeros((2, 4)), jnp.array([0, 3]))
        Array([-1.3862944, -1.3862944], dtype=float32)
    """

    def log_prob(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Log probability of each label, shape ``(n,)``, for logits of shape ``(n, K)``."""
        log_probs = jax.nn.log_softmax(_at_least_float32(outputs))
        return jnp.take_along_axis(log_probs, targets[:, None], axis=1)[:, 0]

    def numpyro_distribution(self, outputs: jax.Array) -> "Distribution":
        """The law of n labels, batch shape ``(n,)``, for logits of shape ``(n, K)``."""
        from numpyro import distributions as dist

        return dist.Categorical(logits=_at_least_float32(outputs))

    def check(self, output_shape: tuple[int, ...], targets: np.ndarray) -> None:
        """Raise `InputError` unless ``targets`` are integers in 0 … K−1 for K outputs."""
        if len(output_shape) != 1:
            raise InputError(
                f"the network gives outputs of shape {output_shape} per example; a categorical "
                "likelihood needs a vector of one logit per class"
            )
        if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
            raise InputError(
                f"labels are {targets.dtype} of shape {targets.shape}; a categorical likelihood "
                "needs integers of shape (n,)"
            )
        outside = np.flatnonzero((targets < 0) | (targets >= output_shape[0]))
        if outside.size:
            raise InputError(
                f"label {targets[outside[0]]} at index {outside[0]} is out of range: the network "
                f"has {output_shape[0]} outputs, so labels must be 0 to {output_shape[0] - 1}"
            )


class Gaussian(NamedTuple):
    """Real-valued targets, normally distributed around the outputs of the network.

    Attributes:
        scale: standard deviation of the observation noise, in units of the targets.

    Examples:
        >>> import jax.numpy as jnp
        >>> Gaussian(scale=2.0).log_prob(jnp.zeros((1, 1)), jnp.array([0.0]))
        Array([-1.6120857], dtype=float32)
    """

    scale: float = 1.0

    def log_prob(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Log density of each target, shape ``(n,)``; several outputs are independent."""
        return _normal_log_prob(outputs, self.scale, math.log(self.scale), targets)

    def numpyro_distribution(self, outputs: jax.Array) -> "Distribution":
        """The law of the targets: batch shape ``(n,)``, event shape that of an output."""
        return _normal(outputs, self.scale)

    def check(self, output_shape: tuple[int, ...], targets: np.ndarray) -> None:
        """Raise `InputError` unless ``targets`` are finite and shaped like the outputs."""
        if not is_positive(self.scale):
            raise InputError(f"the noise scale is {self.scale}; it must be positive and finite")
        _check_values(output_shape, targets)


class LearnedGaussian(NamedTuple):
    """Real-valued targets, normally distributed with a standard deviation σ that is learned.

    One σ for all inputs and outputs, with prior log σ ~ N(0, prior_scale²), which suits targets
    that are standardised. log σ joins the network as one more leaf of the position,
    ``{"network": …, "log_noise_scale": …}``, and `LogDensity.apply` returns it behind the
    network's k outputs as one more column: outputs are ``(n, k+1)`` for every sampler.

    Attributes:
        prior_scale: standard deviation of log σ under the prior.

    Examples:
        >>> import jax, jax.numpy as jnp, probbnn as pb
        >>> data = jnp.ones((5, 3)), jnp.ones(5)
        >>> target = pb.LogDensity(
        ...     pb.MLP(hidden=(), num_outputs=1), data, likelihood=LearnedGaussian()
        ... )
        >>> position = target.init(jax.random.key(0))
        >>> sorted(position)
        ['log_noise_scale', 'network']
        >>> target.apply(position, data[0]).shape
        (5, 2)
    """

    prior_scale: float = 1.0

    def join(
        self, init: Callable[..., Any], apply: Callable[..., Any], prior_scale: Any
    ) -> tuple[Callable[..., Any], Callable[..., Any], Any]:
        """``(init, apply, prior_scale)`` of a network, with log σ as one more parameter.

        Every chain starts at σ = 1, all that there is to explain in standardised targets: with so
        much noise, gradients are small while the network is still a random one. Chains need no
        different starts of one scalar that all N examples inform; those of the network differ.
        """

        def joint_init(rng_key: jax.Array) -> Any:
            return {"network": init(rng_key), "log_noise_scale": jnp.zeros(())}

        def joint_apply(position: Any, inputs: jax.Array) -> jax.Array:
            means = apply(position["network"], inputs)
            means = _at_least_float32(means).reshape(len(means), -1)
            column = jnp.broadcast_to(position["log_noise_scale"], (len(means), 1))
            return jnp.concatenate([means, column], axis=1)

        scales = {"network": prior_scale, "log_noise_scale": self.prior_scale}
        return joint_init, joint_apply, scales

    def log_prob(self, outputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Log density of each target, ``(n,)``, for k means and log σ, ``(n, k+1)``."""
        log_scale = _at_least_float32(outputs[:, -1:])
        return _normal_log_prob(outputs[:, :-1], jnp.exp(log_scale), log_scale, targets)

    def numpyro_distribution(self, outputs: jax.Array) -> "Distribution":
        """The law of the targets: batch shape ``(n,)``, event shape ``(k,)``."""
        return _normal(outputs[:, :-1], jnp.exp(_at_least_float32(outputs[:, -1:])))

    def check(self, output_shape: tuple[int, ...], targets: np.ndarray) -> None:
        """Raise `InputError` unless ``targets`` are finite and as many as the network's outputs."""
        if not is_positive(self.prior_scale):
            raise InputError(
                f"the prior scale of log σ is {self.prior_scale}; it must be positive and finite"
            )
        _check_values((output_shape[0] - 1,), targets)


def _at_least_float32(outputs: jax.Array) -> jax.Array:
    """So that a bfloat16 network does not round the log density."""
    return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))


def _normal_log_prob(means: jax.Array, scale: Any, log_scale: Any, targets: jax.Array) -> jax.Array:
    residuals = (targets.reshape(means.shape) - _at_least_float32(means)) / scale
    log_probs = -0.5 * residuals**2 - log_scale - 0.5 * math.log(2 * math.pi)
    return log_probs.reshape(len(means), -1).sum(axis=1)


def _normal(means: jax.Array, scale: Any) -> "Distribution":
    # NumPyro takes a second to import, and only those who use it should wait for it.
    from numpyro import distributions as dist

    return dist.Normal(_at_least_float32(means), scale).to_event(means.ndim - 1)


def _check_values(output_shape: tuple[int, ...], targets: np.ndarray) -> None:
    if math.prod(targets.shape[1:]) != math.prod(output_shape):
        raise InputError(
            f"targets have shape {targets.shape[1:]} per example and the network's outputs "
            f"{output_shape}; a Gaussian likelihood needs them alike"
        )
    if not np.isfinite(targets).all():
        raise InputError("targets contain NaN or infinity; remove or impute those examples")
