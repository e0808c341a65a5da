"""`resume` in somebody else's directory: nothing outside is touched, and nothing in it is run."""

import json
import os
import shutil

import jax
import pytest

import probbnn as pb
from probbnn.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_compilation")
LEAF = "draws.zarr/positions/Dense_0.bias/zarr.json"


@pytest.fixture(scope="module")
def sampled_to_disk(tmp_path_factory, target):
    out = tmp_path_factory.mktemp("sampled") / "run"
    settings = {"num_chains": 2, "num_steps": 8, "batch_size": 5, "progress": False}
    pb.sample(jax.random.key(0), target, "sgld", out=out, **settings)
    return out


@pytest.fixture
def home(sampled_to_disk, tmp_path):
    return shutil.copytree(sampled_to_disk, tmp_path / "theirs")


def moved(home, name):
    """What was there is elsewhere, and a link leads to it."""
    outside = home.parent / "elsewhere"
    (home / name).rename(outside)
    (home / name).symlink_to(outside)
    return outside


def refused(home, target):
    with pytest.raises(InputError) as caught:
        pb.resume(home, target, progress=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_can_be_resumed(home, target):
    assert pb.resume(home, target, more_steps=2, progress=False).num_draws == 6


@pytest.mark.parametrize("name", ["sampling.json", "checkpoints", "draws.zarr", LEAF, "lock"])
def test_no_link_is_followed(home, target, name):
    outside = moved(home, name)
    before = {p: p.stat().st_mtime_ns for p in [outside, *outside.rglob("*")]}
    assert "is a symbolic link" in refused(home, target)
    assert {p: p.stat().st_mtime_ns for p in [outside, *outside.rglob("*")]} == before


def test_nobody_waits_at_a_pipe(home, target):
    (home / "sampling.json").unlink()
    os.mkfifo(home / "sampling.json")
    assert "sampling.json is a named pipe" in refused(home, target)


def change_codecs(node):
    node["codecs"] = [{"name": "numcodecs.pickle"}]


def change_chunks(node):
    node["chunk_grid"]["configuration"]["chunk_shape"] = [1, 1 << 40, 10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_codecs, "the codecs numcodecs.pickle"),
        (change_chunks, "chunks of"),
        (lambda node: node.update(data_type={"name": "numpy.datetime64"}), "the data type"),
        (lambda node: node.update(zarr_format=2), "another layout"),
        (lambda node: node.update(shape="wide"), "another grid of chunks"),
        (lambda node: node.pop("chunk_grid"), "cannot be read"),
    ],
)
def test_a_store_is_one_of_ours(home, target, change, message):
    node = json.loads((home / LEAF).read_text())
    change(node)
    (home / LEAF).write_text(json.dumps(node))
    assert message in refused(home, target)


def test_an_array_of_pickles_is_not_opened(home, target):
    (home / LEAF).with_name(".zarray").write_text("{}")
    assert "Zarr's older format" in refused(home, target)
