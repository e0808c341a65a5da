"""Gaussians fitted to the posterior, by NumPyro: variational inference and Laplace.

The steps of warm-up are those of the fit; after them, each step is an independent draw. A chain is
one fit from its own start, so that chains that disagree have found different modes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
import optax
from jax.flatten_util import ravel_pytree
from numpyro.infer import SVI as NumPyroSVI
from numpyro.infer import Trace_ELBO
from numpyro.infer.autoguide import (
    AutoGuide,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoNormal,
)
from numpyro.infer.initialization import init_to_value

from probbnn.checks import check_positive
from probbnn.errors import InputError, one_of
from probbnn.posterior.base import Posterior
from probbnn.posterior.flax import LogDensity
from probbnn.posterior.last_layer import last_layers
from probbnn.posterior.numpyro_model import to_numpyro
from probbnn.samplers.base import Kernel, Method, as_schedule, check_step_size, untyped
from probbnn.samplers.from_numpyro import network_of
from probbnn.samplers.from_optax import optimizer
from probbnn.tree import leaf_names, matching, nearest
from probbnn.types import Batch, Position, PRNGKey, PyTree, StepSize

__all__ = ["SVI", "DiagonalLaplace", "FitInfo", "FitState", "Laplace", "LowRankSVI"]

# Where the default learning rate starts. A fit by a constant one is short of the width after some
# thousand steps, if it is small, and goes on moving if it is large.
_PEAK_STEP_SIZE = 1e-2
# A dense precision matrix of more rows than this is no longer a small target's.
_MAX_DENSE = 5_000


class FitState(NamedTuple):
    """State of a fit, and later of the draws from it.

    Attributes:
        position: where the fit is; the last draw from it.
        fit: what the optimiser carries; then the parameters of the fitted Gaussian.
        num_gradients: minibatch gradients taken since the start, a float32 scalar.
    """

    position: Position
    fit: PyTree
    num_gradients: jax.Array


class FitInfo(NamedTuple):
    """What a step reports, scalars.

    Attributes:
        logdensity: a minibatch estimate at the position, or of the evidence bound, while it fits;
            that of the draw over all the data, after.
        num_gradients: minibatch gradients taken since the start.
    """

    logdensity: jax.Array
    num_gradients: jax.Array


@dataclass(frozen=True)
class SVI(Method, name="svi"):
    """`numpyro.infer.SVI`: a Gaussian fitted to the posterior by maximising the evidence bound.

    Attributes:
        guide: ``"normal"``, independent coordinates (mean field), or ``"low_rank"``, diagonal
            plus rank √d.
        step_size: learning rate of Adam, or a schedule; ``None``: falling from 0.01 to 0 over the
            steps of the fit, by a cosine.
        init_scale: standard deviation of every coordinate at the start.
        num_draws: draws from each fit.

    Raises:
        InputError: if a setting is outside its range.
    """

    guides: ClassVar[dict[str, type[AutoGuide]]] = {
        "normal": AutoNormal,
        "low_rank": AutoLowRankMultivariateNormal,
    }

    guide: str = "normal"
    step_size: StepSize | None = None
    init_scale: float = 0.01
    num_draws: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self.guide, self.guides, "guide")
        check_step_size(self.step_size)
        check_positive(init_scale=self.init_scale, num_draws=self.num_draws)

    @property
    def num_fitted_draws(self) -> int:
        """Draws from a fit after all steps."""
        return self.num_draws

    def default_step_size(self, data_size: int) -> float:
        """Where the step size starts if it is ``None``."""
        return _PEAK_STEP_SIZE

    def build(self, target: Posterior, *, num_warmup: int, batch_size: int) -> Kernel:
        """The kernel that fits ``target`` and draws from the fit.

        Raises:
            InputError: if the target is no `LogDensity`.
        """
        network = network_of(target, self.name)
        model = to_numpyro(network)
        optimiser = _adam(self.step_size, num_warmup)
        one_example = network.data.gather(slice(1))

        def engine(position: Position) -> tuple[NumPyroSVI, AutoGuide]:
            """Anew in each trace, since NumPyro's objects keep the values of the first."""
            family = self.guides[self.guide](
                model,
                init_loc_fn=init_to_value(values=model.params(position)),
                init_scale=self.init_scale,
            )
            return NumPyroSVI(model, family, optimiser, Trace_ELBO()), family

        def init_fn(position: Position, rng_key: PRNGKey) -> FitState:
            fit = engine(position)[0].init(untyped(rng_key), batch=one_example)
            return FitState(position, fit, jnp.zeros((), jnp.float32))

        def adapt_fn(rng_key: PRNGKey, state: FitState, batch: Batch) -> tuple[FitState, FitInfo]:
            svi, _ = engine(state.position)
            rng_key = untyped(rng_key)
            svi.init(rng_key, batch=one_example)  # it must know its model; the values are not used
            fit, loss = svi.update(state.fit._replace(rng_key=rng_key), batch=batch)
            num_gradients = state.num_gradients + 1
            return (
                FitState(state.position, fit, num_gradients),
                FitInfo(-loss, num_gradients),
            )

        def settle_fn(state: FitState) -> FitState:
            svi, _ = engine(state.position)
            svi.init(jax.random.PRNGKey(0), batch=one_example)
            return state._replace(fit=svi.get_params(state.fit))

        def step_fn(rng_key: PRNGKey, state: FitState, _: Batch) -> tuple[FitState, FitInfo]:
            svi, family = engine(state.position)
            rng_key = untyped(rng_key)
            svi.init(rng_key, batch=one_example)
            position = model.position(family.sample_posterior(rng_key, state.fit))
            return _drawn(network, state, position)

        return _fit_kernel(init_fn, step_fn, adapt_fn, settle_fn)


@dataclass(frozen=True)
class LowRankSVI(SVI, name="svi_low_rank"):
    """The same settings, for a covariance of diagonal plus low rank."""

    guide: str = "low_rank"


@dataclass(frozen=True)
class Laplace(Method, name="laplace"):
    """Laplace approximation by `numpyro.infer.autoguide.AutoLaplaceApproximation`.

    A Gaussian around a MAP estimate, whose precision is the Hessian of −log density there. Sources:
    MacKay (1992), "A practical Bayesian framework for backpropagation networks"; for the last
    layer, Kristiadi et al. (2020), "Being Bayesian, even just a bit, fixes overconfidence in ReLU
    networks".

    Attributes:
        covariance: ``"last_layer"``, all of the Hessian in the parameters of the layer whose
            output is the network's, the others at their estimates; or ``"diagonal"``, the
            Hessian's diagonal.
        layer: dotted path of the layer to take for the last, or of several, as a pattern (see
            `probbnn.tree.matching`); ``None``: found from the computation.
        step_size: learning rate of Adam towards the MAP estimate, or a schedule; ``None``: falling
            from 0.01 to 0 over the steps of the fit, by a cosine.
        num_draws: draws around each estimate. Where the Hessian has no inverse that is a
            covariance they are not finite, and the chain counts as diverged.

    Raises:
        InputError: if a setting is outside its range.
    """

    covariance: str = "last_layer"
    layer: str | None = None
    step_size: StepSize | None = None
    num_draws: int = 500

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self.covariance, ("last_layer", "diagonal"), "covariance")
        if self.layer is not None and self.covariance != "last_layer":
            raise InputError(
                f"layer is {self.layer!r} beside covariance={self.covariance!r}, which is of all "
                "layers; leave one of them out"
            )
        check_step_size(self.step_size)
        check_positive(num_draws=self.num_draws)

    @property
    def num_fitted_draws(self) -> int:
        """Draws from a fit after all steps."""
        return self.num_draws

    def default_step_size(self, data_size: int) -> float:
        """Where the step size starts if it is ``None``."""
        return _PEAK_STEP_SIZE

    def build(self, target: Posterior, *, num_warmup: int, batch_size: int) -> Kernel:
        """The kernel that climbs to a mode of ``target`` and draws around it.

        Raises:
            InputError: if the target is no `LogDensity`, or so many parameters share the Gaussian
                that NumPyro's dense precision matrix does not fit.
        """
        network = network_of(target, self.name)
        model = to_numpyro(network)
        shapes = model.params(network.shapes)
        is_last = self.covariance == "last_layer"
        free = _last_layer(network, list(shapes), self.layer) if is_last else set(shapes)
        size = sum(shapes[name].size for name in free)
        if size > _MAX_DENSE:
            raise InputError(
                f"a Laplace approximation of {size:,} parameters was asked for; NumPyro keeps a "
                f"dense matrix, so at most {_MAX_DENSE:,}: use covariance='last_layer' or a "
                "smaller layer"
            )
        climb = optimizer(
            network.value_and_grad_estimator,
            _adam(self.step_size, num_warmup),
            network.data_size,
        )
        # A product with the Hessian costs about two gradients over all the data.
        hessian_cost = 2 * size * network.data_size / batch_size

        def init_fn(position: Position, rng_key: PRNGKey) -> FitState:
            return FitState(position, climb.init(position).opt_state, jnp.zeros((), jnp.float32))

        def adapt_fn(rng_key: PRNGKey, state: FitState, batch: Batch) -> tuple[FitState, FitInfo]:
            before = climb.init(state.position)._replace(opt_state=state.fit)
            after, info = climb.step(rng_key, before, batch)
            num_gradients = state.num_gradients + 1
            return (
                FitState(after.position, after.opt_state, num_gradients),
                FitInfo(info.logdensity, num_gradients),
            )

        def settle_fn(state: FitState) -> FitState:
            sites = model.params(state.position)
            fixed = {name: value for name, value in sites.items() if name not in free}
            family = AutoLaplaceApproximation(
                numpyro.handlers.condition(model, data=fixed),
                init_loc_fn=init_to_value(values=sites),
                hessian_fn=_hessian if is_last else _hessian_diagonal,
            )
            engine = NumPyroSVI(family.model, family, optax.adam(1.0), Trace_ELBO())
            params = engine.get_params(engine.init(jax.random.PRNGKey(0)))
            root = family.get_transform(params).scale_tril
            # Where −log density curves down there is no Gaussian, and NumPyro's has no width.
            root = jnp.where(jnp.all(jnp.diag(root) > 0), root, jnp.nan)
            num_gradients = state.num_gradients + hessian_cost
            return FitState(state.position, (state.position, root), num_gradients)

        def step_fn(rng_key: PRNGKey, state: FitState, _: Batch) -> tuple[FitState, FitInfo]:
            mode, root = state.fit
            sites = model.params(mode)
            flat, unravel = ravel_pytree({name: sites[name] for name in free})
            draw = flat + root @ jax.random.normal(rng_key, flat.shape, flat.dtype)
            return _drawn(network, state, model.position({**sites, **unravel(draw)}))

        return _fit_kernel(init_fn, step_fn, adapt_fn, settle_fn)


@dataclass(frozen=True)
class DiagonalLaplace(Laplace, name="laplace_diagonal"):
    """The same settings, for the Hessian's diagonal."""

    covariance: str = "diagonal"


def _adam(step_size: StepSize | None, num_steps: int) -> optax.GradientTransformation:
    if step_size is None:
        return optax.adam(optax.cosine_decay_schedule(_PEAK_STEP_SIZE, num_steps))
    return optax.adam(as_schedule(step_size))


def _fit_kernel(
    init: Callable[..., FitState],
    step: Callable[..., tuple[FitState, FitInfo]],
    adapt: Callable[..., tuple[FitState, FitInfo]],
    settle: Callable[[FitState], FitState],
) -> Kernel:
    return Kernel(
        init,
        step,
        adapt,
        settle,
        temperature=1.0,
        gradients_per_step=None,
        chain_method="parallel",
        looks_ahead=frozenset(),
    )


def _drawn(target: LogDensity, state: FitState, position: Position) -> tuple[FitState, FitInfo]:
    info = FitInfo(target.logdensity_fn(position), state.num_gradients)
    return state._replace(position=position), info


def _last_layer(target: LogDensity, sites: list[str], layer: str | None) -> set[str]:
    """Sites of the parameters of the last layer, or of the one that is called so."""
    parts = target.split(jax.tree.unflatten(jax.tree.structure(target.shapes), sites))
    network = jax.tree.leaves(parts.network)
    if layer is not None:
        names = leaf_names(target.split(target.shapes).network)
        found = set(matching(layer, names))
        if not found:
            raise InputError(
                f"layer is {layer!r}, which is none of the network's; its parameters are "
                f"{', '.join(names)}{nearest(layer, names)}"
            )
        return {site for site, name in zip(network, names, strict=True) if name in found}
    one = jax.tree.map(lambda leaf: leaf[:1], target.data.gather(slice(1)).inputs)
    last = last_layers(target.network.apply, target.split(target.shapes).network, one)
    if not last:
        raise InputError(
            "no layer with a matrix was found whose output is the network's; name it by layer=…, "
            "or use covariance='diagonal'"
        )
    return {network[i] for index in last.values() for i in index}


def _hessian(fn: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Row by row, so that its memory is that of a few gradients."""
    return jax.lax.map(lambda v: jax.jvp(jax.grad(fn), (x,), (v,))[1], jnp.eye(len(x)))


def _hessian_diagonal(fn: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    def entry(v: jax.Array) -> jax.Array:
        return jnp.vdot(v, jax.jvp(jax.grad(fn), (x,), (v,))[1])

    return jnp.diag(jax.lax.map(entry, jnp.eye(len(x))))
