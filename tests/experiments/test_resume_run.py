"""A run that something ended goes on, and ends as if nothing had; a finished one gets longer."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import probbnn as pb
from probbnn.cli import main
from probbnn.experiments import method, watch
from probbnn.experiments.records import MetricsRecord, RunRecord, read

pytestmark = pytest.mark.usefixtures("quick_compilation", "no_report")

METHODS = {
    "map": pb.MethodRun(num_steps=12),
    "sgld": pb.MethodRun(num_chains=2, num_steps=40, draws=10),
}


@pytest.fixture
def no_report(monkeypatch):
    monkeypatch.setattr("probbnn.report.page.write_report", lambda directories: directories[0])


@pytest.fixture(scope="module")
def experiment():
    x = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
    y = (x @ [1.0, -1.0, 0.5] > 0).astype(int)
    module = pb.MLP(hidden=(4,), num_outputs=2)
    train, test = (x[:60], y[:60]), (x[60:], y[60:])
    return pb.Experiment("mine", module, train, test, METHODS, ood={"far": 9 * x[60:]})


@pytest.fixture(scope="module")
def whole(experiment, tmp_path_factory):
    """A run that nothing ended."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("probbnn.report.page.write_report", lambda directories: directories[0])
        pb.run(experiment, out, progress=False)
    return out


def metrics_of(out):
    """All that is on record but what a clock says."""
    found = json.loads((out / "metrics.json").read_text())
    for measured in found["methods"].values():
        for name in ("seconds", "compile_seconds"):
            del measured[name]
    return found


def assert_same(out, other):
    assert metrics_of(out) == metrics_of(other)
    with xr.open_datatree(out / "draws.nc") as tree, xr.open_datatree(other / "draws.nc") as wanted:
        xr.testing.assert_identical(tree, wanted)


def cut(monkeypatch, name, where):
    """The process is interrupted in one method: before it samples, on its way, or behind."""
    real = method.sample_method

    def interrupted(key, setup, this, *, callback=None, **rest):
        if this != name:
            return real(key, setup, this, callback=callback, **rest)
        if where == "before":
            raise KeyboardInterrupt

        def stop(step, positions):
            if callback is not None:
                callback(step, positions)
            if where == "within" and step > 20:
                signal.raise_signal(signal.SIGINT)

        draws = real(key, setup, this, callback=stop, **rest)
        if where == "behind":
            raise KeyboardInterrupt
        return draws

    monkeypatch.setattr(method, "sample_method", interrupted)


@pytest.mark.parametrize("where", ["before", "within", "behind"])
def test_a_run_that_was_cut_ends_as_if_it_had_not_been(
    experiment, whole, tmp_path, monkeypatch, where
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        cut(patch, "sgld", where)
        with pytest.raises(KeyboardInterrupt):
            pb.run(experiment, out, progress=False)
    assert read(RunRecord, out).status == "interrupted"
    assert set(read(MetricsRecord, out).methods) == {"map"}
    result = pb.resume_run(out, experiment, progress=False)
    assert [r.method for r in result.methods] == ["sgld"]
    assert read(RunRecord, out).status == "finished"
    assert_same(out, whole)


def test_no_position_is_stored(whole):
    assert not list((whole / "methods" / "sgld" / "draws.zarr").glob("positions"))
    assert read(MetricsRecord, whole).methods["sgld"].verdict is not None


def test_a_finished_run_is_made_longer_and_equals_the_long_one(experiment, tmp_path):
    """The same warm-up and thinning, and all the steps that were asked for in the end."""
    sgld = METHODS["sgld"]
    short = replace(experiment, methods={"sgld": sgld})
    # 20 warm-up steps and every second draw, like the short one.
    long = replace(sgld, num_steps=60, warmup=20 / 60, draws=20)
    out, wanted = tmp_path / "out", tmp_path / "wanted"
    pb.run(replace(experiment, methods={"sgld": long}, curve_points=1), wanted, progress=False)
    short = replace(short, curve_points=1)
    pb.run(short, out, progress=False)
    result = pb.resume_run(out, short, more_steps=20, progress=False)
    assert result.methods[0].draws.settings["num_steps"] == 60
    with xr.open_datatree(out / "draws.nc") as tree, xr.open_datatree(wanted / "draws.nc") as other:
        for group in ("posterior", "posterior_predictive", "predictions", "log_likelihood"):
            xr.testing.assert_identical(tree[f"sgld/{group}"].ds, other[f"sgld/{group}"].ds)
    found, expected = (metrics_of(path)["methods"]["sgld"] for path in (out, wanted))
    for name in ("sets", "detection", "convergence", "verdict", "temperature_meters", "num_draws"):
        assert found[name] == expected[name]


def test_what_cannot_be_made_longer_keeps_its_result(experiment, tmp_path):
    methods = {"map": replace(METHODS["map"], settings={"step_size": pb.experiments.experiment.Cosine(1e-2, 1e-4)})}
    experiment = replace(experiment, methods=methods)
    out = tmp_path / "out"
    pb.run(experiment, out, progress=False)
    before = metrics_of(out)
    lines = []
    result = pb.resume_run(out, experiment, more_steps=10, progress=False, log=lines.append)
    assert "a longer run would have had another" in result.failures["map"]
    assert metrics_of(out) == before
    run = read(RunRecord, out)
    assert (run.status, run.methods["map"].status) == ("finished", "finished")
