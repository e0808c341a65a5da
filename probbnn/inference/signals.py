"""SIGINT and SIGTERM while sampling: they wait for the end of a chunk, and nothing is lost.

A signal is taken down by a handler and asked for between chunks, since what is compiled cannot be
interrupted and an exception that a handler raises may fall into a callback that swallows it.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from probbnn.inference.draws import Draws

__all__ = ["Interrupted", "Terminated", "deferred", "interruption"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Sampling was stopped by SIGINT, such as Ctrl-C.

    Attributes:
        draws: the draws so far; ``None`` where none were kept.
    """

    draws: "Draws | None" = None


class Terminated(SystemExit):
    """The process was asked to end by SIGTERM; its exit status is 143.

    Attributes:
        draws: the draws so far; ``None`` where none were kept.
    """

    draws: "Draws | None" = None


def interruption(number: int) -> Interrupted | Terminated:
    """The exception that belongs to a signal."""
    return Terminated(128 + number) if number == signal.SIGTERM else Interrupted()


@contextmanager
def deferred() -> Iterator[Callable[[], int | None]]:
    """Within it the first signal waits to be asked for; a second one is raised at once.

    Yields a function that returns the number of the signal that came, ``None`` if none did. In a
    thread other than the main one, which gets no signals, none ever does.
    """
    came: list[int] = []

    def handler(number: int, frame: object) -> None:
        came.append(number)
        if len(came) > 1:
            raise interruption(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.signal(number, handler) for number in _SIGNALS}
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, previous in before.items():
            # None stands for a handler that Python did not install.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
