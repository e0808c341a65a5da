"""One method of an experiment, from its random key to the verdict on it."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from probbnn.datatree import to_datatree
from probbnn.diagnostics import TemperatureMeters, diagnose, judge, measure_temperature
from probbnn.experiments.memory import PeakMemory
from probbnn.experiments.records import ConvergenceRecord, CurvePoint, Meters, MethodMetrics
from probbnn.experiments.setup import PlannedMethod, Setup, sample_method
from probbnn.inference.draws import Draws
from probbnn.predictive import predict

if TYPE_CHECKING:
    import xarray

__all__ = ["MethodResult", "run_method"]

# The first training examples at which a learning curve looks, as the seed notebook does.
_NUM_TRAIN_CURVE = 10_000
# Inputs of the test set, of the boundary between its classes, and of each out-of-distribution set
# at which the function is followed.
_NUM_PROBES = 20


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


def run_method(
    setup: Setup, seed: int, name: str, *, judged: bool, progress: bool = True
) -> MethodResult:
    """Run one method, predict with it, and measure it.

    Its random key belongs to its name, so that its draws depend neither on the company that it
    runs in nor on what is made of them.

    Args:
        setup: the experiment.
        seed: seed of all random keys.
        name: which method.
        judged: whether to follow it on its way, and to diagnose and judge its draws.
        progress: show a progress bar where stderr is a terminal.
    """
    planned = setup.methods[name]
    key = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    start_key, sample_key = jax.random.split(key)
    curve = _LearningCurve(setup, planned.num_steps)
    is_followed = judged and planned.is_stepwise
    with PeakMemory() as memory:
        draws = sample_method(
            sample_key,
            setup,
            name,
            initial_positions=_common_start(start_key, setup, planned),
            callback=curve.measure if is_followed else None,
            callback_steps=curve.steps if is_followed else (),
            progress=progress,
        )
    predictives = {
        label: predict(setup.target, draws, examples.inputs)
        for label, examples in setup.sets.items()
    }
    meters = _meters(jax.random.fold_in(key, zlib.crc32(b"temperature meters")), setup, name, draws)
    metrics = replace(
        setup.task.measure(
            setup.target, draws, setup.sets, predictives, setup.experiment.predictive
        ),
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
    result = MethodResult(name, planned.run.label, draws, predictives, meters, metrics, memory)
    return _judge(setup, result) if judged else result


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
    if draws.temperature is None or not setup.methods[name].method.is_markov_chain():
        return None
    return measure_temperature(rng_key, setup.target, draws)


def _judge(setup: Setup, result: MethodResult) -> MethodResult:
    """The result with its tree and, of a Markov chain, diagnostics and verdict."""
    tree = to_datatree(
        result.draws,
        setup.target,
        _probes(setup, result),
        held_out=setup.test.data,
        meters=result.meters,
    )
    if not setup.methods[result.method].method.is_markov_chain():
        return replace(result, tree=tree)
    convergence = diagnose(tree)
    metrics = replace(
        result.metrics,
        convergence=ConvergenceRecord.from_dict(convergence.to_dict()),
        verdict=judge(convergence, result.meters, result.draws.settings),
    )
    return replace(result, tree=tree, metrics=metrics)


def _probes(setup: Setup, result: MethodResult) -> dict[str, np.ndarray]:
    at = setup.task.boundary(result.predictives["test"], _NUM_PROBES)
    probes = {
        "test": setup.test.inputs[:_NUM_PROBES],
        "boundary": setup.test.inputs[at],
        **{label: examples.inputs[:_NUM_PROBES] for label, examples in setup.ood.items()},
    }
    return {label: inputs for label, inputs in probes.items() if len(inputs)}
