"""Stochastic gradient Hamiltonian Monte Carlo (SGHMC): Langevin dynamics with momentum.

One step from (θ, u) with the gradient estimate g at θ, friction a and the diagonal preconditioner
G (1 without one); u is the momentum in units in which it is N(0, T) distributed:

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
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from probbnn.errors import InputError
from probbnn.posterior.base import Posterior
from probbnn.samplers.base import (
    MEAN_LOSS_RATE,
    Kernel,
    Method,
    MomentumStepInfo,
    as_schedules,
    check_step_size,
    check_temperature,
    kinetic_temperature,
)
from probbnn.samplers.noise import normal_like
from probbnn.samplers.preconditioners import RMSPreconditioner, check_freeze
from probbnn.types import Position, PRNGKey, PyTree, StepSize, ValueAndGrad

__all__ = ["SGHMC", "SGHMCInfo", "SGHMCState", "build_kernel", "init", "sghmc"]


class SGHMCState(NamedTuple):
    """State of the SGHMC chain.

    Attributes:
        position: θ, a pytree of parameters.
        momentum: u, a pytree like θ.
        second_moment: V, running average of the squared gradient estimates, a pytree like θ; an
            empty tuple without preconditioner.
        step: number of steps taken, an int32 scalar.
    """

    position: Position
    momentum: PyTree
    second_moment: PyTree
    step: jax.Array


SGHMCInfo = MomentumStepInfo


def init(position: Position, rms: RMSPreconditioner | None = None) -> SGHMCState:
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
        rms: the preconditioner's settings; ``None``: G = 1. While V adapts, the stationary
            distribution is biased.

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
    remaining = 1 - friction

    def kernel(
        rng_key: PRNGKey,
        state: SGHMCState,
        value_and_grad_estimator: ValueAndGrad,
        minibatch: Any,
        step_size: Any,
        temperature: Any = 1.0,
    ) -> tuple[SGHMCState, SGHMCInfo]:
        position, step = state.position, state.step
        value, grad = value_and_grad_estimator(position, minibatch)
        if rms is None:
            second_moment: PyTree = ()
            preconditioner = jax.tree.map(jnp.ones_like, position)
        else:
            second_moment = rms.update(state.second_moment, grad, step)
            preconditioner = rms.diagonal(second_moment, step + 1)
        noise_scale = jnp.sqrt(temperature * (1 - remaining**2))

        def move(theta: Any, u: Any, g: Any, grad: Any, xi: Any) -> tuple[Any, Any]:
            scale = jnp.sqrt(step_size * g)
            u = u + scale * grad
            halfway = theta + 0.5 * scale * u
            u = remaining * u + noise_scale * xi
            return (halfway + 0.5 * scale * u).astype(theta.dtype), u.astype(theta.dtype)

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


@dataclass(frozen=True)
class SGHMC(Method, name="sghmc"):
    """Settings of SGHMC.

    Attributes:
        step_size: h, a positive number, or a schedule ``step -> h`` (any Optax schedule, or a
            `Cyclical`); ``None``: 1e-3, or without preconditioner what moves as SGLD with 0.02/N.
        temperature: T > 0; the stationary distribution is p(θ)^{1/T}.
        friction: a in (0, 1], the part of the momentum that a step forgets.
        preconditioner: ``None``, or ``"rms"`` for `RMSPreconditioner`, whose settings follow.
        decay: α.
        damping: λ.
        bias_correction: whether V is divided by 1 − α^t.
        freeze: keep the preconditioner as warm-up left it, which makes the stationary distribution
            right.

    Raises:
        InputError: if a number is outside its range.
    """

    step_size: StepSize | None = None
    temperature: float = 1.0
    friction: float = 0.1
    preconditioner: Literal["rms"] | None = "rms"
    decay: float = 0.99
    damping: float = 1.0
    bias_correction: bool = True
    freeze: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preconditioner not in (None, "rms"):
            raise InputError(f"preconditioner is {self.preconditioner!r}; choose None or 'rms'")
        check_step_size(self.step_size)
        check_temperature(self.temperature)
        build_kernel(self.friction, self._rms(None))  # checks the others

    def default_step_size(self, data_size: int) -> float:
        """The step size where it is ``None``, for N examples."""
        if self.preconditioner is not None:
            return 1e-3
        return 2 * self.friction / (2 - self.friction) * MEAN_LOSS_RATE / data_size

    def build(self, target: Posterior, *, num_warmup: int, batch_size: int) -> Kernel:
        """The kernel that samples ``target``.

        Raises:
            InputError: if the preconditioner is to freeze after a warm-up of no step.
        """
        freezes = self.freeze and self.preconditioner is not None
        method = replace(self, step_size=self.settings(target.data_size)["step_size"])
        return method.kernel(
            target.value_and_grad_estimator, check_freeze(num_warmup) if freezes else None
        )

    def kernel(
        self, value_and_grad_estimator: ValueAndGrad, freeze_after: int | None = None
    ) -> Kernel:
        """The kernel for any estimate of a log density; the step size must be given.

        Args:
            value_and_grad_estimator: ``(position, minibatch) -> (value, gradient)``.
            freeze_after: number of steps after which V, and so G, stays as it is; ``None``: never.
        """
        assert self.step_size is not None
        rms = self._rms(freeze_after)
        kernel = build_kernel(self.friction, rms)
        step_sizes, temperatures = as_schedules(self.step_size, self.temperature)

        def init_fn(position: Position, rng_key: PRNGKey | None = None) -> SGHMCState:
            return init(position, rms)

        def step_fn(
            rng_key: PRNGKey, state: SGHMCState, minibatch: Any
        ) -> tuple[SGHMCState, SGHMCInfo]:
            h, t = step_sizes(state.step), temperatures(state.step)
            return kernel(rng_key, state, value_and_grad_estimator, minibatch, h, t)

        def noise_gain(state: SGHMCState) -> PyTree:
            if rms is None:
                diagonal = jax.tree.map(jnp.ones_like, state.position)
            else:
                diagonal = rms.diagonal(state.second_moment, state.step)
            return optax.tree.scale((2 - self.friction) / (4 * self.friction), diagonal)

        return Kernel(
            init_fn,
            step_fn,
            noise_gain=noise_gain,
            step_size=self.step_size,
            temperature=self.temperature,
        )

    def _rms(self, freeze_after: int | None) -> RMSPreconditioner | None:
        if self.preconditioner is None:
            return None
        return RMSPreconditioner(self.decay, self.damping, self.bias_correction, freeze_after)


def sghmc(
    value_and_grad_estimator: ValueAndGrad,
    step_size: StepSize,
    temperature: float = 1.0,
    *,
    preconditioner: Literal["rms"] | None = None,
    freeze_after: int | None = None,
    **settings: Any,
) -> Kernel:
    """The sampler: ``init(position)`` and ``step(rng_key, state, minibatch) -> (state, info)``.

    Args:
        value_and_grad_estimator: ``(position, minibatch) -> (value, gradient)`` of a log density.
        step_size: h, a positive number, or a schedule ``step -> h``.
        temperature: T > 0; the stationary distribution is p(θ)^{1/T}.
        preconditioner: ``None``, or ``"rms"`` for `RMSPreconditioner`.
        freeze_after: number of steps after which V, and so G, stays as it is; ``None``: never.
        **settings: the others of `SGHMC`.

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
    named = {"step_size": step_size, "temperature": temperature, "preconditioner": preconditioner}
    return SGHMC.of({**named, **settings}).kernel(value_and_grad_estimator, freeze_after)
