"""The ready-made experiments."""

from dataclasses import replace

import pytest

import probbnn as pb
from probbnn.experiments import presets, reference
from probbnn.experiments.experiment import Cosine
from probbnn.experiments.presets import COMPARISONS, PRESETS
from probbnn.experiments.setup import prepare


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_every_comparison_can_be_prepared(name):
    setup = prepare(COMPARISONS[name].load())
    assert setup.record.name == name
    assert list(setup.methods) == list(COMPARISONS[name].methods)
    # That of the repository, for this very log density.
    assert reference.find_reference(setup) is not None


def test_every_method_is_compared():
    assert set(COMPARISONS["digits"].methods) == set(pb.METHODS)
    assert set(COMPARISONS["diabetes"].methods) == set(pb.METHODS)


@pytest.mark.parametrize("known", [PRESETS, COMPARISONS])
def test_names_are_keys(known):
    assert all(preset.name == name for name, preset in known.items())
    assert all(preset.summary for preset in known.values())


def test_a_preset_is_an_experiment_with_its_data():
    preset = PRESETS["digits"]
    experiment = preset.load()
    assert experiment.name == "digits"
    assert experiment.summary == preset.summary
    assert experiment.methods == preset.methods
    assert experiment.train.fingerprint == pb.load("digits")[0].fingerprint
    assert list(experiment.ood) == ["patches", "rotated", "inverted", "shuffled", "noise"]


def test_fields_that_are_changed_before_anything_is_loaded():
    preset = PRESETS["digits"]
    changed = replace(preset, changes={"batch_size": 7, "prior_scale": 0.5}).load()
    assert (changed.batch_size, changed.prior_scale) == (7, 0.5)
    assert changed.module == preset.load().module


def test_unknown_names():
    with pytest.raises(pb.InputError, match="unknown preset 'digit'"):
        presets.find_preset("digit")
    with pytest.raises(pb.InputError, match="unknown comparison 'notebook'"):
        presets.find_comparison("notebook")


def test_cosine_falls_from_start_to_end():
    schedule = Cosine(1e-2, 1e-4).over(100)
    assert schedule(0) == pytest.approx(1e-2)
    assert schedule(50) == pytest.approx((1e-2 + 1e-4) / 2)
    assert schedule(100) == pytest.approx(1e-4)
    assert repr(Cosine(1e-2, 1e-4)) == "Cosine(start=0.01, end=0.0001)"
