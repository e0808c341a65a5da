"""NumPyro on a `LogDensity`: the posterior as its model, and its samplers.

Every density here is the one that NumPyro computes from `LogDensity.numpyro_model`.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpyro
import optax
from numpyro import distributions as dist
from numpyro.infer import HMCECS, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import (
    AutoDelta,
    AutoGuide,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoNormal,
)
from numpyro.infer.initialization import init_to_value

from probbnn.errors import InputError, is_positive, one_of
from probbnn.inference.whole_chains import ChainDraws, Length, Sampler, collect
from probbnn.samplers.base import StepSize, as_schedule
from probbnn.tree import layers

if TYPE_CHECKING:
    from probbnn.posterior.flax import LogDensity

__all__ = ["hmcecs", "laplace", "nuts", "sample_posterior", "svi"]

# A dense precision matrix of more rows than this is no longer a small target's.
_LARGEST_DENSE = 5_000


def sample_posterior(target: "LogDensity", subsample_size: int | None) -> None:
    """The body of `LogDensity.numpyro_model`: a NumPyro model, to be run by its handlers."""
    shapes = target.numpyro_params(target.shapes)
    scales = target.numpyro_params(target.prior_scale)
    leaves = {
        name: numpyro.sample(name, dist.Normal(0.0, scales[name]).expand(leaf.shape).to_event())
        for name, leaf in shapes.items()
    }
    position = target.numpyro_position(leaves)
    with numpyro.plate("examples", target.data_size, subsample_size) as index:
        # All of them without gathering, which an index would be.
        everything = subsample_size is None or subsample_size == target.data_size
        inputs = target.inputs if everything else target.inputs[index]
        targets = target.targets if everything else target.targets[index]
        outputs = target.apply(position, inputs)
        distribution = getattr(target.likelihood, "numpyro_distribution", None)
        if distribution is None:
            numpyro.factor("targets", target.likelihood.log_prob(outputs, targets))
        else:
            observed = distribution(outputs)
            numpyro.sample("targets", observed, obs=targets.reshape(observed.shape()))


def nuts(
    target: "LogDensity", *, target_acceptance_rate: float = 0.8, max_tree_depth: int = 10
) -> Sampler:
    """`numpyro.infer.NUTS` with its own warm-up: step size and diagonal mass matrix.

    Args:
        target: the log density; chains start where they are told to, not at uniform(−2, 2).
        target_acceptance_rate: what the step size is tuned for.
        max_tree_depth: a trajectory has at most 2 to this power leapfrog steps.
    """

    def chain(length: Length, rng_key: jax.Array, position: Any) -> ChainDraws:
        kernel = NUTS(
            target.numpyro_model,
            target_accept_prob=target_acceptance_rate,
            max_tree_depth=max_tree_depth,
        )
        start = target.numpyro_params(position)
        state = kernel.init(rng_key, length.num_warmup, start, (), {})

        def step(state: Any) -> Any:
            state = kernel.sample(state, (), {})
            return state, _hmc_stats(state, target.data_size)

        return _warm_up_and_collect(
            step, state, length, lambda state: target.numpyro_position(state.z), 0.0
        )

    return Sampler(chain)


def hmcecs(
    target: "LogDensity",
    *,
    num_blocks: int = 10,
    map_steps: int = 3_000,
    target_acceptance_rate: float = 0.8,
    max_tree_depth: int = 10,
) -> Sampler:
    """`numpyro.infer.HMCECS` around NUTS: HMC on a minibatch that is itself a state of the chain.

    The log likelihood of all the data is estimated from the minibatch, corrected by a first-order
    Taylor expansion around a MAP estimate. Far from it, as draws of a network's posterior are, the
    expansion is off, the estimate noisy, and its law only approximate. For small targets. Source:
    Dang et al. (2019), "Hamiltonian Monte Carlo with energy conserving subsampling".

    Args:
        target: the log density.
        num_blocks: blocks of the minibatch; one of them is exchanged at each step.
        map_steps: steps of Adam (learning rate 0.01) towards the MAP estimate.
        target_acceptance_rate: what the step size is tuned for.
        max_tree_depth: a trajectory has at most 2 to this power leapfrog steps.

    Raises:
        InputError: if a setting is outside its range, or a minibatch is all the data or smaller
            than the number of blocks.
    """
    if num_blocks < 1 or map_steps < 0:
        raise InputError(
            f"num_blocks is {num_blocks} and map_steps is {map_steps}; at least 1 and 0 are needed"
        )

    def chain(length: Length, rng_key: jax.Array, position: Any) -> ChainDraws:
        map_key, init_key = jax.random.split(rng_key)
        size = length.batch_size
        if not num_blocks <= size < target.data_size:
            raise InputError(
                f"batch_size is {size} of {target.data_size} examples and num_blocks is "
                f"{num_blocks}; hmcecs needs fewer examples than all, and one or more for each "
                "block (or take numpyro_nuts)"
            )
        mode = _mode(target, map_key, position, map_steps, optax.adam(1e-2), size)
        inner = NUTS(
            _minibatch_model(target, size),
            target_accept_prob=target_acceptance_rate,
            max_tree_depth=max_tree_depth,
        )
        proxy = HMCECS.taylor_proxy(target.numpyro_params(mode), degree=1)
        kernel = HMCECS(inner, num_blocks=num_blocks, proxy=proxy)
        start = target.numpyro_params(mode)
        state = kernel.init(init_key, length.num_warmup, start, (), {})

        def step(state: Any) -> Any:
            state = kernel.sample(state, (), {})
            stats = _hmc_stats(state.hmc_state, size)
            # The minibatch's exchanged block and, once more, its estimate.
            stats["n_examples"] += size / num_blocks + size
            # An estimate; the exact one would cost a pass over the data at every step.
            return state, {**stats, "acceptance_rate_minibatch": state.accept_prob}

        spent = map_steps * size + 2.0 * target.data_size
        return _warm_up_and_collect(
            step, state, length, lambda state: target.numpyro_position(state.z), spent
        )

    return Sampler(chain)


def svi(
    target: "LogDensity",
    *,
    guide: str = "normal",
    step_size: StepSize = 1e-3,
    init_scale: float = 0.01,
    num_draws: int = 500,
) -> Sampler:
    """`numpyro.infer.SVI`: a Gaussian fitted to the posterior by maximising the evidence bound.

    A chain is one fit from its own start; all steps fit, and its draws are independent draws from
    the fitted Gaussian. Chains that disagree have found different modes.

    Args:
        target: the log density.
        guide: ``"normal"``, independent coordinates (mean field), or ``"low_rank"``, diagonal
            plus rank √d.
        step_size: learning rate of Adam, or a schedule.
        init_scale: standard deviation of every coordinate at the start.
        num_draws: draws from each fit.

    Raises:
        InputError: if a setting is outside its range.
    """
    guides = {"normal": AutoNormal, "low_rank": AutoLowRankMultivariateNormal}
    build = guides[one_of(guide, guides, "guide")]
    optimizer = optax.adam(as_schedule(step_size))
    _check(init_scale=init_scale, num_draws=num_draws)

    def chain(length: Length, rng_key: jax.Array, position: Any) -> ChainDraws:
        fit_key, draw_key = jax.random.split(rng_key)
        model = _minibatch_model(target, length.batch_size)
        start = init_to_value(values=target.numpyro_params(position))
        family = build(model, init_loc_fn=start, init_scale=init_scale)
        params = _fit(model, family, fit_key, length.num_steps, optimizer)
        sites = family.sample_posterior(draw_key, params, sample_shape=(num_draws,))
        return _independent_draws(target, sites, length.num_steps * length.batch_size)

    return Sampler(chain)


def laplace(
    target: "LogDensity",
    *,
    covariance: str = "last_layer",
    step_size: StepSize = 1e-3,
    num_draws: int = 500,
) -> Sampler:
    """Laplace approximation by `numpyro.infer.autoguide.AutoLaplaceApproximation`.

    A Gaussian around a MAP estimate, whose precision is the Hessian of −log density there. A chain
    is one estimate from its own start, and independent draws around it. Sources: MacKay (1992),
    "A practical Bayesian framework for backpropagation networks"; for the last layer, Kristiadi
    et al. (2020), "Being Bayesian, even just a bit, fixes overconfidence in ReLU networks".

    Args:
        target: the log density.
        covariance: ``"last_layer"``, all of the Hessian in the parameters of the last layer, the
            others at their estimates (the last by name, numbers in their natural order, among the
            layers that have a matrix); or ``"diagonal"``, the Hessian's diagonal.
        step_size: learning rate of Adam towards the MAP estimate, or a schedule.
        num_draws: draws around each estimate; NaN where the Hessian there has no inverse that is
            a covariance.

    Raises:
        InputError: if a setting is outside its range, or so many parameters share the Gaussian
            that NumPyro's dense precision matrix does not fit.
    """
    one_of(covariance, ("last_layer", "diagonal"), "covariance")
    optimizer = optax.adam(as_schedule(step_size))
    _check(num_draws=num_draws)
    shapes = target.numpyro_params(target.shapes)
    free = _last_layer(target) if covariance == "last_layer" else set(shapes)
    size = sum(shapes[name].size for name in free)
    if size > _LARGEST_DENSE:
        raise InputError(
            f"a Laplace approximation of {size:,} parameters was asked for; NumPyro keeps a dense "
            f"matrix, so at most {_LARGEST_DENSE:,}: use covariance='last_layer' or a smaller layer"
        )

    def chain(length: Length, rng_key: jax.Array, position: Any) -> ChainDraws:
        fit_key, init_key, draw_key = jax.random.split(rng_key, 3)
        batch_size = length.batch_size
        mode = _mode(target, fit_key, position, length.num_steps, optimizer, batch_size)
        sites = target.numpyro_params(mode)
        fixed = {name: value for name, value in sites.items() if name not in free}
        model = numpyro.handlers.condition(target.numpyro_model, data=fixed)
        family = AutoLaplaceApproximation(
            model,
            init_loc_fn=init_to_value(values=sites),
            hessian_fn=_hessian if covariance == "last_layer" else _hessian_diagonal,
        )
        params = _fit(model, family, init_key, 0, optimizer)
        draws = family.sample_posterior(draw_key, params, sample_shape=(num_draws,))
        # Where −log density curves down there is no Gaussian, and NumPyro's draws do not vary.
        varies = jnp.any(jnp.stack([jnp.any(draws[name] != sites[name]) for name in draws]))
        draws = {name: jnp.where(varies, draw, jnp.nan) for name, draw in draws.items()}
        stay = {name: jnp.broadcast_to(v, (num_draws, *v.shape)) for name, v in fixed.items()}
        # A product with the Hessian costs about two gradients.
        spent = length.num_steps * batch_size + 2 * size * target.data_size
        return _independent_draws(target, {**stay, **draws}, spent)

    return Sampler(chain)


def _hmc_stats(state: Any, examples_per_gradient: float) -> dict[str, jax.Array]:
    """Statistics of a step of HMC, by ArviZ's names."""
    return {
        "n_examples": state.num_steps * float(examples_per_gradient),
        "logdensity": -state.potential_energy,
        "acceptance_rate": state.accept_prob,
        "n_steps": state.num_steps,
        "diverging": state.diverging,
        "energy": state.energy,
        "step_size": state.adapt_state.step_size,
    }


def _warm_up_and_collect(
    step: Callable[[Any], Any],
    state: Any,
    length: Length,
    position: Callable[[Any], Any],
    num_examples: float,
) -> ChainDraws:
    """NumPyro's kernels count their own warm-up: the steps are the same before and after it."""

    def warm_up(carry: Any, _: None) -> Any:
        state, count = carry
        state, stats = step(state)
        return (state, count + stats["n_examples"]), None

    carry = state, jnp.asarray(num_examples, jnp.float32)
    (state, spent), _ = jax.lax.scan(warm_up, carry, length=length.num_warmup)
    return collect(step, state, length, position, spent)


def _minibatch_model(target: "LogDensity", batch_size: int) -> Callable[[], None]:
    return lambda: target.numpyro_model(batch_size)


def _fit(
    model: Callable[[], None],
    guide: AutoGuide,
    rng_key: jax.Array,
    num_steps: int,
    optimizer: optax.GradientTransformation,
) -> dict[str, Any]:
    """The guide's parameters after so many steps towards a higher evidence bound."""
    engine = SVI(model, guide, optimizer, Trace_ELBO())
    state = engine.init(rng_key)
    state, _ = jax.lax.scan(lambda s, _: (engine.update(s)[0], None), state, length=num_steps)
    return engine.get_params(state)


def _mode(
    target: "LogDensity",
    rng_key: jax.Array,
    position: Any,
    num_steps: int,
    optimizer: optax.GradientTransformation,
    batch_size: int,
) -> Any:
    """A MAP estimate: the position where a point-mass guide ends."""
    model = _minibatch_model(target, batch_size)
    guide = AutoDelta(model, init_loc_fn=init_to_value(values=target.numpyro_params(position)))
    return target.numpyro_position(guide.median(_fit(model, guide, rng_key, num_steps, optimizer)))


def _independent_draws(
    target: "LogDensity", sites: dict[str, Any], num_examples: float
) -> ChainDraws:
    positions = target.numpyro_position(sites)
    logdensity = jax.lax.map(target.logdensity_fn, positions)
    counts = jnp.full(len(logdensity), float(num_examples), jnp.float32)
    return ChainDraws(positions, {"logdensity": logdensity}, counts)


def _last_layer(target: "LogDensity") -> set[str]:
    """Sites of the last layer, by name, that holds a matrix."""
    sites = list(target.numpyro_params(target.shapes).items())
    found = {
        layer: {sites[i][0] for i in members}
        for layer, members in layers(target.shapes).items()
        if any(sites[i][1].ndim >= 2 for i in members)
    }
    if not found:
        raise InputError(
            "no layer of the network holds a matrix, so none is its last; use covariance='diagonal'"
        )
    return found[max(found, key=_natural_order)]


def _natural_order(name: str) -> list[Any]:
    """Sorts Dense_10 behind Dense_9."""
    return [
        (part.isdigit(), int(part) if part.isdigit() else part) for part in re.split(r"(\d+)", name)
    ]


def _hessian(fn: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Row by row, so that its memory is that of a few gradients."""
    return jax.lax.map(lambda v: jax.jvp(jax.grad(fn), (x,), (v,))[1], jnp.eye(len(x)))


def _hessian_diagonal(fn: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    def entry(v: jax.Array) -> jax.Array:
        return jnp.vdot(v, jax.jvp(jax.grad(fn), (x,), (v,))[1])

    return jnp.diag(jax.lax.map(entry, jnp.eye(len(x))))


def _check(**numbers: float) -> None:
    for name, number in numbers.items():
        if not is_positive(number):
            raise InputError(f"{name} is {number}; it must be positive and finite")
