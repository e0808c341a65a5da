"""The changes that the options of the command line make to a preset."""

import pytest

from probbnn.errors import InputError
from probbnn.experiments.customise import customise
from probbnn.experiments.experiment import MethodRun
from probbnn.experiments.presets import PRESETS


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
    # As long as the longest row of the preset whose steps are of the same kind.
    assert chosen["sgnht"] == MethodRun("blackjax-sgnht", num_steps=20_000)
    assert chosen["nuts"] == MethodRun("blackjax-nuts")
    assert chosen["sgld"] == PRESETS["digits"].methods["sgld"]


def test_what_methods_share_changes_when_it_is_loaded():
    changed = customise(PRESETS["digits"], batch_size=7, prior_scale=0.5)
    assert changed.changes == {"batch_size": 7, "prior_scale": 0.5}
    again = customise(changed, prior_scale=2.0).load()
    assert (again.batch_size, again.prior_scale) == (7, 2.0)


def test_nothing_given_changes_nothing():
    assert customise(PRESETS["mnist"]) == PRESETS["mnist"]


@pytest.mark.parametrize(
    ("methods", "change", "message"),
    [
        (["map"], {"num_chains": 5}, "--chains was given, and map has one"),
        (["nuts"], {"batch_size": 10}, "--batch-size was given, and nuts takes all the data"),
        (["nuts", "mclmc"], {"batch_size": 10}, "--batch-size was given, and nuts, mclmc takes"),
    ],
)
def test_an_option_that_none_of_the_methods_has_is_refused(methods, change, message):
    with pytest.raises(InputError, match=message):
        customise(PRESETS["digits"], methods=methods, **change)
    # With others beside them it is for those.
    assert customise(PRESETS["digits"], methods=[*methods, "sgld"], **change)
