"""The methods of an experiment, one after another: keys, starts, predictions and failures."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from probbnn.diagnostics import TemperatureMeters, measure_temperature
from probbnn.errors import InputError, first_line
from probbnn.experiments.memory import PeakMemory
from probbnn.experiments.records import CurvePoint, Meters, MethodMetrics
from probbnn.experiments.setup import PlannedMethod, Setup, sample_method
from probbnn.inference.draws import Draws
from probbnn.inference.runner import DivergenceError
from probbnn.predictive import predict

if TYPE_CHECKING:
    import xarray

__all__ = ["Failure", "Keeper", "MethodResult", "run_methods"]

# The first training examples at which a learning curve looks, as the seed notebook does.
_NUM_TRAIN_CURVE = 10_000
# Draws of all chains that the temperature is measured on; fewer, where a gradient over all the
# data is expensive, so that it takes about so many examples' gradients: a minute of MNIST's.
_NUM_METER_DRAWS = 200
_METER_EXAMPLES = 2_400_000


@dataclass(frozen=True, eq=False)
class MethodResult:
    """What one method of an experiment came to.

    Attributes:
        method: its name.
        label: what tables and figures call it.
        draws: its draws.
        predictives: what `probbnn.predict` gives for "test" and each out-of-distribution set.
        meters: the temperature, of a Markov chain.
        metrics: what ``metrics.json`` holds for the method.
        memory: the most it needed.
        tree: its ArviZ tree, with probes and held-out examples; of a run.
    """

    method: str
    label: str
    draws: Draws
    predictives: Mapping[str, Any]
    meters: TemperatureMeters | None
    metrics: MethodMetrics
    memory: PeakMemory
    tree: "xarray.DataTree | None" = None


@dataclass(frozen=True)
class Failure:
    """Why a method did not finish.

    Attributes:
        reason: one line.
        diverged: whether a chain became non-finite, rather than anything else.
    """

    reason: str
    diverged: bool

    @classmethod
    def of(cls, error: Exception) -> "Failure":
        """What an exception says, by its name if it is none of ours."""
        ours = isinstance(error, DivergenceError | InputError)
        reason = first_line(error) if ours else f"{type(error).__name__}: {first_line(error)}"
        return cls(reason, isinstance(error, DivergenceError))


class Keeper(Protocol):
    """Where results go as they come."""

    def add(self, result: MethodResult) -> MethodResult:
        """Keep a method that finished, and return it with what was found out on the way."""

    def add_failure(self, name: str, failure: Failure) -> None:
        """Keep that a method did not finish, in `add` included."""


def run_methods(
    setup: Setup,
    seed: int,
    keeper: Keeper,
    *,
    learning_curves: bool,
    progress: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[list[MethodResult], dict[str, str]]:
    """Run all methods of an experiment on the same log density.

    Whatever a method raises, a bug in its library included, is its own affair and does not stop
    the others. Its random key belongs to its name, so that its draws depend neither on the
    company that it runs in nor on what is made of them.

    Args:
        setup: the experiment.
        seed: seed of all random keys.
        keeper: is given each result as it comes.
        learning_curves: whether to look at methods on their way.
        progress: show progress bars where stderr is a terminal.
        log: called with one line at each stage.

    Returns:
        The results of those that finished, in order, and for the others the reason by name.
    """
    results, failures = [], {}
    for name, planned in setup.methods.items():
        log(f"{planned.run.label}: {planned}")
        try:
            result = _run_method(setup, seed, name, learning_curves, progress)
            results.append(keeper.add(result))
        except Exception as error:
            failure = Failure.of(error)
            failures[name] = failure.reason
            log(f"{name} failed: {failure.reason}")
            keeper.add_failure(name, failure)
    return results, failures


def _run_method(
    setup: Setup, seed: int, name: str, learning_curve: bool, progress: bool
) -> MethodResult:
    planned = setup.methods[name]
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    start_key, sample_key = jax.random.split(key)
    curve = _LearningCurve(setup, planned.num_steps)
    looks = learning_curve and planned.is_stepwise
    with PeakMemory() as memory:
        draws = sample_method(
            sample_key,
            setup,
            name,
            initial_positions=_common_start(start_key, setup, planned),
            callback=curve.measure if looks else None,
            callback_steps=curve.steps if looks else (),
            progress=progress,
        )
    predictives = {
        label: predict(setup.target, draws, examples.inputs)
        for label, examples in setup.sets.items()
    }
    meters = _meters(jax.random.fold_in(key, zlib.crc32(b"temperature meters")), setup, name, draws)
    measured = setup.task.measure(
        setup.target, draws, setup.sets, predictives, setup.experiment.predictive
    )
    metrics = replace(
        measured,
        label=planned.run.label,
        temperature=draws.temperature,
        temperature_meters=None if meters is None else Meters.from_dict(meters.to_dict()),
        num_chains=draws.num_chains,
        num_draws=draws.num_draws,
        seconds=draws.seconds,
        compile_seconds=draws.compile_seconds,
        passes=None if draws.passes is None else float(draws.passes[-1]),
        curve=tuple(curve.points),
    )
    return MethodResult(name, planned.run.label, draws, predictives, meters, metrics, memory)


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
    """How good all chains together are on training and test data, at a few steps of a run."""

    def __init__(self, setup: Setup, num_steps: int) -> None:
        experiment = setup.experiment
        # Rounded down, as the seed notebook has it.
        steps = np.linspace(0, num_steps - 1, experiment.curve_points + 1).astype(int)
        self.steps = np.unique(1 + steps).tolist()
        self.points: list[CurvePoint] = []
        self._setup = setup
        self._name = experiment.curve_predictive

    def measure(self, step: int, positions: Any) -> None:
        chains = Draws(jax.tree.map(lambda leaf: leaf[:, None], positions), "learning curve")
        train, test = (
            self._setup.task.score(
                predict(self._setup.target, chains, examples.inputs[:number]),
                examples.targets[:number],
                self._name,
            )
            for examples, number in (
                (self._setup.train, _NUM_TRAIN_CURVE),
                (self._setup.test, None),
            )
        )
        self.points.append(CurvePoint(step, train, test))


def _meters(rng_key: jax.Array, setup: Setup, name: str, draws: Draws) -> TemperatureMeters | None:
    if draws.temperature is None or not setup.methods[name].method.is_markov_chain:
        return None
    num_draws = min(_NUM_METER_DRAWS, _METER_EXAMPLES // setup.target.data_size)
    return measure_temperature(rng_key, setup.target, draws, num_draws=max(1, num_draws))
