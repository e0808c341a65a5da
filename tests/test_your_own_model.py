"""The models of docs/your-own-model.md run as they stand there; a trained ResNet's last block."""

import re
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import probbnn as pb

pytestmark = pytest.mark.usefixtures("quick_compilation")

PAGE = Path(__file__).resolve().parents[1] / "docs" / "your-own-model.md"
START, *BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def names():
    names = {}
    exec(compile(START, PAGE.name, "exec"), names)
    return names


def run(block, names):
    exec(compile(block, PAGE.name, "exec"), names)
    return names


def test_six_models_are_short_and_one_brings_its_likelihood():
    assert len(BLOCKS) == 7
    for block in BLOCKS[:6]:
        assert len([line for line in block.splitlines() if line.strip()]) <= 15


@pytest.mark.slow
def test_a_trained_network_with_a_bayesian_head(names):
    run(BLOCKS[0], names)
    assert set(names["draws"].positions) == {"head"}
    predictive = pb.predict(names["target"], names["draws"], names["test"])
    assert pb.evaluate(predictive, names["test"], num_resamples=2).accuracy.value > 0.9


def test_a_table_in_its_own_units(names):
    run(BLOCKS[1], names)
    evaluation = names["patients"].evaluate(names["progression"][300:], num_resamples=2)
    assert 45 < evaluation.rmse.value < 70
    assert 0.8 < evaluation.coverage_90.value < 0.97


def test_counts(names):
    run(BLOCKS[2], names)
    assert names["new"].shape == (4, 500, 300)
    evaluation = names["predictive"].evaluate(names["visits"], num_resamples=2)
    assert evaluation.pit_error.value < 0.1
    assert names["predictive"].quantile(0.9).dtype.kind == "i"


def test_one_logit(names):
    run(BLOCKS[3], names)
    assert names["target"].likelihood.classes == ("benign", "malignant")
    assert names["evaluation"].balanced_accuracy.value > 0.9


@pytest.mark.slow
def test_tokens(names):
    run(BLOCKS[4], names)
    kernel = names["draws"].positions["Dense_0"]["kernel"]
    assert kernel.std(axis=1).max() > 0
    # All other layers stay at their estimate.
    embedding = names["draws"].positions["Embed_0"]["embedding"]
    assert_array_equal(embedding, np.broadcast_to(embedding[:, :1], embedding.shape))


@pytest.mark.slow
def test_pixels(names):
    run(BLOCKS[5], names)
    assert names["predictive"].probs.shape == (50, 8, 8, 3)
    accuracy = pb.evaluate(names["predictive"], names["pixels"][200:250], num_resamples=2).accuracy
    assert accuracy.value > 0.8


def test_a_likelihood_of_ones_own(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names.setdefault("x", np.linspace(-2, 2, 50, dtype=np.float32)[:, None])
    run(BLOCKS[6], names)
    assert (tmp_path / "draws.npz").exists()


# A network as they come from elsewhere


class Block(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x, train):
        norm = lambda: nn.BatchNorm(use_running_average=not train)  # noqa: E731
        h = nn.Conv(self.width, (3, 3))(nn.relu(norm()(x)))
        return x + nn.Conv(self.width, (3, 3))(nn.relu(norm()(h)))


class ResNet(nn.Module):
    width: int = 4

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(self.width, (3, 3), name="stem")(x)
        for number in range(2):
            x = Block(self.width, name=f"block_{number}")(x, train)
        return nn.Dense(10, name="a_head")(x.mean(axis=(1, 2)))


@pytest.fixture(scope="module")
def pretrained():
    """Variables after some epochs of Adam, with running statistics."""
    train, test = pb.load("digits")
    images, labels = train.images[:500] / 255, train.labels[:500]
    variables = ResNet().init(jax.random.key(0), images[:1])
    optimiser = optax.adam(1e-2)

    @jax.jit
    def step(carry, _):
        params, state, opt = carry

        def loss(params):
            given = {"params": params, "batch_stats": state}
            logits, new = ResNet().apply(given, images, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), new["batch_stats"]

        grad, state = jax.grad(loss, has_aux=True)(params)
        updates, opt = optimiser.update(grad, opt)
        return (optax.apply_updates(params, updates), state, opt), None

    start = variables["params"], variables["batch_stats"], optimiser.init(variables["params"])
    (params, state, _), _ = jax.lax.scan(step, start, length=150)
    return {"params": params, "batch_stats": state}, train[:500], test[:200]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainable", "method", "settings"),
    [
        (["block_1", "a_head"], "sghmc", {"num_steps": 400, "step_size": 1e-4}),
        ("a_head", "laplace", {"num_steps": 1_000}),
        (None, "laplace", {"num_steps": 20}),
    ],
)
def test_the_last_block_of_a_trained_resnet_is_bayesian(pretrained, trainable, method, settings):
    """BatchNorm stays at its running statistics, the rest of the network at its parameters."""
    variables, train, test = pretrained
    target = pb.LogDensity(
        ResNet(), train, variables=variables, trainable=trainable, prior_scale=1.0
    )
    draws = pb.sample(
        jax.random.key(1),
        target,
        method,
        num_chains=2,
        batch_size=100,
        initial_positions=variables,
        progress=False,
        **settings,
    )
    assert set(draws.positions) == (
        set(variables["params"]) if trainable is None else set(np.atleast_1d(trainable))
    )
    plug_in = ResNet().apply(variables, test.images / 255, train=False)
    position = target.as_position(variables)
    assert_allclose(target.apply(position, test.images), plug_in, rtol=1e-3, atol=1e-3)
    predictive = pb.predict(target, draws, test)
    accuracy = np.mean(jnp.argmax(plug_in, axis=1) == test.labels)
    assert pb.evaluate(predictive, test, num_resamples=2).accuracy.value > accuracy - 0.05
    assert predictive.mutual_information.mean() > 1e-4
    if method == "laplace":
        spread = {
            k: max(x.std(axis=1).max() for x in jax.tree.leaves(v))
            for k, v in draws.positions.items()
        }
        assert {name for name, value in spread.items() if value > 1e-3} == {"a_head"}
