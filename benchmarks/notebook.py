"""The seed notebook's experiment on real MNIST and Fashion-MNIST, beside its published figures.

    python benchmarks/notebook.py [--data-dir DIR] [--out DIR] [--seed N]

writes ``results/notebook.json`` and ``results/notebook.md``, and the run directory with the four
figures.
About 10 minutes on two cores.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from _results import markdown_table, new_run_directory, write

import probbnn as pb
from probbnn.experiments.run import RunResult

# probml/pyprobml, notebook bnn_mnist_sgld_jaxbayes: {step: (train or val, test)} accuracies.
PUBLISHED_SGD = {
    0: (0.362, 0.368),
    500: (0.971, 0.963),
    1000: (0.985, 0.977),
    1500: (0.986, 0.977),
    2000: (0.989, 0.980),
    2500: (0.992, 0.981),
    3000: (0.995, 0.981),
    3500: (0.991, 0.973),
    4000: (0.994, 0.981),
    4500: (0.996, 0.982),
    5000: (0.994, 0.981),
}
PUBLISHED_SGLD = {
    500: (0.512, 0.526),
    1000: (0.806, 0.803),
    1500: (0.869, 0.875),
    2000: (0.902, 0.907),
    2500: (0.917, 0.921),
    3000: (0.930, 0.929),
    3500: (0.940, 0.938),
    4000: (0.944, 0.941),
    4500: (0.947, 0.944),
    5000: (0.952, 0.946),
}
# (predicts on at threshold 0.6, right of those) on Fashion-MNIST, as the notebook's text says.
PUBLISHED_FASHION = {"sgd": ("about 80 %", "about 6 %"), "sgld": ("less than 20 %", "about 4 %")}
PUBLISHED_SECONDS = {"sgd": 22.9, "sgld": 23.3}


def main() -> None:
    """Run the preset and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="TFDS data directory (default: TFDS_DATA_DIR)")
    parser.add_argument("--out", type=Path, default=new_run_directory("notebook"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    train, _ = pb.load("mnist", arguments.data_dir)
    result = pb.run(
        "notebook",
        arguments.out,
        seed=arguments.seed,
        data_dir=arguments.data_dir,
        log=partial(print, flush=True),
    )
    content = {"seed": arguments.seed, **figures_of(result, train)}
    command = f"python benchmarks/notebook.py --seed {arguments.seed}"
    write("notebook", command, content, page(content))


def figures_of(result: RunResult, train: pb.Dataset) -> dict[str, Any]:
    """Everything that the notebook reports, as we measured it."""
    found: dict[str, Any] = {}
    for method, kind in (("map", "plug_in"), ("psgld", "votes")):
        metrics = result.metrics["methods"][method]
        fashion = metrics["sets"]["fashion"][kind]["thresholds"]
        at = fashion["thresholds"].index(0.6)
        found[metrics["label"]] = {
            # The notebook counts steps from 0 and reports after the step.
            "curve": {p["step"] - 1: (p["train"], p["test"]) for p in metrics["curve"]},
            "seconds": metrics["seconds"],
            "fashion_at_0.6": {
                "predicts": fashion["coverage"][at],
                "right": fashion["accuracy"][at],
            },
        }
    draws = next(m.draws for m in result.methods if m.method == "psgld")
    kernel = draws.positions["Dense_0"]["kernel"][:, -1]
    never_inked = (train.images == 0).all(axis=0).ravel()
    log_density, steps = draws.trace["logdensity"].mean(axis=0), draws.trace_steps
    found["chains"] = {
        "temperature": draws.temperature,
        "first_kernel_shape": list(kernel.shape),
        "first_kernel_std": float(kernel.std()),
        "never_inked_pixels": int(never_inked.sum()),
        "never_inked_std": float(kernel[:, never_inked].std()),
        # Stationary chains would keep their level.
        "log_density_over_temperature": {
            str(stop): float(
                log_density[(steps > stop - 500) & (steps <= stop)].mean() / draws.temperature
            )
            for stop in range(1_000, 5_001, 1_000)
        },
    }
    return found


def page(content: dict[str, Any]) -> str:
    """The results as Markdown, our figures beside the published ones."""
    parts = ["# The seed notebook, reproduced\n"]
    for label, title, published in (
        ("sgd", "SGD (RMSprop 1e-3): accuracy on train[:10000] / test", PUBLISHED_SGD),
        ("sgld", "RMS-SGLD, 10 chains: accuracy on train[:10000] / test", PUBLISHED_SGLD),
    ):
        curve = content[label]["curve"]
        rows = [
            [step, *(f"{a:.3f} / {b:.3f}" for a, b in (curve[step], theirs))]
            for step, theirs in published.items()
        ]
        rows.append(["seconds", f"{content[label]['seconds']:.1f}", PUBLISHED_SECONDS[label]])
        parts += [f"## {title}\n", markdown_table(["step", "probbnn", "published"], rows), ""]
    rows = []
    for label, name in (("sgd", "plug-in"), ("sgld", "votes of 10 chains")):
        ours = content[label]["fashion_at_0.6"]
        right = "no predictions" if ours["right"] is None else f"{100 * ours['right']:.1f} %"
        predicts, theirs_right = PUBLISHED_FASHION[label]
        rows.append([name, f"{100 * ours['predicts']:.1f} %", predicts, right, theirs_right])
    header = ["Fashion-MNIST at threshold 0.6", "predicts on", "published", "right", "published"]
    parts += ["## Distribution shift\n", markdown_table(header, rows), ""]
    chains = content["chains"]
    levels = ", ".join(
        f"{v:,.0f} (to step {k})" for k, v in chains["log_density_over_temperature"].items()
    )
    parts += [
        "## What the chains are doing\n",
        f"T = {chains['temperature']:,.0f}. The first kernel's draws have shape "
        f"{tuple(chains['first_kernel_shape'])} and standard deviation "
        f"{chains['first_kernel_std']:.0f}; {chains['never_inked_std']:.0f} on the "
        f"{chains['never_inked_pixels']} pixels that are never inked in training. Mean log "
        f"density / T over 500 steps: {levels}. Chains that had converged would keep their "
        "level.\n",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    main()
