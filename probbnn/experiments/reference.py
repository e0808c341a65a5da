"""The reference posterior of a preset: what a long run of NUTS predicts.

Its predictions are kept in ``benchmarks/results/reference-<preset>.npz``, with the settings of the
run, how well it converged and its floor: how far two halves of its chains are from each other.
``python benchmarks/reference.py`` makes it anew.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probbnn.experiments.presets import Preset
from probbnn.experiments.setup import Problem
from probbnn.inference.draws import Draws
from probbnn.metrics import (
    Fidelity,
    RegressionFidelity,
    evaluate_fidelity,
    regression_fidelity,
)
from probbnn.predictive import GaussianPredictive, Predictive, predict

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


def find_reference(preset: Preset, problem: Problem) -> Reference | None:
    """The kept reference of a preset, or None if there is none for this very log density."""
    for folder in _FOLDERS:
        path = folder / f"reference-{preset.name}.npz"
        if path.exists():
            with np.load(path) as archive:
                arrays = dict(archive)
            record = json.loads(str(arrays.pop("record")))
            if record["identity"] == identity(preset, problem):
                return Reference(arrays, record)
    return None


def predictions(problem: Problem, draws: Draws) -> dict[str, np.ndarray]:
    """What draws predict on all sets of a problem.

    Returns:
        float32 arrays by ``"<set>/<quantity>"``: ``"test/probs"`` of shape ``(n, K)`` for a
        classifier, ``"test/mean"`` and ``"test/std"`` (of a new observation) of shape ``(n, k)``
        for a regression.
    """
    return as_arrays({k: predict(problem.target, draws, d) for k, d in problem.sets.items()})


def as_arrays(
    predictives: Mapping[str, Predictive | GaussianPredictive],
) -> dict[str, np.ndarray]:
    """What `predictions` returns, from predictives by set."""
    arrays = {}
    for label, predictive in predictives.items():
        names = ("probs",) if isinstance(predictive, Predictive) else ("mean", "std")
        for name in names:
            arrays[f"{label}/{name}"] = getattr(predictive, name).astype(np.float32)
    return arrays


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


def identity(preset: Preset, problem: Problem) -> dict[str, Any]:
    """What decides the posterior and where it is looked at; JSON gives it back unchanged."""
    return json.loads(
        json.dumps(
            {
                "model": preset.model,
                "prior_scale": preset.prior_scale,
                "likelihood": repr(problem.target.likelihood),
                "data": {
                    label: data.fingerprint
                    for label, data in {"train": problem.train, **problem.sets}.items()
                },
            }
        )
    )
