"""Optax optimisers behind the contract of `probbnn.samplers.base`: the point estimates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from probbnn.samplers.base import Kernel

__all__ = ["OptaxInfo", "OptaxState", "optimizer"]


class OptaxState(NamedTuple):
    """State of an optimisation.

    Attributes:
        position: θ, a pytree of parameters.
        opt_state: the Optax optimiser's own state.
    """

    position: Any
    opt_state: Any


class OptaxInfo(NamedTuple):
    """What one step saw at the position that it started from.

    Attributes:
        logdensity: minibatch estimate of the log density, a scalar.
        grad_norm: Euclidean norm of its gradient, a scalar.
    """

    logdensity: jax.Array
    grad_norm: jax.Array


def optimizer(
    value_and_grad_estimator: Callable,
    transformation: optax.GradientTransformation,
    data_size: int,
) -> Kernel:
    """Maximise a log density with Optax: a maximum a posteriori (MAP) point estimate.

    The loss that Optax sees is −logdensity/N, the usual training loss (mean negative log
    likelihood plus the L2 penalty ‖θ‖²/(2σ²N)), so that learning rates mean what they mean
    elsewhere. ``rng_key`` is not used: the only randomness is the minibatch.

    Args:
        value_and_grad_estimator: ``(position, minibatch) -> (value, gradient)`` of a log density.
        transformation: any Optax optimiser.
        data_size: N.
    """

    def init_fn(position: Any, rng_key: jax.Array | None = None) -> OptaxState:
        return OptaxState(position, transformation.init(position))

    def step_fn(
        rng_key: jax.Array, state: OptaxState, minibatch: Any
    ) -> tuple[OptaxState, OptaxInfo]:
        value, grad = value_and_grad_estimator(state.position, minibatch)
        loss_grad = optax.tree.scale(-1 / data_size, grad)
        updates, opt_state = transformation.update(loss_grad, state.opt_state, state.position)
        position = optax.apply_updates(state.position, updates)
        return OptaxState(position, opt_state), OptaxInfo(value, optax.tree.norm(grad))

    return Kernel(init_fn, step_fn)
