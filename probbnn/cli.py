"""The command line: ``probbnn run``, ``report``, ``compare``, ``methods``, ``datasets``."""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import probbnn
from probbnn.errors import InputError, is_positive
from probbnn.experiments.experiment import MethodRun
from probbnn.experiments.presets import (
    COMPARISONS,
    PRESETS,
    Preset,
    find_comparison,
    find_preset,
)
from probbnn.samplers.registry import METHODS, find_method

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments, without the program's name; default: those of the process.

    Returns:
        The exit status: 0, 1 if no method of a run finished, 2 for bad input, 130 if interrupted.
    """
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except InputError as error:
        print(f"probbnn: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("probbnn: interrupted; methods that had finished are on record", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="probbnn", description="What does your Flax network not know?"
    )
    parser.add_argument("--version", action="version", version=f"probbnn {probbnn.__version__}")
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
    preset = _customise(find_preset(arguments.preset), arguments)
    out = arguments.out or Path("runs") / f"{preset.name}-{time.strftime('%Y%m%d-%H%M%S')}"

    # Everything that can be refused quickly has been; now the libraries.
    from probbnn.experiments import run as experiment
    from probbnn.report import run_tables, verdicts
    from probbnn.report.load import collect

    console = _console()
    result = experiment.run(
        preset,
        out,
        seed=arguments.seed,
        data_dir=arguments.data_dir,
        report=lambda line: console.print(line, markup=False, highlight=False),
    )
    (found,) = collect([out])
    if result.methods:
        console.print(run_tables.short_metrics_table(found).rich())
        console.print(run_tables.short_detection_table(found).rich())
    for line in verdicts.lines(found):
        console.print(line, markup=False, highlight=False)
    for name, reason in result.failures.items():
        print(f"probbnn: {name} failed: {reason}", file=sys.stderr)
    print(f"written to {out}, with report.html")
    return 0 if result.methods else 1


def _report(arguments: argparse.Namespace) -> int:
    from probbnn.report.page import write_report

    print(f"written to {write_report(arguments.directories, arguments.out)}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    preset = find_comparison(arguments.comparison or arguments.preset or "digits")
    if arguments.methods is not None:
        preset = replace(preset, methods=_choose(preset, arguments.methods))
    out = arguments.out or Path("runs") / f"compare-{preset.name}-{time.strftime('%Y%m%d-%H%M%S')}"

    from probbnn.experiments import compare as comparison
    from probbnn.experiments.equality import MismatchError
    from probbnn.report.comparison import tables

    console = _console()
    try:
        result = comparison.compare(
            preset,
            out,
            seed=arguments.seed,
            data_dir=arguments.data_dir,
            report=lambda line: console.print(line, markup=False, highlight=False),
        )
    except MismatchError as error:
        print(f"probbnn: {error}", file=sys.stderr)
        return 1
    for table in tables(result.content):
        console.print(table.rich())
        console.print(table.note, markup=False, highlight=False)
    print(f"written to {out}")
    return 0 if len(result.failures) < len(preset.methods) else 1


def _console() -> "Console":
    from rich.console import Console

    console = Console()
    # Rich wraps tables to 80 columns where there is no terminal; a log has no such limit.
    return console if console.is_terminal else Console(width=140)


def _choose(preset: Preset, names: str) -> dict[str, MethodRun]:
    """The named methods: as the preset runs them, or by their defaults."""
    chosen = [find_method(name.strip()) for name in names.split(",")]
    steps = max(method.num_steps for method in preset.methods.values())
    # Not the bare name: a preset may use it as the label of another row.
    return {
        method.name: preset.methods.get(
            method.name,
            MethodRun(
                f"{method.backend}-{method.name}",
                method.num_chains,
                # A step on minibatches and one of a sampler on all the data do not compare.
                method.num_steps if method.full_data else steps,
            ),
        )
        for method in chosen
    }


def _customise(preset: Preset, arguments: argparse.Namespace) -> Preset:
    """The preset with the command line's changes."""
    methods = dict(preset.methods)
    if arguments.method is not None:
        methods = _choose(preset, arguments.method)
    if arguments.step_size is not None and len(methods) != 1:
        raise InputError(
            f"--step-size {arguments.step_size} was given for {len(methods)} methods, which need "
            f"different ones; choose one with --method ({', '.join(methods)})"
        )
    if arguments.temperature is not None:
        if not is_positive(arguments.temperature):
            raise InputError(
                f"--temperature is {arguments.temperature}; it must be positive and finite"
            )
        if not any("temperature" in METHODS[name].defaults for name in methods):
            raise InputError(f"--temperature was given, and {', '.join(methods)} has none")
    return replace(
        preset,
        methods={name: _customise_method(name, m, arguments) for name, m in methods.items()},
        batch_size=preset.batch_size if arguments.batch_size is None else arguments.batch_size,
        prior_scale=preset.prior_scale if arguments.prior_scale is None else arguments.prior_scale,
    )


def _customise_method(name: str, method: MethodRun, arguments: argparse.Namespace) -> MethodRun:
    settings = dict(method.settings)
    if arguments.step_size is not None:
        settings["step_size"] = arguments.step_size
    if arguments.temperature is not None and "temperature" in METHODS[name].defaults:
        settings["temperature"] = arguments.temperature
    fixed = METHODS[name].num_chains == 1
    return replace(
        method,
        settings=settings,
        num_chains=method.num_chains if fixed or arguments.chains is None else arguments.chains,
        num_steps=method.num_steps if arguments.steps is None else arguments.steps,
    )


def _methods(arguments: argparse.Namespace) -> int:
    for method in METHODS.values():
        print(f"{method.name:16} {method.backend:8} {method.summary}")
    return 0


def _datasets(arguments: argparse.Namespace) -> int:
    from probbnn.data import DATASETS

    for name, summary in DATASETS.items():
        print(f"{name:14} {summary}")
    return 0
