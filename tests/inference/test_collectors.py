"""Collectors: what they keep of stored draws, and of a chain on its way, is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Examples
from numpy.testing import assert_allclose, assert_array_equal

import probbnn as pb
from probbnn.inference import collectors
from probbnn.inference.collectors import Averages, LogMeanExp, at_each_draw, fold
from probbnn.types import Clock

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
VALUES = (1e3 + RNG.normal(size=(3, 40, 2))).astype(np.float32)
DRAWS = pb.Draws(VALUES, "by hand")
TARGET = Examples(np.zeros(1))


def summary(scale, x):
    return pb.Summary({"scaled": scale * x}, x)


def by_chain(collector):
    """As a run would: each chain with a carry of its own."""

    def one(chain):
        carry = collector.init(chain[0], None)
        for number in range(len(chain)):
            clock = Clock(jnp.asarray(number), jnp.asarray(number), jnp.asarray(True))
            carry = collector.observe(carry, None, clock)
            carry = collector.update(carry, chain[number], clock)
        return carry

    return collector.finish(jax.jit(jax.vmap(one))(VALUES))


@pytest.mark.parametrize("block", [1, 7, 64, 1_000])
def test_averages_are_numpys_for_blocks_of_any_size(monkeypatch, block):
    monkeypatch.setattr(collectors, "_BLOCK_DRAWS", block)
    mean, variance, size = fold(TARGET, Averages(summary, (2.0,)), DRAWS)
    exact = VALUES.astype(float)
    assert size == 120
    assert_allclose(mean.spread, exact.mean(axis=(0, 1)), rtol=1e-9)
    assert_allclose(mean.averaged["scaled"], 2 * exact.mean(axis=(0, 1)), rtol=1e-9)
    assert_allclose(variance, exact.var(axis=(0, 1)), rtol=1e-4)


def test_chains_on_their_way_give_what_stored_draws_give():
    """Variances between chains count, and so do means far from zero."""
    shifted = Averages(lambda x: pb.Summary((), x))
    mean, variance, size = by_chain(shifted)
    again, also, number = fold(TARGET, shifted, DRAWS)
    assert size == number == 120
    assert_allclose(mean.spread, again.spread, rtol=1e-9)
    assert_allclose(variance, also, rtol=1e-4)
    apart = Averages(lambda x: pb.Summary((), jnp.where(x > 1e3, 5.0, 1.0) + 0 * x))
    assert_allclose(by_chain(apart)[1], fold(TARGET, apart, DRAWS)[1], rtol=1e-5)


def test_many_draws_lose_no_digits():
    """A naive sum of 20,000 float32 numbers near 1,000 is off in the fifth digit."""
    many = pb.Draws(np.tile(VALUES[:1], (1, 500, 1)), "by hand")
    mean, _, _ = fold(TARGET, Averages(summary, (1.0,)), many)
    assert_allclose(mean.averaged["scaled"], VALUES[0].mean(axis=0, dtype=float), rtol=2e-8)


def test_log_of_a_mean_of_exponentials():
    collector = LogMeanExp(lambda x: -x)
    exact = np.log(np.mean(np.exp(-(VALUES.astype(float) - 1e3)), axis=(0, 1))) - 1e3
    assert_allclose(fold(TARGET, collector, DRAWS), exact, rtol=1e-6)
    assert_allclose(by_chain(collector), exact, rtol=1e-6)


def test_what_is_computed_of_each_draw_is_in_their_order():
    values = at_each_draw(TARGET, lambda a, x: {"first": a * x[0]}, (2.0,), DRAWS)["first"]
    assert_array_equal(values, 2 * VALUES[..., 0])
    assert_array_equal(at_each_draw(None, lambda x: x, (), DRAWS), VALUES)
