"""Files and directories of results: claimed by one process, and written whole or not at all."""

import json
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import probbnn as pb
from probbnn.errors import InputError
from probbnn.files import claim, make_folder, plain, read_json, write_json, written_atomically


def test_one_directory_has_one_owner(tmp_path):
    first = claim(tmp_path / "new")
    with pytest.raises(InputError, match="is not empty"):
        claim(tmp_path / "new")
    first.give_up()
    assert list(tmp_path.iterdir()) == []
    # Another process may make the directory, or claim an empty one, at the same moment.
    (tmp_path / "empty").mkdir()
    claim(tmp_path / "empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda path: iter([]))
        with pytest.raises(InputError, match="claimed by another run"):
            claim(tmp_path / "empty")


def test_what_was_created_goes_again_and_nothing_else(tmp_path):
    (tmp_path / "mine").mkdir()
    claim(tmp_path / "mine" / "a" / "b" / "c").give_up()
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    claimed = claim(tmp_path / "mine")
    claimed.give_up()
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


@pytest.mark.parametrize("name", ["a" * 300, "file/run", "nul\0", "a/" + "b" * 300])
def test_a_directory_that_cannot_be(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot be written"):
        claim(tmp_path / name)
    assert [path.name for path in tmp_path.rglob("*")] == ["file"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def fail():
        with written_atomically(path) as beside:
            beside.write_text("half")
            raise OSError

    with pytest.raises(OSError, match="^$"):
        fail()
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o640


def test_a_link_to_a_folder_is_no_folder(tmp_path):
    make_folder(tmp_path / "real")
    make_folder(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match="is a symbolic link"):
        make_folder(tmp_path / "link")


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


def test_a_name_that_was_foretold_is_not_followed(tmp_path, monkeypatch):
    outside = tmp_path / "precious"
    outside.write_text("mine")
    monkeypatch.setattr(secrets, "token_hex", lambda length: "foretold")
    (tmp_path / ".foretold.part").symlink_to(outside)
    with pytest.raises(FileExistsError):
        write_json(tmp_path / "a.json", {})
    assert outside.read_text() == "mine"
