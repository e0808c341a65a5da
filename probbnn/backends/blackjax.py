"""BlackJAX's stochastic-gradient kernels behind the contract of `probbnn.kernels`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import optax
from blackjax.base import SamplingAlgorithm

from probbnn.kernels.base import StepInfo, StepSize, as_schedule, check_temperature

__all__ = ["SGLDState", "sgld"]


class SGLDState(NamedTuple):
    """State of a BlackJAX SGLD chain.

    Attributes:
        position: θ, a pytree of parameters (BlackJAX's whole state).
        step: number of steps taken, an int32 scalar.
    """

    position: Any
    step: jax.Array


def sgld(
    value_and_grad_estimator: Callable, step_size: StepSize, temperature: float = 1.0
) -> SamplingAlgorithm:
    """`blackjax.sgld`: θ ← θ + h·g + √(2hT)·ξ, targeting p(θ)^{1/T} as h → 0.

    Welling & Teh (2011) write ε = 2h. BlackJAX's kernel returns a bare position; here the
    estimate that it consumed is reported with it.

    Args:
        value_and_grad_estimator: ``(position, minibatch) -> (value, gradient)`` of a log density.
        step_size: h, a positive number, or a schedule ``step -> h``.
        temperature: T > 0.

    Raises:
        InputError: if step size or temperature is not positive and finite.
    """
    schedule = as_schedule(step_size)
    check_temperature(temperature)
    kernel = blackjax.sgld.build_kernel()

    def init_fn(position: Any, rng_key: jax.Array | None = None) -> SGLDState:
        return SGLDState(position, jnp.zeros((), jnp.int32))

    def step_fn(rng_key: jax.Array, state: SGLDState, minibatch: Any) -> tuple[SGLDState, StepInfo]:
        value, grad = value_and_grad_estimator(state.position, minibatch)
        position = kernel(
            rng_key,
            state.position,
            lambda *_: grad,  # evaluated above, where its value is kept too
            minibatch,
            schedule(state.step),
            temperature,
        )
        return SGLDState(position, state.step + 1), StepInfo(value, optax.tree.norm(grad))

    return SamplingAlgorithm(init_fn, step_fn)  # type: ignore[arg-type]
