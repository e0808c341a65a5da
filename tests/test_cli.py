"""The command line and the run directory, as a user meets them."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import probbnn.data
import probbnn.experiments.run
from probbnn.cli import main
from probbnn.experiments import method, presets
from probbnn.experiments.customise import customise

pytestmark = pytest.mark.usefixtures("quick_compilation")

SMALL = ["run", "digits", "--steps", "40", "--chains", "2"]
METHODS = ["--method", "map,sghmc"]


def python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, **options
    )


@pytest.fixture
def no_pictures(monkeypatch):
    """Leaves out figures and page at the end of a run, which others look at."""
    monkeypatch.setattr("probbnn.report.page.write_report", lambda directories: directories[0])


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """A short run of the digits preset, through a real process, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    process = subprocess.run(
        [sys.executable, "-m", "probbnn", *SMALL, *METHODS, "--seed", "3", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )
    assert process.returncode == 0, process.stderr
    return out, process.stdout


def test_run_directory(finished_run):
    out, _ = finished_run
    run = json.loads((out / "run.json").read_text())
    assert run["status"] == "finished"
    assert run["seed"] == 3
    assert set(run["methods"]) == {"map", "sghmc"}
    assert run["methods"]["sghmc"]["settings"]["batch_size"] == 200
    assert run["data"]["train"]["fingerprint"] == probbnn.data.load("digits")[0].fingerprint
    assert {"probbnn", "jax", "blackjax", "numpyro", "arviz"} <= set(run["versions"])
    assert run["device"]["platform"] == "cpu"
    metrics = json.loads((out / "metrics.json").read_text())["methods"]
    assert set(metrics["sghmc"]["sets"]["test"]) == {"mean_softmax", "votes", "mean_logits"}
    assert set(metrics["map"]["sets"]["test"]) == {"plug_in"}
    assert metrics["sghmc"]["sets"]["noise"]["votes"]["nll"] is None
    assert metrics["map"]["temperature_meters"] is None
    assert metrics["map"]["verdict"] is None
    assert metrics["sghmc"]["verdict"]["label"] == "not converged"
    assert metrics["sghmc"]["convergence"]["diagnostics"]["function"]["numbers"]
    assert {path.name for path in out.glob("report.*")} == {"report.html", "report.md"}
    meters = metrics["sghmc"]["temperature_meters"]
    assert set(meters["by_layer"]) == {"Dense_0", "Dense_1"}
    assert meters["gradient_noise"]["value"] > 0
    assert meters["kinetic"]["value"] > 0
    assert [point["step"] for point in metrics["map"]["curve"]][:2] == [1, 4]


def test_draws_open_in_arviz(finished_run):
    out, _ = finished_run
    with xr.open_datatree(out / "draws.nc") as tree:
        assert set(tree.children) == {"map", "sghmc"}
        posterior = tree["sghmc/posterior"]
        assert posterior["log_density"].dims == ("chain", "draw")
        assert posterior.sizes["chain"] == 2
        probabilities = tree["sghmc/posterior_predictive"]["probability"]
        assert probabilities.dims == ("chain", "draw", "probe", "class")
        np.testing.assert_allclose(probabilities.sum("class"), 1, atol=2e-4)
        assert "noise[0]" in probabilities["probe"]
        measured = tree["sghmc/sample_stats"]["configurational_temperature"]
        assert np.isfinite(measured).all()  # 40 draws, of each of which it is measured


def test_figures_come_as_png_and_pdf(finished_run):
    out, _ = finished_run
    names = {path.name for path in (out / "figures").iterdir()}
    for stem in ("acc-vs-conf-sgd", "acc-vs-conf-sghmc-patches", "reliability", "risk-coverage"):
        assert {f"{stem}.png", f"{stem}.pdf"} <= names


def test_terminal_tables(finished_run):
    _, printed = finished_run
    assert "In distribution" in printed
    assert "Out of distribution" in printed
    assert "plug-in" in printed
    assert "votes" in printed
    assert "nan" not in printed.lower()
    # 40 steps lead nowhere, and the program says so.
    assert "sghmc: sampling at T ≈" in printed
    assert "run longer" in printed
    assert "sghmc: not converged (the run is too short); next: " in printed


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_same_seed_same_numbers(finished_run, tmp_path, capsys):
    out, _ = finished_run
    again = tmp_path / "again"
    assert main([*SMALL, "--seed", "3", "--method", "sghmc", "--out", str(again)]) == 0
    # The key of a method belongs to its name, not to its place among the methods of the run.
    first, second = (
        json.loads((directory / "metrics.json").read_text())["methods"]["sghmc"]["sets"]
        for directory in (out, again)
    )
    assert first == second


def test_finished_run_is_never_overwritten(finished_run, capsys):
    out, _ = finished_run
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main([*SMALL, "--out", str(out)]) == 2
    assert "holds another run" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "digit"], "unknown preset 'digit'; .*did you mean 'digits'"),
        (["run", "digits", "--method", "nuts9"], "unknown method 'nuts9'"),
        (["run", "digits", "--batch-size", "1298"], "batch size from 1 to 1297"),
        (["run", "digits", "--batch-size", "0"], "batch size from 1 to 1297"),
        (["run", "digits", "--steps", "0"], "must be at least 1"),
        (["run", "digits", "--chains", "-1"], "must be at least 1"),
        (["run", "digits", "--step-size", "0.1"], "choose one with --method"),
        *(
            (["run", "digits", "--method", "psgld", "--step-size", bad], "positive and finite")
            for bad in ("-1", "0", "nan", "inf")
        ),
        *(
            (["run", "digits", "--temperature", bad], "temperature is")
            for bad in ("-1", "0", "nan")
        ),
        *(
            (["run", "digits", "--prior-scale", bad], "prior_scale is")
            for bad in ("-1", "0", "inf")
        ),
        (["run", "digits", "--method", "map", "--temperature", "-3"], "temperature is -3.0"),
        (["run", "digits", "--method", "map", "--temperature", "3"], "map has none"),
        (["run", "digits", "--method", "psgld", "--steps", "1"], "num_warmup is 0"),
        (["run", "digits", "--seed", "-1"], "seed is -1"),
        (["run", "mnist", "--data-dir", "{file}"], "data directory"),
        (["run", "digits", "--out", "{file}/run"], "cannot be written"),
        (["run", "digits", "--out", "{file}"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.write_text("mine")
    assert main([argument.format(file=file) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("probbnn: error: ")
    assert re.search(message, lines[0])
    # Nothing was computed, so nothing is left behind; and what was there is as it was.
    left = [path.name for path in tmp_path.rglob("*") if path.name != "runs"]
    assert left == ["file"]
    assert file.read_text() == "mine"


def test_an_empty_directory_of_the_users_stays(tmp_path, capsys):
    assert main([*SMALL, "--batch-size", "0", "--out", str(tmp_path)]) == 2
    assert tmp_path.is_dir()


def test_labels_of_a_run_are_its_own():
    """The notebook calls its pSGLD "sgld"; BlackJAX's SGLD beside it needs another label."""
    preset = customise(presets.PRESETS["notebook"], methods=["psgld", "sgld"])
    assert len({method.label for method in preset.methods.values()}) == 2


def test_missing_data_without_network(tmp_path, capsys, monkeypatch):
    closed = "http://127.0.0.1:9/"
    monkeypatch.setattr(probbnn.data.tfds, "_URLS", dict.fromkeys(probbnn.data.tfds._URLS, closed))
    out = tmp_path / "out"
    assert main(["run", "mnist", "--data-dir", str(tmp_path / "data"), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "TFDS_DATA_DIR" in error
    assert "Traceback" not in error
    assert not out.exists()


@pytest.mark.usefixtures("no_pictures")
def test_a_diverging_method_does_not_stop_the_others(tmp_path, capsys, monkeypatch):
    digits = presets.PRESETS["digits"]
    wild = replace(digits.methods["sgld"], settings={"step_size": 1e6})
    monkeypatch.setitem(
        presets.PRESETS, "digits", replace(digits, methods={**digits.methods, "sgld": wild})
    )
    out = tmp_path / "out"
    assert main([*SMALL, "--method", "map,sgld", "--out", str(out)]) == 0
    run = json.loads((out / "run.json").read_text())
    assert run["methods"]["sgld"]["status"] == "diverged"
    assert "smaller step size" in run["methods"]["sgld"]["reason"]
    assert run["methods"]["map"]["status"] == "finished"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["failures"]["sgld"]["verdict"]["label"] == "diverged"
    printed = capsys.readouterr()
    assert "sgld failed" in printed.err
    assert "sgld: diverged" in printed.out


def test_interrupt_keeps_what_had_finished(tmp_path, capsys, monkeypatch):
    real = method.sample_method

    def interrupted(key, setup, name, **settings):
        if name == "sgld":
            raise KeyboardInterrupt
        return real(key, setup, name, **settings)

    monkeypatch.setattr(method, "sample_method", interrupted)
    out = tmp_path / "out"
    assert main([*SMALL, "--method", "map,sgld", "--out", str(out)]) == 130
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    assert "map" in json.loads((out / "metrics.json").read_text())["methods"]


@pytest.mark.parametrize("arguments", [["--help"], ["methods"], ["datasets"]])
def test_light_commands_import_no_heavy_library(arguments):
    heavy = {"jax", "flax", "blackjax", "numpyro", "optax", "arviz", "matplotlib", "sklearn"}
    process = python(
        "import sys\n"
        "from probbnn.cli import main\n"
        f"try:\n    status = main({arguments})\n"
        "except SystemExit as exit:\n    status = exit.code\n"
        f"assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)\n"
        "sys.exit(status)\n"
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout


def test_usage_error_is_status_2():
    process = subprocess.run(
        [sys.executable, "-m", "probbnn", "run"], capture_output=True, text=True, check=False
    )
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
