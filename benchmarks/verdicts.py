"""Runs whose truth is known, and what the verdict says of them.

    python benchmarks/verdicts.py [NAME …]

draws chains of each kind (or those whose name contains a NAME) with NumPy, from 20 seeds each, 200
of the independent ones; a few by samplers. Where the verdict says what to do, a run that does it is
drawn and judged too. Writes ``results/verdicts.json`` and ``.md`` and fills the tables of
docs/diagnostics.md where all were drawn. About eight minutes on two cores.
"""

import multiprocessing
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from _results import fill, markdown_table, write

import probbnn as pb

_DOCS = Path(__file__).parents[1] / "docs" / "diagnostics.md"
NUM_SEEDS, NUM_INDEPENDENT = 20, 200
# Steps of a run, of which 500 draws are kept.
_STEPS = 500


class Chains(NamedTuple):
    """A run.

    Attributes:
        theta: its draws of a standard normal, ``(chain, draw, d)``, where its temperature counts.
        values: what is followed at the probes, ``(chain, draw, value)``; ``None``: made of theta.
        sizes: of theta's layers.
        num_probes: probes, where the values are made of theta.
        tolerance: of the temperature.
        shared: whether the chains are said to share minibatches.
        num_divergent: divergent trajectories.
    """

    theta: np.ndarray | None = None
    values: np.ndarray | None = None
    sizes: tuple[int, ...] = (10, 10, 10)
    num_probes: int = 10
    tolerance: float = 0.1
    shared: bool = False
    num_divergent: int = 0


class Sampled(NamedTuple):
    """A run of a sampler: its target, its draws, and probes, if parameters are not to be judged."""

    target: pb.LogDensity
    draws: pb.Draws
    probes: np.ndarray | None = None


class Kind(NamedTuple):
    """A kind of run: what is right to say of it (a part of "label: cause"), and how it is drawn.

    ``draw`` takes a random generator, and where advice can be followed also how many times as many
    steps as usual, and how many draws of each chain to keep of them.
    """

    group: str
    right: str | tuple[str, ...]
    draw: Callable[..., Chains | Sampled]
    num_seeds: int = NUM_SEEDS
    follows: bool = False


def judge(run: Chains | Sampled) -> pb.Verdict:
    """The verdict on a run, by way of its ArviZ tree."""
    return _judge_sampled(run) if isinstance(run, Sampled) else _judge_chains(run)


def _judge_sampled(run: Sampled) -> pb.Verdict:
    meters = pb.measure_temperature(jax.random.key(0), run.target, run.draws)
    probes = None if run.probes is None else {"in": run.probes}
    tree = pb.to_datatree(run.draws, run.target, probes, meters=meters)
    return pb.judge(pb.diagnose(tree), meters, run.draws.settings)


def _judge_chains(chains: Chains) -> pb.Verdict:
    theta, values = chains.theta, chains.values
    meters = None
    if theta is not None:
        names = [f"layer {i + 1}" for i in range(len(chains.sizes))]
        parts = np.split(theta.astype(np.float32), np.cumsum(chains.sizes)[:-1], axis=-1)
        draws = pb.Draws(dict(zip(names, parts, strict=True)), "by hand", temperature=1.0)
        meters = pb.measure_temperature(
            jax.random.key(0), _standard_normal(chains.sizes), draws, tolerance=chains.tolerance
        )
        values = _probabilities(theta, chains.num_probes) if values is None else values
    dims = ("chain", "draw")
    groups = {
        "/posterior": xr.Dataset({"theta": ((*dims, "unit"), values)}),
        "/sample_stats": xr.Dataset(
            {
                "logdensity": (dims, _log_density(values if theta is None else theta)),
                "diverging": (
                    dims,
                    np.arange(values[..., 0].size).reshape(values.shape[:2]) < chains.num_divergent,
                ),
            }
        ),
    }
    convergence = pb.diagnose(xr.DataTree.from_dict(groups))
    return pb.judge(convergence, meters, {"shared_minibatches": chains.shared})


def _log_density(values: np.ndarray) -> np.ndarray:
    return -0.5 * np.square(values).sum(axis=-1)


@cache
def _standard_normal(sizes: tuple[int, ...]) -> pb.LogDensity:
    """A posterior that is N(0, I): data that say nothing, and a prior."""
    shapes = {f"layer {i + 1}": size for i, size in enumerate(sizes)}
    network = (
        lambda key, x: {name: jnp.zeros(size) for name, size in shapes.items()},
        lambda theta, x: 0 * x @ jnp.zeros(1),
    )
    data = np.zeros((1, 1), np.float32), np.zeros(1, np.float32)
    return pb.LogDensity(network, data, likelihood=pb.Gaussian(1.0), prior_scale=1.0)


def _probabilities(theta: np.ndarray, num_probes: int) -> np.ndarray:
    """Of ten classes at some inputs, by a linear network: ``(chain, draw, 10 · num_probes)``."""
    *shape, dim = theta.shape
    inputs = np.random.default_rng(1).normal(size=(num_probes, dim // 10))
    logits = inputs @ theta[..., : dim // 10 * 10].reshape(*shape, dim // 10, 10)
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (odds / odds.sum(axis=-1, keepdims=True)).reshape(*shape, -1)


# Kinds of runs


def independent(
    rng: np.random.Generator,
    *,
    shape: tuple[int, int] = (4, 500),
    temperatures: tuple[float, ...] = (1.0, 1.0, 1.0),
    sizes: tuple[int, ...] = (10, 10, 10),
    **more: Any,
) -> Chains:
    """Draws from the stationary distribution, each layer at its temperature."""
    scale = np.sqrt(np.repeat(temperatures, sizes))
    return Chains(scale * rng.normal(size=(*shape, sum(sizes))), sizes=sizes, **more)


def ornstein_uhlenbeck(
    rng: np.random.Generator, times: int = 1, draws: int = 500, *, tau: float, dim: int = 30
) -> Chains:
    """Chains that forget with e^(−steps/tau): an AR(1) process, of however many steps."""
    rho = np.exp(-times * _STEPS / draws / tau)
    theta = rng.normal(size=(4, draws, dim))
    for t in range(1, draws):
        theta[:, t] = rho * theta[:, t - 1] + np.sqrt(1 - rho**2) * theta[:, t]
    return Chains(theta)


def few_draws(
    rng: np.random.Generator, times: int = 1, draws: int = 100, *, num_chains: int = 4
) -> Chains:
    """Independent draws, of which few were kept."""
    return independent(rng, shape=(num_chains, min(draws, 100 * times)))


def modes(
    rng: np.random.Generator,
    *,
    distance: float,
    weight: float = 0.5,
    jumps: float = 0.0,
    num_values: int = 100,
    num_bimodal: int = 100,
) -> Chains:
    """Two modes, between which a chain jumps with some probability at each draw."""
    shape = (4, 500)
    # Where nothing jumps, as many chains in either mode as its weight has it, and at least one.
    number = min(3, max(1, round(4 * weight)))
    start = np.arange(4) < number if not jumps else rng.random(4) < weight
    mode = np.empty(shape, bool)
    for t in range(shape[1]):
        anew = rng.random(4) < jumps
        before = start if t == 0 else mode[:, t - 1]
        mode[:, t] = np.where(anew, rng.random(4) < weight, before)
    values = rng.normal(size=(*shape, num_values))
    values[..., :num_bimodal] += distance * mode[..., None]
    return Chains(values=values)


def frozen(rng: np.random.Generator, *, chains: tuple[int, ...]) -> Chains:
    """Some of the chains stand still."""
    theta = rng.normal(size=(4, 500, 30))
    theta[list(chains)] = theta[list(chains), :1]
    return Chains(theta)


def frozen_layer(rng: np.random.Generator) -> Chains:
    """A layer of 5 % of the coordinates that hardly moves from one place for all chains."""
    theta = rng.normal(size=(4, 500, 60))
    theta[..., 57:] = rng.normal(size=3) + 0.03 * theta[..., 57:]
    return Chains(theta, sizes=(28, 29, 3))


def drifting(rng: np.random.Generator) -> Chains:
    """On the way from the start, for all of the run."""
    theta = rng.normal(size=(4, 500, 30)) + np.linspace(2, 0, 500)[:, None]
    return Chains(theta, values=theta)


def together(rng: np.random.Generator, *, correlation: float, shared: bool) -> Chains:
    """Chains whose steps are correlated, as with minibatches in common."""
    own, common = rng.normal(size=(4, 500, 30)), rng.normal(size=(500, 30))
    theta = np.sqrt(1 - correlation) * own + np.sqrt(correlation) * common
    return Chains(theta, shared=shared)


def sticky_tails(rng: np.random.Generator, times: int = 1, draws: int = 1_000) -> Chains:
    """Independent draws within ±1.645, and excursions of 50 draws beyond."""
    values = np.empty((4, draws, 20))
    inside, outside = rng.normal(size=(2, 400_000))
    inside = inside[np.abs(inside) < 1.645]
    outside = outside[np.abs(outside) > 1.645]
    # An excursion begins as often as keeps the share of the tails at 10 %.
    length = 50 * draws / (1_000 * times)
    leaves, enters = 1 / length, 0.1 / 0.9 / length
    state = rng.random((4, 20)) < 0.1
    sign = rng.choice([-1, 1], size=state.shape)
    for t in range(draws):
        turns = rng.random(state.shape) < np.where(state, leaves, enters)
        sign = np.where(turns, rng.choice([-1, 1], size=state.shape), sign)
        state ^= turns
        values[:, t] = np.where(
            state,
            sign * np.abs(rng.choice(outside, size=state.shape)),
            rng.choice(inside, size=state.shape),
        )
    return Chains(values=values)


def exact(rng: np.random.Generator, *, dim: int) -> Chains:
    """Few parameters, as many draws as `sample` keeps, and values made of them."""
    theta = rng.normal(size=(4, 500, dim))
    return Chains(theta, np.tanh(theta @ rng.normal(size=(dim, 20))), sizes=(dim,))


@cache
def _line() -> tuple[pb.LogDensity, np.ndarray]:
    """A linear regression of 1,000 examples and three parameters, and its inputs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1_000, 3)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5] + rng.normal(size=1_000)).astype(np.float32)
    network = (lambda key, x: jnp.zeros(3), lambda theta, x: x @ theta)
    return pb.LogDensity(network, (x, y), prior_scale=10.0, likelihood=pb.Gaussian(1.0)), x


def slow_sgld(rng: np.random.Generator) -> Sampled:
    """Chains that forget within five epochs, whose noise sums to zero within each."""
    target, x = _line()
    key = jax.random.key(rng.integers(2**31))
    settings = {"step_size": 2e-5, "batch_size": 100, "num_steps": 40_000, "num_warmup": 2_000}
    return Sampled(target, pb.sample(key, target, "sgld", progress=False, **settings), x[:10])


def hot_sgld(rng: np.random.Generator) -> Sampled:
    """Chains that forget within an epoch, by minibatches of ten."""
    target, x = _line()
    key = jax.random.key(rng.integers(2**31))
    settings = {"step_size": 2e-4, "batch_size": 10, "num_steps": 10_000, "num_warmup": 2_000}
    return Sampled(target, pb.sample(key, target, "sgld", progress=False, **settings), x[:10])


@cache
def _curve() -> pb.LogDensity:
    """A banana, b = a² but for 0.05, prior N(0, 4): variances .83 and .89 by quadrature."""
    network = (lambda key, x: jnp.zeros(2), lambda theta, x: 0 * x[:, 0] + theta[1] - theta[0] ** 2)
    data = np.zeros((1, 1), np.float32), np.zeros(1, np.float32)
    return pb.LogDensity(network, data, prior_scale=2.0, likelihood=pb.Gaussian(0.05))


def banana(rng: np.random.Generator) -> Sampled:
    """NUTS, which leaves the ends of the banana out: .58, .69, .64 and .78 of .83 at four seeds."""
    target = _curve()
    draws = pb.sample(
        jax.random.key(rng.integers(2**31)),
        target,
        "nuts",
        num_steps=5_000,
        num_warmup=1_000,
        thinning=1,
        initial_positions=rng.normal(size=(4, 2)).astype(np.float32),
        progress=False,
    )
    return Sampled(target, draws)


_CONVERGED, _BIASED, _NOT = "converged", "biased by minibatch noise or step size", "not converged"
_HOT = f"{_BIASED}: the step size is too large"
_SHORT = f"{_NOT}: the run is too short"
_OFF = f"{_NOT}: the temperature is not"


def kinds() -> Iterator[tuple[str, Kind]]:
    """All kinds by name."""
    good = partial(Kind, "right as they are", _CONVERGED)
    yield (
        "independent, 1,400 values, d = 30",
        good(partial(independent, num_probes=140), NUM_INDEPENDENT),
    )
    yield "independent, 1 chain of 2,000", good(partial(independent, shape=(1, 2_000)))
    yield "independent, 10 chains of 200", good(partial(independent, shape=(10, 200)))
    for dim in (1, 2, 3, 5):
        yield f"independent, d = {dim}", good(partial(exact, dim=dim))
    for tau in (0.5, 1.0):
        yield f"memory of {tau:g} draws", good(partial(ornstein_uhlenbeck, tau=tau))
    for tau in (5, 20, 100):
        yield (
            f"memory of {tau} draws",
            Kind("too short", _SHORT, partial(ornstein_uhlenbeck, tau=float(tau)), follows=True),
        )
    yield "memory of 1,000 draws", Kind("too short", _NOT, partial(ornstein_uhlenbeck, tau=1e3))
    few = f"{_NOT}: too few draws"
    yield "4 chains of 100 independent draws", Kind("too short", few, few_draws, follows=True)
    yield (
        "10 chains of 60 independent draws",
        Kind(
            "too short",
            few,
            lambda rng, times=1, draws=60: independent(rng, shape=(10, min(draws, 60 * times))),
            follows=True,
        ),
    )
    yield "sticky tails, 4 × 1,000", Kind("too short", _NOT, sticky_tails, follows=True)
    yield "on the way", Kind("too short", _NOT, drifting)
    for distance in (0.5, 1.0, 3.0, 8.0):
        yield (
            f"two modes, {distance:g} σ apart, no jumps",
            Kind("modes", _NOT, partial(modes, distance=distance)),
        )
    yield (
        "one chain in a mode of its own, 2 σ away",
        Kind("modes", f"{_NOT}: chain 0 is stuck", partial(modes, distance=2.0, weight=0.25)),
    )
    yield (
        "near modes, 1.5 σ, rare jumps",
        Kind("modes", _NOT, partial(modes, distance=1.5, jumps=0.02)),
    )
    yield (
        "3 of 400 values bimodal, rare jumps",
        Kind(
            "modes",
            _NOT,
            partial(modes, distance=4.0, jumps=0.05, num_values=400, num_bimodal=3),
        ),
    )
    for t in (0.5, 0.8):
        yield (
            f"all at T = {t}",
            Kind("temperature", _OFF, partial(independent, temperatures=(t,) * 3)),
        )
    for t in (0.95, 0.98, 1.02, 1.05):
        yield (
            f"all at T = {t}",
            Kind("temperature", _CONVERGED, partial(independent, temperatures=(t,) * 3)),
        )
    for t in (1.165, 1.2, 1.5):
        yield (
            f"all at T = {t}",
            Kind("temperature", _HOT, partial(independent, temperatures=(t,) * 3)),
        )
    yield (
        "all at T = 1.076, 10 % let pass",
        Kind("temperature", _CONVERGED, partial(independent, temperatures=(1.076,) * 3)),
    )
    yield (
        "all at T = 1.076, 2 % let pass",
        Kind("temperature", _HOT, partial(independent, temperatures=(1.076,) * 3, tolerance=0.02)),
    )
    yield (
        "T = 1, 2 % let pass",
        Kind("temperature", _CONVERGED, partial(independent, tolerance=0.02)),
    )
    layers = {"sizes": (28, 29, 3)}
    yield (
        "one half at T = 1.5, the other at 0.5",
        Kind("layers", _HOT, partial(independent, temperatures=(1.5, 0.5), sizes=(30, 30))),
    )
    for t in (2.0, 3.0):
        yield (
            f"5 % at T = {t:g}",
            Kind("layers", _HOT, partial(independent, temperatures=(1.0, 1.0, t), **layers)),
        )
    yield "5 % that hardly move", Kind("layers", f"{_NOT}: some layers", frozen_layer)
    yield (
        "one chain frozen",
        Kind("chains", f"{_NOT}: chain 2 is stuck", partial(frozen, chains=(2,))),
    )
    yield "all chains frozen", Kind("chains", _NOT, partial(frozen, chains=(0, 1, 2, 3)))
    yield (
        "minibatches in common",
        Kind(
            "chains",
            f"{_BIASED}: the chains share",
            partial(together, correlation=0.9, shared=True),
        ),
    )
    yield (
        "one key for all",
        Kind(
            "chains", f"{_NOT}: the chains move", partial(together, correlation=0.9, shared=False)
        ),
    )
    yield (
        "97 of 16,000 trajectories diverge",
        Kind(
            "chains",
            f"{_NOT}: divergent",
            partial(independent, shape=(4, 4_000), num_divergent=97),
        ),
    )
    samplers = partial(Kind, "samplers")
    yield "SGLD whose noise sums to zero over its memory", samplers(_CONVERGED, slow_sgld)
    yield "SGLD, twelve times too hot", samplers(_BIASED, hot_sgld)
    yield "NUTS on a banana", samplers((_NOT, "diverged"), banana)


def verdict_of(name: str, seed: int) -> tuple[str, str]:
    """What is said of one run, and where its advice can be followed, of the run that follows it."""
    warnings.simplefilter("ignore", RuntimeWarning)
    kind = dict(kinds())[name]
    rng = np.random.default_rng(seed)
    verdict = judge(kind.draw(rng))
    said, then = f"{verdict.label}: {verdict.cause}", ""
    if kind.follows and verdict.label == _NOT:
        times, draws = advice(verdict.next_step)
        then = judge(kind.draw(rng, times, draws)).label
    return said, then


def advice(next_step: str) -> tuple[int, int]:
    """Times as many steps, and draws of each chain, as a verdict advises."""
    times, draws = (
        re.search(pattern, next_step)
        for pattern in (r"(\d+) times as many steps", r"([\d,]+) draws of each chain")
    )
    if times is None or draws is None:
        raise ValueError(f"no numbers of steps and draws in {next_step!r}")
    return int(times[1]), int(draws[1].replace(",", ""))


def main() -> None:
    """Draw the runs, judge them, and write what was said of how many."""
    wanted = sys.argv[1:]
    chosen = {
        name: kind for name, kind in kinds() if not wanted or any(part in name for part in wanted)
    }
    found: dict[str, dict[str, Any]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        for name, kind in chosen.items():
            seeds = range(kind.num_seeds)
            results = list(pool.map(partial(verdict_of, name), seeds))
            found[name] = _counted(kind, results)
            print(f"{name}: {found[name]}", flush=True)
    if not wanted:
        table = _table(found)
        write("verdicts", "python benchmarks/verdicts.py", {"kinds": found}, _page(table))
        fill(_DOCS, {"verdicts": table})


def _counted(kind: Kind, results: list[tuple[str, str]]) -> dict[str, Any]:
    said = Counter(
        re.sub(r"\d+", "…", re.sub(r": layer.*", "", text)).strip(": ") for text, _ in results
    )
    then = Counter(label for _, label in results if label)
    return {
        "group": kind.group,
        "right": kind.right,
        "seeds": len(results),
        "as it should": sum(text.startswith(kind.right) for text, _ in results),
        "said": dict(said.most_common()),
        "after the advice": dict(then.most_common()),
    }


def _table(found: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        [
            name,
            f"{row['as it should']} of {row['seeds']}",
            "; ".join(f"{text} ({count})" for text, count in row["said"].items()),
            ", ".join(f"{text} ({n})" for text, n in row["after the advice"].items()),
        ]
        for name, row in found.items()
    ]
    return markdown_table(
        ["run", "as it should", "what is said (of how many)", "advice followed"], rows
    )


def _page(table: str) -> str:
    return f"# What the verdict says of runs whose truth is known\n\n{table}"


if __name__ == "__main__":
    main()
