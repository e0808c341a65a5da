"""An experiment made real: its data, its log density, and its methods, all checked."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from numbers import Integral
from pathlib import Path
from typing import Any

import jax
import numpy as np

from probbnn.checks import check_whole
from probbnn.data.sources import check_batch_size
from probbnn.errors import InputError, one_of, requires
from probbnn.experiments.evaluation import Task, task_of
from probbnn.experiments.examples import Examples
from probbnn.experiments.experiment import Cosine, Experiment, MethodRun
from probbnn.experiments.presets import Preset
from probbnn.experiments.records import ExperimentRecord, RunRecord, read
from probbnn.files import claim, expanded
from probbnn.inference.directory import is_begun, steps_asked
from probbnn.inference.draws import Draws
from probbnn.inference.memory import check_memory
from probbnn.inference.resume import resume
from probbnn.inference.sample import DEFAULT_BATCH_SIZE, sample
from probbnn.posterior.flax import LogDensity
from probbnn.predictive import predict
from probbnn.samplers.base import Method
from probbnn.samplers.registry import find_method

__all__ = ["PlannedMethod", "Setup", "begin", "prepare", "sample_method"]


@dataclass(frozen=True)
class PlannedMethod:
    """A row of an experiment with nothing left open.

    Attributes:
        method: what the registry says of it.
        run: the row, with its label and numbers filled in.
        num_chains: chains, or members of an ensemble.
        num_steps: steps per chain, warm-up included.
        num_warmup: first steps, from which nothing is kept.
        thinning: steps per kept draw; ``None`` for fits, whose draws are all kept.
        batch_size: examples per minibatch; ``None`` for a method on all the data.
        settings: the method's own settings, schedules as functions of the step.
        is_stepwise: whether it steps through minibatches, and can be looked at on its way.
    """

    method: type[Method]
    run: MethodRun
    num_chains: int
    num_steps: int
    num_warmup: int
    thinning: int | None
    batch_size: int | None
    settings: Mapping[str, Any]
    is_stepwise: bool

    def __str__(self) -> str:
        chains = f"{self.num_chains} x " if self.num_chains > 1 else ""
        return f"{self.method.name}, {chains}{self.num_steps:,} steps"


@dataclass(frozen=True, eq=False)
class Setup:
    """What all methods of an experiment share.

    Attributes:
        experiment: what was asked for, nothing left open.
        target: the log density, which holds the training data.
        train: training data.
        test: held-out data.
        ood: data from elsewhere, by label.
        task: what the predictions are measured by.
        methods: the rows in order, by the name of the method.
    """

    experiment: Experiment
    target: LogDensity
    train: Examples
    test: Examples
    ood: Mapping[str, Examples]
    task: Task
    methods: Mapping[str, PlannedMethod]

    @property
    def sets(self) -> dict[str, Examples]:
        """Everything that is predicted, by label; ``"test"`` first."""
        return {"test": self.test, **self.ood}

    @property
    def record(self) -> ExperimentRecord:
        """What goes on record of the experiment."""
        experiment = self.experiment
        return ExperimentRecord(
            name=experiment.name,
            summary=experiment.summary,
            model=_describe_module(experiment.module),
            likelihood=repr(self.target.likelihood),
            prior_scale=experiment.prior_scale
            if experiment.prior is None
            else repr(self.target.prior),
            batch_size=experiment.batch_size,
            methods={name: planned.run for name, planned in self.methods.items()},
            predictive=experiment.predictive,
            curve_predictive=experiment.curve_predictive,
            curve_points=experiment.curve_points,
        )


def begin(
    experiment: Experiment | Preset,
    directory: str | os.PathLike[str],
    seed: int,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    progress: bool = True,
) -> tuple[Path, Setup]:
    """Claim the directory of a run or comparison, and prepare its experiment.

    Args:
        experiment: what is to run. A preset's data are loaded once the directory is claimed.
        directory: where to write.
        seed: of all random keys.
        data_dir: see `probbnn.load`; of a preset.
        progress: show progress bars where stderr is a terminal.

    Raises:
        InputError: if seed or directory cannot be used, data are missing, or `prepare` refuses;
            nothing is left behind then.
    """
    with requires("a run directory", extra="report"):  # now, and not when all is computed
        for package in ("h5netcdf", "jinja2", "matplotlib", "psutil"):
            import_module(package)
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise InputError(f"seed is {seed!r}; a whole number is expected")
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; it must be from 0 to 2**32 - 1")
    directory = expanded(directory)
    if _is_unfinished(directory):
        raise InputError(
            f"{directory} holds a run that has not finished; go on with `probbnn resume "
            f"{directory}`, or choose another directory with --out"
        )
    claimed = claim(directory)
    try:
        if isinstance(experiment, Preset):
            experiment = experiment.load(data_dir, progress=progress)
        return directory, prepare(experiment)
    except BaseException:
        claimed.give_up()
        raise


def _is_unfinished(directory: Path) -> bool:
    try:
        record = read(RunRecord, directory)
    except InputError:
        return False
    return record is not None and record.status != "finished"


def prepare(experiment: Experiment) -> Setup:
    """Make the log density of an experiment, and check everything that can be checked at once.

    Raises:
        InputError: if data, network, likelihood, prior or settings do not fit each other.
    """
    train, test = (Examples.of(getattr(experiment, k), k) for k in ("train", "test"))
    ood = {label: Examples.outside(data, label) for label, data in experiment.ood.items()}
    if "test" in ood or "train" in ood:
        raise InputError("ood has a set called train or test; call it something else")
    if not experiment.methods:
        raise InputError(
            f"experiment {experiment.name} has no methods; give some, such as methods="
            "{'psgld': MethodRun()}"
        )
    target = LogDensity(
        experiment.module,
        experiment.train,
        likelihood=experiment.likelihood,
        prior_scale=experiment.prior_scale if experiment.prior is None else None,
        prior=experiment.prior,
        trainable=experiment.trainable,
        variables=experiment.variables,
        images=experiment.images,
        standardise=experiment.standardise,
        weights=experiment.weights,
    )
    for examples in (test, *ood.values()):
        target.check_inputs(examples.inputs)
    train, test = (
        replace(examples, targets=target.check_targets(examples.targets, examples.inputs))
        for examples in (train, test)
    )
    batch_size = experiment.batch_size
    check_whole(batch_size=batch_size)
    if batch_size is None:
        batch_size = min(DEFAULT_BATCH_SIZE, target.data_size)
    check_batch_size(target.data_size, batch_size)
    methods = {
        name: _plan(target, name, run, batch_size) for name, run in experiment.methods.items()
    }
    one = jax.tree.map(lambda leaf: leaf[:1], test.inputs)
    task = task_of(predict(target, _one_draw(target), one))
    known, usual = task.predictives, task.predictives[0]
    experiment = replace(
        experiment,
        batch_size=batch_size,
        predictive=one_of(experiment.predictive or usual, known, "predictive"),
        curve_predictive=one_of(experiment.curve_predictive or usual, known, "predictive"),
    )
    return Setup(experiment, target, train, test, ood, task, methods)


def sample_method(
    rng_key: jax.Array,
    setup: Setup,
    name: str,
    *,
    home: Path | None = None,
    more_steps: int = 0,
    force: bool = False,
    initial_positions: Any = None,
    callback_steps: Sequence[int] = (),
    keep_positions: bool = True,
    **watched: Any,
) -> Draws:
    """`probbnn.sample` as a row of an experiment asks for it; see there.

    Args:
        rng_key: the only source of randomness.
        setup: the experiment.
        name: which row.
        home: the directory of this row, from which it goes on if it had been begun there.
        more_steps: how many more than planned, whether it had been begun or not.
        force: see `probbnn.resume`.
        initial_positions: where chains start.
        callback_steps: where it is looked at.
        keep_positions: whether the draws themselves are kept.
        **watched: what else both take.

    Raises:
        DivergenceError: when all chains become non-finite.
    """
    planned = setup.methods[name]
    watched["callback_steps"] = callback_steps
    if home is not None and is_begun(home):
        method = planned.method.of(planned.settings)
        missing = planned.num_steps + more_steps - steps_asked(home)
        draws = resume(home, setup.target, method, more_steps=missing, force=force, **watched)
    else:
        draws = sample(
            rng_key,
            setup.target,
            name,
            num_chains=planned.num_chains,
            num_steps=planned.num_steps + more_steps,
            num_warmup=planned.num_warmup,
            thinning=planned.thinning,
            batch_size=planned.batch_size,
            shared_minibatches=planned.run.shared_minibatches,
            initial_positions=initial_positions,
            keep_positions=keep_positions,
            out=home,
            **watched,
            **planned.settings,
        )
    return replace(draws, settings={**draws.settings, **planned.run.settings})


def _one_draw(target: LogDensity) -> Draws:
    position = target.init(jax.random.key(0))
    return Draws(jax.tree.map(lambda leaf: np.asarray(leaf)[None, None], position), "none")


def _plan(target: LogDensity, name: str, run: MethodRun, batch_size: int) -> PlannedMethod:
    """Fill in a row, and see that it can run like this."""
    method = find_method(name)
    num_chains = method.default_chains if run.num_chains is None else run.num_chains
    num_steps = method.default_steps if run.num_steps is None else run.num_steps
    check_whole(num_steps=num_steps, num_chains=num_chains)
    check_whole(draws=run.draws)
    if num_steps < 1 or num_chains < 1:
        raise InputError(
            f"{name} has {num_steps} steps and {num_chains} chains; both must be at least 1"
        )
    if run.draws < 1 or not 0 <= run.warmup < 1:
        raise InputError(
            f"{name} keeps {run.draws} draws after a warm-up of {run.warmup} of its steps; "
            "expected at least 1 draw, and a warm-up from 0 to less than 1"
        )
    num_warmup = min(int(run.warmup * num_steps), num_steps - 1)
    settings = {
        key: value.over(num_steps) if isinstance(value, Cosine) else value
        for key, value in run.settings.items()
    }
    # Built to see that it can run like this.
    is_fit = method.family == "approximation"
    try:
        method.of(settings).build(
            target, num_warmup=num_steps if is_fit else num_warmup, batch_size=batch_size
        )
    except InputError:
        raise
    except Exception:
        # What its library makes of this is said when it runs, and stops none of the others.
        pass
    fitted = method.of(settings).num_fitted_draws
    check_memory(target, num_chains, min(run.draws, num_steps) if fitted is None else fitted)
    return PlannedMethod(
        method=method,
        run=replace(
            run,
            label=run.label or name,
            num_chains=num_chains,
            num_steps=num_steps,
            settings={key: _as_written(value) for key, value in run.settings.items()},
        ),
        num_chains=num_chains,
        num_steps=num_steps,
        num_warmup=num_warmup,
        thinning=None if is_fit else max(1, -(-(num_steps - num_warmup) // run.draws)),
        batch_size=None if method.full_data else batch_size,
        settings=settings,
        is_stepwise=method.family in ("optimisation", "SG-MCMC"),
    )


def _describe_module(module: Any) -> tuple[str, dict[str, Any]]:
    """Name of a module's class, and those of its arguments that are not the defaults."""
    if isinstance(module, tuple):  # (init, apply)
        module = module[-1]
    name = getattr(module, "__name__", type(module).__name__)
    if not dataclasses.is_dataclass(module):
        return name, {}
    given = {
        f.name: (_as_written(getattr(module, f.name)), _as_written(f.default))
        for f in dataclasses.fields(module)
        if f.name not in ("parent", "name")  # which Linen adds: the place in a tree of modules
    }
    return name, {key: value for key, (value, default) in given.items() if value != default}


def _as_written(value: Any) -> Any:
    """A setting for the record: what JSON has no word for as Python writes it."""
    if value is None or isinstance(value, bool | int | float | str | list | tuple | Mapping):
        return value
    # A function's own repr has its address, which differs from run to run.
    return getattr(value, "__qualname__", repr(value))
