"""Observation models: how probable a target is, given the outputs of the network.

A likelihood of your own is a subclass of `Likelihood`: `log_prob` and `check` are all that sampling
asks of it, `moments` and `sample` what `probbnn.predict` does.
"""

import abc
import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.scipy.special import gammaln

from probbnn.errors import InputError, is_positive
from probbnn.posterior.predictives import GaussianPredictive, Predictive, SampledPredictive
from probbnn.types import PyTree

__all__ = [
    "Bernoulli",
    "Categorical",
    "Gaussian",
    "HeteroscedasticGaussian",
    "LearnedGaussian",
    "Likelihood",
    "NegativeBinomial",
    "Poisson",
    "StudentT",
    "Summary",
]


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

    Outputs are what the network gives, an array ``(n, …)`` or a pytree of such arrays; an
    ``output_shape`` is that of one example, or a pytree of shapes.

    Attributes:
        quantity: what `values` are, the name of a variable in an ArviZ tree: ``"probability"`` or
            ``"output"``.
    """

    quantity: str = "output"

    @abc.abstractmethod
    def log_prob(self, outputs: Any, targets: Any, **own: jax.Array) -> jax.Array:
        """Log probability of each target, shape ``(n,)``, for outputs of shape ``(n, …)``.

        This alone is what every sampler sees, NumPyro's among them.
        """

    @abc.abstractmethod
    def check(self, output_shape: Any, targets: Any) -> None:
        """Raise `InputError` unless targets fit outputs of shape ``output_shape`` each."""

    def parameters(self, output_shape: Any) -> dict[str, jax.Array]:
        """The likelihood's own parameters by name, at the values where chains start."""
        return {}

    def log_prior(self, **own: jax.Array) -> jax.Array | float:
        """Log density of the prior of these parameters: a scalar."""
        return 0.0

    def sample_prior(self, rng_key: jax.Array, output_shape: Any) -> dict[str, jax.Array]:
        """These parameters drawn from their prior."""
        return {}

    def moments(self, outputs: Any, **own: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of a target given the outputs, shape ``(n, …)`` each.

        Raises:
            InputError: if this likelihood has no predictive.
        """
        raise InputError(
            f"there is no predictive for a {type(self).__name__} likelihood; give it the methods "
            "moments and sample, or use target.apply on each draw"
        )

    def sample(self, rng_key: jax.Array, outputs: Any, **own: jax.Array) -> jax.Array:
        """A target drawn for each of the outputs, shape ``(n, …)``.

        Raises:
            InputError: if this likelihood cannot be drawn from.
        """
        raise InputError(
            f"no targets can be drawn from a {type(self).__name__} likelihood; give it the method "
            "sample"
        )

    def values(self, outputs: Any, **own: jax.Array) -> jax.Array:
        """What is followed of the function: shape ``(n, …)``; the outputs, side by side."""
        leaves = jax.tree.leaves(outputs)
        return jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)

    def summarise(self, outputs: Any, **own: jax.Array) -> Summary:
        """What `predictive` needs of the outputs of one draw: by default the `moments`.

        Raises:
            InputError: if this likelihood has no predictive.
        """
        mean, variance = self.moments(outputs, **own)
        return Summary(averaged=variance, spread=mean)

    def predictive(self, mean: Summary, variance: PyTree, num_draws: int) -> Any:
        """The predictive, from means of all that `summarise` gave and variances of its spread.

        By default a `SampledPredictive`, to which `probbnn.predict` adds replicates from `sample`.
        """
        return SampledPredictive(
            mean.spread, np.sqrt(variance), np.sqrt(mean.averaged), num_draws=num_draws
        )

    @property
    def observation(self) -> "Likelihood":
        """What held-out targets are scored by: itself, without weights of classes."""
        return self

    def with_classes(self, classes: tuple[str, ...]) -> "Likelihood":
        """This likelihood for labels with these names.

        Raises:
            InputError: if it is not one of classes.
        """
        raise InputError(
            f"targets are strings; a {type(self).__name__} likelihood needs numbers (names of "
            "classes are for Categorical and Bernoulli)"
        )

    def standardised(self, targets: Any) -> "Likelihood":
        """This likelihood of targets that the network sees standardised: itself where none are."""
        return self


def _one_array(likelihood: Likelihood, output_shape: Any) -> tuple[int, ...]:
    """The shape, where the network has one output array."""
    if isinstance(output_shape, tuple) and all(isinstance(n, int) for n in output_shape):
        return output_shape
    names = output_shape if isinstance(output_shape, dict) else range(len(output_shape))
    raise InputError(
        f"the network gives several outputs ({', '.join(map(str, names))}); a "
        f"{type(likelihood).__name__} likelihood takes one array: return that alone, or give a "
        "likelihood of your own"
    )


def _per_example(values: jax.Array) -> jax.Array:
    """Sums over all but the first axis, ``(n,)``."""
    return values if values.ndim == 1 else values.reshape(len(values), -1).sum(axis=1)


class _Classes(Likelihood):
    """What likelihoods of class labels share; ``classes`` and ``class_weights`` are fields."""

    quantity = "probability"
    classes: tuple[str, ...]
    class_weights: tuple[float, ...] | None

    def __repr__(self) -> str:
        # Without the names, which are no part of the density.
        weights = "" if self.class_weights is None else f"class_weights={self.class_weights}"
        return f"{type(self).__name__}({weights})"

    @property
    def observation(self) -> Self:
        """The same without weights."""
        return self if self.class_weights is None else replace(self, class_weights=None)  # type: ignore[type-var]

    def with_classes(self, classes: tuple[str, ...]) -> Self:
        """This likelihood for labels with these names."""
        return replace(self, classes=classes)  # type: ignore[type-var]

    def _weighted(self, log_probs: jax.Array, targets: jax.Array) -> jax.Array:
        if self.class_weights is None:
            return log_probs
        return log_probs * jnp.asarray(self.class_weights, log_probs.dtype)[targets]

    def _check_labels(self, targets: Any, shape: tuple[int, ...], num_classes: int) -> None:
        kind = "bernoulli" if num_classes == 2 and isinstance(self, Bernoulli) else "categorical"
        if not np.issubdtype(targets.dtype, np.integer) or targets.shape[1:] != shape:
            wanted = ", ".join(["n", *map(str, shape)]) if shape else "n,"
            raise InputError(
                f"labels are {targets.dtype} of shape {targets.shape}; a {kind} likelihood "
                f"needs integers of shape ({wanted})"
            )
        outside = np.argwhere((targets < 0) | (targets >= num_classes))
        if outside.size:
            at = tuple(map(int, outside[0]))
            raise InputError(
                f"label {targets[at]} at index {at[0] if len(at) == 1 else at} is out of range: "
                f"there are {num_classes} classes, so labels must be 0 to {num_classes - 1}"
            )
        for name, given in (("class weights", self.class_weights), ("classes", self.classes)):
            if given and len(given) != num_classes:
                raise InputError(
                    f"there are {len(given)} {name} ({', '.join(map(str, given))}) and "
                    f"{num_classes} classes; give one for each"
                )
        if self.class_weights and not all(map(is_positive, self.class_weights)):
            raise InputError(
                f"class_weights are {self.class_weights}; they must be positive and finite"
            )


@dataclass(frozen=True, repr=False)
class Categorical(_Classes):
    """Class labels 0 … K−1, given K logits each (a softmax classifier).

    One label for each example, or one for each pixel (or token): outputs ``(n, …, K)`` and labels
    ``(n, …)``, independent given the outputs.

    Attributes:
        class_weights: what the log probability of a label of each class is multiplied by, for a
            *tempered* likelihood: rare classes count more than they were observed. Predictions
            are of the tempered posterior; `log_predictive` scores without weights.
        classes: names of the classes, if they have some.

    Examples:
        >>> import jax.numpy as jnp
        >>> Categorical().log_prob(jnp.zeros((2, 4)), jnp.array([0, 3]))
        Array([-1.3862944, -1.3862944], dtype=float32)
    """

    class_weights: tuple[float, ...] | None = None
    classes: tuple[str, ...] = ()

    def log_prob(self, outputs: jax.Array, targets: jax.Array, **own: jax.Array) -> jax.Array:
        """Log probability of the labels of each example, ``(n,)``, for logits ``(n, …, K)``."""
        log_probs = jax.nn.log_softmax(outputs)
        of_label = jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
        return _per_example(self._weighted(of_label, targets))

    def sample(self, rng_key: jax.Array, outputs: jax.Array, **own: jax.Array) -> jax.Array:
        """Labels drawn with these logits, ``(n, …)``."""
        return jax.random.categorical(rng_key, outputs)

    def values(self, outputs: jax.Array, **own: jax.Array) -> jax.Array:
        """Class probabilities, ``(n, …, K)``."""
        return jax.nn.softmax(outputs)

    def summarise(self, outputs: jax.Array, **own: jax.Array) -> Summary:
        """Softmax, vote and logits, ``(n, …, K)``, and entropy, ``(n, …)``."""
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
            classes=self.classes,
        )

    def check(self, output_shape: Any, targets: Any) -> None:
        """Raise `InputError` unless ``targets`` are integers in 0 … K−1 for K outputs."""
        shape = _one_array(self, output_shape)
        if not shape:
            raise InputError(
                f"the network gives outputs of shape {output_shape} per example; a categorical "
                "likelihood needs a vector of one logit per class"
            )
        if shape == (1,):
            raise InputError(
                "the network gives one output per example; a categorical likelihood needs a logit "
                "for each class: for two classes by one logit give likelihood=Bernoulli()"
            )
        self._check_labels(targets, shape[:-1], shape[-1])


@dataclass(frozen=True, repr=False)
class Bernoulli(_Classes):
    """Labels 0 and 1, given one logit: that of 1.

    Its predictive is that of two classes. Several labels for each example (multilabel) are left
    out: they have metrics of their own.

    Attributes:
        class_weights: of the labels 0 and 1, see `Categorical`.
        classes: names of the two, if they have some.

    Examples:
        >>> import jax.numpy as jnp
        >>> Bernoulli().log_prob(jnp.zeros((2, 1)), jnp.array([0, 1]))
        Array([-0.6931472, -0.6931472], dtype=float32)
    """

    class_weights: tuple[float, float] | None = None
    classes: tuple[str, ...] = ()

    def log_prob(self, outputs: jax.Array, targets: jax.Array, **own: jax.Array) -> jax.Array:
        """Log probability of each label, ``(n,)``, for logits of shape ``(n,)`` or ``(n, 1)``."""
        logits = outputs.reshape(targets.shape)
        log_probs = jax.nn.log_sigmoid(jnp.where(targets == 1, logits, -logits))
        return self._weighted(log_probs, targets.astype(int))

    def sample(self, rng_key: jax.Array, outputs: jax.Array, **own: jax.Array) -> jax.Array:
        """Labels drawn with these logits, ``(n,)``."""
        return jax.random.bernoulli(rng_key, jax.nn.sigmoid(outputs.reshape(-1))).astype(int)

    def values(self, outputs: jax.Array, **own: jax.Array) -> jax.Array:
        """Probabilities of the two classes, ``(n, 2)``."""
        return jax.nn.softmax(_two_logits(outputs))

    def summarise(self, outputs: jax.Array, **own: jax.Array) -> Summary:
        """As for two classes."""
        return Categorical().summarise(_two_logits(outputs))

    def predictive(self, mean: Summary, variance: PyTree, num_draws: int) -> Predictive:
        """A `Predictive` of two classes."""
        return Categorical(classes=self.classes).predictive(mean, variance, num_draws)

    def check(self, output_shape: Any, targets: Any) -> None:
        """Raise `InputError` unless there is one logit and one label, 0 or 1, per example."""
        shape = _one_array(self, output_shape)
        if math.prod(shape) != 1:
            raise InputError(
                f"the network gives outputs of shape {shape} per example; a Bernoulli likelihood "
                "takes one logit (several labels per example, multilabel, are left out; for "
                "classes that exclude each other give Categorical)"
            )
        if targets.ndim == 2 and targets.shape[1] == 1:
            raise InputError(
                f"labels are {targets.dtype} of shape {targets.shape}; a Bernoulli likelihood "
                "needs integers of shape (n,): give targets[:, 0]"
            )
        self._check_labels(targets.astype(int) if targets.dtype == bool else targets, (), 2)


def _two_logits(outputs: jax.Array) -> jax.Array:
    logit = outputs.reshape(-1)
    return jnp.stack([jnp.zeros_like(logit), logit], axis=1)


class _Values(Likelihood):
    """What likelihoods of real-valued targets share."""

    def standardised(self, targets: Any) -> Likelihood:
        """This likelihood of targets that the network sees with mean 0 and deviation 1."""
        mean, std = targets.mean(axis=0), targets.std(axis=0)
        std = np.where(std > 0, std, 1.0)
        return Standardised(self.rescaled(std), mean.astype(float), std.astype(float))

    def rescaled(self, unit: np.ndarray) -> Likelihood:
        """The same for targets divided by ``unit``, which has the shape of a target."""
        return self

    def values(self, outputs: Any, **own: jax.Array) -> jax.Array:
        """The mean of each target, ``(n, …)``."""
        return self.moments(outputs, **own)[0]

    def check(self, output_shape: Any, targets: Any) -> None:
        """Raise `InputError` unless ``targets`` are finite and shaped like the outputs."""
        _check_values(self, _one_array(self, output_shape), targets)


@dataclass(frozen=True)
class Gaussian(_Values):
    """Real-valued targets, normally distributed around the outputs of the network.

    Attributes:
        scale: standard deviation of the observation noise, in units of the targets: one number, or
            one for each output.

    Examples:
        >>> import jax.numpy as jnp
        >>> Gaussian(scale=2.0).log_prob(jnp.zeros((1, 1)), jnp.array([0.0]))
        Array([-1.6120857], dtype=float32)
    """

    scale: float | tuple[float, ...] = 1.0

    def __post_init__(self) -> None:
        if np.ndim(self.scale):  # hashable, and equal to its like
            object.__setattr__(self, "scale", tuple(np.asarray(self.scale).ravel().tolist()))

    def log_prob(self, outputs: jax.Array, targets: jax.Array, **own: jax.Array) -> jax.Array:
        """Log density of each target, shape ``(n,)``; several outputs are independent."""
        scale = self._scale(outputs.shape[1:])
        return _normal_log_prob(outputs, scale, np.log(scale), targets)

    def sample(self, rng_key: jax.Array, outputs: jax.Array, **own: jax.Array) -> jax.Array:
        """Outputs with noise, ``(n, …)``."""
        noise = jax.random.normal(rng_key, outputs.shape, outputs.dtype)
        return outputs + self._scale(outputs.shape[1:]) * noise

    def moments(self, outputs: jax.Array, **own: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The outputs, and the variance of the noise."""
        scale = self._scale(outputs.shape[1:])
        return outputs, jnp.broadcast_to(jnp.square(scale), outputs.shape)

    def summarise(self, outputs: jax.Array, **own: jax.Array) -> Summary:
        """The outputs."""
        return Summary((), outputs)

    def predictive(self, mean: Summary, variance: PyTree, num_draws: int) -> GaussianPredictive:
        """A `GaussianPredictive`."""
        noise_std = self._scale(mean.spread.shape[1:])
        return GaussianPredictive(mean.spread, np.sqrt(variance), noise_std, num_draws)

    def rescaled(self, unit: np.ndarray) -> "Gaussian":
        """The same noise for targets divided by ``unit``."""
        scale = np.asarray(self.scale, float).reshape(-1) / unit.reshape(-1)
        return Gaussian(float(scale[0]) if scale.size == 1 else tuple(scale.tolist()))

    def check(self, output_shape: Any, targets: Any) -> None:
        """Raise `InputError` unless ``targets`` are finite and shaped like the outputs."""
        shape = _one_array(self, output_shape)
        number = np.size(self.scale)
        if not all(map(is_positive, np.ravel(self.scale))):
            raise InputError(f"the noise scale is {self.scale}; it must be positive and finite")
        if isinstance(self.scale, tuple) and number != math.prod(shape):
            raise InputError(
                f"there are {number} noise scales for outputs of shape {shape}; give one number, "
                "or one for each output"
            )
        _check_values(self, shape, targets)

    def _scale(self, output_shape: tuple[int, ...]) -> Any:
        """A number, or an array shaped like an output."""
        if not isinstance(self.scale, tuple):
            return self.scale
        return np.reshape(np.asarray(self.scale), output_shape)


class _LearnedScale(_Values):
    """A scale for each output, with a normal prior of its logarithm; `prior_scale` is a field."""

    prior_scale: float
    _name = "log_noise_scale"

    def parameters(self, output_shape: Any) -> dict[str, jax.Array]:
        """Log σ = 0: a number for one output, else an array shaped like the outputs.

        Every chain starts at σ = 1, all that there is to explain in standardised targets: with so
        much noise, gradients are small while the network is still a random one. Chains need no
        different starts of scalars that all N examples inform; those of the network differ.
        """
        return {self._name: jnp.zeros(_per_output(output_shape))}

    def log_prior(self, **own: jax.Array) -> jax.Array | float:
        """Σ log N(log σ; 0, prior_scale²)."""
        return _log_normal_prior(own[self._name], self.prior_scale)

    def sample_prior(self, rng_key: jax.Array, output_shape: Any) -> dict[str, jax.Array]:
        """Log σ drawn from its prior."""
        shape = _per_output(output_shape)
        return {self._name: self.prior_scale * jax.random.normal(rng_key, shape)}

    def check(self, output_shape: Any, targets: Any) -> None:
        """Raise `InputError` unless ``targets`` are finite and shaped like the outputs."""
        _check_prior_scale("log σ", self.prior_scale)
        _check_values(self, _one_array(self, output_shape), targets)


@dataclass(frozen=True)
class LearnedGaussian(_LearnedScale):
    """Real-valued targets, normally distributed with a standard deviation σ that is learned.

    One σ for each output, the same for all inputs, with prior log σ ~ N(0, prior_scale²), which
    suits targets that are standardised. log σ joins the network in the position,
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

    def log_prob(self, outputs: jax.Array, targets: jax.Array, **own: jax.Array) -> jax.Array:
        """Log density of each target, shape ``(n,)``, with the noise scale exp(log σ)."""
        log_scale = own["log_noise_scale"]
        return _normal_log_prob(outputs, jnp.exp(log_scale), log_scale, targets)

    def sample(self, rng_key: jax.Array, outputs: jax.Array, **own: jax.Array) -> jax.Array:
        """Outputs with noise, ``(n, …)``."""
        noise = jax.random.normal(rng_key, outputs.shape, outputs.dtype)
        return outputs + jnp.exp(own["log_noise_scale"]) * noise

    def moments(self, outputs: jax.Array, **own: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The outputs, and the variance of the noise."""
        variance = jnp.exp(2 * own["log_noise_scale"])
        return outputs, jnp.broadcast_to(variance, outputs.shape)

    def summarise(self, outputs: jax.Array, **own: jax.Array) -> Summary:
        """The outputs and the variance of the noise."""
        return Summary(jnp.exp(2 * own["log_noise_scale"]), outputs)

    def predictive(self, mean: Summary, variance: PyTree, num_draws: int) -> GaussianPredictive:
        """A `GaussianPredictive`."""
        noise_std = np.sqrt(mean.averaged)
        return GaussianPredictive(
            mean.spread,
            np.sqrt(variance),
            noise_std if noise_std.ndim else float(noise_std),
            num_draws,
        )


@dataclass(frozen=True)
class HeteroscedasticGaussian(_Values):
    """Real-valued targets whose mean *and* standard deviation the network gives.

    The outputs are ``(n, 2k)`` for k targets, their means and then the logarithms of their standard
    deviations, or a pair ``(mean, log_std)`` or dict ``{"mean": …, "log_std": …}`` of heads.

    Source: Nix & Weigend (1994), "Estimating the mean and variance of the target probability
    distribution".

    Examples:
        >>> import jax.numpy as jnp
        >>> HeteroscedasticGaussian().log_prob(jnp.zeros((1, 2)), jnp.array([0.0]))
        Array([-0.9189385], dtype=float32)
    """

    def log_prob(self, outputs: Any, targets: jax.Array, **own: jax.Array) -> jax.Array:
        """Log density of each target, shape ``(n,)``; several targets are independent."""
        mean, log_std = _heads(outputs)
        return _normal_log_prob(mean, jnp.exp(log_std), log_std, targets)

    def sample(self, rng_key: jax.Array, outputs: Any, **own: jax.Array) -> jax.Array:
        """Means with noise, ``(n, …)``."""
        mean, log_std = _heads(outputs)
        return mean + jnp.exp(log_std) * jax.random.normal(rng_key, mean.shape, mean.dtype)

    def moments(self, outputs: Any, **own: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and variance, as the network gives them."""
        mean, log_std = _heads(outputs)
        return mean, jnp.exp(2 * log_std)

    def predictive(self, mean: Summary, variance: PyTree, num_draws: int) -> GaussianPredictive:
        """A `GaussianPredictive`, its noise that of each input."""
        noise_std = np.sqrt(mean.averaged)
        return GaussianPredictive(mean.spread, np.sqrt(variance), noise_std, num_draws)

    def check(self, output_shape: Any, targets: Any) -> None:
        """Raise `InputError` unless ``targets`` are finite and half as many as the outputs."""
        try:
            one = jax.tree.map(
                lambda n: jax.ShapeDtypeStruct((1, *n), jnp.result_type(float)),
                output_shape,
                is_leaf=_is_shape,
            )
            mean = jax.eval_shape(lambda outputs: _heads(outputs)[0], one)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"the network gives outputs of shape {output_shape} per example; a heteroscedastic "
                "Gaussian takes (2k,) for k targets, or {'mean': (k,), 'log_std': (k,)}"
            ) from error
        _check_values(self, mean.shape[1:], targets)


def _is_shape(node: Any) -> bool:
    return isinstance(node, tuple) and all(isinstance(n, int) for n in node)


def _heads(outputs: Any) -> tuple[jax.Array, jax.Array]:
    """Means and log standard deviations, ``(n, k)`` each."""
    if isinstance(outputs, dict):
        mean, log_std = outputs["mean"], outputs["log_std"]
    elif isinstance(outputs, tuple):
        mean, log_std = outputs
    else:
        mean, log_std = jnp.split(outputs, 2, axis=-1)
    if mean.shape != log_std.shape:
        raise ValueError("heads of different shapes")
    return mean, log_std


@dataclass(frozen=True)
class StudentT(_LearnedScale):
    """Real-valued targets with outliers: Student's t around the outputs of the network.

    Attributes:
        df: degrees of freedom, above 2 so that there is a variance.
        scale: its scale σ, in units of the targets; ``None``: learned, one for each output, with
            prior log σ ~ N(0, prior_scale²).
        prior_scale: standard deviation of log σ under that prior.

    Examples:
        >>> import jax.numpy as jnp
        >>> StudentT(df=4.0, scale=1.0).log_prob(jnp.zeros((1, 1)), jnp.array([0.0]))
        Array([-0.98082924], dtype=float32)
    """

    df: float = 4.0
    scale: float | None = None
    prior_scale: float = 1.0
    _name = "log_scale"

    def parameters(self, output_shape: Any) -> dict[str, jax.Array]:
        """Log σ = 0 for each output, unless σ is given."""
        return {} if self.scale is not None else super().parameters(output_shape)

    def log_prior(self, **own: jax.Array) -> jax.Array | float:
        """Σ log N(log σ; 0, prior_scale²)."""
        return 0.0 if self.scale is not None else super().log_prior(**own)

    def sample_prior(self, rng_key: jax.Array, output_shape: Any) -> dict[str, jax.Array]:
        """Log σ drawn from its prior."""
        return {} if self.scale is not None else super().sample_prior(rng_key, output_shape)

    def log_prob(self, outputs: jax.Array, targets: jax.Array, **own: jax.Array) -> jax.Array:
        """Log density of each target, shape ``(n,)``; several outputs are independent."""
        log_scale = self._log_scale(own)
        residuals = (targets.reshape(outputs.shape) - outputs) / jnp.exp(log_scale)
        constant = math.lgamma((self.df + 1) / 2) - math.lgamma(self.df / 2)
        constant -= 0.5 * math.log(self.df * math.pi)
        tails = -(self.df + 1) / 2 * jnp.log1p(residuals**2 / self.df)
        return _per_example(tails + constant - log_scale)

    def sample(self, rng_key: jax.Array, outputs: jax.Array, **own: jax.Array) -> jax.Array:
        """Outputs with noise, ``(n, …)``."""
        noise = jax.random.t(rng_key, self.df, outputs.shape, outputs.dtype)
        return outputs + jnp.exp(self._log_scale(own)) * noise

    def moments(self, outputs: jax.Array, **own: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The outputs, and σ² df/(df − 2)."""
        variance = jnp.exp(2 * self._log_scale(own)) * self.df / (self.df - 2)
        return outputs, jnp.broadcast_to(variance, outputs.shape)

    def rescaled(self, unit: np.ndarray) -> "StudentT":
        """The same noise for targets divided by ``unit``."""
        if self.scale is None:
            return self
        if unit.size != 1:
            raise InputError(
                f"scale is {self.scale} for {unit.size} standardised outputs; learn it (scale=None)"
            )
        return replace(self, scale=self.scale / float(unit.reshape(-1)[0]))

    def check(self, output_shape: Any, targets: Any) -> None:
        """Raise `InputError` unless ``targets`` are finite and shaped like the outputs."""
        if not (is_positive(self.df) and self.df > 2):
            raise InputError(f"df is {self.df}; it must be finite and above 2")
        if self.scale is not None and not is_positive(self.scale):
            raise InputError(f"the noise scale is {self.scale}; it must be positive and finite")
        super().check(output_shape, targets)

    def _log_scale(self, own: dict[str, jax.Array]) -> Any:
        return own["log_scale"] if self.scale is None else math.log(self.scale)


class _Counts(Likelihood):
    """What likelihoods of counts share: outputs are logarithms of means."""

    def values(self, outputs: jax.Array, **own: jax.Array) -> jax.Array:
        """The mean count, ``(n, …)``."""
        return jnp.exp(outputs)

    def check(self, output_shape: Any, targets: Any) -> None:
        """Raise `InputError` unless ``targets`` are counts shaped like the outputs."""
        _check_values(self, _one_array(self, output_shape), targets)
        bad = np.flatnonzero((targets < 0) | (targets != np.round(targets)))
        if bad.size:
            raise InputError(
                f"target {targets.reshape(-1)[bad[0]]} is no count; a {type(self).__name__} "
                "likelihood needs whole numbers from 0 on"
            )


@dataclass(frozen=True)
class Poisson(_Counts):
    """Counts 0, 1, 2, …, Poisson-distributed with mean exp(output).

    Examples:
        >>> import jax.numpy as jnp
        >>> round(float(Poisson().log_prob(jnp.zeros((1, 1)), jnp.array([2]))[0]), 3)
        -1.693
    """

    def log_prob(self, outputs: jax.Array, targets: jax.Array, **own: jax.Array) -> jax.Array:
        """Log probability of each count, shape ``(n,)``; several outputs are independent."""
        counts = targets.reshape(outputs.shape).astype(outputs.dtype)
        return _per_example(counts * outputs - jnp.exp(outputs) - gammaln(counts + 1))

    def sample(self, rng_key: jax.Array, outputs: jax.Array, **own: jax.Array) -> jax.Array:
        """Counts with these log means, ``(n, …)``."""
        return jax.random.poisson(rng_key, jnp.exp(outputs))

    def moments(self, outputs: jax.Array, **own: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and variance, which are the same."""
        return jnp.exp(outputs), jnp.exp(outputs)


@dataclass(frozen=True)
class NegativeBinomial(_Counts):
    """Counts with more spread than a Poisson's: mean μ = exp(output), variance μ + μ²/r.

    Attributes:
        concentration: r; ``None``: learned, one for each output, with prior log r ~ N(0,
            prior_scale²).
        prior_scale: standard deviation of log r under that prior.

    Examples:
        >>> import jax.numpy as jnp
        >>> counts = NegativeBinomial(concentration=1.0)
        >>> round(float(counts.log_prob(jnp.zeros((1, 1)), jnp.array([0]))[0]), 3)
        -0.693
    """

    concentration: float | None = None
    prior_scale: float = 2.0

    def parameters(self, output_shape: Any) -> dict[str, jax.Array]:
        """Log r = 0 for each output, unless r is given."""
        if self.concentration is not None:
            return {}
        return {"log_concentration": jnp.zeros(_per_output(output_shape))}

    def log_prior(self, **own: jax.Array) -> jax.Array | float:
        """Σ log N(log r; 0, prior_scale²)."""
        if self.concentration is not None:
            return 0.0
        return _log_normal_prior(own["log_concentration"], self.prior_scale)

    def sample_prior(self, rng_key: jax.Array, output_shape: Any) -> dict[str, jax.Array]:
        """Log r drawn from its prior."""
        if self.concentration is not None:
            return {}
        drawn = jax.random.normal(rng_key, _per_output(output_shape))
        return {"log_concentration": self.prior_scale * drawn}

    def log_prob(self, outputs: jax.Array, targets: jax.Array, **own: jax.Array) -> jax.Array:
        """Log probability of each count, shape ``(n,)``; several outputs are independent."""
        counts = targets.reshape(outputs.shape).astype(outputs.dtype)
        log_r = self._log_concentration(own)
        r = jnp.exp(log_r)
        log_total = jnp.logaddexp(log_r, outputs)
        ways = gammaln(counts + r) - gammaln(r) - gammaln(counts + 1)
        return _per_example(ways + r * (log_r - log_total) + counts * (outputs - log_total))

    def sample(self, rng_key: jax.Array, outputs: jax.Array, **own: jax.Array) -> jax.Array:
        """Counts of a Poisson whose mean is Gamma-distributed, ``(n, …)``."""
        gamma_key, poisson_key = jax.random.split(rng_key)
        r = jnp.broadcast_to(jnp.exp(self._log_concentration(own)), outputs.shape)
        means = jax.random.gamma(gamma_key, r) / r * jnp.exp(outputs)
        return jax.random.poisson(poisson_key, means)

    def moments(self, outputs: jax.Array, **own: jax.Array) -> tuple[jax.Array, jax.Array]:
        """μ and μ + μ²/r."""
        mean = jnp.exp(outputs)
        return mean, mean + mean**2 / jnp.exp(self._log_concentration(own))

    def check(self, output_shape: Any, targets: Any) -> None:
        """Raise `InputError` unless ``targets`` are counts shaped like the outputs."""
        if self.concentration is not None and not is_positive(self.concentration):
            raise InputError(
                f"concentration is {self.concentration}; it must be positive and finite"
            )
        _check_prior_scale("log r", self.prior_scale)
        super().check(output_shape, targets)

    def _log_concentration(self, own: dict[str, jax.Array]) -> Any:
        if self.concentration is not None:
            return math.log(self.concentration)
        return own["log_concentration"]


@dataclass(frozen=True, eq=False)
class Standardised(Likelihood):
    """A likelihood of targets in a user's units, for a network that sees them standardised.

    Attributes:
        likelihood: that of (target − mean)/std.
        mean: of the training targets, shaped like one of them.
        std: their standard deviation, likewise.
    """

    likelihood: Likelihood
    mean: np.ndarray
    std: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantity", self.likelihood.quantity)

    def __repr__(self) -> str:
        return f"Standardised({self.likelihood!r})"

    def log_prob(self, outputs: Any, targets: jax.Array, **own: jax.Array) -> jax.Array:
        """Log density of each target in its own units, shape ``(n,)``."""
        log_probs = self.likelihood.log_prob(outputs, (targets - self.mean) / self.std, **own)
        return log_probs - float(np.sum(np.log(self.std)))

    def check(self, output_shape: Any, targets: Any) -> None:
        """As the likelihood inside does."""
        self.likelihood.check(output_shape, targets)

    def parameters(self, output_shape: Any) -> dict[str, jax.Array]:
        """Those of the likelihood inside, about standardised targets."""
        return self.likelihood.parameters(output_shape)

    def log_prior(self, **own: jax.Array) -> jax.Array | float:
        """That of the likelihood inside."""
        return self.likelihood.log_prior(**own)

    def sample_prior(self, rng_key: jax.Array, output_shape: Any) -> dict[str, jax.Array]:
        """As the likelihood inside does."""
        return self.likelihood.sample_prior(rng_key, output_shape)

    def sample(self, rng_key: jax.Array, outputs: Any, **own: jax.Array) -> jax.Array:
        """Targets in their own units."""
        drawn = self.likelihood.sample(rng_key, outputs, **own)
        mean, std = self._like(drawn)
        return mean + std * drawn

    def moments(self, outputs: Any, **own: jax.Array) -> tuple[jax.Array, jax.Array]:
        """In units of the targets."""
        mean, variance = self.likelihood.moments(outputs, **own)
        center, unit = map(jnp.asarray, self._like(mean))
        return center + unit * mean, unit**2 * variance

    def values(self, outputs: Any, **own: jax.Array) -> jax.Array:
        """Means in units of the targets."""
        values = self.likelihood.values(outputs, **own)
        mean, std = self._like(values)
        return mean + std * values

    def summarise(self, outputs: Any, **own: jax.Array) -> Summary:
        """As the likelihood inside does, of standardised targets."""
        return self.likelihood.summarise(outputs, **own)

    def predictive(self, mean: Summary, variance: PyTree, num_draws: int) -> Any:
        """The predictive of the likelihood inside, in units of the targets."""
        predictive = self.likelihood.predictive(mean, variance, num_draws)
        return predictive.in_units(*self._like(predictive.mean))

    def _like(self, values: Any) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation shaped like the values of one example."""
        if not self.std.ndim:
            return self.mean, self.std
        return self.mean.reshape(values.shape[1:]), self.std.reshape(values.shape[1:])


def _normal_log_prob(means: jax.Array, scale: Any, log_scale: Any, targets: jax.Array) -> jax.Array:
    residuals = (targets.reshape(means.shape) - means) / scale
    log_probs = -0.5 * residuals**2 - log_scale - 0.5 * math.log(2 * math.pi)
    return log_probs.reshape(len(means), -1).sum(axis=1)


def _log_normal_prior(logarithms: jax.Array, scale: float) -> jax.Array:
    constant = math.log(scale) + 0.5 * math.log(2 * math.pi)
    return jnp.sum(-0.5 * jnp.square(logarithms / scale) - constant)


def _per_output(output_shape: tuple[int, ...]) -> tuple[int, ...]:
    """A number where there is one output."""
    return () if math.prod(output_shape) == 1 else output_shape


def _check_prior_scale(what: str, scale: float) -> None:
    if not is_positive(scale):
        raise InputError(f"the prior scale of {what} is {scale}; it must be positive and finite")


def _check_values(likelihood: Likelihood, output_shape: tuple[int, ...], targets: Any) -> None:
    kind = type(likelihood).__name__
    if not isinstance(targets, np.ndarray) or targets.dtype.kind not in "biuf":
        raise InputError(f"a {kind} likelihood needs targets that are numbers")
    if math.prod(targets.shape[1:]) != math.prod(output_shape):
        raise InputError(
            f"targets have shape {targets.shape[1:]} per example and the network's outputs "
            f"{output_shape}; a {kind} likelihood needs them alike"
        )
    if not np.isfinite(targets).all():
        raise InputError("targets contain NaN or infinity; remove or impute those examples")
