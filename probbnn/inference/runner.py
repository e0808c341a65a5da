"""Runs chains: scanned on the device in chunks, vectorised or side by side, with a guard.

    state = init_run(rng_key, run, positions)
    while not run.is_finished(state):
        state = advance(run, state)
    draws = finish(run, state)

All that a run carries is one pytree, `RunState`; what stays the same is a `Run`. Randomness is a
function of (key, step number), so how the steps are cut into chunks has no influence on the result,
and a run goes on from any of its states.
"""

import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.data.sources import check_batch_size
from probbnn.inference.collectors import Statistics, positions_of
from probbnn.inference.draws import Draws
from probbnn.inference.plan import Plan
from probbnn.machine import num_cores
from probbnn.posterior.base import Posterior
from probbnn.samplers.base import ChainMethod, Kernel
from probbnn.types import Batch, Clock, Collector, DataSource, Position, PRNGKey, PyTree, Stream

__all__ = ["DivergenceError", "Run", "RunState", "advance", "finish", "init_run"]

# Points of a trace at most.
_TRACE_POINTS = 1_000
# Fields of a `RunState` that are on the device: what compiled programs take and give.
_ON_DEVICE = 6
# Folded into a chain's key for its start: the number of no step that a run could come to.
_INIT = 2**32 - 1


@dataclass(frozen=True, eq=False)
class Run:
    """What stays the same in a run.

    Attributes:
        target: what is sampled; its data source gives the minibatches.
        kernel: what moves a chain.
        plan: which steps are taken and kept.
        batch_size: examples per minibatch.
        name: what the kernel is called.
        settings: what goes on record.
        shared_minibatches: all chains see the same minibatches.
        chain_method: how chains run: ``"vectorized"``, all as one batch, or ``"parallel"``, each
            in a thread, as many at a time as there are cores for this process.
        key: of the kernel's compiled programs, which another run with the same key uses again;
            default: the kernel itself.
        more: what the run keeps beside positions and statistics, by name.
    """

    target: Posterior
    kernel: Kernel
    plan: Plan
    batch_size: int
    name: str
    settings: dict[str, Any]
    shared_minibatches: bool = False
    chain_method: ChainMethod = "vectorized"
    key: Hashable = None
    more: Mapping[str, Collector] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_batch_size(self.target.data_size, self.batch_size)

    @property
    def collectors(self) -> dict[str, Collector]:
        """What the run keeps, by name."""
        plan = self.plan
        num_draws = len(plan.draw_steps)
        return {
            "positions": positions_of(num_draws),
            "statistics": Statistics(
                num_draws,
                plan.num_steps,
                _stride(self),
                self.kernel.looks_ahead,
            ),
            **self.more,
        }

    def is_finished(self, state: "RunState") -> bool:
        """Whether all steps have been taken."""
        return int(state.clock.step) == self.plan.num_steps


class RunState(NamedTuple):
    """All that a run carries from step to step; chains are the leading axis.

    Attributes:
        clock: numbers of steps and draws, which all chains share.
        rng_key: one key per chain, shape ``(chain,)``; step t uses it folded with t.
        kernel: the kernel's states.
        stream: the streams of minibatches, one where chains share it, ``()`` without minibatches.
        collected: the carries of the collectors, by name.
        nonfinite_step: first step at which a chain's log density or gradient was not finite,
            int32 of shape ``(chain,)``; −1 while there is none.
        rate: steps per second of the last chunk.
        seconds: wall time of the steps so far, compilation apart.
        compile_seconds: wall time of tracing and compilation so far.
    """

    clock: Clock
    rng_key: PRNGKey
    kernel: PyTree
    stream: Stream
    collected: dict[str, PyTree]
    nonfinite_step: jax.Array
    rate: float = 0.0
    seconds: float = 0.0
    compile_seconds: float = 0.0

    @property
    def positions(self) -> Position:
        """Where the chains are, leaves of shape ``(chain, …)``."""
        return self.kernel.position


class DivergenceError(RuntimeError):
    """Some chains left the finite numbers.

    Attributes:
        steps: the first bad step of each chain, −1 for chains that stayed finite.
        draws: the `Draws` that all chains kept before the first of these steps.
    """

    def __init__(self, steps: np.ndarray, draws: Draws) -> None:
        bad = np.flatnonzero(steps >= 0)
        chains = ", ".join(f"chain {chain} at step {steps[chain]}" for chain in bad[:5])
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        super().__init__(
            f"{len(bad)} of {len(steps)} chains became non-finite ({chains}{more}); try a smaller "
            "step size, a larger batch, or starting positions of higher density"
        )
        self.steps = steps
        self.draws = draws


def init_run(rng_key: PRNGKey, run: Run, positions: Position) -> RunState:
    """The state before the first step.

    Args:
        rng_key: the only source of randomness.
        run: what is to run.
        positions: starting positions, leaves of shape ``(chain, …)``; they are left alone.
    """
    num_chains = len(jax.tree.leaves(positions)[0])
    chains_key, stream_key = jax.random.split(rng_key)
    keys = jax.random.split(chains_key, num_chains)
    init_stream = partial(run.target.data.init, batch_size=run.batch_size)
    if run.kernel.full_data:
        stream: Stream = ()
    elif run.shared_minibatches:
        stream = init_stream(stream_key)
    else:
        stream = jax.vmap(init_stream)(jax.random.split(stream_key, num_chains))
    # A copy, because `advance` is given the state's memory and the caller keeps theirs.
    positions = jax.tree.map(jnp.array, positions)

    def init(positions: Position, keys: PRNGKey) -> tuple[PyTree, dict[str, PyTree]]:
        init_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, _INIT)
        kernel = jax.vmap(run.kernel.init)(positions, init_keys)
        return kernel, jax.vmap(partial(_init_collectors, run))(kernel)

    program, compile_seconds = _compiled(run, "init", init, positions, keys)
    started = time.perf_counter()
    kernel, collected = jax.block_until_ready(program(positions, keys))
    state = RunState(
        clock=Clock(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), jnp.zeros((), bool)),
        rng_key=keys,
        # Copies again: two leaves of a start may be one array, which can be given away only once.
        kernel=jax.tree.map(jnp.array, kernel),
        stream=stream,
        collected=collected,
        nonfinite_step=jnp.full(num_chains, -1, jnp.int32),
        seconds=time.perf_counter() - started,
        compile_seconds=compile_seconds,
    )
    return _settle(run, state) if run.plan.num_warmup == 0 else state


def advance(run: Run, state: RunState) -> RunState:
    """The state after some more steps: a second's worth, or up to where the plan has a stop.

    The arrays of ``state`` are used up.

    Raises:
        DivergenceError: when a chain has become non-finite in these steps.
    """
    step = int(state.clock.step)
    count, interval = run.plan.next_chunk(step, state.rate)
    keeps = run.plan.keeps(step + interval)
    # One program serves all steps of a kernel that has nothing to tune.
    adapting = run.kernel.adapt is not None and step < run.plan.num_warmup
    carried = state[:_ON_DEVICE]
    arguments = (carried, run.target.data, count, interval, keeps)
    if run.chain_method == "parallel":
        carried, seconds, compile_seconds = _in_threads(run, adapting, arguments)
    else:
        function = partial(_chunk, run, adapting, jax.vmap)
        program, compile_seconds = _compiled(run, ("chunk", adapting), function, *arguments)
        started = time.perf_counter()
        carried = jax.block_until_ready(program(*arguments))
        seconds = time.perf_counter() - started
    state = RunState(*carried)._replace(
        rate=count * interval / seconds,
        seconds=state.seconds + seconds,
        compile_seconds=state.compile_seconds + compile_seconds,
    )
    nonfinite = np.asarray(state.nonfinite_step)
    if (nonfinite >= 0).any():
        before = nonfinite[nonfinite >= 0].min()
        good = int(np.searchsorted(run.plan.draw_steps, before))
        number = min(good, int(state.clock.num_draws))
        raise DivergenceError(nonfinite, finish(run, state).first(number))
    return _settle(run, state) if step + count * interval == run.plan.num_warmup else state


def finish(run: Run, state: RunState) -> Draws:
    """The draws that have been kept by now."""
    num_draws = int(state.clock.num_draws)
    collected = {
        name: collector.finish(state.collected[name]) for name, collector in run.collectors.items()
    }
    statistics = collected["statistics"]
    stats, trace = dict(statistics["draws"]), dict(statistics["trace"])
    trace.pop("num_gradients", None)
    num_points = -(-int(state.clock.step) // _stride(run))
    noise_gain = run.kernel.noise_gain
    if noise_gain is not None:
        noise_gain = jax.tree.map(np.array, jax.vmap(noise_gain)(state.kernel))
    return Draws(
        positions=collected["positions"],
        method=run.name,
        temperature=run.kernel.temperature,
        passes=_passes(run, stats.pop("num_gradients", None), len(state.rng_key)),
        sample_stats=stats,
        trace={name: values[:, :num_points] for name, values in trace.items()},
        trace_steps=1 + _stride(run) * np.arange(num_points),
        draw_steps=run.plan.draw_steps,
        noise_gain=noise_gain,
        settings=run.settings,
        seconds=state.seconds,
        compile_seconds=state.compile_seconds,
        collected={name: collected[name] for name in run.more},
    ).first(num_draws)


def _stride(run: Run) -> int:
    return -(-run.plan.num_steps // _TRACE_POINTS)


def _passes(run: Run, counted: np.ndarray | None, num_chains: int) -> np.ndarray | None:
    """Passes over the data up to each draw, of all chains."""
    data_size, kernel = run.target.data_size, run.kernel
    if counted is not None:
        examples = kernel.examples_per_gradient or run.batch_size
        return counted.sum(axis=0, dtype=float) * (examples / data_size)
    if kernel.gradients_per_step is None:
        return None
    gradients = kernel.gradients_per_step * (2 if run.target.has_control_variates else 1)
    steps_per_pass = -(-data_size // run.batch_size)
    return num_chains * gradients * run.plan.draw_steps / steps_per_pass


def _settle(run: Run, state: RunState) -> RunState:
    """What warm-up has learnt becomes the state that sampling starts from."""
    if run.kernel.settle is None:
        return state

    def settle(kernel: PyTree) -> PyTree:
        # One chain at a time: it may look at all the data, or factorise a matrix.
        return jax.lax.map(run.kernel.settle, kernel)

    program, compile_seconds = _compiled(run, "settle", settle, state.kernel)
    started = time.perf_counter()
    kernel = jax.block_until_ready(program(state.kernel))
    return state._replace(
        kernel=kernel,
        rate=0.0,
        seconds=state.seconds + time.perf_counter() - started,
        compile_seconds=state.compile_seconds + compile_seconds,
    )


def _init_collectors(run: Run, kernel: PyTree) -> dict[str, PyTree]:
    """The carries of one chain."""
    info = jax.eval_shape(partial(_info_of_step, run), kernel)
    return {
        name: collector.init(kernel.position, info) for name, collector in run.collectors.items()
    }


def _info_of_step(run: Run, kernel: PyTree) -> Any:
    step = run.kernel.adapt or run.kernel.step
    key = jax.random.key(0)
    if run.kernel.full_data:
        return step(key, kernel, None)[1]
    source = run.target.data
    _, batch = source.next(source.init(key, run.batch_size), jnp.zeros((), jnp.int32))
    return step(key, kernel, batch)[1]


_Mapped = Callable[..., Callable]


def _chunk(
    run: Run,
    adapting: bool,
    over_chains: _Mapped,
    carried: tuple[Any, ...],
    source: DataSource,
    count: jax.Array,
    interval: jax.Array,
    keeps: jax.Array,
) -> tuple[Any, ...]:
    """``count`` × ``interval`` steps; if it ``keeps`` draws, one after each interval.

    The numbers are dynamic, so one compilation serves all chunks. ``over_chains`` maps functions
    of one chain: `jax.vmap`, or nothing where ``carried`` is one chain's.
    """
    step_chain = run.kernel.adapt if adapting and run.kernel.adapt else run.kernel.step
    collectors = run.collectors
    shared = run.shared_minibatches

    def next_batch(stream: Stream, step: jax.Array) -> tuple[Stream, Batch | None]:
        if run.kernel.full_data:
            return stream, None
        if shared:
            return source.next(stream, step)
        return over_chains(source.next, (0, None))(stream, step)

    def observe(collected: Any, info: Any, clock: Clock) -> Any:
        return {name: c.observe(collected[name], info, clock) for name, c in collectors.items()}

    def update(collected: Any, position: Position, clock: Clock) -> Any:
        return {name: c.update(collected[name], position, clock) for name, c in collectors.items()}

    def one_step(state: RunState) -> RunState:
        clock = state.clock
        stream, batch = next_batch(state.stream, clock.step)
        keys = over_chains(jax.random.fold_in, (0, None))(state.rng_key, clock.step)
        axes = (0, 0, None if shared or batch is None else 0)
        kernel, info = over_chains(step_chain, axes)(keys, state.kernel, batch)
        finite = jnp.isfinite(info.logdensity)
        if "grad_norm" in info._fields:
            finite &= jnp.isfinite(info.grad_norm)
        first_bad = ~finite & (state.nonfinite_step < 0)
        return state._replace(
            clock=Clock(clock.step + 1, clock.num_draws, jnp.zeros((), bool)),
            kernel=kernel,
            stream=stream,
            collected=over_chains(observe, (0, 0, None))(state.collected, info, clock),
            nonfinite_step=jnp.where(first_bad, clock.step, state.nonfinite_step),
        )

    def keep(state: RunState) -> RunState:
        clock = state.clock
        kept = over_chains(update, (0, 0, None))(state.collected, state.positions, clock)
        drew = clock._replace(num_draws=clock.num_draws + 1, drew=jnp.ones((), bool))
        return state._replace(clock=drew, collected=kept)

    def one_interval(_: Any, state: RunState) -> RunState:
        state = jax.lax.fori_loop(0, interval, lambda _, s: one_step(s), state)
        return jax.lax.cond(keeps, keep, lambda s: s, state)

    state = jax.lax.fori_loop(0, count, one_interval, RunState(*carried))
    # A step is judged by what the next one sees at its position; the chunk's last one, here.
    bad = ~over_chains(_all_finite, (0,))(state.positions) & (state.nonfinite_step < 0)
    last = state.clock.step - 1
    nonfinite_step = jnp.where(bad, last, state.nonfinite_step)
    return tuple(state._replace(nonfinite_step=nonfinite_step))[:_ON_DEVICE]


def _all_finite(position: Position) -> jax.Array:
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(position)]))


def _one_by_one(function: Callable, in_axes: Any) -> Callable:
    return function


def _in_threads(
    run: Run, adapting: bool, arguments: tuple[Any, ...]
) -> tuple[tuple[Any, ...], float, float]:
    """A chunk of each chain, as many at a time as this process has cores."""
    carried, *others = arguments
    num_chains = len(carried[-1])
    # What all chains share has no axis of theirs.
    shared = ("clock", "stream") if run.shared_minibatches else ("clock",)
    is_shared = [name in shared for name in RunState._fields[:_ON_DEVICE]]

    def take(carried: tuple[Any, ...], number: jax.Array) -> tuple[Any, ...]:
        return tuple(
            part if same else jax.tree.map(lambda leaf: leaf[number], part)
            for part, same in zip(carried, is_shared, strict=True)
        )

    taker, seconds_1 = _compiled(run, ("take", adapting), take, carried, 0)
    started = time.perf_counter()
    chains = [taker(carried, number) for number in range(num_chains)]
    function = partial(_chunk, run, adapting, _one_by_one)
    program, seconds_2 = _compiled(run, ("thread", adapting), function, chains[0], *others)
    with ThreadPoolExecutor(num_cores()) as pool:
        done = list(pool.map(lambda c: jax.block_until_ready(program(c, *others)), chains))
    carried = tuple(
        parts[0] if same else jax.tree.map(_stack, *parts)
        for parts, same in zip(zip(*done, strict=True), is_shared, strict=True)
    )
    seconds = time.perf_counter() - started - seconds_2
    return carried, seconds, seconds_1 + seconds_2


def _stack(*leaves: jax.Array) -> jax.Array:
    """On the host, where a hundred chains need no program as long as that."""
    if jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(
            _stack(*map(jax.random.key_data, leaves)), impl=jax.random.key_impl(leaves[0])
        )
    return jnp.asarray(np.stack([np.asarray(leaf) for leaf in leaves]))


def _compiled(run: Run, part: Hashable, function: Callable, *arguments: Any) -> tuple[Any, float]:
    """The program for arguments like these, and the seconds that it took to compile it now."""
    leaves, structure = jax.tree.flatten(arguments)
    shapes = tuple((np.shape(leaf), str(getattr(leaf, "dtype", type(leaf)))) for leaf in leaves)
    kernel = run.kernel if run.key is None else run.key
    # A collector is static where it has no arrays, and cannot be a key where it has some.
    collectors = tuple(run.collectors.items())
    key = (part, kernel, collectors, run.shared_minibatches, structure, shapes)
    started = time.perf_counter()
    # The large program of a batch of chains works in the memory of the state that it is given.
    donated = (0,) if part in (("chunk", True), ("chunk", False)) else ()

    def compile_() -> Any:
        return jax.jit(function, donate_argnums=donated).lower(*arguments).compile()

    program = run.target.program(key, compile_)
    return program, time.perf_counter() - started
