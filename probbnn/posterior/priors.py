"""Priors of a network's parameters."""

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.errors import InputError, first_line, is_positive
from probbnn.tree import leaf_names, matching, nearest
from probbnn.types import Position, PRNGKey, PyTree

if TYPE_CHECKING:
    from numpyro.distributions import Distribution

__all__ = ["GaussianPrior", "PathPrior", "Prior", "PriorLike", "as_prior"]

PriorLike: TypeAlias = Union["Prior", "Distribution", float, Mapping[str, Any]]
"""What `as_prior` makes a prior of."""


class Prior(abc.ABC):
    """The prior of a network's parameters, which may have parameters of its own.

    Those are sampled with the network's: they are entries of the position beside ``"network"``,
    and each method that has ``**own`` gets them by name.
    """

    @abc.abstractmethod
    def log_prob(self, network: Position, **own: jax.Array) -> jax.Array:
        """Log density of the network's parameters and of the prior's own: a scalar."""

    @abc.abstractmethod
    def sample(self, rng_key: PRNGKey, shapes: PyTree) -> Position:
        """Network parameters drawn from the prior; ``shapes`` has their shapes and dtypes."""

    @abc.abstractmethod
    def check(self, shapes: PyTree) -> None:
        """Raise `InputError` unless this is a prior for parameters of these shapes."""

    def parameters(self, shapes: PyTree) -> dict[str, Any]:
        """The prior's own parameters by name, at the values where chains start."""
        return {}


@dataclass(frozen=True, eq=False)
class GaussianPrior(Prior):
    """Independent N(c, σ²) for each parameter, that is, an L2 penalty ‖θ − c‖²/(2σ²).

    Around zero it is weight decay; around the parameters of a network trained elsewhere, it keeps
    fine-tuning near its starting point (L2-SP: Li, Grandvalet & Davoine (2018), "Explicit inductive
    bias for transfer learning with convolutional networks").

    Attributes:
        scale: σ: one number, or a pytree of numbers that is a prefix of the network's parameters
            (one for each layer, or each leaf).
        center: c: a pytree like the network's sampled parameters; ``None``: zero.

    Examples:
        >>> import jax.numpy as jnp
        >>> GaussianPrior(2.0).log_prob({"w": jnp.zeros(3)})
        Array(-4.836257, dtype=float32)
        >>> GaussianPrior(2.0, center={"w": jnp.ones(3)}).log_prob({"w": jnp.ones(3)})
        Array(-4.836257, dtype=float32)
    """

    scale: Any = 1.0
    center: Any = None

    def log_prob(self, network: Position, **own: jax.Array) -> jax.Array:
        """Σ log N(θ_i; c_i, σ_i²), normalised: a scalar."""

        def of_leaf(leaf: jax.Array, scale: float) -> jax.Array:
            constant = leaf.size * (np.log(scale) + 0.5 * np.log(2 * np.pi))
            leaf = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
            return -0.5 * jnp.sum((leaf / scale) ** 2) - constant

        if self.center is not None:
            network = jax.tree.map(jnp.subtract, network, self.center)
        return jax.tree.reduce_associative(
            jnp.add, jax.tree.map(of_leaf, network, self.scales(network))
        )

    def sample(self, rng_key: PRNGKey, shapes: PyTree) -> Position:
        """Network parameters drawn from the prior; ``shapes`` has their shapes and dtypes."""
        leaves, structure = jax.tree.flatten(shapes)
        keys = jax.random.split(rng_key, len(leaves))
        draws = [
            scale * jax.random.normal(key, leaf.shape)
            for key, leaf, scale in zip(
                keys, leaves, jax.tree.leaves(self.scales(shapes)), strict=True
            )
        ]
        drawn = jax.tree.unflatten(structure, draws)
        return drawn if self.center is None else jax.tree.map(jnp.add, drawn, self.center)

    def scales(self, network: PyTree) -> PyTree:
        """σ of each leaf of a position, a pytree of floats like it."""
        return jax.tree.map(float, jax.tree.broadcast(self.scale, network))

    def check(self, shapes: PyTree) -> None:
        """Raise `InputError` unless there is one positive finite σ, and a c, for each parameter."""
        try:
            scales = jax.tree.broadcast(self.scale, shapes)
        except ValueError as error:
            raise InputError(_misfit("prior_scale", self.scale, shapes)) from error
        for path, scale in jax.tree.leaves_with_path(scales):
            if not is_positive(scale):
                is_one = jax.tree_util.all_leaves([self.scale])
                where = "" if is_one else jax.tree_util.keystr(path)
                raise InputError(
                    f"prior_scale{where} is {scale}; a prior's standard deviation must be one "
                    "positive finite number"
                )
        if self.center is None:
            return
        given, expected = (
            dict(zip(leaf_names(tree), map(np.shape, jax.tree.leaves(tree)), strict=True))
            for tree in (self.center, shapes)
        )
        for name in [*expected, *given]:
            if given.get(name) != expected.get(name):
                raise InputError(
                    f"the prior's center has {_entry(given, name)} and the network "
                    f"{_entry(expected, name)}; give the sampled parameters of a network like "
                    "this one"
                )


def _entry(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    return f"{name} of shape {shapes[name]}" if name in shapes else f"no {name}"


def _misfit(what: str, given: Any, shapes: PyTree) -> str:
    """Which layer a tree by layers has in excess, or which one it lacks."""
    expected = leaf_names(shapes)
    layers = list(dict.fromkeys(name.split(".")[0] for name in expected))
    message = (
        f"{what} must be one number, or numbers by layer as a prefix of the parameters' tree, whose"
        f" layers are {', '.join(layers)}"
    )
    if isinstance(given, Mapping):
        for name in leaf_names(given):
            if not matching(name, expected):
                return f"{message}; {name} is none of its paths{nearest(name, expected)}"
        missing = [n for n in expected if not any(matching(g, [n]) for g in leaf_names(given))]
        if missing:
            return (
                f"{message}; {missing[0]} has none: give it one, or prior={{…, '**': 1.0}} for "
                "the others"
            )
    return f"{message}; a {type(given).__name__} was given"


@dataclass(frozen=True, eq=False)
class PathPrior(Prior):
    """A prior for each parameter, found by its dotted path.

    Attributes:
        priors: by pattern (see `probbnn.tree.matching`), the first that matches a parameter's path
            being its prior: a standard deviation, a NumPyro distribution of each of its entries
            (or of a leaf with this shape), or a `GaussianPrior` of one σ.

    Examples:
        >>> import jax.numpy as jnp, numpyro.distributions as dist
        >>> prior = PathPrior({"**/bias": 10.0, "**": dist.Laplace(0.0, 1.0)})
        >>> network = {"Dense_0": {"bias": jnp.zeros(1), "kernel": jnp.zeros((2, 1))}}
        >>> round(float(prior.log_prob(network)), 3)
        -4.608
    """

    priors: Mapping[str, Any]

    def log_prob(self, network: Position, **own: jax.Array) -> jax.Array:
        """Sum of the log densities of all entries: a scalar."""
        leaves, found = jax.tree.leaves(network), self._of_leaves(network)
        return sum(
            (log_prob(leaf) for leaf, (log_prob, _) in zip(leaves, found, strict=True)),
            start=jnp.zeros((), jnp.result_type(float)),
        )

    def sample(self, rng_key: PRNGKey, shapes: PyTree) -> Position:
        """Network parameters drawn from the prior; ``shapes`` has their shapes and dtypes."""
        leaves, structure = jax.tree.flatten(shapes)
        keys = jax.random.split(rng_key, len(leaves))
        draws = [
            draw(key, leaf.shape)
            for key, leaf, (_, draw) in zip(keys, leaves, self._of_leaves(shapes), strict=True)
        ]
        return jax.tree.unflatten(structure, draws)

    def check(self, shapes: PyTree) -> None:
        """Raise `InputError` unless each parameter has a prior, and each pattern a parameter."""
        names = leaf_names(shapes)
        for pattern in self.priors:
            if not isinstance(pattern, str) or not matching(pattern, names):
                raise InputError(
                    f"prior has {pattern!r}, which is no parameter's path; they are "
                    f"{', '.join(names)}{nearest(str(pattern), names)}"
                )
        missing = [n for n in names if not any(matching(p, [n]) for p in self.priors)]
        if missing:
            raise InputError(
                f"prior says nothing of {missing[0]}; give it one, or one to all the others by the "
                "pattern '**'"
            )
        for name, leaf, (log_prob, _) in zip(
            names, jax.tree.leaves(shapes), self._of_leaves(shapes), strict=True
        ):
            try:
                value = jax.eval_shape(log_prob, leaf)
            except InputError:
                raise
            except Exception as error:  # whatever the distribution makes of the leaf
                raise InputError(
                    f"the prior of {name} does not fit its shape {leaf.shape}: {first_line(error)}"
                ) from error
            if value.shape:
                raise InputError(
                    f"the prior of {name} gives {value.shape} log densities for one parameter array"
                )

    def _of_leaves(self, network: PyTree) -> list[tuple[Callable[..., Any], Callable[..., Any]]]:
        """Log density of a leaf, and a draw of it, for each leaf."""
        return [
            _functions(self.priors[next(p for p in self.priors if matching(p, [name]))], name)
            for name in leaf_names(network)
        ]


def _functions(prior: Any, name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``leaf -> log density`` and ``(rng_key, shape) -> leaf``."""
    if is_positive(prior):
        prior = GaussianPrior(float(prior))
    if isinstance(prior, GaussianPrior):
        return prior.log_prob, lambda rng_key, shape: prior.sample(
            rng_key, jax.ShapeDtypeStruct(shape, jnp.result_type(float))
        )
    if not _is_distribution(prior):
        raise InputError(
            f"the prior of {name} is {prior!r}; give a standard deviation, a NumPyro distribution "
            "or a GaussianPrior"
        )
    if not _is_real(prior):
        raise InputError(
            f"the prior of {name} is a {type(prior).__name__}, whose support is not the real line; "
            "a network's weights can have any sign: give a distribution such as Normal, Laplace or "
            "StudentT"
        )

    def draw(rng_key: PRNGKey, shape: tuple[int, ...]) -> jax.Array:
        batch = shape[: len(shape) - len(prior.event_shape)]
        return prior.expand(batch).sample(rng_key)

    def log_prob(leaf: jax.Array) -> jax.Array:
        batch = leaf.shape[: leaf.ndim - len(prior.event_shape)]
        return prior.expand(batch).log_prob(leaf).sum()

    return log_prob, draw


def _is_distribution(prior: Any) -> bool:
    # By what it can do, since NumPyro takes a second to import; whoever has one has imported it.
    return all(hasattr(prior, name) for name in ("log_prob", "event_shape", "support", "expand"))


def _is_real(prior: Any) -> bool:
    from numpyro.distributions import constraints

    support = prior.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support in (constraints.real, constraints.real_vector)


def as_prior(prior: PriorLike) -> Prior:
    """A prior of what a user may give for one.

    Args:
        prior: a `Prior`; a NumPyro distribution, of every parameter alike; a mapping from dotted
            paths, wildcards allowed, to either or to standard deviations (`PathPrior`).

    Raises:
        InputError: if it is nothing of the kind.
    """
    if isinstance(prior, Prior):
        return prior
    if isinstance(prior, Mapping):
        return PathPrior(prior)
    if _is_distribution(prior):
        return PathPrior({"**": prior})
    is_number = isinstance(prior, int | float) and math.isfinite(prior)
    hint = f"; for a standard deviation give prior_scale={prior}" if is_number else ""
    raise InputError(
        f"prior is {prior!r}; give a Prior such as GaussianPrior(scale), a NumPyro distribution, "
        f"or either by dotted path{hint}"
    )
