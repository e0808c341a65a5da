"""Follows what the verdict advises, on the posterior of the preset ``digits``.

    python benchmarks/advice.py [NAME …]

samples with settings that are not good enough (too few steps, too large a step, too small a batch),
does what the verdict says next (a smaller step, more steps, more draws) and judges again, up to
five times. Writes ``results/advice.json`` and ``.md``; with NAMEs, only those rows anew.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
from _results import markdown_table, write

import probbnn as pb

_RESULTS = Path(__file__).parent / "results"
_MOST_RUNS = 5
_BIASED = "biased by minibatch noise or step size"
BEGINNINGS: dict[str, dict[str, Any]] = {
    "mclmc, too few steps": {"method": "mclmc", "num_steps": 3_000},
    "mclmc, too few draws": {"method": "mclmc", "num_steps": 10_000, "thinning": 100},
    "sghmc, a step 30 times too large": {
        "method": "sghmc",
        "num_steps": 1_000,
        "batch_size": 200,
        "step_size": 3e-2,
    },
    "sghmc, a batch of 10": {
        "method": "sghmc",
        "num_steps": 1_000,
        "batch_size": 10,
        "step_size": 1e-3,
    },
}


def main() -> None:
    """Follow the advice from each beginning and write what was said on the way."""
    wanted = sys.argv[1:]
    path = _RESULTS / "advice.json"
    found = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else {}
    for name, settings in BEGINNINGS.items():
        if not wanted or any(part in name for part in wanted):
            found[name] = follow(settings)
            found = {name: found[name] for name in BEGINNINGS if name in found}
            write("advice", "python benchmarks/advice.py", {"runs": found}, _page(found))


def follow(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs on the way to a good one: what was run, and what the verdict said."""
    train, test = pb.load("digits")
    target = pb.LogDensity(pb.MLP(hidden=(10,), activation="tanh"), train)
    probes = {
        "test": test.images[:70],
        "noise": pb.out_of_distribution(test, "noise").images[:70],
    }
    path: list[dict[str, Any]] = []
    while len(path) < _MOST_RUNS:
        draws = pb.sample(jax.random.key(len(path)), target, progress=False, **settings)
        meters = pb.measure_temperature(jax.random.key(100), target, draws)
        convergence = pb.diagnose(pb.to_datatree(draws, target, probes))
        verdict = pb.judge(convergence, meters, draws.settings)
        path.append({**settings, "draws": draws.num_draws, **verdict.to_dict()})
        print(settings, verdict, sep="\n", flush=True)
        if verdict.label == "converged":
            break
        settings = advised(settings, verdict)
    return path


def advised(settings: dict[str, Any], verdict: pb.Verdict) -> dict[str, Any]:
    """The settings that the verdict asks for; of a faster sampler, its defaults."""
    number = r"([\d,]+)"
    divided = re.search(rf"divide the step size by {number}", verdict.next_step)
    times = re.search(rf"{number} times as many steps", verdict.next_step)
    kept = re.search(rf"{number} draws of each chain", verdict.next_step)
    if verdict.label == _BIASED and divided:
        ratio = _whole(divided[1])
        return {
            **settings,
            "step_size": settings["step_size"] / ratio,
            "num_steps": settings["num_steps"] * ratio,
        }
    if not times or not kept:
        raise ValueError(f"no numbers in {verdict.next_step!r}")
    if verdict.next_step.startswith("a sampler that moves faster"):
        method = re.findall("nuts|mclmc", verdict.next_step)[-1]
        return {"method": method, "num_steps": pb.METHODS[method].default_steps}
    num_steps = settings["num_steps"] * _whole(times[1])
    return {
        **settings,
        "num_steps": num_steps,
        "thinning": max(1, num_steps // 2 // _whole(kept[1])),
    }


def _whole(text: str) -> int:
    return int(text.replace(",", ""))


def _page(found: dict[str, list[dict[str, Any]]]) -> str:
    rows = [
        [
            name if not number else "",
            run["method"],
            f"{run['step_size']:.2g}" if "step_size" in run else "tuned",
            f"{run['num_steps']:,}",
            f"{run['draws']:,}",
            f"{run['label']}: {run['cause']}".removesuffix(": "),
            run["next_step"],
        ]
        for name, runs in found.items()
        for number, run in enumerate(runs)
    ]
    header = ["beginning", "method", "step size", "steps", "draws", "verdict", "next"]
    return "# Advice, followed\n\n" + markdown_table(header, rows)


if __name__ == "__main__":
    main()
