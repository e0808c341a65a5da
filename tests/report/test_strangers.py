"""Run directories that somebody else made: nothing outside them is read, written or waited for."""

import json
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from pages import edit

from probbnn.cli import main
from probbnn.errors import InputError
from probbnn.netcdf import check_netcdf
from probbnn.report import figures
from probbnn.report.load import collect
from probbnn.report.page import write_report

GROUP = "psgld/predictions_constant_data"


@pytest.fixture
def outside(tmp_path):
    """A file that is no part of any run."""
    path = tmp_path / "precious"
    path.write_bytes(bytes(range(256)) * 2_000)
    return path


def refused(directory, capsys):
    """The one line that a report of it comes to."""
    before = set(directory.rglob("*"))
    assert main(["report", str(directory)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert set(directory.rglob("*")) == before
    return lines[0]


def test_no_link_is_written_through(copy, outside, monkeypatch):
    directory = copy()
    content = outside.read_bytes()
    folder = outside.with_name("folder")
    folder.mkdir()
    for name in ("report.html", "report.md"):
        (directory / name).unlink()
        (directory / name).symlink_to(outside)
        (directory / f"{name}.part").symlink_to(outside)
    shutil.rmtree(directory / "figures", ignore_errors=True)
    write_report([directory])
    assert outside.read_bytes() == content
    assert not (directory / "report.html").is_symlink()
    shutil.rmtree(directory / "figures")
    (directory / "figures").symlink_to(folder)
    with pytest.raises(InputError, match="figures is a symbolic link, not a directory"):
        write_report([directory])
    assert list(folder.iterdir()) == []
    monkeypatch.undo()
    for name in ("plot.png", "plot.pdf"):
        (folder / name).symlink_to(outside)
    figures.save(figures.rhat_figure({"r": np.array([1.0, 1.1])}, "t"), folder / "plot")
    assert outside.read_bytes() == content
    assert sorted(path.name for path in folder.iterdir()) == ["plot.pdf", "plot.png"]


@pytest.mark.parametrize("name", ["run.json", "metrics.json", "draws.nc"])
@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_only_files_are_read(copy, capsys, outside, name, kind):
    directory = copy()
    (directory / name).rename(outside)
    if kind == "link":
        (directory / name).symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(directory / name)
    else:
        (directory / name).mkdir()
    assert f"{name} is a" in refused(directory, capsys)


def external(file, outside):
    del file[f"{GROUP}/inputs"]
    storage = [(str(outside), 0, 500 * 64)]
    inputs = file[GROUP].create_dataset(
        "inputs", (500, 8, 8, 1), "u1", external=storage, track_order=True
    )
    for axis, name in enumerate(("example", "height", "width", "channel")):
        if name in file[GROUP]:
            inputs.dims[axis].attach_scale(file[GROUP][name])


def virtual(file, outside):
    with h5py.File(outside, "w") as other:
        other["x"] = np.zeros((500, 8, 8, 1), "u1")
    layout = h5py.VirtualLayout((500, 8, 8, 1), "u1")
    layout[:] = h5py.VirtualSource(str(outside), "x", (500, 8, 8, 1))
    del file[f"{GROUP}/inputs"]
    file[GROUP].create_virtual_dataset("inputs", layout)


def external_link(file, outside):
    file[f"{GROUP}/more"] = h5py.ExternalLink(str(outside), "/x")


def soft_link(file, outside):
    file[f"{GROUP}/more"] = h5py.SoftLink("/psgld/posterior")


def loop(file, outside):
    file["psgld/posterior/again"] = file["psgld"]


def enormous(file, outside):
    file[GROUP].create_dataset("more", (7 << 40,), "u1", chunks=(1 << 20,))


def many_strings(file, outside):
    kind = h5py.string_dtype()
    file[GROUP].create_dataset("names", (1 << 20,), kind, chunks=(1 << 10,))


def long_strings(file, outside):
    file[GROUP].create_dataset("names", data=["x" * (1 << 20)] * 17, dtype=h5py.string_dtype())


def large_attribute(file, outside):
    file[GROUP].attrs.create("names", ["x"] * 1_000, dtype=h5py.string_dtype())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (external, "keeps /psgld/predictions_constant_data/inputs in other files"),
        (virtual, "puts /psgld/predictions_constant_data/inputs together from elsewhere"),
        (external_link, "has a link at /psgld/predictions_constant_data/more"),
        (soft_link, "has a link at"),
        (loop, "has a second name for one thing, /psgld/posterior/again"),
        (enormous, "declares 7,69"),
        (many_strings, "has 1,048,576 strings"),
        (long_strings, "has more than 16,777,216 bytes"),
        (large_attribute, "has a large attribute, names"),
    ],
)
def test_draws_stand_for_themselves(copy, capsys, outside, damage, message):
    directory = copy()
    with h5py.File(directory / "draws.nc", "a") as file:
        damage(file, outside)
    assert f"draws.nc {message}" in refused(directory, capsys)


def rewrite(directory, change):
    """The draws with one group changed, as xarray writes them."""
    with xr.open_datatree(directory / "draws.nc") as opened:
        tree = opened.load()
    group, changed = change(tree)
    tree[group] = xr.DataTree(changed)
    tree.to_netcdf(directory / "draws.nc", engine="h5netcdf")


@pytest.mark.parametrize(
    ("group", "change", "message"),
    [
        ("predictions", lambda d: d.drop_vars("class"), "no coordinate class"),
        ("predictions", lambda d: d.drop_vars("example"), "no coordinate example"),
        ("posterior_predictive", lambda d: d.drop_vars("probe"), "no coordinate probe"),
        ("trace", lambda d: d.drop_vars("step"), "no coordinate step"),
        ("posterior", lambda d: d.assign(log_density=d.log_density.astype(str)), "log_density as"),
        ("posterior", lambda d: d.rename(draw="round"), "has log_density over"),
        ("predictions_constant_data", lambda d: d.isel(example=slice(3)), "examples of psgld are"),
    ],
)
def test_what_is_wrong_with_draws_is_one_line(copy, group, change, message):
    directory = copy()
    name = f"psgld/{group}"
    rewrite(directory, lambda tree: (name, change(tree[name].to_dataset())))
    with pytest.raises(InputError, match=message) as caught:
        write_report([directory])
    assert "draws.nc" in str(caught.value)
    assert "\n" not in str(caught.value)


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("run.json", '"seed": 0', '"seed": 1e400', "run.json holds the number 1e400"),
        ("run.json", '"seed": 0', f'"seed": {10**400}', "run.json holds the number 1000"),
        ("run.json", '"seed": 0', f'"seed": {2**64}', "run.json holds the number 1844"),
        ("run.json", '"seed": 0', '"seed": NaN', "run.json holds the number NaN"),
        ("run.json", '"seed": 0', r'"x": "\ud800"', "run.json holds half a character"),
        ("run.json", '"seed": 0', f'"seed": {DEEP}', "no run.json that can be read"),
        ("metrics.json", '"seconds":', '"seconds": 1e400, "s":', "metrics.json holds the number"),
    ],
)
def test_json_that_nothing_can_write_down_again(copy, capsys, name, old, new, message):
    directory = copy()
    text = (directory / name).read_text()
    assert old in text
    (directory / name).write_text(text.replace(old, new, 1))
    assert message in refused(directory, capsys)


def test_damage_at_any_byte_is_told_apart_from_a_fault_of_ours(copy):
    path = copy() / "draws.nc"
    sound = path.read_bytes()
    found = []
    for place in range(100, 6_000, 150):
        path.write_bytes(sound[:place] + b"\xff" * 8 + sound[place + 8 :])
        try:
            check_netcdf(path)
        except (InputError, OSError) as error:
            found.append(error)
    assert len(found) > 5


def test_a_preset_of_another_type(copy, capsys):
    directory = copy()
    (directory / "run.json").write_text(json.dumps({"preset": {"methods": 5}}))
    assert "run.json: preset.methods is 5; expected an object" in refused(directory, capsys)


def test_a_page_replaces_nothing_but_a_page(copy, tmp_path, capsys):
    directory = copy()
    notes = tmp_path / "notes.md"
    notes.write_text("mine")
    arguments = ["report", str(directory), "--out", str(tmp_path / "notes.html")]
    assert main(arguments) == 2
    assert f"{notes} is there already" in capsys.readouterr().err
    assert notes.read_text() == "mine"
    assert not (tmp_path / "notes.html").exists()
    notes.unlink()
    assert main(arguments) == 0
    assert main(arguments) == 0  # a page of ours, and what is beside it


def test_names_of_files_have_an_end(copy):
    directory = copy()
    edit(directory / "metrics.json", lambda m: m["methods"]["psgld"].update(label="x" * 300))
    edit(directory / "run.json", lambda r: r["preset"]["methods"]["psgld"].update(label="x" * 300))
    write_report([directory])
    assert max(len(path.name) for path in (directory / "figures").iterdir()) < 100


def test_a_home_directory_is_found(copy, monkeypatch, tmp_path):
    directory = copy()
    monkeypatch.setenv("HOME", str(directory.parent))
    assert collect([Path("~") / directory.name])[0].record.seed == 0
