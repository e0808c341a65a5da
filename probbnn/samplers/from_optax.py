"""Optax optimisers as kernels: point estimates."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import optax

from probbnn.errors import one_of
from probbnn.posterior.base import Posterior
from probbnn.samplers.base import Kernel, Method, as_schedule, check_step_size
from probbnn.types import Batch, Position, PRNGKey, PyTree, StepSize, ValueAndGrad

__all__ = ["MAP", "Ensemble", "OptaxInfo", "OptaxState", "optimizer"]


class OptaxState(NamedTuple):
    """State of an optimisation.

    Attributes:
        position: θ, a pytree of parameters.
        opt_state: the Optax optimiser's own state.
    """

    position: Position
    opt_state: PyTree


class OptaxInfo(NamedTuple):
    """What one step saw at the position that it started from.

    Attributes:
        logdensity: minibatch estimate of the log density, a scalar.
        grad_norm: Euclidean norm of its gradient, a scalar.
    """

    logdensity: jax.Array
    grad_norm: jax.Array


def optimizer(
    value_and_grad_estimator: ValueAndGrad,
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

    def init_fn(position: Position, rng_key: PRNGKey | None = None) -> OptaxState:
        return OptaxState(position, transformation.init(position))

    def step_fn(
        rng_key: PRNGKey, state: OptaxState, minibatch: Batch
    ) -> tuple[OptaxState, OptaxInfo]:
        value, grad = value_and_grad_estimator(state.position, minibatch)
        loss_grad = optax.tree.scale(-1 / data_size, grad)
        updates, opt_state = transformation.update(loss_grad, state.opt_state, state.position)
        position = optax.apply_updates(state.position, updates)
        return OptaxState(position, opt_state), OptaxInfo(value, optax.tree.norm(grad))

    return Kernel(init_fn, step_fn)


@dataclass(frozen=True)
class MAP(Method, name="map"):
    """Settings of a point estimate.

    Attributes:
        optimizer: ``"adam"``, ``"rmsprop"`` or any `optax.GradientTransformation`.
        step_size: learning rate of the optimisers by name, or a schedule; a transformation has its
            own.
        eps: of the optimisers by name.

    Raises:
        InputError: if a setting is outside its range.
    """

    point_estimate = True
    default_chains = 1

    optimizer: str | optax.GradientTransformation = "adam"
    step_size: StepSize = 1e-3
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_step_size(self.step_size)
        if isinstance(self.optimizer, str):
            one_of(self.optimizer, ("adam", "rmsprop"), "optimizer")

    def build(self, target: Posterior, *, num_warmup: int, batch_size: int) -> Kernel:
        """The kernel that climbs ``target``."""
        return optimizer(target.value_and_grad_estimator, self._transformation(), target.data_size)

    def _transformation(self) -> optax.GradientTransformation:
        if not isinstance(self.optimizer, str):
            return self.optimizer
        rate = as_schedule(self.step_size)
        if self.optimizer == "adam":
            return optax.adam(rate, eps=self.eps)
        # RMSprop as the field knows it: decay 0.9 and ε inside the square root.
        return optax.rmsprop(rate, decay=0.9, eps=self.eps, eps_in_sqrt=True)


@dataclass(frozen=True)
class Ensemble(MAP, name="ensemble"):
    """The same settings for a deep ensemble."""

    default_chains = 4
