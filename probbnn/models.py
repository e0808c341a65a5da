"""The networks of the presets, in Flax: LeNet-300-100 and small multilayer perceptrons."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

__all__ = ["MLP", "LeNet300100"]


class MLP(nn.Module):
    """A multilayer perceptron on flattened inputs, with Flax's default initialisers.

    Kernels start truncated-normal with standard deviation 1/√fan_in, biases at zero. A batch of
    inputs of shape ``(n, …)`` gives outputs (logits, for a classifier) of shape
    ``(n, num_outputs)``.

    Attributes:
        hidden: width of each hidden layer.
        num_outputs: width of the output layer.
        activation: applied after each hidden layer: a function, or its name in `flax.linen`.
        dtype: dtype of the computation; parameters stay float32. ``jnp.bfloat16`` is faster
            where the hardware has bfloat16 matrix products.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model = MLP(hidden=(10,), num_outputs=3)
        >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
        >>> model.apply(variables, jnp.zeros((5, 8, 8, 1))).shape
        (5, 3)
    """

    hidden: tuple[int, ...] = (10, 10)
    num_outputs: int = 10
    activation: Callable[[jax.Array], jax.Array] | str = nn.relu
    dtype: Any = None

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Outputs of shape ``(n, num_outputs)`` for inputs of shape ``(n, …)``."""
        activation = (
            getattr(nn, self.activation) if isinstance(self.activation, str) else self.activation
        )
        hidden = inputs.reshape(inputs.shape[0], -1)
        for width in self.hidden:
            hidden = activation(nn.Dense(width, dtype=self.dtype)(hidden))
        return nn.Dense(self.num_outputs, dtype=self.dtype)(hidden)


class LeNet300100(MLP):
    """LeNet-300-100 (LeCun et al. 1998): 784→300→100→10 with ReLU, 266,610 parameters on MNIST."""

    hidden: tuple[int, ...] = (300, 100)
