"""The ready-made experiments, and the changes that the command line makes to them."""

import pytest

import probbnn as pb
from probbnn.experiments import presets, reference
from probbnn.experiments.customise import customise
from probbnn.experiments.experiment import Cosine, MethodRun
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
    changed = customise(preset, batch_size=7, prior_scale=0.5).load()
    assert (changed.batch_size, changed.prior_scale) == (7, 0.5)
    assert changed.module == experiment.module


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


def test_changes_of_the_methods():
    changed = customise(PRESETS["digits"], num_chains=2, num_steps=50, temperature=0.5).methods
    assert [run.num_steps for run in changed.values()] == [50] * 5
    assert changed["map"].num_chains == 1
    assert changed["sgld"].num_chains == 2
    # Each that has a temperature is given it, and keeps the rest.
    assert changed["sgld"].settings == {"step_size": 2e-4, "temperature": 0.5}
    assert changed["map"].settings == PRESETS["digits"].methods["map"].settings
    (run,) = customise(PRESETS["digits"], methods=["sgld"], step_size=1e-5).methods.values()
    assert run.settings == {"step_size": 1e-5}


def test_methods_that_the_preset_lacks_run_by_their_defaults():
    chosen = customise(PRESETS["digits"], methods=["sgnht", "nuts", "sgld"]).methods
    assert list(chosen) == ["sgnht", "nuts", "sgld"]
    # As long as the longest of the preset, unless its steps are of another kind.
    assert chosen["sgnht"] == MethodRun("blackjax-sgnht", num_steps=40_000)
    assert chosen["nuts"] == MethodRun("blackjax-nuts")
    assert chosen["sgld"] == PRESETS["digits"].methods["sgld"]


def test_nothing_given_changes_nothing():
    assert customise(PRESETS["mnist"]) == PRESETS["mnist"]
