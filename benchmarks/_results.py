"""Where benchmarks leave their results: a JSON file and the same as a Markdown page."""

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import probbnn
from probbnn.metrics import Interval
from probbnn.report.table import Table, escaped
from probbnn.report.table import interval as written

__all__ = ["environment", "fill", "interval", "markdown_table", "new_run_directory", "write"]

_RESULTS = Path(__file__).parent / "results"


def environment() -> dict[str, Any]:
    """The machine and the versions that a result was measured with."""
    libraries = ("jax", "flax", "blackjax", "optax", "numpy")
    return {
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "probbnn": probbnn.__version__,
        **{name: metadata.version(name) for name in libraries},
    }


def fill(path: Path, tables: dict[str, str]) -> None:
    """Put each table between its markers in a document."""
    text = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        if f"<!-- {name} -->" not in text:
            raise ValueError(f"{path} has no marker <!-- {name} -->; add it where the table goes")
        before, _, rest = text.partition(f"<!-- {name} -->")
        _, _, after = rest.partition(f"<!-- end of {name} -->")
        text = f"{before}<!-- {name} -->\n{table}\n<!-- end of {name} -->{after}"
    path.write_text(text, encoding="utf-8")


def interval(values: Mapping[str, float], spec: str, factor: float = 1) -> str:
    """A value and its bounds, as `probbnn.metrics.Interval.to_dict` gives them."""
    return written(Interval(**values), spec, factor)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table of the rows' ``str``."""
    return Table("", header, [[escaped(cell) for cell in row] for row in rows]).markdown()


def new_run_directory(name: str) -> Path:
    """A run directory that is not there yet."""
    return Path("runs") / f"{name}-benchmark-{time.strftime('%Y%m%d-%H%M%S')}"


def write(
    name: str, command: str, content: dict[str, Any], page: str, *, show: bool = True
) -> None:
    """Write ``results/name.json`` and ``results/name.md``, and print the page."""
    content = {"command": command, "environment": environment(), **content}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    (_RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    where = ", ".join(f"{key} {value}" for key, value in content["environment"].items())
    page = f"{page}\n\nMeasured with `{command}` on: {where}.\n"
    (_RESULTS / f"{name}.md").write_text(page, encoding="utf-8")
    if show:
        print(page)
