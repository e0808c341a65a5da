"""NumPyro's MCMC on a `LogDensity`: every density here is that of `to_numpyro(target)`."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from numpyro import infer

from probbnn.errors import InputError
from probbnn.posterior.base import Posterior
from probbnn.posterior.flax import LogDensity
from probbnn.posterior.numpyro_model import to_numpyro
from probbnn.samplers.base import Kernel, Method, untyped
from probbnn.samplers.from_optax import optimizer
from probbnn.samplers.nuts import HMCInfo, check_hmc, check_warmup
from probbnn.types import Position, PRNGKey, PyTree

__all__ = ["HMCECS", "HMCECSInfo", "NumPyroNUTS", "NumPyroState", "network_of"]


class NumPyroState(NamedTuple):
    """State of a chain of NumPyro's.

    Attributes:
        position: θ, a pytree of parameters.
        inner: NumPyro's own state, which knows how much of warm-up is over.
        num_gradients: gradients taken since the start, a float32 scalar; those of single examples
            for HMCECS.
    """

    position: Position
    inner: PyTree
    num_gradients: jax.Array


@dataclass(frozen=True)
class NumPyroNUTS(Method, name="numpyro_nuts"):
    """`numpyro.infer.NUTS` with its own warm-up: step size and diagonal mass matrix.

    Chains start where they are told to, not at uniform(−2, 2).

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
        super().__post_init__()
        check_hmc(self.target_acceptance_rate, self.max_tree_depth)

    def build(self, target: Posterior, *, num_warmup: int, batch_size: int) -> Kernel:
        """The kernel that samples ``target``.

        Raises:
            InputError: if warm-up is too short to tune anything, or the target is no `LogDensity`.
        """
        check_warmup(num_warmup)
        model = to_numpyro(network_of(target, self.name))
        kernel = infer.NUTS(
            model,
            target_accept_prob=self.target_acceptance_rate,
            max_tree_depth=self.max_tree_depth,
        )

        def init_fn(position: Position, rng_key: PRNGKey) -> NumPyroState:
            inner = kernel.init(untyped(rng_key), num_warmup, model.params(position), (), {})
            return NumPyroState(position, inner, jnp.zeros((), jnp.float32))

        # NumPyro's kernels know their model from an `init` of their own, which a run that goes on
        # from a stored state, or whose start was compiled before, would not make.
        jax.eval_shape(init_fn, jax.eval_shape(target.init, jax.random.key(0)), jax.random.key(0))

        def step_fn(rng_key: PRNGKey, state: NumPyroState, _: Any) -> tuple[NumPyroState, HMCInfo]:
            inner = kernel.sample(state.inner._replace(rng_key=untyped(rng_key)), (), {})
            num_gradients = state.num_gradients + inner.num_steps
            position = model.position(inner.z)
            return NumPyroState(position, inner, num_gradients), _info(inner, num_gradients)

        return Kernel(
            init_fn,
            step_fn,
            temperature=1.0,
            gradients_per_step=None,
            examples_per_gradient=target.data_size,
            full_data=True,
            # A batch of chains would wait for the deepest tree among them at each step.
            chain_method="parallel",
            looks_ahead=frozenset(),
        )


class HMCECSInfo(NamedTuple):
    """What a step of HMCECS reports: what `HMCInfo` has, and one more.

    Attributes:
        acceptance_rate_minibatch: of the exchange of a block of the minibatch.
    """

    logdensity: jax.Array
    acceptance_rate: jax.Array
    n_steps: jax.Array
    diverging: jax.Array
    energy: jax.Array
    step_size: jax.Array
    num_gradients: jax.Array
    acceptance_rate_minibatch: jax.Array


@dataclass(frozen=True)
class HMCECS(Method, name="hmcecs"):
    """`numpyro.infer.HMCECS` around NUTS: HMC on a minibatch that is itself a state of the chain.

    The log likelihood of all the data is estimated from the minibatch, corrected by a first-order
    Taylor expansion around a MAP estimate. Far from it, as draws of a network's posterior are, the
    expansion is off, the estimate noisy, and the stationary distribution only approximate. For
    small targets. Source: Dang et al. (2019), "Hamiltonian Monte Carlo with energy conserving
    subsampling".

    Attributes:
        num_blocks: blocks of the minibatch; one of them is exchanged at each step.
        map_steps: steps of Adam (learning rate 0.01) towards the MAP estimate, the centre of the
            Taylor expansion, where the chains start.
        target_acceptance_rate: what the step size is tuned for.
        max_tree_depth: a trajectory has at most 2 to this power leapfrog steps.

    Raises:
        InputError: if a setting is outside its range.
    """

    default_steps = 1_000

    num_blocks: int = 10
    map_steps: int = 3_000
    target_acceptance_rate: float = 0.8
    max_tree_depth: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_hmc(self.target_acceptance_rate, self.max_tree_depth)
        if self.num_blocks < 1 or self.map_steps < 0:
            raise InputError(
                f"num_blocks is {self.num_blocks} and map_steps is {self.map_steps}; at least 1 "
                "and 0 are needed"
            )

    def build(self, target: Posterior, *, num_warmup: int, batch_size: int) -> Kernel:
        """The kernel that samples ``target``.

        Raises:
            InputError: if warm-up is too short to tune anything, the target is no `LogDensity`, or
                a minibatch is all the data or smaller than the number of blocks.
        """
        check_warmup(num_warmup)
        network = network_of(target, self.name)
        if not self.num_blocks <= batch_size < target.data_size:
            raise InputError(
                f"batch_size is {batch_size} of {target.data_size} examples and num_blocks is "
                f"{self.num_blocks}; hmcecs needs fewer examples than all, and one or more for "
                "each block (or take numpyro_nuts)"
            )
        model = to_numpyro(network)

        def kernel_around(center: dict[str, Any]) -> infer.HMCECS:
            inner = infer.NUTS(
                lambda: model(subsample_size=batch_size),
                target_accept_prob=self.target_acceptance_rate,
                max_tree_depth=self.max_tree_depth,
            )
            proxy = infer.HMCECS.taylor_proxy(center, degree=1)
            return infer.HMCECS(inner, num_blocks=self.num_blocks, proxy=proxy)

        def init_fn(position: Position, rng_key: PRNGKey) -> NumPyroState:
            mode_key, init_key = jax.random.split(rng_key)
            mode = self._mode(network, mode_key, position, batch_size)
            center = model.params(mode)
            inner = kernel_around(center).init(untyped(init_key), num_warmup, center, (), {})
            num_gradients = self.map_steps * batch_size + 2.0 * target.data_size
            return NumPyroState(mode, (center, inner), jnp.asarray(num_gradients, jnp.float32))

        def step_fn(
            rng_key: PRNGKey, state: NumPyroState, _: Any
        ) -> tuple[NumPyroState, HMCECSInfo]:
            center, inner = state.inner
            kernel = kernel_around(center)
            # NumPyro's kernels know their model from `init`, whose values are not used here.
            kernel.init(untyped(rng_key), num_warmup, center, (), {})
            inner = kernel.sample(inner._replace(rng_key=untyped(rng_key)), (), {})
            steps = inner.hmc_state.num_steps * float(batch_size)
            # The minibatch's exchanged block and, once more, its estimate.
            exchange = batch_size / self.num_blocks + batch_size
            num_gradients = state.num_gradients + steps + exchange
            info = _info(inner.hmc_state, num_gradients)._asdict()
            del info["tree_depth"]
            return (
                NumPyroState(model.position(inner.z), (center, inner), num_gradients),
                # An estimate; the exact one would cost a pass over the data at every step.
                HMCECSInfo(**info, acceptance_rate_minibatch=inner.accept_prob),
            )

        return Kernel(
            init_fn,
            step_fn,
            temperature=1.0,
            gradients_per_step=None,
            examples_per_gradient=1,
            full_data=True,
            chain_method="parallel",
            looks_ahead=frozenset(),
        )

    def _mode(
        self, target: LogDensity, rng_key: PRNGKey, position: Position, batch_size: int
    ) -> Position:
        """A MAP estimate."""
        kernel = optimizer(target.value_and_grad_estimator, optax.adam(1e-2), target.data_size)

        def step(carry: Any, number: jax.Array) -> tuple[Any, None]:
            state, stream = carry
            stream, batch = target.data.next(stream, number)
            return (kernel.step(rng_key, state, batch)[0], stream), None

        carry = kernel.init(position), target.data.init(rng_key, batch_size)
        (state, _), _ = jax.lax.scan(step, carry, jnp.arange(self.map_steps))
        return state.position


def network_of(target: Posterior, method: str) -> LogDensity:
    """``target`` if it is a `LogDensity`, whose NumPyro model a method samples.

    Raises:
        InputError: otherwise.
    """
    if not isinstance(target, LogDensity):
        raise InputError(
            f"{method} samples a LogDensity, and the target is a {type(target).__name__}; give "
            "your NumPyro model to NumPyro itself, or choose another method"
        )
    return target


def _info(state: Any, num_gradients: jax.Array) -> HMCInfo:
    """Of a step of NumPyro's HMC."""
    return HMCInfo(
        logdensity=-state.potential_energy,
        acceptance_rate=state.accept_prob,
        n_steps=state.num_steps,
        # A full tree of depth k has 2^k − 1 steps.
        tree_depth=jnp.ceil(jnp.log2(state.num_steps + 1.0)).astype(jnp.int32),
        diverging=state.diverging,
        energy=state.energy,
        step_size=state.adapt_state.step_size,
        num_gradients=num_gradients,
    )
