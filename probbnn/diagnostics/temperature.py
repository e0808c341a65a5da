"""The temperature at which a run sampled: three meters, each with its interval, and a verdict.

- The **gradient-noise ratio** predicts: by how much the noise of minibatch gradients raises the
  temperature. A step of SGLD injects noise of variance 2hT and adds h²·Var[ĝ] with its gradient,
  so that coordinate i sits at T + ½h·Var[ĝ_i]; other kernels differ by their
  `Kernel.noise_gain`. The ratio is the mean of this excess over the coordinates, over T. It holds
  for what forgets within an epoch. Minibatches are drawn without replacement, their noise sums
  to zero over each epoch, and slower directions are heated less than it says.
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

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.diagnostics import ranks
from probbnn.errors import InputError
from probbnn.inference.draws import Draws
from probbnn.metrics import Interval
from probbnn.metrics.bootstrap import rounded
from probbnn.posterior.base import Posterior
from probbnn.subsample import evenly_spaced
from probbnn.tree import layers
from probbnn.types import Position

__all__ = ["MAX_NOISE", "TOLERANCE", "TemperatureMeters", "measure_temperature"]

# A temperature is called wrong when its whole interval is further than this from T, relatively.
TOLERANCE = 0.1
# Minibatch noise is too much above this part of T, if its whole interval is above half of that.
MAX_NOISE = 0.05


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
    sample_stats: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def is_noisy(self) -> bool:
        """Whether minibatch noise adds more than 5 % of T, and certainly more than half of that."""
        noise = self.gradient_noise
        return noise is not None and noise.value > MAX_NOISE and noise.low > MAX_NOISE / 2

    @property
    def verdict(self) -> str:
        """One sentence for a person: the measured temperature, and what to do if it is wrong."""
        asked, measured = self.temperature, self.configurational
        sampling = f"sampling at T ≈ {rounded(measured.value, 2)}"
        if measured.low > asked * (1 + TOLERANCE):
            return f"{sampling}, not {asked:,g}: {self._remedy}"
        if measured.high < asked * (1 - TOLERANCE):
            return (
                f"{sampling}, not {asked:,g}: the chains are probably still on their way from "
                "their starts; run longer"
            )
        near = abs(measured.value - asked) <= asked * TOLERANCE
        sharp = measured.high - measured.low <= 4 * asked * TOLERANCE
        found = (
            f"{sampling}, as asked"
            if near and sharp
            else f"cannot tell the temperature: {measured}, asked {asked:,g}; measure on more draws"
        )
        if self.gradient_noise is not None and self.is_noisy:
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
        )


def measure_temperature(
    rng_key: jax.Array,
    target: Posterior,
    draws: Draws,
    *,
    num_draws: int = 100,
    num_minibatches: int = 50,
) -> TemperatureMeters:
    """Measure at which temperature a run sampled.

    Args:
        rng_key: draws the minibatches on which the gradient noise is measured.
        target: the log density that was sampled, with its control variates if it had any.
        draws: the run.
        num_draws: about how many draws, of all chains and evenly spaced, to measure on; each
            costs a gradient over all the data. The gradient noise takes one draw of each chain.
        num_minibatches: minibatches per chain for the gradient noise.

    Raises:
        InputError: if the run has no temperature (point estimates; a kernel that does not say),
            or its positions are not those of the target.

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
    for name, number in (("num_draws", num_draws), ("num_minibatches", num_minibatches)):
        if number < 1:
            raise InputError(f"{name} is {number}; it must be at least 1")
    target.check_position(jax.tree.map(lambda leaf: leaf[0, 0], draws.positions))
    members = layers(draws.positions)
    sizes = np.array([leaf[0, 0].size for leaf in jax.tree.leaves(draws.positions)])

    virials, measured = _virials(target, draws, -(-num_draws // draws.num_chains))
    overall, by_layer = _meters(virials, sizes, members, _monte_carlo)
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
        sample_stats=stats,
    )


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
    results = []
    for chain in range(num_chains):
        mean_of_others = jax.tree.map(
            lambda mean, c=chain: (mean.sum(axis=0) - mean[c]) / max(num_chains - 1, 1), means
        )
        some = jax.tree.map(lambda leaf, c=chain: leaf[c, index], positions)
        results.append(virials(mean_of_others, some))
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
