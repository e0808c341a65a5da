"""Every backend on one density: the comparison that docs/backends.md reads from.

    python benchmarks/backends.py [digits|diabetes|mnist] [--methods NAME,NAME] [--seed N]

runs ``probbnn compare`` and, unless only some methods were asked for, keeps its result as
``results/backends-<preset>.json``, ``.md`` and the figure of quality against cost as ``.png``, and
fills the tables of ``docs/backends.md``.
"""

import argparse
import json
import shutil
from pathlib import Path

from _results import fill, new_run_directory

from probbnn.cli import main as probbnn
from probbnn.report.comparison import tables

_DOCUMENT = Path(__file__).parents[1] / "docs" / "backends.md"
_RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Compare, and keep what came out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset", nargs="?", default="digits")
    parser.add_argument("--methods", default=None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", default=None)
    arguments = parser.parse_args()
    directory = new_run_directory(f"compare-{arguments.preset}")
    command = ["compare", arguments.preset, "--out", str(directory), "--seed", str(arguments.seed)]
    for option in ("methods", "data_dir"):
        if (value := getattr(arguments, option)) is not None:
            command += [f"--{option.replace('_', '-')}", value]
    status = probbnn(command)
    if status == 0 and arguments.methods is None:
        _keep(directory, arguments.preset, arguments.seed)
    return status


def _keep(directory: Path, preset: str, seed: int) -> None:
    command = f"python benchmarks/backends.py {preset} --seed {seed}"
    content = {"command": command, **json.loads((directory / "comparison.json").read_text())}
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    stem = _RESULTS / f"backends-{preset}"
    stem.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    footer = (
        f"Measured with `{command}` in {content['seconds']:,.0f} s, all included, on: python "
        f"{content['python']}, {content['device']['kind']} with {content['device']['cpu_cores']} "
        f"cores, {versions}.\n"
    )
    page = (directory / "comparison.md").read_text(encoding="utf-8")
    stem.with_suffix(".md").write_text(f"{page}\n{footer}", encoding="utf-8")
    shutil.copy(directory / "figures" / "quality-against-cost.png", stem.with_suffix(".png"))
    found = {
        f"{preset}: {table.title}": f"{table.markdown()}\n\n{table.note}"
        for table in tables(content)
    }
    # The document has no place for some: the proof of equality once, and no failures.
    document = _DOCUMENT.read_text(encoding="utf-8")
    fill(_DOCUMENT, {k: v for k, v in found.items() if f"<!-- {k} -->" in document})


if __name__ == "__main__":
    raise SystemExit(main())
