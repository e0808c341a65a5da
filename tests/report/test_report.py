"""The report: complete, escaped, readable without network or script, and honest about gaps."""

import base64
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

import probbnn.experiments.run
from probbnn.cli import main
from probbnn.errors import InputError
from probbnn.experiments import presets
from probbnn.report import figures, tables
from probbnn.report.page import write_report

pytestmark = pytest.mark.usefixtures("quick_compilation")

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a|b\n# `c` [d](e) $x^"]
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """What a report is made of: its elements, the text, and whether it is well formed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.text, self.headings, self._open = [], "", [], []
        self.feed(html)
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """A short run of a point estimate and a sampler, with few sets of other inputs."""
    digits = presets.PRESETS["digits"]
    outside = digits.load().ood
    ood = {kind: outside[kind] for kind in ("rotated", "noise")}
    out = tmp_path_factory.mktemp("runs") / "digits"
    arguments = ["--method", "map,psgld", "--steps", "60", "--chains", "2", "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            presets.PRESETS, "digits", replace(digits, changes={"ood": ood, "curve_points": 1})
        )
        patch.setattr(probbnn.experiments.run, "_write_figures", lambda *_: None)  # no part of it
        assert main(["run", "digits", *arguments]) == 0
    return out


@pytest.fixture
def copy(run_directory, tmp_path, monkeypatch):
    """Copies of the run whose reports are quick: figures are drawn, and not put into them."""
    monkeypatch.setattr(figures, "data_uri", lambda figure: "data:image/png;base64,")
    return lambda name="run": shutil.copytree(run_directory, tmp_path / name)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def read(path):
    return Page(path.read_text(encoding="utf-8"))


# What is on the page


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


def test_figures_say_what_they_show(run_directory):
    page = read(run_directory / "report.html")
    images = page.all("img")
    assert len(images) > 20
    assert all(re.search(r"\d", image["alt"]) for image in images)
    assert all(image["src"].startswith("data:image/") for image in images)
    assert len(page.all("figcaption")) == len(page.all("figure")) == len(images)
    alternatives = " ".join(image["alt"] for image in images)
    for figure in (
        "Traces of psgld",
        "R-hat of the function",
        "of single weights",
        "NLL .* after one draw",
        "threshold, test set",
        "threshold, noise",
        "Reliability diagram",
        "Risk-coverage",
        "Histograms of entropy and mutual information",
        "Test image",
    ):
        assert re.search(figure, alternatives), figure


def test_numbers_are_those_on_record(run_directory):
    page = read(run_directory / "report.html")
    metrics = json.loads((run_directory / "metrics.json").read_text())["methods"]["psgld"]
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


def test_verdict_is_printed(run_directory):
    metrics = json.loads((run_directory / "metrics.json").read_text())
    (line,) = tables.verdict_lines(metrics)
    assert line.startswith("psgld: not converged (the run is too short); next: ")


def test_probes_have_names(run_directory):
    with xr.open_datatree(run_directory / "draws.nc") as tree:
        probes = tree["psgld/posterior_predictive"]["probe"].values
    kinds = {re.sub(r"\[\d+\]$", "", probe) for probe in probes}
    assert kinds == {"test", "boundary", "rotated", "noise"}


def test_markdown(run_directory):
    text = (run_directory / "report.md").read_text()
    assert "### psgld: not converged" in text
    assert "**Next:**" in text
    for heading in ("Settings", "On the test set", "Out of distribution", "Temperature", "Cost"):
        assert f"## {heading}" in text
    rows = markdown_tables(text)
    assert len(rows) > 20


def markdown_tables(text):
    """The rows of all tables, whose widths must agree."""
    rows = []
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(widths) == 1, block
        rows += block.splitlines()
    return rows


def test_same_run_same_report(run_directory, tmp_path):
    again = write_report([run_directory], tmp_path / "again.html")
    assert again.read_bytes() == (run_directory / "report.html").read_bytes()


# Hostile names


@pytest.fixture(scope="module")
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
    return write_report([directory])


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


# What is missing


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


def test_a_directory_that_is_no_run(tmp_path, copy, capsys):
    comparison, damaged = tmp_path / "comparison", copy()
    comparison.mkdir()
    (comparison / "comparison.json").write_text("{}")
    (damaged / "run.json").write_text("[]")
    for directory, message in (
        (tmp_path, "holds no run"),
        (tmp_path / "absent", "is no directory"),
        (comparison, "holds a comparison"),
        (damaged, "holds no run"),
    ):
        assert main(["report", str(directory)]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert message in lines[0]
        assert not (directory / "report.html").exists() or directory == damaged


@pytest.mark.parametrize(
    ("name", "message"), [("r.pdf", "ends in .html"), ("no/r.html", "written")]
)
def test_a_file_that_cannot_be(copy, tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        write_report([copy()], tmp_path / name)


# Several runs


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


def test_runs_of_one_name_are_told_apart(copy, tmp_path, capsys):
    one, two = copy("here/same"), copy("there/same")
    out = tmp_path / "both.html"
    assert main(["report", str(one), str(two), "--out", str(out)]) == 0
    for name in ("here/same: psgld", "there/same: psgld"):
        assert name in read(out).text
    assert main(["report", str(one), f"{one}/../same", "--out", str(out)]) == 2
    assert "was given twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("run.json", lambda run: run.update(device="a laptop")),
        ("metrics.json", lambda metrics: metrics.update(methods=["psgld"])),
        ("metrics.json", lambda metrics: metrics["methods"]["psgld"]["uncertainty"].clear()),
        ("metrics.json", lambda metrics: metrics["methods"]["psgld"]["reliability"].clear()),
        ("metrics.json", lambda metrics: metrics["methods"]["psgld"].update(seconds="long")),
    ],
)
def test_a_file_that_was_changed_is_shown_or_refused_in_a_line(copy, capsys, file, change):
    directory = copy("changed")
    edit(directory / file, change)
    status = main(["report", str(directory)])
    lines = capsys.readouterr().err.strip().splitlines()
    assert (status, len(lines)) in ((0, 0), (2, 1))


def test_what_a_newer_version_wrote_is_left_out(copy):
    directory = copy("newer")

    def add(metrics):
        metrics["methods"]["psgld"]["reliability"]["spread"] = [0.0]
        metrics["methods"]["psgld"]["sets"]["test"]["votes"]["thresholds"]["new"] = [0.0]

    edit(directory / "metrics.json", add)
    assert read(write_report([directory])).text


# In a real browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver on the PATH")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    chrome = webdriver.Chrome(options=options, service=service)
    yield chrome
    chrome.quit()


def show(browser, path, width, colours="light"):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    media = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(path.as_uri())
    assert browser.execute_script("return window.innerWidth") == width


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(browser, run_directory, width):
    show(browser, run_directory / "report.html", width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    # Content may be wider than its own scrolling box, and nothing else.
    outside = browser.execute_script(
        "return [...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll table')"
        " && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert outside == []


def test_every_figure_is_there(browser, run_directory):
    show(browser, run_directory / "report.html", 1280)
    widths = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert len(widths) > 20
    assert min(widths) > 0


def test_no_error_and_no_request(browser, run_directory):
    browser.get_log("performance")
    browser.get_log("browser")
    show(browser, run_directory / "report.html", 1280)
    assert browser.get_log("browser") == []
    events = [json.loads(e["message"])["message"] for e in browser.get_log("performance")]
    urls = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in urls if not url.startswith("data:")} == {
        (run_directory / "report.html").as_uri()
    }


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_contrast(browser, run_directory, colours):
    show(browser, run_directory / "report.html", 1280, colours)
    pairs = browser.execute_script(
        "return ['body', '.note', '.chip', 'figcaption', 'a'].map(s => {"
        " let e = document.querySelector(s), text = getComputedStyle(e).color;"
        " while (getComputedStyle(e).backgroundColor == 'rgba(0, 0, 0, 0)') e = e.parentElement;"
        " return [s, text, getComputedStyle(e).backgroundColor]; })"
    )
    for selector, *colour in pairs:
        dark, light = sorted(map(luminance, colour))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (selector, colour)
    (_, text, background), *_ = pairs
    assert (luminance(text) > luminance(background)) == (colours == "dark")


def luminance(colour):
    """Relative luminance by WCAG 2 of a CSS ``rgb(…)``."""
    rgb = np.array([int(x) for x in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_hostile_names_in_a_browser(browser, hostile):
    browser.get_log("browser")
    show(browser, hostile, 360)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert HOSTILE[0] in browser.find_element("tag name", "body").text


def test_prints(browser, run_directory):
    show(browser, run_directory / "report.html", 1280)
    pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
