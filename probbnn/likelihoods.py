"""Observation models: how probable a target is, given the outputs of the network."""

import math
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.errors import InputError

__all__ = ["Categorical", "Gaussian", "Likelihood"]


class Likelihood(Protocol):
    """What `LogDensity` asks of an observation model."""

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
        # In at least float32, so that a bfloat16 network does not round the log density.
        logits = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
        log_probs = jax.nn.log_softmax(logits)
        return jnp.take_along_axis(log_probs, targets[:, None], axis=1)[:, 0]

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
        dtype = jnp.promote_types(outputs.dtype, jnp.float32)
        residuals = (targets.reshape(outputs.shape) - outputs.astype(dtype)) / self.scale
        log_probs = -0.5 * residuals**2 - math.log(self.scale) - 0.5 * math.log(2 * math.pi)
        return log_probs.reshape(outputs.shape[0], -1).sum(axis=1)

    def check(self, output_shape: tuple[int, ...], targets: np.ndarray) -> None:
        """Raise `InputError` unless ``targets`` are finite and shaped like the outputs."""
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"the noise scale is {self.scale}; it must be positive and finite")
        if math.prod(targets.shape[1:]) != math.prod(output_shape):
            raise InputError(
                f"targets have shape {targets.shape[1:]} per example and the network's outputs "
                f"{output_shape}; a Gaussian likelihood needs them alike"
            )
        if not np.isfinite(targets).all():
            raise InputError("targets contain NaN or infinity; remove or impute those examples")
