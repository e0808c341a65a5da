"""Which layer's output is the network's: found from the computation, whatever layers are called."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from probbnn.tree import layers
from probbnn.types import Position

__all__ = ["last_layers"]


class _Value(NamedTuple):
    """What is known of a value in the computation.

    Attributes:
        from_inputs: whether it depends on the inputs.
        layers: the layers with a matrix on whose parameters it depends.
        last: those among them that nothing but themselves multiplies on the way here.
    """

    from_inputs: bool
    layers: frozenset[str] = frozenset()
    last: frozenset[str] = frozenset()


_CONSTANT = _Value(from_inputs=False)
# What combines a layer's parameters with what comes from the layers before it. Biases are added.
_PRODUCTS = {"dot_general", "conv_general_dilated", "ragged_dot_general", "mul", "gather"}


def last_layers(
    apply: Callable[[Position, Any], Any], network: Position, inputs: Any
) -> dict[str, list[int]]:
    """The layers that hold a matrix and whose products no other such layer takes further.

    One, of most networks; heads side by side are all of them last; ``{}`` if there is no such
    layer, or a computation that hides it.

    Args:
        apply: ``apply(network, inputs) -> outputs``.
        network: parameters, or their shapes.
        inputs: or their shapes.

    Returns:
        Indices of the leaves of each of them, by the layer's dotted path.

    Examples:
        >>> import jax.numpy as jnp
        >>> apply = lambda network, x: jnp.tanh(x @ network["trunk"]["w"]) @ network["head"]["w"]
        >>> network = {"head": {"w": jnp.ones((4, 1))}, "trunk": {"w": jnp.ones((2, 4))}}
        >>> last_layers(apply, network, jnp.ones((1, 2)))
        {'head': [0]}
    """
    leaves = jax.tree.leaves(network)
    members = {
        layer: index
        for layer, index in layers(network).items()
        if any(leaves[i].ndim >= 2 for i in index)
    }
    parameters = [_CONSTANT] * len(leaves)
    for layer, index in members.items():
        for i in index:
            parameters[i] = _Value(False, frozenset({layer}))
    closed = jax.make_jaxpr(apply)(network, inputs)
    rest = [_Value(from_inputs=True)] * (len(closed.jaxpr.invars) - len(leaves))
    flow = _Flow()
    outputs = flow.through(closed.jaxpr, [*parameters, *rest])
    found = frozenset().union(*(value.last for value in outputs))
    # A connection past a layer leads around it; the layer before is not last for that.
    return {
        layer: members[layer]
        for layer in members
        if layer in found
        and not any(
            (layer, other) in flow.before and (other, layer) not in flow.before for other in found
        )
    }


class _Flow:
    """The computation gone through once.

    Attributes:
        before: pairs of layers of which the second takes what the first gave.
    """

    def __init__(self) -> None:
        self.before: set[tuple[str, str]] = set()

    def through(self, jaxpr: Any, arguments: Sequence[_Value]) -> list[_Value]:
        """The outputs of a jaxpr for such arguments."""
        known = dict(zip(jaxpr.invars, arguments, strict=True))

        def read(atom: Any) -> _Value:
            return _CONSTANT if hasattr(atom, "val") else known.get(atom, _CONSTANT)

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            outputs = self._equation(equation, operands)
            known.update(zip(equation.outvars, outputs, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, operands: list[_Value]) -> list[_Value]:
        inner = _inner(equation)
        if inner is None:
            is_product = equation.primitive.name in _PRODUCTS
            return [self._combined(operands, is_product)] * len(equation.outvars)
        if equation.primitive.name != "scan":
            return self.through(inner, operands)
        # Twice: the second time a step takes what a step gave.
        num_carry = len(inner.outvars) - _num_stacked(equation.outvars, inner.outvars)
        num_scanned = _num_stacked(equation.invars, inner.invars)
        skipped = len(inner.invars) - num_scanned - num_carry
        outputs = self.through(inner, operands)
        for k in range(num_carry):
            both = [operands[skipped + k], outputs[k]]
            operands[skipped + k] = self._combined(both, is_product=False)
        return self.through(inner, operands)

    def _combined(self, operands: list[_Value], is_product: bool) -> _Value:
        from_inputs = any(value.from_inputs for value in operands)
        every = frozenset().union(*(value.layers for value in operands))
        new = frozenset[str]()
        if is_product and from_inputs:
            new = new.union(*(value.layers for value in operands if not value.from_inputs))
        if not new:
            return _Value(from_inputs, every, frozenset().union(*(v.last for v in operands)))
        self.before |= {
            (earlier, later)
            for value in operands
            if value.from_inputs
            for earlier in value.layers
            for later in new
        }
        return _Value(from_inputs, every, new)


def _num_stacked(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """How many a scan takes or gives one of at each step, which have an axis more outside it.

    What JAX itself says of that has other names from version to version.
    """
    pairs = zip(outside, inside, strict=True)
    return sum(out.aval.ndim > of_step.aval.ndim for out, of_step in pairs)


def _inner(equation: Any) -> Any:
    """The jaxpr that an equation calls with its operands as they are, if it calls one."""
    for value in equation.params.values():
        jaxpr = getattr(value, "jaxpr", value)
        if hasattr(jaxpr, "eqns") and len(jaxpr.invars) == len(equation.invars):
            return jaxpr
    return None
