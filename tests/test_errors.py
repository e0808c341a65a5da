"""A missing extra is one line."""

import sys

import pytest

from probbnn.errors import InputError, requires


def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)  # as if it were not installed
    with pytest.raises(InputError) as caught, requires("writing a report", extra="report"):
        import jinja2.sandbox  # noqa: F401
    assert str(caught.value) == (
        "writing a report needs jinja2, which is not installed; pip install 'probbnn[report]'"
    )


def test_what_is_installed_is_imported_and_other_errors_pass():
    with requires("arithmetic", extra="all"):
        import math
    assert math.pi > 3
    with pytest.raises(ZeroDivisionError), requires("arithmetic", extra="all"):
        _ = 1 / 0
