"""Log densities of networks with all kinds of parameter trees, for tests of every backend."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import probbnn as pb

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(23, 6, 6, 1), dtype=np.uint8)
LABELS = RNG.integers(4, size=23)
INPUTS = RNG.normal(size=(23, 3)).astype(np.float32)
ONE, TWO = (RNG.normal(size=shape).astype(np.float32) for shape in ((23,), (23, 2)))


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Conv(2, (3, 3), strides=2)(x))
        return nn.Dense(4)(x.reshape(len(x), -1))


class Tied(nnx.Module):
    """One layer used twice."""

    def __init__(self, rngs):
        self.first = nnx.Linear(3, 3, rngs=rngs)
        self.again = self.first
        self.last = nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, x):
        return self.last(nnx.tanh(self.again(nnx.tanh(self.first(x)))))


class Unusual(nnx.Module):
    """Lists, a key with a slash, scalars, and parameters called like the sites of the data."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs), nnx.Linear(3, 4, rngs=rngs)])
        self.named = nnx.Dict({"block/scale": nnx.Param(jnp.float32(0.7))})
        self.targets = nnx.Param(jnp.arange(4.0) / 4)
        self.examples = nnx.Param(jnp.float32(-0.3))

    def __call__(self, x):
        first, second = self.layers
        hidden = nnx.tanh(first(x) * self.named["block/scale"][...] + self.examples[...])
        return second(hidden) + self.targets[...]


NAMES_ALIKE = {"targets": 1.0, "targets.parameter": 2.0, "a/b": 3.0, "a.b": 4.0, "a": {"b": 5.0}}
PAIR_ALIKE = (
    lambda key, x: jax.tree.map(lambda c: c * jax.random.normal(key, (4,)), NAMES_ALIKE),
    lambda theta, x: (
        x.sum(axis=1, keepdims=True)
        * sum(c * leaf for c, leaf in enumerate(jax.tree.leaves(theta), 1))
    ),
)
PAIR_BARE = (
    lambda key, x: 0.1 * jax.random.normal(key, (3, 4)),
    lambda theta, x: x @ theta,
)
PER_LEAF = {"Dense_0": {"bias": 0.5, "kernel": 2.0}, "Dense_1": {"bias": 1.5, "kernel": 0.1}}


def small(**settings):
    return pb.MLP(hidden=(5,), activation="tanh", **settings)


def digits(size=50):
    train, _ = pb.load("digits")
    return train.images[:size], train.labels[:size]


class Laplacian(pb.Likelihood):
    """A likelihood of one's own that NumPyro knows nothing of."""

    def log_prob(self, outputs, targets):
        return -jnp.abs(outputs[:, 0] - targets) - jnp.log(2.0)

    def check(self, output_shape, targets):
        pass


TARGETS = {
    "images": lambda: pb.LogDensity(small(num_outputs=10), digits(), prior_scale=0.1),
    "Linen CNN": lambda: pb.LogDensity(CNN(), (IMAGES, LABELS), prior_scale=0.7),
    "NNX tied": lambda: pb.LogDensity(Tied, (INPUTS, LABELS)),
    "NNX unusual": lambda: pb.LogDensity(Unusual(nnx.Rngs(0)), (INPUTS, LABELS), prior_scale=2.0),
    "bare array": lambda: pb.LogDensity(PAIR_BARE, (INPUTS, LABELS)),
    "names alike": lambda: pb.LogDensity(PAIR_ALIKE, (INPUTS, LABELS)),
    "scale per leaf": lambda: pb.LogDensity(
        small(num_outputs=4), (INPUTS, LABELS), prior_scale=PER_LEAF
    ),
    "Gaussian (N,)": lambda: pb.LogDensity(
        small(num_outputs=1), (INPUTS, ONE), likelihood=pb.Gaussian(0.3)
    ),
    "Gaussian (N, k)": lambda: pb.LogDensity(
        small(num_outputs=2), (INPUTS, TWO), likelihood=pb.Gaussian(0.3)
    ),
    "LearnedGaussian (N,)": lambda: pb.LogDensity(
        small(num_outputs=1), (INPUTS, ONE), likelihood=pb.LearnedGaussian(0.8)
    ),
    "LearnedGaussian (N, k)": lambda: pb.LogDensity(
        small(num_outputs=2), (INPUTS, TWO), likelihood=pb.LearnedGaussian()
    ),
    "own likelihood": lambda: pb.LogDensity(
        small(num_outputs=1), (INPUTS, ONE), likelihood=Laplacian()
    ),
}
