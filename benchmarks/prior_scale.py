"""Chooses the prior of the preset ``mnist`` on training images held out for it.

    python benchmarks/prior_scale.py [--data-dir DIR]

samples T = 1 on the last 50,000 training images with the preset's pSGLD, five chains, for each
candidate prior, measures on the first 10,000 and writes ``results/prior_scale.json`` and ``.md``.
About 6 minutes on two cores.
"""

import argparse
from typing import Any

import jax
from _results import interval, markdown_table, write

import probbnn as pb
from probbnn.experiments.presets import find_preset

CANDIDATES: dict[str, Any] = {
    "1 everywhere": 1.0,
    "0.5 everywhere": 0.5,
    "0.2, 0.4, 1 by layer": {"Dense_0": 0.2, "Dense_1": 0.4, "Dense_2": 1.0},
}
NUM_CHAINS = 5
NUM_STEPS = 2_000
NUM_HELD_OUT = 10_000


def main() -> None:
    """Sample with each candidate prior and write the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", help="TFDS data directory (default: TFDS_DATA_DIR)")
    arguments = parser.parse_args()
    train, _ = pb.load("mnist", arguments.data_dir)
    fit, held_out = train[NUM_HELD_OUT:], train[:NUM_HELD_OUT]
    step_size = find_preset("mnist").methods["psgld"].settings["step_size"]

    results: dict[str, Any] = {}
    for name, prior_scale in CANDIDATES.items():
        target = pb.LogDensity(pb.LeNet300100(), fit, prior_scale=prior_scale)
        draws = pb.sample(
            jax.random.key(0),
            target,
            "psgld",
            num_chains=NUM_CHAINS,
            num_steps=NUM_STEPS,
            thinning=100,
            step_size=step_size.over(NUM_STEPS),
        )
        evaluation = pb.evaluate(pb.predict(target, draws, held_out.images), held_out.labels)
        results[name] = evaluation.to_dict()
        print(name, evaluation.error, evaluation.nll, flush=True)
    write("prior_scale", "python benchmarks/prior_scale.py", {"candidates": results}, page(results))


def page(results: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    rows = [
        [name, interval(r["error"], ".2f", 100), interval(r["nll"], ".4f")]
        for name, r in results.items()
    ]
    return (
        f"# Prior scale σ for LeNet-300-100, T = 1\n\npSGLD, {NUM_CHAINS} chains x {NUM_STEPS:,} "
        f"steps on 50,000 training images; measured on the {NUM_HELD_OUT:,} held out.\n\n"
        + markdown_table(["prior σ", "error % (95 %)", "NLL (95 %)"], rows)
    )


if __name__ == "__main__":
    main()
