"""What all kernels share: the contract, and the checks of step size and temperature.

A kernel of this library is a `blackjax.base.SamplingAlgorithm` with

    init(position) -> state
    step(rng_key, state, minibatch) -> (state, info)

where ``state`` is a NamedTuple with a field ``position`` and ``info`` a NamedTuple of scalars with
at least ``logdensity`` (a minibatch estimate) and ``grad_norm``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from probbnn.errors import InputError, is_positive

__all__ = ["StepInfo", "StepSize", "as_schedule", "check_temperature"]

StepSize = float | Callable[[Any], Any]


class StepInfo(NamedTuple):
    """What one step saw at the position that it started from.

    Attributes:
        logdensity: minibatch estimate of the log density, a scalar.
        grad_norm: Euclidean norm of its gradient, a scalar.
    """

    logdensity: jax.Array
    grad_norm: jax.Array


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


def check_temperature(temperature: float) -> None:
    """Raise `InputError` unless the temperature is positive and finite."""
    if not is_positive(temperature):
        raise InputError(
            f"temperature is {temperature}; it must be positive and finite (1 is the posterior)"
        )
