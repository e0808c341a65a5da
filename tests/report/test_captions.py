"""Each figure says in words what it shows."""

import re

from pages import edit, read

from probbnn.report.captions import ON_PAGE, SAVED, figures_of
from probbnn.report.load import collect


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


def test_figures_are_drawn_from_the_directory_alone(run_directory):
    (run,) = collect([run_directory])
    drawn = figures_of(run, {*ON_PAGE, *SAVED})
    stems = {picture.stem for kind in SAVED for picture in drawn[kind]}
    per_method = {
        f"{name}-{method}{rest}"
        for method in ("sgd", "psgld")
        for name, rest in (
            ("acc-vs-conf", ""),
            ("acc-vs-conf", "-rotated"),
            ("acc-vs-conf", "-noise"),
            ("entropy", ""),
        )
    }
    assert stems == per_method | {"reliability", "risk-coverage", "log-density"}
    assert all(picture.alt for kind in ON_PAGE for picture in drawn[kind])


def test_a_label_cannot_leave_the_folder(copy):
    directory = copy()

    def rename(run):
        run["preset"]["methods"]["psgld"]["label"] = "../../h $0.5$"

    edit(directory / "run.json", rename)
    (run,) = collect([directory])
    names = {picture.stem for picture in figures_of(run, ["uncertainty"])["uncertainty"]}
    assert names == {"entropy-sgd", "entropy-..-..-h-0.5-"}


def test_only_what_is_on_record_is_drawn(copy):
    directory = copy()
    edit(directory / "metrics.json", lambda m: m.update(methods={"map": {}, "psgld": {}}))
    (directory / "draws.nc").unlink()
    (run,) = collect([directory])
    drawn = figures_of(run, {*ON_PAGE, *SAVED})
    assert not any(drawn.values())
