"""A Flax module as two functions of its sampled parameters.

A module's variables are of three kinds: parameters that are *sampled*, parameters that are
*frozen* at given values, and *state*, such as batch statistics, which is constant too. A `Network`
has the first as its positions and holds the others; `apply` puts them together.
"""

import inspect
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import flax
import flax.linen as linen
import jax
import jax.numpy as jnp
from flax import nnx
from flax.core import FrozenDict, unfreeze
from flax.traverse_util import flatten_dict, unflatten_dict

from probbnn.errors import InputError, first_line
from probbnn.tree import leaf_names, matching, nearest
from probbnn.types import Position, PRNGKey

__all__ = ["Network", "Trainable", "as_network", "as_parameters"]

Trainable = str | Sequence[str] | Callable[[str], bool]
"""Which parameters are sampled: dotted paths of sub-trees (see `tree.matching`), or a predicate."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network as pure functions.

    Attributes:
        init: ``init(rng_key) -> position``, from the module's own initialiser, in float32 at least.
        apply: ``apply(position, inputs) -> outputs``, from raw inputs of shape ``(n, …)``. It holds
            no data.
        sampled: the sampled part of a tree of all parameters, such as of a checkpoint.
    """

    init: Callable[[PRNGKey], Position]
    apply: Callable[[Position, Any], Any]
    sampled: Callable[[Any], Position]


def as_network(
    module: Any,
    example: Any,
    *,
    preprocess: Callable[[Any], Any],
    trainable: Trainable | None = None,
    variables: Any = None,
) -> Network:
    """The network that a module computes, in eval mode.

    Outputs go in float32 at least, so that a bfloat16 network does not round the log density.

    Args:
        module: a Linen module, an NNX module, a constructor ``rngs -> NNX module``, or a pair of
            functions ``(init(rng_key, inputs) -> position, apply(position, inputs) -> outputs)``.
        example: one raw input, shape ``(1, …)``.
        preprocess: from raw inputs to what the module takes.
        trainable: which parameters are sampled; ``None``: all. The others are frozen at their
            values in ``variables`` (Linen) or in the instance (NNX).
        variables: of a Linen module, ``{"params": …}`` and its state, as ``module.init`` or
            training gave them; parameters alone; or the path of an Orbax checkpoint of either.

    Raises:
        InputError: if it is no module, has state or frozen parameters of unknown values, or no
            parameter is trainable.
    """
    init, apply, sampled = _as_functions(module, preprocess(example), trainable, variables)

    def init_in_float32(rng_key: PRNGKey) -> Position:
        return jax.tree.map(_widened, init(rng_key))

    def apply_to_raw(position: Position, inputs: Any) -> Any:
        outputs = apply(position, preprocess(inputs))
        return jax.tree.map(lambda o: o.astype(jnp.promote_types(o.dtype, jnp.float32)), outputs)

    return Network(init_in_float32, apply_to_raw, sampled)


def as_parameters(values: Any) -> Any:
    """Parameters or variables as plain nested containers of arrays.

    Args:
        values: a pytree, a Flax `FrozenDict`, an NNX module or its state, or the path of an Orbax
            checkpoint of one of them.

    Raises:
        InputError: if there is no checkpoint at the path, or it cannot be read.
    """
    if isinstance(values, str | os.PathLike):
        return _from_orbax(Path(values))
    if isinstance(values, nnx.Module):
        values = nnx.state(values, nnx.Param)
    if isinstance(values, nnx.State):
        return nnx.to_pure_dict(values)
    return unfreeze(values) if isinstance(values, FrozenDict | dict) else values


def _from_orbax(path: Path) -> Any:
    if not path.is_dir():
        raise InputError(f"there is no checkpoint at {path}; give the directory that Orbax wrote")
    import orbax.checkpoint

    try:
        with warnings.catch_warnings():
            # That arrays go to this machine's devices, which is what they are wanted for.
            warnings.simplefilter("ignore")
            return orbax.checkpoint.PyTreeCheckpointer().restore(path.resolve())
    except Exception as error:  # whatever Orbax says of other people's files
        raise InputError(f"{path} is no checkpoint of Orbax: {first_line(error)}") from error


def _widened(leaf: jax.Array) -> jax.Array:
    """In float32 at least, and in float64 where that is on: a narrower sampler loses its steps."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.result_type(float)))


_Functions = tuple[Callable[..., Any], Callable[..., Any], Callable[[Any], Any]]


def _as_functions(
    module: Any,
    example: Any,
    trainable: Trainable | None,
    variables: Any,
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
        return lambda rng_key: init(rng_key, example), apply, _itself
    if callable(module):
        return _nnx_constructor_functions(module)
    raise InputError(
        f"module is a {type(module).__name__}; give a Flax module (Linen or NNX), a constructor "
        "rngs -> NNX module, or a pair of functions (init, apply)"
    )


def _linen_functions(
    module: linen.Module, example: Any, trainable: Trainable | None, variables: Any
) -> _Functions:
    keywords: dict[str, Any] = _eval_mode(module)
    initialise = partial(_init_linen, module, example, keywords)
    fresh = jax.eval_shape(initialise, jax.random.key(0))
    given = {} if variables is None else as_parameters(variables)
    if not isinstance(given, Mapping):
        raise InputError(
            f"variables are a {type(given).__name__}; give what module.init returned, "
            "{'params': …}, or the directory of a checkpoint"
        )
    if given and "params" not in given and set(given) <= set(fresh.get("params", {})):
        given = {"params": given}
    state = {name: value for name, value in given.items() if name != "params"}
    if trainable is not None and "params" not in given:
        raise InputError(
            f"trainable is {trainable!r} and there are no variables; give the values of the frozen "
            "parameters, variables={'params': …}"
        )
    if "params" in given:
        _check_like(given["params"], fresh.get("params", {}))
    frozen = _frozen(given.get("params", {}), trainable)

    def init(rng_key: PRNGKey) -> Position:
        return _without(initialise(rng_key).get("params", {}), frozen)

    def apply(position: Position, inputs: Any) -> Any:
        whole = {"params": _join(position, frozen), **state}
        return module.apply(whole, inputs, **keywords)

    unknown = set(fresh) - {"params"} - set(state)
    try:
        jax.eval_shape(apply, jax.eval_shape(init, jax.random.key(0)), example)
    except flax.errors.InvalidRngError as error:
        if '"params"' in str(error):  # it would initialise state that it was not given
            _refuse_state(unknown)
        raise InputError(
            f"the module draws random numbers when it is applied ({first_line(error)}); give its "
            "__call__ an argument deterministic or train, which is set for evaluation, or make "
            "the layer deterministic"
        ) from error
    except (flax.errors.FlaxError, KeyError) as error:
        if isinstance(error, flax.errors.ModifyScopeVariableError):
            _refuse_state(set(fresh) - {"params"})
        _refuse_state(unknown)  # what it only writes, as by `sow`, is no reason
        raise
    return init, apply, lambda whole: _without(_only_params(whole), frozen)


def _init_linen(
    module: linen.Module, example: Any, keywords: dict[str, Any], rng_key: PRNGKey
) -> Any:
    return module.init(rng_key, example, **keywords)


def _eval_mode(module: linen.Module) -> dict[str, bool]:
    """The arguments by which modules are told that they are evaluated, as far as this one has them.

    NNX has `nnx.Module.eval` for it.
    """
    usual = {
        "train": False,
        "training": False,
        "is_training": False,
        "deterministic": True,
        "use_running_average": True,
    }
    parameters = inspect.signature(type(module).__call__).parameters
    return {name: value for name, value in usual.items() if name in parameters}


def _only_params(whole: Any) -> Any:
    is_inside = isinstance(whole, Mapping) and "params" in whole
    return whole["params"] if is_inside else whole


def _check_like(parameters: Any, fresh: Any) -> None:
    """Raise `InputError` unless given parameters are those of the module."""
    given, expected = (_shapes(tree) for tree in (parameters, fresh))
    for name, shape in expected.items():
        if given.get(name) != shape:
            what = f"of shape {given[name]}" if name in given else "missing"
            raise InputError(
                f"in variables the parameter {name} is {what}; the module has one of shape {shape}"
            )
    other = [name for name in given if name not in expected]
    if other:
        raise InputError(
            f"variables have a parameter {other[0]}, which the module has not; it has "
            f"{', '.join(expected)}"
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return dict(zip(leaf_names(tree), map(jnp.shape, jax.tree.leaves(tree)), strict=True))


def _frozen(parameters: Any, trainable: Trainable | None) -> dict[Any, Any]:
    """The frozen leaves by path, ``{}`` if all are trainable."""
    if trainable is None:
        return {}
    leaves = flatten_dict(dict(parameters))
    names = {".".join(map(str, path)).replace("/", "."): path for path in leaves}
    if callable(trainable):
        inside = {name for name in names if trainable(name)}
        if not inside:
            raise InputError(
                "trainable holds for no parameter's path; they are " + ", ".join(names)
            )
    else:
        inside = set()
        for pattern in [trainable] if isinstance(trainable, str) else trainable:
            found = matching(pattern, names)
            if not found:
                raise InputError(
                    f"trainable is {pattern!r}, which is no parameter's; they are "
                    f"{', '.join(names)}{nearest(pattern, names)}"
                )
            inside.update(found)
    return {path: jnp.asarray(leaves[path]) for name, path in names.items() if name not in inside}


def _itself(whole: Any) -> Any:
    return whole


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

    return (
        init,
        lambda position, inputs: apply(_join(position, frozen), inputs),
        lambda whole: _without(whole, frozen),
    )


def _nnx_constructor_functions(constructor: Callable) -> _Functions:
    try:
        _, apply = _nnx_split(constructor(nnx.Rngs(0)))
    except TypeError as error:
        raise InputError(
            f"the module's constructor cannot be called with nnx.Rngs alone ({first_line(error)}); "
            "give an instance, or a function such as lambda rngs: MyModule(64, 10, rngs=rngs)"
        ) from error
    return lambda rng_key: _nnx_split(constructor(nnx.Rngs(rng_key)))[0], apply, _itself


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

    def apply(position: Position, inputs: Any) -> Any:
        state = jax.tree.map(lambda leaf: leaf, parameters)  # a copy to write into
        nnx.replace_by_pure_dict(state, position)
        return nnx.merge(graph, state, statistics, rest)(inputs)

    return nnx.to_pure_dict(parameters), apply


def _refuse_state(collections: set[str]) -> None:
    if collections:
        raise InputError(
            f"the module keeps state outside its parameters ({', '.join(sorted(collections))}), "
            "so its outputs are no function of the parameters alone; give its trained values "
            "(variables=… of a Linen module, an NNX instance) and apply it in eval mode, where "
            "they stay as they are, or give a pair (init, apply)"
        )
