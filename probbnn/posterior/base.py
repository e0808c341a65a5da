"""The log density over data that every sampler here takes, and its minibatch estimates.

With N examples, a minibatch of b and parameters θ, everything in this library is on one scale:

    logdensity(θ)           = logprior(θ) + Σ_n loglikelihood_n(θ)              (T = 1)
    logdensity_estimate(θ)  = logprior(θ) + N/b · Σ_b loglikelihood_b(θ)        (unbiased)
"""

import abc
import copy
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax

from probbnn.data.sources import num_examples
from probbnn.errors import InputError
from probbnn.tree import check_structure
from probbnn.types import Batch, DataSource, Position, PRNGKey

__all__ = ["Posterior"]

# Compiled programs that a posterior keeps at most.
_MAX_PROGRAMS = 64


class _ControlVariate(NamedTuple):
    """Where the minibatch estimates are corrected, and by what."""

    center: Position
    value: jax.Array
    grad: Position


class Posterior(abc.ABC):
    """A log prior and the log likelihood of each of N examples, and all that follows from them.

    `LogDensity` makes one of a Flax network, `from_numpyro` of a NumPyro model.

    Attributes:
        data: where the examples are.
        data_size: N.
    """

    def __init__(self, data: DataSource) -> None:
        self.data = data
        self._control: _ControlVariate | None = None
        self._programs: dict[Hashable, Any] = {}

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, _programs={})  # which are about the original
        return twin

    @property
    def data_size(self) -> int:
        """N, the number of examples."""
        return self.data.size

    @abc.abstractmethod
    def init(self, rng_key: PRNGKey) -> Position:
        """A position (pytree of parameters) to start from."""

    @abc.abstractmethod
    def logprior_fn(self, position: Position) -> jax.Array:
        """Log density of the prior, a scalar."""

    @abc.abstractmethod
    def pointwise_loglikelihood_fn(self, position: Position, minibatch: Batch) -> jax.Array:
        """Log likelihood of each example of a minibatch, ``(b,)``; 0 where masked out.

        Times its weight, where the minibatch has weights.
        """

    @property
    def has_control_variates(self) -> bool:
        """Whether minibatch estimates are corrected around a center, for a second gradient."""
        return self._control is not None

    def num_parameters(self, position: Position) -> int:
        """The number of scalars in a position."""
        return sum(leaf.size for leaf in jax.tree.leaves(position))

    def loglikelihoods(self, inputs: Any, targets: Any, position: Position) -> jax.Array:
        """Log likelihood of each of these examples, nats, ``(n,)``."""
        return self.pointwise_loglikelihood_fn(position, Batch(inputs, targets))

    def logdensity_fn(self, position: Position) -> jax.Array:
        """The log posterior density over all the data, up to the evidence: a scalar.

        Evaluated in blocks and, under differentiation, recomputed block by block, so that memory
        does not grow with the size of the data.
        """
        logprior = self.logprior_fn(position)
        if self.data.num_blocks == 1:
            return logprior + self.pointwise_loglikelihood_fn(position, self.data.block(0)).sum()

        @jax.checkpoint
        def add_block(total: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
            block = self.data.block(number)
            return total + self.pointwise_loglikelihood_fn(position, block).sum(), None

        numbers = jnp.arange(self.data.num_blocks)
        loglikelihood, _ = jax.lax.scan(add_block, jnp.zeros_like(logprior), numbers)
        return logprior + loglikelihood

    def logdensity_estimator(self, position: Position, minibatch: Batch) -> jax.Array:
        """Unbiased minibatch estimate of `logdensity_fn`: a scalar.

        ``minibatch`` is a `Batch` or a tuple ``(inputs, targets[, mask])``; the sum over its
        b unmasked examples is scaled by N/b.
        """
        minibatch = Batch(*minibatch)
        size = num_examples(minibatch.inputs)
        count = size if minibatch.mask is None else minibatch.mask.sum()

        def plain(position: Position) -> jax.Array:
            loglikelihood = self.pointwise_loglikelihood_fn(position, minibatch).sum()
            return self.logprior_fn(position) + self.data_size / count * loglikelihood

        if self._control is None:
            return plain(position)
        center, value, grad = self._control
        estimate, estimated_grad = jax.value_and_grad(plain)(center)
        slope = jax.tree.map(jnp.subtract, grad, estimated_grad)
        away = jax.tree.map(jnp.subtract, position, center)
        return plain(position) + (value - estimate) + optax.tree.vdot(slope, away)

    def value_and_grad_estimator(
        self, position: Position, minibatch: Batch
    ) -> tuple[jax.Array, Position]:
        """`logdensity_estimator` and its gradient, a pytree like the position."""
        return jax.value_and_grad(self.logdensity_estimator)(position, minibatch)

    def grad_estimator(self, position: Position, minibatch: Batch) -> Position:
        """Unbiased minibatch estimate of the gradient of `logdensity_fn`, as BlackJAX takes it."""
        return jax.grad(self.logdensity_estimator)(position, minibatch)

    def with_control_variates(self, center: Position) -> Self:
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

    def as_position(self, values: Any) -> Position:
        """A position of what somebody may have for one; leading axes stay."""
        return values

    def program(self, key: Hashable, build: Callable[[], Any]) -> Any:
        """What ``build`` made when it was first asked for under this key, such as a compiled step.

        Kept here, programs are used again by the next call and go when the posterior goes; so
        they may refer to it. Without a key that can be hashed, nothing is kept.
        """
        try:
            found = self._programs.pop(key, None)
        except TypeError:
            return build()
        found = build() if found is None else found
        self._programs[key] = found  # behind the others: the oldest goes first
        while len(self._programs) > _MAX_PROGRAMS:
            del self._programs[next(iter(self._programs))]
        return found

    def check_position(self, position: Position) -> None:
        """Raise `InputError` unless ``position`` has the structure and shapes of `init`'s."""
        expected = jax.eval_shape(self.init, jax.random.key(0))
        check_structure(position, expected)
        for (path, leaf), wanted in zip(
            jax.tree.leaves_with_path(position), jax.tree.leaves(expected), strict=True
        ):
            if jnp.shape(leaf) != wanted.shape:
                raise InputError(
                    f"the position's {jax.tree_util.keystr(path)} has shape {jnp.shape(leaf)}; "
                    f"this log density's has {wanted.shape}"
                )
