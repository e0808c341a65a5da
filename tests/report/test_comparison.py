"""A comparison's tables and figures, from the content of ``comparison.json`` alone."""

import json
from pathlib import Path

import pytest

from probbnn.experiments.records import ComparisonRecord
from probbnn.report import comparison

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture(params=["digits", "diabetes"])
def content(request):
    return json.loads((RESULTS / f"backends-{request.param}.json").read_text(encoding="utf-8"))


def test_tables_have_a_row_for_each_method(content):
    equality, predictions, cost = comparison.tables(content)
    assert equality.title == "One density"
    for table in (predictions, cost):
        assert [row[0] for row in table.rows] == [m["label"] for m in content["methods"].values()]
        assert {len(row) for row in table.rows} == {len(table.header)}
    row = content["methods"]["psgld"]
    (cells,) = (row for row in predictions.rows if row[0] == "pSGLD")
    assert f"{row['quality']['test']['nll']['value']:.4f}" in cells
    assert f"{row['fidelity']['test']['total_variation']['value']:.4f}" in cells
    (cells,) = (row for row in cost.rows if row[0] == "pSGLD")
    assert f"{row['convergence']['rhat_worst']:.3f}" in cells
    assert f"{row['cost']['seconds']:,.1f}" in cells


def test_a_record_and_its_json_are_the_same_page(content):
    assert comparison.markdown(content) == comparison.markdown(ComparisonRecord.from_dict(content))


def test_figures_show_every_method_that_finished(content):
    labels = {m["label"] for m in content["methods"].values() if m["status"] == "finished"}
    legend = comparison.cost_figure(content).legends[0]
    assert labels | {"reference, half against half"} == {t.get_text() for t in legend.get_texts()}
    if content["preset"]["name"] == "digits":
        axes = comparison.detection_figure(content).axes[0]
        assert {label.get_text() for label in axes.get_yticklabels()} == labels


def test_without_a_reference_quality_is_the_likelihood(content):
    figure = comparison.cost_figure(content | {"reference": None})
    assert figure.axes[0].get_ylabel().startswith("NLL, test set")
    assert len(figure.axes[0].lines) > 5


def test_a_method_that_failed_is_a_row_that_says_why(content):
    content["methods"]["map"] = {"label": "MAP", "status": "failed", "reason": "out of memory"}
    _, predictions, _, failed = comparison.tables(content)
    assert predictions.rows[0][:3] == ["MAP", "failed", "–"]
    assert failed.rows == [["MAP", "out of memory"]]
