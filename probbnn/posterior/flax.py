"""The adapter: a network, a prior, a likelihood and data become one log density.

`LogDensity` offers it, and its minibatch estimates, in the form that BlackJAX takes as it is;
`probbnn.to_numpyro` makes a NumPyro model of it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.arrays import canonical, on_device, unmasked
from probbnn.data.sources import DeviceArrays, arrays_of
from probbnn.errors import InputError, first_line
from probbnn.posterior.base import Posterior
from probbnn.posterior.likelihoods import Categorical, Likelihood, Summary
from probbnn.posterior.network import Trainable, as_network
from probbnn.posterior.priors import GaussianPrior, Prior
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
            `apply` gets a batch. NNX modules are evaluated in eval mode.
        data: a `Dataset`, a `Regression`, or a pair ``(inputs, targets)`` of arrays with a common
            leading axis. uint8 inputs are taken for images and scaled to [0, 1] on the device.
        likelihood: `Categorical()`, `Gaussian(scale)`, `LearnedGaussian()`, or any `Likelihood`.
        prior_scale: standard deviation σ of the Gaussian prior N(0, σ²) on every parameter, that
            is, an L2 penalty ‖θ‖²/(2σ²): one number, or a pytree of numbers that is a prefix of
            the network's parameters (per-layer or per-leaf scales). Short for ``prior=
            GaussianPrior(prior_scale)``; 1 unless either is given.
        prior: any `Prior`.
        trainable: which parameters are sampled: the dotted path of a sub-tree, such as
            ``"Dense_2"``, or a predicate of dotted paths. The others stay at their values in
            ``variables`` (Linen) or in the instance (NNX). ``None``: all are sampled.
        variables: of a Linen module, ``{"params": …}`` and state such as ``"batch_stats"``: values
            of frozen parameters and of state, which is constant.

    Attributes:
        data: where the examples are.
        data_size: N.
        network: the module as a `Network`.
        prior: the prior of its parameters.
        likelihood: the observation model.
        shapes: shape and dtype of each parameter, a pytree like a position.
        input_shape: of one example.
        output_shape: of the network's output for one example.

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

    def __init__(
        self,
        module: Any,
        data: Any,
        *,
        likelihood: Likelihood | None = None,
        prior_scale: Any = None,
        prior: Prior | None = None,
        trainable: Trainable | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        inputs, targets = arrays_of(data)
        inputs, targets = canonical(inputs, "inputs"), canonical(targets, "targets")
        if prior is not None and prior_scale is not None:
            raise InputError(
                f"prior_scale is {prior_scale} beside a prior; it is short for "
                "prior=GaussianPrior(prior_scale): give one of them"
            )
        self.likelihood = Categorical() if likelihood is None else likelihood
        if not isinstance(self.likelihood, Likelihood):
            raise InputError(
                f"likelihood is {likelihood!r}; give an instance such as Categorical() or "
                "Gaussian(scale), or of your own subclass of Likelihood"
            )
        self.prior: Prior = GaussianPrior(1.0 if prior_scale is None else prior_scale)
        if prior is not None:
            self.prior = prior
        if not isinstance(self.prior, Prior):
            raise InputError(
                f"prior is {prior!r}; give a Prior such as GaussianPrior(scale), or prior_scale"
            )
        self.input_shape: tuple[int, ...] = inputs.shape[1:]
        self._input_dtype = inputs.dtype
        self.network = as_network(module, inputs[:1], trainable=trainable, variables=variables)
        network, outputs = self._network_shapes()
        self.output_shape: tuple[int, ...] = outputs.shape[1:]
        self.likelihood.check(self.output_shape, targets)
        self.prior.check(network)
        self._prior_start = self.prior.parameters(network)
        self._likelihood_start = self.likelihood.parameters()
        names = ["network", *self._prior_start, *self._likelihood_start]
        if len(set(names)) < len(names):
            raise InputError(
                f"the parts of a position would be called {', '.join(names)}; the parameters of "
                "prior and likelihood need names of their own"
            )
        self.shapes: Position = jax.eval_shape(self.init, jax.random.key(0))
        super().__init__(DeviceArrays(on_device(inputs, "inputs"), on_device(targets, "targets")))

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
        own = self.likelihood.sample_prior(likelihood_key)
        return self.join(Parts(network, self._prior_start, own))

    def apply(self, position: Position, inputs: Any) -> jax.Array:
        """The network's outputs, ``(n, *output_shape)``, for raw inputs ``(n, *input_shape)``."""
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
        """Log likelihood of each example of a minibatch, shape ``(b,)``; 0 where masked out."""
        parts = self.split(position)
        outputs = self.network.apply(parts.network, minibatch.inputs)
        log_probs = self.likelihood.log_prob(outputs, minibatch.targets, **parts.likelihood)
        return log_probs if minibatch.mask is None else jnp.where(minibatch.mask, log_probs, 0.0)

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

    def check_inputs(self, inputs: Any) -> np.ndarray:
        """``inputs`` as an array, or `InputError` unless they are like the data.

        They may be a `Dataset`, a `Regression`, or an array of shape ``(n, *input_shape)``.
        """
        inputs = unmasked(getattr(inputs, "inputs", inputs), "inputs")
        if inputs.shape[1:] != self.input_shape or inputs.ndim == 0:
            raise InputError(
                f"inputs have shape {inputs.shape}; the network was built on examples of shape "
                f"{self.input_shape}, so (n, {', '.join(map(str, self.input_shape))}) is expected "
                "(a single example x is x[None])"
            )
        # uint8 is scaled to [0, 1] and nothing else is: images must come as they came before.
        integers = inputs.dtype.kind in "iu" and self._input_dtype.kind in "iuf"
        if integers and (inputs.dtype == np.uint8) != (self._input_dtype == np.uint8):
            raise InputError(
                f"inputs are {inputs.dtype} and the data were {self._input_dtype}; convert the "
                "inputs as the data were"
            )
        if inputs.dtype.kind == "f" and not np.isfinite(inputs).all():
            raise InputError("inputs contain NaN or infinity; remove or impute those examples")
        return canonical(inputs, "inputs")

    def _network_shapes(self) -> tuple[Position, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the network's parameters and of its outputs for one example."""
        try:
            position = jax.eval_shape(self.network.init, jax.random.key(0))
            one, two = (
                jax.ShapeDtypeStruct((number, *self.input_shape), self._input_dtype)
                for number in (1, 2)
            )
            outputs = [jax.eval_shape(self.network.apply, position, given) for given in (one, two)]
        except InputError:
            raise
        except Exception as error:  # whatever the user's module raises on these inputs
            raise InputError(
                f"the module cannot be applied to inputs of shape (n, "
                f"{', '.join(map(str, self.input_shape))}): {first_line(error)}"
            ) from error
        shapes = [output.shape for output in outputs]
        if shapes != [(number, *shapes[0][1:]) for number in (1, 2)]:
            raise InputError(
                f"the module gives outputs of shape {shapes[0]} for one example and {shapes[1]} "
                "for two; a leading axis of examples is expected, none of which sees the others"
            )
        return position, outputs[0]
