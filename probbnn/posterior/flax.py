"""The adapter: a network, a prior, a likelihood and data become one log density.

`LogDensity` offers it, and its minibatch estimates, in the form that BlackJAX takes as it is;
`probbnn.to_numpyro` makes a NumPyro model of it.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.arrays import canonical, on_device
from probbnn.data.dataset import Dataset
from probbnn.data.sources import DeviceArrays, arrays_of, as_arrays, check_finite, num_examples
from probbnn.errors import InputError, first_line
from probbnn.posterior.base import Posterior
from probbnn.posterior.likelihoods import Categorical, Likelihood, Summary
from probbnn.posterior.network import Network, Trainable, as_network, as_parameters
from probbnn.posterior.priors import GaussianPrior, Prior, PriorLike, as_prior
from probbnn.types import Batch, Position, PRNGKey

__all__ = ["LogDensity", "Parts"]


class Parts(NamedTuple):
    """A position in its parts.

    Attributes:
        network: the network's sampled parameters.
        prior: the prior's own parameters, by name.
        likelihood: the likelihood's own parameters, by name.
    """

    network: Position
    prior: Mapping[str, Any]
    likelihood: Mapping[str, Any]


class LogDensity(Posterior):
    """The posterior of a Flax network: log prior, log likelihood and their minibatch estimates.

    A position is the network's sampled parameters as the module has them. Where the likelihood or
    the prior has parameters of its own, it is ``{"network": those, name: …}``.

    Args:
        module: a Linen module, an NNX module, a constructor ``rngs -> NNX module``, or a pair of
            functions ``(init(rng_key, inputs) -> position, apply(position, inputs) -> outputs)``.
            `apply` gets a batch. Modules are evaluated in eval mode: NNX ones by their `eval`,
            Linen ones by ``train=False``, ``deterministic=True`` or the like where their
            ``__call__`` has such an argument.
        data: a `Dataset`, a `Regression`, or a pair ``(inputs, targets)`` of arrays with a common
            leading axis, of data frames or of tensors. Inputs may be a tuple or dict of arrays,
            which the module is given as one argument; targets may be names of classes.
        likelihood: `Categorical()`, `Bernoulli()`, `Gaussian(scale)`, `LearnedGaussian()`,
            `HeteroscedasticGaussian()`, `StudentT()`, `Poisson()`, `NegativeBinomial()`, or any
            `Likelihood`.
        prior_scale: standard deviation σ of the Gaussian prior N(0, σ²) on every parameter, that
            is, an L2 penalty ‖θ‖²/(2σ²): one number, or a pytree of numbers that is a prefix of
            the network's parameters (per-layer or per-leaf scales). Short for ``prior=
            GaussianPrior(prior_scale)``; 1 unless either is given.
        prior: any `Prior`, a NumPyro distribution of every parameter alike, or either by dotted
            path: ``{"Dense_0": 0.5, "**/bias": dist.Laplace(0, 1), "**": 1.0}`` (see `PathPrior`).
        trainable: which parameters are sampled: the dotted path of a sub-tree, such as
            ``"Dense_2"`` or ``"head.*"``, several of them, or a predicate of dotted paths. The
            others stay at their values in ``variables`` (Linen) or in the instance (NNX).
            ``None``: all are sampled.
        variables: of a Linen module, ``{"params": …}`` and state such as ``"batch_stats"``: values
            of frozen parameters and of state, which is constant. Parameters alone will do, and so
            will the directory of an Orbax checkpoint.
        images: whether inputs are images, whose uint8 values are scaled to [0, 1] on the device.
            ``None``: uint8 arrays of shape ``(N, H, W, C)`` are; anything else of uint8 has to
            be told.
        standardise: whether the network sees inputs of floating point, and targets that are real
            values, shifted and scaled to mean 0 and standard deviation 1, feature by feature.
            Predictions, and everything else outside, stay in the units of the data.
        weights: of each example's log likelihood, ``(N,)``: a *tempered* likelihood, in which an
            example of weight 2 counts as if it had been observed twice.

    Attributes:
        data: where the examples are.
        data_size: N.
        network: the module as a `Network`.
        prior: the prior of its parameters.
        likelihood: the observation model.
        shapes: shape and dtype of each parameter, a pytree like a position.
        input_shape: of one example, or a pytree of shapes.
        output_shape: of the network's output for one example, or a pytree of shapes.
        images: whether inputs are images.

    Raises:
        InputError: if data, labels, prior and module do not fit each other.

    Examples:
        >>> import jax, probbnn as pb
        >>> train, test = pb.load("digits")
        >>> target = pb.LogDensity(pb.MLP(hidden=(10,)), train, prior_scale=0.5)
        >>> position = target.init(jax.random.key(0))
        >>> target.num_parameters(position)
        760
        >>> target.logdensity_fn(position).shape
        ()
    """

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        for name in _DERIVED:
            if name in vars(cls):
                raise InputError(
                    f"{cls.__name__} overrides {name}, which some samplers call and others do not; "
                    "override logprior_fn or pointwise_loglikelihood_fn, of which every backend's "
                    "density is made"
                )

    def __init__(
        self,
        module: Any,
        data: Any,
        *,
        likelihood: Likelihood | None = None,
        prior_scale: Any = None,
        prior: PriorLike | None = None,
        trainable: Trainable | None = None,
        variables: Any = None,
        images: bool | None = None,
        standardise: bool = False,
        weights: Any = None,
    ) -> None:
        inputs, targets = arrays_of(data)
        inputs, targets = _canonical(inputs, "inputs"), _canonical(targets, "targets")
        if prior is not None and prior_scale is not None:
            raise InputError(
                f"prior_scale is {prior_scale} beside a prior; it is short for "
                "prior=GaussianPrior(prior_scale): give one of them"
            )
        likelihood = Categorical() if likelihood is None else likelihood
        if not isinstance(likelihood, Likelihood):
            raise InputError(
                f"likelihood is {likelihood!r}; give an instance such as Categorical() or "
                "Gaussian(scale), or of your own subclass of Likelihood"
            )
        self.likelihood: Likelihood = _named(likelihood, data, targets)
        self.prior: Prior = (
            GaussianPrior(1.0 if prior_scale is None else prior_scale)
            if prior is None
            else as_prior(prior)
        )
        self.images = _are_images(inputs, isinstance(data, Dataset), images)
        self._examples = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), inputs
        )
        self.input_shape: Any = jax.tree.map(lambda leaf: leaf.shape, self._examples)
        targets = self._encoded(targets)
        preprocess = _scaled(inputs) if standardise else _itself
        if self.images:
            preprocess = _as_fractions
        self.network, network, self.output_shape = self._network(
            module, inputs, preprocess, trainable, variables
        )
        self.likelihood.check(self.output_shape, targets)
        if standardise:
            self.likelihood = self.likelihood.standardised(targets)
        else:
            _warn_of_raw_units(self.likelihood, inputs, targets, self.images)
        self.prior.check(network)
        self._prior_start = self.prior.parameters(network)
        self._likelihood_start = self.likelihood.parameters(self.output_shape)
        names = ["network", *self._prior_start, *self._likelihood_start]
        if len(set(names)) < len(names):
            raise InputError(
                f"the parts of a position would be called {', '.join(names)}; the parameters of "
                "prior and likelihood need names of their own"
            )
        self.shapes: Position = jax.eval_shape(self.init, jax.random.key(0))
        super().__init__(
            DeviceArrays(
                jax.tree.map(lambda leaf: on_device(leaf, "inputs"), inputs),
                jax.tree.map(lambda leaf: on_device(leaf, "targets"), targets),
                _check_weights(weights, num_examples(inputs)),
            )
        )

    def __repr__(self) -> str:
        parts = [
            f"{self.data_size} examples",
            f"{self.num_parameters(self.shapes):,} parameters",
            f"likelihood={self.likelihood!r}",
            f"prior={self.prior!r:.200}",
        ]
        return f"LogDensity({', '.join(parts)})"

    def init(self, rng_key: PRNGKey) -> Position:
        """A position (pytree of parameters) drawn from the module's own initialiser.

        An NNX *instance* keeps no initialiser. Its position is the instance's parameters with
        the entries of each array shuffled by ``rng_key``, which has the same distribution wherever
        the entries were initialised independently of each other, as in every Flax layer; pass a
        constructor (``lambda rngs: MyMLP(rngs=rngs)``) where that does not hold.
        """
        return self.join(
            Parts(self.network.init(rng_key), self._prior_start, self._likelihood_start)
        )

    def sample_prior(self, rng_key: PRNGKey) -> Position:
        """A position drawn from the prior; the prior's own parameters at their start."""
        network_key, likelihood_key = jax.random.split(rng_key)
        network = self.prior.sample(network_key, self.split(self.shapes).network)
        own = self.likelihood.sample_prior(likelihood_key, self.output_shape)
        return self.join(Parts(network, self._prior_start, own))

    def apply(self, position: Position, inputs: Any) -> Any:
        """The network's outputs, ``(n, *output_shape)``, for raw inputs ``(n, *input_shape)``.

        With ``standardise``, of standardised inputs, and in units of standardised targets.
        """
        return self.network.apply(self.split(position).network, inputs)

    def logprior_fn(self, position: Position) -> jax.Array:
        """Log density of the prior, normalised where the prior is: a scalar."""
        network, prior, likelihood = self.split(position)
        return self.prior.log_prob(network, **prior) + self.likelihood.log_prior(**likelihood)

    def loglikelihood_fn(self, position: Position, example: Any) -> jax.Array:
        """Log likelihood of *one* example ``(input, target)``, a scalar, as BlackJAX asks."""
        batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tuple(example))
        return self.pointwise_loglikelihood_fn(position, Batch(*batch))[0]

    def pointwise_loglikelihood_fn(self, position: Position, minibatch: Batch) -> jax.Array:
        """Log likelihood of each example of a minibatch, ``(b,)``; 0 where masked out.

        Times its weight, where the minibatch has weights.
        """
        parts = self.split(position)
        outputs = self.network.apply(parts.network, minibatch.inputs)
        log_probs = self.likelihood.log_prob(outputs, minibatch.targets, **parts.likelihood)
        if minibatch.weights is not None:
            log_probs = minibatch.weights * log_probs
        return log_probs if minibatch.mask is None else jnp.where(minibatch.mask, log_probs, 0.0)

    def loglikelihoods(self, inputs: Any, targets: Any, position: Position) -> jax.Array:
        """Log likelihood of each of these examples, nats, ``(n,)``, without any weights."""
        parts = self.split(position)
        outputs = self.network.apply(parts.network, inputs)
        return self.likelihood.observation.log_prob(outputs, targets, **parts.likelihood)

    def sample_targets(self, rng_key: PRNGKey, inputs: Any, position: Position) -> jax.Array:
        """A new observation at each raw input, shaped like the data's targets: ``(n, …)``."""
        parts = self.split(position)
        outputs = self.network.apply(parts.network, inputs)
        drawn = self.likelihood.sample(rng_key, outputs, **parts.likelihood)
        expected = jnp.shape(self.data.gather(slice(1)).targets)[1:]
        return drawn.reshape(len(drawn), *expected)

    def values(self, inputs: Any, position: Position) -> jax.Array:
        """What is followed of the function at raw inputs: `Likelihood.values`."""
        parts = self.split(position)
        outputs = self.network.apply(parts.network, inputs)
        return self.likelihood.values(outputs, **parts.likelihood)

    def summarise(self, inputs: Any, position: Position) -> Summary:
        """What a predictive needs of a position at raw inputs: `Likelihood.summarise`."""
        parts = self.split(position)
        outputs = self.network.apply(parts.network, inputs)
        return self.likelihood.summarise(outputs, **parts.likelihood)

    def split(self, position: Position) -> Parts:
        """The parts of a position, or of any pytree like one."""
        if not (self._prior_start or self._likelihood_start):
            return Parts(position, {}, {})
        return Parts(
            position["network"],
            {name: position[name] for name in self._prior_start},
            {name: position[name] for name in self._likelihood_start},
        )

    def join(self, parts: Parts) -> Position:
        """The way back from `split`."""
        if not (parts.prior or parts.likelihood):
            return parts.network
        return {"network": parts.network, **parts.prior, **parts.likelihood}

    def check_inputs(self, inputs: Any) -> Any:
        """``inputs`` as arrays, or `InputError` unless they are like the data.

        They may be a `Dataset`, a `Regression`, or what inputs of data may be: an array of shape
        ``(n, *input_shape)``, or a pytree of arrays like those of the data.
        """
        inputs = as_arrays(getattr(inputs, "inputs", inputs), "inputs")
        structures = [str(jax.tree.structure(tree)) for tree in (inputs, self._examples)]
        if structures[0] != structures[1]:
            raise InputError(
                f"inputs are {_structure(inputs)}; those of the data were "
                f"{_structure(self._examples)}"
            )
        jax.tree.map(self._check_input, inputs, self._examples)
        if len({len(leaf) for leaf in jax.tree.leaves(inputs)}) > 1:
            raise InputError(
                f"inputs have {' and '.join(str(len(x)) for x in jax.tree.leaves(inputs))} rows; "
                "give as many of each"
            )
        check_finite(inputs)
        return jax.tree.map(lambda leaf: canonical(leaf, "inputs"), inputs)

    def _check_input(self, inputs: np.ndarray, example: jax.ShapeDtypeStruct) -> None:
        if inputs.shape[1:] != example.shape or inputs.ndim == 0:
            raise InputError(
                f"inputs have shape {inputs.shape}; the network was built on examples of shape "
                f"{example.shape}, so (n, {', '.join(map(str, example.shape))}) is expected "
                "(a single example x is x[None])"
            )
        if inputs.dtype.kind not in "biuf":
            raise InputError(f"inputs are {inputs.dtype}; they must be numbers")
        # Images of uint8 are scaled to [0, 1] and nothing else is: they must come as they came.
        integers = inputs.dtype.kind in "iu"
        is_other = integers and (inputs.dtype == np.uint8) != (example.dtype == np.uint8)
        if is_other and (self.images or example.dtype.kind == "f"):
            raise InputError(
                f"inputs are {inputs.dtype} and the data were {example.dtype}; convert the "
                "inputs as the data were"
            )
        is_scaled = self.images and example.dtype == np.uint8 and inputs.dtype.kind == "f"
        if is_scaled and inputs.size and (inputs.min() < 0 or inputs.max() > 1):
            raise InputError(
                f"inputs are {inputs.dtype} from {inputs.min():g} to {inputs.max():g} and the data "
                "were uint8 images, which are scaled to [0, 1]; give uint8, or divide by 255"
            )

    def check_targets(self, targets: Any, inputs: Any) -> Any:
        """Held-out ``targets`` as arrays, or `InputError` unless they fit data and ``inputs``.

        Names of classes become their numbers.
        """
        targets = as_arrays(getattr(targets, "targets", targets), "targets")
        size = num_examples(inputs)
        for leaf in jax.tree.leaves(targets):
            if leaf.shape[:1] != (size,):
                raise InputError(
                    f"targets have shape {leaf.shape} for {size} inputs; give one for each"
                )
        targets = self._encoded(targets)
        self.likelihood.check(self.output_shape, targets)
        return targets

    def _encoded(self, targets: Any) -> Any:
        """Targets with names of classes as their numbers."""
        if not isinstance(targets, np.ndarray) or targets.dtype.kind != "U":
            return targets
        classes = np.array(getattr(self.likelihood, "classes", ()))
        unknown = np.setdiff1d(targets, classes)
        if unknown.size:
            raise InputError(
                f"targets name the class {unknown[0]!s}; the classes are {', '.join(classes)}"
            )
        order = np.argsort(classes)
        return order[np.searchsorted(classes, targets, sorter=order)]

    def as_position(self, values: Any) -> Position:
        """A position of what somebody may have for one; leading axes stay.

        Args:
            values: a position; the parameters of the whole network, ``{"params": …}`` and
                `FrozenDict` among their forms, of which the sampled ones are taken; or the
                directory of an Orbax checkpoint of either. Parameters of likelihood and prior
                that are missing start where they always do.

        Raises:
            InputError: if that is none of them.
        """
        values = as_parameters(values)
        own_start = {**self._prior_start, **self._likelihood_start}
        if own_start and isinstance(values, Mapping) and "network" in values:
            return jax.tree.map(_widened, values)
        network = self._sampled(values)
        if not own_start:
            return jax.tree.map(_widened, network)
        expected = jax.tree.leaves(self.split(self.shapes).network)
        lead = np.shape(jax.tree.leaves(network)[0])[: -expected[0].ndim or None]
        own = jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (*lead, *jnp.shape(leaf))), own_start
        )
        return jax.tree.map(_widened, {"network": network, **own})

    def _sampled(self, values: Any) -> Any:
        try:
            network = self.network.sampled(values)
        except Exception:  # another tree altogether, of which `check_position` says more
            return values
        return network

    def _network(
        self,
        module: Any,
        inputs: Any,
        preprocess: Callable[[Any], Any],
        trainable: Trainable | None,
        variables: Any,
    ) -> tuple[Network, Position, Any]:
        """The network, and shapes of its parameters and of its outputs for one example."""
        one = jax.tree.map(lambda leaf: leaf[:1], inputs)
        two = jax.tree.map(lambda leaf: leaf[:1].repeat(2, axis=0), inputs)
        try:
            network = as_network(
                module, one, preprocess=preprocess, trainable=trainable, variables=variables
            )
            position = jax.eval_shape(network.init, jax.random.key(0))
            outputs, of_two = (jax.eval_shape(network.apply, position, x) for x in (one, two))
        except InputError:
            raise
        except Exception as error:  # whatever the user's module raises on these inputs
            raise InputError(
                f"the module cannot be applied to inputs of shape {_batch_shape(self._examples)}: "
                f"{first_line(error)}"
            ) from error
        for first, second in zip(jax.tree.leaves(outputs), jax.tree.leaves(of_two), strict=True):
            if (first.shape, second.shape) != ((1, *first.shape[1:]), (2, *first.shape[1:])):
                raise InputError(
                    f"the module gives outputs of shape {first.shape} for one example and "
                    f"{second.shape} for two; a leading axis of examples is expected, none of "
                    "which sees the others"
                )
        return network, position, jax.tree.map(lambda leaf: leaf.shape[1:], outputs)


def _canonical(arrays: Any, what: str) -> Any:
    """Arrays as a device holds them; names of classes are no numbers yet."""
    return jax.tree.map(
        lambda leaf: leaf if leaf.dtype.kind == "U" else canonical(leaf, what), arrays
    )


def _named(likelihood: Likelihood, data: Any, targets: Any) -> Likelihood:
    """The likelihood with the names of the classes, where the data have names."""
    if isinstance(targets, np.ndarray) and targets.dtype.kind == "U":
        if getattr(likelihood, "classes", ()):
            return likelihood
        return likelihood.with_classes(tuple(np.unique(targets).tolist()))
    if isinstance(data, Dataset) and hasattr(likelihood, "classes") and not likelihood.classes:
        return likelihood.with_classes(data.classes)
    return likelihood


def _are_images(inputs: Any, is_dataset: bool, images: bool | None) -> bool:
    """Whether inputs are images: what was said, or else what is beyond doubt."""
    if images is not None:
        return images
    leaves = jax.tree.leaves(inputs)
    if is_dataset or not any(leaf.dtype == np.uint8 for leaf in leaves):
        return is_dataset
    if len(leaves) == 1 and leaves[0].ndim == 4:
        return True
    raise InputError(
        f"inputs are uint8 of shape {leaves[0].shape}, which may be images or something else; give "
        "images=True to have them scaled to [0, 1], or images=False to leave them as they are "
        "(tokens, categories)"
    )


def _itself(inputs: Any) -> Any:
    return jax.tree.map(jnp.asarray, inputs)


def _as_fractions(inputs: Any) -> Any:
    """Scale uint8 to [0, 1]; leave anything else alone."""

    def scaled(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        return leaf.astype(jnp.result_type(float)) / 255 if leaf.dtype == jnp.uint8 else leaf

    return jax.tree.map(scaled, inputs)


def _scaled(data: Any) -> Callable[[Any], Any]:
    """From raw inputs to mean 0 and standard deviation 1, by feature; integers stay."""

    def moments(leaf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if leaf.dtype.kind != "f":
            return np.zeros(()), np.ones(())
        mean, std = leaf.mean(axis=0, dtype=float), leaf.std(axis=0, dtype=float)
        return mean, np.where(std > 0, std, 1.0)

    means, stds = (jax.tree.map(lambda leaf, k=k: moments(leaf)[k], data) for k in (0, 1))

    def scale_one(leaf: Any, mean: np.ndarray, std: np.ndarray) -> jax.Array:
        leaf = jnp.asarray(leaf)
        return (leaf - mean) / std if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return lambda inputs: jax.tree.map(scale_one, inputs, means, stds)


def _warn_of_raw_units(likelihood: Likelihood, inputs: Any, targets: Any, images: bool) -> None:
    """Warn of numbers that a prior around 1 knows nothing of."""
    is_scaled = likelihood.standardised(targets) is not likelihood
    if is_scaled:
        mean, std = np.abs(targets.mean(axis=0)).max(), targets.std(axis=0)
        if max(mean, std.max()) > _LARGE or 0 < std.max() < 1 / _LARGE:
            warnings.warn(
                f"targets have mean {targets.mean():,.4g} and standard deviation "
                f"{targets.std():,.4g}, and a prior of ordinary scales expects numbers around 1; "
                "give standardise=True, which keeps predictions in the units of the data",
                stacklevel=4,
            )
    for leaf in jax.tree.leaves(inputs):
        if leaf.dtype.kind == "f" and not images and np.abs(leaf).max() > _LARGE**2:
            warnings.warn(
                f"inputs are as large as {np.abs(leaf).max():,.4g}, and an initialiser expects "
                "numbers around 1; give standardise=True",
                stacklevel=4,
            )


# What follows from `logprior_fn` and `pointwise_loglikelihood_fn`, and for NumPyro from them alone.
_DERIVED = (
    "logdensity_fn",
    "loglikelihood_fn",
    "logdensity_estimator",
    "value_and_grad_estimator",
    "grad_estimator",
)

# What counts as large for a standardised number.
_LARGE = 30.0


def _check_weights(weights: Any, size: int) -> jax.Array | None:
    if weights is None:
        return None
    array = as_arrays(weights, "weights")
    if not isinstance(array, np.ndarray) or array.shape != (size,) or array.dtype.kind not in "iuf":
        shape = getattr(array, "shape", type(array).__name__)
        raise InputError(
            f"weights have shape {shape} for {size} examples; give one number for each"
        )
    if not np.isfinite(array).all() or (array < 0).any() or not array.any():
        raise InputError("weights must be finite, none negative and at least one positive")
    return jnp.asarray(array, jnp.result_type(float))


def _widened(leaf: Any) -> Any:
    """Float16 and the like in the dtype that positions have."""
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.floating):
        return leaf
    wide = jnp.promote_types(dtype, jnp.result_type(float))
    return leaf if wide == dtype else jnp.asarray(leaf, wide)


def _structure(tree: Any) -> str:
    """A pytree of arrays in words."""
    if isinstance(tree, Mapping):
        return f"a dict of {', '.join(map(str, tree))}"
    if isinstance(tree, tuple):
        return f"a tuple of {len(tree)}"
    return "one array"


def _batch_shape(examples: Any) -> str:
    shapes = [f"(n, {', '.join(map(str, x.shape))})" for x in jax.tree.leaves(examples)]
    return " and ".join(shapes)
