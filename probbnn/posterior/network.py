"""A Flax module as two functions of its sampled parameters.

A module's variables are of three kinds: parameters that are *sampled*, parameters that are
*frozen* at given values, and *state*, such as batch statistics, which is constant too. A `Network`
has the first as its positions and holds the others; `apply` puts them together.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as linen
import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict

from probbnn.errors import InputError, first_line
from probbnn.types import Position, PRNGKey

__all__ = ["Network", "Trainable", "as_network"]

Trainable = str | Callable[[str], bool]
"""Which parameters are sampled: the dotted path of a sub-tree, or a predicate of dotted paths."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network as pure functions.

    Attributes:
        init: ``init(rng_key) -> position``, from the module's own initialiser.
        apply: ``apply(position, inputs) -> outputs``, from raw inputs of shape ``(n, …)``. It holds
            no data.
    """

    init: Callable[[PRNGKey], Position]
    apply: Callable[[Position, Any], jax.Array]


def as_network(
    module: Any,
    example: Any,
    *,
    trainable: Trainable | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Network:
    """The network that a module computes.

    Inputs come as they are: uint8 ones are taken for images and scaled to [0, 1]. Outputs go in
    float32 at least, so that a bfloat16 network does not round the log density.

    Args:
        module: a Linen module, an NNX module, a constructor ``rngs -> NNX module``, or a pair of
            functions ``(init(rng_key, inputs) -> position, apply(position, inputs) -> outputs)``.
        example: one raw input, shape ``(1, …)``.
        trainable: which parameters are sampled; ``None``: all. The others are frozen at their
            values in ``variables`` (Linen) or in the instance (NNX).
        variables: of a Linen module, ``{"params": …}`` and its state, as ``module.init`` or
            training gave them.

    Raises:
        InputError: if it is no module, has state or frozen parameters of unknown values, or no
            parameter is trainable.
    """
    init, apply = _as_functions(module, _preprocess(example), trainable, variables)

    def apply_to_raw(position: Position, inputs: Any) -> jax.Array:
        outputs = apply(position, _preprocess(inputs))
        return outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))

    return Network(init, apply_to_raw)


def _preprocess(inputs: Any) -> jax.Array:
    """Scale images (uint8) to [0, 1]; leave anything else alone."""
    inputs = jnp.asarray(inputs)
    if inputs.dtype != jnp.uint8:
        return inputs
    return inputs.astype(jnp.result_type(float)) / 255


_Functions = tuple[Callable[..., Any], Callable[..., Any]]


def _as_functions(
    module: Any,
    example: jax.Array,
    trainable: Trainable | None,
    variables: Mapping[str, Any] | None,
) -> _Functions:
    if isinstance(module, linen.Module):
        return _linen_functions(module, example, trainable, variables)
    if variables is not None:
        raise InputError(
            f"variables were given for a {type(module).__name__}; they belong to a Linen module, "
            "and an NNX instance brings its own"
        )
    if isinstance(module, type) and issubclass(module, linen.Module):
        raise InputError(
            f"module is the class {module.__name__}; give an instance, {module.__name__}(…)"
        )
    if isinstance(module, nnx.Module):
        return _nnx_functions(module, trainable)
    if trainable is not None:
        raise InputError(
            "trainable was given, and a pair of functions or a constructor says nothing of the "
            "values of frozen parameters; give a Linen module with variables, or an NNX instance"
        )
    if isinstance(module, tuple) and len(module) == 2 and all(map(callable, module)):
        init, apply = module
        return lambda rng_key: init(rng_key, example), apply
    if callable(module):
        return _nnx_constructor_functions(module)
    raise InputError(
        f"module is a {type(module).__name__}; give a Flax module (Linen or NNX), a constructor "
        "rngs -> NNX module, or a pair of functions (init, apply)"
    )


def _linen_functions(
    module: linen.Module,
    example: jax.Array,
    trainable: Trainable | None,
    variables: Mapping[str, Any] | None,
) -> _Functions:
    given = {} if variables is None else unfreeze(dict(variables))
    state = {name: value for name, value in given.items() if name != "params"}
    if trainable is not None and "params" not in given:
        raise InputError(
            f"trainable is {trainable!r} and there are no variables; give the values of the frozen "
            "parameters, variables={'params': …}"
        )
    frozen = _frozen(given.get("params", {}), trainable)

    def init(rng_key: PRNGKey) -> Position:
        fresh = module.init(rng_key, example)
        _refuse_state(set(fresh) - {"params"} - set(state))
        return _without(fresh["params"], frozen)

    def apply(position: Position, inputs: jax.Array) -> jax.Array:
        outputs: Any = module.apply({"params": _join(position, frozen), **state}, inputs)
        return outputs

    return init, apply


def _frozen(parameters: Mapping[str, Any], trainable: Trainable | None) -> dict[Any, Any]:
    """The frozen leaves by path, ``{}`` if all are trainable."""
    if trainable is None:
        return {}
    leaves = flatten_dict(dict(parameters))
    names = {path: ".".join(map(str, path)) for path in leaves}
    if isinstance(trainable, str):
        inside = {p for p, n in names.items() if f"{n}.".startswith(f"{trainable}.")}
    else:
        inside = {p for p, n in names.items() if trainable(n)}
    if not inside:
        raise InputError(
            f"trainable is {trainable!r}, which is no parameter's; they are "
            f"{', '.join(names.values())}"
        )
    return {path: jnp.asarray(leaf) for path, leaf in leaves.items() if path not in inside}


def _without(parameters: Any, frozen: Mapping[Any, Any]) -> Position:
    if not frozen:
        return parameters
    return unflatten_dict({k: v for k, v in flatten_dict(parameters).items() if k not in frozen})


def _join(position: Position, frozen: Mapping[Any, Any]) -> Any:
    return unflatten_dict({**flatten_dict(position), **frozen}) if frozen else position


def _nnx_functions(module: nnx.Module, trainable: Trainable | None) -> _Functions:
    parameters, apply = _nnx_split(module, keeps_state=True)
    frozen = _frozen(parameters, trainable)
    sampled = _without(parameters, frozen)

    def init(rng_key: PRNGKey) -> Position:
        leaves, structure = jax.tree.flatten(sampled)
        keys = jax.random.split(rng_key, len(leaves))
        return jax.tree.unflatten(
            structure,
            [
                jax.random.permutation(key, leaf.ravel()).reshape(leaf.shape)
                for key, leaf in zip(keys, leaves, strict=True)
            ],
        )

    return init, lambda position, inputs: apply(_join(position, frozen), inputs)


def _nnx_constructor_functions(constructor: Callable) -> _Functions:
    try:
        _, apply = _nnx_split(constructor(nnx.Rngs(0)))
    except TypeError as error:
        raise InputError(
            f"the module's constructor cannot be called with nnx.Rngs alone ({first_line(error)}); "
            "give an instance, or a function such as lambda rngs: MyModule(64, 10, rngs=rngs)"
        ) from error
    return lambda rng_key: _nnx_split(constructor(nnx.Rngs(rng_key)))[0], apply


def _nnx_split(module: nnx.Module, *, keeps_state: bool = False) -> tuple[Any, Callable]:
    """Parameters as plain nested dicts, and ``apply(position, inputs)``.

    Batch statistics of an instance are constants; those of a new module have seen no data.
    """
    module = nnx.clone(module)
    module.eval()
    graph, *states = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
    parameters, statistics, rest = states
    if not keeps_state and jax.tree.leaves(statistics):
        _refuse_state({"batch_stats"})

    def apply(position: Position, inputs: jax.Array) -> jax.Array:
        state = jax.tree.map(lambda leaf: leaf, parameters)  # a copy to write into
        nnx.replace_by_pure_dict(state, position)
        return nnx.merge(graph, state, statistics, rest)(inputs)

    return nnx.to_pure_dict(parameters), apply


def _refuse_state(collections: set[str]) -> None:
    if collections:
        raise InputError(
            f"the module keeps state outside its parameters ({', '.join(sorted(collections))}), "
            "so its outputs are no function of the parameters alone; give its trained values "
            "(variables=… of a Linen module, an NNX instance), which then stay as they are, use "
            "layer or group normalisation instead of batch normalisation, or give a pair "
            "(init, apply)"
        )
