"""Every kind of likelihood has its place in a run and in its report."""

import html

import flax.linen as nn
import numpy as np
import pytest

import probbnn as pb
from probbnn.experiments.records import MetricsRecord, read
from probbnn.report import figures

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype(np.float32)
IMAGES = RNG.integers(256, size=(60, 6, 6, 1), dtype=np.uint8)
SHORT = {
    "map": pb.MethodRun(num_steps=20),
    "sgld": pb.MethodRun(num_chains=2, num_steps=40, draws=10),
}


class PerPixel(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(2, (3, 3))(x)


def linear(num_outputs):
    return pb.MLP(hidden=(), num_outputs=num_outputs)


CASES = {
    "counts": (
        linear(1),
        (X, RNG.poisson(3, size=60)),
        {"likelihood": pb.Poisson()},
        {"rmse", "crps", "nll", "coverage_90", "pit_error"},
        ["Poisson()", "PIT"],
    ),
    "one logit": (
        linear(1),
        (X, np.array(["fig", "pear"])[RNG.integers(2, size=60)]),
        {"likelihood": pb.Bernoulli(class_weights=(1.0, 3.0))},
        {"accuracy", "balanced_accuracy", "accuracy[fig]", "accuracy[pear]"},
        ["class_weights=(1.0, 3.0)", "balanced", "fig", "pear"],
    ),
    "pixels": (
        PerPixel(),
        (IMAGES, (IMAGES[..., 0] > 128).astype(int)),
        {},
        {"accuracy", "ece", "accuracy[1]"},
        ["Categorical()", "balanced"],
    ),
    "several outputs in raw units": (
        linear(2),
        (X, 1e5 + 1e4 * RNG.normal(size=(60, 2))),
        {"likelihood": pb.StudentT(), "standardise": True, "prior": {"**": 0.5}},
        {"rmse[0]", "crps[1]", "coverage_90[1]"},
        ["Standardised(StudentT(", "PathPrior", "RMSE 0", "in 90 % 1"],
    ),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "counts" else pytest.mark.slow) for name in CASES],
)
def test_a_run_is_measured_and_reported(name, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "data_uri", lambda figure: "data:image/png;base64,")
    module, (inputs, targets), settings, metrics, said = CASES[name]
    mine = pb.Experiment(
        name,
        module,
        (inputs[:40], targets[:40]),
        (inputs[40:], targets[40:]),
        SHORT,
        ood={"dark": inputs[40:] // 2},
        batch_size=16,
        **settings,
    )
    pb.run(mine, tmp_path / "run", progress=False)
    record = read(MetricsRecord, tmp_path / "run")
    assert not record.failures
    for entry in record.methods.values():
        (first, *_) = entry.sets["test"].values()
        assert metrics <= {k for k, x in first.intervals.items() if x is not None}
    # A single network has no mutual information to detect anything by.
    detection = {k: set(entry.detection["dark"]) for k, entry in record.methods.items()}
    assert "mutual information" not in detection["map"]
    page = html.unescape((tmp_path / "run" / "report.html").read_text())
    for words in said:
        assert words in page
