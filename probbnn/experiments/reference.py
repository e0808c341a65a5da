"""The reference posterior of an experiment: what a long run of NUTS predicts.

Its predictions are kept in ``benchmarks/results/reference-<name>.npz``, with the settings of the
run, how well it converged and its floor: how far two halves of its chains are from each other.
``python benchmarks/reference.py`` makes it anew.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probbnn.experiments.setup import Setup
from probbnn.files import plain
from probbnn.inference.draws import Draws
from probbnn.metrics import (
    Fidelity,
    RegressionFidelity,
    evaluate_fidelity,
    regression_fidelity,
)
from probbnn.predictive import predict

__all__ = ["Reference", "as_arrays", "fidelity", "find_reference", "identity", "predictions"]

# In a checkout, and in an installed package, where the build puts a copy.
_FOLDERS = (
    Path(__file__).parents[2] / "benchmarks" / "results",
    Path(__file__).parents[1] / "references",
)


@dataclass(frozen=True)
class Reference:
    """Predictions of a long run.

    Attributes:
        predictions: what `predictions` gives.
        record: the command and settings of the run, its diagnostics and its floor.
    """

    predictions: Mapping[str, np.ndarray]
    record: Mapping[str, Any]

    def save(self, path: Path) -> None:
        """Write it to an ``.npz`` file."""
        record = json.dumps(self.record, ensure_ascii=False, allow_nan=False)
        arrays = {"record": np.array(record), **self.predictions}
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def find_reference(setup: Setup) -> Reference | None:
    """The kept reference of an experiment, or None if there is none for this very log density."""
    for folder in _FOLDERS:
        path = folder / f"reference-{setup.experiment.name}.npz"
        if path.exists():
            with np.load(path) as archive:
                arrays = dict(archive)
            record = json.loads(str(arrays.pop("record")))
            if record["identity"] == identity(setup):
                return Reference(arrays, record)
    return None


def predictions(
    setup: Setup, draws: Draws, labels: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """What draws predict on the sets of an experiment.

    Args:
        setup: the experiment.
        draws: of its posterior.
        labels: which sets; default: all.

    Returns:
        float32 arrays by ``"<set>/<quantity>"``: ``"test/probs"`` of shape ``(n, K)`` for a
        classifier, ``"test/mean"`` and ``"test/std"`` (of a new observation) of shape ``(n, k)``
        for a regression.
    """
    labels = setup.sets if labels is None else labels
    return as_arrays(setup, {k: predict(setup.target, draws, setup.sets[k].inputs) for k in labels})


def as_arrays(setup: Setup, predictives: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What `predictions` returns, from predictives by set."""
    return {
        f"{label}/{name}": getattr(predictive, name).astype(np.float32)
        for label, predictive in predictives.items()
        for name in setup.task.arrays
    }


def fidelity(
    found: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]
) -> dict[str, Fidelity | RegressionFidelity]:
    """How close `predictions` are to those of a reference, by set."""
    by_set: dict[str, Fidelity | RegressionFidelity] = {}
    for label in dict.fromkeys(key.split("/")[0] for key in reference):
        if f"{label}/probs" in reference:
            by_set[label] = evaluate_fidelity(found[f"{label}/probs"], reference[f"{label}/probs"])
        else:
            moments = [a[f"{label}/{name}"] for a in (found, reference) for name in ("mean", "std")]
            by_set[label] = regression_fidelity(*moments)
    return by_set


def identity(setup: Setup) -> dict[str, Any]:
    """What decides the posterior and where it is looked at, as JSON gives it back."""
    sets = {"train": setup.train, **setup.sets}
    return plain(
        {
            "model": setup.record.model,
            "prior_scale": setup.record.prior_scale,
            "likelihood": setup.record.likelihood,
            "data": {label: examples.fingerprint for label, examples in sets.items()},
        }
    )
