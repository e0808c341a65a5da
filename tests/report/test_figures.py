"""Figures: what they show, and how they are written."""

import base64
import sys

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure

from probbnn.errors import InputError
from probbnn.metrics import AccuracyVsConfidence, Reliability
from probbnn.report import figures
from probbnn.report.figures import style

THRESHOLDS = np.array([0.0, 0.5, 1.0])


def curve(accuracy=(0.5, 0.75, np.nan), bounds=None):
    low, high = (None, None) if bounds is None else map(np.array, bounds)
    return AccuracyVsConfidence(
        THRESHOLDS, np.array([1.0, 0.4, 0.0]), np.array(accuracy), np.array([5, 2, 0]), low, high
    )


def dot():
    figure = Figure(figsize=(1, 1), layout="constrained")
    figure.subplots().plot([0, 1], [0, 1], "o")
    return figure


def test_a_figure_is_saved_under_its_whole_name(tmp_path):
    figures.save(dot(), tmp_path / "psgld 0.5")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"psgld 0.5.png", "psgld 0.5.pdf"}


def test_saving_again_gives_the_same_files(tmp_path):
    for name in "ab":
        figures.save(dot(), tmp_path / name)
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_a_figure_of_few_points_is_svg_and_of_many_a_bitmap():
    assert figures.data_uri(dot()).startswith("data:image/svg+xml;base64,")
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot(np.random.default_rng(0).normal(size=20_000), ".")
    uri = figures.data_uri(figure)
    assert uri.startswith("data:image/png;base64,")
    assert base64.b64decode(uri.partition(",")[2]).startswith(b"\x89PNG")


def test_a_dollar_is_a_dollar_in_literal_text():
    with figures.literal_text():
        figure = dot()
        figure.axes[0].set_title("a$x^$")
    assert figures.data_uri(figure)
    assert mpl.rcParams["text.parse_math"]


def test_no_two_lines_look_alike():
    looks = [tuple(look.values()) for look in style.line_styles(map(str, range(28))).values()]
    assert len(set(looks)) == 28
    families = {str(i): ("SG-MCMC", "MCMC", "of another")[i % 3] for i in range(30)}
    assert len({tuple(x.values()) for x in figures.family_styles(families).values()}) == 30


def test_accuracy_has_no_panel_where_nothing_is_right():
    figure = figures.coverage_figure({"a": curve()}, "test")
    assert [axes.get_ylabel()[:8] for axes in figure.axes] == ["accuracy", "inputs t"]
    assert len(figures.coverage_figure({"a": curve((0.0, 0.0, np.nan))}, "noise").axes) == 1


def test_intervals_of_an_accuracy_are_shaded():
    bounds = (0.4, 0.6, np.nan), (0.6, 0.9, np.nan)
    figure = figures.coverage_figure({"a": curve(bounds=bounds)}, "test")
    assert len(figure.axes[0].collections) == 1
    figure = figures.accuracy_vs_confidence_figure(curve(bounds=bounds), "test")
    assert len(figure.axes[0].collections) == 1


def test_many_curves_take_a_wide_figure_with_the_legend_beside_it():
    bins = Reliability(np.array([0.3, 0.9]), np.array([0.2, 1.0]), np.array([1, 1]))
    few = figures.reliability_figure({"a": bins})
    many = figures.reliability_figure({str(i): bins for i in range(8)})
    assert few.axes[0].get_legend() is not None
    assert many.axes[0].get_legend() is None
    assert len(many.legends[0].get_texts()) == 9
    assert many.get_figwidth() > few.get_figwidth()


def test_ranks_of_chains_that_disagree_are_not_level():
    rng = np.random.default_rng(0)
    apart = rng.normal(size=(2, 200)) + np.array([[0.0], [5.0]])
    heights = {}
    for name, values in (("together", rng.normal(size=(2, 200))), ("apart", apart)):
        (_, ranks) = figures.mixing_figure(None, {name: values}, "t").axes
        heights[name] = np.std([bar.get_height() for bar in ranks.patches])
    assert heights["apart"] > 3 * heights["together"]


def test_without_accuracy_the_average_so_far_has_one_panel():
    nll = np.array([0.5, 0.4])
    assert len(figures.running_figure({"a": (nll, None)}).axes) == 1
    assert len(figures.running_figure({"a": (nll, None), "b": (nll, nll)}).axes) == 2


def test_a_long_trace_is_drawn_at_few_of_its_steps():
    figure = figures.trace_figure({"a": np.zeros((2, 10_000))}, "t")
    x = figure.axes[0].lines[0].get_xdata()
    assert len(x) <= 500
    assert (x[0], x[-1]) == (0, 9_999)


def test_quality_is_drawn_against_both_costs():
    paths = {"a": {"passes": ([1.0, 10.0], [0.5, 0.1])}, "b": {"seconds": ([2.0], [0.2])}}
    styles = figures.family_styles({"a": "MCMC", "b": "optimisation"})
    seconds, passes = figures.cost_figure(paths, "distance", styles, floor=0.01).axes
    assert passes.lines[0].get_xdata().tolist() == [1.0, 10.0]
    assert seconds.lines[0].get_ydata().tolist() == [0.2]
    assert seconds.get_yscale() == "log"


def test_detection_is_a_row_for_each_method():
    figure = figures.detection_figure({"a": {"noise": 0.9}, "b": {"noise": 0.5}})
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b"]
    assert list(figure.axes[0].lines[0].get_xdata()) == [0.9, 0.5]


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch):
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib" or name.startswith("probbnn.report.figures"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r"needs matplotlib.*pip install"):
        import probbnn.report.figures  # noqa: F401
