"""`compare`: the rows, the proof before them, the reference, and failures."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from probbnn.cli import main
from probbnn.experiments import compare as comparison
from probbnn.experiments import method, reference
from probbnn.experiments.compare import compare, convergence_of
from probbnn.experiments.equality import Equality, MismatchError
from probbnn.experiments.experiment import MethodRun
from probbnn.experiments.presets import COMPARISONS
from probbnn.experiments.records import ComparisonRecord, PathPoint
from probbnn.experiments.setup import prepare, sample_method
from probbnn.posterior.numpyro_model import NumPyroModel
from probbnn.report import comparison as page

SHORT_NUTS = MethodRun("NUTS", 2, 40, 0.5, 20, {"max_tree_depth": 3})
METHODS = {
    "map": MethodRun("MAP", 1, 30),
    "psgld": MethodRun("pSGLD", 2, 60, 0.5, 20),
    "nuts": SHORT_NUTS,
    "numpyro_nuts": replace(SHORT_NUTS, label="NUTS, NumPyro"),
}

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def digits_experiment():
    digits = COMPARISONS["digits"].load()
    return replace(digits, ood={"noise": digits.ood["noise"]}, methods=METHODS)


@pytest.fixture(scope="module")
def diabetes_experiment():
    methods = {name: METHODS[name] for name in ("map", "psgld")}
    return replace(COMPARISONS["diabetes"], methods=methods).load()


def keep_reference(experiment, folder):
    """A reference of a few draws, as `benchmarks/reference.py` would leave it."""
    setup = prepare(replace(experiment, methods={"psgld": METHODS["psgld"]}))
    draws = sample_method(jax.random.key(9), setup, "psgld", progress=False)
    found = reference.predictions(setup, draws)
    record = {
        "identity": reference.identity(setup),
        "command": "by hand",
        "settings": draws.settings,
        "convergence": {"test": {"rhat_worst": 1.5}},
        "floor": {k: v.to_dict() for k, v in reference.fidelity(found, found).items()},
    }
    reference.Reference(found, record).save(folder / f"reference-{experiment.name}.npz")


@pytest.fixture(scope="module")
def kept(digits_experiment, diabetes_experiment, tmp_path_factory):
    """A folder of references, which stands for the ones in the repository."""
    folder = tmp_path_factory.mktemp("references")
    for experiment in (digits_experiment, diabetes_experiment):
        keep_reference(experiment, folder)
    return folder


@pytest.fixture(scope="module")
def digits(digits_experiment, kept, tmp_path_factory):
    """A short comparison on digits, and what it said on the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "_FOLDERS", (kept,))
        lines = []
        out = tmp_path_factory.mktemp("comparison") / "digits"
        result = compare(digits_experiment, out, seed=3, progress=False, log=lines.append)
    return result, lines


def test_a_row_for_every_method(digits):
    result, lines = digits
    content = json.loads((result.directory / "comparison.json").read_text())
    assert content == json.loads(json.dumps(result.content))
    assert content["status"] == "finished"
    assert list(content["methods"]) == list(METHODS)
    assert result.failures == {}
    assert any("nuts, 2 x 40 steps" in line for line in lines)
    row = content["methods"]["psgld"]
    assert row["backend"] == "probbnn"
    assert row["settings"]["batch_size"] == 200
    assert row["quality"]["test"]["nll"]["value"] > 0
    assert set(row["quality"]["detection"]) == {"noise"}
    assert set(row["fidelity"]) == {"test", "noise"}
    assert row["convergence"]["rhat_worst"] > 1
    # 2 chains x 60 minibatches of 200 out of 1,297: 7 of them are a pass.
    assert row["cost"]["passes"] == pytest.approx(2 * 60 / 7)
    assert row["cost"]["ess_per_pass"] == pytest.approx(
        row["convergence"]["ess_median"] / row["cost"]["passes"]
    )
    assert row["cost"]["peak_memory_bytes"] >= 0
    assert content["methods"]["map"]["convergence"] is None
    assert content["methods"]["map"]["configurational_temperature"] is None
    assert content["methods"]["nuts"]["settings"].get("batch_size") is None
    assert ComparisonRecord.from_dict(content).to_dict() == content


@pytest.fixture
def no_proof(monkeypatch):
    """Leaves out the proof of equality, which other tests look at and which takes seconds."""
    found = Equality(1, {"nobody": (0.0, 0.0)})
    monkeypatch.setattr(comparison, "check_equality", lambda *_, **__: found)


def test_the_path_to_the_reference_ends_where_the_row_says(digits):
    row = digits[0].content["methods"]["nuts"]
    path = row["cost"]["path"]
    assert path[-1]["draws"] == 20
    assert path[-1]["total_variation"] == pytest.approx(
        row["fidelity"]["test"]["total_variation"]["value"]
    )
    assert path[-1]["passes"] == pytest.approx(row["cost"]["passes"])
    assert path[-1]["seconds"] == pytest.approx(row["cost"]["seconds"])
    # Warm-up is paid for before the first draw.
    assert path[0]["passes"] > 0
    assert all(a["passes"] < b["passes"] for a, b in zip(path, path[1:], strict=False))


def test_time_to_a_total_variation_is_when_it_stays_below():
    path = [PathPoint(s + 1, v, seconds=s) for s, v in enumerate([0.3, 0.01, 0.04, 0.02, 0.015])]
    assert comparison._seconds_to(path, 0.02) == 3
    assert comparison._seconds_to(path, 0.5) == 0
    assert comparison._seconds_to(path, 0.001) is None
    assert comparison._seconds_to([], 0.5) is None


def test_pooled_nuts_sees_chains_that_disagree(digits):
    assert digits[0].content["nuts"]["rhat_worst"] > 1
    rng = np.random.default_rng(0)
    same = rng.normal(size=(8, 500, 20))
    assert convergence_of(same).rhat_worst < 1.01
    same[4:] += 0.5  # as if the other backend sampled something else
    assert convergence_of(same).rhat_worst > 1.01


def test_values_that_never_move_do_not_count():
    values = np.random.default_rng(0).normal(size=(4, 50, 3))
    values[..., 0] = 1.0
    assert convergence_of(values).num_values == 2
    assert convergence_of(np.ones((4, 50, 3))).rhat_worst is None


def test_page_and_figures(digits):
    result, _ = digits
    text = (result.directory / "comparison.md").read_text()
    for heading in ("One density", "Predictions", "Convergence and cost", "chains pooled"):
        assert heading in text
    assert "1e-09" in text
    assert text.count("| NUTS, NumPyro |") == 2
    names = {path.name for path in (result.directory / "figures").iterdir()}
    assert {f"{n}.{kind}" for n in _FIGURES for kind in ("png", "pdf")} == names


_FIGURES = ("quality-against-cost", "reliability", "accuracy-vs-confidence", "detection")


@pytest.mark.slow
@pytest.mark.usefixtures("no_proof")
def test_regression(diabetes_experiment, kept, tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "_FOLDERS", (kept,))
    result = compare(diabetes_experiment, tmp_path, progress=False)
    row = result.content["methods"]["psgld"]
    assert row["quality"]["test"]["rmse"]["value"] < 2
    assert set(row["fidelity"]) == {"test", "stretched"}
    assert "RMSE" in (tmp_path / "comparison.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("no_proof")
def test_without_a_reference_for_this_density_there_is_no_fidelity(
    diabetes_experiment, kept, tmp_path, monkeypatch
):
    monkeypatch.setattr(reference, "_FOLDERS", (kept,))
    other_prior = replace(diabetes_experiment, prior_scale=0.5, methods={"map": METHODS["map"]})
    result = compare(other_prior, tmp_path, progress=False)
    assert result.content["reference"] is None
    assert result.content["methods"]["map"]["fidelity"] is None
    assert "no reference posterior" in (tmp_path / "comparison.md").read_text()


@pytest.mark.usefixtures("no_proof")
def test_one_method_that_fails_is_a_row(diabetes_experiment, tmp_path, monkeypatch):
    def fails_for_map(key, setup, name, **rest):
        if name == "map":
            raise RuntimeError("first line\nsecond line")
        return sample_method(key, setup, name, **rest)

    monkeypatch.setattr(method, "sample_method", fails_for_map)
    result = compare(diabetes_experiment, tmp_path, progress=False)
    assert result.failures == {"map": "RuntimeError: first line"}
    assert result.content["methods"]["psgld"]["status"] == "finished"
    text = (tmp_path / "comparison.md").read_text()
    assert "| MAP | failed |" in text
    assert "RuntimeError: first line" in text
    assert "second line" not in text


@pytest.mark.slow
@pytest.mark.usefixtures("no_proof")
def test_divergence_is_a_row(diabetes_experiment, tmp_path):
    wild = {"sgld": MethodRun("SGLD", 2, 60, 0.5, 20, {"step_size": 1e6})}
    result = compare(replace(diabetes_experiment, methods=wild), tmp_path, progress=False)
    assert "non-finite" in result.failures["sgld"]


@pytest.mark.usefixtures("no_proof")
def test_interrupted_comparison_keeps_what_it_had(diabetes_experiment, tmp_path, monkeypatch):
    def interrupt(key, setup, name, **rest):
        if name == "psgld":
            raise KeyboardInterrupt
        return sample_method(key, setup, name, **rest)

    monkeypatch.setattr(method, "sample_method", interrupt)
    with pytest.raises(KeyboardInterrupt):
        compare(diabetes_experiment, tmp_path, progress=False)
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content["status"] == "interrupted"
    assert content["methods"]["map"]["status"] == "finished"


def test_another_density_stops_the_comparison(diabetes_experiment, tmp_path, monkeypatch, capsys):
    honest = NumPyroModel.position

    def doubled(self, params):
        return jax.tree.map(lambda leaf: 2 * leaf, honest(self, params))

    monkeypatch.setattr(NumPyroModel, "position", doubled)
    with pytest.raises(MismatchError, match="NumPyro sees another log density"):
        compare(diabetes_experiment, tmp_path / "a", progress=False)
    content = json.loads((tmp_path / "a" / "comparison.json").read_text())
    assert not content["equality"]["holds"]
    assert content["methods"] == {}
    assert main(["compare", "diabetes", "--methods", "map", "--out", str(tmp_path / "b")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "unknown comparison 'nosuch'"),
        (["--methods", "nuts,nutts"], "did you mean 'nuts'"),
        (["--seed", "-1"], "seed is -1"),
    ],
)
def test_bad_input_is_one_line(arguments, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", *arguments, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_command_line(tmp_path, capsys):
    """`--methods` and `--preset`; a method that the comparison lacks runs by its defaults."""
    out = tmp_path / "out"
    command = ["compare", "--preset", "diabetes", "--methods", "map", "--out", str(out)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "One density" in printed
    assert "Convergence and cost" in printed
    assert (out / "comparison.json").exists()
    assert main(command) == 2
    assert "holds another run" in capsys.readouterr().err


def test_markdown_escapes_bars():
    content = {
        "preset": {"name": "x", "summary": "y"},
        "reference": None,
        "equality": {"num_positions": 1, "tolerance": 1e-9, "backends": {}},
        "methods": {"map": {"label": "a|b", "status": "failed", "reason": "c|d"}},
    }
    assert r"a\|b" in page.markdown(content)
    assert r"c\|d" in page.markdown(content)
