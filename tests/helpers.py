"""Constants and functions that several test files use."""

import hashlib
from collections import Counter

import jax
import numpy as np

import probbnn as pb

NUM_EXAMPLES, NUM_INPUTS, NUM_CLASSES = 23, 3, 4


def random_draws(target, num_chains=3, num_draws=7, **fields):
    """Draws that no sampler made: each from the module's own initialiser."""
    keys = jax.random.split(jax.random.key(5), (num_chains, num_draws))
    positions = jax.tree.map(np.array, jax.vmap(jax.vmap(target.init))(keys))
    return pb.Draws(positions=positions, method="by hand", **fields)


def toy_dataset(n=6, classes=3, shape=(4, 4, 1), seed=0):
    """Random images."""
    rng = np.random.default_rng(seed)
    return pb.Dataset(
        images=rng.integers(256, size=(n, *shape), dtype=np.uint8),
        labels=np.arange(n) % classes,
        classes=tuple("abcdefghij"[:classes]),
        name="toy",
        split="test",
    )


def multiset(images, labels):
    """Images with their labels, whatever their order."""
    return Counter(
        hashlib.sha256(image.tobytes() + bytes([label])).digest()
        for image, label in zip(images, labels, strict=True)
    )
