"""What a run, or a pass over stored draws, keeps of a chain.

Each collector is a pytree whose arrays are leaves and whose functions are static, so that one
compiled program serves all collectors of a kind. `fold` runs one over stored draws: predictions
made on the way and predictions made afterwards are made by the same code.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.inference.draws import Draws
from probbnn.inference.thinning import kept, slot
from probbnn.posterior.base import Posterior
from probbnn.posterior.likelihoods import Summary
from probbnn.types import Clock, Collector, Info, Position, PyTree

__all__ = [
    "Averages",
    "Collecting",
    "LogMeanExp",
    "Newest",
    "NewestInfos",
    "Thinned",
    "Trace",
    "at_each_draw",
    "fold",
]

# Stored draws looked at in one call, which bounds the memory of a pass over them.
_BLOCK_DRAWS = 64


class _OfDraws:
    """A collector that looks at draws alone."""

    def observe(self, carry: PyTree, info: Info, clock: Clock) -> PyTree:
        """Nothing: a step that is no draw leaves no trace."""
        return carry


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Thinned(_OfDraws):
    """``function(*arrays, position)`` at evenly spaced draws, however many come.

    The function is evaluated at these alone. See `probbnn.inference.thinning` for which they are.

    Attributes:
        function: what is recorded, static; its values are pytrees of arrays.
        capacity: draws per chain at most, a power of two, static; at least half as many are kept.
        arrays: what it takes beside the position.
    """

    function: Callable[..., PyTree] = field(metadata={"static": True})
    capacity: int = field(metadata={"static": True})
    arrays: tuple[Any, ...] = ()

    def init(self, position: Position, info: Info) -> PyTree:
        """The number of draws so far, and room for those that are kept."""
        values = jax.eval_shape(self.function, *self.arrays, position)
        return jnp.zeros((), jnp.int32), _room(values, self.capacity)

    def update(self, carry: PyTree, position: Position, clock: Clock) -> PyTree:
        """Put the draw in its place, if it is one of those."""
        count, values = carry
        at = slot(clock.num_draws, self.capacity)

        def put(values: PyTree) -> PyTree:
            new = self.function(*self.arrays, position)
            return jax.tree.map(lambda all_, one: all_.at[at].set(one), values, new)

        # All chains share the clock, so under vmap this stays a branch.
        return count + 1, jax.lax.cond(at < self.capacity, put, lambda values: values, values)

    def finish(self, carry: PyTree) -> tuple[np.ndarray, PyTree]:
        """Numbers of the draws that were kept, and their values ``(chain, kept, …)``."""
        count, values = carry
        numbers, slots = kept(int(np.max(count, initial=0)), self.capacity)
        return numbers, jax.tree.map(lambda leaf: np.asarray(leaf)[:, slots], values)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Newest(_OfDraws):
    """The newest draws themselves, until somebody takes them.

    Attributes:
        size: draws per chain, static: draw n stands at n modulo this.
    """

    size: int = field(metadata={"static": True})

    def init(self, position: Position, info: Info) -> PyTree:
        """Room for them."""
        return jax.tree.map(lambda x: jnp.zeros((self.size, *x.shape), x.dtype), position)

    def update(self, carry: PyTree, position: Position, clock: Clock) -> PyTree:
        """Put the draw in the place of an old one."""
        at = clock.num_draws % self.size
        return jax.tree.map(lambda all_, one: all_.at[at].set(one), carry, position)

    def finish(self, carry: PyTree) -> PyTree:
        """The buffer, ``(chain, size, …)``."""
        return jax.tree.map(np.asarray, carry)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Averages(_OfDraws):
    """Means, and for some quantities variances, over the draws of ``summarise(*arrays, position)``.

    Sums are compensated for rounding (Kahan), and squared deviations are those from a running mean
    (Welford), so that neither many draws nor draws that agree closely lose digits.

    Attributes:
        summarise: gives a `Summary`, static.
        arrays: what it takes beside the position.
    """

    summarise: Callable[..., Summary] = field(metadata={"static": True})
    arrays: tuple[Any, ...] = ()

    def init(self, position: Position, info: Info) -> PyTree:
        """Zeros: number of draws, sums, what these lost, running means and squared deviations."""
        shapes = jax.eval_shape(self.summarise, *self.arrays, position)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes,) * 2)
        spread = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes.spread,) * 2)
        return jnp.zeros((), jnp.int32), *zeros, *spread

    def update(self, carry: PyTree, position: Position, clock: Clock) -> PyTree:
        """Count the draw in."""
        count, total, lost, mean, squares = carry
        values = self.summarise(*self.arrays, position)
        count = count + 1
        added = jax.tree.map(lambda x, c: x - c, values, lost)
        new_total = jax.tree.map(jnp.add, total, added)
        lost = jax.tree.map(lambda t, new, y: (new - t) - y, total, new_total, added)
        new_mean = jax.tree.map(lambda m, x: m + (x - m) / count, mean, values.spread)
        squares = jax.tree.map(
            lambda s, x, m, new: s + (x - m) * (x - new), squares, values.spread, mean, new_mean
        )
        return count, new_total, lost, new_mean, squares

    def finish(self, carry: PyTree) -> tuple[Summary, PyTree, int]:
        """Means and variances of all chains together in float64, and the number of draws."""
        count, total, lost, mean, squares = jax.tree.map(partial(np.asarray, dtype=float), carry)
        size = count.sum()
        means = jax.tree.map(lambda t, c: (t - c).sum(axis=0) / size, total, lost)

        def variance(squares: np.ndarray, mean: np.ndarray) -> np.ndarray:
            average = np.tensordot(count / size, mean, axes=1)
            between = np.tensordot(count / size, np.square(mean - average), axes=1)
            return squares.sum(axis=0) / size + between

        return means, jax.tree.map(variance, squares, mean), int(size)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LogMeanExp(_OfDraws):
    """log of the mean over the draws of exp ``function(*arrays, position)``.

    Attributes:
        function: gives an array, static.
        arrays: what it takes beside the position.
    """

    function: Callable[..., jax.Array] = field(metadata={"static": True})
    arrays: tuple[Any, ...] = ()

    def init(self, position: Position, info: Info) -> PyTree:
        """The number of draws, and log of an empty sum."""
        shape = jax.eval_shape(self.function, *self.arrays, position)
        return jnp.zeros((), jnp.int32), jnp.full(shape.shape, -jnp.inf, shape.dtype)

    def update(self, carry: PyTree, position: Position, clock: Clock) -> PyTree:
        """Count the draw in."""
        count, total = carry
        return count + 1, jnp.logaddexp(total, self.function(*self.arrays, position))

    def finish(self, carry: PyTree) -> np.ndarray:
        """The logarithm, all chains together, in float64."""
        count, total = (np.asarray(leaf, float) for leaf in carry)
        return np.logaddexp.reduce(total, axis=0) - np.log(count.sum())


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Trace:
    """The infos of evenly spaced steps, however many come.

    Attributes:
        capacity: steps at most, a power of two, static; at least half as many are kept.
    """

    capacity: int = field(metadata={"static": True})

    def init(self, position: Position, info: Info) -> PyTree:
        """The number of steps so far, and room for those that are kept."""
        return jnp.zeros((), jnp.int32), _room(_fields(info), self.capacity)

    def observe(self, carry: PyTree, info: Info, clock: Clock) -> PyTree:
        """Put the step in its place, or where nobody looks."""
        count, values = carry
        at = slot(clock.step, self.capacity)
        new = {name: values[name].at[at].set(value) for name, value in _fields(info).items()}
        return count + 1, new

    def update(self, carry: PyTree, position: Position, clock: Clock) -> PyTree:
        """Nothing: the step that led to the draw is written."""
        return carry

    def finish(self, carry: PyTree) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Numbers of the steps, counted from 0, and their infos by name, ``(chain, point)``."""
        count, values = carry
        numbers, slots = kept(int(np.max(count, initial=0)), self.capacity)
        return numbers, {name: np.asarray(leaf)[:, slots] for name, leaf in values.items()}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NewestInfos:
    """What steps reported of the newest draws, until somebody takes it.

    Attributes:
        size: draws per chain, static: draw n stands at n modulo this.
        looks_ahead: names of what a step reports of the position that it started from, static: a
            draw's are seen by the step after it. The last draw, if no step follows, has those of
            the step that led to it.
    """

    size: int = field(metadata={"static": True})
    looks_ahead: frozenset[str] = field(metadata={"static": True})

    def init(self, position: Position, info: Info) -> PyTree:
        """Room for them."""
        return {n: jnp.zeros((self.size, *x.shape), x.dtype) for n, x in _fields(info).items()}

    def observe(self, carry: PyTree, info: Info, clock: Clock) -> PyTree:
        """Write the step as the next draw's; if it is none, the next one writes over it."""
        at = clock.num_draws % self.size
        before = jnp.where(clock.drew, clock.num_draws - 1, clock.num_draws) % self.size
        new = dict(carry)
        for name, value in _fields(info).items():
            new[name] = new[name].at[at].set(value)
            if name in self.looks_ahead:
                new[name] = new[name].at[before].set(value)
        return new

    def update(self, carry: PyTree, position: Position, clock: Clock) -> PyTree:
        """Nothing: the step that led to the draw is written."""
        return carry

    def finish(self, carry: PyTree) -> PyTree:
        """The buffer, ``(chain, size)`` by name."""
        return {name: np.asarray(values) for name, values in carry.items()}


class _Itself:
    """An object as a key: equal to nothing but itself, whatever it says of that."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and other._thing is self._thing

    def __hash__(self) -> int:
        return id(self._thing)


class Collecting(NamedTuple):
    """Collectors by name, what a program takes as arguments apart from what it is compiled for.

    Attributes:
        arrays: of all of them.
        structure: what they are beside those.
        others: leaves that are no arrays: collectors that are no pytrees; ``None`` where one is.
    """

    arrays: list[Any]
    structure: Any
    others: tuple[Any, ...]

    @classmethod
    def of(cls, collectors: Mapping[str, Collector]) -> "Collecting":
        """Take them apart."""
        leaves, structure = jax.tree.flatten(dict(collectors))
        are_arrays = [isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves]
        others = [None if is_one else x for x, is_one in zip(leaves, are_arrays, strict=True)]
        arrays = [x for x, is_one in zip(leaves, are_arrays, strict=True) if is_one]
        return cls(arrays, structure, tuple(others))

    def with_arrays(self, arrays: list[Any]) -> dict[str, Collector]:
        """The collectors with these arrays in place of their own."""
        found = iter(arrays)
        leaves = [next(found) if other is None else other for other in self.others]
        return jax.tree.unflatten(self.structure, leaves)

    @property
    def key(self) -> Hashable:
        """What a program is compiled for."""
        shapes = tuple((x.shape, str(x.dtype)) for x in self.arrays)
        return self.structure, tuple(map(_Itself, self.others)), shapes


def _room(values: PyTree, capacity: int) -> PyTree:
    """For so many values of these shapes, and one that nobody looks at."""
    return jax.tree.map(lambda x: jnp.zeros((capacity + 1, *x.shape), x.dtype), values)


def _fields(info: Info) -> dict[str, Any]:
    return info._asdict()


def fold(target: Posterior | None, collector: Collector, draws: Draws) -> Any:
    """What a collector collects of stored draws, all chains as one: leaves ``(1, …)`` inside.

    Args:
        target: whose compiled programs are used, if there is one.
        collector: which may look at draws alone.
        draws: the draws.
    """

    # A function of its own for each target, so that what JAX keeps for it goes when that goes.
    def program() -> Any:
        return jax.jit(partial(_fold_block), donate_argnums=1)

    run = program() if target is None else target.program("fold", program)
    blocks = _blocks(draws)
    carry, number = None, 0
    for block in blocks:
        if carry is None:
            one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), block)
            carry = jax.tree.map(jnp.asarray, collector.init(one, None))
        carry = run(collector, carry, block, number)
        number += len(jax.tree.leaves(block)[0])
    return collector.finish(jax.tree.map(lambda leaf: leaf[None], carry))


def _fold_block(collector: Collector, carry: PyTree, block: PyTree, start: jax.Array) -> PyTree:
    def one(carry: PyTree, item: tuple[Position, jax.Array]) -> tuple[PyTree, None]:
        position, number = item
        clock = Clock(number, number, jnp.asarray(True))
        return collector.update(carry, position, clock), None

    size = len(jax.tree.leaves(block)[0])
    return jax.lax.scan(one, carry, (block, start + jnp.arange(size)))[0]


def at_each_draw(
    target: Posterior | None, function: Callable[..., PyTree], arrays: tuple[Any, ...], draws: Draws
) -> Any:
    """``function(*arrays, position)`` at each stored draw, leaves ``(chain, draw, …)``.

    What is returned is filled block by block, and nothing else of its size is there on the way.
    """

    def program() -> Any:
        return jax.jit(partial(_map_block), static_argnums=0)

    run = program() if target is None else target.program("map", program)
    size = draws.num_chains * draws.num_draws
    found, number = None, 0
    for block in _blocks(draws):
        values = jax.tree.map(np.asarray, run(function, arrays, block))
        if found is None:
            found = jax.tree.map(lambda leaf: np.empty((size, *leaf.shape[1:]), leaf.dtype), values)
        rows = slice(number, number + len(jax.tree.leaves(block)[0]))
        jax.tree.map(lambda to, leaf, rows=rows: to.__setitem__(rows, leaf), found, values)
        number = rows.stop
    shape = draws.num_chains, draws.num_draws
    return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), found)


def _map_block(function: Callable[..., PyTree], arrays: tuple[Any, ...], block: PyTree) -> PyTree:
    return jax.lax.map(partial(function, *arrays), block)


def _blocks(draws: Draws) -> Iterator[PyTree]:
    """Positions of all chains' draws in blocks of bounded size, leaves ``(draws, …)``."""
    for chain in range(draws.num_chains):
        for start in range(0, draws.num_draws, _BLOCK_DRAWS):
            block = slice(start, start + _BLOCK_DRAWS)
            yield jax.tree.map(lambda leaf, c=chain, b=block: leaf[c, b], draws.positions)
