"""Runs chains: scanned on the device in chunks, vectorised or side by side, with a guard.

    state = init_run(rng_key, run, positions)
    while not run.is_finished(state):
        state = advance(run, state)
    draws = finish(run, state)

All that a run carries is one pytree of fixed size, `RunState`; what stays the same is a `Run`.
Draws leave the state for the run's store in blocks. Randomness is a function of (key, step number),
so how the steps are cut into chunks has no influence on the result, and a run goes on from any of
its states: what it writes to the store a second time is what stands there.
"""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.data.sources import check_batch_size
from probbnn.inference.collectors import Newest, NewestInfos, Trace
from probbnn.inference.draws import Draws
from probbnn.inference.plan import Plan
from probbnn.inference.store import MemoryStore, Store
from probbnn.machine import num_cores
from probbnn.posterior.base import Posterior
from probbnn.samplers.base import ChainMethod, Kernel
from probbnn.types import Batch, Clock, Collector, DataSource, Position, PRNGKey, PyTree, Stream

__all__ = [
    "DivergenceError",
    "OnDivergence",
    "Run",
    "RunState",
    "advance",
    "block_draws",
    "finish",
    "init_run",
    "like_settled",
    "restart",
]

OnDivergence = Literal["exclude", "stop"]
"""What becomes of a run of which a chain, but not every chain, leaves the finite numbers."""

# Points of a trace at most.
_TRACE_POINTS = 1_024
# Memory of a block of draws, of all chains, and draws in it at most.
_BLOCK_BYTES = 2**24
_BLOCK_DRAWS = 1_000
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
        store: where draws and their statistics go.
        keep_positions: whether the draws themselves do.
        block: draws per chain that go there together.
        on_divergence: whether the others go on when a chain leaves the finite numbers.
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
    store: Store = field(default_factory=MemoryStore)
    keep_positions: bool = True
    block: int = 256
    on_divergence: OnDivergence = "stop"

    def __post_init__(self) -> None:
        check_batch_size(self.target.data_size, self.batch_size)

    @property
    def collectors(self) -> dict[str, Collector]:
        """What the run keeps, by name."""
        return {
            **({"positions": Newest(self.block)} if self.keep_positions else {}),
            # The last draw of a block is complete a step after it, when draws of the next may be
            # there, and one more is on its way.
            "statistics": NewestInfos(2 * self.block + 2, self.kernel.looks_ahead),
            "trace": Trace(_TRACE_POINTS),
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
    def on_device(self) -> tuple[Any, ...]:
        """The parts that compiled programs take and give, and that a checkpoint keeps."""
        return self[:_ON_DEVICE]

    @property
    def positions(self) -> Position:
        """Where the chains are, leaves of shape ``(chain, …)``."""
        return self.kernel.position


class DivergenceError(RuntimeError):
    """Some chains left the finite numbers.

    Attributes:
        steps: the first bad step of each chain, −1 for chains that stayed finite.
        draws: the `Draws` that all chains kept before the first of these steps; ``None`` where
            these were not kept.
    """

    def __init__(self, steps: np.ndarray, draws: Draws | None) -> None:
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

    The arrays of ``state`` are used up, and full blocks of draws go to the run's store.

    Raises:
        DivergenceError: when a chain has become non-finite in these steps, and the run is to stop
            then, or no other is left.
    """
    step, before = int(state.clock.step), _complete(state)
    count, interval = run.plan.next_chunk(step, state.rate)
    keeps = run.plan.keeps(step + interval)
    if keeps:
        count = min(count, run.block - before["positions"] % run.block)
    # One program serves all steps of a kernel that has nothing to tune.
    adapting = run.kernel.adapt is not None and step < run.plan.num_warmup
    carried = state.on_device
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
    for name, ready in _complete(state).items():
        _store(run, state, name, _whole(run, before[name]), _whole(run, ready))
    nonfinite = np.asarray(state.nonfinite_step)
    if (nonfinite >= 0).all() or (run.on_divergence == "stop" and (nonfinite >= 0).any()):
        raise _divergence(run, state)
    return _settle(run, state) if step + count * interval == run.plan.num_warmup else state


def restart(run: Run, state: RunState) -> RunState:
    """The state with nothing kept yet, for a run whose plan has its draws from here on."""
    init = jax.vmap(partial(_init_collectors, run))
    program, _ = _compiled(run, "restart", init, state.kernel)
    # The trace is of the steps, and goes on.
    collected = program(state.kernel) | {"trace": state.collected["trace"]}
    clock = state.clock._replace(num_draws=jnp.zeros((), jnp.int32), drew=jnp.zeros((), bool))
    return state._replace(clock=clock, collected=collected)


def finish(run: Run, state: RunState) -> Draws:
    """The draws that have been kept by now, of the chains that stayed finite.

    Raises:
        DivergenceError: if none did.
    """
    finite = np.flatnonzero(np.asarray(state.nonfinite_step) < 0)
    if not len(finite):
        raise _divergence(run, state)
    return _finish(run, state, finite.tolist())


def _divergence(run: Run, state: RunState) -> DivergenceError:
    nonfinite = np.asarray(state.nonfinite_step)
    before = nonfinite[nonfinite >= 0].min()
    good = int(np.searchsorted(run.plan.draw_steps, before))
    number = min(good, int(state.clock.num_draws))
    if not run.keep_positions:
        return DivergenceError(nonfinite, None)
    return DivergenceError(nonfinite, _finish(run, state, range(len(nonfinite))).first(number))


def _finish(run: Run, state: RunState, chains: Sequence[int]) -> Draws:
    num_draws, num_chains = int(state.clock.num_draws), len(state.rng_key)
    where = np.asarray(chains)
    for name, ready in _complete(state).items():
        _store(run, state, name, _whole(run, ready), num_draws)
    # Of all chains, since what was computed counts whatever became of it.
    stats = dict(run.store.read("statistics", num_draws, range(num_chains)))
    gradients = stats.pop("num_gradients", None)
    collected = {
        name: run.collectors[name].finish(jax.tree.map(lambda x: x[where], state.collected[name]))
        for name in ("trace", *run.more)
    }
    steps, trace = collected["trace"]
    trace.pop("num_gradients", None)
    noise_gain = run.kernel.noise_gain
    if noise_gain is not None:
        noise_gain = jax.tree.map(lambda x: np.array(x)[where], jax.vmap(noise_gain)(state.kernel))
    positions = run.store.read("positions", num_draws, chains) if run.keep_positions else None
    nonfinite = np.asarray(state.nonfinite_step)
    return Draws(
        positions=positions,
        method=run.name,
        temperature=run.kernel.temperature,
        passes=_passes(run, gradients, num_chains, num_draws),
        sample_stats={name: np.asarray(values)[where] for name, values in stats.items()},
        trace=trace,
        trace_steps=1 + steps,
        draw_steps=run.plan.draw_steps[:num_draws],
        noise_gain=noise_gain,
        settings=run.settings,
        seconds=state.seconds,
        compile_seconds=state.compile_seconds,
        collected={name: collected[name] for name in run.more},
        excluded={c: int(nonfinite[c]) for c in range(num_chains) if c not in where},
    )


def _complete(state: RunState) -> dict[str, int]:
    """Draws of which everything is known, by what is known of them."""
    num_draws = int(state.clock.num_draws)
    # What the step after the last draw sees of it is still to come.
    return {"positions": num_draws, "statistics": num_draws - int(state.clock.drew)}


def _whole(run: Run, num_draws: int) -> int:
    """So many of the draws are in whole blocks."""
    return num_draws // run.block * run.block


def _store(run: Run, state: RunState, name: str, start: int, stop: int) -> None:
    """Hand over draws by their numbers; without any, at least what they are like."""
    if name not in run.collectors or (start == stop and stop > 0):
        return
    buffer = run.collectors[name].finish(state.collected[name])
    rows = np.arange(start, stop) % jax.tree.leaves(buffer)[0].shape[1]
    run.store.write(name, start, jax.tree.map(lambda leaf: leaf[:, rows], buffer))


def _passes(run: Run, counted: Any, num_chains: int, num_draws: int) -> np.ndarray | None:
    """Passes over the data up to each draw, of all chains."""
    data_size, kernel = run.target.data_size, run.kernel
    if counted is not None:
        counted = np.asarray(counted)
        examples = kernel.examples_per_gradient or run.batch_size
        return counted.sum(axis=0, dtype=float) * (examples / data_size)
    if kernel.gradients_per_step is None:
        return None
    gradients = kernel.gradients_per_step * (2 if run.target.has_control_variates else 1)
    steps_per_pass = -(-data_size // run.batch_size)
    return num_chains * gradients * run.plan.draw_steps[:num_draws] / steps_per_pass


def like_settled(run: Run, state: RunState) -> RunState:
    """A state with the structure and the types that it will have after warm-up."""
    if run.kernel.settle is None or run.plan.num_warmup == 0:
        return state
    shapes = jax.eval_shape(partial(jax.lax.map, run.kernel.settle), state.kernel)
    return state._replace(kernel=jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes))


def _settle(run: Run, state: RunState) -> RunState:
    """What warm-up has learnt becomes the state that sampling starts from."""
    if run.kernel.settle is None:
        return state
    # One chain at a time: it may look at all the data, or factorise a matrix.
    settle = partial(jax.lax.map, run.kernel.settle)
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


def block_draws(positions: Position) -> int:
    """Draws per chain in a block of `Run.block`, for positions with leaves ``(chain, …)``."""
    num_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(positions))
    return int(np.clip(_BLOCK_BYTES // max(num_bytes, 1), 1, _BLOCK_DRAWS))


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
        # Warm-up keeps nothing: what makes a draw of a state need not be compiled for it.
        return state if adapting else jax.lax.cond(keeps, keep, lambda s: s, state)

    state = jax.lax.fori_loop(0, count, one_interval, RunState(*carried))
    # A step is judged by what the next one sees at its position; the chunk's last one, here.
    bad = ~over_chains(_all_finite, (0,))(state.positions) & (state.nonfinite_step < 0)
    last = state.clock.step - 1
    nonfinite_step = jnp.where(bad, last, state.nonfinite_step)
    return state._replace(nonfinite_step=nonfinite_step).on_device


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
