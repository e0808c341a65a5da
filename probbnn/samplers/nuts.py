"""The No-U-Turn sampler on all the data, by BlackJAX, tuned step by step in warm-up."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
from blackjax.adaptation.mass_matrix import mass_matrix_adaptation
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.adaptation.window_adaptation import build_schedule
from blackjax.mcmc.hmc import HMCState
from blackjax.util import pytree_size

from probbnn.errors import InputError
from probbnn.posterior.base import Posterior
from probbnn.samplers.base import Kernel, Method
from probbnn.types import Position, PRNGKey, PyTree

__all__ = ["NUTS", "MIN_WARMUP", "HMCInfo", "NUTSState", "check_hmc", "check_warmup"]

MIN_WARMUP = 20
"""Steps that the windows of an adaptive warm-up need, as Stan has it."""


class NUTSState(NamedTuple):
    """State of a NUTS chain.

    Attributes:
        hmc: BlackJAX's state: position, log density and its gradient.
        step_size: of the leapfrog steps, a scalar.
        inverse_mass_matrix: its diagonal, ``(d,)``.
        num_gradients: gradients taken since the start, a float32 scalar.
        tuning: what warm-up has learnt by now; an empty tuple after it.
    """

    hmc: HMCState
    step_size: jax.Array
    inverse_mass_matrix: jax.Array
    num_gradients: jax.Array
    tuning: PyTree

    @property
    def position(self) -> Position:
        """θ, a pytree of parameters."""
        return self.hmc.position


class HMCInfo(NamedTuple):
    """What a step of a Hamiltonian sampler reports, scalars by ArviZ's names.

    Attributes:
        logdensity: at the position where it ended.
        acceptance_rate: mean over the trajectory.
        n_steps: leapfrog steps.
        tree_depth: doublings of the trajectory.
        diverging: whether the trajectory was cut short by its energy error.
        energy: of position and momentum.
        step_size: of the leapfrog steps.
        num_gradients: gradients taken since the start.
    """

    logdensity: jax.Array
    acceptance_rate: jax.Array
    n_steps: jax.Array
    tree_depth: jax.Array
    diverging: jax.Array
    energy: jax.Array
    step_size: jax.Array
    num_gradients: jax.Array


class _Tuning(NamedTuple):
    """Where warm-up is: its number of steps, and the states of its two adaptations."""

    step: jax.Array
    dual_averaging: PyTree
    mass_matrix: PyTree


@dataclass(frozen=True)
class NUTS(Method, name="nuts"):
    """`blackjax.nuts` with Stan's window adaptation of step size and diagonal mass matrix.

    Attributes:
        target_acceptance_rate: what the step size is tuned for.
        max_tree_depth: a trajectory has at most 2 to this power leapfrog steps.

    Raises:
        InputError: if a setting is outside its range.
    """

    full_data = True
    default_steps = 1_000

    target_acceptance_rate: float = 0.8
    max_tree_depth: int = 10

    def __post_init__(self) -> None:
        check_hmc(self.target_acceptance_rate, self.max_tree_depth)

    def build(self, target: Posterior, *, num_warmup: int, batch_size: int) -> Kernel:
        """The kernel that samples ``target``.

        Raises:
            InputError: if warm-up is too short to tune anything.
        """
        check_warmup(num_warmup)
        kernel = blackjax.nuts.build_kernel()
        schedule = build_schedule(num_warmup)
        init_steps, update_steps, final_steps = dual_averaging_adaptation(
            self.target_acceptance_rate
        )
        init_mass, update_mass, final_mass = mass_matrix_adaptation(True)

        def init_fn(position: Position, rng_key: PRNGKey | None = None) -> NUTSState:
            mass_matrix = init_mass(pytree_size(position))
            return NUTSState(
                blackjax.nuts.init(position, target.logdensity_fn),
                jnp.ones(()),
                mass_matrix.inverse_mass_matrix,
                jnp.zeros((), jnp.float32),
                _Tuning(jnp.zeros((), jnp.int32), init_steps(1.0), mass_matrix),
            )

        def step_fn(rng_key: PRNGKey, state: NUTSState, _: Any) -> tuple[NUTSState, HMCInfo]:
            hmc, info = kernel(
                rng_key,
                state.hmc,
                target.logdensity_fn,
                state.step_size,
                state.inverse_mass_matrix,
                max_num_doublings=self.max_tree_depth,
            )
            num_gradients = state.num_gradients + info.num_integration_steps
            report = HMCInfo(
                logdensity=hmc.logdensity,
                acceptance_rate=info.acceptance_rate,
                n_steps=info.num_integration_steps,
                tree_depth=info.num_trajectory_expansions,
                diverging=info.is_divergent,
                energy=info.energy,
                step_size=state.step_size,
                num_gradients=num_gradients,
            )
            return state._replace(hmc=hmc, num_gradients=num_gradients), report

        def adapt_fn(rng_key: PRNGKey, state: NUTSState, _: Any) -> tuple[NUTSState, HMCInfo]:
            state, info = step_fn(rng_key, state, None)
            step, dual_averaging, mass_matrix = state.tuning
            is_slow, ends_window = schedule[step]
            dual_averaging = update_steps(dual_averaging, info.acceptance_rate)
            mass_matrix = jax.lax.cond(
                is_slow == 1, update_mass, lambda s, _: s, mass_matrix, state.position
            )

            def start_window(dual_averaging: PyTree, mass_matrix: PyTree) -> tuple[PyTree, PyTree]:
                return init_steps(final_steps(dual_averaging)), final_mass(mass_matrix)

            dual_averaging, mass_matrix = jax.lax.cond(
                ends_window == 1, start_window, lambda *same: same, dual_averaging, mass_matrix
            )
            return state._replace(
                step_size=jnp.exp(dual_averaging.log_step_size),
                inverse_mass_matrix=mass_matrix.inverse_mass_matrix,
                tuning=_Tuning(step + 1, dual_averaging, mass_matrix),
            ), info

        def settle_fn(state: NUTSState) -> NUTSState:
            return state._replace(step_size=final_steps(state.tuning.dual_averaging), tuning=())

        return Kernel(
            init_fn,
            step_fn,
            adapt_fn,
            settle_fn,
            temperature=1.0,
            gradients_per_step=None,
            examples_per_gradient=target.data_size,
            full_data=True,
            # A batch of chains would wait for the deepest tree among them at each step.
            chain_method="parallel",
            looks_ahead=frozenset(),
        )


def check_hmc(target_acceptance_rate: float, max_tree_depth: int) -> None:
    """Raise `InputError` unless these are settings that a NUTS can have."""
    if not 0 < target_acceptance_rate < 1:
        raise InputError(
            f"target_acceptance_rate is {target_acceptance_rate}; it must be between 0 and 1"
        )
    if max_tree_depth < 1:
        raise InputError(f"max_tree_depth is {max_tree_depth}; it must be at least 1")


def check_warmup(num_warmup: int) -> None:
    """Raise `InputError` unless warm-up is long enough to tune something."""
    if num_warmup < MIN_WARMUP:
        raise InputError(
            f"num_warmup is {num_warmup}; the sampler tunes itself during warm-up and needs at "
            f"least {MIN_WARMUP} steps, better some hundreds"
        )
