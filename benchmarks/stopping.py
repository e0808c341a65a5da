"""How often a run that is to stop when it has converged stops too early.

    python benchmarks/stopping.py

draws chains of known truth with NumPy and looks at them as `probbnn.converged` does: after 512
steps and then after twice as many each time, at the second half of them, of which at most 512 draws
of each chain are kept. The truth follows from the process: how many effective draws there were in
what was looked at. A stop is false where that is under 100, a quarter of what the rule asks for.
Each kind has 200 seeds. Then it runs

    probbnn run digits --method mclmc --until-converged

with ten seeds, and says after how many steps each stopped. Writes ``results/stopping.json`` and
``.md`` and fills the tables of docs/long-runs.md. About twenty minutes on two cores.
"""

import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _results import fill, markdown_table, write
from scipy import stats

from probbnn.diagnostics.mixing import mixes, mixing_of
from probbnn.diagnostics.trees import Quantities
from probbnn.inference.thinning import kept

_DOCS = Path(__file__).parents[1] / "docs" / "long-runs.md"
NUM_SEEDS, NUM_RUNS = 200, 10
NUM_CHAINS, CAPACITY, NUM_VALUES = 4, 512, 10
FIRST, NUM_LOOKS = 512, 11
# A stop with fewer effective draws in what was looked at is false.
_FALSE = 100


class Look(NamedTuple):
    """Whether the rule holds, and how many effective draws there were."""

    holds: bool
    effective: float


def autoregressive(rng: np.random.Generator, time: float, spread: float) -> Iterator[Look]:
    """Gaussian chains that forget within ``time`` steps, N(0, 1), started at N(0, spread²)."""
    shape = NUM_CHAINS, NUM_VALUES
    state = spread * rng.normal(size=shape)

    def walk(state: np.ndarray, steps: int) -> np.ndarray:
        memory = np.exp(-steps / time)
        return memory * state + np.sqrt(1 - memory**2) * rng.normal(size=shape)

    # The sum of the autocorrelations of exp(−k/time) is 1 + 2/(exp(1/time) − 1).
    return looks(walk, state, 1 + 2 / np.expm1(1 / time), lambda state: state)


def two_modes(
    rng: np.random.Generator, time: float, apart: float, scattered: bool
) -> Iterator[Look]:
    """Two modes of equal weight, between which chains go once in ``time`` steps on average."""
    state = rng.integers(2, size=(NUM_CHAINS, 1)) if scattered else np.zeros((NUM_CHAINS, 1), int)

    def walk(state: np.ndarray, steps: int) -> np.ndarray:
        other = 0.5 * -np.expm1(-2 * steps / time)
        return state ^ (rng.random(state.shape) < other)

    def seen(state: np.ndarray) -> np.ndarray:
        return apart * state + rng.normal(size=(NUM_CHAINS, NUM_VALUES))

    return looks(walk, state, 1 + 2 / np.expm1(2 / time), seen)


def looks(
    walk: Callable[[np.ndarray, int], np.ndarray],
    state: np.ndarray,
    sum_of_correlations: float,
    seen: Callable[[np.ndarray], np.ndarray],
) -> Iterator[Look]:
    """All looks at a process; ``walk`` goes on by so many steps, ``seen`` is what is followed."""
    state = walk(state, FIRST // 2)
    for number in range(NUM_LOOKS):
        length = (FIRST // 2) << number
        numbers, _ = kept(length, CAPACITY)
        stride, draws = int(numbers[1] - numbers[0]), []
        for _ in numbers:
            state = walk(state, stride)
            draws.append(seen(state))
        values = np.stack(draws, axis=1)
        mixing = mixing_of(Quantities([""] * NUM_VALUES, values))
        yield Look(mixes(mixing), NUM_CHAINS * length / sum_of_correlations)


KINDS: dict[str, Callable[[np.random.Generator], Iterator[Look]]] = {
    **{
        f"forgets within {time:,} steps, {name}": partial(autoregressive, time=time, spread=spread)
        for time in (100, 1_000, 10_000, 100_000)
        for name, spread in (("one start", 0.0), ("scattered", 1.0))
    },
    **{
        f"two modes {apart:g} σ apart, {time:,} steps, {name}": partial(
            two_modes, time=time, apart=apart, scattered=scattered
        )
        for apart in (2.0, 5.0)
        for time in (1_000, 10_000, 100_000)
        for name, scattered in (("one start", False), ("scattered", True))
    },
}


def stops(name: str, seed: int) -> dict[str, tuple[int, float] | None]:
    """At which look, and with how many effective draws, each rule stops."""
    found: dict[str, tuple[int, float] | None] = {"first": None, "confirmed": None}
    before = False
    for number, look in enumerate(KINDS[name](np.random.default_rng(seed))):
        if look.holds and found["first"] is None:
            found["first"] = number, look.effective
        if look.holds and before:
            found["confirmed"] = number, look.effective
            break
        before = look.holds
    return found


def main() -> None:
    """Simulate all kinds, and write how often each rule was wrong."""
    rows, content = [], {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        for name in KINDS:
            results = list(pool.map(partial(stops, name), range(NUM_SEEDS), chunksize=20))
            content[name] = {rule: summary([r[rule] for r in results]) for rule in results[0]}
            print(name, content[name], flush=True)
            cells = []
            for found in content[name].values():
                low, high = found["false stops, 95 %"]
                cells += [
                    f"{found['false stops']:.2%} [{low:.2%}, {high:.2%}]",
                    f"{found['stopped']:.0%}",
                    found["median effective draws"] and f"{found['median effective draws']:,.0f}",
                ]
            rows.append([name, *map(str, cells)])
    heads = ["false", "stopped", "effective draws"]
    table = markdown_table(
        ["chains", *(f"{rule}: {head}" for rule in ("at once", "confirmed") for head in heads)],
        rows,
    )
    runs = []
    for seed in range(NUM_RUNS):
        runs.append(digits(seed))
        print(runs[-1], flush=True)
    runs_table = markdown_table(
        list(runs[0]),
        [[f"{x:,.3g}" if isinstance(x, float) else x for x in run.values()] for run in runs],
    )
    write(
        "stopping",
        "python benchmarks/stopping.py",
        {"seeds": NUM_SEEDS, "looks": NUM_LOOKS, "kinds": content, "digits": runs},
        f"# How often a run stops before it has converged\n\n{table}\n\n"
        f"## MCLMC on the digits until it has converged\n\n{runs_table}",
    )
    fill(_DOCS, {"stopping": table, "until converged": runs_table})


def digits(seed: int) -> dict[str, Any]:
    """A run of MCLMC on the digits until it has converged."""
    import probbnn as pb
    from probbnn.experiments.customise import Request
    from probbnn.report import page

    # The page is made of what is on record, and is not what is measured.
    page.write_report = lambda directories, out=None: directories[0]  # type: ignore[assignment]
    request = Request("digits", methods=("mclmc",))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        result = pb.run(request, out, seed=seed, until_converged=1_800, progress=False)
    (method,) = result.methods
    verdict, steps = method.metrics.verdict, method.draws.draw_steps
    nll = method.metrics.sets["test"]["mean_softmax"].intervals["nll"]
    assert verdict is not None
    assert steps is not None
    assert nll is not None
    return {
        "seed": seed,
        "verdict": verdict.label,
        "stopped": method.metrics.stopped,
        "steps of each chain": int(steps[-1]),
        "NLL": nll.value,
        "seconds": method.metrics.seconds,
    }


def summary(found: list[tuple[int, float] | None]) -> dict[str, Any]:
    """Of the stops of one rule in one kind."""
    effective = [x[1] for x in found if x is not None]
    false = sum(x < _FALSE for x in effective)
    low, high = stats.binomtest(false, len(found)).proportion_ci(method="wilson")
    return {
        "false stops": false / len(found),
        "false stops, 95 %": [float(low), float(high)],
        "stopped": len(effective) / len(found),
        "median effective draws": float(np.median(effective)) if effective else None,
    }


if __name__ == "__main__":
    main()
