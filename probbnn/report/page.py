"""The report: run directories in, one page out, as HTML and as Markdown.

What a directory lacks, because the run was interrupted, failed or is older than the report, is said
in the place where it would have been.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probbnn import __version__
from probbnn.errors import InputError, first_line, requires
from probbnn.files import expanded, make_folder, written_atomically
from probbnn.report import figures, run_tables, verdicts
from probbnn.report.captions import ON_PAGE, SAVED, Picture, figures_of
from probbnn.report.images import images
from probbnn.report.load import Run, collect
from probbnn.report.table import escaped

__all__ = ["write_report"]


def write_report(directories: Sequence[Path], out: Path | None = None) -> Path:
    """Write the report of one run, or of several side by side, as HTML and as Markdown.

    Args:
        directories: run directories, as `probbnn.experiments.run.run` writes them.
        out: an ``.html`` file; the Markdown is written beside it as ``.md``. Default:
            ``report.html`` in the first directory; of a single run its ``figures/`` are then
            written as well.

    Returns:
        The HTML file.

    Raises:
        InputError: if a directory holds no run, a file of it was changed so that it cannot be
            shown, or the report cannot be written.
    """
    with_files = out is None and len(directories) == 1
    if out is None:
        out = expanded(directories[0]) / "report.html"
    else:
        _check_out(out := expanded(out))
    runs = collect([Path(directory) for directory in directories])
    try:
        kinds = dict.fromkeys([*ON_PAGE, *(SAVED if with_files else ())])
        drawn = [figures_of(run, kinds) for run in runs]
        content = _content(runs, drawn)
    except InputError:
        raise
    except Exception as error:  # whatever a changed file leads to
        raise InputError(
            f"the files of {', '.join(run.name for run in runs)} are not as probbnn "
            f"{__version__} writes them ({type(error).__name__}: {first_line(error)}); restore "
            "them, or use the version that run.json names"
        ) from error
    try:
        for path, render in ((out, _html), (out.with_suffix(".md"), _markdown)):
            with written_atomically(path) as beside:
                beside.write_text(render(content), encoding="utf-8")
        if with_files:
            _save(drawn[0], out.parent / "figures")
    except OSError as error:
        raise InputError(
            f"the report {out} cannot be written ({error.strerror}); choose another with --out"
        ) from error
    return out


def _check_out(out: Path) -> None:
    """See that the page can be written, and replaces nothing but another one.

    Raises:
        InputError: otherwise.
    """
    if out.suffix != ".html":
        raise InputError(f"the report cannot be called {out.name}; give a name that ends in .html")
    for path in (out, out.with_suffix(".md")):
        try:
            if path.exists() and _MADE not in path.read_text("utf-8", "replace"):
                raise InputError(
                    f"{path} is there already, and no report wrote it; choose another with --out"
                )
        except OSError as error:
            raise InputError(
                f"the report {out} cannot be written ({error.strerror}); choose another with --out"
            ) from error


# What both files end with, by which they are known.
_MADE = "Made by probbnn from run.json, metrics.json and draws.nc."


def _save(drawn: Mapping[str, Sequence[Picture]], folder: Path) -> None:
    make_folder(folder)
    for kind in SAVED:
        for picture in drawn[kind]:
            figures.save(picture.figure, folder / picture.stem)


@dataclass(frozen=True)
class _Shown:
    """A figure on the page."""

    uri: str
    alt: str
    caption: str


def _shown(runs: Sequence[Run], drawn: Sequence[Sequence[Picture]]) -> list[_Shown]:
    """Of one kind; those about the same thing come together, run by run."""
    found: dict[str, list[_Shown]] = {}
    for run, pictures in zip(runs, drawn, strict=True):
        for picture in pictures:
            uri = figures.data_uri(picture.figure)
            shown = _Shown(uri, run.prefix + picture.alt, run.prefix + picture.caption)
            found.setdefault(picture.about, []).append(shown)
    return [shown for about in found.values() for shown in about]


def _content(
    runs: Sequence[Run], drawn: Sequence[Mapping[str, Sequence[Picture]]]
) -> dict[str, Any]:
    return {
        "title": " and ".join(run.name for run in runs),
        "headline": verdicts.headline(runs),
        "runs": [
            {"run": run, "cards": verdicts.cards(run), "facts": run_tables.facts_table(run)}
            for run in runs
        ],
        "settings": run_tables.settings_table(runs),
        "metrics": run_tables.metrics_table(runs),
        "parts": run_tables.parts_table(runs),
        "detection": run_tables.detection_table(runs),
        "temperature": run_tables.temperature_table(runs),
        "cost": run_tables.cost_table(runs),
        "diagnostics": verdicts.diagnostics(runs),
        "pictures": {kind: _shown(runs, [of_run[kind] for of_run in drawn]) for kind in ON_PAGE},
        "images": [found for run in runs for found in images(run)],
    }


def _html(content: Mapping[str, Any]) -> str:
    return _render("page.html.jinja", content, autoescape=True)


def _markdown(content: Mapping[str, Any]) -> str:
    # Whatever the template puts in is text, as autoescape has it for HTML.
    return _render("page.md.jinja", content, finalize=escaped)


def _render(template: str, content: Mapping[str, Any], **options: Any) -> str:
    with requires("a report", extra="report"):
        import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("probbnn", "report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    return environment.get_template(template).render(content, made=_MADE)
