"""No key is used twice, or JAX would say so under ``JAX_DEBUG_KEY_REUSE=1``."""

import jax
import pytest

import probbnn as pb
from probbnn.samplers.base import untyped
from probbnn.samplers.registry import LINES

pytestmark = pytest.mark.usefixtures("quick_compilation")

QUICK = ("sghmc", "blackjax_sghmc")


@pytest.fixture
def strict():
    jax.config.update("jax_debug_key_reuse", True)
    yield
    jax.config.update("jax_debug_key_reuse", False)


@pytest.mark.parametrize(
    "method", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in LINES]
)
@pytest.mark.usefixtures("strict")
def test_every_key_is_used_once(classes, method):
    # A target of its own: a program that was compiled before is not looked at again.
    target = pb.LogDensity(pb.MLP(hidden=(2,), num_outputs=4), classes)
    settings = {"num_chains": 1, "num_steps": 40, "num_warmup": 30, "progress": False}
    if LINES[method].family == "approximation":
        settings |= {"num_draws": 3}
    if not pb.METHODS[method].full_data:
        settings |= {"batch_size": 10}
    draws = pb.sample(jax.random.key(0), target, method, **settings)
    assert draws.num_draws


def test_the_numbers_of_a_key_are_the_same_key():
    key = jax.random.key(3)
    numbers = untyped(key)
    assert jax.random.normal(key) == jax.random.normal(numbers)
    assert untyped(numbers) is numbers
    other = jax.random.key(3, impl="rbg")
    assert untyped(other) is other
