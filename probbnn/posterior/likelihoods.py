"""Observation models: how probable a target is, given the outputs of the network.

A likelihood of your own is a subclass of `Likelihood`: `log_prob` and `check` are all that sampling
asks of it, `summarise` and `predictive` what `probbnn.predict` does.
"""

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from probbnn.errors import InputError, is_positive
from probbnn.posterior.predictives import GaussianPredictive, Predictive
from probbnn.types import PyTree

if TYPE_CHECKING:
    from numpyro.distributions import Distribution

__all__ = ["Categorical", "Gaussian", "LearnedGaussian", "Likelihood", "Summary"]


class Summary(NamedTuple):
    """What of one draw's outputs a predictive is made of.

    Attributes:
        averaged: pytree of arrays whose means over the draws are wanted.
        spread: pytree of arrays whose means and variances over the draws are wanted.
    """

    averaged: PyTree = ()
    spread: PyTree = ()


class Likelihood(abc.ABC):
    """An observation model, which may have parameters of its own.

    Those are sampled with the network's: they are entries of the position beside ``"network"``,
    and each method that has ``**own`` gets them by name.

    Attributes:
        quantity: what `values` are, the name of a variable in an ArviZ tree: ``"probability"`` or
            ``"output"``.
    """

    quantity: str = "output"

    @abc.abstractmethod
    def log_prob(self, outputs: jax.Array, targets: jax.Array, **own: jax.Array) -> jax.Array:
        """Log probability of each target, shape ``(n,)``, for outputs of shape ``(n, …)``."""

    @abc.abstractmethod
    def check(self, output_shape: tuple[int, ...], targets: np.ndarray) -> None:
        """Raise `InputError` unless targets fit outputs of shape ``output_shape`` each."""

    def parameters(self) -> dict[str, jax.Array]:
        """The likelihood's own parameters by name, at the values where chains start."""
        return {}

    def log_prior(self, **own: jax.Array) -> jax.Array | float:
        """Log density of the prior of these parameters: a scalar."""
        return 0.0

    def sample_prior(self, rng_key: jax.Array) -> dict[str, jax.Array]:
        """These parameters drawn from their prior."""
        return {}

    def values(self, outputs: jax.Array, **own: jax.Array) -> jax.Array:
        """What is followed of the function: shape ``(n, …)`` from outputs of shape ``(n, …)``."""
        return outputs

    def summarise(self, outputs: jax.Array, **own: jax.Array) -> Summary:
        """What `predictive` needs of the outputs of one draw, of shape ``(n, …)``.

        Raises:
            InputError: if this likelihood has no predictive.
        """
        raise InputError(
            f"there is no predictive for a {type(self).__name__} likelihood; use "
            "target.apply on each draw, or give it the methods summarise and predictive"
        )

    def predictive(self, mean: Summary, variance: PyTree, num_draws: int) -> Any:
        """The predictive, from means of all that `summarise` gave and variances of its spread."""
        raise NotImplementedError

    def numpyro_distribution(self, outputs: jax.Array, **own: jax.Array) -> "Distribution | None":
        """The distribution of the targets as NumPyro has it, with batch shape ``(n,)``.

        Observed are ``targets.reshape(distribution.shape())``. ``None``: NumPyro's model takes
        `log_prob` as a factor.
        """
        return None

    def numpyro_prior(self) -> "dict[str, Distribution]":
        """The prior of each own parameter as NumPyro has it."""
        return {}


@dataclass(frozen=True)
class Categorical(Likelihood):
    """Class labels 0 … K−1, given K logits (a softmax classifier).

    Examples:
        >>> import jax.numpy as jnp
        >>> Categorical().log_prob(jnp.zeros((2, 4)), jnp.array([0, 3]))
        Array([-1.3862944, -1.3862944], dtype=float32)
    """

    quantity = "probability"

    def log_prob(self, outputs: jax.Array, targets: jax.Array, **own: jax.Array) -> jax.Array:
        """Log probability of each label, shape ``(n,)``, for logits of shape ``(n, K)``."""
        log_probs = jax.nn.log_softmax(outputs)
        return jnp.take_along_axis(log_probs, targets[:, None], axis=1)[:, 0]

    def values(self, outputs: jax.Array, **own: jax.Array) -> jax.Array:
        """Class probabilities, ``(n, K)``."""
        return jax.nn.softmax(outputs)

    def summarise(self, outputs: jax.Array, **own: jax.Array) -> Summary:
        """Softmax, vote and logits, ``(n, K)``, and entropy, ``(n,)``."""
        log_probs = jax.nn.log_softmax(outputs)
        probs = jnp.exp(log_probs)
        votes = jax.nn.one_hot(jnp.argmax(outputs, axis=-1), outputs.shape[-1])
        # x log x → 0 where a probability underflows.
        entropy = -jnp.sum(jnp.where(probs > 0, probs * log_probs, 0.0), axis=-1)
        return Summary({"probs": probs, "votes": votes, "logits": outputs, "entropy": entropy})

    def predictive(self, mean: Summary, variance: PyTree, num_draws: int) -> Predictive:
        """A `Predictive`."""
        means = mean.averaged
        return Predictive(
            probs=means["probs"] / means["probs"].sum(axis=-1, keepdims=True),
            votes=means["votes"],
            mean_logits_probs=scipy.special.softmax(means["logits"], axis=-1),
            expected_entropy=means["entropy"],
            num_draws=num_draws,
        )

    def numpyro_distribution(self, outputs: jax.Array, **own: jax.Array) -> "Distribution":
        """The distribution of n labels, batch shape ``(n,)``, for logits of shape ``(n, K)``."""
        from numpyro import distributions as dist

        return dist.Categorical(logits=outputs)

    def check(self, output_shape: tuple[int, ...], targets: np.ndarray) -> None:
        """Raise `InputError` unless ``targets`` are integers in 0 … K−1 for K outputs."""
        if len(output_shape) != 1:
            raise InputError(
                f"the network gives outputs of shape {output_shape} per example; a categorical "
                "likelihood needs a vector of one logit per class"
            )
        if targets.ndim != 1 or not np.issubdtype(targets.dtype, np.integer):
            raise InputError(
                f"labels are {targets.dtype} of shape {targets.shape}; a categorical likelihood "
                "needs integers of shape (n,)"
            )
        outside = np.flatnonzero((targets < 0) | (targets >= output_shape[0]))
        if outside.size:
            raise InputError(
                f"label {targets[outside[0]]} at index {outside[0]} is out of range: the network "
                f"has {output_shape[0]} outputs, so labels must be 0 to {output_shape[0] - 1}"
            )


@dataclass(frozen=True)
class Gaussian(Likelihood):
    """Real-valued targets, normally distributed around the outputs of the network.

    Attributes:
        scale: standard deviation of the observation noise, in units of the targets.

    Examples:
        >>> import jax.numpy as jnp
        >>> Gaussian(scale=2.0).log_prob(jnp.zeros((1, 1)), jnp.array([0.0]))
        Array([-1.6120857], dtype=float32)
    """

    scale: float = 1.0

    def log_prob(self, outputs: jax.Array, targets: jax.Array, **own: jax.Array) -> jax.Array:
        """Log density of each target, shape ``(n,)``; several outputs are independent."""
        return _normal_log_prob(outputs, self.scale, math.log(self.scale), targets)

    def summarise(self, outputs: jax.Array, **own: jax.Array) -> Summary:
        """The outputs."""
        return Summary((), outputs)

    def predictive(self, mean: Summary, variance: PyTree, num_draws: int) -> GaussianPredictive:
        """A `GaussianPredictive`."""
        return GaussianPredictive(mean.spread, np.sqrt(variance), self.scale, num_draws)

    def numpyro_distribution(self, outputs: jax.Array, **own: jax.Array) -> "Distribution":
        """The distribution of the targets: batch shape ``(n,)``, event shape that of an output."""
        return _normal(outputs, self.scale)

    def check(self, output_shape: tuple[int, ...], targets: np.ndarray) -> None:
        """Raise `InputError` unless ``targets`` are finite and shaped like the outputs."""
        if not is_positive(self.scale):
            raise InputError(f"the noise scale is {self.scale}; it must be positive and finite")
        _check_values(output_shape, targets)


@dataclass(frozen=True)
class LearnedGaussian(Likelihood):
    """Real-valued targets, normally distributed with a standard deviation σ that is learned.

    One σ for all inputs and outputs, with prior log σ ~ N(0, prior_scale²), which suits targets
    that are standardised. log σ joins the network in the position,
    ``{"network": …, "log_noise_scale": …}``, for every sampler alike.

    Attributes:
        prior_scale: standard deviation of log σ under the prior.

    Examples:
        >>> import jax, jax.numpy as jnp, probbnn as pb
        >>> data = jnp.ones((5, 3)), jnp.ones(5)
        >>> target = pb.LogDensity(
        ...     pb.MLP(hidden=(), num_outputs=1), data, likelihood=LearnedGaussian()
        ... )
        >>> sorted(target.init(jax.random.key(0)))
        ['log_noise_scale', 'network']
    """

    prior_scale: float = 1.0

    def parameters(self) -> dict[str, jax.Array]:
        """Log σ = 0.

        Every chain starts at σ = 1, all that there is to explain in standardised targets: with so
        much noise, gradients are small while the network is still a random one. Chains need no
        different starts of one scalar that all N examples inform; those of the network differ.
        """
        return {"log_noise_scale": jnp.zeros(())}

    def log_prior(self, **own: jax.Array) -> jax.Array:
        """Log N(log σ; 0, prior_scale²)."""
        standard = own["log_noise_scale"] / self.prior_scale
        constant = math.log(self.prior_scale) + 0.5 * math.log(2 * math.pi)
        return -0.5 * jnp.square(standard) - constant

    def sample_prior(self, rng_key: jax.Array) -> dict[str, jax.Array]:
        """Log σ drawn from its prior."""
        return {"log_noise_scale": self.prior_scale * jax.random.normal(rng_key)}

    def log_prob(self, outputs: jax.Array, targets: jax.Array, **own: jax.Array) -> jax.Array:
        """Log density of each target, shape ``(n,)``, with the noise scale exp(log σ)."""
        log_scale = own["log_noise_scale"]
        return _normal_log_prob(outputs, jnp.exp(log_scale), log_scale, targets)

    def summarise(self, outputs: jax.Array, **own: jax.Array) -> Summary:
        """The outputs and the variance of the noise."""
        return Summary(jnp.exp(2 * own["log_noise_scale"]), outputs)

    def predictive(self, mean: Summary, variance: PyTree, num_draws: int) -> GaussianPredictive:
        """A `GaussianPredictive`."""
        noise_std = float(np.sqrt(mean.averaged))
        return GaussianPredictive(mean.spread, np.sqrt(variance), noise_std, num_draws)

    def numpyro_distribution(self, outputs: jax.Array, **own: jax.Array) -> "Distribution":
        """The distribution of the targets: batch shape ``(n,)``, event shape that of an output."""
        return _normal(outputs, jnp.exp(own["log_noise_scale"]))

    def numpyro_prior(self) -> "dict[str, Distribution]":
        """N(0, prior_scale²) for log σ."""
        from numpyro import distributions as dist

        return {"log_noise_scale": dist.Normal(0.0, self.prior_scale)}

    def check(self, output_shape: tuple[int, ...], targets: np.ndarray) -> None:
        """Raise `InputError` unless ``targets`` are finite and shaped like the outputs."""
        if not is_positive(self.prior_scale):
            raise InputError(
                f"the prior scale of log σ is {self.prior_scale}; it must be positive and finite"
            )
        _check_values(output_shape, targets)


def _normal_log_prob(means: jax.Array, scale: Any, log_scale: Any, targets: jax.Array) -> jax.Array:
    residuals = (targets.reshape(means.shape) - means) / scale
    log_probs = -0.5 * residuals**2 - log_scale - 0.5 * math.log(2 * math.pi)
    return log_probs.reshape(len(means), -1).sum(axis=1)


def _normal(means: jax.Array, scale: Any) -> "Distribution":
    # NumPyro takes a second to import, and only those who use it should wait for it.
    from numpyro import distributions as dist

    return dist.Normal(means, scale).to_event(means.ndim - 1)


def _check_values(output_shape: tuple[int, ...], targets: np.ndarray) -> None:
    if math.prod(targets.shape[1:]) != math.prod(output_shape):
        raise InputError(
            f"targets have shape {targets.shape[1:]} per example and the network's outputs "
            f"{output_shape}; a Gaussian likelihood needs them alike"
        )
    if not np.isfinite(targets).all():
        raise InputError("targets contain NaN or infinity; remove or impute those examples")
