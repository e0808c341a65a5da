"""What kernels sample, exactly, beside what many independent chains of them do.

A `Target` has closed-form moments at any temperature; an `Entry` is a kernel and, where it is
linear in its state, its step as a list of `Part`s. From those follows the exact stationary
distribution of the *discretised* chain, step size, minibatches without replacement and all, so a
wrong factor in a kernel, in the estimates of the log density or in the chain runner shows at a
tolerance of 1 %:

    for case in CASES:
        check(case.quantities(), case.tolerance, case.allowance)

Every state is a vector z of the position θ and then, if there is one, the momentum. A test fails
by chance as often as one of its moments is off by 4.5 standard errors: 7 times in 10⁶ each.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from helpers import Examples, run_kernel
from scipy import special

import probbnn as pb
from probbnn.samplers import from_blackjax as blackjax

DIM = 2  # of all targets
SIGMAS = 4.5


# Targets


class Moments(NamedTuple):
    """Of a law: `third` are third central moments, `kinetic` is E‖u‖²/d of the momentum u."""

    mean: np.ndarray
    covariance: np.ndarray
    third: np.ndarray | None = None
    kinetic: float | None = None


@dataclass(frozen=True, eq=False)
class Target:
    """A log density with known moments.

    Attributes:
        estimator: ``(position, minibatch) -> (value, gradient)``.
        moments: those of p^{1/T} at T.
        gradient: ``rows -> (A, b)``, if the gradient estimate from these examples is b − Aθ. Where
            it is `linear` only nearly, A is as small as the slowest relaxation.
        inputs, targets, batch_size: the data; a pure target has one example that it ignores.
        pace: by what the step sizes of the entries are multiplied.
        tails: Var[(θ−μ)²]/σ⁴, which is 2 for a Gaussian.
    """

    name: str
    estimator: Callable
    moments: Callable[[float], Moments]
    gradient: Callable[[Sequence[int]], tuple[np.ndarray, np.ndarray]]
    linear: bool = True
    inputs: Any = (0.0,)
    targets: Any = (0.0,)
    batch_size: int = 1
    pace: float = 1.0
    tails: float = 2.0


def gaussian(name: str, precision: Any, mean: Any) -> Target:
    precision, mean = np.array(precision, float), np.array(mean, float)

    def estimator(theta, minibatch):
        pull = jnp.asarray(precision, theta.dtype) @ (theta - jnp.asarray(mean, theta.dtype))
        return -0.5 * (theta - mean) @ pull, -pull

    covariance = np.linalg.inv(precision)
    return Target(
        name,
        estimator,
        lambda temperature: Moments(mean, temperature * covariance),
        lambda rows: (precision, precision @ mean),
    )


def regression(name: str, noise: float = 1.0, prior: float = 1.0) -> Target:
    """Conjugate, N = 5 in minibatches of 2: the last one of each epoch is ragged."""
    x = np.array([[0.9, 0.3], [-0.4, 0.8], [0.7, -1.1], [0.2, 0.5], [-1.0, 0.4]])
    y = np.array([1.5, -2.0, 2.5, 0.5, -0.2])
    model = pb.LogDensity(
        (lambda key, inputs: jnp.zeros(DIM), lambda theta, inputs: inputs @ theta),
        (x.astype(np.float32), y.astype(np.float32)),
        likelihood=pb.Gaussian(noise),
        prior_scale=prior,
    )

    def gradient(rows):
        weight = len(x) / len(rows) / noise**2
        some, theirs = x[list(rows)], y[list(rows)]
        return weight * some.T @ some + np.eye(DIM) / prior**2, weight * some.T @ theirs

    precision, moment = gradient(range(len(x)))
    covariance = np.linalg.inv(precision)
    return Target(
        name,
        model.value_and_grad_estimator,
        lambda temperature: Moments(covariance @ moment, temperature * covariance),
        gradient,
        inputs=model.data.inputs,
        targets=model.data.targets,
        batch_size=2,
        pace=0.4,
    )


def skewed(position: Any, minibatch: Any) -> tuple[Any, Any]:
    """Value and gradient of Σ (a·x − eˣ) over all leaves, where the minibatch is a."""

    def logdensity(position):
        return sum(jnp.sum(minibatch * x - jnp.exp(x)) for x in jax.tree.leaves(position))

    return jax.value_and_grad(logdensity)(position)


def log_gamma(name: str, shape: Any) -> Target:
    """Logarithms of gamma variates: log density a·x − eˣ, skewed to the left."""
    a = np.array(shape, float)

    def moments(temperature):
        # p^{1/T} is the same law with a/T, moved by log T.
        b = a / temperature
        mean, variance, third = (special.polygamma(n, b) for n in range(3))
        return Moments(mean + np.log(temperature), np.diag(variance), third)

    # The mode relaxes at the rate a and the left tail at a²/4T: up to T = 4, at a/2 or faster.
    return Target(
        name,
        lambda theta, minibatch: skewed(theta, jnp.asarray(a, theta.dtype)),
        moments,
        lambda rows: (np.diag(a) / 2, a / 2 * np.log(a)),
        linear=False,
        pace=0.0167,
        tails=10.0,
    )


ANISOTROPIC = gaussian("anisotropic Gaussian", np.diag([1.0, 10.0]), [3.0, -2.0])
CORRELATED = gaussian("correlated Gaussian", [[4.0, -3.0], [-3.0, 5.0]], [-1.0, 2.0])
REGRESSION = regression("minibatch regression")
SKEWED = log_gamma("log-gamma", [12.0, 24.0])
TARGETS = [ANISOTROPIC, CORRELATED, REGRESSION, SKEWED]


# Kernels


class Part(NamedTuple):
    """z ← matrix·z + gradient·ĝ(θ) + noise·ξ in blocks c·I or diag(c): a step or a part of one."""

    matrix: Any
    gradient: Any = None
    noise: Any = None


@dataclass(frozen=True, eq=False)
class Entry:
    """A kernel and its step, written out.

    Attributes:
        step_size: h (ε² where the kernel steps in time) for targets of precision up to 10.
        build: ``(estimator, h, temperature) -> Kernel``.
        parts: ``(h, temperature) -> [Part, …]``, a step's parts in their order; ``None`` for a
            kernel that is not linear.
        relaxation: for those, steps after which a start is forgotten by a factor e, at pace 1.
    """

    name: str
    step_size: float
    build: Callable[[Callable, float, float], pb.Kernel]
    parts: Callable[[float, float], list[Part]] | None = None
    relaxation: float = 0.0


V = np.array([0.25, 4.0])  # a second moment that no target has,
DAMPING = 0.5
G = 1 / (DAMPING + np.sqrt(V))  # and its preconditioner
FROZEN = {"damping": DAMPING, "bias_correction": False, "freeze_after": 1}


def frozen_at(second_moment: Any, kernel: pb.Kernel) -> pb.Kernel:
    """The kernel (built with `FROZEN`) with a preconditioner that never saw a gradient."""

    def init(position, rng_key=None):
        v = jnp.asarray(second_moment, position.dtype)
        return kernel.init(position)._replace(second_moment=v, step=jnp.array(1, jnp.int32))

    return kernel._replace(init=init)


def langevin(h: float, temperature: float, g: Any = 1.0) -> list[Part]:
    return [Part([[1]], [[h * g]], [[np.sqrt(2 * h * temperature * g)]])]


def hamiltonian(h: float, temperature: float, friction: float, g: Any = 1.0) -> list[Part]:
    pace, kept = np.sqrt(h * g), 1 - friction
    kick = Part([[1, 0], [0, 1]], gradient=[[0], [pace]])
    drift = Part([[1, pace / 2], [0, 1]])
    forget = Part([[1, 0], [0, kept]], noise=[[0], [np.sqrt(temperature * (1 - kept**2))]])
    return [kick, drift, forget, drift]


def euler(h: float, temperature: float, alpha: float, num_integration_steps: int) -> list[Part]:
    eps = np.sqrt(h)
    redraw = Part([[1, 0], [0, 0]], noise=[[0], [1]])
    noise = [[0], [np.sqrt(2 * alpha * eps * temperature)]]
    inner = Part([[1, eps], [0, 1 - alpha * eps]], gradient=[[0], [eps]], noise=noise)
    return [redraw, *num_integration_steps * [inner]]


SGLD = Entry("sgld", 0.15, pb.sgld, langevin)
PSGLD = Entry(
    "psgld, frozen",
    0.3,
    lambda estimator, h, t: frozen_at(V, pb.psgld(estimator, h, t, **FROZEN)),
    lambda h, t: langevin(h, t, G),
)
SGHMC = Entry(
    "sghmc",
    0.2,
    lambda estimator, h, t: pb.sghmc(estimator, h, t, friction=0.4),
    lambda h, t: hamiltonian(h, t, friction=0.4),
)
SGHMC_RMS = Entry(
    "sghmc, frozen RMS",
    0.4,
    lambda estimator, h, t: frozen_at(
        V, pb.sghmc(estimator, h, t, friction=0.4, preconditioner="rms", **FROZEN)
    ),
    lambda h, t: hamiltonian(h, t, friction=0.4, g=G),
)
BLACKJAX_SGHMC = Entry(
    "blackjax_sghmc",
    0.02,
    lambda estimator, h, t: blackjax.sghmc(
        estimator, np.sqrt(h), t, num_integration_steps=5, alpha=1.0
    ),
    lambda h, t: euler(h, t, alpha=1.0, num_integration_steps=5),
)
SGNHT = Entry(
    "sgnht",
    1e-4,
    lambda estimator, h, t: blackjax.sgnht(estimator, np.sqrt(h), t, alpha=3.0),
    relaxation=300,
)
PSGLD_EXACT, PSGLD_HUTCHINSON = (
    Entry(
        f"psgld, {gamma} gamma",
        0.05,
        lambda estimator, h, t, gamma=gamma: pb.psgld(
            estimator, h, t, decay=0.0, damping=5.0, gamma=gamma
        ),
        relaxation=150,
    )
    for gamma in ("exact", "hutchinson")
)
ENTRIES = [SGLD, PSGLD, PSGLD_EXACT, PSGLD_HUTCHINSON, SGHMC, SGHMC_RMS, BLACKJAX_SGHMC, SGNHT]


# Exact laws


def blocks(rows: Any) -> np.ndarray:
    return np.block([[np.diag(np.broadcast_to(x, DIM)) for x in row] for row in rows])


def affine(parts: list[Part], a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(M, Q) of one step (1, z) ← M·(1, z) + N(0, Q), whose gradient is b − aθ."""
    size = 1 + DIM * len(parts[0].matrix)
    m, q = np.eye(size), np.zeros((size, size))
    for part in parts:
        step, noise = np.eye(size), np.zeros_like(q)
        step[1:, 1:] = blocks(part.matrix)
        if part.gradient is not None:
            k = blocks(part.gradient)
            step[1:, 0] = k @ b
            step[1:, 1 : 1 + DIM] -= k @ a
        if part.noise is not None:
            noise[1:, 1:] = blocks(part.noise) @ blocks(part.noise).T
        m, q = step @ m, step @ q @ step.T + noise
    return m, q


@cache
def epoch(entry: Entry, target: Target, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """(B, q) of what an epoch does to S = E[(1, z)(1, z)ᵀ]: vec S ← B·vec S + q.

    An epoch is a composition of affine maps in an order drawn anew, independently of z, so the
    moments of up to the second order obey the average over all orders.
    """
    data_size, batch_size = len(target.inputs), target.batch_size
    parts = entry.parts(entry.step_size * target.pace, temperature)
    orders = list(permutations(range(data_size)))
    operators, shifts = [], []
    for order in orders:
        m, q = affine(parts, *target.gradient(order[:batch_size]))
        for i in range(batch_size, data_size, batch_size):
            step, noise = affine(parts, *target.gradient(order[i : i + batch_size]))
            m, q = step @ m, step @ q @ step.T + noise
        operators.append(np.kron(m, m))
        shifts.append(q.ravel())
    return np.mean(operators, axis=0), np.mean(shifts, axis=0)


def steps_per_epoch(target: Target) -> int:
    return -(-len(target.inputs) // target.batch_size)


def relaxation(entry: Entry, target: Target, temperature: float) -> float:
    """Steps after which the start has e times less influence on the first two moments."""
    if entry.parts is None:
        return entry.relaxation / target.pace
    # Without the moment of order 0, which is 1 for ever.
    radius = np.abs(np.linalg.eigvals(epoch(entry, target, temperature)[0][1:, 1:])).max()
    if radius >= 1:
        raise ValueError(
            f"{entry.name} has no stationary distribution on {target.name}: radius {radius}"
        )
    return -steps_per_epoch(target) / np.log(radius)


def exact(entry: Entry, target: Target, temperature: float) -> Moments:
    """The law of the chain at the end of an epoch where it is linear; else, that of the target."""
    if entry.parts is None or not target.linear:
        return target.moments(temperature)
    operator, shift = epoch(entry, target, temperature)
    system = np.eye(len(shift)) - operator
    system[0, 0] = 1.0  # the moment of order 0 is 1, an equation that the fixed point lacks
    size = int(np.sqrt(len(shift)))
    s = np.linalg.solve(system, np.r_[1.0, shift[1:]]).reshape(size, size)
    mean, covariance = s[0, 1:], s[1:, 1:] - np.outer(s[0, 1:], s[0, 1:])
    kinetic = np.diag(s)[1 + DIM :].mean() if size > 1 + DIM else None
    return Moments(mean[:DIM], covariance[:DIM, :DIM], kinetic=kinetic)


# Chains


class Sample(NamedTuple):
    """Draws of independent chains, and the final states of their kernels.

    Attributes:
        positions: shape ``(chain, draw, DIM)``.
        kinetic: ‖u‖²/d at the draws, shape ``(chain, draw)``; ``None`` for kernels without it.
        state: the kernel's states.
    """

    positions: np.ndarray
    kinetic: np.ndarray | None
    state: Any


def run(
    kernel: pb.Kernel,
    target: Target,
    start: Any,
    *,
    num_chains: int,
    num_warmup: int,
    thinning: int,
    num_draws: int = 100,
    seed: int = 0,
    shared_minibatches: bool | None = None,
) -> Sample:
    """Chains from one start through the library's own runner, thinned after whole epochs."""
    period = steps_per_epoch(target)
    result, state = run_kernel(
        jax.random.key(seed),
        kernel,
        Examples(target.inputs, target.targets),
        jnp.broadcast_to(jnp.asarray(start, jnp.float32), (num_chains, DIM)),
        batch_size=target.batch_size,
        num_steps=num_warmup + num_draws * thinning,
        num_warmup=num_warmup,
        thinning=thinning,
        # Sharing the one example of a pure target changes nothing and is cheaper.
        shared_minibatches=period == 1 if shared_minibatches is None else shared_minibatches,
    )
    kinetic = result.sample_stats.get("kinetic_temperature")
    if kinetic is not None:
        kinetic = kinetic.astype(float)
    return Sample(result.positions.astype(float), kinetic, state.kernel)


class Quantity(NamedTuple):
    """A number that theory gives and chains estimate.

    Attributes:
        name: what it is.
        exact: its value in theory.
        measured: the chains' estimate.
        error: standard error of the estimate, from the spread between chains.
        scale: what tolerances are relative to: σ of a mean, 2σ³ of a third moment.
        ess: effective sample size, all chains together.
        num_chains: number of chains.
    """

    name: str
    exact: float
    measured: float
    error: float
    scale: float
    ess: float
    num_chains: int

    def __str__(self) -> str:
        return (
            f"{self.name} is {self.measured:.5g} ± {self.error:.2g} and should be {self.exact:.5g} "
            f"({(self.measured - self.exact) / self.scale:+.2%}, ESS {self.ess:,.0f})"
        )


def compare(sample: Sample, law: Moments) -> list[Quantity]:
    """All moments that are known, beside their estimates."""
    num_chains = len(sample.positions)

    def quantity(name: str, exact: float, scale: float, values: np.ndarray, measured: float):
        # `values` average to the estimate, or are what moves it, at each draw of each chain.
        error = values.mean(axis=1).std(ddof=1) / np.sqrt(num_chains)
        ess = values.var() / error**2
        return Quantity(name, float(exact), float(measured), error, float(scale), ess, num_chains)

    quantities, sigma = [], np.sqrt(np.diag(law.covariance))
    centered = sample.positions - sample.positions.mean(axis=(0, 1))
    for i in range(DIM):
        x = sample.positions[..., i]
        quantities.append(quantity(f"mean {i}", law.mean[i], sigma[i], x, x.mean()))
    for i in range(DIM):
        for j in range(i, DIM):
            product = centered[..., i] * centered[..., j]
            name = f"variance {i}" if i == j else f"covariance {i}, {j}"
            value, scale = law.covariance[i, j], sigma[i] * sigma[j]
            quantities.append(quantity(name, value, scale, product, product.mean()))
    if law.third is not None:
        for i in range(DIM):
            cube = centered[..., i] ** 3
            moved = cube - 3 * centered[..., i].var() * centered[..., i]  # the mean is estimated
            name, scale = f"third central moment {i}", 2 * sigma[i] ** 3
            quantities.append(quantity(name, law.third[i], scale, moved, cube.mean()))
    if law.kinetic is not None and sample.kinetic is not None:
        name, value = "kinetic temperature", sample.kinetic
        quantities.append(quantity(name, law.kinetic, law.kinetic, value, value.mean()))
    return quantities


class Case(NamedTuple):
    """A kernel on a target at a temperature, and how close it is demanded to be.

    Attributes:
        tolerance: see `check`; so ``allowance``.
    """

    entry: Entry
    target: Target
    temperature: float = 1.0
    tolerance: float = 0.01
    allowance: float = 0.0

    def __str__(self) -> str:
        return f"{self.entry.name} on {self.target.name} at T = {self.temperature:g}"

    def quantities(self) -> list[Quantity]:
        """Exact and measured moments; see `measure`."""
        return measure(self)


@cache
def measure(case: Case, seed: int = 0) -> list[Quantity]:
    """Exact and measured moments, from as many chains as the tolerance asks for.

    The cases of one seed are independent of each other.
    """
    entry, target, temperature, tolerance, _ = case
    memory, period = relaxation(entry, target, temperature), steps_per_epoch(target)
    goal = target.moments(temperature)
    num_warmup, thinning = (int(np.ceil(m * memory / period)) * period for m in (12, 0.5))
    # Of squares, whose memory is half as long, a draw counts for so many independent ones.
    num_draws, worth = 100, np.tanh(thinning / memory)
    num_chains = 1.25 * target.tails * (SIGMAS / tolerance) ** 2 / (worth * num_draws)
    sample = run(
        entry.build(target.estimator, entry.step_size * target.pace, temperature),
        target,
        # Below the mode, where no target is stiff, and without spread.
        goal.mean - 3 * np.sqrt(np.diag(goal.covariance)),
        num_chains=int(num_chains),
        num_warmup=num_warmup,
        thinning=thinning,
        num_draws=num_draws,
        seed=zlib.crc32(f"{case} {seed}".encode()) % 2**31,
    )
    return compare(sample, exact(entry, target, temperature))


class Underpowered(Exception):
    """A test that could fail, or pass, by chance."""


def check(quantities: list[Quantity], tolerance: float, allowance: float = 0.0) -> None:
    """Demand every estimate within ``tolerance`` (relative to its scale) of its exact value.

    Where the exact value is not that of the discretised chain, ``allowance`` for it is added.

    Raises:
        Underpowered: if 4.5 standard errors do not fit into the tolerance.
        AssertionError: if an estimate is off: by chance at most 7 times in 10⁶ for each.
    """
    for q in quantities:
        needed = q.num_chains * (SIGMAS * q.error / (tolerance * q.scale)) ** 2
        if not needed <= q.num_chains:
            raise Underpowered(
                f"{q}: {SIGMAS} standard errors exceed the tolerance of {tolerance:.2%}; "
                f"{q.num_chains:,} chains ran and about {needed:,.0f} are needed"
            )
    limit = tolerance + allowance
    off = [str(q) for q in quantities if not abs(q.measured - q.exact) <= limit * q.scale]
    assert not off, f"outside {limit:.2%}: " + "; ".join(off)


LINEAR = (SGLD, PSGLD, SGHMC, SGHMC_RMS)
CASES = [
    *(
        Case(entry, target, t)
        for entry in LINEAR
        for target, t in (
            (ANISOTROPIC, 1.0),
            (ANISOTROPIC, 4.0),
            (CORRELATED, 4.0),
            (REGRESSION, 1.0),
            (REGRESSION, 4.0),
        )
    ),
    *(Case(entry, ANISOTROPIC, 0.25) for entry in (SGLD, PSGLD, SGHMC)),
    Case(BLACKJAX_SGHMC, ANISOTROPIC),
    Case(BLACKJAX_SGHMC, REGRESSION),
    # Discretisation: first order in h for the Langevin kernels, second for SGHMC's positions.
    Case(SGLD, SKEWED, 1.0, 0.05, 0.04),
    Case(SGLD, SKEWED, 4.0, 0.05, 0.04),
    Case(PSGLD, SKEWED, 4.0, 0.05, 0.04),
    Case(SGHMC, SKEWED, 1.0, 0.05, 0.01),
    Case(SGHMC, SKEWED, 4.0, 0.05, 0.01),
    Case(SGHMC_RMS, SKEWED, 4.0, 0.05, 0.01),
    # G has a kink where the gradient is 0, so Γ is right to first order in h at best.
    Case(PSGLD_EXACT, CORRELATED, 4.0, 0.05, 0.03),
    Case(PSGLD_HUTCHINSON, CORRELATED, 1.0, 0.05, 0.03),
    Case(PSGLD_HUTCHINSON, CORRELATED, 4.0, 0.05, 0.03),
    # Euler's method and one thermostat for all coordinates: some too cold, others too hot.
    *(Case(SGNHT, ANISOTROPIC, t, 0.05, 0.04) for t in (1.0, 4.0)),
]
