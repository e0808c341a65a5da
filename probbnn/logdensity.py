"""The adapter: a Flax network, a likelihood, a Gaussian prior and data become one log density.

With N examples, a minibatch of b and parameters θ, everything in this library is on one scale:

    logdensity(θ)           = logprior(θ) + Σ_n loglikelihood_n(θ)              (T = 1)
    logdensity_estimate(θ)  = logprior(θ) + N/b · Σ_b loglikelihood_b(θ)        (unbiased)

`LogDensity` offers both in the form that BlackJAX takes as it is.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from probbnn.data import Dataset
from probbnn.errors import InputError, is_positive
from probbnn.likelihoods import Categorical, Likelihood

__all__ = ["LogDensity", "Minibatch"]

# Examples evaluated at once by the full-data log density: bounds its memory.
_BLOCK_SIZE = 2_000


class Minibatch(NamedTuple):
    """Some of the data: a pytree whose leaves share a leading axis of length b.

    Attributes:
        inputs: shape ``(b, …)``.
        targets: shape ``(b, …)``.
        mask: booleans of shape ``(b,)``, False where a row only pads a ragged batch; ``None``
            where every row counts.
    """

    inputs: jax.Array
    targets: jax.Array
    mask: jax.Array | None = None


class _ControlVariate(NamedTuple):
    """Where the minibatch estimates are corrected, and by what."""

    center: Any
    value: jax.Array
    grad: Any


class LogDensity:
    """The posterior of a Flax network: log prior, log likelihood and their minibatch estimates.

    Args:
        module: a Linen module, an NNX module, a constructor ``rngs -> NNX module``, or a pair of
            functions ``(init(rng_key, inputs) -> position, apply(position, inputs) -> outputs)``.
            `apply` gets a batch. NNX modules are evaluated in eval mode.
        data: a `Dataset`, or a pair ``(inputs, targets)`` of arrays with a common leading axis.
            uint8 inputs are taken for images and scaled to [0, 1] on the device.
        likelihood: `Categorical()` or `Gaussian(scale)`, or any `Likelihood`.
        prior_scale: standard deviation σ of the Gaussian prior N(0, σ²) on every parameter, that
            is, an L2 penalty ‖θ‖²/(2σ²): one number, or a pytree of numbers that is a prefix of
            the position (per-layer or per-leaf scales).

    Attributes:
        inputs: the data on the device, shape ``(N, …)``.
        targets: shape ``(N, …)``.
        data_size: N.
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
        data: Dataset | tuple[Any, Any],
        *,
        likelihood: Likelihood | None = None,
        prior_scale: Any = 1.0,
    ) -> None:
        inputs, targets = _as_arrays(data)
        self.likelihood = Categorical() if likelihood is None else likelihood
        self.data_size = len(inputs)
        self.input_shape: tuple[int, ...] = inputs.shape[1:]
        self._init, apply = _as_functions(module, _preprocess(inputs[:1]))
        self.apply = lambda position, inputs: apply(position, _preprocess(inputs))
        self._input_dtype = inputs.dtype
        position, outputs = self._shapes()
        self.likelihood.check(outputs.shape[1:], targets)
        self.output_shape: tuple[int, ...] = outputs.shape[1:]
        self.prior_scale = _broadcast_scale(prior_scale, position)
        self.inputs = jnp.asarray(inputs)
        self.targets = jnp.asarray(targets)
        self._control: _ControlVariate | None = None

    def init(self, rng_key: jax.Array) -> Any:
        """A position (pytree of parameters) drawn from the module's own initialiser.

        An NNX *instance* keeps no initialiser. Its position is the instance's parameters with
        the entries of each array shuffled by ``rng_key``, which has the same law wherever the
        entries were initialised independently of each other, as in every Flax layer; pass a
        constructor (``lambda rngs: MyMLP(rngs=rngs)``) where that does not hold.
        """
        return self._init(rng_key)

    def num_parameters(self, position: Any) -> int:
        """The number of scalars in a position."""
        return sum(leaf.size for leaf in jax.tree.leaves(position))

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

    def logdensity_fn(self, position: Any) -> jax.Array:
        """The log posterior density over all the data, up to the evidence: a scalar.

        Evaluated in blocks and, under differentiation, recomputed block by block, so that memory
        does not grow with the size of the data.
        """
        logprior = self.logprior_fn(position)
        if self.data_size <= _BLOCK_SIZE:
            everything = Minibatch(self.inputs, self.targets)
            return logprior + self.pointwise_loglikelihood_fn(position, everything).sum()

        @jax.checkpoint
        def add_block(total: jax.Array, block: Minibatch) -> tuple[jax.Array, None]:
            return total + self.pointwise_loglikelihood_fn(position, block).sum(), None

        blocks = _in_blocks(self.inputs, self.targets)
        loglikelihood, _ = jax.lax.scan(add_block, jnp.zeros_like(logprior), blocks)
        return logprior + loglikelihood

    def logdensity_estimator(self, position: Any, minibatch: Minibatch) -> jax.Array:
        """Unbiased minibatch estimate of `logdensity_fn`: a scalar.

        ``minibatch`` is a `Minibatch` or a tuple ``(inputs, targets[, mask])``; the sum over its
        b unmasked examples is scaled by N/b.
        """
        minibatch = Minibatch(*minibatch)
        count = minibatch.inputs.shape[0] if minibatch.mask is None else minibatch.mask.sum()

        def plain(position: Any) -> jax.Array:
            loglikelihood = self.pointwise_loglikelihood_fn(position, minibatch).sum()
            return self.logprior_fn(position) + self.data_size / count * loglikelihood

        if self._control is None:
            return plain(position)
        center, value, grad = self._control
        estimate, estimated_grad = jax.value_and_grad(plain)(center)
        slope = jax.tree.map(jnp.subtract, grad, estimated_grad)
        away = jax.tree.map(jnp.subtract, position, center)
        return plain(position) + (value - estimate) + optax.tree.vdot(slope, away)

    def value_and_grad_estimator(self, position: Any, minibatch: Minibatch) -> tuple[Any, Any]:
        """`logdensity_estimator` and its gradient, a pytree like the position."""
        return jax.value_and_grad(self.logdensity_estimator)(position, minibatch)

    def grad_estimator(self, position: Any, minibatch: Minibatch) -> Any:
        """Unbiased minibatch estimate of the gradient of `logdensity_fn`, as BlackJAX takes it."""
        return jax.grad(self.logdensity_estimator)(position, minibatch)

    def with_control_variates(self, center: Any) -> "LogDensity":
        """The same log density with minibatch estimates of less noise near ``center``.

        The estimate at θ is corrected by what the minibatch gets wrong at the center θ̂, to first
        order: its gradient becomes ∇est(θ) − ∇est(θ̂) + ∇logdensity(θ̂), unbiased for any θ̂, with
        a variance that vanishes towards it. It costs a second gradient per step. Far from the
        center, as in another mode of a network's posterior, it *adds* noise: let
        `measure_temperature` tell.

        Source: Baker, Fearnhead, Fox & Nemeth (2019), "Control variates for stochastic gradient
        MCMC", eq. 6.

        Args:
            center: a position of high density, such as the result of the method ``"map"``. The
                full-data value and gradient are computed there, once.

        Raises:
            InputError: if ``center`` is not like a position of this network, or is not finite.

        Examples:
            >>> import jax, probbnn as pb
            >>> train, test = pb.load("digits")
            >>> target = pb.LogDensity(pb.MLP(hidden=(10,)), train)
            >>> mode = pb.sample(jax.random.key(0), target, "map", num_steps=500, progress=False)
            >>> center = jax.tree.map(lambda leaf: leaf[0, -1], mode.positions)
            >>> draws = pb.sample(
            ...     jax.random.key(1),
            ...     target.with_control_variates(center),
            ...     "sgld",
            ...     num_steps=100,
            ...     initial_positions=jax.tree.map(lambda leaf: leaf[:, -1], mode.positions),
            ...     num_chains=1,
            ...     progress=False,
            ... )
        """
        self.check_position(center)
        value, grad = jax.jit(jax.value_and_grad(self.logdensity_fn))(center)
        if not np.isfinite(value):
            raise InputError(f"the log density at the center is {value}; give a finite position")
        centered = copy.copy(self)
        centered._control = _ControlVariate(jax.tree.map(jnp.asarray, center), value, grad)
        return centered

    def check_inputs(self, inputs: Any) -> np.ndarray:
        """``inputs`` as an array, or `InputError` unless they are like the data.

        They may be a `Dataset`, or an array of shape ``(n, *input_shape)``.
        """
        inputs = np.asarray(inputs.images if isinstance(inputs, Dataset) else inputs)
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

    def check_position(self, position: Any) -> None:
        """Raise `InputError` unless ``position`` has the structure and shapes of `init`'s."""
        expected, _ = self._shapes()
        structures = str(jax.tree.structure(position)), str(jax.tree.structure(expected))
        if structures[0] != structures[1]:
            raise InputError(
                f"the position has the structure {structures[0]}; the network's parameters have "
                f"{structures[1]}"
            )
        for (path, leaf), wanted in zip(
            jax.tree.leaves_with_path(position), jax.tree.leaves(expected), strict=True
        ):
            if jnp.shape(leaf) != wanted.shape:
                raise InputError(
                    f"the position's {jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)}; "
                    f"the network's has {wanted.shape}"
                )

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


def _as_arrays(data: Dataset | tuple[Any, Any]) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(data, Dataset):
        data = (data.images, data.labels)
    if not (isinstance(data, tuple) and len(data) == 2):
        raise InputError(
            f"data is a {type(data).__name__}; give a Dataset or a pair (inputs, targets)"
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


def _in_blocks(inputs: jax.Array, targets: jax.Array) -> Minibatch:
    """All the data as a stack of equal blocks, the last one padded and masked."""
    size = len(inputs)
    num_blocks = -(-size // _BLOCK_SIZE)
    length = -(-size // num_blocks)
    index = jnp.arange(num_blocks * length).reshape(num_blocks, length)
    mask = index < size
    index = jnp.minimum(index, size - 1)
    return Minibatch(inputs[index], targets[index], mask)


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
