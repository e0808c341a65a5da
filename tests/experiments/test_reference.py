"""The kept reference posteriors: found for the very log density they were made of."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

import probbnn as pb
from probbnn.experiments import reference
from probbnn.experiments.setup import prepare, sample_method

pytestmark = pytest.mark.usefixtures("quick_compilation")

METHODS = {"sgld": pb.MethodRun(num_chains=2, num_steps=10, draws=5)}


@pytest.fixture(scope="module")
def setups(classes, values):
    classifier = pb.MLP(hidden=(5,), num_outputs=4)
    return {
        "classes": prepare(
            pb.Experiment("toy", classifier, classes, classes, METHODS, ood={"far": 9 * classes[0]})
        ),
        "values": prepare(
            pb.Experiment(
                "line",
                pb.MLP(hidden=(5,), num_outputs=1),
                values,
                values,
                METHODS,
                likelihood=pb.LearnedGaussian(),
            )
        ),
    }


@pytest.mark.parametrize(
    ("name", "arrays"),
    [
        ("classes", {"test/probs": (23, 4), "far/probs": (23, 4)}),
        ("values", {"test/mean": (23, 1), "test/std": (23, 1)}),
    ],
)
def test_predictions(setups, name, arrays):
    setup = setups[name]
    draws = sample_method(jax.random.key(0), setup, "sgld", progress=False)
    found = reference.predictions(setup, draws)
    assert {key: value.shape for key, value in found.items()} == arrays
    assert all(value.dtype == np.float32 for value in found.values())
    itself = reference.fidelity(found, found)
    assert set(itself) == {key.split("/")[0] for key in arrays}
    assert itself["test"].total_variation.value == 0
    assert set(reference.predictions(setup, draws, ["test"])) == {
        key for key in arrays if key.startswith("test/")
    }


def test_found_for_this_log_density_alone(setups, tmp_path, monkeypatch):
    setup = setups["classes"]
    monkeypatch.setattr(reference, "_FOLDERS", (tmp_path / "absent", tmp_path))
    assert reference.find_reference(setup) is None
    kept = {"test/probs": np.ones((23, 4), np.float32)}
    record = {"identity": reference.identity(setup), "command": "by hand"}
    reference.Reference(kept, record).save(tmp_path / "reference-toy.npz")
    found = reference.find_reference(setup)
    assert found.record == record
    np.testing.assert_array_equal(found.predictions["test/probs"], kept["test/probs"])
    inputs, labels = setup.experiment.train
    for changes in (
        {"prior_scale": 0.5},
        {"module": pb.MLP(hidden=(6,), num_outputs=4)},
        {"train": (inputs, 3 - labels)},
        {"ood": {"far": 8 * inputs}},
    ):
        other = prepare(replace(setup.experiment, **changes))
        assert reference.find_reference(other) is None, changes


def test_identity_is_plain_json(setups):
    found = reference.identity(setups["values"])
    assert json.loads(json.dumps(found)) == found
    assert found["likelihood"] == "LearnedGaussian(prior_scale=1.0)"
