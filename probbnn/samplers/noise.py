"""Standard normal noise for every parameter at every step, at a fraction of the usual price."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32

__all__ = ["normal_like"]


def normal_like(rng_key: jax.Array, position: Any) -> Any:
    """Independent N(0, 1) variates with the structure, shapes and dtypes of ``position``.

    For float32 parameters and JAX's default keys the bits are one Threefry-2x32 hash (Salmon et
    al. 2011) of a counter that runs through all leaves, both output words used, mapped through
    the inverse normal distribution function. `jax.random.normal` hashes twice as many words, to
    make its stream independent of how it is sharded, and starts anew at each leaf. Other dtypes
    and other key implementations go through `jax.random.normal`.
    """
    leaves, structure = jax.tree.flatten(position)
    key_data = jax.random.key_data(rng_key)
    if key_data.shape != (2,) or any(leaf.dtype != jnp.float32 for leaf in leaves):
        keys = jax.random.split(rng_key, len(leaves))
        return jax.tree.unflatten(
            structure,
            [
                jax.random.normal(key, leaf.shape, leaf.dtype)
                for key, leaf in zip(keys, leaves, strict=True)
            ],
        )
    size = sum(leaf.size for leaf in leaves)
    words = threefry_2x32(key_data, jnp.arange(size + size % 2, dtype=jnp.uint32))
    ends = np.cumsum([leaf.size for leaf in leaves])
    return jax.tree.unflatten(
        structure,
        [
            _as_normal(words[end - leaf.size : end]).reshape(leaf.shape)
            for end, leaf in zip(ends, leaves, strict=True)
        ],
    )


def _as_normal(words: jax.Array) -> jax.Array:
    """N(0, 1) variates from random 32-bit words."""
    # 23 random bits make the mantissa of a float in [1, 2); the uniform lies within (-1, 1).
    mantissa = jax.lax.bitcast_convert_type((words >> 9) | jnp.uint32(0x3F800000), jnp.float32)
    uniform = 2 * (mantissa - 1) - np.float32(1 - 2**-23)
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)
