"""The vocabulary of the package: what a position is, what a batch is, and who offers what.

A position, and what a kernel or a collector carries, are pytrees of arrays whose structure is the
user's; `PyTree` says so. Everything else has a name here or a class of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax

__all__ = [
    "Batch",
    "Clock",
    "Collector",
    "DataSource",
    "Info",
    "KernelLike",
    "PRNGKey",
    "Position",
    "PyTree",
    "State",
    "StepSize",
    "Stream",
    "ValueAndGrad",
]

PyTree: TypeAlias = Any
"""A nest of containers whose leaves are arrays."""

PRNGKey: TypeAlias = jax.Array
"""A JAX random key, or an array of keys."""

Position: TypeAlias = PyTree
"""Values of all parameters: where a chain is."""

State: TypeAlias = Any
"""What a kernel carries from step to step: a NamedTuple with a field (or property) ``position``."""

Info: TypeAlias = Any
"""What a step reports: a NamedTuple of scalars, ``logdensity`` among them."""

Stream: TypeAlias = PyTree
"""What a data source carries from minibatch to minibatch."""

StepSize: TypeAlias = float | Callable[[Any], Any]
"""A number, or a schedule ``step -> step size``."""


class Batch(NamedTuple):
    """Some of the data: a pytree whose leaves share a leading axis of length b.

    Attributes:
        inputs: shape ``(b, …)``, or a pytree of such arrays.
        targets: likewise.
        mask: booleans of shape ``(b,)``, False where a row only pads a ragged batch; ``None``
            where every row counts.
        weights: of each row's log likelihood, ``(b,)``; ``None``: 1.
    """

    inputs: PyTree
    targets: PyTree
    mask: jax.Array | None = None
    weights: jax.Array | None = None


ValueAndGrad: TypeAlias = Callable[[Position, Any], tuple[jax.Array, Position]]
"""``(position, batch) -> (value, gradient)`` of an estimate of a log density."""


class KernelLike(Protocol):
    """What `probbnn.sample` asks of a ready-made kernel: BlackJAX's form."""

    @property
    def init(self) -> Callable[..., State]:
        """``init(position) -> state``."""
        ...

    @property
    def step(self) -> Callable[..., tuple[State, Info]]:
        """``step(rng_key, state, batch) -> (state, info)``."""
        ...


class DataSource(Protocol):
    """Where the examples are. Which ones make a minibatch is independent of where they are.

    A source is a pytree, since compiled programs take it as an argument.
    """

    @property
    def size(self) -> int:
        """N, the number of examples."""
        ...

    def init(self, rng_key: PRNGKey, batch_size: int) -> Stream:
        """A stream of minibatches of ``batch_size`` examples."""
        ...

    def next(self, stream: Stream, step: jax.Array) -> tuple[Stream, Batch]:
        """The minibatch of step number ``step``, counted from 0; steps come one by one."""
        ...

    def gather(self, index: Any) -> Batch:
        """The examples at these indices."""
        ...

    @property
    def num_blocks(self) -> int:
        """In how many blocks `block` gives all of the data."""
        ...

    def block(self, number: Any) -> Batch:
        """All of the data, part by part, each example once: a masked batch of fixed length."""
        ...


class Clock(NamedTuple):
    """Where a run is, the same for all of its chains.

    Attributes:
        step: number of steps taken, an int32 scalar.
        num_draws: number of draws kept, an int32 scalar.
        drew: whether the last step ended in a draw, a boolean scalar.
    """

    step: jax.Array
    num_draws: jax.Array
    drew: jax.Array


class Collector(Protocol):
    """What a run keeps of a chain on its way. Each method sees one chain and is traceable.

    ``carry`` is a pytree of arrays of fixed shapes, part of the run's state. A collector is itself
    a pytree (see `jax.tree_util.register_dataclass`), its arrays leaves and the rest static.
    """

    def init(self, position: Position, info: Info) -> PyTree:
        """The carry before the first step, for positions and infos of these shapes."""
        ...

    def observe(self, carry: PyTree, info: Info, clock: Clock) -> PyTree:
        """After each step; ``clock`` is the one *before* the step."""
        ...

    def update(self, carry: PyTree, position: Position, clock: Clock) -> PyTree:
        """At each draw; ``clock.num_draws`` does not count it yet."""
        ...

    def finish(self, carry: PyTree) -> Any:
        """What was collected, on the host, from the carries of all chains ``(chain, …)``."""
        ...
