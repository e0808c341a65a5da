"""What is for the person at the keyboard: a single line on what is wrong, and what to do."""

import contextlib
import difflib
import errno
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "InputError",
    "OutputError",
    "first_line",
    "one_line",
    "one_of",
    "requires",
    "writing_to",
]

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_NO_PLACE = {errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR}


class InputError(ValueError):
    """Input that probbnn cannot work with.

    The message is one line: what was given, what was expected, what to do. The command line
    prints it without a traceback and exits with status 2.
    """

    def __init__(self, message: str) -> None:
        # It may quote a name from somebody's file, with line breaks or codes for the terminal.
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    r"""The text with whatever moves the cursor of a terminal written out.

    Examples:
        >>> one_line("a\nb\x1b[2J é")
        'a\\nb\\x1b[2J é'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class OutputError(RuntimeError):
    """Results cannot be written: a full disk, one that cannot be written to, or that is gone."""


@contextlib.contextmanager
def writing_to(directory: Path) -> Iterator[None]:
    """Within it, an error that says that nothing can be written there is an `OutputError`.

    Args:
        directory: where; what is wrong with other files is somebody else's affair.
    """
    try:
        yield
    except OSError as error:
        is_there = str(error.filename or "").startswith(str(directory))
        if error.errno in _NO_ROOM or (error.errno in _NO_PLACE and is_there):
            raise OutputError(f"nothing can be written any more ({error.strerror})") from error
        raise


def first_line(error: BaseException) -> str:
    r"""The first line of what an error says, or its ``repr`` where it says nothing.

    Examples:
        >>> first_line(ValueError("too large\nand more")), first_line(KeyError())
        ('too large', 'KeyError()')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else repr(error)


def is_positive(number: Any) -> bool:
    """Whether ``number`` is one positive number that float32 has: no text and no truth value.

    Examples:
        >>> is_positive(0.1), is_positive(0), is_positive(float("inf")), is_positive("0.1")
        (True, False, False, False)
        >>> is_positive(True), is_positive(1e-300)
        (False, False)
    """
    kind = getattr(getattr(number, "dtype", None), "kind", "")
    if isinstance(number, str | bytes | bool) or kind in ("b", "U", "S", "O"):
        return False
    try:
        return _FLOAT32[0] <= float(number) <= _FLOAT32[1]
    except (TypeError, ValueError, OverflowError):
        return False


# The smallest normal number, below which devices take numbers for 0, and the largest one.
_FLOAT32 = (2.0**-126, (2 - 2.0**-23) * 2.0**127)


def one_of(name: str, known: Iterable[str], what: str) -> str:
    """``name`` itself if it is one of the ``known`` names of a ``what``.

    Raises:
        InputError: otherwise, with the known names and the nearest of them.

    Examples:
        >>> one_of("psgdl", ["map", "psgld"], "method")
        Traceback (most recent call last):
        probbnn.errors.InputError: unknown method 'psgdl'; expected one of map, psgld; did you ...
    """
    known = list(known)
    if name in known:
        return name
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise InputError(f"unknown {what} '{name}'; expected one of {', '.join(known)}{hint}")


@contextlib.contextmanager
def requires(purpose: str, extra: str) -> Iterator[None]:
    """Around imports of optional packages: says which extra to install where one is missing.

    Args:
        purpose: what needs the packages, to begin a sentence with.
        extra: the extra of probbnn that installs them.

    Raises:
        InputError: a module that is imported inside is not installed.

    Examples:
        >>> with requires("reading MNIST", extra="data"):
        ...     import no_such_package
        Traceback (most recent call last):
        probbnn.errors.InputError: reading MNIST needs no_such_package, which is not installed; ...
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise InputError(
            f"{purpose} needs {package}, which is not installed; pip install 'probbnn[{extra}]'"
        ) from error
