"""Constants and functions that several test files use."""

import jax
import numpy as np

import probbnn as pb

NUM_EXAMPLES, NUM_INPUTS, NUM_CLASSES = 23, 3, 4


def random_draws(target, num_chains=3, num_draws=7, **fields):
    """Draws that no sampler made: each from the module's own initialiser."""
    keys = jax.random.split(jax.random.key(5), (num_chains, num_draws))
    positions = jax.tree.map(np.array, jax.vmap(jax.vmap(target.init))(keys))
    return pb.Draws(positions=positions, method="by hand", **fields)
