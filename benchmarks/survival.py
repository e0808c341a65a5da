"""What is left of runs that are killed, of disks that are full, and of bad input.

    python benchmarks/survival.py [--kills 52] [--only kills|disks|input]

1. Runs of the digits with psgld, sghmc, nuts and mclmc get SIGKILL at random moments, from the
   first import to the last file, checkpoints being written four times a second; each goes on from
   what it finds until it ends or is killed again. What came of it is compared, bit for bit, with a
   run that nobody killed: metrics and verdicts (``metrics.json``), and whatever is followed along
   the chains (``draws.nc``). SIGINT and SIGTERM are sent likewise, five of each to each method.
2. Runs into small file systems of ten sizes (tmpfs, where it may be mounted), into one that becomes
   read-only on the way, and into a directory that vanishes: exit code, number of lines, what is
   left, and whether the run goes on once there is room.
3. Bad input to ``probbnn run``, ``resume`` and ``watch``: exit code and message.

The figures and the page are left out, which are made of the files that are compared. Writes
``results/survival.json`` and ``.md``. About half an hour on two cores.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _results import markdown_table, write

METHODS = {"psgld": 4_000, "sghmc": 4_000, "nuts": 150, "mclmc": 4_000}
_HERE = Path(__file__)
_RESULTS = _HERE.parent / "results" / "survival.json"
# Of one process that nobody kills.
_LIMIT = 600


def child(method: str, out: Path) -> None:
    """Run one method, or go on with it."""
    import probbnn as pb
    from probbnn.experiments.customise import Request
    from probbnn.report import page

    page.write_report = lambda directories, out=None: directories[0]  # type: ignore[assignment]
    settings: dict[str, Any] = {"progress": False, "checkpoint_seconds": 0.25}
    if (out / "run.json").exists():
        result = pb.resume_run(out, **settings)
    else:
        if out.exists():
            shutil.rmtree(out)  # killed before there was anything to go on from
        request = Request("digits", methods=(method,), num_steps=METHODS[method], num_chains=2)
        result = pb.run(request, out, **settings)
    sys.exit(1 if result.failures else 0)


def start(method: str, out: Path) -> subprocess.Popen:
    """A process that runs one method."""
    return subprocess.Popen(
        [sys.executable, str(_HERE), "--child", method, str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen, home: Path, seconds: float, is_aimed: bool) -> bool:
    """Whether the process is still there after so long, or when a checkpoint is being written."""
    end = time.monotonic() + seconds
    while process.poll() is None:
        if is_aimed and list((home / "checkpoints").glob("*tmp*")):
            return True
        if time.monotonic() > end and not is_aimed:
            return True
        time.sleep(0.0005 if is_aimed else 0.01)
    return False


def differences(out: Path, wanted: Path) -> list[str]:
    """Where two runs are not the same, clocks apart."""
    import xarray as xr

    def content(path: Path) -> Any:
        found = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
        for measured in found["methods"].values():
            for name in ("seconds", "compile_seconds"):
                measured.pop(name)
        return found

    found = [] if content(out) == content(wanted) else ["metrics.json"]
    with xr.open_datatree(out / "draws.nc") as a, xr.open_datatree(wanted / "draws.nc") as b:
        if not a.identical(b):
            found.append("draws.nc")
    return found


def survive(folder: Path, kills: int) -> dict[str, Any]:
    """Kill runs, and count what was lost."""
    rng = random.Random(0)
    counts: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        wanted = folder / f"{method}-whole"
        started = time.monotonic()
        process = start(method, wanted)
        _, error = process.communicate(timeout=_LIMIT)
        if process.returncode:
            raise RuntimeError(f"{method}: {error}")
        seconds = time.monotonic() - started
        count: dict[str, Any] = {"kills": 0, "within a checkpoint": 0, "interrupts": 0, "runs": 0}
        count |= {"lost": 0, "different": 0, "wrong status": 0}
        # A third of the kills wait for a checkpoint that is being written.
        plans = [(signal.SIGKILL, number % 3 == 0) for number in range(kills // len(METHODS))]
        plans += [(number, False) for number in (signal.SIGINT, signal.SIGTERM) for _ in range(5)]
        rng.shuffle(plans)
        while plans:
            out = folder / f"{method}-{count['runs']}"
            count["runs"] += 1
            while True:
                process = start(method, out)
                number, is_aimed = plans[-1] if plans else (signal.SIGKILL, False)
                # Later than it takes now and then, so that runs come to their end.
                wait = rng.uniform(0.05, 1.2) * seconds if plans else _LIMIT
                if wait_for(process, out / "methods" / method, wait, is_aimed):
                    plans.pop()
                    half = list((out / "methods" / method / "checkpoints").glob("*tmp*"))
                    has_begun = (out / "run.json").exists()
                    process.send_signal(number)
                    _, error = process.communicate(timeout=_LIMIT)
                    if number == signal.SIGKILL:
                        count["kills"] += 1
                        count["within a checkpoint"] += bool(half)
                    else:
                        count["interrupts"] += 1
                        # Before the library is there, a signal is Python's own affair.
                        if has_begun and process.returncode not in (0, -number, 128 + number):
                            count["wrong status"] += 1
                            print(f"{method}, {number}: {process.returncode} {error}", flush=True)
                    continue
                _, error = process.communicate(timeout=_LIMIT)
                if process.returncode:
                    count["lost"] += 1
                    print(f"{method}, lost: {error}", flush=True)
                elif found := differences(out, wanted):
                    count["different"] += 1
                    print(f"{method}, different: {found}", flush=True)
                break
            shutil.rmtree(out, ignore_errors=True)
        counts[method] = count
        print(method, count, flush=True)
    return counts


def command(
    *arguments: str, on_its_way: Callable[[], object] | None = None
) -> tuple[int, list[str]]:
    """Exit code and lines on stderr of the program as a user calls it.

    Args:
        arguments: of the program.
        on_its_way: called once its second method has begun.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "probbnn", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if on_its_way is not None:
        second = Path(arguments[-1]) / "methods" / "sghmc" / "sampling.json"
        while process.poll() is None and not second.exists():
            time.sleep(0.05)
        on_its_way()
    _, error = process.communicate(timeout=_LIMIT)
    return process.returncode, error.strip().splitlines()


def small_disks(folder: Path) -> list[dict[str, Any]]:
    """Runs where there is too little room, or all at once no way to write, and once more after."""
    rows = []
    disk = folder / "disk"
    disk.mkdir()
    sizes = (4, 64, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768)
    for size in (*sizes, None):
        options = f"size={size}k" if size else "size=256m"
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            return [{"case": "full disks", "said": "no small file system can be mounted here"}]
        try:
            out = disk / "run"
            on_its_way = None if size else lambda: remount(disk, "ro")
            code, lines = command("run", *_QUICK, "--out", str(out), on_its_way=on_its_way)
            left = sorted(str(p.relative_to(out)) for p in out.rglob("*")) if out.exists() else []
            remount(disk, "rw,size=256m")
            again = ["resume", str(out)] if "run.json" in left else ["run", *_QUICK]
            again += [] if "run.json" in left else ["--out", str(out)]
            then, _ = command(*again)
        finally:
            subprocess.run(["umount", str(disk)], check=True)
        row = {"case": f"{size:,} kB" if size else "read-only on the way", "exit": code}
        row |= {"lines": len(lines), "said": shown(lines, folder)}
        row |= {"half-written files": ", ".join(name for name in left if "part" in name)}
        rows.append(row | {"goes on with": f"{again[0]}, exit {then}"})
        print(rows[-1], flush=True)
    out = folder / "gone"
    code, lines = command("run", *_QUICK, "--out", str(out), on_its_way=lambda: vanish(out))
    row = {"case": "the directory vanishes", "exit": code, "lines": len(lines)}
    row |= {"said": shown(lines, folder), "half-written files": "", "goes on with": ""}
    return [*rows, row]


_QUICK = ["digits", "--method", "map,sghmc", "--steps", "6000", "--chains", "2"]


def remount(disk: Path, options: str) -> None:
    """Change how a file system is mounted."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def vanish(out: Path) -> None:
    """Take a directory away under a run."""
    out.rename(out.with_name("elsewhere"))


def shown(lines: list[str], folder: Path) -> str:
    """The last line, without the name of a temporary folder."""
    return lines[-1].replace(str(folder), "…") if lines else ""


def bad_input(folder: Path) -> list[dict[str, Any]]:
    """What is refused, and how."""
    done = folder / "psgld-whole"
    if not done.exists():
        start("psgld", done).communicate(timeout=_LIMIT)
    other = folder / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    unfinished = folder / "unfinished"
    shutil.copytree(done, unfinished)
    record = json.loads((unfinished / "run.json").read_text())
    record["status"] = "interrupted"
    (unfinished / "run.json").write_text(json.dumps(record))
    damaged = folder / "damaged"
    shutil.copytree(unfinished, damaged)
    (damaged / "run.json").write_text("{")
    changed = folder / "changed"
    shutil.copytree(unfinished, changed)
    record["request"]["prior_scale"] = 2.0
    (changed / "run.json").write_text(json.dumps(record))
    cases = [
        ["run", "digits", "--out", str(done)],
        ["run", "digits", "--out", str(unfinished)],
        ["run", "digits", "--out", str(other)],
        ["run", "digits", "--budget", "5m"],
        ["run", "digits", "--until-converged", "--budget", "soon"],
        ["run", "digits", "--checkpoint-every", "-3s"],
        ["resume", str(other)],
        ["resume", str(folder / "nowhere")],
        ["resume", str(damaged)],
        ["resume", str(changed)],
        ["resume", str(done), "--steps", "100"],
        ["resume", str(done), "--steps", "+0"],
        ["resume", str(done), "--steps", "+1e3"],
        ["watch", str(other)],
    ]
    rows = []
    for case in cases:
        code, lines = command(*case)
        name = " ".join(case).replace(str(folder), "…")
        row = {"case": name, "exit": code, "lines": len(lines), "said": shown(lines, folder)}
        rows.append(row)
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Everything, and the page of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=52)
    parser.add_argument("--only", choices=("kills", "disks", "input"))
    parser.add_argument("--child", nargs=2)
    arguments = parser.parse_args()
    if arguments.child:
        method, out = arguments.child
        try:
            child(method, Path(out))
        except KeyboardInterrupt:
            sys.exit(130)  # as the command line does
        return
    content = {}
    if arguments.only and _RESULTS.exists():
        content = json.loads(_RESULTS.read_text(encoding="utf-8"))["parts"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "cache")
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        if arguments.only in (None, "kills"):
            counts = survive(folder, arguments.kills)
            content["kills"] = [{"method": m, **count} for m, count in counts.items()]
        if arguments.only in (None, "disks"):
            content["full disks"] = small_disks(folder)
        if arguments.only in (None, "input"):
            content["bad input"] = bad_input(folder)
    titles = {
        "kills": "What is left of a run that is killed",
        "full disks": "Full disks",
        "bad input": "What is refused",
    }
    tables = [f"## {titles[part]}\n\n{_table(content[part])}" for part in titles if part in content]
    page = "\n\n".join(["# Survival", *tables])
    write("survival", "python benchmarks/survival.py", {"parts": content}, page)


def _table(rows: list[dict[str, Any]]) -> str:
    return markdown_table(list(rows[0]), [list(row.values()) for row in rows])


if __name__ == "__main__":
    main()
