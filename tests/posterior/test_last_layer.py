"""The layer whose output is the network's is found, whatever layers are called and joined by."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from targets import INPUTS, LABELS, TARGETS

import probbnn as pb
from probbnn.posterior.last_layer import last_layers

pytestmark = pytest.mark.usefixtures("quick_compilation")

TOKENS = np.random.default_rng(0).integers(7, size=(23, 6)).astype(np.int32)


class Named(nn.Module):
    first: str = "features"
    last: str = "classifier"

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4, name=self.last)(nn.tanh(nn.Dense(6, name=self.first)(x)))


class OutThenProj(nnx.Module):
    def __init__(self, rngs):
        self.out, self.proj = nnx.Linear(3, 5, rngs=rngs), nnx.Linear(5, 4, rngs=rngs)

    def __call__(self, x):
        return self.proj(nnx.gelu(self.out(x)))


class ProjThenOut(nnx.Module):
    def __init__(self, rngs):
        self.proj, self.out = nnx.Linear(3, 5, rngs=rngs), nnx.Linear(5, 4, rngs=rngs)

    def __call__(self, x):
        return self.out(nnx.gelu(self.proj(x)))


class Heads(nn.Module):
    """Two heads on a trunk, with a name behind theirs."""

    @nn.compact
    def __call__(self, x):
        hidden = nn.relu(nn.Dense(5, name="trunk")(x))
        return {"mean": nn.Dense(1, name="a")(hidden), "log_std": nn.Dense(1, name="b")(hidden)}


class Residual(nn.Module):
    """The last block has a way around it, and a normalisation behind."""

    @nn.compact
    def __call__(self, x):
        hidden = nn.relu(nn.Dense(4, name="z")(x))
        return nn.LayerNorm(name="norm")(hidden + nn.Dense(4, name="a")(hidden))


class TiedEmbedding(nn.Module):
    @nn.compact
    def __call__(self, x):
        embedding = nn.Embed(7, 4, name="embedding")
        return embedding.attend(nn.Dense(4, name="a")(embedding(x).mean(axis=1)))


class Attention(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = nn.Embed(7, 4, name="z")(x)
        hidden = nn.LayerNorm()(hidden + nn.MultiHeadDotProductAttention(2, name="y")(hidden))
        return nn.Dense(4, name="a")(hidden.mean(axis=1))


class Block(nn.Module):
    @nn.compact
    def __call__(self, hidden, _):
        return nn.relu(nn.Dense(3)(hidden)), None


class Scanned(nn.Module):
    """Layers in a loop, and a last one that is recomputed under differentiation."""

    @nn.compact
    def __call__(self, x):
        loop = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return nn.remat(nn.Dense)(4, name="a")(loop(name="z")(x, None)[0])


class Recurrent(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = nn.RNN(nn.GRUCell(5, name="cell"))(nn.Embed(7, 8, name="z")(x))
        return nn.Dense(4, name="a")(hidden[:, -1])


def found(target):
    one = jax.tree.map(lambda leaf: leaf[:1], target.data.gather(slice(1)).inputs)
    return set(last_layers(target.network.apply, target.split(target.shapes).network, one))


@pytest.mark.parametrize(
    ("module", "inputs", "last"),
    [
        (Named(), INPUTS, {"classifier"}),
        (Named("trunk", "head"), INPUTS, {"head"}),
        (Named("hidden", "fc"), INPUTS, {"fc"}),
        (Named("encoder", "classifier"), INPUTS, {"classifier"}),
        (pb.MLP(hidden=(2,) * 10, num_outputs=4), INPUTS, {"Dense_10"}),  # by number
        (ProjThenOut, INPUTS, {"out"}),
        (OutThenProj, INPUTS, {"proj"}),
        (Residual(), INPUTS, {"a"}),
        (TiedEmbedding(), TOKENS, {"embedding"}),
        (Attention(), TOKENS, {"a"}),
        (Scanned(), INPUTS, {"a"}),
        (Recurrent(), TOKENS, {"a"}),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_the_last_layer_is_the_one_whose_output_is_the_networks(module, inputs, last):
    if jax.config.jax_enable_x64 and isinstance(module, Scanned | Recurrent):
        pytest.skip("Flax carries float32 through a loop of float64")
    num_outputs = 7 if isinstance(module, TiedEmbedding) else 4
    assert found(pb.LogDensity(module, (inputs, LABELS % num_outputs))) == last


def test_heads_side_by_side_are_both_last():
    data = INPUTS, INPUTS[:, 0]
    target = pb.LogDensity(Heads(), data, likelihood=pb.HeteroscedasticGaussian())
    assert found(target) == {"a", "b"}


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("Linen CNN", {"Dense_0"}),
        ("NNX tied", {"last"}),
        ("NNX unusual", {"layers.1"}),
        ("bare array", {"parameters"}),
        ("LearnedGaussian (N, k)", {"Dense_1"}),
        ("names alike", set()),
    ],
)
def test_any_tree_of_parameters_is_gone_through(name, last):
    assert found(TARGETS[name]()) == last


def test_a_scale_behind_the_last_matrix_is_no_layer(classes):
    pair = (
        lambda key, x: {"dense": {"w": jnp.ones((3, 4))}, "scale": jnp.ones(4)},
        lambda theta, x: x @ theta["dense"]["w"] * theta["scale"],
    )
    assert found(pb.LogDensity(pair, classes)) == {"dense"}


@pytest.mark.parametrize(
    ("layer", "varying"),
    [(None, "classifier"), ("features", "features"), ("feat*", "features")],
)
def test_laplace_is_around_that_layer_or_the_one_that_is_named(classes, layer, varying):
    """A layer called features before one called classifier, which is before it by name."""
    draws = pb.sample(
        jax.random.key(0),
        pb.LogDensity(Named(), classes, prior_scale=0.2),
        "laplace",
        num_chains=1,
        num_steps=2_000,
        step_size=1e-2,
        num_draws=20,
        layer=layer,
        progress=False,
    )
    spread = {name: leaf["kernel"].std(axis=1).max() for name, leaf in draws.positions.items()}
    assert spread.pop(varying) > 0.01
    assert max(spread.values()) < 1e-5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "clasifier"}, "'clasifier', which is none of .*; did you mean 'classifier'?"),
        ({"layer": "classifier", "covariance": "diagonal"}, "'diagonal', which is of all layers"),
    ],
)
def test_a_layer_that_is_none_is_one_line(classes, settings, message):
    with pytest.raises(pb.InputError, match=message) as caught:
        pb.sample(jax.random.key(0), pb.LogDensity(Named(), classes), "laplace", **settings)
    assert "\n" not in str(caught.value)
