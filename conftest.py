"""Examples in docstrings, which are tests too: they spend their time compiling."""

import jax
import pytest


@pytest.fixture(autouse=True)
def quick_examples(request):
    """XLA leaves most of its optimisations out."""
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
