"""The reference posteriors that `probbnn compare` measures fidelity against.

    python benchmarks/reference.py digits|diabetes [--draws N]

runs eight long chains of BlackJAX's NUTS and writes ``results/reference-<preset>.npz``: what their
posterior predicts on the test set and outside, the settings, the convergence in function space, and
the floor, which is how far the first four chains' predictions are from the other four's. Their
mean is closer to the truth than that.
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import jax
from _results import environment, markdown_table, write

import probbnn as pb
from probbnn.experiments.compare import convergence_of
from probbnn.experiments.presets import COMPARISONS, find_comparison
from probbnn.experiments.reference import Reference, fidelity, identity, predictions
from probbnn.experiments.setup import Setup, prepare
from probbnn.predictive import values_per_draw

_NUM_CHAINS, _NUM_WARMUP = 8, 500


def main() -> None:
    """Sample, check, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", choices=[n for n in COMPARISONS if n != "mnist"])
    parser.add_argument("--draws", type=int, default=2_000, help="per chain (default 2,000)")
    arguments = parser.parse_args()
    name = arguments.preset
    setup = prepare(find_comparison(name).load())
    draws = pb.sample(
        jax.random.key(1),
        setup.target,
        "nuts",
        num_chains=_NUM_CHAINS,
        num_steps=_NUM_WARMUP + arguments.draws,
        num_warmup=_NUM_WARMUP,
        thinning=1,
    )
    command = f"python benchmarks/reference.py {name} --draws {arguments.draws}"
    floor = {
        label: value.to_dict()
        for label, value in fidelity(
            predictions(setup, _chains(draws, slice(0, 4))),
            predictions(setup, _chains(draws, slice(4, 8))),
        ).items()
    }
    record = {
        "command": command,
        "environment": environment(),
        "identity": identity(setup),
        "settings": draws.settings,
        "passes": float(draws.passes[-1]),
        "divergences": int(draws.sample_stats["diverging"].sum()),
        "convergence": {label: _convergence(setup, draws, label) for label in setup.sets},
        "floor": floor,
    }
    path = Path(__file__).parent / "results" / f"reference-{name}.npz"
    Reference(predictions(setup, draws), record).save(path)
    rows = [
        [
            label,
            *(f"{found[key]:.4f}" for key in ("rhat_worst", "rhat_share_above_1.01")),
            f"{found['ess_worst']:,.0f}",
            ", ".join(f"{key} {value['value']:.4f}" for key, value in floor[label].items()),
        ]
        for label, found in record["convergence"].items()
    ]
    header = [
        "set",
        "worst R-hat",
        "share above 1.01",
        "least bulk ESS",
        "floor (half against half)",
    ]
    page = (
        f"# Reference posterior: {name}\n\nBlackJAX NUTS, {_NUM_CHAINS} chains × "
        f"({_NUM_WARMUP} + {arguments.draws}) draws, {record['divergences']} divergences, "
        f"{record['passes']:,.0f} passes over the data. "
        "R-hat and ESS of every predicted probability or output.\n\n"
    )
    write(f"reference-{name}", command, record, page + markdown_table(header, rows))


def _chains(draws: pb.Draws, chains: slice) -> pb.Draws:
    return dataclasses.replace(
        draws, positions=jax.tree.map(lambda leaf: leaf[chains], draws.positions)
    )


def _convergence(setup: Setup, draws: pb.Draws, label: str) -> dict[str, Any]:
    outputs = values_per_draw(setup.target, draws, setup.sets[label].inputs)
    return convergence_of(outputs.reshape(*outputs.shape[:2], -1)).to_dict()


if __name__ == "__main__":
    main()
