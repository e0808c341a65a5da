"""BlackJAX's samplers on minibatches as kernels."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import optax

from probbnn.checks import check_positive
from probbnn.errors import InputError
from probbnn.posterior.base import Posterior
from probbnn.samplers.base import (
    MEAN_LOSS_RATE,
    Kernel,
    Method,
    MomentumStepInfo,
    StepInfo,
    as_schedules,
    check_step_size,
    check_temperature,
    kinetic_temperature,
    largest_curvature,
    untyped,
)
from probbnn.types import Batch, Position, PRNGKey, PyTree, StepSize, ValueAndGrad

__all__ = [
    "SGLD",
    "SGNHT",
    "BlackJAXSGHMC",
    "SGHMCState",
    "SGLDState",
    "SGNHTInfo",
    "SGNHTState",
    "sghmc",
    "sgld",
    "sgnht",
]


class SGLDState(NamedTuple):
    """State of a BlackJAX SGLD chain.

    Attributes:
        position: θ, a pytree of parameters (BlackJAX's whole state).
        step: number of steps taken, an int32 scalar.
    """

    position: Position
    step: jax.Array


# BlackJAX's SGHMC forgets its momentum at the end of a step: its state is a position too.
SGHMCState = SGLDState


class SGNHTState(NamedTuple):
    """State of a BlackJAX SGNHT chain.

    Attributes:
        position: θ, a pytree of parameters.
        momentum: p, a pytree like θ.
        xi: the thermostat's friction, a scalar.
        step: number of steps taken, an int32 scalar.
    """

    position: Position
    momentum: PyTree
    xi: jax.Array
    step: jax.Array


SGNHTInfo = MomentumStepInfo


@dataclass(frozen=True)
class SGLD(Method, name="sgld"):
    """`blackjax.sgld`: θ ← θ + h·g + √(2hT)·ξ, targeting p(θ)^{1/T} as h → 0.

    Welling & Teh (2011) write ε = 2h. BlackJAX's kernel returns a bare position; here the
    estimate that it consumed is reported with it.

    Attributes:
        step_size: h, a positive number, or a schedule ``step -> h``; ``None``: 0.02/N.
        temperature: T > 0.

    Raises:
        InputError: if a number is outside its range.
    """

    step_size: StepSize | None = None
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_step_size(self.step_size)
        check_temperature(self.temperature)

    def stable_step_size(self, target: Posterior) -> float | None:
        """See `Method.stable_step_size`: a quarter of what would be unstable."""
        return 0.5 / largest_curvature(target)

    def build(self, target: Posterior, *, num_warmup: int, batch_size: int) -> Kernel:
        """The kernel that samples ``target``."""
        step_size = self.settings(target.data_size)["step_size"]
        return sgld(target.value_and_grad_estimator, step_size, self.temperature)


def sgld(
    value_and_grad_estimator: ValueAndGrad, step_size: StepSize, temperature: float = 1.0
) -> Kernel:
    """The kernel of `SGLD`, for any estimate of a log density.

    Args:
        value_and_grad_estimator: ``(position, minibatch) -> (value, gradient)`` of a log density.
        step_size: h, a positive number, or a schedule ``step -> h``.
        temperature: T > 0.

    Raises:
        InputError: if step size or temperature is not positive and finite.
    """
    step_sizes, temperatures = as_schedules(step_size, temperature)
    kernel = blackjax.sgld.build_kernel()

    def init_fn(position: Position, rng_key: PRNGKey | None = None) -> SGLDState:
        return SGLDState(position, jnp.zeros((), jnp.int32))

    def step_fn(rng_key: PRNGKey, state: SGLDState, minibatch: Batch) -> tuple[SGLDState, StepInfo]:
        value, grad = value_and_grad_estimator(state.position, minibatch)
        h, t = step_sizes(state.step), temperatures(state.step)
        # The gradient is evaluated above, where its value is kept too.
        position = kernel(rng_key, state.position, lambda *_: grad, minibatch, h, t)
        info = StepInfo(value, optax.tree.norm(grad), jnp.asarray(h))
        return SGLDState(_like(position, state.position), state.step + 1), info

    def noise_gain(state: SGLDState) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), state.position)

    return Kernel(
        init_fn, step_fn, noise_gain=noise_gain, step_size=step_size, temperature=temperature
    )


@dataclass(frozen=True)
class BlackJAXSGHMC(Method, name="blackjax_sghmc"):
    """`blackjax.sghmc`: momentum drawn from N(0, I), then L steps of Euler's method with friction.

        θ ← θ + ε·p         p ← (1 − αε)·p + ε·g + √(2αε)·ξ     (g at the θ before)

    Its limits, all in BlackJAX 1.7: it samples near T = 1 only, because the momentum is redrawn at
    T = 1; the first of the L position updates is made before any gradient, so that the variance is
    L/(L−1) times too large however small ε is; one minibatch serves all L steps; the momentum
    and the steps' noise come from one key. A `Cyclical` step size leaves the momentum noisy while
    it explores. `probbnn.SGHMC` has none of these.

    Attributes:
        step_size: ε, a step in time: its square compares with the step sizes of the others;
            ``None``: √(0.02/N).
        temperature: must be 1.
        num_integration_steps: L; one kernel step costs L + 1 gradients, the last for its report.
        alpha: friction per unit of time.

    Raises:
        InputError: if the temperature is not 1 or another setting is outside its range.
    """

    step_size: StepSize | None = None
    temperature: float = 1.0
    num_integration_steps: int = 10
    alpha: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_step_size(self.step_size)
        if self.temperature != 1:
            raise InputError(
                f"temperature is {self.temperature}; BlackJAX's SGHMC redraws its momentum at "
                "T = 1 and can sample no other; use probbnn's own sghmc"
            )
        if self.num_integration_steps < 2:
            raise InputError(
                f"num_integration_steps is {self.num_integration_steps}; at least 2 are needed, "
                "since the first leaves the gradient out of the position"
            )
        check_positive(alpha=self.alpha)

    def default_step_size(self, data_size: int) -> float:
        """The step size where it is ``None``, for N examples."""
        return (MEAN_LOSS_RATE / data_size) ** 0.5

    def stable_step_size(self, target: Posterior) -> float | None:
        """See `Method.stable_step_size`: less than half a turn in the L steps."""
        return 1.5 / self.num_integration_steps / largest_curvature(target) ** 0.5

    def build(self, target: Posterior, *, num_warmup: int, batch_size: int) -> Kernel:
        """The kernel that samples ``target``."""
        method = replace(self, step_size=self.settings(target.data_size)["step_size"])
        return method.kernel(target.value_and_grad_estimator)

    def kernel(self, value_and_grad_estimator: ValueAndGrad) -> Kernel:
        """The kernel for any estimate of a log density; the step size must be given."""
        assert self.step_size is not None
        step_sizes, temperatures = as_schedules(self.step_size, self.temperature)
        kernel = blackjax.sghmc.build_kernel(self.alpha)

        def init_fn(position: Position, rng_key: PRNGKey | None = None) -> SGHMCState:
            return SGHMCState(position, jnp.zeros((), jnp.int32))

        def grad_estimator(position: Position, minibatch: Batch) -> Position:
            return value_and_grad_estimator(position, minibatch)[1]

        def step_fn(
            rng_key: PRNGKey, state: SGHMCState, minibatch: Batch
        ) -> tuple[SGHMCState, StepInfo]:
            value, grad = value_and_grad_estimator(state.position, minibatch)
            h, t = step_sizes(state.step), temperatures(state.step)
            num_steps = self.num_integration_steps
            key = untyped(rng_key)
            # BlackJAX's noise has the widest type there is, and a loop keeps its types.
            wide = jax.tree.map(_widened, state.position)
            position = kernel(key, wide, grad_estimator, minibatch, h, num_steps, t)
            info = StepInfo(value, optax.tree.norm(grad), jnp.asarray(h))
            return SGHMCState(_like(position, state.position), state.step + 1), info

        return Kernel(
            init_fn,
            step_fn,
            step_size=self.step_size,
            temperature=self.temperature,
            gradients_per_step=self.num_integration_steps + 1,
        )


def _widened(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.result_type(float)))


def sghmc(
    value_and_grad_estimator: ValueAndGrad,
    step_size: StepSize,
    temperature: float = 1.0,
    **settings: Any,
) -> Kernel:
    """The kernel of `BlackJAXSGHMC`, whose other settings follow, for any log density."""
    method = BlackJAXSGHMC.of({"step_size": step_size, "temperature": temperature, **settings})
    return method.kernel(value_and_grad_estimator)


@dataclass(frozen=True)
class SGNHT(Method, name="sgnht"):
    """`blackjax.sgnht`: SGHMC whose friction ξ is steered to keep the kinetic temperature at T.

        θ ← θ + ε·p     p ← (1 − ξε)·p + ε·g + √(2αεT)·ζ     ξ ← ξ + ε(‖p‖²/d − T)

    with g at the θ before (explicit Euler). Source: Ding et al. (2014), "Bayesian sampling using
    stochastic gradient thermostats".

    Its limits: one ξ serves all coordinates, so it takes out minibatch noise (and the energy that
    Euler's method gains) only on average, cooling some coordinates for the heat of others; the
    kinetic temperature is right by construction and says nothing about the positions'. Chains
    start at rest and forget their momentum in some 1/(αε) steps, many with BlackJAX's default α.
    While a `Cyclical` step size explores, ξ grows, and the sampling phase starts over-damped.

    Attributes:
        step_size: ε, a step in time: its square compares with the step sizes of the others;
            ``None``: √(0.02/N).
        temperature: T > 0.
        alpha: the friction that the injected noise would need on its own.

    Raises:
        InputError: if a number is outside its range.
    """

    step_size: StepSize | None = None
    temperature: float = 1.0
    alpha: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_step_size(self.step_size)
        check_temperature(self.temperature)
        check_positive(alpha=self.alpha)

    def default_step_size(self, data_size: int) -> float:
        """The step size where it is ``None``, for N examples."""
        return (MEAN_LOSS_RATE / data_size) ** 0.5

    def stable_step_size(self, target: Posterior) -> float | None:
        """See `Method.stable_step_size`: what Euler's method gains there, the thermostat takes."""
        return 0.1 / largest_curvature(target) ** 0.5

    def build(self, target: Posterior, *, num_warmup: int, batch_size: int) -> Kernel:
        """The kernel that samples ``target``."""
        method = replace(self, step_size=self.settings(target.data_size)["step_size"])
        return method.kernel(target.value_and_grad_estimator)

    def kernel(self, value_and_grad_estimator: ValueAndGrad) -> Kernel:
        """The kernel for any estimate of a log density; the step size must be given."""
        assert self.step_size is not None
        step_sizes, temperatures = as_schedules(self.step_size, self.temperature)
        kernel = blackjax.sgnht.build_kernel(self.alpha)

        def init_fn(position: Position, rng_key: PRNGKey | None = None) -> SGNHTState:
            return SGNHTState(
                position,
                jax.tree.map(jnp.zeros_like, position),
                jnp.asarray(self.alpha),
                jnp.zeros((), jnp.int32),
            )

        def step_fn(
            rng_key: PRNGKey, state: SGNHTState, minibatch: Batch
        ) -> tuple[SGNHTState, SGNHTInfo]:
            value, grad = value_and_grad_estimator(state.position, minibatch)
            h, t = step_sizes(state.step), temperatures(state.step)
            before = blackjax.sgmcmc.sgnht.SGNHTState(state.position, state.momentum, state.xi)
            after = kernel(rng_key, before, lambda *_: grad, minibatch, h, t)
            momentum = _like(after.momentum, state.momentum)
            info = SGNHTInfo(
                value, optax.tree.norm(grad), jnp.asarray(h), kinetic_temperature(momentum)
            )
            position = _like(after.position, state.position)
            xi = after.xi.astype(state.xi.dtype)
            return SGNHTState(position, momentum, xi, state.step + 1), info

        return Kernel(init_fn, step_fn, step_size=self.step_size, temperature=self.temperature)


def sgnht(
    value_and_grad_estimator: ValueAndGrad,
    step_size: StepSize,
    temperature: float = 1.0,
    **settings: Any,
) -> Kernel:
    """The kernel of `SGNHT`, whose other settings follow, for any log density."""
    method = SGNHT.of({"step_size": step_size, "temperature": temperature, **settings})
    return method.kernel(value_and_grad_estimator)


def _like(tree: PyTree, other: PyTree) -> PyTree:
    """BlackJAX's noise promotes narrow dtypes; a scan needs the ones that it started with."""
    return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), tree, other)
