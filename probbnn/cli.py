"""The command line.

``probbnn run``, ``resume``, ``watch``, ``report``, ``compare``, ``methods``, ``datasets``.
"""

import argparse
import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import probbnn as pb
from probbnn.errors import requires
from probbnn.experiments.customise import Request, asked_for, customise
from probbnn.experiments.presets import COMPARISONS, PRESETS, find_comparison
from probbnn.samplers.registry import LINES
from probbnn.terminal import Parser, unbreakable_output

if TYPE_CHECKING:
    from rich.console import Console

    from probbnn.experiments.run import RunResult

__all__ = ["main"]

# Of each method until it has converged, unless told otherwise.
_BUDGET = 3_600.0
_WATCHING_SECONDS = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments, without the program's name; default: those of the process.

    Returns:
        The exit status: 0, 1 if no method of a run finished, there is no report or results cannot
        be written, 2 for bad input, 130 if interrupted by SIGINT, 143 by SIGTERM.
    """
    with unbreakable_output():
        return _main(argv)


def _main(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except pb.InputError as error:
        print(f"probbnn: error: {error}", file=sys.stderr)
        return 2
    except pb.OutputError as error:
        print(f"probbnn: {error}; {_go_on(arguments)}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, pb.Terminated) as error:
        print(f"probbnn: interrupted; {_go_on(arguments)}", file=sys.stderr)
        return 143 if isinstance(error, pb.Terminated) else 130


def _go_on(arguments: argparse.Namespace) -> str:
    """What there is to do after a command that broke off."""
    if arguments.command in (_run, _resume):
        if arguments.out is None or not (arguments.out / "run.json").exists():
            return "nothing had begun"
        return f"what there is is on record; go on with: probbnn resume {arguments.out}"
    return "what had finished is on record"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="probbnn", description="What does your Flax network not know?")
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

    run.add_argument(
        "--until-converged",
        action="store_true",
        help="let each Markov chain go on until its verdict is converged, or --budget is spent",
    )
    run.add_argument(
        "--budget",
        metavar="TIME",
        type=_seconds,
        help="of each method with --until-converged: 90s, 30m, 2h (default 1h)",
    )

    _add_checkpoints(run)

    resume = commands.add_parser(
        "resume", help="go on with a run that something ended, or make a finished one longer"
    )
    resume.set_defaults(command=_resume)
    resume.add_argument("out", metavar="DIR", type=Path, help="run directory")
    resume.add_argument(
        "--steps", metavar="+N", type=_more_steps, default=0, help="so many more steps per chain"
    )
    resume.add_argument("--data-dir", metavar="DIR", help="TFDS data directory (or TFDS_DATA_DIR)")
    resume.add_argument(
        "--force",
        action="store_true",
        help="go on although versions or machine have changed, which changes the draws to come",
    )

    _add_checkpoints(resume)

    watch = commands.add_parser("watch", help="show how a run in another terminal is getting on")
    watch.set_defaults(command=_watch)
    watch.add_argument("directory", metavar="DIR", type=Path, help="run directory")
    watch.add_argument("--once", action="store_true", help="show it once, and end")

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


def _add_checkpoints(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--checkpoint-every",
        metavar="TIME",
        type=_seconds,
        default=60.0,
        help="time from one checkpoint to the next (default 60s)",
    )


def _run(arguments: argparse.Namespace) -> int:
    if arguments.budget is not None and not arguments.until_converged:
        raise pb.InputError("--budget is that of --until-converged; give both, or neither")
    request = Request(
        preset=arguments.preset,
        methods=_names(arguments.method),
        num_chains=arguments.chains,
        num_steps=arguments.steps,
        batch_size=arguments.batch_size,
        prior_scale=arguments.prior_scale,
        step_size=arguments.step_size,
        temperature=arguments.temperature,
    )
    preset = asked_for(request)
    arguments.out = arguments.out or _new_directory(preset.name)
    # Everything that can be refused quickly has been; now the libraries.
    return _show(
        pb.run,
        request,
        arguments.out,
        seed=arguments.seed,
        data_dir=arguments.data_dir,
        until_converged=(arguments.budget or _BUDGET) if arguments.until_converged else None,
        checkpoint_seconds=arguments.checkpoint_every,
    )


def _resume(arguments: argparse.Namespace) -> int:
    return _show(
        pb.resume_run,
        arguments.out,
        more_steps=arguments.steps,
        data_dir=arguments.data_dir,
        force=arguments.force,
        checkpoint_seconds=arguments.checkpoint_every,
    )


def _show(run: Callable[..., "RunResult"], *arguments: Any, **options: Any) -> int:
    """Run, and print what came of it."""
    console = _console()
    log = functools.partial(console.print, markup=False, highlight=False)
    result = run(*arguments, log=log, **options)
    from probbnn.report import run_tables, verdicts
    from probbnn.report.load import collect

    (found,) = collect([result.directory])
    if found.finished:
        console.print(run_tables.short_metrics_table(found).rich())
        console.print(run_tables.short_detection_table(found).rich())
        if (seeds := run_tables.seed_table(found)).rows:
            console.print(seeds.rich())
    for line in verdicts.lines(found):
        console.print(line, markup=False, highlight=False)
    for name, reason in result.failures.items():
        print(f"probbnn: {name} failed: {reason}", file=sys.stderr)
    print(f"written to {result.directory}, {'with' if result.report else 'without'} report.html")
    return 0 if found.finished and result.report else 1


def _watch(arguments: argparse.Namespace) -> int:
    from probbnn.experiments.watch import status

    before = None
    while True:
        found = status(arguments.directory)
        if found != before:
            if before is not None and sys.stdout.isatty():
                print(
                    f"\x1b[{len(before.lines)}F\x1b[J", end=""
                )  # in the place of the lines before
            print(found, flush=True)
            before = found
        if arguments.once or not found.is_running:
            return 0
        time.sleep(_WATCHING_SECONDS)


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


_UNITS = {"s": 1, "m": 60, "h": 3_600}


def _seconds(text: str) -> float:
    """A time such as 90s, 30m or 2h."""
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    try:
        seconds = float(number) * _UNITS[unit]
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; expected such as 90s, 30m or 2h")
    return seconds


def _more_steps(text: str) -> int:
    """A number of steps to add, such as +5000."""
    if not (text.startswith("+") and text[1:].isdecimal() and int(text[1:]) > 0):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number of steps to add; expected such as +5000"
        )
    return int(text[1:])


def _names(listed: str | None) -> tuple[str, ...] | None:
    return None if listed is None else tuple(name.strip() for name in listed.split(","))


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
