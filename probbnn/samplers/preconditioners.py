"""RMSprop's diagonal preconditioner, which pSGLD and SGHMC share.

From the gradient estimates g, on the scale of the log density (so N times the mean gradient of a
training loss):

    V ← αV + (1−α) g²           G = 1/(λ + √V)
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from probbnn.errors import InputError
from probbnn.types import Position, PyTree

__all__ = ["RMSPreconditioner", "check_freeze"]


@dataclass(frozen=True)
class RMSPreconditioner:
    """The settings of the preconditioner, and its arithmetic.

    Attributes:
        decay: α in [0, 1), the decay of the running average V.
        damping: λ > 0, on the scale of the log density's gradient.
        bias_correction: divide V by 1 − α^t, as Adam does, so that the first steps are not
            1/√(1−α) times too large.
        freeze_after: number of steps after which V stays as it is; ``None``: never.

    Raises:
        InputError: if a number is outside its range.
    """

    decay: float = 0.99
    damping: float = 1.0
    bias_correction: bool = True
    freeze_after: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise InputError(f"decay is {self.decay}; it must be at least 0 and less than 1")
        if not 0 < self.damping < float("inf"):
            raise InputError(f"damping is {self.damping}; it must be positive and finite")
        if self.freeze_after is not None and self.freeze_after < 1:
            raise InputError(
                f"freeze_after is {self.freeze_after}; the preconditioner needs at least one step"
            )

    def init(self, position: Position) -> PyTree:
        """V = 0, a pytree like ``position``."""
        return jax.tree.map(jnp.zeros_like, position)

    def is_frozen(self, step: jax.Array) -> jax.Array | bool:
        """Whether V stays as it is in step number ``step``, counted from 0."""
        return False if self.freeze_after is None else step >= self.freeze_after

    def update(self, second_moment: PyTree, grad: PyTree, step: jax.Array) -> PyTree:
        """V after step number ``step``, which saw the gradient ``grad``."""
        frozen = self.is_frozen(step)
        return jax.tree.map(
            lambda v, g: jnp.where(frozen, v, self.decay * v + (1 - self.decay) * g**2).astype(
                v.dtype
            ),
            second_moment,
            grad,
        )

    def normaliser(self, num_steps: jax.Array) -> jax.Array | float:
        """What V is divided by after ``num_steps`` steps: the weight of what it has seen."""
        if not self.bias_correction:
            return 1.0
        num_averaged = jnp.maximum(num_steps, 1)
        if self.freeze_after is not None:
            num_averaged = jnp.minimum(num_averaged, self.freeze_after)
        return 1 - self.decay**num_averaged

    def diagonal(self, second_moment: PyTree, num_steps: jax.Array) -> PyTree:
        """G after ``num_steps`` steps, a pytree like ``second_moment``."""
        normaliser = self.normaliser(num_steps)
        return jax.tree.map(
            lambda v: 1 / (self.damping + jnp.sqrt(v / normaliser)).astype(v.dtype), second_moment
        )


def check_freeze(num_warmup: int) -> int:
    """The steps after which the preconditioner freezes, if it does so after warm-up.

    Raises:
        InputError: if there are none.
    """
    if num_warmup == 0:
        raise InputError(
            "the preconditioner freezes after warm-up, and num_warmup is 0; give it some steps, "
            "or freeze=False"
        )
    return num_warmup
