"""A log density as a NumPyro model: the way back from `from_numpyro`."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro import distributions as dist

from probbnn.data.sources import num_examples
from probbnn.errors import InputError
from probbnn.posterior.flax import LogDensity
from probbnn.tree import check_structure, leaf_names
from probbnn.types import Batch, Position

__all__ = ["NumPyroModel", "to_numpyro"]


def to_numpyro(target: LogDensity) -> "NumPyroModel":
    """The posterior as a NumPyro model, for NumPyro's own MCMC, SVI and `Predictive`.

    Raises:
        InputError: if the target is no `LogDensity`.

    Examples:
        >>> import jax, numpyro, probbnn as pb
        >>> train, test = pb.load("digits")
        >>> target = pb.LogDensity(pb.MLP(hidden=(10,)), train)
        >>> model = pb.to_numpyro(target)
        >>> params = model.params(target.init(jax.random.key(0)))
        >>> list(params)
        ['Dense_0.bias', 'Dense_0.kernel', 'Dense_1.bias', 'Dense_1.kernel']
        >>> value, _ = numpyro.infer.util.log_density(model, (), {}, params)
        >>> bool(abs(value / target.logdensity_fn(model.position(params)) - 1) < 1e-5)
        True
    """
    if not isinstance(target, LogDensity):
        raise InputError(
            f"the target is a {type(target).__name__}, and a LogDensity is expected; a NumPyro "
            "model of your own can be given to NumPyro itself"
        )
    return NumPyroModel(target)


class NumPyroModel:
    """A NumPyro model: call it within NumPyro's inference or under its handlers.

    Each leaf of the position is a site, called by its dotted path (`params` shows the names); the
    data are the observed site ``"targets"`` in the plate ``"examples"``. NumPyro starts a chain at
    uniform(−2, 2) weights, a bad place for a network, unless it is given ``init_params``.

    There is one density: that of the model is made of the target's own `logprior_fn` and
    `pointwise_loglikelihood_fn`, whoever has written them. The log prior is that of the last leaf's
    site, given the others, whose own are 0.
    """

    def __init__(self, target: LogDensity) -> None:
        self.target = target
        # Sites of the leaves, apart from those of the data and each other.
        names = ["examples", "targets"]
        for name in leaf_names(target.shapes):
            while name in names:
                name = f"{name}.parameter"
            names.append(name)
        self._names = names[2:]

    def __call__(self, subsample_size: int | None = None, batch: Batch | None = None) -> None:
        """The model.

        Args:
            subsample_size: examples in a random minibatch, its log likelihood scaled to all the
                data, as SVI and HMCECS take it; default: all the data.
            batch: examples that somebody else has chosen; their scaled log likelihood is a factor.
        """
        target = self.target
        position = self._sample_position()
        if batch is not None:
            count = num_examples(batch.inputs) if batch.mask is None else batch.mask.sum()
            log_probs = target.pointwise_loglikelihood_fn(position, batch)
            numpyro.factor("targets", target.data_size / count * log_probs.sum())
            return
        with numpyro.plate("examples", target.data_size, subsample_size) as index:
            # All of them without gathering, which an index would be.
            everything = subsample_size is None or subsample_size == target.data_size
            some = target.data.gather(slice(None) if everything else index)
            if isinstance(some.targets, jax.Array):
                observed = _Targets(target, position, some)
                numpyro.sample("targets", observed, obs=some.targets)
            else:
                numpyro.factor("targets", target.pointwise_loglikelihood_fn(position, some))

    def _sample_position(self) -> Position:
        """A site for each leaf of the position, drawn from the prior where NumPyro draws."""
        target = self.target
        leaves, structure = jax.tree.flatten(target.shapes)
        shared_key = numpyro.prng_key()  # None where nothing is drawn
        values: list[jax.Array] = []
        for number, (name, leaf) in enumerate(zip(self._names, leaves, strict=True)):
            is_last = number + 1 == len(leaves)
            logprior = partial(_logprior, target, structure, tuple(values)) if is_last else None
            draw = partial(_leaf_of_prior, target, number)
            site = _Leaf(leaf.shape, logprior, draw, shared_key)
            values.append(numpyro.sample(name, site))
        return jax.tree.unflatten(structure, values)

    def params(self, position: Position) -> dict[str, Any]:
        """A position as values of the sites; leading axes stay.

        Raises:
            InputError: if ``position`` has not the structure of the target's positions.
        """
        check_structure(position, self.target.shapes)
        return dict(zip(self._names, jax.tree.leaves(position), strict=True))

    def position(self, params: Mapping[str, Any]) -> Position:
        """The way back: the position that values of the sites stand for.

        Leading axes, as of NumPyro's draws, stay; sites that are no parameters are passed over.

        Raises:
            InputError: if a parameter's site is missing.
        """
        missing = [name for name in self._names if name not in params]
        if missing:
            raise InputError(
                f"site {missing[0]} is not among {', '.join(params) or 'no sites'}; the values of "
                "all parameters' sites are needed, as the model names them"
            )
        structure = jax.tree.structure(self.target.shapes)
        return jax.tree.unflatten(structure, [params[name] for name in self._names])


class _Leaf(dist.Distribution):
    """One leaf of a position: a log density of 0, or of the whole prior given the other leaves.

    All leaves draw with one key, and so the leaves of one draw from the prior.
    """

    pytree_data_fields = ("_shared_key",)
    pytree_aux_fields = ("_logprior", "_draw")

    def __init__(
        self,
        shape: tuple[int, ...],
        logprior: Callable[[jax.Array], jax.Array] | None,
        draw: Callable[[jax.Array], jax.Array],
        shared_key: jax.Array | None,
    ) -> None:
        self._logprior, self._draw, self._shared_key = logprior, draw, shared_key
        super().__init__(batch_shape=(), event_shape=shape, validate_args=False)

    @property
    def support(self) -> Any:
        return dist.constraints.independent(dist.constraints.real, self.event_dim)

    def log_prob(self, value: jax.Array) -> jax.Array:
        return jnp.zeros(()) if self._logprior is None else self._logprior(value)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        if not sample_shape:
            return self._draw(key if self._shared_key is None else self._shared_key)
        return _many(self._draw, key, sample_shape)


class _Targets(dist.Distribution):
    """The targets of some examples given a position, as the target's likelihood has them."""

    pytree_data_fields = ("_position", "_batch")
    pytree_aux_fields = ("_target",)

    def __init__(self, target: LogDensity, position: Position, batch: Batch) -> None:
        self._target, self._position, self._batch = target, position, batch
        size, *shape = batch.targets.shape
        super().__init__(batch_shape=(size,), event_shape=tuple(shape), validate_args=False)

    @property
    def support(self) -> Any:
        is_discrete = jnp.issubdtype(self._batch.targets.dtype, jnp.integer)
        each = dist.constraints.nonnegative_integer if is_discrete else dist.constraints.real
        return dist.constraints.independent(each, self.event_dim)

    def log_prob(self, value: jax.Array) -> jax.Array:
        batch = self._batch._replace(targets=value)
        return self._target.pointwise_loglikelihood_fn(self._position, batch)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        def one(key: jax.Array) -> jax.Array:
            return self._target.sample_targets(key, self._batch.inputs, self._position)

        return _many(one, key, sample_shape) if sample_shape else one(key)


def _many(
    draw: Callable[[jax.Array], jax.Array], rng_key: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    drawn = jax.vmap(draw)(jax.random.split(rng_key, math.prod(shape)))
    return drawn.reshape(*shape, *drawn.shape[1:])


def _logprior(
    target: LogDensity, structure: Any, others: tuple[jax.Array, ...], last: jax.Array
) -> jax.Array:
    return target.logprior_fn(jax.tree.unflatten(structure, [*others, last]))


def _leaf_of_prior(target: LogDensity, number: int, rng_key: jax.Array) -> jax.Array:
    return jax.tree.leaves(target.sample_prior(rng_key))[number]
