"""Tries bad inputs: those that went wrong once, and more from generators.

    python benchmarks/bad_inputs.py

Each is tried in a process that survives neither a crash nor a hang. For each are printed the exit
status (of the API ``InputError`` counts as 2, and any other exception as a traceback), the number
of lines on standard error, and what was left behind. An input is red where there is a traceback, a
crash or a hang, more than one line for a refusal, files left behind by one, a file outside that is
not as it was, or where a refusal was due and there is none. Reports are made without drawing their
figures. Writes ``results/bad_inputs.json`` and ``.md``. A quarter of an hour on two cores.
"""

import base64
import contextlib
import io
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TIMEOUT = 180
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        kind: what is wrong with it.
        given: as a person would write it: a command line, or a line of Python.
        prepare: lays out the working directory.
        refused: whether it has to be refused; where it need not be, it may also be taken.
        shell: whether the command line is one for a shell, which starts a process of its own.
    """

    kind: str
    given: str
    prepare: Callable[[Path], None] = field(default=lambda folder: None)
    refused: bool = True
    shell: bool = False


# The cases that went wrong once


def _api(kind: str, *lines: str, refused: bool = True) -> list[Case]:
    return [Case(kind, line, refused=refused) for line in lines]


def _cli(kind: str, *lines: str, refused: bool = True) -> list[Case]:
    return [Case(kind, f"probbnn {line}", refused=refused) for line in lines]


def known(run: Path) -> Iterator[Case]:
    """Those of the list of kinds, each in its smallest form."""
    yield from strangers(run)
    yield from _api(
        "numbers that change",
        "density(x, np.full(20, 3_000_000_000))",
        "density((x * 1e12).astype(int), y)",
        "density(np.where(x > 1, 1e300, x), y)",
        "density(x + 1.7e9, y)",
        "density(np.ma.masked_greater(x, 1), y)",
        "density(x, np.ma.masked_greater(y, 1))",
        "density([[1e300], [0.0]], [0.0, 1.0])",
        "pb.evaluate(np.full((3, 2), 0.5), np.ma.masked_equal([0, 1, 0], 1))",
        "target.check_inputs(np.full((1, 8, 8, 1), 2**40))",
    )
    yield from _api(
        "types and ranges",
        *(
            f"pb.sample(key, target, num_steps=4, {setting})"
            for setting in (
                'step_size="0.1"',
                "step_size=True",
                'temperature="1"',
                "temperature=True",
                "temperature=1e-300",
                'freeze="no"',
                'decay="0.9"',
                "batch_size=2.5",
                "callback_steps=5",
                "callback_steps=[0]",
                "callback_steps=[1.5]",
                "thinning=50",
                "num_chains=10**9",
                "num_chains=True",
                'num_chains="4"',
                'shared_minibatches="no"',
                'checkpoint_seconds="60"',
            )
        ),
        "pb.sample(0, target)",
        "pb.sample(None, target)",
        "pb.sample(jax.random.split(key), target)",
        "pb.sample(key, target, num_steps=10.0)",
        "pb.sample(key, target, num_steps=1e3)",
        "pb.sample(key, target, num_steps=10**23)",
        'pb.LogDensity(pb.MLP(), digits, prior_scale="1")',
        "pb.LogDensity(pb.MLP(), digits, prior_scale=True)",
        "pb.LogDensity(pb.MLP(), digits, prior_scale=1e-300)",
        "pb.measure_temperature(0, target, draws)",
        "pb.measure_temperature(key, target, draws, num_draws=2.5)",
        "pb.run(mine(num_steps=1e3), tmp / 'a' / 'b')",
        "pb.run(mine(num_chains='4'), tmp / 'a')",
        "pb.run(mine(), tmp / 'a', seed='0')",
        "pb.run(mine(), tmp / 'a', seed=1.5)",
    )
    yield from _cli(
        "types and ranges",
        "run digits --steps 1e23",
        "run digits --steps 100000000000000000000000",
        "run digits --chains 1000000000",
        "run digits --temperature 1e-300",
        "run digits --batch-size 2.5",
        "run digits --seed 99999999999",
        "run digits --method psgld --step-size 1e-300",
        "run digits --prior-scale 1e39",
    )
    yield from _api(
        "modules that mix examples",
        'pb.LogDensity((init, lambda p, x: (x @ p["w"]).mean(0, keepdims=True)), (x, label))',
        'pb.LogDensity((init, lambda p, x: (x @ p["w"]).sum(0)), (x, label))',
        'sampled(lambda p, x: x @ p["w"] - (x @ p["w"]).mean(0))',
        'sampled(lambda p, x: (x @ p["w"])[::-1])',
    )
    yield from _cli(
        "options ignored",
        "run digits --method nuts --batch-size 10",
        "run digits --method map --chains 5",
        "run digits --method nuts,mclmc --batch-size 10",
        "run digits --method map --temperature 3",
    )
    yield Case(
        "files overwritten",
        "probbnn report run --out notes.html",
        lambda folder: (_copy(run)(folder), (folder / "notes.md").write_text("mine"))[0],
    )
    yield Case(
        "memory without need",
        "pb.measure_temperature(key, target, draws, num_draws=10**9)",
        refused=False,
    )
    yield from _cli(
        "work lost to output",
        f"run digits --out={'a' * 300}",
        "run digits --out=~no-such-user/x",
        "run digits --out=file/x",
        "run mnist --data-dir=file",
        f"run mnist --data-dir={'a' * 300}",
    )
    quick = "run digits --method map --steps 4"
    for line in (
        f"probbnn {quick} --out out | head -1",
        f"probbnn {quick} --out out 2>&-",
        f"probbnn {quick} --out out >&-",
        f"PYTHONIOENCODING=latin-1 probbnn {quick} --out out",
        f"HOME=$PWD probbnn {quick} --out=~/out",
        f"probbnn {quick} --out out > /dev/full",
    ):
        yield Case("work lost to output", line, refused=False, shell=True)
    yield Case(
        "a claim that is none",
        f"probbnn {quick} --out out & probbnn {quick} --out out; wait",
        refused=False,
        shell=True,
    )
    yield from _cli("a claim that is none", "run digits --batch-size 0 --out a/b/c")
    yield from (
        Case("TFDS directory", given, prepare)
        for given, prepare in (
            ('pb.load("mnist", tmp)', _tfds("")),
            ('pb.load("mnist", tmp)', _tfds("[1")),
            ('pb.load("mnist", tmp)', _tfds('{"a": 1}')),
            ('pb.load("mnist", tmp / "mnist")', _tfds("{}")),
            ('pb.load("mnist", tmp / "mnist/3.0.1")', _tfds("{}")),
            ('pb.load("mnist", tmp)', _tfds("{}", "1.0.0")),
            ('pb.load("mnist", tmp / "new")', lambda folder: None),
        )
    )
    yield from _cli(
        "usage", "", "walk", "run", "run digits --colour", "report", "report no-such-run"
    )


def strangers(run: Path) -> Iterator[Case]:
    """Run directories that somebody else made."""
    report = "probbnn report run"

    def case(what: str, change: Callable[[Path], None], **options: Any) -> Case:
        return Case("a stranger's directory", f"{report}  # {what}", _copy(run, change), **options)

    def linked(name: str) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(folder.parent / "precious")

        return change

    for name in ("report.html.part", "report.md.part", "report.html", "report.md"):
        yield case(f"{name} is a link to precious", linked(name), refused=False)
    for name in ("run.json", "metrics.json", "draws.nc"):
        yield case(f"{name} is a link to precious", linked(name))
        yield case(f"{name} is a pipe", _pipe(name))
    yield case("figures is a link to elsewhere", _figures_elsewhere)
    for what, damage in _HDF5.items():
        yield case(f"draws.nc with {what}", _damaged(damage))
    texts = {
        '{"preset": {"methods": 5}}': True,
        '{"preset": "\\ud800"}': True,
        "[" * 100_000: True,
        '{"seconds": 1e400}': True,
        '{"seed": NaN}': True,
        '{"preset": {"methods": {"a\\nb\\u001b[2J": 5}}}': True,
        '{"seed": ' + "9" * 5_000 + "}": True,
        "": True,
        "null": True,
        "{}": False,
    }
    for text, refused in texts.items():
        shown = text if len(text) < 60 else f"{text[:12]}… ({len(text):,} characters)"
        yield case(f"run.json is {shown}", _written("run.json", text), refused=refused)
        yield case(f"metrics.json is {shown}", _written("metrics.json", text), refused=False)


def _copy(run: Path, change: Callable[[Path], None] | None = None) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        shutil.copytree(run, folder / "run")
        if change is not None:
            change(folder / "run")

    return prepare


def _pipe(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def _written(name: str, text: str | bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        (folder / name).write_bytes(content)

    return change


def _figures_elsewhere(folder: Path) -> None:
    shutil.rmtree(folder / "figures")
    (folder / "figures").symlink_to(folder.parent)


def _tfds(info: str, version: str = "3.0.1") -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        home = folder / "mnist" / version
        home.mkdir(parents=True)
        (home / "dataset_info.json").write_text(info)

    return prepare


def _damaged(damage: Callable[[Any, Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        import h5py

        with h5py.File(folder / "draws.nc", "a") as file:
            damage(file, folder.parent / "precious")

    return change


_GROUP = "map/predictions_constant_data"


def _external(file: Any, outside: Path) -> None:
    del file[f"{_GROUP}/inputs"]
    file[_GROUP].create_dataset(
        "inputs", (500, 8, 8, 1), "u1", external=[(str(outside), 0, 500 * 64)]
    )


def _virtual(file: Any, outside: Path) -> None:
    import h5py

    layout = h5py.VirtualLayout((500, 8, 8, 1), "u1")
    layout[:] = h5py.VirtualSource(str(outside), "x", (500, 8, 8, 1))
    del file[f"{_GROUP}/inputs"]
    file[_GROUP].create_virtual_dataset("inputs", layout)


def _linked(kind: str, *where: str) -> Callable[[Any, Path], None]:
    def damage(file: Any, outside: Path) -> None:
        import h5py

        file[f"{_GROUP}/more"] = getattr(h5py, kind)(
            *(str(outside) if w == "" else w for w in where)
        )

    return damage


def _loop(file: Any, outside: Path) -> None:
    file["map/posterior/again"] = file["map"]


def _enormous(file: Any, outside: Path) -> None:
    file[_GROUP].create_dataset("more", (7 << 40,), "u1", chunks=(1 << 20,))


def _many_strings(file: Any, outside: Path) -> None:
    import h5py

    file[_GROUP].create_dataset("more", (1 << 20,), h5py.string_dtype(), chunks=(1 << 10,))


def _long_strings(file: Any, outside: Path) -> None:
    import h5py

    strings = ["x" * (1 << 20)] * 17
    file[_GROUP].create_dataset("more", data=strings, dtype=h5py.string_dtype())


def _no_coordinate(file: Any, outside: Path) -> None:
    del file["map/predictions/class"]


_HDF5 = {
    "external storage": _external,
    "a virtual data set": _virtual,
    "an external link": _linked("ExternalLink", "", "/x"),
    "a soft link": _linked("SoftLink", "/map/posterior"),
    "a loop of hard links": _loop,
    "7 TiB declared": _enormous,
    "a million strings": _many_strings,
    "one long string many times": _long_strings,
    "a missing coordinate": _no_coordinate,
}


# More of them, from generators


def generated(run: Path) -> Iterator[Case]:
    """What Hypothesis makes of JSON, NetCDF, IDX, the command line and the API; the same always."""
    yield from _generated_json(run, 45)
    yield from _generated_netcdf(run, 30)
    yield from _generated_idx(20)
    yield from _generated_command_lines(45)
    yield from _generated_calls(60)


def _examples(strategy: Any, number: int) -> list[Any]:
    from hypothesis import HealthCheck, Phase, given, settings

    found: list[Any] = []

    @settings(
        max_examples=10 * number,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(value: Any) -> None:
        if value not in found:
            found.append(value)

    collect()
    # The first ones are the simplest.
    return random.Random(0).sample(found, min(number, len(found)))


def _anything() -> Any:
    from hypothesis import strategies as st

    numbers = st.integers() | st.floats() | st.sampled_from([2**63, 10**30, -1, 0, 1e308, -0.0])
    text = st.text(max_size=8) | st.sampled_from(
        ["\ud800", "\x1b[2J", "a\nb", "../x", "", "x" * 300]
    )
    return st.recursive(
        st.none() | st.booleans() | numbers | text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
        max_leaves=6,
    )


def _generated_json(run: Path, number: int) -> Iterator[Case]:
    from hypothesis import strategies as st

    files = st.sampled_from(["run.json", "metrics.json"])
    changes = st.tuples(files, st.integers(0, 10**6), _anything())
    for name, place, value in _examples(changes, number):
        content = json.loads((run / name).read_text())
        path = _replace(content, place, value)
        text = json.dumps(content)
        given = f"probbnn report run  # {name}: {path} is {value!r:.60}"
        yield Case("JSON", given, _copy(run, _written(name, text)), refused=False)


def _replace(content: Any, place: int, value: Any) -> str:
    """Put a value in one of all places of a tree; where that is."""
    places: list[tuple[Any, Any, str]] = []
    pending = [(content, "")]
    while pending:
        node, path = pending.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, item in list(items):
            where = f"{path}.{key}" if path else str(key)
            places.append((node, key, where))
            if isinstance(item, dict | list):
                pending.append((item, where))
    # Far up and far down alike: by depth first.
    depths = sorted({where.count(".") for *_, where in places})
    depth = depths[place % len(depths)]
    places = [p for p in places if p[2].count(".") == depth]
    node, key, where = places[place // len(depths) % len(places)]
    node[key] = value
    return where


def _generated_netcdf(run: Path, number: int) -> Iterator[Case]:
    from hypothesis import strategies as st

    size = (run / "draws.nc").stat().st_size
    changes = st.tuples(st.integers(0, 60_000), st.binary(min_size=1, max_size=16)) | st.tuples(
        st.integers(0, size), st.none()
    )
    for place, what in _examples(changes, number):
        content = bytearray((run / "draws.nc").read_bytes())
        if what is None:
            del content[place:]
            given = f"probbnn report run  # draws.nc ends after {place:,} bytes"
        else:
            content[place : place + len(what)] = what
            given = f"probbnn report run  # draws.nc has {what.hex()} from byte {place:,} on"
        change = _written("draws.nc", bytes(content))
        yield Case("NetCDF", given, _copy(run, change), refused=False)


def _generated_idx(number: int) -> Iterator[Case]:
    from hypothesis import strategies as st

    names = [f"{s}-{k}-ubyte.gz" for s in ("train", "t10k") for k in ("images-idx3", "labels-idx1")]
    for name, content in _examples(st.tuples(st.sampled_from(names), st.binary()), number):

        def prepare(folder: Path, name: str = name, content: bytes = content) -> None:
            manual = folder / "downloads" / "manual"
            manual.mkdir(parents=True)
            for each in names:
                (manual / each).write_bytes(content if each == name else b"\x1f\x8b")

        yield Case(
            "IDX",
            f'pb.load("mnist", tmp, progress=False)  # {name} is {content.hex():.40}',
            prepare,
        )


def _generated_command_lines(number: int) -> Iterator[Case]:
    from hypothesis import strategies as st

    options = ["--steps", "--chains", "--batch-size", "--seed", "--temperature", "--step-size"]
    options += ["--prior-scale", "--method"]
    words = st.text(st.characters(exclude_characters="\0"), max_size=8)
    numbers = st.floats().map(str) | st.integers().map(str)
    # What could be taken is given so many chains that nothing is sampled.
    lines = st.tuples(
        st.sampled_from(["run", "run digits", "run digit", "report", "compare", "methods", ""]),
        st.lists(st.tuples(st.sampled_from(options), words | numbers), min_size=1, max_size=3),
    )
    for command, given in _examples(lines, number):
        arguments = [a for option, value in given for a in (f"{option}={value}",)]
        line = json.dumps([*command.split(), *arguments, *(["--out=file"] if command else [])])
        yield Case("command line", line)


def _generated_calls(number: int) -> Iterator[Case]:
    from hypothesis import strategies as st

    calls = {
        "pb.sample(key, target, num_steps=4, num_chains=1, progress=False, {})": (
            *("num_warmup", "thinning", "batch_size", "step_size", "temperature", "freeze"),
            *("callback_steps", "chain_method", "on_divergence", "keep_positions", "decay"),
            *("initial_positions", "shared_minibatches", "out", "gamma"),
        ),
        "pb.LogDensity(pb.MLP(hidden=(2,)), digits, {})": (
            *("prior_scale", "likelihood", "prior", "trainable"),
        ),
        "pb.load({})": ("name", "data_dir"),
        "pb.predict(target, draws, {})": ("inputs",),
        "pb.evaluate(np.full((3, 2), 0.5), {})": ("labels",),
        "pb.measure_temperature(key, target, draws, {})": ("tolerance", "num_draws"),
        "pb.resume({}, target)": ("directory",),
        "pb.Dataset(digits.images[:3], classes=('a', 'b'), name='', split='', {})": ("labels",),
        "pb.run(mine(), tmp / 'a', {})": ("seed",),
    }
    names = [(call, name) for call, known in calls.items() for name in known]
    for (call, name), value in _examples(st.tuples(st.sampled_from(names), _anything()), number):
        literal = repr(value)
        positional = call.startswith(("pb.predict", "pb.resume"))
        given = call.format(literal if positional else f"{name}={literal}")
        if "pb.load({})" in call and name != "name":
            given = given.replace("pb.load(", "pb.load('mnist', ")
        yield Case("API", given, refused=False)


# Trying them


class Worker:
    """A process that tries one input after another; a new one takes the place of one that died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None

    def __call__(self, folder: Path, given: str) -> dict[str, Any]:
        """What came of it: status, lines of standard error, the first of them."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"folder": str(folder), "given": given}) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], _TIMEOUT)[0]:
            process.kill()
            process.wait()
            return {"status": "hang", "lines": 0, "said": []}
        answer = process.stdout.readline()
        if not answer:
            return {"status": f"crash ({process.wait()})", "lines": 0, "said": []}
        return json.loads(answer)


def work() -> None:
    """The worker's own side."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    import warnings

    import probbnn as pb
    from probbnn.data import tfds
    from probbnn.report import figures

    tfds._URLS = dict.fromkeys(tfds._URLS, "http://127.0.0.1:9/")  # where nobody answers

    figures.data_uri = lambda figure: "data:image/png;base64,"
    figures.save = lambda figure, stem: None
    names = _namespace(pb)
    for line in sys.stdin:
        question = json.loads(line)
        error = io.StringIO()
        os.chdir(question["folder"])
        os.environ["TFDS_DATA_DIR"] = question["folder"]
        names["tmp"] = Path(question["folder"])
        with (
            contextlib.redirect_stderr(error),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("always")
            status = _try(pb, question["given"], names)
        said = error.getvalue().splitlines()
        first = [ascii(line)[1:-1] for line in said[:1]]
        answers.write(json.dumps({"status": status, "lines": len(said), "said": first}) + "\n")
        answers.flush()


def _try(pb: Any, given: str, names: dict[str, Any]) -> int | str:
    from probbnn.cli import main

    try:
        if given.startswith("["):
            return main(json.loads(given))
        if given.startswith("probbnn"):
            return main(given.partition("  #")[0].split()[1:])
        exec(given, dict(names))
    except pb.InputError as error:
        print(error, file=sys.stderr)
        return 2
    except SystemExit as error:
        return int(error.code or 0)
    except BaseException:
        print(traceback.format_exc().splitlines()[-1], file=sys.stderr)
        return "traceback"
    return 0


def _namespace(pb: Any) -> dict[str, Any]:
    """What the lines of Python may use."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    x, label = rng.normal(size=(20, 3)), rng.integers(4, size=20)
    digits = pb.load("digits")[0][:100]
    key = jax.random.key(0)
    target = pb.LogDensity(pb.MLP(hidden=(2,)), digits)

    def init(key: Any, x: Any) -> Any:
        return {"w": jax.random.normal(key, (3, 4))}

    def density(inputs: Any, targets: Any) -> Any:
        inputs = np.array(inputs) if isinstance(inputs, list) else inputs
        linear = (lambda key, x: jnp.zeros(x.shape[1]), lambda w, x: (x @ w)[:, None])
        targets = np.array(targets) if isinstance(targets, list) else targets
        return pb.LogDensity(linear, (inputs, targets), likelihood=pb.Gaussian(1.0))

    def mine(**changes: Any) -> Any:
        rows = {"sgld": pb.MethodRun(**{"num_steps": 4, "num_chains": 1, **changes})}
        return pb.Experiment(
            "mine", pb.MLP(hidden=(2,), num_outputs=4), (x, label), (x, label), rows
        )

    def sampled(apply: Any) -> Any:
        target = pb.LogDensity((init, apply), (x, label))
        return pb.sample(key, target, "sgld", num_steps=4, progress=False)

    draws = pb.sample(key, target, "sgld", num_steps=20, num_chains=2, progress=False)
    return {
        "pb": pb,
        "np": np,
        "jax": jax,
        "x": x,
        "y": x[:, 0],
        "label": label,
        "key": key,
        "digits": digits,
        "target": target,
        "draws": draws,
        "init": init,
        "nan": float("nan"),
        "inf": float("inf"),
        "density": density,
        "mine": mine,
        "sampled": sampled,
    }


_SECRET = bytes(range(256)) * 500


def attempt(worker: Worker, case: Case) -> dict[str, Any]:
    """Try one input in a directory of its own, with a file in it that nobody may touch."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "file").write_text("mine")
        (folder / "precious").write_bytes(_SECRET)
        case.prepare(folder)
        before = _content(folder)
        found = _in_shell(folder, case.given) if case.shell else worker(folder, case.given)
        after = _content(folder)
    left = sorted(set(after) - set(before))
    changed = sorted(n for n in before if before[n] != after.get(n) and not n.startswith("run/"))
    is_taken = found["status"] == 0
    known_status = found["status"] in (0, 2) or (case.shell and found["status"] == 1)
    red = [
        *([] if known_status else [f"{found['status']}"]),
        *(["taken"] if case.refused and is_taken else []),
        *([f"{found['lines']} lines"] if found["status"] == 2 and found["lines"] != 1 else []),
        *([f"left {left[0]}"] if found["status"] == 2 and left else []),
        *([f"changed {changed[0]}"] if changed else []),
        *(["read precious"] if any(_leaks(after[name]) for name in left) else []),
        *(["not finished"] if case.shell and not _is_finished(after) else []),
    ]
    return {
        "kind": case.kind,
        "given": ascii(case.given)[1:-1],
        **found,
        "said": [line.replace(str(folder), "DIR") for line in found["said"]],
        "left": left[:5],
        "red": red,
    }


def _in_shell(folder: Path, line: str) -> dict[str, Any]:
    command = f"{sys.executable} -m probbnn"
    (folder / "probbnn").write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    (folder / "probbnn").chmod(0o755)
    try:
        process = subprocess.run(
            ["bash", "-c", line.replace("probbnn ", "./probbnn ")],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(_ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=2 * _TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"status": "hang", "lines": 0, "said": []}
    finally:
        (folder / "probbnn").unlink()
    said = process.stderr.splitlines()
    status = "traceback" if "Traceback" in process.stderr else process.returncode
    return {"status": status, "lines": len(said), "said": [ascii(s)[1:-1] for s in said[:1]]}


def _content(folder: Path) -> dict[str, bytes]:
    """Of all files by name; of a pipe or a link what it is."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = os.readlink(path).encode()
        elif path.is_file():
            found[str(path.relative_to(folder))] = path.read_bytes()
        else:
            found[str(path.relative_to(folder))] = b""
    return found


def _leaks(content: bytes) -> bool:
    return _SECRET[:64] in content or base64.b64encode(_SECRET[:63]) in content


def _is_finished(content: dict[str, bytes]) -> bool:
    return b'"status": "finished"' in content.get("out/run.json", b"") and (
        "out/report.html" in content
    )


def main() -> None:
    """Try all of them, and print and write what came of each."""
    from _results import markdown_table, write

    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary, "run")
        quick = ["run", "digits", "--method", "map,sgld", "--steps", "20", "--chains", "2", "--out"]
        subprocess.run([sys.executable, "-m", "probbnn", *quick, str(run)], check=True)
        worker, results = Worker(), []
        for case in (*known(run), *generated(run)):
            results.append(found := attempt(worker, case))
            mark = "RED  " if found["red"] else "green"
            left = ", ".join(found["left"]) or "nothing"
            print(
                f"{mark} {found['kind']}: {found['given']:.100}: status "
                f"{found['status']}, lines {found['lines']}, left {left} {found['red'] or ''}",
                flush=True,
            )
    kinds = dict.fromkeys(found["kind"] for found in results)
    rows = []
    for kind in kinds:
        of_kind = [found for found in results if found["kind"] == kind]
        counts = [sum(f["status"] == status for f in of_kind) for status in (2, 0)]
        red = [f for f in of_kind if f["red"]]
        rows.append([kind, len(of_kind), *counts, len(red)])
    total = ["all", *(sum(row[i] for row in rows) for i in range(1, 5))]
    page = "# Bad inputs\n\n" + markdown_table(
        ["kind", "tried", "refused in a line", "taken", "red"], [*rows, total]
    )
    if red := [found for found in results if found["red"]]:
        page += "\n\n" + markdown_table(
            ["red", "why"], [[f["given"][:100], ", ".join(f["red"])] for f in red]
        )
    write("bad_inputs", "python benchmarks/bad_inputs.py", {"inputs": results}, page)
    sys.exit(bool(red))


if __name__ == "__main__":
    work() if "--worker" in sys.argv else main()
