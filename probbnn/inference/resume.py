"""`resume`: go on with a run that something ended, or make a finished one longer."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax

from probbnn.errors import InputError
from probbnn.files import expanded
from probbnn.inference.directory import SamplingDirectory
from probbnn.inference.draws import Draws
from probbnn.inference.loop import Observer, Until, run_to_end
from probbnn.inference.plan import Plan
from probbnn.inference.runner import Run, RunState, block_draws, init_run, like_settled, restart
from probbnn.inference.sample import CHECKPOINT_SECONDS, CUSTOM_KERNEL, prepare, starts
from probbnn.posterior.base import Posterior
from probbnn.samplers.base import Method
from probbnn.samplers.registry import find_method
from probbnn.samplers.schedules import Cyclical
from probbnn.types import Collector, KernelLike, Position

__all__ = ["resume"]


def resume(
    directory: str | os.PathLike[str],
    target: Posterior,
    method: Method | KernelLike | None = None,
    *,
    more_steps: int = 0,
    callback: Callable[[int, Position], None] | None = None,
    callback_steps: Sequence[int] = (),
    collectors: Mapping[str, Collector] | None = None,
    until: Until | None = None,
    observer: Observer | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    progress: bool = True,
    force: bool = False,
) -> Draws:
    """Go on with a run that `probbnn.sample` began with ``out=directory``.

    On the same machine, with the same versions, the result is bit for bit that of a run that was
    never interrupted, wherever it was cut. A run that had finished gives its draws again.

    Args:
        directory: of the run.
        target: the posterior that was sampled, with the same data.
        method: the method with its settings, or the kernel, where the run was begun with settings
            that a file cannot hold, such as a schedule; otherwise ``None``.
        more_steps: make the run longer by so many steps per chain. The result is that of a run
            that was asked for all these steps in the first place, with the same ``num_warmup`` and
            ``thinning``.
        callback: as the run was begun with, like the next four.
        callback_steps: see `probbnn.sample`.
        collectors: see `probbnn.sample`.
        until: see `probbnn.sample`.
        observer: see `probbnn.sample`.
        checkpoint_seconds: see `probbnn.sample`.
        progress: show a progress bar where stderr is a terminal or a notebook.
        force: go on although versions or machine have changed, which changes the draws to come.

    Raises:
        InputError: if there is no such run, data, model, prior, settings or versions are not those
            it was begun with, it cannot be made longer, or another process is at work on it.

    Examples:
        >>> import tempfile, jax, numpy as np, probbnn as pb
        >>> train, test = pb.load("digits")
        >>> target = pb.LogDensity(pb.MLP(hidden=(10,)), train)
        >>> out = tempfile.mkdtemp()
        >>> settings = {"num_chains": 2, "thinning": 5, "out": out, "progress": False}
        >>> draws = pb.sample(jax.random.key(0), target, "sgld", num_steps=200, **settings)
        >>> longer = pb.resume(out, target, more_steps=100, progress=False)
        >>> draws.num_draws, longer.num_draws
        (20, 40)
    """
    home = SamplingDirectory.open(expanded(directory))
    try:
        home.check(target, force=force)
        call = dict(home.record["call"])
        if call["until"] is not None and until is None:
            raise InputError(
                f"{home.path} is a run until {call['until']}; give the same as until=…"
            )
        known = _method(home, call.pop("method"), call.pop("settings"), method)
        run, _ = prepare(
            target,
            known,
            {},
            callback_steps=callback_steps,
            collectors=collectors,
            observer=observer,
            until=until,
            **{k: v for k, v in call.items() if k != "until"},
        )
        template, run = _template(home, run, call["num_chains"])
        found = home.newest(template, like_settled(run, template))
        if found is None:
            raise InputError(
                f"{home.path} has no checkpoint yet: the run ended before its first one; start anew"
                " in another directory"
            )
        state, plan, stopped, looks = found
        run = replace(run, plan=replace(plan, stops=run.plan.stops))
        if more_steps:
            run, state = _longer(home, run, known, state, more_steps)
            home.lengthen(run, state, more_steps)
        elif stopped:
            # It had ended for this reason, wherever it was.
            run = replace(run, plan=_ended(run.plan, int(state.clock.step)))
            until = None
    except BaseException:
        home.close()
        raise
    run = replace(run, settings={**run.settings, "num_steps": home.steps_asked})
    home.record["status"] = "running"
    draws = run_to_end(
        run,
        state,
        callback=callback,
        until=until,
        observer=observer,
        directory=home,
        checkpoint_seconds=checkpoint_seconds,
        progress=progress,
        looks=looks,
    )
    return replace(draws, stopped=draws.stopped or ("" if more_steps else stopped))


def _method(
    home: SamplingDirectory,
    name: str,
    settings: Mapping[str, Any] | None,
    given: Method | KernelLike | None,
) -> Method | KernelLike:
    """The method that the run was begun with."""
    if given is None:
        if settings is None:
            raise InputError(
                f"{home.path} was begun with a {name} that a file cannot hold, such as a schedule "
                "or a kernel of your own; give it again as method=…"
            )
        return find_method(name)(**settings)
    if (given.name if isinstance(given, Method) else CUSTOM_KERNEL) != name:
        raise InputError(f"{home.path} was begun with {name}; give the same method, or none")
    if isinstance(given, Method) and given.written() != settings:
        now = given.written() or {}
        changed = [k for k, v in (settings or {}).items() if now.get(k) != v] or ["settings"]
        raise InputError(
            f"{home.path} was begun with another {changed[0]} of {name} "
            f"({(settings or {}).get(changed[0])}, now {now.get(changed[0])}); give the same, or "
            "no method"
        )
    return given


def _template(home: SamplingDirectory, run: Run, num_chains: int) -> tuple[RunState, Run]:
    """A state of the same structure as the stored ones, and the run that it belongs to."""
    positions = starts(jax.random.key(0), run.target, num_chains)
    leaves, structure = jax.tree.flatten(positions)
    dtypes = home.record["dtypes"]
    if len(dtypes) != len(leaves):
        raise InputError(f"{home.path} was sampled with another network; give that one")
    typed = [leaf.astype(dtype) for leaf, dtype in zip(leaves, dtypes, strict=True)]
    positions = jax.tree.unflatten(structure, typed)
    run = replace(run, block=block_draws(positions), store=home.store)
    home.store.expect("positions", positions)
    kind = home.record.get("key")
    key = jax.random.key(0, impl=kind) if kind else jax.random.PRNGKey(0)
    return init_run(key, run, positions), run


def _longer(
    home: SamplingDirectory,
    run: Run,
    known: Method | KernelLike,
    state: RunState,
    more_steps: int,
) -> tuple[Run, RunState]:
    """The run with so many more steps, as if it had been asked for them from the beginning."""
    if more_steps < 1:
        raise InputError(f"more_steps is {more_steps}; it must be at least 1")
    old = run.plan
    total = old.num_steps + more_steps
    # An optimiser's kernel does not say what its steps follow.
    schedule = getattr(known, "step_size", run.kernel.step_size)
    method = find_method(run.name) if run.name != CUSTOM_KERNEL else None
    if method is not None and method.family == "approximation":
        raise InputError(
            f"{home.path}: {run.name} draws after its fit, and a longer fit is another run; start "
            "anew"
        )
    if callable(schedule) and not isinstance(schedule, Cyclical):
        raise InputError(
            f"{home.path}: the step size of {run.name} is a schedule over {old.num_steps:,} steps, "
            "and a longer run would have had another; start anew"
        )
    if method is not None and method.point_estimate:
        # Of these only the last step counts.
        plan = Plan(total, total - 1, 1, stops=old.stops)
        return replace(run, plan=plan), restart(run, state)
    phases = old.phases or ()
    if isinstance(schedule, Cyclical):
        phases = tuple(schedule.sampling_phases(total))
    elif phases:
        phases = (*phases[:-1], (phases[-1][0], total))
    plan = replace(old, num_steps=total, phases=phases)
    num_draws = int(state.clock.num_draws)
    if (plan.draw_steps[:num_draws] != old.draw_steps[:num_draws]).any():
        raise InputError(
            f"{home.path}: a run of {total:,} steps would have kept other draws; start anew"
        )
    return replace(run, plan=plan), state


def _ended(plan: Plan, step: int) -> Plan:
    """The plan of a run that ended there."""
    phases = tuple((start, min(end, step)) for start, end in plan.phases or () if start < step)
    return replace(plan, num_steps=step, phases=phases)
