"""One short run, of which all tests of the report have copies."""

import fcntl
import json
import os
import shutil
from dataclasses import replace

import jax
import pytest
import xarray as xr
from pages import HOSTILE, edit

from probbnn.cli import main
from probbnn.experiments import presets
from probbnn.report import figures
from probbnn.report.page import write_report


@pytest.fixture(scope="session")
def run_directory(tmp_path_factory):
    """A short run of a point estimate and a sampler, with few sets of other inputs.

    Parallel workers wait for the first of them, and share what it wrote.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    out = shared / "report-run" / "digits"
    with (shared / "report-run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (out / "report.html").exists():
            _run(out)
    return out


def _run(out):
    digits = presets.PRESETS["digits"]
    outside = digits.load().ood
    ood = {kind: outside[kind] for kind in ("rotated", "noise")}
    arguments = ["--method", "map,psgld", "--steps", "60", "--chains", "2", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        few = replace(digits, changes={"ood": ood, "curve_points": 1})
        patch.setitem(presets.PRESETS, "digits", few)
        patch.setattr(figures, "save", lambda figure, stem: None)
        jax.config.update("jax_disable_most_optimizations", True)
        assert main(["run", "digits", *arguments]) == 0
        jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def undrawn(monkeypatch):
    """Makes reports quick: figures are made, and neither put into the page nor saved."""
    monkeypatch.setattr(figures, "data_uri", lambda figure: "data:image/png;base64,")
    monkeypatch.setattr(figures, "save", lambda figure, stem: stem.touch())


@pytest.fixture
def copy(run_directory, tmp_path, undrawn):
    """Copies of the run."""
    return lambda name="run": shutil.copytree(run_directory, tmp_path / name)


@pytest.fixture(scope="session")
def hostile(run_directory, tmp_path_factory):
    """A report whose directory, preset, labels, settings and classes are all meant to do harm."""
    directory = tmp_path_factory.mktemp("hostile") / "run <script>alert(1)<!-- | `x` [y](z)"
    shutil.copytree(run_directory, directory)

    def change_run(run):
        run["preset"] |= {"name": HOSTILE[0], "summary": HOSTILE[1]}
        for label, method in zip(HOSTILE[1:], run["preset"]["methods"].values(), strict=True):
            method["label"] = label
        run["methods"]["psgld"]["settings"][HOSTILE[2]] = HOSTILE[0]

    def change_metrics(metrics):
        metrics["methods"]["psgld"]["label"] = HOSTILE[2]
        metrics["methods"]["psgld"]["verdict"]["evidence"] = HOSTILE

    edit(directory / "run.json", change_run)
    edit(directory / "metrics.json", change_metrics)
    with xr.open_datatree(directory / "draws.nc") as opened:
        tree = opened.load()
    names = [f"{i}{HOSTILE[i % 2]}" for i in range(10)]
    for group in ("map/predictions", "psgld/predictions", "psgld/posterior_predictive"):
        tree[group] = xr.DataTree(tree[group].to_dataset().assign_coords({"class": names}))
    tree.to_netcdf(directory / "draws.nc", engine="h5netcdf")
    return write_report([directory], directory / "report.html")


@pytest.fixture
def metrics(run_directory):
    """What the run measured of its sampler."""
    return json.loads((run_directory / "metrics.json").read_text())["methods"]["psgld"]
