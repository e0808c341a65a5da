"""Output that stops nothing: a pipe that closes, a terminal without a letter, no terminal at all.

What a run prints is not what it is for. Where printing fails, the run goes on in silence.
"""

import argparse
import contextlib
import io
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import IO, Any, NoReturn

from probbnn.errors import one_line

__all__ = ["Parser", "unbreakable_output"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all others are."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with status 2."""
        self.exit(2, f"probbnn: error: {one_line(message)}; see {self.prog} --help\n")


@contextlib.contextmanager
def unbreakable_output() -> Iterator[None]:
    """Within it, writing to standard output and standard error never raises.

    A warning is one line; those for whoever maintains a program are none. What goes wrong in a
    thread of a library is said by whoever waits for it, and not by the thread.
    """
    _open_standard_files()
    asyncio = logging.getLogger("asyncio")
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook, asyncio.disabled
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Unbreakable(stream) for stream in before)  # type: ignore[assignment]
    try:
        with warnings.catch_warnings():
            for kind in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
                warnings.simplefilter("ignore", kind)
            warnings.showwarning = _show_warning  # type: ignore[assignment]
            sys.excepthook = threading.excepthook = sys.unraisablehook = _say_nothing
            asyncio.disabled = True
            yield
    finally:
        sys.excepthook, threading.excepthook, sys.unraisablehook, asyncio.disabled = hooks
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _say_nothing(*arguments: object) -> None:
    pass


def _show_warning(message: Warning | str, *where: Any) -> None:
    print(f"probbnn: {one_line(str(message))}", file=sys.stderr)


def _open_standard_files() -> None:
    """Files are numbered from the first free number on: 2 must not become one of results."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


class _Unbreakable:
    """A stream that gives up where writing fails, and in all else is the one it stands for."""

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = io.StringIO() if stream is None else stream
        self._is_silent = stream is None

    def write(self, text: str) -> int:
        """Write what can be written."""
        if not self._is_silent:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = getattr(self._stream, "encoding", None) or "ascii"
                self.write(text.encode(encoding, "replace").decode(encoding))
            except (OSError, ValueError):
                self._give_up()
        return len(text)

    def flush(self) -> None:
        """Write now."""
        if not self._is_silent:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._give_up()

    def _give_up(self) -> None:
        self._is_silent = True
        with contextlib.suppress(OSError, ValueError):
            # What is still in the stream's buffer goes nowhere when the process ends.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
