"""Do all backends see the same density? Each one's own, at the same positions, in float64.

Comparing samplers of different libraries means nothing unless they sample the same thing. What
each library computes by itself from a `LogDensity` is put beside the adapter's own value:

- **BlackJAX, full data**: the value and gradient that `blackjax.nuts` starts from;
- **BlackJAX, minibatch**: `blackjax.sgmcmc`'s own estimators, which map the log likelihood of one
  example over a minibatch, here all the data;
- **NumPyro**: the log joint density of the model and the gradient of its potential;
- **Optax**: the minibatch estimates that our kernels and the optimisers descend, averaged over an
  epoch of ragged minibatches.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from blackjax.sgmcmc import gradients
from numpyro.infer.util import log_density, potential_energy

from probbnn.posterior.flax import LogDensity
from probbnn.posterior.numpyro_model import to_numpyro
from probbnn.types import Position, PRNGKey

__all__ = ["TOLERANCE", "Equality", "MismatchError", "check_equality"]

TOLERANCE = 1e-9
"""Largest relative difference that counts as the same."""

_NUM_BATCHES = 3


class MismatchError(RuntimeError):
    """The backends do not see the same log density.

    Attributes:
        equality: what was measured.
    """

    def __init__(self, equality: "Equality") -> None:
        worst = max(equality.largest, key=lambda name: max(equality.largest[name]))
        density, gradient = equality.largest[worst]
        super().__init__(
            f"{worst} sees another log density than the adapter: values differ by {density:.1e}, "
            f"gradients by {gradient:.1e} (relative, float64), and at most {TOLERANCE:.0e} is "
            "rounding; a module must have no narrower dtype of its own"
        )
        self.equality = equality


@dataclass(frozen=True)
class Equality:
    """Largest relative differences from the adapter, by backend.

    Attributes:
        num_positions: at how many random positions.
        largest: backend to the differences of the value, |a − b|/|b|, and of the gradient,
            ‖a − b‖/‖b‖, in float64.
    """

    num_positions: int
    largest: Mapping[str, tuple[float, float]]

    @property
    def holds(self) -> bool:
        """Whether all differences are rounding."""
        return all(d <= TOLERANCE for differences in self.largest.values() for d in differences)

    def to_dict(self) -> dict[str, Any]:
        """All differences, for JSON; infinity, where something was not finite, as a string."""
        return {
            "num_positions": self.num_positions,
            "tolerance": TOLERANCE,
            "holds": self.holds,
            "backends": {
                name: {
                    what: difference if np.isfinite(difference) else str(difference)
                    for what, difference in zip(("logdensity", "gradient"), found, strict=True)
                }
                for name, found in self.largest.items()
            },
        }

    def __str__(self) -> str:
        width = max(map(len, self.largest))
        lines = [f"{'':{width}}  log density  gradient"]
        lines += [
            f"{name:{width}}  {density:11.1e}  {gradient:8.1e}"
            for name, (density, gradient) in self.largest.items()
        ]
        return "\n".join(lines)


def check_equality(rng_key: jax.Array, target: LogDensity, *, num_positions: int = 4) -> Equality:
    """Evaluate every backend's density and gradient at random positions, in float64.

    Half of the positions are drawn from the initialiser, the others from the prior, whose log
    density is orders of magnitude lower.

    Args:
        rng_key: draws the positions.
        target: the log density; control variates play no part.
        num_positions: how many positions.

    Raises:
        MismatchError: if they differ by more than rounding.

    Examples:
        >>> import jax, probbnn as pb
        >>> train, test = pb.load("digits")
        >>> target = pb.LogDensity(pb.MLP(hidden=(10,)), train)
        >>> check_equality(jax.random.key(0), target, num_positions=2).holds
        True
    """
    positions = _positions(rng_key, target, num_positions)
    largest: dict[str, tuple[float, float]] = {}
    with jax.enable_x64(True):
        target = _in_float64(target)
        adapter = jax.jit(jax.value_and_grad(target.logdensity_fn))
        backends = {name: jax.jit(evaluate) for name, evaluate in _backends(target).items()}
        for position in positions:
            value, grad = adapter(position)
            for name, evaluate in backends.items():
                other_value, other_grad = evaluate(position)
                difference = jax.tree.map(jnp.subtract, other_grad, grad)
                found = (
                    _relative(other_value - value, value),
                    _relative(optax.tree.norm(difference), optax.tree.norm(grad)),
                )
                before = largest.get(name, (0.0, 0.0))
                largest[name] = max(before[0], found[0]), max(before[1], found[1])
    equality = Equality(num_positions, largest)
    if not equality.holds:
        raise MismatchError(equality)
    return equality


def _in_float64(target: LogDensity) -> LogDensity:
    """The same on wider data, so that what a network does to its inputs alone is float64 too."""
    wide = copy.copy(target)
    wide._control = None  # which is about minibatches, and in float32
    wide.data = jax.tree.map(
        lambda leaf: leaf.astype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        target.data,
    )
    return wide


def _positions(rng_key: PRNGKey, target: LogDensity, num_positions: int) -> list[Position]:
    keys = jax.random.split(rng_key, num_positions)
    positions = [target.init(key) for key in keys[::2]]
    positions += [target.sample_prior(key) for key in keys[1::2]]
    return [jax.tree.map(lambda leaf: np.asarray(leaf, float), p) for p in positions]


_Evaluate = Callable[[Position], tuple[jax.Array, Position]]


def _backends(target: LogDensity) -> dict[str, _Evaluate]:
    """Value and gradient at a position, as each backend computes them."""

    def blackjax_full(position: Position) -> tuple[jax.Array, Position]:
        state = blackjax.nuts.init(position, target.logdensity_fn)
        return state.logdensity, state.logdensity_grad

    estimators = target.logprior_fn, target.loglikelihood_fn, target.data_size
    blackjax_value = gradients.logdensity_estimator(*estimators)
    blackjax_grad = gradients.grad_estimator(*estimators)
    everything = tuple(target.data.gather(slice(None)))

    def blackjax_minibatch(position: Position) -> tuple[jax.Array, Position]:
        return blackjax_value(position, everything), blackjax_grad(position, everything)

    model = to_numpyro(target)

    def numpyro(position: Position) -> tuple[jax.Array, Position]:
        params = model.params(position)
        value, _ = log_density(model, (), {}, params)
        grad = jax.grad(lambda params: -potential_energy(model, (), {}, params))(params)
        return value, model.position(grad)

    def minibatches(position: Position) -> tuple[jax.Array, Position]:
        return _mean_of_epoch(target, position)

    return {
        "BlackJAX, full data": blackjax_full,
        "BlackJAX, minibatch": blackjax_minibatch,
        "NumPyro": numpyro,
        "Optax and our kernels": minibatches,
    }


def _mean_of_epoch(target: LogDensity, position: Position) -> tuple[jax.Array, Position]:
    """Mean of the minibatch estimates over an epoch, weighted by how much each one holds."""
    size = target.data_size
    # The last minibatch is ragged, where the data allow.
    batch_size = min(size // _NUM_BATCHES + 1, size)
    stream = target.data.init(jax.random.key(0), batch_size)
    total: Any = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), position))
    for step in range(-(-size // batch_size)):
        stream, batch = target.data.next(stream, jnp.asarray(step, jnp.int32))
        weight = min(batch_size, size - step * batch_size) / size
        estimate = target.value_and_grad_estimator(position, batch)
        total = jax.tree.map(lambda t, e, w=weight: t + w * e, total, estimate)
    return total


def _relative(difference: Any, size: Any) -> float:
    """|difference| / |size|; infinite where that is no number, which hides a mismatch."""
    ratio = float(abs(difference) / abs(size))
    return ratio if np.isfinite(ratio) else float("inf")
