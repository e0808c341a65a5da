"""The temperature at which a run sampled: three meters, each with its interval, and a verdict.

- The **gradient-noise ratio** predicts: by how much the noise of minibatch gradients raises the
  temperature. A step of SGLD injects noise of variance 2hT and adds h²·Var[ĝ] with its gradient,
  so that coordinate i sits at T + ½h·Var[ĝ_i]; other kernels differ by their
  `Kernel.noise_gain`. The ratio is the mean of this excess over the coordinates, over T. It holds
  for what forgets within an epoch. Minibatches are drawn without replacement, their noise sums
  to zero over each epoch, and slower directions are heated less than it says: it is an upper bound,
  and where the configurational temperature excludes it, that decides.
- The **configurational temperature** measures: −⟨θ − c, ∇logdensity(θ)⟩/d has the expectation T
  under p(θ)^{1/T} (integrate by parts), coordinate by coordinate, whatever p is and for any c that
  does not depend on θ. The mean of the *other* chains is such a c, and takes most of the noise
  away. The meter sees minibatch noise, a step size that is too large, and chains that have not
  arrived.
- The **kinetic temperature**, ‖u‖²/d of kernels with momentum, has the expectation T too. It
  settles within a few steps, long before the positions do.

Sources: Welling & Teh (2011), "Bayesian learning via stochastic gradient Langevin dynamics",
sec. 4 (the noise of the two kinds); Wenzel et al. (2020), "How good is the Bayes posterior in deep
neural networks really?", app. I (both temperatures as diagnostics).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from probbnn.checks import check_key, check_number, check_whole
from probbnn.diagnostics import ranks
from probbnn.errors import InputError
from probbnn.inference.draws import Draws
from probbnn.metrics import Interval
from probbnn.metrics.bootstrap import rounded
from probbnn.posterior.base import Posterior
from probbnn.subsample import evenly_spaced
from probbnn.tree import layers
from probbnn.types import Position

__all__ = ["TOLERANCE", "TemperatureMeters", "measure_temperature"]

TOLERANCE = 0.1
"""How far a temperature may be from T, relatively, unless `measure_temperature` is told."""

# The standard errors to be reached, in units of the tolerance: a temperature that is right is then
# called wrong once in two million times, that of a layer once in two thousand.
_AIM = 1 / 5
_LAYERS_AIM = 1 / 3.5
# Draws to begin with, and examples whose gradients may be taken in the end, unless a number of
# draws is asked for: a minute of MNIST's network.
_FIRST_DRAWS = 100
_MAX_EXAMPLES = 2_400_000
# Draws of a chain at once.
_BLOCK = 25
# How often some layer's whole interval is to one side of the true temperature, where all are right.
_FALSE_ALARMS = 0.005


@dataclass(frozen=True)
class TemperatureMeters:
    """What `measure_temperature` found. Intervals are ±2 Monte-Carlo standard errors.

    Attributes:
        temperature: T, what the run was asked to sample at.
        configurational: mean over draws of −⟨θ − c, ∇logdensity(θ)⟩/d.
        configurational_by_layer: the same within each layer.
        gradient_noise: the part of T that minibatch noise adds (0.5: it sits at 1.5 T); ``None``
            where the kernel does not say how gradient noise heats it, as BlackJAX's SGHMC and
            SGNHT do not.
        gradient_noise_by_layer: the same within each layer.
        kinetic: mean over the draws of ‖u‖²/d; ``None`` without momentum.
        num_parameters: d. At one instant a kinetic temperature is within T(1 ± 2√(2/d)).
        tolerance: how far from T a temperature may be, relatively.
        sample_stats: ``configurational_temperature`` and ``gradient_noise`` draw by draw, shape
            ``(chain, draw)``, NaN at draws where they were not measured. `to_datatree` takes
            them into its tree; `to_dict` leaves them out.
    """

    temperature: float
    configurational: Interval
    configurational_by_layer: Mapping[str, Interval]
    gradient_noise: Interval | None
    gradient_noise_by_layer: Mapping[str, Interval]
    kinetic: Interval | None
    num_parameters: int
    tolerance: float = TOLERANCE
    sample_stats: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)

    @property
    def is_hot(self) -> bool:
        """Whether the configurational temperature is above T, and by more than the tolerance.

        Its interval is above T, and its value above T by more than the tolerance.
        """
        measured, asked = self.configurational, self.temperature
        return measured.value > asked * (1 + self.tolerance) and measured.low > asked

    @property
    def is_cold(self) -> bool:
        """Whether it is below T, and by more than the tolerance: likewise."""
        measured, asked = self.configurational, self.temperature
        return measured.value < asked * (1 - self.tolerance) and measured.high < asked

    @property
    def is_as_asked(self) -> bool:
        """Whether it is within the tolerance of T, and known to twice the tolerance."""
        measured, asked = self.configurational, self.temperature
        near = abs(measured.value - asked) <= self.tolerance * asked
        return near and measured.high - measured.low <= 4 * self.tolerance * asked

    @property
    def precision(self) -> float:
        """Half of the interval of the configurational temperature, in units of T."""
        return (self.configurational.high - self.configurational.low) / (2 * self.temperature)

    @property
    def max_noise(self) -> float:
        """The part of T that minibatch noise may add: half of the tolerance."""
        return self.tolerance / 2

    @property
    def predicts_noise(self) -> bool:
        """Whether minibatch noise is to add more than that to T, and certainly half of it."""
        noise = self.gradient_noise
        return noise is not None and noise.value > self.max_noise and noise.low > self.max_noise / 2

    @property
    def excludes_noise(self) -> bool:
        """Whether the configurational temperature is below what minibatch noise is to make of it.

        Not if it is cold: chains on their way tell nothing of where they will be.
        """
        noise = self.gradient_noise
        return (
            noise is not None
            and not self.is_cold
            and self.configurational.high < self.temperature * (1 + noise.low)
        )

    @property
    def is_noisy(self) -> bool:
        """Whether minibatch noise is too much, as far as the measured temperature allows it."""
        return self.predicts_noise and not self.excludes_noise

    @property
    def widened_by_layer(self) -> dict[str, Interval]:
        """Layers' intervals, so wide that all of them hold the temperature 99 % of the time."""
        layers = self.configurational_by_layer
        factor = scipy.stats.norm.isf(_FALSE_ALARMS / max(1, len(layers))) / 2
        return {
            name: Interval(
                found.value,
                found.value - factor * (found.value - found.low),
                found.value + factor * (found.high - found.value),
            )
            for name, found in layers.items()
        }

    @property
    def hot_layers(self) -> dict[str, Interval]:
        """Layers whose whole widened interval is above T by more than the tolerance."""
        limit = self.temperature * (1 + self.tolerance)
        return {name: x for name, x in self.widened_by_layer.items() if x.low > limit}

    @property
    def cold_layers(self) -> dict[str, Interval]:
        """Layers whose whole widened interval is below T by more than the tolerance."""
        limit = self.temperature * (1 - self.tolerance)
        return {name: x for name, x in self.widened_by_layer.items() if x.high < limit}

    @property
    def verdict(self) -> str:
        """One sentence for a person: the measured temperature, and what to do if it is wrong."""
        asked, measured = self.temperature, self.configurational
        sampling = f"sampling at T ≈ {rounded(measured.value, 2)}"
        if self.is_hot:
            return f"{sampling}, not {asked:,g}: {self._remedy}"
        if self.is_cold:
            return (
                f"{sampling}, not {asked:,g}: the chains are probably still on their way from "
                "their starts; run longer"
            )
        found = (
            f"{sampling}, as asked"
            if self.is_as_asked
            else f"cannot tell the temperature: {measured}, asked {asked:,g}; measure on more draws"
        )
        if off := {**self.hot_layers, **self.cold_layers}:
            found += f"; but {of_layers(off)}"
        elif self.gradient_noise is not None and self.is_noisy:
            found += (
                f"; but minibatch noise adds {self.gradient_noise.value:.0%} wherever the chains "
                "forget within an epoch: smaller step, larger batch or control variates"
            )
        return found

    @property
    def _remedy(self) -> str:
        excess = self.configurational.value / self.temperature - 1
        if self.gradient_noise is None or self.gradient_noise.value > 0.5 * excess:
            return "smaller step, larger batch or control variates"
        return (
            f"minibatch noise explains {self.gradient_noise.value:.0%} of T only; smaller step, or "
            "more steps if the chains are still on their way"
        )

    def __str__(self) -> str:
        meters = {"all": (self.configurational, self.gradient_noise)}
        if len(self.configurational_by_layer) > 1:
            for layer, interval in self.configurational_by_layer.items():
                meters[layer] = interval, self.gradient_noise_by_layer.get(layer)
        rows = [("", "configurational T", "gradient noise / T")]
        rows += [
            (layer, str(measured), "unknown" if noise is None else str(noise))
            for layer, (measured, noise) in meters.items()
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        if self.kinetic is not None:
            instant = 2 * self.temperature * np.sqrt(2 / self.num_parameters)
            lines.append(f"kinetic T: {self.kinetic} (± {instant:.2g} at one instant)")
        return "\n".join([*lines, self.verdict])

    def to_dict(self) -> dict[str, Any]:
        """All meters by name, and the verdict, for JSON."""

        def plain(meter: Interval | None) -> Any:
            return None if meter is None else meter.to_dict()

        return {
            "verdict": self.verdict,
            "temperature": self.temperature,
            "configurational": plain(self.configurational),
            "gradient_noise": plain(self.gradient_noise),
            "kinetic": plain(self.kinetic),
            "num_parameters": self.num_parameters,
            "tolerance": self.tolerance,
            "by_layer": {
                layer: {
                    "configurational": plain(interval),
                    "gradient_noise": plain(self.gradient_noise_by_layer.get(layer)),
                }
                for layer, interval in self.configurational_by_layer.items()
            },
        }

    @classmethod
    def from_dict(cls, meters: Mapping[str, Any]) -> "TemperatureMeters":
        """The meters that `to_dict` wrote, as from a run's ``metrics.json``."""

        def interval(meter: Mapping[str, float | None] | None) -> Interval | None:
            if meter is None:
                return None
            return Interval(**{k: np.nan if x is None else x for k, x in meter.items()})

        layers = meters["by_layer"].items()
        noise = {name: interval(layer["gradient_noise"]) for name, layer in layers}
        return cls(
            temperature=meters["temperature"],
            configurational=cast(Interval, interval(meters["configurational"])),
            configurational_by_layer={
                name: cast(Interval, interval(layer["configurational"])) for name, layer in layers
            },
            gradient_noise=interval(meters["gradient_noise"]),
            gradient_noise_by_layer={k: x for k, x in noise.items() if x is not None},
            kinetic=interval(meters["kinetic"]),
            num_parameters=meters["num_parameters"],
            tolerance=meters.get("tolerance", TOLERANCE),
        )


def of_layers(layers: Mapping[str, Interval]) -> str:
    """At most three layers with their temperatures, the furthest from their mean first."""
    some = [f"{name} is at {found}" for name, found in list(layers.items())[:3]]
    return "layer " + ", ".join(some) + (", …" if len(layers) > 3 else "")


def measure_temperature(
    rng_key: jax.Array,
    target: Posterior,
    draws: Draws,
    *,
    tolerance: float = TOLERANCE,
    num_draws: int | None = None,
    num_minibatches: int = 50,
) -> TemperatureMeters:
    """Measure at which temperature a run sampled.

    Args:
        rng_key: draws the minibatches on which the gradient noise is measured.
        target: the log density that was sampled, with its control variates if it had any.
        draws: the run.
        tolerance: how far the temperature may be from T, relatively: 0.1 lets 1.08 pass for 1, and
            0.02 does not, and takes more draws.
        num_draws: about how many draws, of all chains and evenly spaced, to measure on; each
            costs a gradient over all the data. Default: as many as it takes to know the temperature
            to a fifth of the tolerance (standard error), and that of each layer to two sevenths, as
            long as there are so many and they are worth it: about 2.4 million examples. The
            gradient noise takes one draw of each chain.
        num_minibatches: minibatches per chain for the gradient noise.

    Raises:
        InputError: if the run has no temperature (point estimates; a kernel that does not say),
            its positions are not those of the target, or a setting is out of range.

    Examples:
        >>> import jax, probbnn as pb
        >>> train, test = pb.load("digits")
        >>> target = pb.LogDensity(pb.MLP(hidden=(10,)), train)
        >>> draws = pb.sample(
        ...     jax.random.key(0), target, "sghmc", num_steps=400, batch_size=200, progress=False
        ... )
        >>> meters = pb.measure_temperature(jax.random.key(1), target, draws, num_draws=20)
        >>> print(meters.verdict)  # 400 steps from the initialiser are too few
        sampling at T ≈ ..., not 1: the chains are probably still on their way ...
    """
    if draws.temperature is None:
        raise InputError(
            f"{draws.method} has no temperature: it is a point estimate, or a ready-made kernel "
            "that does not say (dataclasses.replace(draws, temperature=…) does)"
        )
    check_number(tolerance=tolerance)
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance is {tolerance}; it must be between 0 and 1, such as 0.1")
    check_key(rng_key)
    check_whole(1, num_draws=num_draws, num_minibatches=num_minibatches)
    target.check_position(jax.tree.map(lambda leaf: leaf[0, 0], draws.positions))
    members = layers(draws.positions)
    sizes = np.array([leaf[0, 0].size for leaf in jax.tree.leaves(draws.positions)])

    def measure(number: int) -> tuple[np.ndarray, np.ndarray, Interval, dict[str, Interval]]:
        virials, measured = _virials(target, draws, -(-number // draws.num_chains))
        return virials, measured, *_meters(virials, sizes, members, _monte_carlo)

    most = min(draws.num_chains * draws.num_draws, max(1, _MAX_EXAMPLES // target.data_size))
    virials, measured, overall, by_layer = measure(num_draws or min(_FIRST_DRAWS, most))
    while num_draws is None and measured.size < most:
        wanted = measured.size * _times_more(overall, by_layer, draws.temperature * tolerance)
        if wanted <= measured.size:
            break
        # More than a little more, as what is wanted is an estimate.
        wanted = min(most, max(2 * measured.size, math.ceil(wanted)))
        before = measured.size
        virials, measured, overall, by_layer = measure(wanted)
        if measured.size <= before:
            break
    shape = (draws.num_chains, draws.num_draws)
    by_draw = np.full(shape, np.nan)
    by_draw.flat[measured] = virials.sum(axis=-1) / sizes.sum()
    stats = {"configurational_temperature": by_draw}
    noise: Interval | None = None
    noise_by_layer: dict[str, Interval] = {}
    known = "step_size" in draws.sample_stats and "batch_size" in draws.settings
    if draws.noise_gain is not None and known:
        excess = _noise_excess(rng_key, target, draws, num_minibatches) / draws.temperature
        noise, noise_by_layer = _meters(excess, sizes, members, _independent)
        stats["gradient_noise"] = np.full(shape, np.nan)
        stats["gradient_noise"][:, -1] = excess.sum(axis=-1).mean(axis=1) / sizes.sum()
    return TemperatureMeters(
        temperature=draws.temperature,
        configurational=overall,
        configurational_by_layer=by_layer,
        gradient_noise=noise,
        gradient_noise_by_layer=noise_by_layer,
        kinetic=_kinetic(draws),
        num_parameters=int(sizes.sum()),
        tolerance=tolerance,
        sample_stats=stats,
    )


def _times_more(overall: Interval, by_layer: Mapping[str, Interval], tolerance: float) -> float:
    """How many times as many draws would know the temperatures as well as is wanted."""
    errors = [(overall, _AIM), *((found, _LAYERS_AIM) for found in by_layer.values())]
    ratios = [(found.high - found.low) / (4 * aim * tolerance) for found, aim in errors]
    return float(np.nanmax([*ratios, 0.0])) ** 2


def _meters(
    sums: np.ndarray,
    sizes: np.ndarray,
    members: Mapping[str, list[int]],
    interval: Callable[[np.ndarray], Interval],
) -> tuple[Interval, dict[str, Interval]]:
    """Means per coordinate, over all and by layer, of sums by leaf ``(chain, sample, leaf)``."""

    def meter(leaves: Any) -> Interval:
        return interval(sums[:, :, leaves].sum(axis=-1) / sizes[leaves].sum())

    return meter(slice(None)), {layer: meter(leaves) for layer, leaves in members.items()}


def _monte_carlo(values: np.ndarray) -> Interval:
    """The mean of ``(chain, draw)`` and twice its standard error, autocorrelation counted."""
    num_chains, num_draws = values.shape
    if num_draws >= ranks.MIN_DRAWS:
        # Of what never changes there is no error to estimate.
        error = float(ranks.mcse_mean(values[..., None])[0]) if np.ptp(values) != 0 else 0.0
    elif num_chains > 1:
        error = float(values.mean(axis=1).std(ddof=1)) / np.sqrt(num_chains)
    else:
        error = np.nan
    mean = float(values.mean())
    return Interval(mean, mean - 2 * error, mean + 2 * error)


def _independent(values: np.ndarray) -> Interval:
    """The mean of ``(chain, minibatch)`` and twice its standard error, from the chains' means."""
    samples = values.mean(axis=1) if len(values) > 1 else values[0]
    error = float(samples.std(ddof=1)) / np.sqrt(len(samples)) if len(samples) > 1 else np.nan
    mean = float(values.mean())
    return Interval(mean, mean - 2 * error, mean + 2 * error)


def _virials(
    target: Posterior, draws: Draws, draws_per_chain: int
) -> tuple[np.ndarray, np.ndarray]:
    """−⟨θ − c, ∇logdensity(θ)⟩ leaf by leaf at some draws, shape ``(chain, draw, leaf)``.

    Also the places of these draws in a flat array of all, ``(chain, draw)``.
    """
    positions, skipped = draws.positions, 0
    if draws.num_chains == 1 and draws.num_draws > 1:
        # The halves of a single chain stand for two.
        half, draws_per_chain = draws.num_draws // 2, -(-draws_per_chain // 2)
        skipped = draws.num_draws % 2
        positions = jax.tree.map(
            lambda leaf: leaf[0, -2 * half :].reshape(2, half, *leaf.shape[2:]), positions
        )
    num_chains, num_draws = jax.tree.leaves(positions)[0].shape[:2]

    def of_chain(center: Position, positions: Position) -> jax.Array:
        def virial(position: Position) -> jax.Array:
            grad = jax.grad(target.logdensity_fn)(position)
            products = jax.tree.map(lambda x, c, g: -jnp.vdot(x - c, g), position, center, grad)
            return jnp.stack(jax.tree.leaves(products))

        return jax.lax.map(virial, positions)

    virials = target.program("virials", lambda: jax.jit(of_chain))
    # One chain at a time, since they may be on disk.
    means = jax.tree.map(
        lambda leaf: np.stack([leaf[chain].mean(axis=0) for chain in range(num_chains)]), positions
    )
    index = evenly_spaced(num_draws, draws_per_chain)
    # In blocks of one length, so that one program measures however many draws.
    blocks = np.array_split(index, range(_BLOCK, len(index), _BLOCK))
    blocks[-1] = np.resize(blocks[-1], len(blocks[0]))
    results = []
    for chain in range(num_chains):
        mean_of_others = jax.tree.map(
            lambda mean, c=chain: (mean.sum(axis=0) - mean[c]) / max(num_chains - 1, 1), means
        )
        some = [
            virials(
                mean_of_others, jax.tree.map(lambda leaf, c=chain, at=at: leaf[c, at], positions)
            )
            for at in blocks
        ]
        results.append(np.concatenate(some)[: len(index)])
    return np.stack(results), skipped + np.arange(num_chains)[:, None] * num_draws + index


def _noise_excess(
    rng_key: jax.Array, target: Posterior, draws: Draws, num_minibatches: int
) -> np.ndarray:
    """What minibatch noise adds to the temperatures of a leaf's coordinates, summed over them.

    Shape ``(chain, minibatch, leaf)``; at the last draw of each chain, with the run's batch size
    and the mean of its draws' step sizes.
    """
    source, batch_size = target.data, draws.settings["batch_size"]

    def excess(key: jax.Array, position: Any, gain: Any) -> jax.Array:
        exact = jax.grad(target.logdensity_fn)(position)

        def one(stream: Any, step: jax.Array) -> tuple[Any, jax.Array]:
            stream, batch = source.next(stream, step)
            estimate = target.grad_estimator(position, batch)
            sums = jax.tree.map(
                lambda gain, a, b: jnp.sum(gain * (a - b) ** 2), gain, estimate, exact
            )
            return stream, jnp.stack(jax.tree.leaves(sums))

        stream = source.init(key, batch_size)
        return jax.lax.scan(one, stream, jnp.arange(num_minibatches))[1]

    last = jax.tree.map(lambda leaf: leaf[:, -1], draws.positions)
    keys = jax.random.split(rng_key, draws.num_chains)
    program = target.program(
        ("noise excess", batch_size, num_minibatches),
        lambda: jax.jit(lambda args: jax.lax.map(lambda a: excess(*a), args)),
    )
    per_step_size = program((keys, last, draws.noise_gain))
    step_size = draws.sample_stats["step_size"].mean(axis=1)
    return step_size[:, None, None] * np.asarray(per_step_size)


def _kinetic(draws: Draws) -> Interval | None:
    values = draws.sample_stats.get("kinetic_temperature")
    return None if values is None else _monte_carlo(values)
