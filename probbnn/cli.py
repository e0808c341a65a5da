"""The command line: ``probbnn run``, ``report``, ``compare``, ``methods``, ``datasets``."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import probbnn as pb
from probbnn.errors import requires
from probbnn.experiments.customise import customise
from probbnn.experiments.presets import COMPARISONS, PRESETS, find_comparison, find_preset
from probbnn.samplers.registry import LINES

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments, without the program's name; default: those of the process.

    Returns:
        The exit status: 0, 1 if no method of a run finished or there is no report, 2 for bad
        input, 130 if interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except pb.InputError as error:
        print(f"probbnn: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("probbnn: interrupted; methods that had finished are on record", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="probbnn", description="What does your Flax network not know?"
    )
    parser.add_argument("--version", action="version", version=f"probbnn {pb.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = commands.add_parser(
        "run",
        help="run a preset experiment and write a run directory",
        description="presets: " + "; ".join(f"{p.name}: {p.summary}" for p in PRESETS.values()),
    )
    run.set_defaults(command=_run)
    run.add_argument("preset", metavar="PRESET", help=", ".join(PRESETS))
    run.add_argument(
        "--method",
        metavar="NAME[,NAME]",
        help="only these methods; one that the preset lacks runs with its default settings",
    )
    run.add_argument("--out", metavar="DIR", type=Path, help="default: runs/PRESET-DATE-TIME")
    run.add_argument("--seed", type=int, default=0, help="seed of all randomness (default 0)")
    run.add_argument("--data-dir", metavar="DIR", help="TFDS data directory (or TFDS_DATA_DIR)")
    run.add_argument("--chains", metavar="N", type=int, help="chains, except for map")
    run.add_argument("--steps", metavar="N", type=int, help="steps per chain, warm-up included")
    run.add_argument("--batch-size", metavar="N", type=int, help="examples per minibatch")
    run.add_argument("--prior-scale", metavar="S", type=float, help="σ of the Gaussian prior")
    run.add_argument("--step-size", metavar="H", type=float, help="constant; needs one --method")
    run.add_argument(
        "--temperature", metavar="T", type=float, help="of the samplers (1: posterior)"
    )

    report = commands.add_parser(
        "report", help="write report.html and report.md of a run, or of several side by side"
    )
    report.set_defaults(command=_report)
    report.add_argument("directories", metavar="DIR", nargs="+", type=Path, help="run directories")
    report.add_argument(
        "--out",
        metavar="FILE",
        type=Path,
        help="an .html file, with an .md beside it (default: report.html in the first DIR)",
    )

    compare = commands.add_parser(
        "compare",
        help="run every method on one density and compare them",
        description="comparisons: "
        + "; ".join(f"{p.name}: {p.summary}" for p in COMPARISONS.values()),
    )
    compare.set_defaults(command=_compare)
    choice = compare.add_mutually_exclusive_group()
    choice.add_argument(
        "comparison", metavar="PRESET", nargs="?", help=", ".join(COMPARISONS) + " (default digits)"
    )
    choice.add_argument("--preset", metavar="PRESET", help="the same by name")
    compare.add_argument(
        "--methods",
        metavar="NAME[,NAME]",
        help="only these; one that the comparison lacks runs with its default settings",
    )
    compare.add_argument("--out", metavar="DIR", type=Path, help="default: runs/compare-…")
    compare.add_argument("--seed", type=int, default=0, help="seed of all randomness (default 0)")
    compare.add_argument("--data-dir", metavar="DIR", help="TFDS data directory (or TFDS_DATA_DIR)")

    methods = commands.add_parser("methods", help="list the methods")
    methods.set_defaults(command=_methods)
    datasets = commands.add_parser("datasets", help="list the data sets")
    datasets.set_defaults(command=_datasets)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    preset = customise(
        find_preset(arguments.preset),
        methods=_names(arguments.method),
        num_chains=arguments.chains,
        num_steps=arguments.steps,
        batch_size=arguments.batch_size,
        prior_scale=arguments.prior_scale,
        step_size=arguments.step_size,
        temperature=arguments.temperature,
    )
    out = arguments.out or _new_directory(preset.name)
    console = _console()
    # Everything that can be refused quickly has been; now the libraries.
    result = pb.run(
        preset,
        out,
        seed=arguments.seed,
        data_dir=arguments.data_dir,
        log=lambda line: console.print(line, markup=False, highlight=False),
    )
    from probbnn.report import run_tables, verdicts
    from probbnn.report.load import collect

    (found,) = collect([out])
    if result.methods:
        console.print(run_tables.short_metrics_table(found).rich())
        console.print(run_tables.short_detection_table(found).rich())
        if (seeds := run_tables.seed_table(found)).rows:
            console.print(seeds.rich())
    for line in verdicts.lines(found):
        console.print(line, markup=False, highlight=False)
    for name, reason in result.failures.items():
        print(f"probbnn: {name} failed: {reason}", file=sys.stderr)
    print(f"written to {out}, {'with' if result.report else 'without'} report.html")
    return 0 if result.methods and result.report else 1


def _report(arguments: argparse.Namespace) -> int:
    with requires("a report", extra="report"):
        from probbnn.report.page import write_report

    print(f"written to {write_report(arguments.directories, arguments.out)}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    preset = customise(
        find_comparison(arguments.comparison or arguments.preset or "digits"),
        methods=_names(arguments.methods),
    )
    out = arguments.out or _new_directory(f"compare-{preset.name}")
    console = _console()
    try:
        result = pb.compare(
            preset,
            out,
            seed=arguments.seed,
            data_dir=arguments.data_dir,
            log=lambda line: console.print(line, markup=False, highlight=False),
        )
    except pb.MismatchError as error:
        print(f"probbnn: {error}", file=sys.stderr)
        return 1
    from probbnn.report.comparison import tables

    for table in tables(result.content):
        console.print(table.rich())
        console.print(table.note, markup=False, highlight=False)
    print(f"written to {out}")
    return 0 if result.methods else 1


def _names(listed: str | None) -> list[str] | None:
    return None if listed is None else [name.strip() for name in listed.split(",")]


def _new_directory(name: str) -> Path:
    return Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def _console() -> "Console":
    with requires("the command line", extra="report"):
        from rich.console import Console

    console = Console()
    # Rich wraps tables to 80 columns where there is no terminal; a log has no such limit.
    return console if console.is_terminal else Console(width=140)


def _methods(arguments: argparse.Namespace) -> int:
    for name, line in LINES.items():
        print(f"{name:16} {line.backend:8} {line.summary}")
    return 0


def _datasets(arguments: argparse.Namespace) -> int:
    for name, summary in pb.DATASETS.items():
        print(f"{name:14} {summary}")
    return 0
