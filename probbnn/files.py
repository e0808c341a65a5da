"""A directory of results: claimed before anything is computed, its files never half written.

Somebody else's directory may hold anything under any name. What is read from one is a regular file,
never what a link points to, and what is written to one goes to a name that nobody could foretell.
"""

import contextlib
import json
import math
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probbnn.errors import InputError, first_line

__all__ = [
    "Claim",
    "check_directory",
    "check_regular",
    "claim",
    "expanded",
    "make_folder",
    "plain",
    "read_json",
    "write_json",
    "written_atomically",
]

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_LOCK = "lock"
# Of a file that holds settings and metrics.
_MAX_JSON_BYTES = 2**26


@dataclass(frozen=True)
class Claim:
    """A directory that this process has for itself.

    Attributes:
        directory: which one.
        created: it and its parents as far as they are new, the innermost first.
    """

    directory: Path
    created: tuple[Path, ...]

    def give_up(self) -> None:
        """Leave nothing behind where nothing has been written."""
        with contextlib.suppress(OSError, ValueError):
            (self.directory / _LOCK).unlink(missing_ok=True)
        for directory in self.created:
            with contextlib.suppress(OSError):
                directory.rmdir()


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with ``~`` as the home directory that it stands for.

    Raises:
        InputError: if nobody knows that, or it is no path.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path} is in no home directory that is known; write it out") from error
    except TypeError as error:
        raise InputError(f"{path!r:.80} is no path; give a string or a Path") from error


def claim(directory: Path) -> Claim:
    """Make the directory, which must hold nothing, and be the only process that has it.

    Raises:
        InputError: if it holds something, another process has it, or it cannot be written.
    """
    created: list[Path] = []
    try:
        if directory.is_dir() and any(directory.iterdir()):
            is_run = any((directory / f"{n}.json").exists() for n in ("run", "comparison"))
            what = "holds another run" if is_run else "is not empty"
            raise InputError(f"output directory {directory} {what}; choose a new one with --out")
        for folder in (*reversed(directory.parents), directory):
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                created.insert(0, folder)
        _begin_lock(directory)
        with tempfile.TemporaryFile(dir=directory):
            pass  # so it can be written
    except InputError:
        raise
    except (OSError, ValueError) as error:  # the latter of a name with a null character
        Claim(directory, tuple(created)).give_up()
        why = getattr(error, "strerror", None) or first_line(error)
        raise InputError(
            f"output directory {str(directory)!r:.200} cannot be written ({why}); choose another "
            "with --out"
        ) from error
    return Claim(directory, tuple(created))


def _begin_lock(directory: Path) -> None:
    """The first of two processes makes this file, and the other one cannot."""
    try:
        os.close(os.open(directory / _LOCK, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    except FileExistsError:
        raise InputError(
            f"output directory {directory} was claimed by another run just now; choose a new one "
            "with --out"
        ) from None


def make_folder(path: Path) -> None:
    """Make a directory unless it is there; a link to one is none.

    Raises:
        InputError: if something else is there.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir()
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise InputError(f"{path} is {_kind(path.lstat().st_mode)}, not a directory; remove it")


def check_regular(path: Path) -> None:
    """See that a path is that of a file, and not of a link, a pipe or a device.

    Raises:
        FileNotFoundError: if there is nothing.
        InputError: if it is anything else.
    """
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode):
        raise InputError(f"{path.name} is {_kind(mode)}; a file is expected, which stays inside")


def check_directory(directory: Path) -> None:
    """See that a directory and all that is in it are files and directories.

    Raises:
        InputError: if there is a link, a pipe, a socket or a device, through which reading or
            writing would reach outside.
    """
    pending = [directory]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    pending.append(Path(entry.path))
                elif not stat.S_ISREG(mode):
                    raise InputError(
                        f"{entry.path} is {_kind(mode)}, and a directory of results has none; "
                        "remove it"
                    )


_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFREG: "a file",
}


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a device")


def read_json(path: Path) -> Any:
    """What a JSON file holds, of such as `write_json` writes.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is not JSON.
        InputError: if it is no regular file, or JSON that cannot be worked with: a number or a
            string that nothing can write down again, or more of it than there ever is.
    """
    check_regular(path)
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise InputError(f"{path.name} has {path.stat().st_size:,} bytes; it is none of ours")
    text = path.read_text(encoding="utf-8")

    def number(kind: type, text: str) -> Any:
        value = kind(text) if len(text) < 400 else math.inf
        if not math.isfinite(value) or (kind is int and not -(2**63) <= value < 2**63):
            raise InputError(f"{path.name} holds the number {text:.20}, which is out of range")
        return value

    try:
        content = json.loads(
            text,
            parse_int=lambda text: number(int, text),
            parse_float=lambda text: number(float, text),
            parse_constant=lambda text: number(float, text),
        )
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InputError(f"{path.name} holds half a character (a lone surrogate)") from None
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    return content


def write_json(path: Path, content: Any) -> None:
    """Write what `plain` makes of ``content`` to ``path``, atomically."""
    text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    with written_atomically(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A new file beside ``path`` to write to, renamed at the end: nothing is lost on the way.

    Its name is random, so that no link can wait for it, and the renaming replaces ``path`` itself,
    not what it may be a link to.
    """
    beside = path.with_name(f".{secrets.token_hex(8)}.part")
    os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW, 0o666))
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """``value`` as JSON has it: ``None`` for NaN and infinity, ``str`` for what JSON lacks.

    What has a ``to_dict`` is asked for it; other dataclasses and named tuples are their fields.

    Examples:
        >>> plain({"a": np.float32(1), "b": [float("nan"), abs]})
        {'a': 1.0, 'b': [None, '<built-in function abs>']}
    """
    if hasattr(value, "to_dict") and not isinstance(value, type):
        return {str(key): plain(item) for key, item in value.to_dict().items()}
    if is_dataclass(value) and not isinstance(value, type):
        return plain({f.name: getattr(value, f.name) for f in fields(value)})
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray) or _is_of_jax(value):
        return plain(np.asarray(value).tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _is_of_jax(value: Any) -> bool:
    """Whether it is an array of JAX, which need not be imported to know that it is none."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.Array)
