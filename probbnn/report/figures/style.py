"""What all figures share: one palette, one size, and how they are written."""

import base64
import io
from collections.abc import Iterable, Mapping, Sized
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probbnn.files import written_atomically

__all__ = [
    "BLUE",
    "MARKERS",
    "ORANGE",
    "SKY",
    "WIDTH",
    "Style",
    "chain_styles",
    "data_uri",
    "family_styles",
    "is_many",
    "legend",
    "line_styles",
    "literal_text",
    "panels",
    "save",
]

Style = dict[str, Any]
"""Keyword arguments of a line: colour and dashes, or colour and marker."""

# Okabe & Ito's colours, told apart by people with any colour vision.
BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, BLACK = _COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
)
MARKERS = "osD^vPX*<>hp"
_DASHES = ("-", "--", "-.", ":")
_FAMILIES = {
    "optimisation": BLACK,
    "SG-MCMC": BLUE,
    "MCMC": ORANGE,
    "approximation": GREEN,
}
# Wide enough for a column of paper, and for its letters to be read on a phone.
WIDTH = 5.0
# An SVG of more bytes has so many points that a bitmap of it is smaller.
_LARGE_SVG = 60_000


def line_styles(names: Iterable[str]) -> dict[str, Style]:
    """Colour and dashes of each name, no two alike up to 28 of them."""
    number = len(_COLOURS)
    return {
        name: {
            "color": _COLOURS[i % number],
            "ls": _DASHES[(i % number + i // number) % len(_DASHES)],
        }
        for i, name in enumerate(names)
    }


def chain_styles(num_chains: int) -> list[Style]:
    """Colour of each chain."""
    return [{"color": _COLOURS[chain % len(_COLOURS)]} for chain in range(num_chains)]


def family_styles(families: Mapping[str, str]) -> dict[str, Style]:
    """Colour by the family and marker within it, of each name in a mapping of name to family.

    Examples:
        >>> family_styles({"psgld": "SG-MCMC", "sghmc": "SG-MCMC"})["sghmc"]["marker"]
        's'
    """
    seen: dict[str, int] = {}
    styles = {}
    for name, family in families.items():
        number = seen[family] = seen.get(family, -1) + 1
        styles[name] = {
            "color": _FAMILIES.get(family, PINK),
            "marker": MARKERS[number % len(MARKERS)],
        }
    return styles


def is_many(names: Sized) -> bool:
    """Whether there are more curves than colours, which takes wide panels, the legend beside."""
    return len(names) > len(_COLOURS)


def panels(number: int, height: float, *, wide: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure and its panels: a column of them that share what is below, or a wide row.

    Args:
        number: of the panels.
        height: of the column, inches; the row has its own.
        wide: whether it is the row.
    """
    size = (5 + 3 * number, 5) if wide else (WIDTH, height)
    figure = Figure(figsize=size, layout="constrained")
    rows, columns = (1, number) if wide else (number, 1)
    grid = figure.subplots(rows, columns, sharex=not wide, squeeze=False).ravel()
    for axes in grid:
        axes.grid(alpha=0.3)
    return figure, list(grid)


def legend(axes: Axes, *, beside: bool = False, **options: Any) -> None:
    """The legend of what ``axes`` shows, in it or beside all panels of the figure."""
    if beside:
        handles, labels = axes.get_legend_handles_labels()
        axes.figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    else:
        axes.legend(framealpha=0.9, **options)


def literal_text() -> AbstractContextManager[None]:
    """Within it a dollar in a label is a dollar."""
    return mpl.rc_context({"text.parse_math": False})


def save(figure: Figure, stem: Path) -> None:
    """Write ``figure`` to ``stem``.png and ``stem``.pdf."""
    _lay_out(figure)
    # TrueType fonts keep the text of a PDF searchable; no date, so that reruns are identical.
    with mpl.rc_context({"pdf.fonttype": 42}):
        for kind, options in (("pdf", {"metadata": {"CreationDate": None}}), ("png", {"dpi": 150})):
            with written_atomically(stem.with_name(f"{stem.name}.{kind}")) as beside:
                figure.savefig(beside, format=kind, **options)


def data_uri(figure: Figure) -> str:
    """``figure`` as a ``data:`` address: SVG, or PNG where that is smaller."""
    _lay_out(figure)
    # Neither date nor random identifiers, so that reruns are identical.
    with mpl.rc_context({"svg.hashsalt": "probbnn"}):
        image, kind = _rendered(figure, format="svg", metadata={"Date": None}), "svg+xml"
    if len(image) > _LARGE_SVG:
        bitmap = _rendered(figure, format="png", dpi=160)
        if len(bitmap) < len(image):
            image, kind = bitmap, "png"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def _lay_out(figure: Figure) -> None:
    """Lay ``figure`` out now, so that Matplotlib does not do it again for every format."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")


def _rendered(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, **options)
    return buffer.getvalue()
