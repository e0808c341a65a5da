"""`run`: a user's own experiment, the keys, and failures that do not stop the others."""

import contextlib
import json
import signal
from dataclasses import replace
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest
import xarray as xr

import probbnn as pb
from probbnn.experiments import loop, method
from probbnn.experiments import run as run_module
from probbnn.experiments.presets import find_preset
from probbnn.experiments.records import MetricsRecord, RunRecord, read
from probbnn.experiments.setup import prepare
from probbnn.inference.signals import interruptible
from probbnn.report import figures

pytestmark = pytest.mark.usefixtures("quick_compilation")

SHORT = {
    "map": pb.MethodRun(num_steps=20),
    "sgld": pb.MethodRun(num_chains=2, num_steps=40, draws=10),
}
UNJUDGED = method.Sampling(keep_positions=True, judged=False, progress=False)


class CNN(nn.Module):
    """As a user would write one."""

    @nn.compact
    def __call__(self, inputs):
        hidden = nn.relu(nn.Conv(3, (3, 3))(inputs))
        return nn.Dense(2)(hidden.reshape(len(inputs), -1))


def images(size, seed):
    pixels = np.random.default_rng(seed).integers(256, size=(size, 6, 6, 1), dtype=np.uint8)
    return pixels, (pixels.mean(axis=(1, 2, 3)) > 127).astype(int)


@pytest.fixture(scope="module", autouse=True)
def quick_pages():
    """Reports whose figures are drawn and not put into them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "data_uri", lambda figure: "data:image/png;base64,")
        yield


@pytest.fixture(scope="module")
def classification(tmp_path_factory):
    """A user's own network on their own arrays, in five lines."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    train, test, far = images(60, 0), images(30, 1), images(20, 2)[0] // 2
    mine = pb.Experiment("mine", CNN(), train, test, SHORT, ood={"dark": far}, batch_size=16)
    return pb.run(mine, out, seed=3, progress=False)


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "line"
    x = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    y = x @ np.array([1.0, -1.0, 0.5], np.float32)
    mine = pb.Experiment(
        "line",
        pb.MLP(hidden=(4,), num_outputs=1, activation="tanh"),
        (x[:50], y[:50]),
        (x[50:], y[50:]),
        SHORT,
        ood={"far": 10 * x[50:]},
        likelihood=pb.LearnedGaussian(),
    )
    return pb.run(mine, out, progress=False)


def test_the_run_directory_of_a_users_own(classification):
    out = classification.directory
    names = {"run.json", "metrics.json", "draws.nc", "figures", "report.html", "report.md"}
    assert {path.name for path in out.iterdir()} == names | {"methods"}
    assert {path.name for path in (out / "methods").iterdir()} == {"map", "sgld"}
    run, metrics = read(RunRecord, out), read(MetricsRecord, out)
    assert run.status == "finished"
    assert run.experiment.network == "CNN()"
    assert {label: data.size for label, data in run.data.items()} == {
        "train": 60,
        "test": 30,
        "dark": 20,
    }
    assert run.methods["sgld"].settings["batch_size"] == 16
    assert metrics.methods["map"].predictive == "plug_in"
    assert metrics.methods["sgld"].sets["dark"]["votes"].intervals["nll"] is None
    assert metrics.methods["sgld"].verdict.label == "not converged"
    assert 0 <= metrics.methods["sgld"].detection["dark"]["entropy"].auroc.value <= 1
    assert metrics.to_dict() == json.loads((out / "metrics.json").read_text())
    assert "mine" in (out / "report.md").read_text()
    drawn = {path.name for path in (out / "figures").iterdir()}
    assert {"acc-vs-conf-sgld-dark.png", "reliability.pdf", "log-density.png"} <= drawn


def test_results_are_those_on_record(classification):
    assert [result.method for result in classification.methods] == ["map", "sgld"]
    result = classification.methods[1]
    assert classification.metrics["methods"]["sgld"] == result.metrics.to_dict()
    assert classification.failures == {}
    evaluation = pb.evaluate(result.predictives["test"], images(30, 1)[1])
    on_record = result.metrics.sets["test"]["mean_softmax"]
    assert on_record.intervals["nll"] == evaluation.nll
    with xr.open_datatree(classification.directory / "draws.nc") as tree:
        xr.testing.assert_allclose(tree["sgld/posterior"].ds, result.tree["posterior"].ds)


def test_the_learning_curve(classification):
    curve = {r.method: r.metrics.curve for r in classification.methods}
    assert [point.step for point in curve["map"]][:3] == [1, 2, 4]
    assert curve["map"][-1].step == 20
    last = pb.evaluate(
        classification.methods[0].predictives["test"], images(30, 1)[1]
    ).accuracy.value
    assert curve["map"][-1].test == pytest.approx(last)


def test_regression(regression):
    out = regression.directory
    metrics = read(MetricsRecord, out).methods["sgld"]
    assert metrics.predictive == "mixture"
    assert metrics.sets["test"]["mixture"].intervals["rmse"].value > 0
    assert metrics.sets["test"]["mixture"].thresholds is None
    assert set(metrics.sets) == {"test"}
    assert metrics.detection["far"]["standard deviation"].auroc.value > 0.5
    assert metrics.reliability is metrics.uncertainty is metrics.risk_coverage is None
    assert metrics.verdict is not None
    assert metrics.curve[-1].test < 2  # an RMSE
    point = read(MetricsRecord, out).methods["map"].sets["test"]["plug_in"].intervals
    assert point["rmse"].value == pytest.approx(
        float(np.sqrt(np.mean(residuals(regression) ** 2))), rel=1e-5
    )
    assert "line" in (out / "report.md").read_text()
    assert (out / "report.html").exists()
    assert {path.stem for path in (out / "figures").iterdir()} == {"log-density"}


def residuals(result):
    _, targets = result.experiment.test
    return result.methods[0].predictives["test"].mean[:, 0] - targets


# Keys


def test_run_and_compare_draw_the_same(regression, tmp_path):
    """One key rule: what is made of the draws, and who runs beside, makes no difference."""
    names = {"sgld": SHORT["sgld"]}
    compared = pb.compare(replace(regression.experiment, methods=names), tmp_path, progress=False)
    (ours,) = (r.draws for r in regression.methods if r.method == "sgld")
    theirs = compared.methods[0].draws
    jax.tree.map(np.testing.assert_array_equal, ours.positions, theirs.positions)
    assert ours.settings == theirs.settings
    row = compared.content["methods"]["sgld"]
    on_test = regression.metrics["methods"]["sgld"]["sets"]["test"]["mixture"]
    assert row["quality"]["test"] == on_test


def test_another_seed_draws_otherwise(classes):
    setup = loop_setup(classes)
    keeper = Kept()
    for seed in (0, 1, 0):
        loop.run_methods(setup, seed, keeper, UNJUDGED)
    first, other, again = (jax.tree.leaves(r.draws.positions)[0] for r in keeper.results)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def loop_setup(classes, **methods):
    methods = methods or {"sgld": pb.MethodRun(num_chains=2, num_steps=10)}
    module = pb.MLP(hidden=(3,), num_outputs=4)
    return prepare(pb.Experiment("toy", module, classes, classes, methods))


class Kept:
    """Keeps results, and can fail."""

    path = Path("nowhere")

    def __init__(self, broken=()):
        self.results, self.failures, self._broken = [], {}, broken

    def add(self, result):
        if result.method in self._broken:
            raise OSError("disk full\nreally")
        self.results.append(result)

    def add_failure(self, name, failure):
        self.failures[name] = failure


def test_chains_that_start_together(classes):
    spread = {"sgld": pb.MethodRun(num_chains=300, num_steps=1, start_spread=0.1)}
    setup = loop_setup(classes, **spread)
    starts = method._common_start(jax.random.key(0), setup, setup.methods["sgld"])
    kernel = starts["Dense_0"]["kernel"]
    assert kernel.shape == (300, 3, 3)
    assert kernel.std(axis=0).mean() == pytest.approx(0.1, rel=0.05)
    own = loop_setup(classes)
    assert method._common_start(jax.random.key(0), own, own.methods["sgld"]) is None


# Failures


def test_whatever_a_method_raises_is_its_own_affair(classes):
    names = ("map", "sgld", "psgld")
    setup = loop_setup(classes, **{k: pb.MethodRun(num_steps=10) for k in names})
    keeper, lines = Kept(broken=["sgld"]), []
    results, failures = loop.run_methods(setup, 0, keeper, UNJUDGED, log=lines.append)
    assert [result.method for result in results] == ["map", "psgld"]
    assert failures == {"sgld": "OSError: disk full"}
    assert not keeper.failures["sgld"].diverged
    assert "sgld failed: OSError: disk full" in lines


def test_an_interruption_that_a_library_swallows_is_one_all_the_same(classes, monkeypatch):
    """As XLA makes an error of its own of what a callback raises."""

    def broken(*arguments, **rest):
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise RuntimeError("INTERNAL: CpuCallback error")

    monkeypatch.setattr(loop, "run_method", broken)
    keeper = Kept()
    with interruptible() as check, pytest.raises(KeyboardInterrupt):
        loop.run_methods(loop_setup(classes), 0, keeper, UNJUDGED, check=check)
    assert keeper.failures == {}


def test_a_failure_is_on_record(classification, tmp_path, monkeypatch):
    real = method.sample_method

    def fails(key, setup, name, **rest):
        if name == "map":
            raise RuntimeError("no luck")
        return real(key, setup, name, **rest)

    monkeypatch.setattr(method, "sample_method", fails)
    wild = replace(SHORT["sgld"], settings={"step_size": 1e8})
    experiment = replace(classification.experiment, methods={**SHORT, "sgld": wild})
    result = pb.run(experiment, tmp_path, progress=False)
    assert result.methods == []
    assert result.failures["map"] == "RuntimeError: no luck"
    run, metrics = read(RunRecord, tmp_path), read(MetricsRecord, tmp_path)
    assert run.status == "finished"
    assert (run.methods["map"].status, run.methods["map"].reason) == (
        "failed",
        "RuntimeError: no luck",
    )
    assert run.methods["sgld"].status == "diverged"
    assert "smaller step size" in run.methods["sgld"].reason
    assert metrics.failures["map"].verdict is None
    assert metrics.failures["sgld"].verdict.label == "diverged"


def test_results_outlive_a_report_that_cannot_be_written(classification, tmp_path, monkeypatch):
    def broken(directories):
        raise ValueError("no ink")

    monkeypatch.setattr("probbnn.report.page.write_report", broken)
    experiment = replace(classification.experiment, methods={"map": SHORT["map"]})
    lines = []
    result = pb.run(experiment, tmp_path, progress=False, log=lines.append)
    assert result.report is None
    assert lines[-1].startswith("no report: no ink; the results are kept, see `probbnn report /")
    run = read(RunRecord, tmp_path)
    assert run.status == "finished"
    assert run.methods["map"].status == "finished"


def test_a_run_that_breaks_says_so(classification, tmp_path, monkeypatch):
    def broken(*arguments, **settings):
        raise ValueError("no ink")

    monkeypatch.setattr(run_module, "run_methods", broken)
    with pytest.raises(ValueError, match="no ink"):
        pb.run(classification.experiment, tmp_path, progress=False)
    run = read(RunRecord, tmp_path)
    assert run.status == "failed"
    assert run.seconds > 0


def test_presets_by_name(tmp_path, monkeypatch):
    with pytest.raises(pb.InputError, match="unknown preset 'nosuch'"):
        pb.run("nosuch", tmp_path / "out")
    asked = []
    monkeypatch.setattr(run_module, "begin", lambda *a, **k: asked.append(a) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        pb.run("digits", tmp_path / "out", seed=5, data_dir="here")
    assert asked == [(find_preset("digits"), tmp_path / "out", 5, "here")]
