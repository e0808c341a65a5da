"""`sample`: one call from a log density to draws, by any method."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from blackjax.base import SamplingAlgorithm

from probbnn.data import sources as minibatch
from probbnn.errors import InputError
from probbnn.inference.draws import Draws
from probbnn.inference.runner import ChainsResult, DivergenceError, check_length, run_chains
from probbnn.inference.whole_chains import Length, Sampler, SamplerResult, run_sampler
from probbnn.posterior.base import Target
from probbnn.samplers.base import Kernel
from probbnn.samplers.registry import find_method
from probbnn.samplers.schedules import Cyclical

__all__ = ["sample"]

_DEFAULT_BATCH_SIZE = 1_000
_DEFAULT_DRAWS = 100
_DEFAULT_STEPS = 5_000
# Samplers on all the data have few and dear draws, nearly independent: all of NUTS's are kept.
_DEFAULT_SAMPLER_DRAWS = 500


def sample(
    rng_key: jax.Array,
    target: Target,
    method: str | Kernel | SamplingAlgorithm = "psgld",
    *,
    num_chains: int | None = None,
    num_steps: int | None = None,
    num_warmup: int | None = None,
    thinning: int | None = None,
    batch_size: int | None = None,
    shared_minibatches: bool = False,
    initial_positions: Any = None,
    callback: Callable[[int, Any], None] | None = None,
    callback_steps: Sequence[int] = (),
    progress: bool = True,
    **settings: Any,
) -> Draws:
    """Draw parameters of a network from its posterior, or optimise them.

    Args:
        rng_key: the only source of randomness: same key, same machine, same draws.
        target: the log density.
        method: a name in `METHODS`, or any BlackJAX-style kernel ``init(position)``,
            ``step(rng_key, state, minibatch) -> (state, info)`` whose state has ``position`` and
            whose info has ``logdensity`` and ``grad_norm``.
        num_chains: chains, or members of an ensemble; default 4 (1 for ``"map"``).
        num_steps: steps per chain, warm-up included; default: the method's own number.
        num_warmup: first steps, from which nothing is kept; default half of them. Optimisers
            keep their last step alone, and fits (SVI, Laplace) draw after their last step,
            whatever this says.
        thinning: steps per kept draw; the default keeps at most 100 draws per chain, and every
            draw of NUTS.
        batch_size: examples per minibatch; default 1,000, or all if there are fewer. Methods on
            all the data take none.
        shared_minibatches: all chains see the same minibatches. Cheaper, but the chains are
            then correlated, and no R-hat shows it.
        initial_positions: starting positions, leaves of shape ``(chain, …)``; default: one draw
            from the module's own initialiser per chain.
        callback: called as ``callback(step, positions)`` after each step in ``callback_steps``
            (counted from 1), positions being on the device with leaves ``(chain, …)``. Only
            methods that step through minibatches have such a moment.
        callback_steps: see ``callback``.
        progress: show a progress bar where stderr is a terminal.
        **settings: the method's own settings, such as ``step_size`` and ``temperature``. With a
            `Cyclical` step size, draws are kept in its sampling phases alone.

    Raises:
        InputError: if a setting is unknown or does not fit.
        DivergenceError: when a chain becomes non-finite.

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
    known = find_method(method) if isinstance(method, str) else None
    if known is not None and known.num_chains == 1 and (num_chains or 1) != 1:
        raise InputError(
            f"num_chains is {num_chains} for {known.name}, one point estimate; use 'ensemble'"
        )
    if num_steps is None:
        num_steps = _DEFAULT_STEPS if known is None else known.num_steps
    if num_steps < 1:
        raise InputError(f"num_steps is {num_steps}; it must be at least 1")
    if num_chains is None:
        num_chains = 4 if known is None else known.num_chains
    if num_chains < 1:
        raise InputError(f"num_chains is {num_chains}; it must be at least 1")
    if known is not None and known.point_estimate:
        num_warmup, thinning = max(num_steps - 1, 0), 1
    if num_warmup is None:
        num_warmup = num_steps // 2
    if known is not None and known.full_data and batch_size is not None:
        raise InputError(
            f"batch_size is {batch_size} for {known.name}, which takes all the data at each step; "
            "leave it out"
        )
    if batch_size is None:
        batch_size = min(_DEFAULT_BATCH_SIZE, target.data_size)

    algorithm: Kernel | SamplingAlgorithm | Sampler
    if known is not None:
        algorithm = known.build(target, num_warmup, settings)
        settings = known.complete(target, settings)
    elif settings:
        raise InputError(
            f"settings {', '.join(settings)} were given beside a ready-made kernel; give them to "
            "the kernel"
        )
    else:
        algorithm = _check_kernel(method)
    init_key, run_key = jax.random.split(rng_key)
    if initial_positions is None:
        init = jax.jit(jax.vmap(target.init))
        initial_positions = init(jax.random.split(init_key, num_chains))
    else:
        _check_positions(target, initial_positions, num_chains)
    name = known.name if known else "custom kernel"
    record = {"num_chains": num_chains, "num_steps": num_steps, "num_warmup": num_warmup}
    if isinstance(algorithm, Sampler):
        if callback is not None or shared_minibatches:
            raise InputError(
                f"{name} runs whole chains; it takes no callback and no shared_minibatches"
            )
        if thinning is None:
            thinning = max(1, (num_steps - num_warmup) // _DEFAULT_SAMPLER_DRAWS)
        check_length(num_steps, num_warmup, thinning)
        minibatch.check_batch_size(target.data_size, batch_size)
        result = run_sampler(
            run_key,
            algorithm,
            initial_positions,
            Length(num_steps, num_warmup, thinning, batch_size),
            description=name if progress else None,
        )
        if known is None or not known.full_data:
            record["batch_size"] = batch_size
        return _as_sampler_draws(
            result,
            name,
            algorithm.temperature,
            {**record, "thinning": thinning, **settings},
            target.data_size,
        )

    step_size = getattr(algorithm, "step_size", None)
    phases = None
    if isinstance(step_size, Cyclical):
        phases = [p for p in step_size.sampling_phases(num_steps) if p[1] > num_warmup]
    if thinning is None:
        thinning = _default_thinning(phases or [(num_warmup, num_steps)], num_warmup)
    chains = run_chains(
        run_key,
        algorithm,
        initial_positions,
        target.inputs,
        target.targets,
        batch_size=batch_size,
        num_steps=num_steps,
        num_warmup=num_warmup,
        thinning=thinning,
        sampling_phases=phases,
        shared_minibatches=shared_minibatches,
        callback=callback,
        callback_steps=callback_steps,
        description=name if progress else None,
    )
    record |= {
        "thinning": thinning,
        "batch_size": batch_size,
        "shared_minibatches": shared_minibatches,
    }
    return _as_draws(chains, algorithm, name, {**record, **settings}, target)


def _default_thinning(phases: Sequence[tuple[int, int]], num_warmup: int) -> int:
    """What keeps about `_DEFAULT_DRAWS` draws, and at least one of the longest phase."""
    lengths = [end - max(start, num_warmup) for start, end in phases]
    return max(1, min(-(-sum(lengths) // _DEFAULT_DRAWS), max(lengths)))


def _as_draws(
    result: ChainsResult,
    algorithm: Kernel | SamplingAlgorithm,
    name: str,
    settings: dict[str, Any],
    target: Target,
) -> Draws:
    trace = result.trace._asdict()
    # Step s saw the log density at the position after s steps, where a draw was kept; the last
    # draw has no following step and takes its predecessor's. The other statistics are of the
    # step that led to the draw.
    here = np.minimum(result.draw_steps, len(result.trace.logdensity[0]) - 1)
    index = dict.fromkeys(trace, result.draw_steps - 1) | {"logdensity": here, "grad_norm": here}
    noise_gain = getattr(algorithm, "noise_gain", None)
    if noise_gain is not None:
        noise_gain = jax.tree.map(np.array, jax.vmap(noise_gain)(result.state.kernel))
    gradients = getattr(algorithm, "gradients_per_step", None)
    passes = None
    if gradients is not None:
        if target.has_control_variates:
            gradients *= 2
        steps_per_pass = -(-target.data_size // settings["batch_size"])
        passes = settings["num_chains"] * gradients * result.draw_steps / steps_per_pass
    return Draws(
        positions=result.positions,
        method=name,
        temperature=getattr(algorithm, "temperature", None),
        sample_stats={key: values[:, index[key]] for key, values in trace.items()},
        trace=trace,
        draw_steps=result.draw_steps,
        noise_gain=noise_gain,
        passes=passes,
        settings=settings,
        seconds=result.seconds,
        compile_seconds=result.compile_seconds,
    )


def _as_sampler_draws(
    result: SamplerResult, name: str, temperature: float, settings: dict[str, Any], data_size: int
) -> Draws:
    positions, stats, num_examples = result.draws
    finite = np.isfinite(stats["logdensity"])
    if not finite.all():
        steps = settings["num_warmup"] + settings["thinning"] * (1 + finite.argmin(axis=1))
        raise DivergenceError(np.where(finite.all(axis=1), -1, steps), None)
    return Draws(
        positions=positions,
        method=name,
        temperature=temperature,
        sample_stats=stats,
        passes=num_examples.sum(axis=0, dtype=float) / data_size,
        settings=settings,
        seconds=result.seconds,
        compile_seconds=result.compile_seconds,
    )


def _check_kernel(method: Any) -> Kernel | SamplingAlgorithm:
    """A kernel of another kind would fail inside a trace, where no message helps."""
    step = getattr(method, "step", None)
    if not callable(step) or not callable(getattr(method, "init", None)):
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
    return method


def _check_positions(target: Target, positions: Any, num_chains: int) -> None:
    for leaf in jax.tree.leaves(positions):
        if np.ndim(leaf) == 0 or len(leaf) != num_chains:
            raise InputError(
                f"initial_positions has a leaf of shape {np.shape(leaf)}; each needs a leading "
                f"axis of the {num_chains} chains"
            )
    target.check_position(jax.tree.map(lambda leaf: leaf[0], positions))
