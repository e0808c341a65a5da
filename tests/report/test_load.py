"""Run directories as they are read: told apart, and damaged."""

import re
import sys

import pytest
import xarray as xr
from pages import edit, read

from probbnn.cli import main
from probbnn.errors import InputError
from probbnn.report.load import collect


def test_probes_have_names(run_directory):
    with xr.open_datatree(run_directory / "draws.nc") as tree:
        probes = tree["psgld/posterior_predictive"]["probe"].values
    kinds = {re.sub(r"\[\d+\]$", "", probe) for probe in probes}
    assert kinds == {"test", "boundary", "rotated", "noise"}


def test_a_directory_that_is_no_run(tmp_path, copy, capsys):
    comparison, damaged = tmp_path / "comparison", copy()
    comparison.mkdir()
    (comparison / "comparison.json").write_text("{}")
    (damaged / "run.json").write_text("[]")
    for directory, message in (
        (tmp_path, "holds no run"),
        (tmp_path / "absent", "is no directory"),
        (comparison, "holds a comparison"),
        (damaged, "holds no run"),
    ):
        assert main(["report", str(directory)]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert message in lines[0]
        assert not (directory / "report.html").exists() or directory == damaged


def test_runs_of_one_name_are_told_apart(copy, tmp_path, capsys):
    one, two = copy("here/same"), copy("there/same")
    out = tmp_path / "both.html"
    assert main(["report", str(one), str(two), "--out", str(out)]) == 0
    for name in ("here/same: psgld", "there/same: psgld"):
        assert name in read(out).text
    assert main(["report", str(one), f"{one}/../same", "--out", str(out)]) == 2
    assert "was given twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("run.json", lambda run: run.update(device="a laptop")),
        ("metrics.json", lambda metrics: metrics.update(methods=["psgld"])),
        ("metrics.json", lambda metrics: metrics["methods"]["psgld"]["uncertainty"].clear()),
        ("metrics.json", lambda metrics: metrics["methods"]["psgld"]["reliability"].clear()),
        ("metrics.json", lambda metrics: metrics["methods"]["psgld"].update(seconds="long")),
    ],
)
def test_a_file_that_was_changed_is_shown_or_refused_in_a_line(copy, capsys, file, change):
    directory = copy("changed")
    edit(directory / file, change)
    status = main(["report", str(directory)])
    lines = capsys.readouterr().err.strip().splitlines()
    assert (status, len(lines)) in ((0, 0), (2, 1))


def test_damage_is_said_of_the_right_directory_file_and_field(copy):
    sound, damaged = copy("sound"), copy("damaged")
    edit(damaged / "metrics.json", lambda m: m["methods"]["psgld"].update(seconds="long"))
    with pytest.raises(InputError) as caught:
        collect([sound, damaged])
    message = str(caught.value)
    assert str(damaged) in message
    assert "metrics.json: methods.psgld.seconds is 'long'; expected a number" in message
    assert "\n" not in message


def test_which_methods_sample(copy):
    directory = copy()
    assert [entry.is_sampler for entry in collect([directory])[0].entries] == [False, True]
    # An older run has but the names on record, and somebody's own kernel is no name of ours.
    for name, samples in (("nuts", True), ("laplace", False), ("my_kernel", True)):
        edit(directory / "metrics.json", lambda m, name=name: m.update(methods={name: {}}))
        edit(directory / "run.json", lambda run: run["preset"].update(methods={}))
        (entry,) = collect([directory])[0].entries
        assert entry.is_sampler == samples


def test_what_is_on_record_takes_no_samplers(run_directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "probbnn.samplers.registry", None)  # cannot be imported
    (run,) = collect([run_directory])
    assert run.entries[1].is_sampler
