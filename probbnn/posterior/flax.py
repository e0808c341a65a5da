"""The adapter: a Flax network, a likelihood, a Gaussian prior and data become one log density.

`LogDensity` offers it, and its minibatch estimates, in the form that BlackJAX takes as it is, and
as a NumPyro model.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from probbnn.data import Dataset, Regression
from probbnn.errors import InputError, is_positive
from probbnn.posterior.base import Minibatch, Target
from probbnn.posterior.likelihoods import Categorical, Likelihood
from probbnn.tree import leaf_names

__all__ = ["LogDensity", "arrays_of"]


class LogDensity(Target):
    """The posterior of a Flax network: log prior, log likelihood and their minibatch estimates.

    Args:
        module: a Linen module, an NNX module, a constructor ``rngs -> NNX module``, or a pair of
            functions ``(init(rng_key, inputs) -> position, apply(position, inputs) -> outputs)``.
            `apply` gets a batch. NNX modules are evaluated in eval mode.
        data: a `Dataset`, a `Regression`, or a pair ``(inputs, targets)`` of arrays with a common
            leading axis. uint8 inputs are taken for images and scaled to [0, 1] on the device.
        likelihood: `Categorical()`, `Gaussian(scale)`, `LearnedGaussian()`, or any `Likelihood`.
        prior_scale: standard deviation σ of the Gaussian prior N(0, σ²) on every parameter, that
            is, an L2 penalty ‖θ‖²/(2σ²): one number, or a pytree of numbers that is a prefix of
            the position (per-layer or per-leaf scales).

    Attributes:
        inputs: the data on the device, shape ``(N, …)``.
        targets: shape ``(N, …)``.
        data_size: N.
        shapes: shape and dtype of each parameter, a pytree like a position.
        prior_scale: σ of each parameter's prior, a pytree of floats like a position.
        apply: the network as a pure function ``(position, inputs) -> outputs``, from raw inputs of
            shape ``(n, *input_shape)`` to ``(n, *output_shape)``. It holds no data.

    Raises:
        InputError: if data, labels, prior scale and module do not fit each other.

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
        data: Dataset | Regression | tuple[Any, Any],
        *,
        likelihood: Likelihood | None = None,
        prior_scale: Any = 1.0,
    ) -> None:
        inputs, targets = arrays_of(data)
        self.likelihood = Categorical() if likelihood is None else likelihood
        self.input_shape: tuple[int, ...] = inputs.shape[1:]
        init, apply = _as_functions(module, _preprocess(inputs[:1]))
        join = getattr(self.likelihood, "join", None)
        if join is not None:  # a likelihood with parameters of its own
            init, apply, prior_scale = join(init, apply, prior_scale)
        self._init = init
        self.apply = lambda position, inputs: apply(position, _preprocess(inputs))
        self._input_dtype = inputs.dtype
        self.shapes, outputs = self._shapes()
        self.likelihood.check(outputs.shape[1:], targets)
        self.output_shape: tuple[int, ...] = outputs.shape[1:]
        self.prior_scale = _broadcast_scale(prior_scale, self.shapes)
        super().__init__(jnp.asarray(inputs), jnp.asarray(targets))

    def init(self, rng_key: jax.Array) -> Any:
        """A position (pytree of parameters) drawn from the module's own initialiser.

        An NNX *instance* keeps no initialiser. Its position is the instance's parameters with
        the entries of each array shuffled by ``rng_key``, which has the same law wherever the
        entries were initialised independently of each other, as in every Flax layer; pass a
        constructor (``lambda rngs: MyMLP(rngs=rngs)``) where that does not hold.
        """
        return self._init(rng_key)

    def logprior_fn(self, position: Any) -> jax.Array:
        """Log density of the prior, normalised: Σ log N(θ_i; 0, σ_i²)."""

        def leaf_logprior(leaf: jax.Array, scale: float) -> jax.Array:
            constant = leaf.size * (np.log(scale) + 0.5 * np.log(2 * np.pi))
            leaf = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
            return -0.5 * jnp.sum((leaf / scale) ** 2) - constant

        return jax.tree.reduce_associative(
            jnp.add, jax.tree.map(leaf_logprior, position, self.prior_scale)
        )

    def loglikelihood_fn(self, position: Any, example: Any) -> jax.Array:
        """Log likelihood of *one* example ``(input, target)``, a scalar, as BlackJAX asks."""
        batch = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], tuple(example))
        return self.pointwise_loglikelihood_fn(position, Minibatch(*batch))[0]

    def pointwise_loglikelihood_fn(self, position: Any, minibatch: Minibatch) -> jax.Array:
        """Log likelihood of each example of a minibatch, shape ``(b,)``; 0 where masked out."""
        outputs = self.apply(position, minibatch.inputs)
        log_probs = self.likelihood.log_prob(outputs, minibatch.targets)
        return log_probs if minibatch.mask is None else jnp.where(minibatch.mask, log_probs, 0.0)

    def numpyro_model(self, subsample_size: int | None = None) -> None:
        """The posterior as a NumPyro model, for NumPyro's own MCMC, SVI and `Predictive`.

        Each leaf of the position is a site with its prior, called by its dotted path
        (`numpyro_params` shows the names); the data are the observed site ``"targets"`` in the
        plate ``"examples"``. NumPyro starts a chain at uniform(−2, 2) weights, a bad place for a
        network, unless it is given ``init_params``.

        Args:
            subsample_size: examples in a random minibatch, its log likelihood scaled to all the
                data, as SVI and HMCECS take it; default: all the data.

        Examples:
            >>> import jax, numpyro, probbnn as pb
            >>> train, test = pb.load("digits")
            >>> target = pb.LogDensity(pb.MLP(hidden=(10,)), train)
            >>> sites = target.numpyro_params(target.init(jax.random.key(0)))
            >>> list(sites)
            ['Dense_0.bias', 'Dense_0.kernel', 'Dense_1.bias', 'Dense_1.kernel']
            >>> value, _ = numpyro.infer.util.log_density(target.numpyro_model, (), {}, sites)
            >>> bool(abs(value / target.logdensity_fn(target.numpyro_position(sites)) - 1) < 1e-5)
            True
        """
        # NumPyro takes a second to import, and only those who use it should wait for it.
        from probbnn.samplers.from_numpyro import sample_posterior

        sample_posterior(self, subsample_size)

    def numpyro_params(self, position: Any) -> dict[str, Any]:
        """A position as values of `numpyro_model`'s sites; leading axes stay.

        Raises:
            InputError: if ``position`` has not the structure of this network's parameters.
        """
        structures = str(jax.tree.structure(position)), str(jax.tree.structure(self.shapes))
        if structures[0] != structures[1]:
            raise InputError(
                f"the position has the structure {structures[0]}; the network's parameters have "
                f"{structures[1]}"
            )
        return dict(zip(self._site_names, jax.tree.leaves(position), strict=True))

    def numpyro_position(self, params: Mapping[str, Any]) -> Any:
        """The way back: the position that site values of `numpyro_model` stand for.

        Leading axes, as of NumPyro's draws, stay; sites that are no parameters are passed over.

        Raises:
            InputError: if a parameter's site is missing.
        """
        missing = [name for name in self._site_names if name not in params]
        if missing:
            raise InputError(
                f"site {missing[0]} is not among {', '.join(params) or 'no sites'}; the values of "
                "all parameters' sites are needed, as numpyro_model names them"
            )
        structure = jax.tree.structure(self.shapes)
        return jax.tree.unflatten(structure, [params[name] for name in self._site_names])

    @property
    def _site_names(self) -> list[str]:
        """Sites of the leaves, apart from those of the data and each other."""
        names = ["examples", "targets"]
        for name in leaf_names(self.shapes):
            while name in names:
                name = f"{name}.parameter"
            names.append(name)
        return names[2:]

    def check_inputs(self, inputs: Any) -> np.ndarray:
        """``inputs`` as an array, or `InputError` unless they are like the data.

        They may be a `Dataset`, a `Regression`, or an array of shape ``(n, *input_shape)``.
        """
        if isinstance(inputs, Dataset | Regression):
            inputs = _pair(inputs)[0]
        inputs = np.asarray(inputs)
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
        return inputs

    def _shapes(self) -> tuple[Any, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of a position and of the outputs for one example."""
        try:
            position = jax.eval_shape(self._init, jax.random.key(0))
            one = jax.ShapeDtypeStruct((1, *self.input_shape), self._input_dtype)
            return position, jax.eval_shape(self.apply, position, one)
        except InputError:
            raise
        except Exception as error:  # whatever the user's module raises on these inputs
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise InputError(
                f"the module cannot be applied to inputs of shape (n, "
                f"{', '.join(map(str, self.input_shape))}): {reason}"
            ) from error


def _pair(data: Dataset | Regression) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(data, Dataset):
        return data.images, data.labels
    return data.inputs, data.targets


def arrays_of(data: Dataset | Regression | tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets of data, one row for each example.

    Raises:
        InputError: if it is nothing of the kind, or inputs are not finite.
    """
    if isinstance(data, Dataset | Regression):
        data = _pair(data)
    if not (isinstance(data, tuple) and len(data) == 2):
        raise InputError(
            f"data is a {type(data).__name__}; give a Dataset or a pair (inputs, targets), or a "
            "Regression"
        )
    inputs, targets = np.asarray(data[0]), np.asarray(data[1])
    if inputs.ndim == 0 or targets.ndim == 0 or len(inputs) != len(targets) or not len(inputs):
        raise InputError(
            f"inputs have shape {inputs.shape} and targets {targets.shape}; they need the same "
            "number of examples, at least one, along the first axis"
        )
    if not np.issubdtype(inputs.dtype, np.integer) and not np.isfinite(inputs).all():
        raise InputError("inputs contain NaN or infinity; remove or impute those examples")
    return inputs, targets


def _preprocess(inputs: Any) -> jax.Array:
    """Scale images (uint8) to [0, 1]; leave anything else alone."""
    inputs = jnp.asarray(inputs)
    if inputs.dtype != jnp.uint8:
        return inputs
    return inputs.astype(jnp.result_type(float)) / 255


def _broadcast_scale(prior_scale: Any, position: Any) -> Any:
    """One positive float per leaf of the position, from a number or a prefix pytree."""
    try:
        scales = jax.tree.broadcast(prior_scale, position)
    except ValueError as error:
        raise InputError(
            f"prior_scale has the structure {jax.tree.structure(prior_scale)}; it must be one "
            f"number or a prefix of the parameters' {jax.tree.structure(position)}"
        ) from error
    for path, scale in jax.tree.leaves_with_path(scales):
        if not is_positive(scale):
            where = "" if jax.tree_util.all_leaves([prior_scale]) else jax.tree_util.keystr(path)
            raise InputError(
                f"prior_scale{where} is {scale}; a prior's standard deviation must be one "
                "positive finite number"
            )
    return jax.tree.map(float, scales)


_Functions = tuple[Callable[..., Any], Callable[..., Any]]


def _as_functions(module: Any, example: jax.Array) -> _Functions:
    """``init(rng_key) -> position`` and ``apply(position, inputs) -> outputs`` of any module."""
    if isinstance(module, linen.Module):
        return _linen_functions(module, example)
    if isinstance(module, type) and issubclass(module, linen.Module):
        raise InputError(
            f"module is the class {module.__name__}; give an instance, {module.__name__}(…)"
        )
    if isinstance(module, tuple) and len(module) == 2 and all(map(callable, module)):
        init, apply = module
        return lambda rng_key: init(rng_key, example), apply
    if isinstance(module, nnx.Module):
        return _nnx_functions(module)
    if callable(module):
        return _nnx_constructor_functions(module)
    raise InputError(
        f"module is a {type(module).__name__}; give a Flax module (Linen or NNX), a constructor "
        "rngs -> NNX module, or a pair of functions (init, apply)"
    )


def _linen_functions(module: linen.Module, example: jax.Array) -> _Functions:
    def init(rng_key: jax.Array) -> Any:
        variables = module.init(rng_key, example)
        _refuse_state(set(variables) - {"params"})
        return variables["params"]

    return init, lambda position, inputs: module.apply({"params": position}, inputs)


def _nnx_functions(module: nnx.Module) -> _Functions:
    parameters, apply = _nnx_split(module)

    def init(rng_key: jax.Array) -> Any:
        leaves, structure = jax.tree.flatten(parameters)
        keys = jax.random.split(rng_key, len(leaves))
        return jax.tree.unflatten(
            structure,
            [
                jax.random.permutation(key, leaf.ravel()).reshape(leaf.shape)
                for key, leaf in zip(keys, leaves, strict=True)
            ],
        )

    return init, apply


def _nnx_constructor_functions(constructor: Callable) -> _Functions:
    try:
        _, apply = _nnx_split(constructor(nnx.Rngs(0)))
    except TypeError as error:
        raise InputError(
            f"the module's constructor cannot be called with nnx.Rngs alone ({error}); give an "
            "instance, or a function such as lambda rngs: MyModule(64, 10, rngs=rngs)"
        ) from error
    return lambda rng_key: _nnx_split(constructor(nnx.Rngs(rng_key)))[0], apply


def _nnx_split(module: nnx.Module) -> tuple[Any, Callable]:
    """Parameters as plain nested dicts, and ``apply(position, inputs)``."""
    module = nnx.clone(module)
    module.eval()
    graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
    parameters, statistics, rest = states
    _refuse_state({"batch_stats"} if jax.tree.leaves(statistics) else set())

    def apply(position: Any, inputs: jax.Array) -> jax.Array:
        state = jax.tree.map(lambda leaf: leaf, parameters)  # a copy to write into
        nnx.replace_by_pure_dict(state, position)
        return nnx.merge(graph, state, rest)(inputs)

    return nnx.to_pure_dict(parameters), apply


def _refuse_state(collections: set[str]) -> None:
    if collections:
        raise InputError(
            f"the module keeps state outside its parameters ({', '.join(sorted(collections))}), "
            "so its outputs are no function of the parameters alone; use layer or group "
            "normalisation instead of batch normalisation, or give a pair (init, apply)"
        )
