"""Samplers that bring their own loop: adaptive MCMC on all the data, variational fits, Laplace.

A `Kernel` takes one step on one minibatch. NUTS, MCLMC, HMCECS, SVI and Laplace tune themselves,
look at all the data, or draw after a fit. Each
is a `Sampler` instead, one traceable function from a key and a start to the draws of one chain.
`run_sampler` compiles it once and runs the chains side by side.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

__all__ = ["ChainDraws", "Length", "Sampler", "SamplerResult", "collect", "run_sampler"]


class Length(NamedTuple):
    """How long a chain is.

    Attributes:
        num_steps: steps of the method, warm-up included.
        num_warmup: first steps, from which nothing is kept.
        thinning: steps per kept draw.
        batch_size: examples per minibatch, for methods that take minibatches.
    """

    num_steps: int
    num_warmup: int
    thinning: int
    batch_size: int

    @property
    def num_draws(self) -> int:
        """Draws that are kept."""
        return (self.num_steps - self.num_warmup) // self.thinning


class ChainDraws(NamedTuple):
    """The draws of one chain.

    Attributes:
        positions: leaves of shape ``(draw, …)``.
        stats: per-draw statistics of shape ``(draw,)``, by ArviZ's names where it has one.
        num_examples: how many examples' gradients had been taken at each draw since the start,
            ``(draw,)``, in float32: N of them are a pass over the data.
    """

    positions: Any
    stats: dict[str, Any]
    num_examples: Any


class Sampler(NamedTuple):
    """A method that runs a whole chain.

    Attributes:
        chain: ``chain(length, rng_key, position) -> ChainDraws``, traceable in key and position.
        temperature: T of the law that it samples or approximates.
    """

    chain: Callable[[Length, jax.Array, Any], ChainDraws]
    temperature: float = 1.0


class SamplerResult(NamedTuple):
    """What `run_sampler` gives back, on the host.

    Attributes:
        draws: leaves of shape ``(chain, draw, …)``.
        seconds: wall time of the chains, compilation apart.
        compile_seconds: wall time of tracing and compilation.
    """

    draws: ChainDraws
    seconds: float
    compile_seconds: float


def run_sampler(
    rng_key: jax.Array,
    sampler: Sampler,
    positions: Any,
    length: Length,
    *,
    description: str | None = None,
) -> SamplerResult:
    """Run the chains of a sampler, as many at a time as there are processor cores.

    Side by side in threads, not under ``vmap``: vmapped NUTS waits for the deepest tree of all
    chains at each draw, and networks this small keep one core busy each.

    Args:
        rng_key: the only source of randomness.
        sampler: what to run.
        positions: starting positions, leaves of shape ``(chain, …)``.
        length: how long each chain is.
        description: what the progress bar is called; ``None`` shows no bar.
    """
    num_chains = len(jax.tree.leaves(positions)[0])
    keys = jax.random.split(rng_key, num_chains)
    starts = [
        jax.tree.map(lambda leaf, c=c: jnp.asarray(leaf[c]), positions) for c in range(num_chains)
    ]
    started = time.perf_counter()
    chain = jax.jit(partial(sampler.chain, length)).lower(keys[0], starts[0]).compile()
    compile_seconds = time.perf_counter() - started

    def run(number: int) -> ChainDraws:
        return jax.tree.map(np.asarray, chain(keys[number], starts[number]))

    started = time.perf_counter()
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        # tqdm shows nothing where stderr is no terminal (disable=None).
        tqdm(
            total=num_chains,
            desc=description,
            unit="chain",
            disable=True if description is None else None,
        ) as bar,
    ):
        futures = [pool.submit(run, number) for number in range(num_chains)]
        for _ in as_completed(futures):
            bar.update()
        draws = jax.tree.map(lambda *leaves: np.stack(leaves), *[f.result() for f in futures])
    return SamplerResult(draws, time.perf_counter() - started, compile_seconds)


def collect(
    step: Callable[[Any], tuple[Any, dict[str, jax.Array]]],
    state: Any,
    length: Length,
    position: Callable[[Any], Any],
    num_examples: jax.Array | float,
) -> ChainDraws:
    """Draw after warm-up, for use in a `Sampler`: every ``thinning``-th state of a Markov chain.

    Args:
        step: ``step(state) -> (state, stats)``; its ``stats["n_examples"]`` counts the examples
            whose gradients the step took, all others are kept at each draw.
        state: the state after warm-up.
        length: how long the chain is.
        position: the position in a state.
        num_examples: examples' gradients taken so far.
    """

    def one_draw(carry: tuple[Any, jax.Array], _: None) -> tuple[Any, Any]:
        def one_step(carry: tuple[Any, jax.Array], _: None) -> tuple[Any, Any]:
            state, count = carry
            state, stats = step(state)
            return (state, count + stats.pop("n_examples")), stats

        carry, stats = jax.lax.scan(one_step, carry, length=length.thinning)
        last = jax.tree.map(lambda stat: stat[-1], stats)
        return carry, (position(carry[0]), last, carry[1])

    carry = state, jnp.asarray(num_examples, jnp.float32)
    _, (positions, stats, counts) = jax.lax.scan(one_draw, carry, length=length.num_draws)
    return ChainDraws(positions, stats, counts)
