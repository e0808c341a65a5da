"""`sample`: one call from a log density to draws, by any method."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.checks import check_flag, check_key, check_number, check_whole
from probbnn.errors import InputError, one_of
from probbnn.inference.directory import SamplingDirectory
from probbnn.inference.draws import Draws
from probbnn.inference.loop import Observer, Until, run_to_end
from probbnn.inference.memory import check_memory, num_bytes
from probbnn.inference.plan import Plan
from probbnn.inference.runner import DivergenceError, OnDivergence, Run, block_draws, init_run
from probbnn.posterior.base import Posterior
from probbnn.samplers.base import ChainMethod, Kernel, Method
from probbnn.samplers.registry import find_method
from probbnn.samplers.schedules import Cyclical
from probbnn.tree import leaf_names
from probbnn.types import Collector, DataSource, KernelLike, Position, PRNGKey

__all__ = [
    "CHECKPOINT_SECONDS",
    "CUSTOM_KERNEL",
    "DEFAULT_BATCH_SIZE",
    "as_kernel",
    "check_starts",
    "prepare",
    "sample",
    "starts",
]

CUSTOM_KERNEL = "custom kernel"
"""What a ready-made kernel is called, which has no name."""

DEFAULT_BATCH_SIZE = 1_000
"""Examples per minibatch, or all if there are fewer."""

CHECKPOINT_SECONDS = 60.0
"""From one checkpoint to the next, unless told otherwise."""

# Draws of each chain that are kept unless a thinning is given. Of four chains about 200 are needed
# for a verdict of converged, were they independent; memory allows large networks fewer.
_MAX_DRAWS = 500
_MIN_DRAWS = 100
_MAX_BYTES = 10**9
# Examples whose likelihoods must be the same in a batch of so many and of twice as many.
_NUM_TOGETHER = 2


def sample(
    rng_key: PRNGKey,
    target: Posterior,
    method: str | Method | KernelLike = "psgld",
    *,
    num_chains: int | None = None,
    num_steps: int | None = None,
    num_warmup: int | None = None,
    thinning: int | None = None,
    batch_size: int | None = None,
    shared_minibatches: bool = False,
    chain_method: ChainMethod | None = None,
    initial_positions: Position | None = None,
    callback: Callable[[int, Position], None] | None = None,
    callback_steps: Sequence[int] = (),
    collectors: Mapping[str, Collector] | None = None,
    keep_positions: bool = True,
    until: Until | None = None,
    on_divergence: OnDivergence = "exclude",
    out: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    observer: Observer | None = None,
    progress: bool = True,
    **settings: Any,
) -> Draws:
    """Draw parameters of a network from its posterior, or optimise them.

    Args:
        rng_key: the only source of randomness: same key, same machine, same draws.
        target: the log density.
        method: a name in `METHODS`, the settings of one, such as ``PSGLD(step_size=1e-3)``, or any
            BlackJAX-style kernel ``init(position)``, ``step(rng_key, state, minibatch) ->
            (state, info)`` whose state has ``position`` and whose info has ``logdensity`` and
            ``grad_norm``.
        num_chains: chains, or members of an ensemble; default 4 (1 for ``"map"``).
        num_steps: steps per chain, warm-up included; default: the method's own number.
        num_warmup: first steps, from which nothing is kept; default half of them. Optimisers
            keep their last step alone, and fits (SVI, Laplace) draw after their last step,
            whatever this says.
        thinning: steps per kept draw; the default keeps at most 500 draws per chain, of large
            networks as many as a gigabyte holds (and 100 at least), and all of a fit.
        batch_size: examples per minibatch; default 1,000, or all if there are fewer. Methods on
            all the data take none.
        shared_minibatches: all chains see the same minibatches. Cheaper, but the chains are
            then correlated, and no R-hat shows it.
        chain_method: ``"vectorized"`` runs all chains as one batch, ``"parallel"`` each in a
            thread of its own; default: what is faster for the method.
        initial_positions: starting positions, leaves of shape ``(chain, …)``, or one for all
            chains; parameters trained elsewhere will do in any of the forms of
            `LogDensity.as_position`, such as ``{"params": …}`` or the directory of an Orbax
            checkpoint. Default: one draw from the module's own initialiser per chain.
        callback: called as ``callback(step, positions)`` after each step in ``callback_steps``
            (counted from 1), positions being on the device with leaves ``(chain, …)``.
        callback_steps: see ``callback``.
        collectors: what to keep of the draws on the way, beside the draws themselves, by name:
            such as ``Averages(target.summarise, (inputs,))`` of `probbnn.inference.collectors`,
            of which `probbnn.predict` makes its predictions. See `Draws.collected`.
        keep_positions: whether to keep the draws themselves; False leaves what the collectors
            made of them, in memory that does not grow with the run.
        until: go on until this is satisfied: anything with the methods of
            `probbnn.inference.loop.Until`. The first look is after ``num_steps``; each later one
            after twice as many steps as the one before, at the second half of them, as if the
            first were warm-up.
        on_divergence: what to do when some chains, but not all, become non-finite: ``"exclude"``
            them from the result, with a warning that names them, and a verdict that does; or
            ``"stop"``.
        out: a directory to write to, which must not exist or be empty: checkpoints, from which
            `resume` goes on after whatever happens, and the draws, as they come, as Zarr. Their
            ``positions`` then read from disk what is asked of them.
        checkpoint_seconds: time from one checkpoint to the next; one is also written at the end
            of warm-up, at the end, and when SIGINT or SIGTERM stop the run.
        observer: what describes the chains on their way, beside the progress.
        progress: show a progress bar where stderr is a terminal or a notebook.
        **settings: the method's own settings, such as ``step_size`` and ``temperature``. With a
            `Cyclical` step size, draws are kept in its sampling phases alone.

    Raises:
        InputError: if a setting is unknown or does not fit, or the log density at a start is not
            finite.
        DivergenceError: when all chains become non-finite, or one that is to stop the run.
        Interrupted, Terminated: on SIGINT and SIGTERM, at the end of a chunk of about a second;
            their ``draws`` are those so far.

    Examples:
        >>> import jax, probbnn as pb
        >>> train, test = pb.load("digits")
        >>> target = pb.LogDensity(pb.MLP(hidden=(10,)), train)
        >>> draws = pb.sample(
        ...     jax.random.key(0), target, "sgld", num_chains=2, num_steps=200, progress=False
        ... )
        >>> draws.num_chains, draws.num_draws, draws.temperature
        (2, 100, 1.0)
    """
    run, call = prepare(
        target,
        method,
        settings,
        num_chains=num_chains,
        num_steps=num_steps,
        num_warmup=num_warmup,
        thinning=thinning,
        batch_size=batch_size,
        shared_minibatches=shared_minibatches,
        chain_method=chain_method,
        callback_steps=callback_steps,
        collectors=collectors,
        keep_positions=keep_positions,
        until=until,
        on_divergence=on_divergence,
        observer=observer,
    )
    check_key(rng_key)
    check_number(checkpoint_seconds=checkpoint_seconds)
    num_chains = call["num_chains"]
    in_memory = keep_positions and out is None
    check_memory(target, num_chains, run.plan.num_draws if in_memory else 0)
    init_key, run_key = jax.random.split(rng_key)
    if initial_positions is None:
        initial_positions = starts(init_key, target, num_chains)
    else:
        initial_positions = _as_starts(target, initial_positions, num_chains)
    _check_apart(target, jax.tree.map(lambda leaf: leaf[0], initial_positions))
    run = replace(run, block=block_draws(initial_positions))
    directory = None
    if out is not None:
        directory = SamplingDirectory.create(out, target, call, run_key, initial_positions)
        run = replace(run, store=directory.store)
    try:
        return run_to_end(
            run,
            init_run(run_key, run, initial_positions),
            callback=callback,
            until=until,
            observer=observer,
            directory=directory,
            checkpoint_seconds=checkpoint_seconds,
            progress=progress,
        )
    except DivergenceError as error:
        # Only now: it looks at all the data, and good starts are the rule.
        check_starts(target, initial_positions, np.flatnonzero(error.steps >= 0).tolist())
        error.args = (f"{error}{_advice(target, method, settings)}",)
        raise


def _advice(target: Posterior, method: str | Method | KernelLike, settings: dict[str, Any]) -> str:
    """A step size to try, where the one that failed was the default."""
    known = _find(method, settings)
    if known is None or getattr(known, "step_size", 0) is not None:
        return ""
    stable = known.stable_step_size(target)
    if stable is None or not np.isfinite(stable):
        return ""
    default = known.default_step_size(target.data_size)
    return (
        f"; the default step size, {default:.2g}, knows the number of examples alone, and by the "
        f"curvature where chains start step_size={stable:.2g} would be stable"
    )


def prepare(
    target: Posterior,
    method: str | Method | KernelLike,
    settings: dict[str, Any],
    *,
    num_chains: int | None = None,
    num_steps: int | None = None,
    num_warmup: int | None = None,
    thinning: int | None = None,
    batch_size: int | None = None,
    shared_minibatches: bool = False,
    chain_method: ChainMethod | None = None,
    callback_steps: Sequence[int] = (),
    collectors: Mapping[str, Collector] | None = None,
    keep_positions: bool = True,
    until: Until | None = None,
    on_divergence: OnDivergence = "exclude",
    observer: Observer | None = None,
) -> tuple[Run, dict[str, Any]]:
    """The run that `sample` asks for, and the call with nothing left open, for the record.

    Raises:
        InputError: if a setting is unknown or does not fit.
    """
    known = _find(method, settings)
    check_whole(num_chains=num_chains, num_steps=num_steps, num_warmup=num_warmup)
    check_whole(thinning=thinning, batch_size=batch_size)
    check_flag(shared_minibatches=shared_minibatches, keep_positions=keep_positions)
    if chain_method is not None:
        one_of(chain_method, get_args(ChainMethod), "chain_method")
    one_of(on_divergence, get_args(OnDivergence), "on_divergence")
    num_chains = _num_chains(known, num_chains)
    if num_steps is None:
        num_steps = Method.default_steps if known is None else known.default_steps
    if num_steps < 1:
        raise InputError(f"num_steps is {num_steps}; it must be at least 1")
    batch_size = _batch_size(known, target, batch_size, shared_minibatches)
    record = {"num_chains": num_chains, "num_steps": num_steps}
    call: dict[str, Any] = {**record, "chain_method": chain_method}
    fitted_draws = None if known is None else known.num_fitted_draws
    if until is not None and (known is None or not known.is_markov_chain()):
        what = "a ready-made kernel" if known is None else known.name
        raise InputError(
            f"until is given for {what}, whose draws are not known to be a Markov chain's"
        )
    if known is not None and known.point_estimate:
        num_warmup, thinning = num_steps - 1, 1
    elif num_warmup is None:
        num_warmup = num_steps // 2
    call["num_warmup"] = num_warmup
    if fitted_draws is not None:
        # The steps are those of the fit, and each step after them is a draw.
        num_warmup, num_steps, thinning = num_steps, num_steps + fitted_draws, thinning or 1
    record["num_warmup"] = num_warmup

    if known is not None:
        kernel = known.build(target, num_warmup=num_warmup, batch_size=batch_size)
        settings = known.settings(target.data_size)
    else:
        kernel = as_kernel(method)
    if kernel.full_data and shared_minibatches:
        raise InputError(
            "shared_minibatches is True for a method that takes no minibatches from here; leave it "
            "out"
        )
    most = _max_draws(target, num_chains)
    plan = _plan(kernel, most, num_steps, num_warmup, thinning, callback_steps)
    record["thinning"] = plan.thinning
    if known is None or not known.full_data:
        record |= {"batch_size": batch_size, "shared_minibatches": shared_minibatches}
        call["batch_size"] = batch_size
    run = Run(
        target,
        kernel,
        plan,
        batch_size=batch_size,
        name=CUSTOM_KERNEL if known is None else known.name,
        settings={**record, **settings},
        shared_minibatches=shared_minibatches,
        chain_method=chain_method or kernel.chain_method,
        # Equal settings build kernels that do the same.
        key=(method if known is None else known, num_warmup, batch_size),
        more={
            **({} if collectors is None else collectors),
            **({} if observer is None else observer.collectors(target)),
            **({} if until is None else until.collectors(target)),
        },
        keep_positions=keep_positions,
        on_divergence=on_divergence,
    )
    return run, {
        **call,
        "thinning": plan.thinning,
        "shared_minibatches": shared_minibatches,
        "keep_positions": keep_positions,
        "on_divergence": on_divergence,
        "until": None if until is None else str(until),
        "method": run.name,
        "settings": None if known is None else known.written(),
    }


def _find(method: str | Method | KernelLike, settings: dict[str, Any]) -> Method | None:
    """The settings of a known method, ``None`` for a ready-made kernel."""
    if isinstance(method, str):
        return find_method(method).of(settings)
    if settings:
        what = "a method with its settings" if isinstance(method, Method) else "a ready-made kernel"
        raise InputError(
            f"settings {', '.join(settings)} were given beside {what}; give them to "
            f"{'the method' if isinstance(method, Method) else 'the kernel'}"
        )
    return method if isinstance(method, Method) else None


def _num_chains(known: Method | None, num_chains: int | None) -> int:
    if num_chains is None:
        return Method.default_chains if known is None else known.default_chains
    if num_chains < 1:
        raise InputError(f"num_chains is {num_chains}; it must be at least 1")
    if known is not None and known.default_chains == 1 and num_chains != 1:
        raise InputError(
            f"num_chains is {num_chains} for {known.name}, one point estimate; use 'ensemble'"
        )
    return num_chains


def _batch_size(
    known: Method | None, target: Posterior, batch_size: int | None, shared_minibatches: bool
) -> int:
    if known is not None and known.full_data:
        for name, given in (("batch_size", batch_size), ("shared_minibatches", shared_minibatches)):
            if given:
                raise InputError(
                    f"{name} is {given} for {known.name}, which takes all the data at each step; "
                    "leave it out"
                )
    return min(DEFAULT_BATCH_SIZE, target.data_size) if batch_size is None else batch_size


def _max_draws(target: Posterior, num_chains: int) -> int:
    """Draws of each chain that the default thinning keeps."""
    size = num_chains * num_bytes(target)
    return min(_MAX_DRAWS, max(_MIN_DRAWS, _MAX_BYTES // max(size, 1)))


def _plan(
    kernel: Kernel,
    max_draws: int,
    num_steps: int,
    num_warmup: int,
    thinning: int | None,
    stops: Sequence[int],
) -> Plan:
    phases: Sequence[tuple[int, int]] = ((num_warmup, num_steps),)
    if isinstance(kernel.step_size, Cyclical):
        phases = tuple(p for p in kernel.step_size.sampling_phases(num_steps) if p[1] > num_warmup)
    if thinning is None:
        # What keeps about as many draws as wanted, and at least one of the longest phase.
        lengths = [end - max(start, num_warmup) for start, end in phases] or [1]
        thinning = max(1, min(-(-sum(lengths) // max_draws), max(lengths)))
    return Plan(num_steps, num_warmup, thinning, tuple(phases), _checked_stops(stops, num_steps))


def _checked_stops(stops: Sequence[int], num_steps: int) -> tuple[int, ...]:
    if isinstance(stops, str) or not np.iterable(stops):
        raise InputError(f"callback_steps is {stops!r}; give numbers of steps, such as [{stops}]")
    for number in stops:
        check_whole(1, callback_steps=number)
        if number > num_steps:
            raise InputError(f"callback_steps has {number:,}, and there are {num_steps:,} steps")
    return tuple(sorted(stops))


def starts(rng_key: PRNGKey, target: Posterior, num_chains: int) -> Position:
    """A start for each chain from the module's own initialiser, leaves ``(chain, …)``."""
    init = target.program("starts", lambda: jax.jit(jax.vmap(target.init)))
    return init(jax.random.split(rng_key, num_chains))


def as_kernel(method: Any) -> Kernel:
    """A ready-made kernel, in BlackJAX's form, as a `Kernel`.

    Raises:
        InputError: if it is of another kind, and would fail inside a trace where no message helps.
    """
    if isinstance(method, Kernel):
        return method
    step, init = getattr(method, "step", None), getattr(method, "init", None)
    if not callable(step) or not callable(init):
        raise InputError(
            f"method is a {type(method).__name__}; give a name from METHODS or a kernel with "
            "init(position) and step(rng_key, state, minibatch)"
        )
    parameters = inspect.signature(step).parameters.values()
    required = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if len(required) != 3:
        raise InputError(
            f"the kernel's step takes ({', '.join(required)}); step(rng_key, state, minibatch) is "
            "expected: close over anything else, such as the step size"
        )
    return Kernel(lambda position, rng_key=None: init(position), step, gradients_per_step=None)


def _check_apart(target: Posterior, position: Position) -> None:
    """Raise `InputError` if the likelihood of an example depends on what comes with it.

    A sum over the data is no sum of minibatches then.
    """
    if target.data_size < 2 * _NUM_TOGETHER:
        return

    def likelihoods(position: Position, source: DataSource) -> tuple[jax.Array, jax.Array]:
        index = np.linspace(0, target.data_size - 1, 2 * _NUM_TOGETHER).astype(int)
        halves = [source.gather(part) for part in (index[:_NUM_TOGETHER], index[_NUM_TOGETHER:])]
        found = [target.pointwise_loglikelihood_fn(position, half) for half in halves]
        together = target.pointwise_loglikelihood_fn(position, source.gather(index))
        return together, jnp.concatenate(found)

    program = target.program("apart", lambda: jax.jit(likelihoods))
    together, apart = map(np.asarray, program(position, target.data))
    # As wide as the rounding of a network in bfloat16.
    if not np.allclose(together, apart, rtol=0.02, atol=0.02, equal_nan=True):
        worst = np.abs(together - apart).argmax()
        raise InputError(
            "the likelihood of an example depends on the other examples of its batch "
            f"({together[worst]:.4g} among four, {apart[worst]:.4g} among two), as it does with "
            "batch statistics; use layer or group normalisation, or fix the statistics"
        )


def _as_starts(target: Posterior, positions: Any, num_chains: int) -> Position:
    """Starts of all chains, leaves ``(chain, …)``, of what a user gives for them."""
    positions = target.as_position(positions)
    expected = jax.eval_shape(target.init, jax.random.key(0))
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(positions)]
    if shapes == [leaf.shape for leaf in jax.tree.leaves(expected)]:
        target.check_position(positions)
        return jax.tree.map(
            lambda leaf: jnp.broadcast_to(leaf, (num_chains, *np.shape(leaf))), positions
        )
    for shape in shapes:
        if shape[:1] != (num_chains,):
            raise InputError(
                f"initial_positions has a leaf of shape {shape}; each needs a leading axis of the "
                f"{num_chains} chains, or none of them has one"
            )
    target.check_position(jax.tree.map(lambda leaf: leaf[0], positions))
    return positions


def check_starts(target: Posterior, positions: Position, chains: Sequence[int]) -> None:
    """Raise `InputError` if the log density at a chain's start is not finite, and say why.

    Args:
        target: the posterior.
        positions: starts of all chains, leaves ``(chain, …)``.
        chains: those to look at.
    """
    for chain in chains:
        start = jax.tree.map(lambda leaf, c=chain: leaf[c], positions)
        for name, leaf in zip(leaf_names(start), jax.tree.leaves(start), strict=True):
            if not np.isfinite(leaf).all():
                raise InputError(
                    f"chain {chain} starts where {name} is not finite; look at the module's "
                    "initialiser, or give other initial_positions"
                )
        if not np.isfinite(logprior := float(target.logprior_fn(start))):
            raise InputError(
                f"chain {chain} starts where the log prior is {logprior}; give initial_positions "
                "where it is finite, or another prior"
            )
        _check_rows(target, start, chain)


def _check_rows(target: Posterior, start: Position, chain: int) -> None:
    size = len(jax.tree.leaves(target.data.block(0).inputs)[0])
    for begin in range(0, target.data_size, size):
        rows = np.arange(begin, min(begin + size, target.data_size))
        values = np.asarray(target.pointwise_loglikelihood_fn(start, target.data.gather(rows)))
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            others = f", as it is for {len(bad) - 1} more" if len(bad) > 1 else ""
            raise InputError(
                f"chain {chain} starts where the log likelihood of example {rows[bad[0]]} is "
                f"{values[bad[0]]}{others}; look at that example and at the likelihood, or give "
                "initial_positions where it is finite"
            )
