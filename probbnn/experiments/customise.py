"""A preset with the changes that the options of the command line make to it.

Importing this module is cheap, and nothing is loaded for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from probbnn.errors import InputError, is_positive
from probbnn.experiments.experiment import MethodRun
from probbnn.experiments.presets import Preset, find_preset
from probbnn.samplers.registry import LINES, find_method

__all__ = ["Request", "asked_for", "customise"]


@dataclass(frozen=True)
class Request:
    """A preset, and what is to be changed in it; see `customise`.

    Attributes:
        preset: its name.
        methods: only these.
        num_chains: of all methods but point estimates; this and the others ``None`` for no change.
        num_steps: steps per chain.
        batch_size: examples per minibatch.
        prior_scale: σ of the Gaussian prior.
        step_size: of a single method.
        temperature: of the methods that have one.
    """

    preset: str = ""
    methods: tuple[str, ...] | None = None
    num_chains: int | None = None
    num_steps: int | None = None
    batch_size: int | None = None
    prior_scale: float | None = None
    step_size: float | None = None
    temperature: float | None = None


def customise(
    preset: Preset,
    *,
    methods: Sequence[str] | None = None,
    num_chains: int | None = None,
    num_steps: int | None = None,
    batch_size: int | None = None,
    prior_scale: float | None = None,
    step_size: float | None = None,
    temperature: float | None = None,
) -> Preset:
    """A preset with everything changed that is given.

    Args:
        preset: what to change.
        methods: only these methods; one that the preset lacks runs with its default settings.
        num_chains: chains, except for point estimates.
        num_steps: steps per chain, warm-up included.
        batch_size: examples per minibatch.
        prior_scale: σ of the Gaussian prior.
        step_size: a constant one, for a single method.
        temperature: of the methods that have one.

    Raises:
        InputError: if a method is unknown, or a change fits none of the methods.

    Examples:
        >>> from probbnn.experiments.presets import find_preset
        >>> shorter = customise(find_preset("digits"), methods=["map", "nuts"], num_steps=100)
        >>> {name: run.num_steps for name, run in shorter.methods.items()}
        {'map': 100, 'nuts': 100}
    """
    runs = dict(preset.methods) if methods is None else _choose(preset, methods)
    if step_size is not None and len(runs) != 1:
        raise InputError(
            f"--step-size {step_size} was given for {len(runs)} methods, which need different "
            f"ones; choose one with --method ({', '.join(runs)})"
        )
    if temperature is not None:
        if not is_positive(temperature):
            raise InputError(f"--temperature is {temperature}; it must be positive and finite")
        if not any(_has_temperature(name) for name in runs):
            raise InputError(f"--temperature was given, and {', '.join(runs)} has none")
    if num_chains is not None and all(find_method(name).default_chains == 1 for name in runs):
        raise InputError(f"--chains was given, and {', '.join(runs)} has one; use ensemble")
    if batch_size is not None and all(find_method(name).full_data for name in runs):
        raise InputError(
            f"--batch-size was given, and {', '.join(runs)} takes all the data at each step"
        )
    settings = {"step_size": step_size, "temperature": temperature}
    fields = {"batch_size": batch_size, "prior_scale": prior_scale}
    return replace(
        preset,
        methods={
            name: _customise(name, run, num_chains, num_steps, _given(settings))
            for name, run in runs.items()
        },
        changes={**preset.changes, **_given(fields)},
    )


def asked_for(request: Request) -> Preset:
    """The preset that was asked for.

    Raises:
        InputError: as `customise`, or if there is no such preset.
    """
    changes = {f.name: getattr(request, f.name) for f in fields(request) if f.name != "preset"}
    return customise(find_preset(request.preset), **changes)


def _choose(preset: Preset, names: Sequence[str]) -> dict[str, MethodRun]:
    """The named methods: as the preset runs them, or by their defaults."""
    chosen = [find_method(name) for name in names]
    # A step on minibatches and one of a method on all the data, or of a fit, do not compare.
    steps = max(run.num_steps or 0 for name, run in preset.methods.items() if _is_stepwise(name))
    # Not the bare name: a preset may use it as the label of another row.
    return {
        method.name: preset.methods.get(
            method.name,
            MethodRun(
                f"{method.backend}-{method.name}",
                num_steps=(steps or None) if _is_stepwise(method.name) else None,
            ),
        )
        for method in chosen
    }


def _customise(
    name: str,
    run: MethodRun,
    num_chains: int | None,
    num_steps: int | None,
    settings: Mapping[str, Any],
) -> MethodRun:
    if not _has_temperature(name):
        settings = {key: value for key, value in settings.items() if key != "temperature"}
    fixed = find_method(name).default_chains == 1
    return replace(
        run,
        settings={**run.settings, **settings},
        num_chains=run.num_chains if fixed or num_chains is None else num_chains,
        num_steps=run.num_steps if num_steps is None else num_steps,
    )


def _is_stepwise(name: str) -> bool:
    return LINES[name].family in ("optimisation", "SG-MCMC")


def _has_temperature(name: str) -> bool:
    return "temperature" in find_method(name).defaults()


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
