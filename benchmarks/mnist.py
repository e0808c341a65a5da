"""The true posterior (T = 1) of LeNet-300-100 on MNIST, beside SGD and a deep ensemble.

    python benchmarks/mnist.py [--data-dir DIR] [--out DIR] [--seeds 0 1 …]

runs the preset ``mnist`` once per seed and writes ``results/mnist.json`` and ``results/mnist.md``.
About 25 minutes a seed on two cores.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from _results import interval, markdown_table, new_run_directory, write

import probbnn as pb


def main() -> None:
    """Run the preset for each seed and write the summary."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="TFDS data directory (default: TFDS_DATA_DIR)")
    parser.add_argument("--out", type=Path, default=new_run_directory("mnist"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()

    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        result = pb.run(
            "mnist",
            arguments.out / f"seed-{seed}",
            seed=seed,
            data_dir=arguments.data_dir,
            log=partial(print, flush=True),
        )
        rows += [{"seed": seed, **row(m)} for m in result.metrics["methods"].values()]
    seeds = " ".join(map(str, arguments.seeds))
    write("mnist", f"python benchmarks/mnist.py --seeds {seeds}", {"rows": rows}, page(rows))


def row(metrics: dict[str, Any]) -> dict[str, Any]:
    """One method of one run, with 95 % bootstrap intervals."""
    kind = "plug_in" if "plug_in" in metrics["sets"]["test"] else "mean_softmax"
    test = metrics["sets"]["test"][kind]
    return {
        "method": metrics["label"],
        "temperature": metrics["temperature"],
        "networks": metrics["num_chains"] * metrics["num_draws"],
        **{name: test[name] for name in ("error", "nll", "brier", "ece", "aurc")},
        "fashion_auroc": {
            name: score["auroc"] for name, score in metrics["detection"]["fashion"].items()
        },
        "seconds": metrics["seconds"],
    }


def page(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""

    def auroc(r: dict[str, Any], name: str) -> str:
        if r["networks"] == 1 and name == "mutual information":
            return "–"
        return interval(r["fashion_auroc"][name], ".3f")

    table = [
        [
            r["seed"],
            r["method"],
            "–" if r["temperature"] is None else f"{r['temperature']:g}",
            r["networks"],
            interval(r["error"], ".2f", 100),
            interval(r["nll"], ".4f"),
            interval(r["ece"], ".4f"),
            *(auroc(r, name) for name in ("max probability", "entropy", "mutual information")),
            f"{r['seconds']:.0f}",
        ]
        for r in rows
    ]
    header = ["seed", "method", "T", "networks", "error %", "NLL", "ECE"]
    header += [f"Fashion AUROC, {s}" for s in ("max prob.", "entropy", "mutual inf.")]
    return (
        "# LeNet-300-100 on MNIST: the posterior at T = 1\n\n"
        "Mean softmax over all networks; 95 % bootstrap intervals over the test images; AUROC of "
        "telling Fashion-MNIST's test images from MNIST's; seconds are those of the steps.\n\n"
        + markdown_table([*header, "s"], table)
    )


if __name__ == "__main__":
    main()
