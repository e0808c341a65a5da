"""A preset made real: its data, its log density, and its methods run on them."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import optax

from probbnn import models
from probbnn.data import (
    REGRESSIONS,
    Dataset,
    Regression,
    load,
    load_regression,
    out_of_distribution,
    stretch,
)
from probbnn.data import sources as minibatch
from probbnn.errors import InputError
from probbnn.experiments.experiment import MethodRun
from probbnn.experiments.presets import Preset
from probbnn.files import claim
from probbnn.inference.draws import Draws
from probbnn.inference.sample import sample
from probbnn.inference.whole_chains import Sampler
from probbnn.posterior.flax import LogDensity
from probbnn.posterior.likelihoods import LearnedGaussian
from probbnn.samplers.base import Kernel
from probbnn.samplers.registry import find_method

__all__ = ["Problem", "begin", "check_method", "prepare", "sample_method"]


@dataclass(frozen=True)
class Problem:
    """What all methods of a preset share.

    Attributes:
        target: the log density, which holds the training data.
        train: training data.
        test: held-out data.
        ood: out-of-distribution data, by label.
    """

    target: LogDensity
    train: Dataset | Regression
    test: Dataset | Regression
    ood: Mapping[str, Dataset | Regression]

    @property
    def sets(self) -> dict[str, Dataset | Regression]:
        """Everything that is predicted, by label; ``"test"`` first."""
        return {"test": self.test, **self.ood}


def prepare(
    preset: Preset, data_dir: str | os.PathLike[str] | None = None, *, progress: bool = True
) -> Problem:
    """Load a preset's data and make its log density; all its settings are checked on the way.

    Args:
        preset: which one.
        data_dir: see `probbnn.load`.
        progress: show progress bars where stderr is a terminal.

    Raises:
        InputError: if data are missing or settings do not fit.
    """
    train: Dataset | Regression
    test: Dataset | Regression
    ood: dict[str, Dataset | Regression]
    if preset.dataset in REGRESSIONS:
        train, test = load_regression(preset.dataset)
        ood = {label: stretch(test) for label in preset.ood}
    else:
        train, test = load(preset.dataset, data_dir, progress=progress)
        ood = {
            label: out_of_distribution(test, kind, data_dir, progress=progress)
            for label, kind in preset.ood.items()
        }
    model_name, arguments = preset.model
    target = LogDensity(
        getattr(models, model_name)(**arguments),
        train,
        likelihood=LearnedGaussian() if isinstance(train, Regression) else None,
        prior_scale=preset.prior_scale,
    )
    for name, method in preset.methods.items():
        check_method(target, name, method, preset.batch_size)
    return Problem(target, train, test, ood)


def begin(
    preset: Preset,
    directory: str | os.PathLike[str],
    seed: int,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    progress: bool = True,
) -> tuple[Path, Problem]:
    """Claim the directory of a run or comparison and prepare its preset.

    Raises:
        InputError: if seed or directory cannot be used, or `prepare` refuses; nothing is left
            behind then.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; it must be from 0 to 2**32 - 1")
    directory = Path(directory)
    is_new = claim(directory)
    try:
        return directory, prepare(preset, data_dir, progress=progress)
    except InputError:
        if is_new:
            directory.rmdir()
        raise


def check_method(
    target: LogDensity, name: str, method: MethodRun, batch_size: int
) -> Kernel | Sampler:
    """What the method runs; `InputError` unless it can run like this."""
    if method.num_steps < 1 or method.num_chains < 1:
        raise InputError(
            f"{name} has {method.num_steps} steps and {method.num_chains} chains; both must be "
            "at least 1"
        )
    minibatch.check_batch_size(target.data_size, batch_size)
    return find_method(name).build(target, _num_warmup(method), _settings(method))


def sample_method(
    rng_key: jax.Array,
    target: LogDensity,
    name: str,
    method: MethodRun,
    batch_size: int,
    *,
    initial_positions: Any = None,
    callback: Callable[[int, Any], None] | None = None,
    callback_steps: Sequence[int] = (),
    progress: bool = True,
) -> Draws:
    """`probbnn.sample` as a preset's row asks for it; see there.

    Raises:
        DivergenceError: when a chain becomes non-finite.
    """
    num_warmup = _num_warmup(method)
    draws = sample(
        rng_key,
        target,
        name,
        num_chains=method.num_chains,
        num_steps=method.num_steps,
        num_warmup=num_warmup,
        thinning=max(1, -(-(method.num_steps - num_warmup) // method.draws)),
        batch_size=None if find_method(name).full_data else batch_size,
        shared_minibatches=method.shared_minibatches,
        initial_positions=initial_positions,
        callback=callback,
        callback_steps=callback_steps,
        progress=progress,
        **_settings(method),
    )
    # On record is the schedule as the preset wrote it, not the function made of it.
    return replace(draws, settings={**draws.settings, **method.settings})


def _num_warmup(method: MethodRun) -> int:
    return min(int(method.warmup * method.num_steps), method.num_steps - 1)


def _settings(method: MethodRun) -> dict[str, Any]:
    """The method's settings with schedules made into functions of the step."""
    settings = dict(method.settings)
    step_size = settings.get("step_size")
    if isinstance(step_size, Mapping):
        start, end = step_size["start"], step_size["end"]
        settings["step_size"] = optax.cosine_decay_schedule(start, method.num_steps, end / start)
    return settings
