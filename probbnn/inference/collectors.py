"""What a run, or a pass over stored draws, keeps of a chain.

Each collector is a pytree whose arrays are leaves and whose functions are static, so that one
compiled program serves all collectors of a kind. `fold` runs one over stored draws: predictions
made on the way and predictions made afterwards are made by the same code.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.inference.draws import Draws
from probbnn.posterior.base import Posterior
from probbnn.posterior.likelihoods import Summary
from probbnn.types import Clock, Collector, Info, Position, PyTree

__all__ = ["Averages", "LogMeanExp", "Recorded", "Statistics", "fold", "positions_of"]

# Stored draws looked at in one call, which bounds the memory of a pass over them.
_BLOCK_DRAWS = 64


class _OfDraws:
    """A collector that looks at draws alone."""

    def observe(self, carry: PyTree, info: Info, clock: Clock) -> PyTree:
        """Nothing: a step that is no draw leaves no trace."""
        return carry


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Recorded(_OfDraws):
    """``function(*arrays, position)`` at each draw.

    Attributes:
        function: what is recorded, static; its values are pytrees of arrays.
        num_draws: draws per chain, static.
        arrays: what it takes beside the position.
    """

    function: Callable[..., PyTree] = field(metadata={"static": True})
    num_draws: int = field(metadata={"static": True})
    arrays: tuple[Any, ...] = ()

    def init(self, position: Position, info: Info) -> PyTree:
        """Room for all draws."""
        values = jax.eval_shape(self.function, *self.arrays, position)
        return jax.tree.map(
            lambda leaf: jnp.zeros((self.num_draws, *leaf.shape), leaf.dtype), values
        )

    def update(self, carry: PyTree, position: Position, clock: Clock) -> PyTree:
        """Put the draw behind the others."""
        values = self.function(*self.arrays, position)
        return jax.tree.map(lambda all_, one: all_.at[clock.num_draws].set(one), carry, values)

    def finish(self, carry: PyTree) -> PyTree:
        """Values as NumPy arrays ``(chain, draw, …)``."""
        return jax.tree.map(np.asarray, carry)


def positions_of(num_draws: int) -> Recorded:
    """Stores the draws themselves."""
    return Recorded(_itself, num_draws)


def _itself(position: Position) -> Position:
    return position


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
class Statistics:
    """The infos of evenly spaced steps, and those that belong to each draw.

    Attributes:
        num_draws: draws per chain, static.
        num_steps: steps of the run, static.
        stride: steps from one point of the trace to the next, static.
        looks_ahead: names of those that a step reports of the position that it started from,
            static: a draw's are seen by the step after it. The last draw, if no step follows,
            has those of the step that led to it.
    """

    num_draws: int = field(metadata={"static": True})
    num_steps: int = field(metadata={"static": True})
    stride: int = field(metadata={"static": True})
    looks_ahead: frozenset[str] = field(metadata={"static": True})

    @property
    def num_points(self) -> int:
        """Points of the trace."""
        return 1 + (self.num_steps - 1) // self.stride

    def init(self, position: Position, info: Info) -> PyTree:
        """Room for the trace and for the draws, and for one more of each that is not complete."""

        def room(size: int) -> dict[str, jax.Array]:
            return {n: jnp.zeros((size + 1, *x.shape), x.dtype) for n, x in _fields(info).items()}

        return {"trace": room(self.num_points), "draws": room(self.num_draws)}

    def observe(self, carry: PyTree, info: Info, clock: Clock) -> PyTree:
        """Write the step where it may belong; what does not is overwritten by the next."""
        point = -(-clock.step // self.stride)
        before = jnp.where(clock.drew, clock.num_draws - 1, clock.num_draws)
        trace, draws = dict(carry["trace"]), dict(carry["draws"])
        for name, value in _fields(info).items():
            trace[name] = trace[name].at[point].set(value)
            draws[name] = draws[name].at[clock.num_draws].set(value)
            if name in self.looks_ahead:
                draws[name] = draws[name].at[before].set(value)
        return {"trace": trace, "draws": draws}

    def update(self, carry: PyTree, position: Position, clock: Clock) -> PyTree:
        """Nothing: the step that led to the draw is written."""
        return carry

    def finish(self, carry: PyTree) -> dict[str, dict[str, np.ndarray]]:
        """``"trace"`` by name, ``(chain, point)``, and ``"draws"``, ``(chain, draw)``."""
        return {
            part: {name: np.asarray(values)[:, :-1] for name, values in of_part.items()}
            for part, of_part in carry.items()
        }


def _fields(info: Info) -> dict[str, Any]:
    return info._asdict()


def fold(target: Posterior, collector: Collector, draws: Draws) -> Any:
    """What a collector collects of stored draws, all chains as one: leaves ``(1, …)`` inside.

    Args:
        target: whose compiled programs are used.
        collector: which may look at draws alone.
        draws: the draws.
    """
    # A function of its own for each target, so that what JAX keeps for it goes when that goes.
    run = target.program("fold", lambda: jax.jit(partial(_fold_block), donate_argnums=1))
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


def _blocks(draws: Draws) -> Iterator[PyTree]:
    """Positions of all chains' draws in blocks of bounded size, leaves ``(draws, …)``."""
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), draws.positions)
    for start in range(0, draws.num_chains * draws.num_draws, _BLOCK_DRAWS):
        yield jax.tree.map(lambda leaf, s=start: leaf[s : s + _BLOCK_DRAWS], flat)
