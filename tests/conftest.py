"""What several test files share: tiny data, targets and draws, built once."""

import gc
import os
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import NUM_CLASSES, NUM_EXAMPLES, NUM_INPUTS, random_draws

import probbnn as pb

_CACHE = pytest.StashKey[tempfile.TemporaryDirectory]()


def pytest_configure(config):
    """One cache of compiled programs for all workers and for the processes that tests start.

    That of the environment, which outlives the tests, or a new one.
    """
    if not hasattr(config, "workerinput"):
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            folder = config.stash[_CACHE] = tempfile.TemporaryDirectory(prefix="probbnn-tests-")
            os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ |= {
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
        }


def pytest_unconfigure(config):
    if _CACHE in config.stash:
        config.stash[_CACHE].cleanup()


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Drops compiled programs before there are too many: Linux maps 65,530 pieces of memory."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def classes():
    """Inputs and labels in numbers that no round batch size divides."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(NUM_EXAMPLES, NUM_INPUTS)).astype(np.float32)
    return inputs, rng.integers(NUM_CLASSES, size=NUM_EXAMPLES)


@pytest.fixture(scope="session")
def values(classes):
    inputs, _ = classes
    noise = np.random.default_rng(1).normal(size=NUM_EXAMPLES)
    return inputs, (inputs @ [1.0, -2.0, 0.5] + 0.3 * noise).astype(np.float32)


@pytest.fixture(scope="session")
def target(classes):
    return pb.LogDensity(pb.MLP(hidden=(5,), num_outputs=NUM_CLASSES), classes, prior_scale=0.7)


@pytest.fixture(scope="session")
def regression(values):
    module = pb.MLP(hidden=(5,), num_outputs=1)
    return pb.LogDensity(module, values, likelihood=pb.Gaussian(0.3), prior_scale=0.7)


@pytest.fixture(scope="session")
def draws(target):
    return random_draws(target)


@pytest.fixture(scope="session")
def regression_draws(regression):
    return random_draws(regression)


@pytest.fixture(scope="session")
def sampled(target):
    """A short run of SGLD, as a user would start it."""
    return pb.sample(
        jax.random.key(0),
        target,
        "sgld",
        num_chains=2,
        num_steps=20,
        num_warmup=6,
        thinning=3,
        batch_size=5,
        temperature=2.0,
        progress=False,
    )


@pytest.fixture(scope="session")
def linear_regression(values):
    """Conjugate: a Gaussian posterior with a closed form."""
    return pb.LogDensity(
        (lambda key, inputs: jnp.zeros(3), lambda theta, inputs: inputs @ theta),
        values,
        likelihood=pb.Gaussian(0.3),
        prior_scale=0.7,
    )


@pytest.fixture(scope="module")
def quick_compilation():
    """For test files that spend their time compiling: XLA leaves most of its optimisations out."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
