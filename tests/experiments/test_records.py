"""The files of a run directory as dataclasses: both ways, with parts missing, and damaged."""

import json
from pathlib import Path

import numpy as np
import pytest

from probbnn.diagnostics import Diagnostic, Verdict
from probbnn.errors import InputError
from probbnn.experiments import records
from probbnn.experiments.experiment import MethodRun
from probbnn.experiments.records import ComparisonRecord, MetricsRecord, RunRecord
from probbnn.metrics import Interval, evaluate, evaluate_ood, reliability, risk_coverage

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

PROBS, LABELS = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]]), np.array([0, 1, 1])

RUN = RunRecord(
    status="finished",
    experiment=records.ExperimentRecord(
        name="mine",
        model=("MLP", {"hidden": [3]}),
        prior_scale={"Dense_0": 0.5},
        methods={"psgld": MethodRun("pSGLD", 2, 40, settings={"step_size": "Cosine(start=1)"})},
    ),
    seed=3,
    data={"train": records.DataRecord("mine", 3, "00ff")},
    methods={"psgld": records.MethodRecord("diverged", reason="chain 1 at step 7")},
    versions={"jax": "1"},
    device=records.Device("cpu", "cpu", 1, 2),
    seconds=1.5,
)


def metrics():
    measured = records.PredictiveMetrics.from_dict(evaluate(PROBS, LABELS).to_dict())
    scores = {"entropy": [0.1, 0.2]}
    return MetricsRecord(
        methods={
            "psgld": records.MethodMetrics(
                label="pSGLD",
                temperature=1.0,
                temperature_meters=records.Meters(configurational=Interval(1.0, 0.9, 1.1)),
                curve=(records.CurvePoint(1, 0.5, 0.25),),
                sets={"test": {"votes": measured}},
                detection={"noise": evaluate_ood(scores, scores).scores},
                reliability=reliability(PROBS, LABELS),
                risk_coverage=risk_coverage(PROBS, LABELS),
                uncertainty=records.Uncertainty(
                    np.array([0.0, 0.5]), {"test": np.array([1.0])}, {"test": np.array([1.0])}
                ),
                convergence=records.ConvergenceRecord(
                    2, 20, diagnostics={"ess": Diagnostic("ESS", "9", "a", "b", {"x": [1.0]})}
                ),
                verdict=Verdict("converged", "", ("all is well",), "use the draws"),
            )
        },
        failures={"sgld": records.FailureRecord("SGLD")},
    )


@pytest.mark.parametrize("record", [RUN, metrics()], ids=["run.json", "metrics.json"])
def test_what_is_written_is_read(record):
    content = json.loads(json.dumps(record.to_dict(), allow_nan=False))
    again = type(record).from_dict(content)
    assert again.to_dict() == content
    assert type(again) is type(record)


def test_parts_have_their_types():
    again = MetricsRecord.from_dict(metrics().to_dict()).methods["psgld"]
    assert isinstance(again.sets["test"]["votes"].intervals["nll"], Interval)
    thresholds = again.sets["test"]["votes"].thresholds
    assert [cell for cell, *_ in thresholds.rows()][:2] == ["0", "0.1"]
    assert "no predictions" in str(thresholds.rows()[-1])
    assert again.reliability.counts.dtype == int
    assert again.temperature_meters.configurational.high == 1.1
    assert again.verdict.evidence == ("all is well",)
    assert again.convergence.diagnostics["ess"].numbers == {"x": [1.0]}
    run = RunRecord.from_dict(RUN.to_dict())
    assert run == RUN
    assert run.experiment.network == "MLP(hidden=[3])"


def test_metrics_lie_beside_each_other_in_the_file():
    content = metrics().to_dict()["methods"]["psgld"]["sets"]["test"]["votes"]
    assert content == json.loads(json.dumps(evaluate(PROBS, LABELS).to_dict()))
    interval = Interval(1.0, 0.5, 2.0)
    assert set(records.PredictiveMetrics({"rmse": interval}).to_dict()) == {"rmse"}


@pytest.mark.parametrize("kind", [RunRecord, MetricsRecord, ComparisonRecord])
def test_everything_may_be_missing(kind):
    record = kind.from_dict({})
    assert record.methods == {}
    assert kind.from_dict(record.to_dict()) == record


def test_an_interrupted_and_an_older_run():
    run = RunRecord.from_dict({"status": "interrupted", "preset": {"methods": {"map": {}}}})
    assert run.device is None
    assert run.experiment.methods["map"] == MethodRun()
    assert run.experiment.network == ""
    older = MetricsRecord.from_dict({"methods": {"map": {"label": "MAP", "sets": {"test": {}}}}})
    assert older.methods["map"].verdict is None
    assert older.failures == {}


@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_comparisons_of_an_older_version(name):
    content = json.loads((RESULTS / f"backends-{name}.json").read_text())
    record = ComparisonRecord.from_dict(content)
    assert record.seed == content["seed"]
    assert record.experiment.name == name
    assert record.nuts.rhat_share_above == content["nuts"]["rhat_share_above_1.01"]
    assert record.reference.floor["test"]["total_variation"].value > 0
    again = record.to_dict()
    for method, row in content["methods"].items():
        row["quality"].setdefault("detection", {})  # regressions had none
        for key in ("label", "quality", "fidelity", "convergence", "settings"):
            assert again["methods"][method][key] == row[key]
        assert again["methods"][method]["cost"] | row["cost"] == again["methods"][method]["cost"]


def test_what_a_newer_version_wrote_is_passed_over():
    content = metrics().to_dict()
    content["methods"]["psgld"]["reliability"]["spread"] = [0.0]
    content["methods"]["psgld"]["new"] = "?"
    assert MetricsRecord.from_dict(content).to_dict() == metrics().to_dict()


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        (RunRecord, [], "run.json is []; expected an object"),
        (RunRecord, {"device": "a laptop"}, "run.json: device is 'a laptop'; expected an object"),
        (RunRecord, {"seed": "one"}, "run.json: seed is 'one'; expected an integer"),
        (RunRecord, {"seed": True}, "run.json: seed is True; expected an integer"),
        (
            RunRecord,
            {"preset": {"methods": {"map": {"settings": []}}}},
            "run.json: preset.methods.map.settings is []; expected an object",
        ),
        (MetricsRecord, {"methods": ["map"]}, "metrics.json: methods is ['map']"),
        (
            MetricsRecord,
            {"methods": {"map": {"seconds": "long"}}},
            "metrics.json: methods.map.seconds is 'long'; expected a number",
        ),
        (
            MetricsRecord,
            {"methods": {"map": {"reliability": {}}}},
            "metrics.json: methods.map.reliability.confidence is missing",
        ),
        (
            MetricsRecord,
            {"methods": {"map": {"sets": {"test": {"votes": {"nll": 1.0}}}}}},
            "metrics.json: methods.map.sets.test.votes.nll is 1.0; expected an object",
        ),
        (
            MetricsRecord,
            {"methods": {"map": {"curve": [{"step": 1, "train": 1, "test": "x"}]}}},
            "metrics.json: methods.map.curve[0].test is 'x'; expected a number",
        ),
        (ComparisonRecord, {"nuts": 3}, "comparison.json: nuts is 3; expected an object"),
    ],
)
def test_damage_is_one_line_with_file_and_field(kind, content, message):
    with pytest.raises(InputError) as caught:
        kind.from_dict(content)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_reading_a_directory(tmp_path):
    assert records.read(RunRecord, tmp_path) is None
    (tmp_path / "run.json").write_text("{")
    assert records.read(RunRecord, tmp_path) is None
    (tmp_path / "run.json").write_text(json.dumps(RUN.to_dict()))
    assert records.read(RunRecord, tmp_path) == RUN
    (tmp_path / "metrics.json").write_text('{"methods": 1}')
    with pytest.raises(InputError, match="metrics.json: methods is 1"):
        records.read(MetricsRecord, tmp_path)
