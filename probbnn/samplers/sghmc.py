"""Stochastic gradient Hamiltonian Monte Carlo (SGHMC): Langevin dynamics with momentum.

One step from (θ, u) with the gradient estimate g at θ, friction a and the diagonal preconditioner
G (1 without one); u is the momentum in units in which its law is N(0, T):

    u ← u + √(hG)·g                                        kick
    θ ← θ + ½√(hG)·u                                       half a drift
    u ← (1−a)·u + √(T(1−(1−a)²))·ξ,   ξ ~ N(0, I)          friction and noise, exactly
    θ ← θ + ½√(hG)·u                                       half a drift

The diffusion is that of Chen, Fox & Guestrin (2014), "Stochastic gradient Hamiltonian Monte
Carlo", eq. 15 (their v is √h·u, η is h, α is a); the order of its parts is that of Leimkuhler &
Matthews (2013), "Rational construction of stochastic numerical methods for molecular sampling"
(BAOAB, with the two half kicks of neighbouring steps made into one). On a Gaussian of precision Λ
and with exact gradients both θ and u then have exactly the variances T/Λ and T for every h that is
stable (hGΛ < 4), where SGLD has an error of order h.

Momentum is carried from step to step and never redrawn, so any temperature is right. Over many
steps the chain moves as far as SGLD with a step size of h(2−a)/(2a), and minibatch noise heats it
as much.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from probbnn.errors import InputError
from probbnn.samplers.base import (
    Kernel,
    MomentumStepInfo,
    StepSize,
    as_schedules,
    kinetic_temperature,
)
from probbnn.samplers.noise import normal_like
from probbnn.samplers.preconditioners import RMSPreconditioner

__all__ = ["SGHMCInfo", "SGHMCState", "as_top_level_api", "build_kernel", "init", "sghmc"]


class SGHMCState(NamedTuple):
    """State of the SGHMC chain.

    Attributes:
        position: θ, a pytree of parameters.
        momentum: u, a pytree like θ.
        second_moment: V, running average of the squared gradient estimates, a pytree like θ; an
            empty tuple without preconditioner.
        step: number of steps taken, an int32 scalar.
    """

    position: Any
    momentum: Any
    second_moment: Any
    step: jax.Array


SGHMCInfo = MomentumStepInfo


def init(position: Any, rms: RMSPreconditioner | None = None) -> SGHMCState:
    """The state of a chain that starts at ``position``, at rest."""
    return SGHMCState(
        position,
        jax.tree.map(jnp.zeros_like, position),
        () if rms is None else rms.init(position),
        jnp.zeros((), jnp.int32),
    )


def build_kernel(friction: float = 0.1, rms: RMSPreconditioner | None = None) -> Callable:
    """Build the SGHMC transition kernel.

    Args:
        friction: a in (0, 1], the part of the momentum that a step forgets; 1 − a is the
            "momentum" of an optimiser.
        rms: the preconditioner's settings; ``None``: G = 1. While V adapts, the law is biased.

    Returns:
        ``kernel(rng_key, state, value_and_grad_estimator, minibatch, step_size, temperature=1.0)
        -> (SGHMCState, SGHMCInfo)``, where ``value_and_grad_estimator(position, minibatch)``
        gives an estimate of the log density and its gradient, as
        `LogDensity.value_and_grad_estimator` does.

    Raises:
        InputError: if the friction is outside its range.
    """
    if not 0 < friction <= 1:
        raise InputError(f"friction is {friction}; it must be more than 0 and at most 1")
    kept = 1 - friction

    def kernel(
        rng_key: jax.Array,
        state: SGHMCState,
        value_and_grad_estimator: Callable,
        minibatch: Any,
        step_size: Any,
        temperature: Any = 1.0,
    ) -> tuple[SGHMCState, SGHMCInfo]:
        position, step = state.position, state.step
        value, grad = value_and_grad_estimator(position, minibatch)
        if rms is None:
            second_moment: Any = ()
            preconditioner = jax.tree.map(jnp.ones_like, position)
        else:
            second_moment = rms.update(state.second_moment, grad, step)
            preconditioner = rms.diagonal(second_moment, step + 1)
        noise_scale = jnp.sqrt(temperature * (1 - kept**2))

        def move(theta: Any, u: Any, g: Any, grad: Any, xi: Any) -> tuple[Any, Any]:
            pace = jnp.sqrt(step_size * g)
            u = u + pace * grad
            halfway = theta + 0.5 * pace * u
            u = kept * u + noise_scale * xi
            return (halfway + 0.5 * pace * u).astype(theta.dtype), u.astype(theta.dtype)

        noise = normal_like(rng_key, position)
        moved = jax.tree.map(move, position, state.momentum, preconditioner, grad, noise)
        new_position, momentum = jax.tree.transpose(
            jax.tree.structure(position), jax.tree.structure((0, 0)), moved
        )
        info = SGHMCInfo(
            value, optax.tree.norm(grad), jnp.asarray(step_size), kinetic_temperature(momentum)
        )
        return SGHMCState(new_position, momentum, second_moment, step + 1), info

    return kernel


def as_top_level_api(
    value_and_grad_estimator: Callable,
    step_size: StepSize,
    temperature: float = 1.0,
    *,
    friction: float = 0.1,
    preconditioner: Literal["rms"] | None = None,
    decay: float = 0.99,
    damping: float = 1.0,
    bias_correction: bool = True,
    freeze_after: int | None = None,
) -> Kernel:
    """The sampler: ``init(position)`` and ``step(rng_key, state, minibatch) -> (state, info)``.

    Args:
        value_and_grad_estimator: ``(position, minibatch) -> (value, gradient)`` of a log density.
        step_size: h, a positive number, or a schedule ``step -> h`` (any Optax schedule, or a
            `Cyclical`).
        temperature: T > 0; the target is p(θ)^{1/T}.
        friction: a in (0, 1], the part of the momentum that a step forgets.
        preconditioner: ``None``, or ``"rms"`` for `RMSPreconditioner`, whose settings follow.
        decay: α.
        damping: λ.
        bias_correction: whether V is divided by 1 − α^t.
        freeze_after: number of steps after which V, and so G, stays as it is; ``None``: never.

    Raises:
        InputError: if a number is outside its range.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> def standard_normal(position, minibatch):
        ...     return -0.5 * position**2, -position
        >>> sampler = sghmc(standard_normal, step_size=1e-2)
        >>> state = sampler.init(jnp.array(1.0))
        >>> state, info = sampler.step(jax.random.key(0), state, None)
        >>> float(info.logdensity)
        -0.5
    """
    if preconditioner not in (None, "rms"):
        raise InputError(f"preconditioner is {preconditioner!r}; choose None or 'rms'")
    rms = (
        RMSPreconditioner(decay, damping, bias_correction, freeze_after)
        if preconditioner == "rms"
        else None
    )
    kernel = build_kernel(friction, rms)
    step_sizes, temperatures = as_schedules(step_size, temperature)

    def init_fn(position: Any, rng_key: jax.Array | None = None) -> SGHMCState:
        return init(position, rms)

    def step_fn(
        rng_key: jax.Array, state: SGHMCState, minibatch: Any
    ) -> tuple[SGHMCState, SGHMCInfo]:
        h, t = step_sizes(state.step), temperatures(state.step)
        return kernel(rng_key, state, value_and_grad_estimator, minibatch, h, t)

    def noise_gain(state: SGHMCState) -> Any:
        if rms is None:
            diagonal = jax.tree.map(jnp.ones_like, state.position)
        else:
            diagonal = rms.diagonal(state.second_moment, state.step)
        return optax.tree.scale((2 - friction) / (4 * friction), diagonal)

    return Kernel(init_fn, step_fn, noise_gain, step_size, temperature)


sghmc = as_top_level_api
