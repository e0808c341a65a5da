"""What all kernels share: the contract, and the checks of step size and temperature."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from probbnn.errors import InputError, is_positive
from probbnn.samplers.schedules import Cyclical

__all__ = [
    "Kernel",
    "MomentumStepInfo",
    "StepInfo",
    "StepSize",
    "as_schedule",
    "as_schedules",
    "kinetic_temperature",
]

StepSize = float | Callable[[Any], Any]


class Kernel(NamedTuple):
    """A sampler on minibatches, called as BlackJAX's `SamplingAlgorithm` is.

    Attributes:
        init: ``init(position) -> state``, a NamedTuple with a field ``position``.
        step: ``step(rng_key, state, minibatch) -> (state, info)``, where info is a NamedTuple of
            scalars with at least ``logdensity`` (a minibatch estimate) and ``grad_norm``.
        noise_gain: ``noise_gain(state) -> pytree`` like the position: by how much noise of unit
            variance in a coordinate of the gradient raises that coordinate's temperature, per
            unit of step size. ½ for SGLD (the noise of h·ĝ has variance h²·Var[ĝ], the injected
            noise 2hT). ``None`` where it is unknown.
        step_size: the step size or schedule that it was built with, if it has one.
        temperature: T of the law that it samples, if it has one.
        gradients_per_step: minibatch gradients that a step takes; ``None`` where it is unknown.
    """

    init: Callable[..., Any]
    step: Callable[..., Any]
    noise_gain: Callable[[Any], Any] | None = None
    step_size: StepSize | None = None
    temperature: float | None = None
    gradients_per_step: int | None = 1


class StepInfo(NamedTuple):
    """What one step saw at the position that it started from.

    Attributes:
        logdensity: minibatch estimate of the log density, a scalar.
        grad_norm: Euclidean norm of its gradient, a scalar.
        step_size: h of the step, a scalar.
    """

    logdensity: jax.Array
    grad_norm: jax.Array
    step_size: jax.Array


class MomentumStepInfo(NamedTuple):
    """What one step saw at the position that it started from, and where it left the momentum.

    Attributes:
        logdensity: minibatch estimate of the log density, a scalar.
        grad_norm: Euclidean norm of its gradient, a scalar.
        step_size: h of the step, a scalar.
        kinetic_temperature: ‖u‖²/d of the momentum u after the step, a scalar; T in expectation.
    """

    logdensity: jax.Array
    grad_norm: jax.Array
    step_size: jax.Array
    kinetic_temperature: jax.Array


def kinetic_temperature(momentum: Any) -> jax.Array:
    """‖u‖²/d, a scalar, of a momentum u whose law at temperature T is N(0, T)."""
    size = sum(leaf.size for leaf in jax.tree.leaves(momentum))
    return optax.tree.norm(momentum, squared=True) / size


def as_schedule(step_size: StepSize) -> Callable[[Any], Any]:
    """A schedule ``step -> step size`` from a number or from a schedule.

    Raises:
        InputError: if a number is not positive and finite.

    Examples:
        >>> as_schedule(0.1)(1_000)
        0.1
    """
    if callable(step_size):
        return step_size
    if not is_positive(step_size):
        raise InputError(f"step_size is {step_size}; it must be positive and finite")
    return optax.constant_schedule(step_size)


def as_schedules(
    step_size: StepSize, temperature: float
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The schedules ``step -> step size`` and ``step -> temperature`` of a kernel.

    The temperature is constant, except that a `Cyclical` step size turns the noise off (T = 0)
    while it explores.

    Raises:
        InputError: if a number is not positive and finite.
    """
    if not is_positive(temperature):
        raise InputError(
            f"temperature is {temperature}; it must be positive and finite (1 is the posterior)"
        )
    schedule = as_schedule(step_size)
    if isinstance(step_size, Cyclical):
        return schedule, lambda step: jnp.where(step_size.is_sampling(step), temperature, 0.0)
    return schedule, optax.constant_schedule(temperature)
