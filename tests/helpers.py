"""Constants and functions that several test files use."""

import hashlib
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np

import probbnn as pb
from probbnn.data.sources import DeviceArrays
from probbnn.inference.plan import Plan
from probbnn.inference.runner import Run, advance, finish, init_run
from probbnn.inference.sample import as_kernel

NUM_EXAMPLES, NUM_INPUTS, NUM_CLASSES = 23, 3, 4


def random_draws(target, num_chains=3, num_draws=7, **fields):
    """Draws that no sampler made: each from the module's own initialiser."""
    keys = jax.random.split(jax.random.key(5), (num_chains, num_draws))
    positions = jax.tree.map(np.array, jax.vmap(jax.vmap(target.init))(keys))
    return pb.Draws(positions=positions, method="by hand", **fields)


class Examples(pb.Posterior):
    """Data, and no density: for kernels that bring their own."""

    def __init__(self, inputs, targets=None):
        inputs = jnp.asarray(inputs)
        super().__init__(DeviceArrays(inputs, inputs if targets is None else jnp.asarray(targets)))

    def init(self, rng_key):
        raise NotImplementedError

    logprior_fn = pointwise_loglikelihood_fn = init


def new_run(kernel, target, *, batch_size, num_steps, num_warmup=0, thinning=1, **settings):
    """A run of a kernel on the minibatches of a target."""
    plan = Plan(num_steps, num_warmup, thinning, settings.pop("phases", None))
    return Run(
        target, as_kernel(kernel), plan, batch_size, "a kernel", {}, key=object(), **settings
    )


def run_kernel(rng_key, kernel, target, positions, **settings):
    """Run a kernel to the end: its draws and its last state."""
    run = new_run(kernel, target, **settings)
    state = init_run(rng_key, run, positions)
    while not run.is_finished(state):
        state = advance(run, state)
    return finish(run, state), state


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
