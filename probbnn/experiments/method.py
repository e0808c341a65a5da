"""One method of an experiment, from its random key to the verdict on it.

Predictions and whatever is followed along the chains are made while it samples, so that memory does
not grow with its length and no draw need be stored.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from probbnn.data.sources import num_examples
from probbnn.diagnostics import TemperatureMeters, measure_temperature
from probbnn.diagnostics.converged import Converged, Watching, kept_draws
from probbnn.experiments.memory import PeakMemory
from probbnn.experiments.record import read_value
from probbnn.experiments.records import ConvergenceRecord, CurvePoint, Meters, MethodMetrics
from probbnn.experiments.setup import PlannedMethod, Setup, sample_method
from probbnn.files import read_json, write_json
from probbnn.follow import Follow
from probbnn.inference.draws import Draws
from probbnn.inference.sample import CHECKPOINT_SECONDS
from probbnn.predictive import Predictions, predict
from probbnn.subsample import evenly_spaced

if TYPE_CHECKING:
    import xarray

__all__ = ["MethodResult", "Sampling", "predictions_of", "run_method", "watching_of"]

# The first training examples at which a learning curve looks, as the seed notebook does.
_NUM_TRAIN_CURVE = 10_000
# Inputs of the test set, of the boundary between its classes, and of each out-of-distribution set
# at which the function is followed; those of the boundary are found among more candidates.
_NUM_PROBES = 20
_NUM_CANDIDATES = 100
# Test examples of which each draw's predictions are followed.
_NUM_HELD_OUT = 100


@dataclass(frozen=True)
class Sampling:
    """How the methods of an experiment are sampled.

    Attributes:
        home: the directory in which each method has one of its own, for checkpoints, ``None`` for
            none; those that had been begun there go on.
        keep_positions: whether the draws themselves are kept, all of them.
        judged: whether methods are followed on their way, and diagnosed and judged.
        budget: until they have converged, seconds that each Markov chain method has; ``None``: as
            many steps as are planned.
        more_steps: how much longer than planned.
        force: go on although versions or machine have changed.
        checkpoint_seconds: from one checkpoint to the next.
        progress: show progress bars where stderr is a terminal.
    """

    home: Path | None = None
    keep_positions: bool = False
    judged: bool = True
    budget: float | None = None
    more_steps: int = 0
    force: bool = False
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    progress: bool = True


@dataclass(frozen=True, eq=False)
class MethodResult:
    """What one method of an experiment came to.

    Attributes:
        method: its name.
        label: what tables and figures call it.
        draws: its draws, with those positions that were kept: all, or evenly spaced ones.
        predictives: what `probbnn.predict` gives for "test" and each out-of-distribution set.
        meters: the temperature, of a Markov chain.
        metrics: what ``metrics.json`` holds for the method.
        memory: the most it needed.
        tree: its ArviZ tree, with probes and held-out examples; ``None`` if it was not judged.
    """

    method: str
    label: str
    draws: Draws
    predictives: Mapping[str, Any]
    meters: TemperatureMeters | None
    metrics: MethodMetrics
    memory: PeakMemory
    tree: "xarray.DataTree | None" = None


def run_method(setup: Setup, seed: int, name: str, sampling: Sampling) -> MethodResult:
    """Run one method, predict with it, and measure it.

    Its random key belongs to its name, so that its draws depend neither on the company that it
    runs in nor on what is made of them.

    Args:
        setup: the experiment.
        seed: seed of all random keys.
        name: which method.
        sampling: how it is to be sampled.
    """
    planned = setup.methods[name]
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    start_key, sample_key = jax.random.split(key)
    meters_key = jax.random.fold_in(key, zlib.crc32(b"temperature meters"))
    home = None if sampling.home is None else sampling.home / name
    predictions = predictions_of(setup)
    collectors = dict(predictions.collectors)
    watching = watching_of(setup, planned, meters_key, sampling) if sampling.judged else None
    if watching is not None:
        collectors |= watching.collectors(setup.target)
    curve = _LearningCurve(setup, planned.num_steps, home)
    is_followed = sampling.judged and planned.is_stepwise
    with PeakMemory() as memory:
        draws = sample_method(
            sample_key,
            setup,
            name,
            home=home,
            more_steps=sampling.more_steps,
            force=sampling.force,
            initial_positions=_common_start(start_key, setup, planned),
            callback=curve.measure if is_followed else None,
            callback_steps=curve.steps if is_followed else (),
            collectors=collectors,
            keep_positions=sampling.keep_positions,
            observer=watching if planned.method.is_markov_chain() else None,
            until=watching if isinstance(watching, Converged) else None,
            checkpoint_seconds=sampling.checkpoint_seconds,
            progress=sampling.progress,
        )
    predictives = predictions.of(draws, None if watching is None else kept_draws(draws))
    measured = setup.task.measure(
        setup.sets, predictives, setup.experiment.predictive, predictions.log_density(draws)
    )
    metrics = replace(
        measured,
        label=planned.run.label,
        temperature=draws.temperature,
        num_chains=draws.num_chains,
        num_draws=draws.num_draws,
        seconds=draws.seconds,
        compile_seconds=draws.compile_seconds,
        passes=None if draws.passes is None else float(draws.passes[-1]),
        curve=tuple(curve.points),
        stopped=draws.stopped,
    )
    if watching is None:
        meters = _meters(meters_key, setup, planned, draws)
        metrics = replace(metrics, temperature_meters=_on_record(meters))
        return MethodResult(name, planned.run.label, draws, predictives, meters, metrics, memory)
    look = watching.look(setup.target, draws)
    metrics = replace(metrics, temperature_meters=_on_record(look.meters))
    if planned.method.is_markov_chain():
        convergence, verdict = look.judged()
        record = ConvergenceRecord.from_dict(convergence.to_dict())
        metrics = replace(metrics, convergence=record, verdict=verdict)
    return MethodResult(
        name, planned.run.label, look.kept, predictives, look.meters, metrics, memory, look.tree
    )


def predictions_of(setup: Setup) -> Predictions:
    """What is predicted while a method of an experiment is sampled."""
    sets = {label: setup.target.check_inputs(e.inputs) for label, e in setup.sets.items()}
    scored = ("test", setup.test.targets) if setup.task.by_density else None
    return Predictions(setup.target, sets, scored)


def watching_of(
    setup: Setup, planned: PlannedMethod, rng_key: jax.Array, sampling: Sampling
) -> Watching:
    """What is followed of it, and who says when it has gone on for long enough."""
    inputs, first = setup.test.inputs, slice(_NUM_PROBES)
    probes = {"test": _some(inputs, first)}
    if setup.task.has_boundary:
        probes["boundary"] = _some(inputs, evenly_spaced(num_examples(inputs), _NUM_CANDIDATES))
    probes |= {label: _some(examples.inputs, first) for label, examples in setup.ood.items()}
    follow = Follow.of(setup.target, probes, setup.test.data, _NUM_PROBES, _NUM_HELD_OUT)
    settings: dict[str, Any] = {
        "follow": follow,
        "num_chains": planned.num_chains,
        "rng_key": rng_key,
    }
    if sampling.budget is not None and planned.method.is_markov_chain():
        return Converged(max_seconds=sampling.budget, **settings)
    return Watching(**settings)


def _some(inputs: Any, which: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[which], inputs)


def _common_start(rng_key: jax.Array, setup: Setup, planned: PlannedMethod) -> Any:
    """One initialisation plus a little noise for each chain, or None for the default starts."""
    if planned.run.start_spread is None:
        return None
    init_key, noise_key = jax.random.split(rng_key)
    starts = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (planned.num_chains, *leaf.shape)),
        setup.target.init(init_key),
    )
    noise = optax.tree.random_like(noise_key, starts)
    return optax.tree.add_scale(starts, planned.run.start_spread, noise)


class _LearningCurve:
    """How good all chains together are on training and test data, at a few steps of a run.

    In a file of its own, so that a run that is resumed has the points of before.
    """

    def __init__(self, setup: Setup, num_steps: int, home: Path | None) -> None:
        experiment = setup.experiment
        # Rounded down, as the seed notebook has it.
        steps = np.linspace(0, num_steps - 1, experiment.curve_points + 1).astype(int)
        self.steps = np.unique(1 + steps).tolist()
        self._setup = setup
        self._name = experiment.curve_predictive
        self._path = None if home is None else home / "curve.json"
        self._points: dict[int, CurvePoint] = {}

    @property
    def points(self) -> list[CurvePoint]:
        """Those that were measured, in order."""
        if self._path is not None and self._path.is_file():
            known = read_value(tuple[CurvePoint, ...], read_json(self._path), self._path.name)
            self._points = {point.step: point for point in known} | self._points
        return [self._points[step] for step in sorted(self._points)]

    def measure(self, step: int, positions: Any) -> None:
        """Measure a point."""
        chains = Draws(jax.tree.map(lambda leaf: leaf[:, None], positions), "learning curve")
        train, test = (
            self._setup.task.score(
                predict(self._setup.target, chains, _some(examples.inputs, slice(number))),
                _some(examples.targets, slice(number)),
                self._name,
            )
            for examples, number in (
                (self._setup.train, _NUM_TRAIN_CURVE),
                (self._setup.test, None),
            )
        )
        self._points[step] = CurvePoint(step, train, test)
        if self._path is not None:
            write_json(self._path, self.points)


def _meters(
    rng_key: jax.Array, setup: Setup, planned: PlannedMethod, draws: Draws
) -> TemperatureMeters | None:
    if draws.temperature is None or not planned.method.is_markov_chain():
        return None
    return measure_temperature(rng_key, setup.target, draws)


def _on_record(meters: TemperatureMeters | None) -> Meters | None:
    return None if meters is None else Meters.from_dict(meters.to_dict())
