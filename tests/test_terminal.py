"""Printing stops nothing, whatever is at the other end."""

import io
import logging
import os
import subprocess
import sys
import threading
import warnings

import pytest

from probbnn.cli import main
from probbnn.errors import InputError
from probbnn.terminal import unbreakable_output


def command(*arguments, **options):
    """A real process; standard output and standard error are where the options say."""
    return subprocess.run(
        [sys.executable, "-m", "probbnn", *arguments], check=False, timeout=60, **options
    )


class Broken(io.StringIO):
    """A stream at whose other end nobody is."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    flush = write


@pytest.mark.parametrize(
    "error", [BrokenPipeError(), OSError(28, "No space left on device"), ValueError("closed")]
)
def test_work_goes_on_where_nobody_listens(monkeypatch, error):
    done = []
    monkeypatch.setattr(sys, "stdout", Broken(error))
    monkeypatch.setattr(sys, "stderr", Broken(error))
    before = sys.stdout, sys.stderr
    with unbreakable_output():
        for number in range(3):
            print(number, flush=True)
            print(number, file=sys.stderr)
            done.append(number)
    assert done == [0, 1, 2]
    assert (sys.stdout, sys.stderr) == before


def test_a_letter_that_the_terminal_lacks(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "latin-1"))
    with unbreakable_output():
        print("T ≈ 1, é")
    assert raw.getvalue().decode("latin-1") == "T ? 1, é\n"


def test_a_warning_is_one_line_and_one_for_maintainers_is_none(capsys):
    with unbreakable_output():
        warnings.warn("a checkpoint\ncould not be written", stacklevel=1)
        warnings.warn("this will change", FutureWarning, stacklevel=1)
    assert capsys.readouterr().err == "probbnn: a checkpoint\\ncould not be written\n"


def test_a_thread_that_breaks_is_not_heard_and_a_program_that_does_is(capsys):
    def broken():
        raise RuntimeError("Event loop is closed")

    before = sys.excepthook, threading.excepthook, sys.unraisablehook
    with unbreakable_output():
        thread = threading.Thread(target=broken)
        thread.start()
        thread.join()
        logging.getLogger("asyncio").error("Task exception was never retrieved")
    assert capsys.readouterr().err == ""
    assert (sys.excepthook, threading.excepthook, sys.unraisablehook) == before
    assert not logging.getLogger("asyncio").disabled


def test_a_pipe_that_closes():
    reading, writing = os.pipe()
    os.close(reading)
    process = command("methods", stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (process.returncode, process.stderr) == (0, b"")


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_no_output_at_all(closed, tmp_path):
    arguments = [sys.executable, "-m", "probbnn", "methods"]
    process = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *arguments], check=False, capture_output=True
    )
    assert (process.returncode, process.stderr) == (0, b"")


def test_numbers_of_closed_files_do_not_become_those_of_results():
    code = (
        "import os; os.close(1); os.close(2)\n"
        "from probbnn.terminal import unbreakable_output\n"
        "with unbreakable_output():\n"
        "    number = os.open(os.devnull, os.O_RDONLY)\n"
        "os._exit(0 if number > 2 else 1)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["walk"],
        ["run"],
        ["run", "digits", "--steps", "1e23"],
        ["run", "digits", "--steps", "a\nb"],
        ["run", "digits", "--colour"],
        ["report"],
        ["compare", "digits", "--preset", "digits"],
    ],
)
def test_a_usage_error_is_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("probbnn: error: ")
    assert lines[0].endswith("--help")


def test_a_name_cannot_move_the_cursor(tmp_path, capsys):
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "run.json").write_text('{"preset": {"methods": {"a\\nb\\u001b[2J": 5}}}')
    assert main(["report", str(directory)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert "\x1b" not in str(InputError("\x1b[2J"))


def test_nobodys_home(tmp_path, capsys):
    assert main(["run", "digits", "--out", "~no-such-user/x"]) == 2
    assert "no home directory" in capsys.readouterr().err
