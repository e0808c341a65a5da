"""Files of results: whole or not there, and numbers that JSON has."""

import json
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import probbnn as pb
from probbnn.files import claim, plain, write_json, written_atomically


def test_a_file_is_the_old_one_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "found.json"
    path.write_text("old")

    def write_until_the_disk_is_full():
        with written_atomically(path) as beside:
            beside.write_text("hal")
            assert path.read_text() == "old"
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        write_until_the_disk_is_full()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with written_atomically(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


class Pair(NamedTuple):
    first: float
    second: object


@dataclass
class Found:
    value: float


def test_what_is_written_is_json_that_any_reader_takes(tmp_path):
    content = {
        1: np.float32(0.5),
        "undefined": [np.nan, float("inf"), -np.inf, np.float64("nan")],
        "pair": Pair(np.int64(3), jnp.array([1.0, jnp.nan])),
        "found": Found(float("nan")),
        "number": pb.metrics.Interval(1.0, np.nan, 2.0),
        "yes": np.bool_(True),
        "μ": None,
        "other": abs,
    }
    write_json(tmp_path / "found.json", content)
    text = (tmp_path / "found.json").read_text(encoding="utf-8")
    assert "NaN" not in text
    assert "Infinity" not in text
    assert "μ" in text
    assert json.loads(text) == {
        "1": 0.5,
        "undefined": [None] * 4,
        "pair": {"first": 3, "second": [1.0, None]},
        "found": {"value": None},
        "number": {"value": 1.0, "low": None, "high": 2.0},
        "yes": True,
        "μ": None,
        "other": "<built-in function abs>",
    }
    assert plain(np.arange(3)) == [0, 1, 2]


def test_a_directory_is_claimed_unless_it_holds_anything(tmp_path):
    assert claim(tmp_path / "a" / "b")
    assert not claim(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(pb.InputError, match="is not empty; choose a new one"):
        claim(tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(pb.InputError, match="holds another run; choose a new one"):
        claim(tmp_path)
    with pytest.raises(pb.InputError, match="cannot be written"):
        claim(tmp_path / "file")
