"""Plants faults in a copy of the code, one at a time, and shows that a default test goes red.

    python benchmarks/faults.py [--new] [NAME …]

runs, for each fault of `_faults.py` (or those whose name contains a NAME; with ``--new``, those
without a result), the tests that should see it, and prints the first one that fails. The results go
into ``results/faults.json`` and ``.md`` as they come, so that a run can be cut and go on.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from _faults import FAULTS, Fault
from _results import markdown_table, write

from probbnn.machine import num_cores
from probbnn.report.table import Markdown

_ROOT = Path(__file__).parents[1]
_RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Plant the faults and write which test saw each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", nargs="*", help="part of a fault's name")
    parser.add_argument("--new", action="store_true", help="those without a result")
    asked = parser.parse_args()
    known = _known()
    chosen = [
        name
        for name in FAULTS
        if not (asked.new and known.get(name))
        and (not asked.name or any(part in name for part in asked.name))
    ]
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(num_cores()) as pool:
        see = partial(first_red_test, cache=cache)
        found = pool.map(see, [FAULTS[name] for name in chosen])
        for name, red in zip(chosen, found, strict=True):
            known[name] = red
            print(f"{'RED  ' if red else 'GREEN'} {name}: {red}", flush=True)
            _write(known)
    sys.exit(any(known[name] is None for name in chosen))


def _known() -> dict[str, str | None]:
    """Results of earlier runs, of faults that there still are."""
    path = _RESULTS / "faults.json"
    found = json.loads(path.read_text(encoding="utf-8"))["faults"] if path.exists() else {}
    return {name: found[name] for name in FAULTS if name in found}


def _write(known: dict[str, str | None]) -> None:
    found = {name: known[name] for name in FAULTS if name in known}
    rows = [[name, Markdown(f"`{red}`" if red else "**none**")] for name, red in found.items()]
    num_red = sum(red is not None for red in found.values())
    page = (
        f"# Faults that the tests see\n\nOf {len(FAULTS)} faults, {len(found)} were planted and "
        f"{num_red} seen.\n\n"
        + markdown_table(["fault planted", "first default test to go red"], rows)
    )
    write("faults", "python benchmarks/faults.py", {"faults": found}, page, show=False)


def first_red_test(fault: Fault, cache: str) -> str | None:
    """The first test that fails with the fault planted; ``cache``: of compiled programs."""
    with tempfile.TemporaryDirectory() as directory:
        for part in ("probbnn", "tests", "benchmarks"):
            shutil.copytree(_ROOT / part, Path(directory, part))
        shutil.copy(_ROOT / "pyproject.toml", directory)
        path = Path(directory, fault.path)
        text = path.read_text(encoding="utf-8")
        if text.count(fault.old) != 1:
            raise ValueError(f"{fault.path} has {text.count(fault.old)} times {fault.old!r}")
        path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
        printed = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider"]
            + shlex.split(fault.tests),
            cwd=directory,
            env={**os.environ, "PYTHONPATH": directory, "JAX_COMPILATION_CACHE_DIR": cache},
            capture_output=True,
            text=True,
            check=False,
        ).stdout
    # Or the fixture of one.
    line = r"^(?:FAILED|ERROR) (?:tests/)?(\S+?::.*?)(?: - .*)?$"
    red = re.search(line, printed, re.MULTILINE)
    return red.group(1) if red else None


if __name__ == "__main__":
    main()
