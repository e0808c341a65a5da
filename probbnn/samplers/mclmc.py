"""Microcanonical Langevin Monte Carlo on all the data, by BlackJAX, tuned step by step.

Warm-up follows `blackjax.mclmc_find_L_and_step_size`, one step at a time, so that a run can be cut
anywhere in it. With W steps of warm-up, 3W/10 find the step size whose energy error has the wanted
variance; 3W/10 go on and measure each coordinate's variance, which becomes the mass matrix; W/10
find the step size for that; and 3W/10 measure autocorrelation times, of which the momentum's
decoherence length L is made.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.mclmc_adaptation import handle_nans
from blackjax.diagnostics import effective_sample_size
from blackjax.mcmc.integrators import IntegratorState
from jax.flatten_util import ravel_pytree

from probbnn.checks import check_positive
from probbnn.errors import InputError
from probbnn.posterior.base import Posterior
from probbnn.samplers.base import Kernel, Method
from probbnn.samplers.nuts import check_warmup
from probbnn.subsample import random_subset
from probbnn.types import Position, PRNGKey, PyTree

__all__ = ["MCLMC", "MCLMCInfo", "MCLMCState"]

# Of BlackJAX's tuning: how far the energy errors of other step sizes are trusted, how many steps
# they are remembered for, and L in units of the autocorrelation length.
_TRUST = 1.5
_NUM_EFFECTIVE = 150
_L_FACTOR = 0.4
# Coordinates whose autocorrelation is measured at most; L is made of its mean over coordinates.
_MAX_COORDINATES = 1_000


class MCLMCState(NamedTuple):
    """State of an MCLMC chain.

    Attributes:
        integrator: BlackJAX's state: position, momentum, log density and its gradient.
        L: decoherence length of the momentum, a scalar.
        step_size: a scalar.
        inverse_mass_matrix: its diagonal, ``(d,)``.
        num_gradients: gradients taken since the start, a float32 scalar.
        tuning: what warm-up has learnt by now; an empty tuple after it.
    """

    integrator: IntegratorState
    L: jax.Array
    step_size: jax.Array
    inverse_mass_matrix: jax.Array
    num_gradients: jax.Array
    tuning: PyTree

    @property
    def position(self) -> Position:
        """θ, a pytree of parameters."""
        return self.integrator.position


class MCLMCInfo(NamedTuple):
    """What a step reports, scalars.

    Attributes:
        logdensity: at the position where it ended.
        energy_change: its error.
        step_size: of the step.
        num_gradients: gradients taken since the start.
    """

    logdensity: jax.Array
    energy_change: jax.Array
    step_size: jax.Array
    num_gradients: jax.Array


class _Tuning(NamedTuple):
    """Where warm-up is, and what it has measured.

    Attributes:
        step: steps of warm-up taken.
        weight, average: of the running estimate of Var[E]/ε⁶.
        max_step_size: smallest step size that has led out of the finite numbers.
        total: step sizes of the measured steps, summed.
        moments: means of θ and θ² over these, weighted by the step size, ``(2, d)``.
        samples: coordinates at the last steps, ``(n, k)``.
    """

    step: jax.Array
    weight: jax.Array
    average: jax.Array
    max_step_size: jax.Array
    total: jax.Array
    moments: jax.Array
    samples: jax.Array


@dataclass(frozen=True)
class MCLMC(Method, name="mclmc"):
    """`blackjax.mclmc`, tuned in warm-up as `blackjax.mclmc_find_L_and_step_size` does.

    Microcanonical Langevin dynamics without a Metropolis test: its step size, tuned for a given
    variance of the energy error, leaves a bias. A step takes two gradients. Source: Robnik, De
    Luca, Silverstein & Seljak (2023), "Microcanonical Hamiltonian Monte Carlo".

    Attributes:
        desired_energy_var: variance of the energy error per dimension that the step is tuned for.

    Raises:
        InputError: if ``desired_energy_var`` is not positive.
    """

    full_data = True
    default_steps = 10_000

    desired_energy_var: float = 5e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(desired_energy_var=self.desired_energy_var)

    def build(self, target: Posterior, *, num_warmup: int, batch_size: int) -> Kernel:
        """The kernel that samples ``target``.

        Raises:
            InputError: if warm-up is too short to tune anything, or the target has one parameter
                alone, on which a momentum of fixed length cannot turn.
        """
        check_warmup(num_warmup)
        shapes = jax.eval_shape(target.init, jax.random.key(0))
        dim = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        if dim < 2:
            raise InputError(
                "the target has one parameter, and mclmc needs two or more: its momentum has a "
                "fixed length, and in one dimension nowhere to turn; use nuts"
            )
        kernel = blackjax.mcmc.mclmc.build_kernel()
        # Ends of the phases, in steps of warm-up.
        found_step = round(0.3 * num_warmup)
        found_mass = 2 * found_step
        found_step_again = found_mass + round(0.1 * num_warmup)
        num_samples = num_warmup - found_step_again
        watched = random_subset(dim, _MAX_COORDINATES)

        def init_fn(position: Position, rng_key: PRNGKey) -> MCLMCState:
            return MCLMCState(
                blackjax.mcmc.mclmc.init(position, target.logdensity_fn, rng_key),
                jnp.asarray(np.sqrt(dim), float),
                jnp.asarray(0.25 * np.sqrt(dim), float),
                jnp.ones(dim),
                jnp.zeros((), jnp.float32),
                _Tuning(
                    step=jnp.zeros((), jnp.int32),
                    weight=jnp.zeros(()),
                    average=jnp.zeros(()),
                    max_step_size=jnp.asarray(jnp.inf),
                    total=jnp.zeros(()),
                    moments=jnp.zeros((2, dim)),
                    samples=jnp.zeros((num_samples, len(watched))),
                ),
            )

        def move(rng_key: PRNGKey, state: MCLMCState) -> tuple[IntegratorState, Any]:
            return kernel(
                rng_key,
                state.integrator,
                target.logdensity_fn,
                state.inverse_mass_matrix,
                state.L,
                state.step_size,
            )

        def step_fn(rng_key: PRNGKey, state: MCLMCState, _: Any) -> tuple[MCLMCState, MCLMCInfo]:
            integrator, info = move(rng_key, state)
            return _moved(state, integrator, info.energy_change)

        def adapt_fn(rng_key: PRNGKey, state: MCLMCState, _: Any) -> tuple[MCLMCState, MCLMCInfo]:
            step_key, nan_key = jax.random.split(rng_key)
            after, info = move(step_key, state)
            success, integrator, max_step_size, energy_change = handle_nans(
                state.integrator,
                after,
                state.step_size,
                state.tuning.max_step_size,
                info.energy_change,
                info.nonans,
                nan_key,
            )
            state, report = _moved(state, integrator, energy_change)
            tuning = state.tuning._replace(max_step_size=max_step_size)
            t = tuning.step

            # Var[E] = O(ε⁶): the step size whose energy error would have the wanted variance.
            ratio = jnp.square(energy_change) / (dim * self.desired_energy_var) + 1e-8
            trust = jnp.exp(-0.5 * jnp.square(jnp.log(ratio) / (6.0 * _TRUST)))
            memory = (_NUM_EFFECTIVE - 1.0) / (_NUM_EFFECTIVE + 1.0)
            average = memory * tuning.average + trust * (ratio / state.step_size**6)
            weight = memory * tuning.weight + trust
            found = jnp.minimum(jnp.power(average / weight, -1.0 / 6.0), max_step_size)
            step_size = jnp.where(t < found_step_again, found, state.step_size)

            x = ravel_pytree(integrator.position)[0]
            measures = (t >= found_step) & (t < found_mass) & success
            gain = jnp.where(measures, state.step_size, 0.0)
            total = tuning.total + gain
            share = jnp.where(total > 0, gain / jnp.where(total > 0, total, 1.0), 0.0)
            moments = tuning.moments + share * (jnp.stack([x, jnp.square(x)]) - tuning.moments)
            # Before the last phase, overwritten by what follows.
            row = jnp.clip(t - found_step_again, 0, num_samples - 1)
            samples = tuning.samples.at[row].set(x[watched])

            # With the mass matrix, the search for the step size begins anew.
            has_mass = t == found_mass - 1
            variance = moments[1] - jnp.square(moments[0])
            tuning = _Tuning(
                t + 1,
                jnp.where(has_mass, 0.0, weight),
                jnp.where(has_mass, 0.0, average),
                jnp.where(has_mass, jnp.inf, max_step_size),
                total,
                moments,
                samples,
            )
            return state._replace(
                step_size=step_size,
                inverse_mass_matrix=jnp.where(has_mass, variance, state.inverse_mass_matrix),
                tuning=tuning,
            ), report

        def settle_fn(state: MCLMCState) -> MCLMCState:
            times = num_samples / effective_sample_size(state.tuning.samples[None])
            known = jnp.isfinite(times)
            length = _L_FACTOR * state.step_size * jnp.mean(times, where=known)
            return state._replace(L=jnp.where(known.any(), length, state.L), tuning=())

        return Kernel(
            init_fn,
            step_fn,
            adapt_fn,
            settle_fn,
            temperature=1.0,
            gradients_per_step=None,
            examples_per_gradient=target.data_size,
            full_data=True,
            chain_method="parallel",
            looks_ahead=frozenset(),
        )


def _moved(
    state: MCLMCState, integrator: IntegratorState, energy_change: jax.Array
) -> tuple[MCLMCState, MCLMCInfo]:
    num_gradients = state.num_gradients + 2
    info = MCLMCInfo(integrator.logdensity, energy_change, state.step_size, num_gradients)
    return state._replace(integrator=integrator, num_gradients=num_gradients), info
