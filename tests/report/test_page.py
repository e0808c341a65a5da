"""The page: complete, escaped, readable without network or script, and honest about gaps."""

import re
import shutil
import sys

import pytest
from pages import HOSTILE, Page, edit, markdown_tables, read

from probbnn.cli import main
from probbnn.errors import InputError
from probbnn.report.page import write_report


def test_structure(run_directory):
    page = read(run_directory / "report.html")
    assert [a["lang"] for a in page.all("html")] == ["en"]
    assert any(a.get("name") == "viewport" for a in page.all("meta"))
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False))
    targets = {a["id"] for _, a in page.elements if "id" in a}
    links = [a["href"] for a in page.all("a")]
    assert len(links) > 8
    assert {link.removeprefix("#") for link in links} <= targets
    assert all(a.get("scope") for a in page.all("th"))


def test_nothing_from_outside_and_no_script(run_directory):
    html = (run_directory / "report.html").read_text()
    page = Page(html)
    assert not page.all("script")
    assert not re.search(r"""(src|href|action|data)\s*=\s*["']?\s*(https?:|//|javascript:)""", html)
    assert not re.search(r"url\(|@import|<iframe|<object|<embed", html)
    assert not any(name.startswith("on") for _, a in page.elements for name in a)


def test_numbers_are_those_on_record(run_directory, metrics):
    page = read(run_directory / "report.html")
    text = " ".join(page.text.split())
    verdict = metrics["verdict"]
    assert verdict["label"] == "not converged"
    for said in (verdict["label"], *verdict["evidence"], verdict["next_step"]):
        assert said in text
    for diagnostic in metrics["convergence"]["diagnostics"].values():
        assert diagnostic["meaning"] in text
        assert diagnostic["advice"] in text
        assert diagnostic["result"] in text
    nll = metrics["sets"]["test"]["mean_softmax"]["nll"]
    low, high = nll["low"], nll["high"]
    assert f"{nll['value']:.4f} ({low:.4f}, {high:.4f})" in text
    auroc = metrics["detection"]["noise"]["entropy"]["auroc"]
    assert f"{auroc['value']:.3f} ({auroc['low']:.3f}, {auroc['high']:.3f})" in text
    assert "nan" not in text.lower().split()
    assert "None" not in text


def test_markdown(run_directory):
    text = (run_directory / "report.md").read_text()
    assert "### psgld: not converged" in text
    assert "**Next:**" in text
    for heading in ("Settings", "On the test set", "Out of distribution", "Temperature", "Cost"):
        assert f"## {heading}" in text
    rows = markdown_tables(text)
    assert len(rows) > 20


def test_same_run_same_report(run_directory, tmp_path):
    again = write_report([run_directory], tmp_path / "again.html")
    assert again.read_bytes() == (run_directory / "report.html").read_bytes()


def test_hostile_names_are_text(hostile):
    page = read(hostile)
    assert not page.all("script")
    assert not any("onerror" in attributes for attributes in page.all("img"))
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert all(name in page.text for name in (hostile.parent.name, *HOSTILE))
    assert re.search(r"predicted \d(<script>alert|\"><img)", page.text)
    text = hostile.with_suffix(".md").read_text()
    markdown_tables(text)
    assert not re.search(r"(?<!\\)<(script|img)", text)
    assert not re.search(r"(?<!\\)\]\(", text)
    assert "\n# `" not in text


def test_old_run_without_verdicts(copy):
    directory = copy()

    def forget(metrics):
        del metrics["failures"]
        for method in metrics["methods"].values():
            for name in set(method) - {
                "label",
                "temperature",
                "num_chains",
                "num_draws",
                "sets",
                "detection",
            }:
                del method[name]

    edit(directory / "metrics.json", forget)
    page = read(write_report([directory]))
    assert "no verdict" in page.text
    assert "older version" in page.text
    assert "No diagnostics are on record" in page.text


@pytest.mark.parametrize("missing", ["metrics.json", "draws.nc"])
@pytest.mark.parametrize("broken", [False, True])
def test_missing_or_broken_file(copy, missing, broken):
    directory = copy()
    (directory / missing).write_text("{") if broken else (directory / missing).unlink()
    page = read(write_report([directory]))
    assert missing in " ".join(page.text.split("Made by")[0].split())
    assert "psgld" in page.text


def test_interrupted_run(copy):
    directory = copy()
    edit(directory / "run.json", lambda run: run.update(status="interrupted"))
    edit(directory / "run.json", lambda run: run["methods"].pop("psgld"))
    edit(directory / "metrics.json", lambda metrics: metrics["methods"].pop("psgld"))
    page = read(write_report([directory]))
    assert "did not finish (interrupted)" in page.text
    assert "This method did not finish" in page.text
    assert "accuracy" in page.text


def test_run_that_was_interrupted_at_once(copy):
    directory = copy()
    edit(directory / "run.json", lambda run: run.update(status="interrupted", methods={}))
    edit(directory / "metrics.json", lambda metrics: metrics.update(methods={}))
    (directory / "draws.nc").unlink()
    page = read(write_report([directory]))
    assert "Nothing is on record" in page.text


def test_diverged_method(copy):
    directory = copy()
    reason = "chain 1 became non-finite at step 7"
    edit(directory / "metrics.json", lambda metrics: metrics["methods"].pop("psgld"))
    edit(
        directory / "run.json",
        lambda run: run["methods"].update(psgld={"status": "diverged", "reason": reason}),
    )
    page = read(write_report([directory]))
    assert "✗ diverged" in page.text
    assert reason in page.text
    assert "It has not converged." in page.text


def test_every_number_missing(copy):
    directory = copy()
    edit(directory / "metrics.json", lambda m: m.update(methods={"map": {}, "psgld": {"x": 1}}))
    edit(directory / "run.json", lambda run: [run.pop(k) for k in ("data", "device", "versions")])
    assert "No thresholds are on record" in read(write_report([directory])).text


@pytest.mark.parametrize(
    ("name", "message"), [("r.pdf", "ends in .html"), ("no/r.html", "written")]
)
def test_a_file_that_cannot_be(copy, tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        write_report([copy()], tmp_path / name)


def test_several_runs_side_by_side(copy, tmp_path, capsys):
    one, two = copy("one"), copy("two")
    edit(two / "metrics.json", lambda m: m["methods"]["psgld"]["verdict"].update(label="converged"))
    out = tmp_path / "both.html"
    assert main(["report", str(one), str(two), "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    page = read(out)
    for name in ("one: psgld", "two: psgld", "one and two"):
        assert name in page.text
    assert "1 of 2 sampling methods have converged." in page.text
    about = [image["alt"] for image in page.all("img") if "Reliability" in image["alt"]]
    assert [alt[:3] for alt in about] == ["one", "two"]
    assert "| run | method |" in out.with_suffix(".md").read_text()


def test_what_a_newer_version_wrote_is_left_out(copy):
    directory = copy("newer")

    def add(metrics):
        metrics["methods"]["psgld"]["reliability"]["spread"] = [0.0]
        metrics["methods"]["psgld"]["sets"]["test"]["votes"]["thresholds"]["new"] = [0.0]

    edit(directory / "metrics.json", add)
    assert read(write_report([directory])).text


def test_figures_are_saved_beside_the_page_of_a_run(copy, tmp_path):
    directory = copy()
    shutil.rmtree(directory / "figures")
    write_report([directory], tmp_path / "elsewhere.html")
    assert not (directory / "figures").exists()
    write_report([directory])
    names = {path.name for path in (directory / "figures").iterdir()}
    assert {"acc-vs-conf-psgld-noise", "entropy-sgd", "reliability", "log-density"} <= names


def test_a_run_of_a_regression_has_its_own_numbers(copy):
    directory = copy()
    rmse = {"value": 0.625, "low": 0.5, "high": 0.75}

    def change(metrics):
        for method in metrics["methods"].values():
            method |= {"reliability": None, "risk_coverage": None, "uncertainty": None}
            method |= {"detection": {}, "predictive": "gaussian"}
            method["sets"] = {"test": {"gaussian": {"rmse": rmse, "coverage_90": rmse}}}

    edit(directory / "metrics.json", change)
    page = read(write_report([directory]))
    assert "0.6250 (0.5000, 0.7500)" in page.text
    assert "central 90 % interval" in page.text
    assert "ECE" not in page.text
    assert "No thresholds are on record" in page.text


def test_a_method_that_failed_says_why(copy):
    directory = copy()
    edit(directory / "metrics.json", lambda metrics: metrics["methods"].pop("psgld"))
    failed = {"status": "failed", "reason": "RuntimeError: out of memory"}
    edit(directory / "run.json", lambda run: run["methods"].update(psgld=failed))
    assert "RuntimeError: out of memory." in read(write_report([directory])).text


def test_without_jinja_one_line_says_what_to_install(copy, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"needs jinja2.*pip install"):
        write_report([copy()])
