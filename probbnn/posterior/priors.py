"""Priors of a network's parameters."""

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.errors import InputError, is_positive
from probbnn.types import Position, PRNGKey, PyTree

if TYPE_CHECKING:
    from numpyro.distributions import Distribution

__all__ = ["GaussianPrior", "Prior"]


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

    def numpyro_distributions(self, shapes: PyTree) -> "list[Distribution] | None":
        """The prior of each leaf as NumPyro has it, or ``None`` where there is no such thing."""
        return None


@dataclass(frozen=True, eq=False)
class GaussianPrior(Prior):
    """Independent N(0, σ²) for each parameter, that is, an L2 penalty ‖θ‖²/(2σ²).

    Attributes:
        scale: σ: one number, or a pytree of numbers that is a prefix of the network's parameters
            (one for each layer, or each leaf).

    Examples:
        >>> import jax.numpy as jnp
        >>> GaussianPrior(2.0).log_prob({"w": jnp.zeros(3)})
        Array(-4.836257, dtype=float32)
    """

    scale: Any = 1.0

    def log_prob(self, network: Position, **own: jax.Array) -> jax.Array:
        """Σ log N(θ_i; 0, σ_i²), normalised: a scalar."""

        def of_leaf(leaf: jax.Array, scale: float) -> jax.Array:
            constant = leaf.size * (np.log(scale) + 0.5 * np.log(2 * np.pi))
            leaf = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
            return -0.5 * jnp.sum((leaf / scale) ** 2) - constant

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
        return jax.tree.unflatten(structure, draws)

    def scales(self, network: PyTree) -> PyTree:
        """σ of each leaf of a position, a pytree of floats like it."""
        return jax.tree.map(float, jax.tree.broadcast(self.scale, network))

    def check(self, shapes: PyTree) -> None:
        """Raise `InputError` unless there is one positive finite σ for each parameter."""
        try:
            scales = jax.tree.broadcast(self.scale, shapes)
        except ValueError as error:
            raise InputError(
                f"prior_scale has the structure {jax.tree.structure(self.scale)}; it must be one "
                f"number or a prefix of the parameters' {jax.tree.structure(shapes)}"
            ) from error
        for path, scale in jax.tree.leaves_with_path(scales):
            if not is_positive(scale):
                is_one = jax.tree_util.all_leaves([self.scale])
                where = "" if is_one else jax.tree_util.keystr(path)
                raise InputError(
                    f"prior_scale{where} is {scale}; a prior's standard deviation must be one "
                    "positive finite number"
                )

    def numpyro_distributions(self, shapes: PyTree) -> "list[Distribution]":
        """A Normal for each leaf, its event as large as the leaf."""
        # NumPyro takes a second to import, and only those who use it should wait for it.
        from numpyro import distributions as dist

        leaves = zip(jax.tree.leaves(shapes), jax.tree.leaves(self.scales(shapes)), strict=True)
        return [dist.Normal(0.0, scale).expand(leaf.shape).to_event() for leaf, scale in leaves]
