"""Runs chains: vmapped, scanned on the device in chunks, with progress and a guard.

Everything that a run carries is one pytree, `ChainsState`, and a run is `advance` applied to it
until the last step. Randomness is a function of (key, step number), so how the steps are cut into
chunks has no influence on the result.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.base import SamplingAlgorithm
from tqdm import tqdm

from probbnn.data import sources as minibatch
from probbnn.errors import InputError
from probbnn.samplers.base import Kernel

__all__ = ["ChainsResult", "ChainsState", "DivergenceError", "check_length", "run_chains"]

# A chunk is at most this many steps, about this many seconds, and its draws this many bytes.
_CHUNK_STEPS = 2_000
_CHUNK_SECONDS = 1.0
_CHUNK_BYTES = 16 * 2**20


class ChainsState(NamedTuple):
    """All that a run carries from step to step; chains are the leading axis.

    Attributes:
        step: number of steps taken, an int32 scalar that all chains share.
        rng_key: one key per chain, shape ``(chain,)``; step t uses it folded with t.
        kernel: the kernel's states.
        stream: the minibatch streams, or one stream where chains share their minibatches.
        nonfinite_step: first step at which a chain's log density or gradient was not finite,
            int32 of shape ``(chain,)``; −1 while there is none.
    """

    step: jax.Array
    rng_key: jax.Array
    kernel: Any
    stream: minibatch.MinibatchStream
    nonfinite_step: jax.Array


class ChainsResult(NamedTuple):
    """What a run gives back, on the host.

    Attributes:
        state: the final `ChainsState` (on the device).
        positions: the kept draws, NumPy leaves of shape ``(chain, draw, …)``.
        trace: the kernel's infos, NumPy leaves of shape ``(chain, step)``, every step.
        draw_steps: number of steps taken at each kept draw, shape ``(draw,)``.
        seconds: wall time of the steps, compilation apart.
        compile_seconds: wall time of tracing and compilation.
    """

    state: ChainsState
    positions: Any
    trace: Any
    draw_steps: np.ndarray
    seconds: float
    compile_seconds: float


class DivergenceError(RuntimeError):
    """Some chains left the finite numbers.

    Attributes:
        steps: the first bad step of each chain, −1 for chains that stayed finite.
        result: the `ChainsResult` up to the last chunk that was finite in all chains; its trace
            is ``None`` if that is none, and its state the one after the divergence. ``None`` for a
            `Sampler`, which runs whole chains.
    """

    def __init__(self, steps: np.ndarray, result: ChainsResult | None) -> None:
        bad = np.flatnonzero(steps >= 0)
        chains = ", ".join(f"chain {chain} at step {steps[chain]}" for chain in bad[:5])
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        super().__init__(
            f"{len(bad)} of {len(steps)} chains became non-finite ({chains}{more}); try a smaller "
            "step size, a larger batch, or starting positions of higher density"
        )
        self.steps = steps
        self.result = result


def run_chains(
    rng_key: jax.Array,
    algorithm: Kernel | SamplingAlgorithm,
    positions: Any,
    inputs: jax.Array,
    targets: jax.Array,
    *,
    batch_size: int,
    num_steps: int,
    num_warmup: int = 0,
    thinning: int = 1,
    sampling_phases: Sequence[tuple[int, int]] | None = None,
    shared_minibatches: bool = False,
    callback: Callable[[int, Any], None] | None = None,
    callback_steps: Sequence[int] = (),
    description: str | None = None,
) -> ChainsResult:
    """Run one kernel in parallel chains on minibatches of the data.

    Args:
        rng_key: the only source of randomness.
        algorithm: ``init(position)`` and ``step(rng_key, state, minibatch) -> (state, info)``.
        positions: starting positions, leaves of shape ``(chain, …)``.
        inputs: data on the device, shape ``(N, …)``.
        targets: shape ``(N, …)``.
        batch_size: examples per minibatch.
        num_steps: number of steps in all, warm-up included.
        num_warmup: number of first steps from which no draw is kept.
        thinning: steps from one kept draw to the next, after warm-up.
        sampling_phases: keep draws only in these phases, given by the number of steps taken at
            their start and end, in order; ``None``: from warm-up to the end.
        shared_minibatches: all chains see the same minibatch at each step. It is cheaper, and
            correlates the chains: R-hat cannot see it.
        callback: called as ``callback(step, positions)`` after the steps in ``callback_steps``.
        callback_steps: see ``callback``; steps are counted from 1.
        description: what the progress bar is called; ``None`` shows no bar.

    Raises:
        InputError: if the numbers do not fit each other or the data.
        DivergenceError: within one chunk of a chain's becoming non-finite.
    """
    phases = _phases(num_steps, num_warmup, thinning, sampling_phases)
    num_chains = len(jax.tree.leaves(positions)[0])
    chains_key, stream_key = jax.random.split(rng_key)
    if shared_minibatches:
        stream = minibatch.init(stream_key, len(inputs), batch_size)
    else:
        stream = jax.vmap(partial(minibatch.init, data_size=len(inputs), batch_size=batch_size))(
            jax.random.split(stream_key, num_chains)
        )
    state = ChainsState(
        step=jnp.zeros((), jnp.int32),
        rng_key=jax.random.split(chains_key, num_chains),
        # A copy, because `advance` is given the state's memory and the caller keeps theirs.
        kernel=jax.vmap(algorithm.init)(jax.tree.map(jnp.array, positions)),
        stream=stream,
        nonfinite_step=jnp.full(num_chains, -1, jnp.int32),
    )
    plan = _Plan(num_steps, phases, thinning, sorted(callback_steps), _nbytes(positions))
    started = time.perf_counter()
    advance = (
        jax.jit(partial(_advance, algorithm, shared_minibatches, plan.capacity), donate_argnums=0)
        .lower(state, inputs, targets, 1, 1)
        .compile()
    )
    compile_seconds = time.perf_counter() - started

    result = ChainsResult(
        state=state,
        positions=_host_buffer(state.kernel.position, len(plan.draw_steps)),
        trace=None,
        draw_steps=plan.draw_steps,
        seconds=0.0,
        compile_seconds=compile_seconds,
    )
    return _run(result, advance, inputs, targets, plan, callback, description)


def _run(
    result: ChainsResult,
    advance: Callable,
    inputs: jax.Array,
    targets: jax.Array,
    plan: "_Plan",
    callback: Callable[[int, Any], None] | None,
    description: str | None,
) -> ChainsResult:
    state, step, num_draws, rate = result.state, 0, 0, 0.0
    traces: list[Any] = []
    started, paused = time.perf_counter(), 0.0

    def so_far() -> ChainsResult:
        join = partial(jax.tree.map, lambda *parts: np.concatenate(parts, axis=1))
        return result._replace(
            state=state,
            positions=jax.tree.map(lambda leaf: leaf[:, :num_draws], result.positions),
            trace=join(*traces) if traces else None,
            draw_steps=result.draw_steps[:num_draws],
            seconds=time.perf_counter() - started - paused,
        )

    # tqdm shows nothing where stderr is no terminal (disable=None).
    hidden = True if description is None else None
    with tqdm(total=plan.num_steps, desc=description, unit="step", disable=hidden) as bar:
        while step < plan.num_steps:
            count, interval = plan.next_chunk(step, rate)
            chunk_started = time.perf_counter()
            state, draws, infos = advance(state, inputs, targets, count, interval)
            nonfinite = np.asarray(state.nonfinite_step)
            if (nonfinite >= 0).any():
                raise DivergenceError(nonfinite, so_far())
            length = count * interval
            rate = length / (time.perf_counter() - chunk_started)
            step += length
            traces.append(jax.tree.map(lambda leaf, n=length: np.array(leaf[:n]).T, infos))
            if plan.keeps(step):
                _store(result.positions, draws, num_draws, count)
                num_draws += count
            bar.set_postfix_str(f"log density {np.mean(traces[-1].logdensity[:, -1]):.5g}", False)
            bar.update(length)
            if callback is not None and step in plan.callback_steps:
                callback_started = time.perf_counter()
                # A copy, because the next chunk is given the state's memory.
                callback(step, jax.tree.map(jnp.copy, state.kernel.position))
                paused += time.perf_counter() - callback_started
    return so_far()


class _Plan(NamedTuple):
    """Which steps to run between two visits to the host."""

    num_steps: int
    phases: Sequence[tuple[int, int]]
    thinning: int
    callback_steps: Sequence[int]
    draw_bytes: int

    @property
    def draw_steps(self) -> np.ndarray:
        """Numbers of steps taken at each draw: every ``thinning`` steps of each phase."""
        return np.concatenate(
            [np.arange(start + self.thinning, end + 1, self.thinning) for start, end in self.phases]
        )

    @property
    def capacity(self) -> tuple[int, int]:
        """The largest chunk: steps, and draws."""
        steps = min(_CHUNK_STEPS, self.num_steps)
        draws = min(steps // self.thinning, _CHUNK_BYTES // max(self.draw_bytes, 1))
        return steps, max(draws, 1)

    def keeps(self, step: int) -> bool:
        """Whether the position after ``step`` steps is a draw."""
        return any(
            start < step <= end and (step - start) % self.thinning == 0
            for start, end in self.phases
        )

    def next_chunk(self, step: int, rate: float) -> tuple[int, int]:
        """(count, interval): run ``count`` intervals and record the position after each.

        ``rate`` is in steps per second, 0 when nothing is known yet.
        """
        max_steps, max_draws = self.capacity
        max_steps = min(max_steps, max(1, int(rate * _CHUNK_SECONDS)))
        boundaries = [boundary for phase in self.phases for boundary in phase]
        stops = [s for s in (*boundaries, *self.callback_steps, self.num_steps) if s > step]
        left = min(stops) - step
        start = next((start for start, end in self.phases if start <= step < end), None)
        if start is None:
            return 1, min(left, max_steps)
        to_next_draw = self.thinning - (step - start) % self.thinning
        if to_next_draw == self.thinning and min(left, max_steps) >= self.thinning:
            return min(left // self.thinning, max_steps // self.thinning, max_draws), self.thinning
        return 1, min(left, max_steps, to_next_draw)


def _advance(
    algorithm: Kernel | SamplingAlgorithm,
    shared_minibatches: bool,
    capacity: tuple[int, int],
    state: ChainsState,
    inputs: jax.Array,
    targets: jax.Array,
    count: jax.Array,
    interval: jax.Array,
) -> tuple[ChainsState, Any, Any]:
    """``count`` × ``interval`` steps: the state, the position after each interval, the infos.

    Both numbers are dynamic, so one compilation serves all chunks; the outputs are buffers of the
    size ``capacity``, filled from the front.
    """
    stream_axis = None if shared_minibatches else 0
    max_steps, max_draws = capacity
    first_step = state.step

    def draw_minibatch(stream: Any, step: jax.Array) -> Any:
        return minibatch.next_minibatch(stream, step, inputs, targets)

    def one_step(state: ChainsState) -> tuple[ChainsState, Any]:
        if shared_minibatches:
            stream, batch = draw_minibatch(state.stream, state.step)
        else:
            stream, batch = jax.vmap(draw_minibatch, (0, None))(state.stream, state.step)
        keys = jax.vmap(jax.random.fold_in, (0, None))(state.rng_key, state.step)
        kernel, info = jax.vmap(algorithm.step, (0, 0, stream_axis))(keys, state.kernel, batch)
        finite = jnp.isfinite(info.logdensity) & jnp.isfinite(info.grad_norm)
        first_bad = ~finite & (state.nonfinite_step < 0)
        return (
            state._replace(
                step=state.step + 1,
                kernel=kernel,
                stream=stream,
                nonfinite_step=jnp.where(first_bad, state.step, state.nonfinite_step),
            ),
            info,
        )

    def inner(_: Any, carry: tuple[ChainsState, Any]) -> tuple[ChainsState, Any]:
        state, infos = carry
        index = state.step - first_step
        state, info = one_step(state)
        return state, jax.tree.map(lambda buffer, x: buffer.at[index].set(x), infos, info)

    def outer(i: Any, carry: tuple[ChainsState, Any, Any]) -> tuple[ChainsState, Any, Any]:
        state, draws, infos = carry
        state, infos = jax.lax.fori_loop(0, interval, inner, (state, infos))
        draws = jax.tree.map(lambda buffer, x: buffer.at[i].set(x), draws, state.kernel.position)
        return state, draws, infos

    def empty(length: int, like: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.zeros((length, *leaf.shape), leaf.dtype), like)

    info_shapes = jax.eval_shape(one_step, state)[1]
    buffers = empty(max_draws, state.kernel.position), empty(max_steps, info_shapes)
    state, draws, infos = jax.lax.fori_loop(0, count, outer, (state, *buffers))
    # A step is judged by what the next one sees at its position; the chunk's last one, here.
    bad = ~jax.vmap(_all_finite)(state.kernel.position) & (state.nonfinite_step < 0)
    nonfinite_step = jnp.where(bad, state.step - 1, state.nonfinite_step)
    return state._replace(nonfinite_step=nonfinite_step), draws, infos


def _all_finite(position: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(position)]))


def _host_buffer(positions: Any, num_draws: int) -> Any:
    """Room for the draws, leaves of shape ``(chain, draw, …)``."""
    return jax.tree.map(
        lambda leaf: np.empty((leaf.shape[0], num_draws, *leaf.shape[1:]), leaf.dtype), positions
    )


def _store(host: Any, draws: Any, start: int, count: int) -> None:
    """Copy ``count`` draws, ``(draw, chain, …)``, behind the first ``start`` of the host's."""

    def copy(buffer: np.ndarray, leaf: jax.Array) -> None:
        buffer[:, start : start + count] = np.asarray(leaf[:count]).swapaxes(0, 1)

    jax.tree.map(copy, host, draws)


def _nbytes(tree: Any) -> int:
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def check_length(num_steps: int, num_warmup: int, thinning: int) -> None:
    """Raise `InputError` unless so many steps leave a draw after warm-up."""
    if num_steps < 1 or thinning < 1:
        raise InputError(
            f"num_steps is {num_steps} and thinning {thinning}; both must be at least 1"
        )
    if not 0 <= num_warmup <= num_steps - thinning:
        raise InputError(
            f"num_warmup is {num_warmup} of {num_steps} steps with thinning {thinning}; it must "
            f"leave at least one draw, so it can be 0 to {num_steps - thinning}"
        )


def _phases(
    num_steps: int,
    num_warmup: int,
    thinning: int,
    sampling_phases: Sequence[tuple[int, int]] | None,
) -> list[tuple[int, int]]:
    """The phases in which draws are kept, none of them before the end of warm-up."""
    check_length(num_steps, num_warmup, thinning)
    if sampling_phases is None:
        return [(num_warmup, num_steps)]
    phases = [(max(start, num_warmup), end) for start, end in sampling_phases]
    phases = [(start, end) for start, end in phases if end - start >= thinning]
    if not phases:
        raise InputError(
            f"no phase of {num_steps} steps samples for {thinning} steps, one draw's worth, after "
            f"a warm-up of {num_warmup}; take more steps, shorter cycles or less thinning"
        )
    return phases
