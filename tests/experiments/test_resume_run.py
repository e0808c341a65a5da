"""A run that something ended goes on, and ends as if nothing had; a finished one gets longer."""

import errno
import json
import os
import shutil
import signal
from dataclasses import replace

import h5py
import numpy as np
import pytest
import xarray as xr

import probbnn as pb
from probbnn import cli
from probbnn.cli import main
from probbnn.experiments import directory, method, watch
from probbnn.experiments.experiment import Cosine
from probbnn.experiments.records import MetricsRecord, RunRecord, read
from probbnn.inference.directory import Lock

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
    methods = {"map": replace(METHODS["map"], settings={"step_size": Cosine(1e-2, 1e-4)})}
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


# Refusals


def test_only_an_unfinished_run_goes_on_where_it_was(experiment, whole, tmp_path, monkeypatch):
    with pytest.raises(pb.InputError, match="holds another run; choose a new one"):
        pb.run(experiment, whole, progress=False)
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        cut(patch, "map", "before")
        with pytest.raises(KeyboardInterrupt):
            pb.run(experiment, out, progress=False)
    with pytest.raises(pb.InputError, match=r"has not finished; go on with `probbnn resume .*out`"):
        pb.run(experiment, out, progress=False)


def changed(experiment, name):
    inputs, targets = experiment.train
    if name == "train":
        return replace(experiment, train=(inputs + 1, targets))
    if name == "far":
        return replace(experiment, ood={"far": 8 * experiment.test[0]})
    if name == "prior_scale":
        return replace(experiment, prior_scale=2.0)
    if name == "methods":
        return replace(experiment, methods={"map": METHODS["map"]})
    return replace(experiment, module=pb.MLP(hidden=(5,), num_outputs=2))


@pytest.mark.parametrize("name", ["train", "far", "prior_scale", "methods", "model"])
def test_what_has_changed_is_named(experiment, whole, name):
    before = (whole / "run.json").read_bytes()
    what = "other data" if name in ("train", "far") else "another"
    with pytest.raises(pb.InputError, match=f"was begun with {what} .*{name}"):
        pb.resume_run(whole, changed(experiment, name), progress=False)
    assert (whole / "run.json").read_bytes() == before


def test_an_experiment_made_in_python_has_to_be_given_again(whole, tmp_path):
    with pytest.raises(pb.InputError, match=r"made in Python; give it to\s+probbnn.resume_run"):
        pb.resume_run(whole)
    with pytest.raises(pb.InputError, match="holds no run: there is no run.json"):
        pb.resume_run(tmp_path)
    with pytest.raises(pb.InputError, match="more_steps is -1"):
        pb.resume_run(whole, more_steps=-1)


def test_one_process_at_a_time(experiment, whole, tmp_path):
    lock = Lock(whole)
    with pytest.raises(pb.InputError, match=f"another process \\({os.getpid()}\\) is at work"):
        pb.resume_run(whole, experiment, progress=False)
    lock.release()
    result = pb.resume_run(whole, experiment, progress=False)
    assert result.methods == []


def test_draws_that_reach_elsewhere_are_not_even_opened(experiment, whole, tmp_path):
    """A stranger's run may be resumed; what its draws.nc refers to outside is none of it."""
    out = shutil.copytree(whole, tmp_path / "out")
    secret = tmp_path / "secret.nc"
    xr.Dataset({"mine": ("x", np.ones(3))}).to_netcdf(secret, engine="h5netcdf")
    with h5py.File(out / "draws.nc", "a") as file:
        file["map/posterior/elsewhere"] = h5py.ExternalLink(str(secret), "/mine")
    with pytest.raises(pb.InputError, match="draws.nc has a link at /map/posterior/elsewhere"):
        pb.resume_run(out, experiment, progress=False)


# A disk that takes no more


def test_a_full_disk_ends_a_run_that_goes_on_later(experiment, whole, tmp_path, monkeypatch):
    out = tmp_path / "out"
    real = directory._write_tree

    def full(tree, path):
        if "sgld" in tree:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(tree, path)

    with monkeypatch.context() as patch:
        patch.setattr(directory, "_write_tree", full)
        with pytest.raises(pb.OutputError, match=r"can be written any more \(No space left"):
            pb.run(experiment, out, progress=False)
    assert read(RunRecord, out).status == "interrupted"
    pb.resume_run(out, experiment, progress=False)
    assert_same(out, whole)


def test_draws_are_not_even_begun_where_they_do_not_fit(tmp_path, monkeypatch):
    """HDF5 may crash on a full disk."""
    tree = xr.DataTree.from_dict({"/a": xr.Dataset({"x": (("i", "j"), np.zeros((9, 9)))})})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20 + 600))
    with pytest.raises(OSError, match="No space left"):
        directory._write_tree(tree, tmp_path / "draws.nc")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20 + 700))
    directory._write_tree(tree, tmp_path / "draws.nc")
    with xr.open_datatree(tmp_path / "draws.nc") as found:
        xr.testing.assert_identical(found["a"].ds, tree["a"].ds)


def test_what_draws_say_is_kept_to_four_digits_and_all_else_as_it_is(tmp_path):
    values = np.random.default_rng(0).random((2, 9, 3, 5), np.float32)
    values[0, 0, 0, :3] = [np.nan, np.inf, 0]
    dims = ("chain", "draw", "probe", "class")
    group = xr.Dataset({"probability": (dims, values), "weight": (dims[:3], values[..., 0])})
    directory._write_tree(xr.DataTree.from_dict({"/a": group}), tmp_path / "draws.nc")
    with xr.open_datatree(tmp_path / "draws.nc") as found:
        np.testing.assert_array_equal(found["a/weight"], group["weight"])
        np.testing.assert_allclose(found["a/probability"], values, rtol=2**-14)
        assert not np.array_equal(found["a/probability"], values)
        assert found["a/probability"].dtype == np.float32


# Watching


def test_a_finished_run_is_watched(whole):
    found = watch.status(whole)
    assert not found.is_running
    assert str(found) == f"{whole}: finished\n  map: finished\n  sgld: finished"


def test_a_run_on_its_way_is_watched(whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    record = json.loads((out / "run.json").read_text())
    record["status"] = record["methods"]["sgld"]["status"] = "running"
    (out / "run.json").write_text(json.dumps(record))
    numbers = {
        "step": 1_500,
        "num_steps": 6_000,
        "steps_per_second": 250.0,
        "seconds_left": 3_725.0,
        "median R-hat": 1.02345,
        "smallest ESS": 80.4,
        "temperature": 0.98,
    }
    progress = out / "methods" / "sgld" / "progress.json"
    progress.write_text(json.dumps(numbers))
    line = (
        "  sgld: step 1,500 of 6,000 (25%), 250 steps/s, 1 h 02 min left, median R-hat 1.023, "
        "smallest ESS 80.4, temperature 0.98"
    )
    lock = Lock(out)
    found = watch.status(out)
    assert found.is_running
    assert found.lines == (f"{out}: running", "  map: finished", line)
    lock.release()
    # Nobody is at work on it any more.
    dead = watch.status(out)
    assert not dead.is_running
    assert dead.lines[0] == f"{out}: interrupted; go on with: probbnn resume {out}"
    for content in ("[]", "{", json.dumps({"step": "many", "num_steps": True})):
        progress.write_text(content)
        assert watch.status(out).lines[2] == "  sgld: not begun"


# The command line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resume", "{out}/nowhere"], "holds no run"),
        (["watch", "{out}/nowhere"], "holds no run"),
        (["resume", "{out}"], "made in Python"),
        (["run", "digits", "--budget", "5m"], "--budget is that of --until-converged"),
    ],
)
def test_what_cannot_go_on_is_status_2(whole, capsys, arguments, message):
    assert main([argument.format(out=whole) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--steps", ["100", "+0", "+1e3", "+-5", "+"]),
        ("--checkpoint-every", ["0", "-3s", "soon", "inf", "nan", ""]),
    ],
)
def test_numbers_with_units(whole, capsys, option, values):
    for value in values:
        with pytest.raises(SystemExit) as exit_:
            main(["resume", str(whole), f"{option}={value}"])
        assert exit_.value.code == 2
        assert "expected such as" in capsys.readouterr().err
    assert [cli._seconds(text) for text in ("90", "90s", "1.5m", "2h")] == [90, 90, 90, 7_200]
    assert cli._more_steps("+5000") == 5_000


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; what there is is on record; go on with: probbnn"),
        (pb.Terminated(143), 143, "interrupted; what there is is on record; go on with: probbnn"),
        (pb.OutputError("full"), 1, "full; what there is is on record; go on with: probbnn resume"),
    ],
)
def test_how_a_run_that_breaks_off_ends(tmp_path, capsys, monkeypatch, raised, status, said):
    out = tmp_path / "out"

    def broken(*arguments, **options):
        raise raised

    monkeypatch.setattr(pb, "run", broken)
    assert main(["run", "digits", "--out", str(out)]) == status
    assert capsys.readouterr().err.endswith("; nothing had begun\n")
    out.mkdir()
    (out / "run.json").touch()
    assert main(["run", "digits", "--out", str(out)]) == status
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"probbnn: {said}")
    assert line.endswith(str(tmp_path / "out"))


def test_watch_prints_once(whole, capsys):
    assert main(["watch", str(whole)]) == 0
    assert capsys.readouterr().out == f"{watch.status(whole)}\n"
