"""MNIST and Fashion-MNIST: what is loaded is what was published, every failure is one line."""

import contextlib
import gzip
import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets
from helpers import multiset, toy_dataset
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.image_classification import mnist as tfds_mnist

from probbnn.data import load, out_of_distribution, tfds
from probbnn.errors import InputError

SHARED = Path(__file__).resolve().parents[3] / "shared"
FILES = [
    f"{stem}-{kind}-ubyte.gz"
    for stem in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]
HERE = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def prepared_dir():
    for root in (SHARED / "tensorflow_datasets", Path(os.environ.get("TFDS_DATA_DIR", "/nowhere"))):
        if (root / "mnist").is_dir() and (root / "fashion_mnist").is_dir():
            return root
    pytest.skip("no prepared MNIST and Fashion-MNIST in ../shared or TFDS_DATA_DIR")


@pytest.fixture(scope="module")
def originals():
    if not (SHARED / "datasets").is_dir():
        pytest.skip("no original IDX files in ../shared/datasets")
    return SHARED / "datasets"


@pytest.fixture(scope="module")
def mnist(prepared_dir):
    return load("mnist", prepared_dir, progress=False)


@pytest.fixture(scope="module")
def fashion_mnist(prepared_dir):
    return load("fashion_mnist", prepared_dir, progress=False)


# MNIST and Fashion-MNIST, as prepared by TFDS


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_prepared_data_are_the_published_files(name, originals, request):
    for part, stem in zip(request.getfixturevalue(name), ("train", "t10k"), strict=True):
        images, labels = (
            gzip.decompress((originals / name / f"{stem}-{kind}-ubyte.gz").read_bytes())
            for kind in ("images-idx3", "labels-idx1")
        )
        labels = np.frombuffer(labels, np.uint8, offset=8)
        images = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1)
        assert len(part) == (60_000 if stem == "train" else 10_000)
        assert part.images.shape[1:] == (28, 28, 1)
        assert multiset(part.images, part.labels) == multiset(images, labels)


def test_labels_and_classes(mnist, fashion_mnist):
    assert np.bincount(mnist[1].labels)[0] == 980
    assert np.bincount(mnist[0].labels).sum() == 60_000
    np.testing.assert_array_equal(np.bincount(fashion_mnist[0].labels), np.full(10, 6_000))
    assert mnist[1].classes == tuple("0123456789")
    assert fashion_mnist[1].classes[0] == "T-shirt/top"
    assert (fashion_mnist[1].name, fashion_mnist[1].split) == ("fashion_mnist", "test")


def test_images_are_those_of_plain_tfds(mnist, prepared_dir):
    plain = tensorflow_datasets.data_source(
        "mnist", split="test", data_dir=prepared_dir, download=False
    )
    for index in (0, 1, 4_999, 9_999):
        np.testing.assert_array_equal(mnist[1].images[index], plain[index]["image"])
        assert mnist[1].labels[index] == plain[index]["label"]


# Download and prepare. A tiny data set of the same format stands in for MNIST, with its own
# checksums in place of TFDS's; the real files follow below.


@contextlib.contextmanager
def serving(files, fault=None):
    """A loopback server; yields its address and the list of the requests it gets."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            body = self.answer()
            self.wfile.write(body[: len(body) // 2] if fault == "closes early" else body)

        def answer(self):
            asked.append(f"{self.command} {self.path}")
            body = files.get(self.path.rpartition("/")[2], b"")
            body = body[:-9] if fault == "truncated" else body
            body = body[:-9] + b"corrupted" if fault == "corrupted" else body
            self.send_response(404 if fault == "missing" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            return body

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def tiny(monkeypatch):
    """Files and arrays of a data set of 20 + 10 images that TFDS takes for MNIST."""
    rng = np.random.default_rng(0)
    files, arrays = {}, {}
    for stem, n in (("train", 20), ("t10k", 10)):
        images = rng.integers(256, size=(n, 28, 28), dtype=np.uint8)
        labels = rng.integers(10, size=n, dtype=np.uint8)
        arrays[stem] = images, labels
        files[f"{stem}-images-idx3-ubyte.gz"] = gzip.compress(bytes(16) + images.tobytes())
        files[f"{stem}-labels-idx1-ubyte.gz"] = gzip.compress(bytes(8) + labels.tobytes())
    infos = {
        f"http://original/{name}": checksums.UrlInfo(
            len(body), hashlib.sha256(body).hexdigest(), name
        )
        for name, body in files.items()
    }
    monkeypatch.setattr(tfds_mnist.MNIST, "url_infos", infos)
    monkeypatch.setattr(tfds, "_SIZES", {"train": 20, "test": 10})
    monkeypatch.setitem(tfds._URLS, "mnist", "http://127.0.0.1:9/")  # discard: nobody answers
    return files, arrays


@pytest.fixture
def tiny_dir(tiny, tmp_path, monkeypatch):
    with serving(tiny[0]) as (url, _):
        monkeypatch.setitem(tfds._URLS, "mnist", url)
        load("mnist", tmp_path, progress=False)
    return tmp_path


def test_prepared_directory_is_an_ordinary_tfds_one(tiny, tiny_dir):
    for part, stem in zip(load("mnist", tiny_dir, progress=False), ("train", "t10k"), strict=True):
        images, labels = tiny[1][stem]
        assert multiset(part.images, part.labels) == multiset(images, labels)
        plain = tensorflow_datasets.data_source(
            "mnist", split=part.split, data_dir=tiny_dir, download=False
        )
        np.testing.assert_array_equal(part.images, [example["image"] for example in plain])
        np.testing.assert_array_equal(part.labels, [example["label"] for example in plain])
    assert sorted(p.name for p in (tiny_dir / "mnist").iterdir()) == ["3.0.1"]


def test_environment_names_the_directory_and_the_argument_wins(
    tiny_dir, tmp_path_factory, monkeypatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny_dir))
    assert len(load("mnist", progress=False)[0]) == 20
    with pytest.raises(InputError, match="could not be downloaded"):
        load("mnist", tmp_path_factory.mktemp("empty"), progress=False)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("missing", "404 Client Error: Not Found for url: .*"),
        ("truncated", "its checksum is not the one on record: damaged or incomplete"),
        ("corrupted", "its checksum is not the one on record: damaged or incomplete"),
        ("closes early", "ChunkedEncodingError"),
    ],
)
def test_failed_download_is_one_line_and_can_be_repeated(
    fault, reason, tiny, tmp_path, monkeypatch
):
    files, arrays = tiny
    with serving(files, fault) as (url, _):
        monkeypatch.setitem(tfds._URLS, "mnist", url)
        message = rf"^{url}t.*gz could not be downloaded \({reason}\); try again.*--data-dir.*mnist"
        with pytest.raises(InputError, match=message) as caught:
            load("mnist", tmp_path, progress=False)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "mnist").glob("*")) == []  # nothing that could pass as prepared
    with serving(files) as (url, _):
        monkeypatch.setitem(tfds._URLS, "mnist", url)
        train, _ = load("mnist", tmp_path, progress=False)
    assert multiset(train.images, train.labels) == multiset(*arrays["train"])


def test_no_network_says_which_file_is_missing(tiny, tmp_path):
    message = r"http://127.0.0.1:9/t.*gz could not be downloaded \(ConnectionError\); .*--data-dir"
    with pytest.raises(InputError, match=message) as caught:
        load("mnist", tmp_path, progress=False)
    assert "\n" not in str(caught.value)


def test_silent_server_is_given_up(tiny, tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr(tfds, "_CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setitem(tfds._URLS, "mnist", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(InputError, match=r"could not be downloaded \(ReadTimeout\)"):
            load("mnist", tmp_path, progress=False)


def test_download_cache_needs_no_network(tiny, tiny_dir):
    prepared = tiny_dir / "mnist/3.0.1"
    for file in prepared.iterdir():
        file.unlink()
    prepared.rmdir()  # the downloads stay, the server is gone
    assert len(load("mnist", tiny_dir, progress=False)[0]) == 20


def test_files_laid_down_by_hand_need_no_network(tiny, tmp_path):
    manual = tmp_path / "downloads/manual"
    manual.mkdir(parents=True)
    for name, body in tiny[0].items():
        (manual / name).write_bytes(body)
    assert len(load("mnist", tmp_path, progress=False)[0]) == 20


def test_only_the_four_files_are_asked_for_and_only_once(tiny, tmp_path, monkeypatch):
    with serving(tiny[0]) as (url, asked):
        monkeypatch.setitem(tfds._URLS, "mnist", url)
        load("mnist", tmp_path, progress=False)
        load("mnist", tmp_path, progress=False)
    assert sorted(asked) == sorted(f"{verb} /{file}" for file in FILES for verb in ("GET", "HEAD"))


def test_interrupted_preparation_leaves_nothing_behind(tiny, tmp_path, monkeypatch):
    read = tfds._read_idx

    def interrupted(path, header):
        if "t10k" in Path(str(path) + ".INFO").read_text():
            raise KeyboardInterrupt
        return read(path, header)

    with serving(tiny[0]) as (url, _):
        monkeypatch.setitem(tfds._URLS, "mnist", url)
        monkeypatch.setattr(tfds, "_read_idx", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load("mnist", tmp_path, progress=False)
        assert list((tmp_path / "mnist").glob("*")) == []
        monkeypatch.setattr(tfds, "_read_idx", read)
        assert len(load("mnist", tmp_path, progress=False)[1]) == 10


def test_progress_goes_to_standard_error_or_nowhere(tiny, tmp_path, monkeypatch, capfd):
    with serving(tiny[0]) as (url, _):
        monkeypatch.setitem(tfds._URLS, "mnist", url)
        load("mnist", tmp_path / "quiet", progress=False)
        assert capfd.readouterr() == ("", "")
        load("mnist", tmp_path / "shown", progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "Dl Size" in err
    assert "Reading mnist train" not in err  # quick, and shown on a terminal only


def edit_info(root, **change):
    path = root / "mnist/3.0.1/dataset_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


def test_tfrecord_without_tensorflow_says_what_to_do(tiny_dir, monkeypatch):
    edit_info(tiny_dir, fileFormat="tfrecord")
    block_tensorflow(monkeypatch)
    with pytest.raises(InputError, match="prepared as tfrecord: install tensorflow") as caught:
        load("mnist", tiny_dir, progress=False)
    assert str(tiny_dir / "mnist/3.0.1") in str(caught.value)
    assert "\n" not in str(caught.value)


def block_tensorflow(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setattr(sys, "meta_path", [WithoutTensorFlow(f) for f in sys.meta_path])


class WithoutTensorFlow:
    """An import finder that behaves as if TensorFlow were not installed."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


def test_tfrecord_is_read_by_tensorflow_where_there_is_one(tiny, tiny_dir, monkeypatch):
    # A stand-in for TensorFlow, which the project does not install: shows which way data go.
    def as_dataset(self, split, *, batch_size):
        assert batch_size == -1
        images, labels = tiny[1][{"train": "train", "test": "t10k"}[split]]
        return {"image": images[..., None], "label": labels.astype(np.int64)}

    edit_info(tiny_dir, fileFormat="tfrecord")
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))
    monkeypatch.setattr(tensorflow_datasets.core.DatasetBuilder, "as_dataset", as_dataset)
    monkeypatch.setattr(tensorflow_datasets, "as_numpy", lambda tensors: tensors)
    train, test = load("mnist", tiny_dir, progress=False)
    np.testing.assert_array_equal(train.images[..., 0], tiny[1]["train"][0])
    np.testing.assert_array_equal(test.labels, tiny[1]["t10k"][1])


def test_damaged_directory_is_one_line(tiny_dir):
    records = next((tiny_dir / "mnist/3.0.1").glob("*test.array_record*"))
    records.write_bytes(records.read_bytes()[:1000])
    with pytest.raises(InputError, match="is damaged .*move that directory away") as caught:
        load("mnist", tiny_dir, progress=False)
    assert "\n" not in str(caught.value)
    (tiny_dir / "mnist/3.0.1/dataset_info.json").unlink()
    with pytest.raises(InputError, match=r"is damaged or incomplete \(no dataset_info.json\)"):
        load("mnist", tiny_dir, progress=False)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Failed to load JSON"),
        ("{", "Failed to load JSON"),
        ('{"a": 1}', 'has no field named "a"'),
    ],
)
def test_a_foreign_record_is_one_line(tiny_dir, content, reason):
    (tiny_dir / "mnist/3.0.1/dataset_info.json").write_text(content)
    with pytest.raises(InputError, match=reason) as caught:
        load("mnist", tiny_dir, progress=False)
    assert str(tiny_dir / "mnist/3.0.1") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "delete" not in str(caught.value)


def test_half_a_data_set_is_none(tiny_dir):
    info = json.loads((tiny_dir / "mnist/3.0.1/dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["5"]
    edit_info(tiny_dir, **info)
    with pytest.raises(InputError, match=r"\(5 of (10|20) (test|train) images\)"):
        load("mnist", tiny_dir, progress=False)


def test_what_must_not_be_read_is_not_called_damaged(tiny_dir, monkeypatch):
    closed = next((tiny_dir / "mnist/3.0.1").glob("*test.array_record*"))
    closed.write_bytes(b"")  # which cannot be read either, and a test may run as root
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and access(path, mode))
    with pytest.raises(InputError, match=f"{closed} must not be read") as caught:
        load("mnist", tiny_dir, progress=False)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize("inside", ["mnist", "mnist/3.0.1"])
def test_a_directory_too_deep_names_the_one_above(tiny_dir, inside):
    before = set(tiny_dir.rglob("*"))
    with pytest.raises(InputError, match=f"perhaps {tiny_dir}$"):
        load("mnist", tiny_dir / inside, progress=False)
    assert set(tiny_dir.rglob("*")) == before


def test_another_version_is_named(tiny, tiny_dir, monkeypatch):
    (tiny_dir / "mnist/3.0.1").rename(tiny_dir / "mnist/1.0.0")
    shutil.rmtree(tiny_dir / "downloads")
    monkeypatch.setitem(tfds._URLS, "mnist", "http://127.0.0.1:9/")
    with pytest.raises(InputError, match=r"\(ConnectionError\), and .* has but mnist 1.0.0; "):
        load("mnist", tiny_dir, progress=False)


def test_a_refusal_leaves_no_directories(tiny, tmp_path, monkeypatch):
    systems = tmp_path / "tmp"
    systems.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(systems))
    with pytest.raises(InputError, match="could not be downloaded"):
        load("mnist", tmp_path / "new" / "data", progress=False)
    assert list(tmp_path.rglob("*")) == [systems]
    assert tempfile.tempdir == str(systems)


@pytest.mark.parametrize("name", ["a" * 300, "nul\0"])
def test_a_data_directory_that_cannot_be(tmp_path, name):
    with pytest.raises(InputError, match="cannot be used"):
        load("mnist", tmp_path / name, progress=False)


# The real files, TFDS's own checksums, another process without TensorFlow

PREPARE = f"""
import socket, sys
{inspect.getsource(WithoutTensorFlow)}
sys.meta_path[:] = [WithoutTensorFlow(finder) for finder in sys.meta_path]
elsewhere = []
def watched(function, host):
    def call(*args, **kwargs):
        if host(*args) != "127.0.0.1":
            elsewhere.append(host(*args))
            raise OSError("no network here")
        return function(*args, **kwargs)
    return call
socket.socket.connect = watched(socket.socket.connect, lambda self, address: address[0])
socket.getaddrinfo = watched(socket.getaddrinfo, lambda host, *args: host)
from probbnn.data import load, tfds
name, url, root = sys.argv[1:]
tfds._URLS[name] = url
train, test = load(name, root, progress=False)
assert not elsewhere, elsewhere
assert "tensorflow" not in sys.modules
print(train.fingerprint, test.fingerprint)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_published_files_are_downloaded_and_prepared(
    name, originals, prepared_dir, tmp_path, request
):
    files = {file: (originals / name / file).read_bytes() for file in FILES}
    with serving(files) as (url, _):
        run = subprocess.run(
            [sys.executable, "-c", PREPARE, name, url, tmp_path],
            capture_output=True,
            text=True,
            cwd=HERE,
        )
    assert (run.returncode, run.stderr) == (0, "")
    # same order, too: the directory is the one that TFDS's own builder makes
    expected = request.getfixturevalue(name)
    assert run.stdout.split() == [part.fingerprint for part in expected]
    features, info = (
        [
            json.loads((root / name / "3.0.1" / file).read_text())
            for root in (tmp_path, prepared_dir)
        ]
        for file in ("features.json", "dataset_info.json")
    )
    assert features[0] == features[1]
    for found in info:  # sizes on disk depend on the PNG encoder
        found.pop("downloadSize", None)
        for split in found["splits"]:
            del split["numBytes"]
    assert info[0] == info[1]
    plain = tensorflow_datasets.data_source(name, split="test", data_dir=tmp_path, download=False)
    np.testing.assert_array_equal(plain[7]["image"], expected[1].images[7])


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_published_checksums_are_enforced(name, originals, tmp_path, monkeypatch):
    files = {file: (originals / name / file).read_bytes() for file in FILES}
    labels = bytearray(files["t10k-labels-idx1-ubyte.gz"])
    labels[100] ^= 1
    with serving({**files, "t10k-labels-idx1-ubyte.gz": bytes(labels)}) as (url, _):
        monkeypatch.setitem(tfds._URLS, name, url)
        with pytest.raises(InputError, match=r"t10k-labels-idx1-ubyte.gz .*its checksum is not"):
            load(name, tmp_path, progress=False)


def test_default_addresses_are_those_tfds_has_checksums_for():
    for name, builder in (("mnist", tfds_mnist.MNIST), ("fashion_mnist", tfds_mnist.FashionMNIST)):
        assert {tfds._URLS[name] + file for file in FILES} == set(builder.url_infos)


# Directories that do not work


def test_data_dir_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match="file is not a directory that can be read; set --data-dir"
    ):
        load("mnist", tmp_path / "file")
    with pytest.raises(InputError, match="cannot prepare mnist .*that can be written") as caught:
        load("mnist", tmp_path / "file" / "below")
    assert "\n" not in str(caught.value)


def test_data_dir_that_cannot_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read everything
    with pytest.raises(InputError, match="is not a directory that can be read"):
        load("mnist", tmp_path)


@pytest.mark.parametrize("package", ["tensorflow_datasets", "array_record", "PIL"])
def test_a_missing_package_says_what_to_install(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError) as caught:
        load("mnist", tmp_path)
    assert str(caught.value) == (
        f"the data set mnist needs {package}, which is not installed; pip install 'probbnn[data]'"
    )


# As out-of-distribution data


def test_out_of_distribution_is_the_test_split_of_another_data_set(tiny, tiny_dir):
    other = out_of_distribution(toy_dataset(shape=(28, 28, 1)), "mnist", tiny_dir)
    assert (other.name, other.split, len(other)) == ("mnist", "test", 10)
    assert multiset(other.images, other.labels) == multiset(*tiny[1]["t10k"])
    assert other.classes == tuple("0123456789")
