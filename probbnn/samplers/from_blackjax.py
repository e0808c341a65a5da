"""BlackJAX's samplers: on minibatches behind `Kernel`, on all the data behind `Sampler`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import optax

from probbnn.errors import InputError, is_positive
from probbnn.inference.whole_chains import ChainDraws, Length, Sampler, collect
from probbnn.posterior.base import Target
from probbnn.samplers.base import (
    Kernel,
    MomentumStepInfo,
    StepInfo,
    StepSize,
    as_schedules,
    kinetic_temperature,
)

__all__ = [
    "SGHMCState",
    "SGLDState",
    "SGNHTInfo",
    "SGNHTState",
    "mclmc",
    "nuts",
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

    position: Any
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

    position: Any
    momentum: Any
    xi: jax.Array
    step: jax.Array


SGNHTInfo = MomentumStepInfo


def sgld(
    value_and_grad_estimator: Callable, step_size: StepSize, temperature: float = 1.0
) -> Kernel:
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
    step_sizes, temperatures = as_schedules(step_size, temperature)
    kernel = blackjax.sgld.build_kernel()

    def init_fn(position: Any, rng_key: jax.Array | None = None) -> SGLDState:
        return SGLDState(position, jnp.zeros((), jnp.int32))

    def step_fn(rng_key: jax.Array, state: SGLDState, minibatch: Any) -> tuple[SGLDState, StepInfo]:
        value, grad = value_and_grad_estimator(state.position, minibatch)
        h, t = step_sizes(state.step), temperatures(state.step)
        # The gradient is evaluated above, where its value is kept too.
        position = kernel(rng_key, state.position, lambda *_: grad, minibatch, h, t)
        info = StepInfo(value, optax.tree.norm(grad), jnp.asarray(h))
        return SGLDState(_like(position, state.position), state.step + 1), info

    def noise_gain(state: SGLDState) -> Any:
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, 0.5), state.position)

    return Kernel(init_fn, step_fn, noise_gain, step_size, temperature)


def sghmc(
    value_and_grad_estimator: Callable,
    step_size: StepSize,
    temperature: float = 1.0,
    *,
    num_integration_steps: int = 10,
    alpha: float = 0.01,
) -> Kernel:
    """`blackjax.sghmc`: momentum drawn from N(0, I), then L steps of Euler's method with friction.

        θ ← θ + ε·p         p ← (1 − αε)·p + ε·g + √(2αε)·ξ     (g at the θ before)

    Its limits, all in BlackJAX 1.7: it samples near T = 1 only, because the momentum is redrawn at
    T = 1; the first of the L position updates knows no gradient, so that the variance is
    L/(L−1) times too large however small ε is; one minibatch serves all L steps; the momentum
    and the steps' noise come from one key. A `Cyclical` step size leaves the momentum noisy while
    it explores. `probbnn.sghmc` has none of these.

    Args:
        value_and_grad_estimator: ``(position, minibatch) -> (value, gradient)`` of a log density.
        step_size: ε, a step in time: its square compares with the step sizes of the others.
        temperature: must be 1.
        num_integration_steps: L; one kernel step costs L + 1 gradients, the last for its report.
        alpha: friction per unit of time.

    Raises:
        InputError: if the temperature is not 1 or another setting is outside its range.
    """
    if temperature != 1:
        raise InputError(
            f"temperature is {temperature}; BlackJAX's SGHMC redraws its momentum at T = 1 and "
            "can sample no other; use probbnn's own sghmc"
        )
    if num_integration_steps < 2:
        raise InputError(
            f"num_integration_steps is {num_integration_steps}; at least 2 are needed, since the "
            "first leaves the gradient out of the position"
        )
    _check_alpha(alpha)
    step_sizes, temperatures = as_schedules(step_size, temperature)
    kernel = blackjax.sghmc.build_kernel(alpha)

    def init_fn(position: Any, rng_key: jax.Array | None = None) -> SGHMCState:
        return SGHMCState(position, jnp.zeros((), jnp.int32))

    def grad_estimator(position: Any, minibatch: Any) -> Any:
        return value_and_grad_estimator(position, minibatch)[1]

    def step_fn(
        rng_key: jax.Array, state: SGHMCState, minibatch: Any
    ) -> tuple[SGHMCState, StepInfo]:
        value, grad = value_and_grad_estimator(state.position, minibatch)
        h, t = step_sizes(state.step), temperatures(state.step)
        position = kernel(
            rng_key, state.position, grad_estimator, minibatch, h, num_integration_steps, t
        )
        info = StepInfo(value, optax.tree.norm(grad), jnp.asarray(h))
        return SGHMCState(_like(position, state.position), state.step + 1), info

    return Kernel(init_fn, step_fn, None, step_size, temperature, num_integration_steps + 1)


def sgnht(
    value_and_grad_estimator: Callable,
    step_size: StepSize,
    temperature: float = 1.0,
    *,
    alpha: float = 0.01,
) -> Kernel:
    """`blackjax.sgnht`: SGHMC whose friction ξ is steered to keep the kinetic temperature at T.

        θ ← θ + ε·p     p ← (1 − ξε)·p + ε·g + √(2αεT)·ζ     ξ ← ξ + ε(‖p‖²/d − T)

    with g at the θ before (explicit Euler). Source: Ding et al. (2014), "Bayesian sampling using
    stochastic gradient thermostats".

    Its limits: one ξ serves all coordinates, so it takes out minibatch noise (and the energy that
    Euler's method gains) only on average, cooling some coordinates for the heat of others; the
    kinetic temperature is right by construction and says nothing about the positions'. Chains
    start at rest and forget their momentum in some 1/(αε) steps, many with BlackJAX's default α.
    While a `Cyclical` step size explores, ξ grows, and the sampling phase starts over-damped.

    Args:
        value_and_grad_estimator: ``(position, minibatch) -> (value, gradient)`` of a log density.
        step_size: ε, a step in time: its square compares with the step sizes of the others.
        temperature: T > 0.
        alpha: the friction that the injected noise would need on its own.

    Raises:
        InputError: if a number is outside its range.
    """
    _check_alpha(alpha)
    step_sizes, temperatures = as_schedules(step_size, temperature)
    kernel = blackjax.sgnht.build_kernel(alpha)

    def init_fn(position: Any, rng_key: jax.Array | None = None) -> SGNHTState:
        return SGNHTState(
            position,
            jax.tree.map(jnp.zeros_like, position),
            jnp.asarray(alpha),
            jnp.zeros((), jnp.int32),
        )

    def step_fn(
        rng_key: jax.Array, state: SGNHTState, minibatch: Any
    ) -> tuple[SGNHTState, SGNHTInfo]:
        value, grad = value_and_grad_estimator(state.position, minibatch)
        h, t = step_sizes(state.step), temperatures(state.step)
        theirs = blackjax.sgmcmc.sgnht.SGNHTState(state.position, state.momentum, state.xi)
        theirs = kernel(rng_key, theirs, lambda *_: grad, minibatch, h, t)
        momentum = _like(theirs.momentum, state.momentum)
        info = SGNHTInfo(
            value, optax.tree.norm(grad), jnp.asarray(h), kinetic_temperature(momentum)
        )
        position = _like(theirs.position, state.position)
        xi = theirs.xi.astype(state.xi.dtype)
        return SGNHTState(position, momentum, xi, state.step + 1), info

    return Kernel(init_fn, step_fn, None, step_size, temperature)


def nuts(
    target: Target, *, target_acceptance_rate: float = 0.8, max_tree_depth: int = 10
) -> Sampler:
    """`blackjax.nuts` after `blackjax.window_adaptation` (step size and diagonal mass matrix).

    Args:
        target: the log density.
        target_acceptance_rate: what the step size is tuned for.
        max_tree_depth: a trajectory has at most 2 to this power leapfrog steps.
    """

    def chain(length: Length, rng_key: jax.Array, position: Any) -> ChainDraws:
        warmup_key, sample_key = jax.random.split(rng_key)
        warmup = blackjax.window_adaptation(
            blackjax.nuts,
            target.logdensity_fn,
            target_acceptance_rate=target_acceptance_rate,
            adaptation_info_fn=lambda state, info, adaptation: info.num_integration_steps,
            max_num_doublings=max_tree_depth,
        )
        adapted, num_steps = warmup.run(warmup_key, position, length.num_warmup)
        kernel = blackjax.nuts(target.logdensity_fn, **adapted.parameters)

        def step(carry: Any) -> Any:
            key, state = carry
            key, step_key = jax.random.split(key)
            state, info = kernel.step(step_key, state)
            stats = {
                "n_examples": info.num_integration_steps * float(target.data_size),
                "logdensity": state.logdensity,
                "acceptance_rate": info.acceptance_rate,
                "n_steps": info.num_integration_steps,
                "tree_depth": info.num_trajectory_expansions,
                "diverging": info.is_divergent,
                "energy": info.energy,
                "step_size": adapted.parameters["step_size"],
            }
            return (key, state), stats

        spent = num_steps.sum() * float(target.data_size)
        return collect(
            step, (sample_key, adapted.state), length, lambda carry: carry[1].position, spent
        )

    return Sampler(chain)


def mclmc(target: Target, *, desired_energy_var: float = 5e-4) -> Sampler:
    """`blackjax.mclmc`, tuned by `blackjax.mclmc_find_L_and_step_size` during warm-up.

    Microcanonical Langevin dynamics without a Metropolis test: its step size, tuned for a given
    variance of the energy error, leaves a bias. A step takes two gradients. Source: Robnik, De
    Luca, Silverstein & Seljak (2023), "Microcanonical Hamiltonian Monte Carlo".

    Args:
        target: the log density.
        desired_energy_var: variance of the energy error per dimension that the step is tuned for.

    Raises:
        InputError: if ``desired_energy_var`` is not positive.
    """
    if not is_positive(desired_energy_var):
        raise InputError(f"desired_energy_var is {desired_energy_var}; it must be positive")

    def chain(length: Length, rng_key: jax.Array, position: Any) -> ChainDraws:
        init_key, tune_key, sample_key = jax.random.split(rng_key, 3)
        kernel = blackjax.mcmc.mclmc.build_kernel()
        state = blackjax.mcmc.mclmc.init(position, target.logdensity_fn, init_key)
        # Its three phases take 1/10, 1/10 + 1/30 and 1/10 of the number of steps that it is told.
        state, tuned, num_tuning = blackjax.mclmc_find_L_and_step_size(
            kernel,
            3 * length.num_warmup,
            state,
            tune_key,
            target.logdensity_fn,
            desired_energy_var=desired_energy_var,
        )

        def step(carry: Any) -> Any:
            key, state = carry
            key, step_key = jax.random.split(key)
            state, info = kernel(
                step_key,
                state,
                target.logdensity_fn,
                tuned.inverse_mass_matrix,
                tuned.L,
                tuned.step_size,
            )
            stats = {
                "n_examples": jnp.asarray(2.0 * target.data_size),
                "logdensity": state.logdensity,
                "energy_change": info.energy_change,
                "step_size": tuned.step_size,
            }
            return (key, state), stats

        spent = 2.0 * num_tuning * target.data_size
        return collect(step, (sample_key, state), length, lambda carry: carry[1].position, spent)

    return Sampler(chain)


def _like(tree: Any, other: Any) -> Any:
    """BlackJAX's noise promotes narrow dtypes; a scan needs the ones that it started with."""
    return jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), tree, other)


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < float("inf"):
        raise InputError(f"alpha is {alpha}; it must be positive and finite")
