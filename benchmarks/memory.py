"""Peak memory against the number of draws, and what checkpoints cost.

    python benchmarks/memory.py

1. The digits network with MCLMC, 100 to 100,000 draws of each of 4 chains, and LeNet-300-100 with
   SGLD, 10 to 1,000 draws of each of 10 chains: as ``probbnn run`` samples, with predictions,
   probes and some positions collected, and with all positions kept on disk. One process each; the
   peak is what the system says of it (``ru_maxrss``).
2. The steps of the ``mnist`` preset's pSGLD with a checkpoint a minute, the default, and without:
   seconds of sampling, interleaved, and the seconds that checkpoints took of them.

Writes ``results/memory.json`` and ``.md``. About twenty minutes on two cores. MNIST's rows are left
out where TFDS_DATA_DIR has no MNIST.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _results import markdown_table, write

_HERE = Path(__file__)
DIGITS = (100, 1_000, 10_000, 100_000)
LENET = (10, 100, 1_000)


def draw(network: str, num_draws: int, kept: bool) -> dict[str, Any]:
    """Peak memory of a run with so many draws of each chain."""
    import jax

    import probbnn as pb
    from probbnn.diagnostics.converged import Watching
    from probbnn.follow import Follow
    from probbnn.predictive import Predictions

    if network == "digits":
        train, test = pb.load("digits")
        target = pb.LogDensity(pb.MLP(hidden=(10,), activation="tanh"), train)
        method, num_chains, settings = "mclmc", 4, {}
    else:
        train, test = pb.load("mnist")
        target = pb.LogDensity(pb.LeNet300100(), train[:2_000])
        test = test[:1_000]
        method, num_chains, settings = "sgld", 10, {"batch_size": 100, "step_size": 1e-6}
    predictions = Predictions(target, {"test": test.inputs})
    follow = Follow.of(target, {"test": test.inputs[:20]}, test)
    watching = Watching(follow=follow, num_chains=num_chains)
    collectors = {**predictions.collectors, **watching.collectors(target)}
    with tempfile.TemporaryDirectory() as folder:
        draws = pb.sample(
            jax.random.key(0),
            target,
            method,
            num_chains=num_chains,
            num_steps=num_draws + 200,
            num_warmup=200,
            thinning=1,
            collectors=collectors,
            keep_positions=kept,
            out=Path(folder) / "run",
            progress=False,
            **settings,
        )
        predictions.of(draws)
        watching.look(target, draws).judged()
        used = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"peak MB": peak / 1_024, "disk MB": used / 2**20}


def checkpoints(seconds: float) -> dict[str, Any]:
    """Time of the mnist preset's pSGLD, with a checkpoint every so many seconds."""
    import jax

    from probbnn.experiments import method
    from probbnn.experiments.customise import Request, asked_for
    from probbnn.experiments.setup import prepare
    from probbnn.inference.directory import SamplingDirectory

    spent = [0.0]
    real = SamplingDirectory.save

    def timed(*arguments: Any, **options: Any) -> None:
        started = time.perf_counter()
        real(*arguments, **options)
        spent[0] += time.perf_counter() - started

    SamplingDirectory.save = timed  # type: ignore[method-assign]
    request = Request("mnist", methods=("psgld",), num_steps=1_500)
    setup = prepare(asked_for(request).load(progress=False))
    planned = setup.methods["psgld"]
    sampling = method.Sampling()
    predictions = method.predictions_of(setup)
    watching = method.watching_of(setup, planned, jax.random.key(0), sampling)
    collectors = {**predictions.collectors, **watching.collectors(setup.target)}
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        draws = method.sample_method(
            jax.random.key(0),
            setup,
            "psgld",
            home=Path(folder) / "run",
            collectors=collectors,
            keep_positions=False,
            checkpoint_seconds=seconds,
            progress=False,
        )
        wall = time.perf_counter() - started
    return {"wall": wall, "steps": draws.seconds, "saving": spent[0]}


def in_a_process(*arguments: object) -> dict[str, Any]:
    """What this script says of one case."""
    command = [sys.executable, str(_HERE), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def has_mnist() -> bool:
    """Whether the data are at hand."""
    import probbnn as pb

    try:
        pb.load("mnist")
    except pb.InputError:
        return False
    return True


def main() -> None:
    """All cases, one process each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draw", nargs=3)
    parser.add_argument("--checkpoints", type=float)
    arguments = parser.parse_args()
    if arguments.draw:
        network, number, kept = arguments.draw
        print(json.dumps(draw(network, int(number), kept == "True")))
        return
    if arguments.checkpoints:
        print(json.dumps(checkpoints(arguments.checkpoints)))
        return
    rows = []
    cases = [("digits", n) for n in DIGITS]
    with_mnist = has_mnist()
    if with_mnist:
        cases += [("LeNet-300-100", n) for n in LENET]
    for kept in (False, True):
        for network, number in cases:
            found = in_a_process("--draw", network, number, kept)
            rows.append({"network": network, "draws": number, "positions kept": kept, **found})
            print(rows[-1], flush=True)
    content: dict[str, Any] = {"memory": rows}
    page = [
        "# Peak memory against the number of draws\n",
        markdown_table(
            ["network", "draws of each chain", "positions", "peak, MB", "on disk, MB"],
            [
                [
                    r["network"],
                    f"{r['draws']:,}",
                    "all, on disk" if r["positions kept"] else "some",
                    f"{r['peak MB']:,.0f}",
                    f"{r['disk MB']:,.1f}",
                ]
                for r in rows
            ],
        ),
    ]
    if with_mnist:
        times: dict[str, list[dict[str, float]]] = {"60": [], "1e9": []}
        for _ in range(3):
            for seconds, found in times.items():
                found.append(in_a_process("--checkpoints", seconds))
                print(seconds, found[-1], flush=True)
        content["checkpoints"] = times
        shares = [100 * run["saving"] / run["wall"] for run in times["60"]]
        median = {k: sorted(run["wall"] for run in found)[1] for k, found in times.items()}
        page += [
            "\n## What checkpoints cost\n",
            markdown_table(
                ["checkpoints", "seconds, median of three", "of these in saving"],
                [
                    ["one a minute", f"{median['60']:.1f}", f"{sorted(shares)[1]:.2f} %"],
                    ["at the start, after warm-up and at the end", f"{median['1e9']:.1f}", ""],
                ],
            ),
        ]
    write("memory", "python benchmarks/memory.py", content, "\n".join(page))


if __name__ == "__main__":
    main()
