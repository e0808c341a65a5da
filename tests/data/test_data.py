"""Data sets: what is loaded is what was published, and every failure is one clear line."""

import contextlib
import gzip
import hashlib
import inspect
import json
import os
import subprocess
import sys
import threading
import types
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.image_classification import mnist as tfds_mnist

from probbnn import data
from probbnn.data import SHIFTS, Dataset, load, out_of_distribution, patches, shift
from probbnn.errors import InputError

SHARED = Path(__file__).resolve().parents[3] / "shared"
FILES = [
    f"{stem}-{kind}-ubyte.gz"
    for stem in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
]
HERE = Path(__file__).resolve().parents[2]


def dataset(n=6, classes=3, shape=(4, 4, 1), seed=0):
    rng = np.random.default_rng(seed)
    return Dataset(
        images=rng.integers(256, size=(n, *shape), dtype=np.uint8),
        labels=np.arange(n) % classes,
        classes=tuple("abcdefghij"[:classes]),
        name="toy",
        split="test",
    )


@pytest.fixture(scope="module")
def digits():
    return load("digits")


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


# Dataset


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((6, 4, 4, 1))}, r"images are float64 .*expected uint8"),
        ({"images": np.zeros((6, 4, 4), np.uint8)}, r"shape \(6, 4, 4\); .*\(N, H, W, C\)"),
        ({"labels": np.zeros(6)}, "labels are float64"),
        ({"labels": np.zeros(5, int)}, r"labels are int64 of shape \(5,\); .*\(6,\)"),
        ({"labels": np.zeros((6, 1), int)}, r"labels are int64 of shape \(6, 1\)"),
        ({"labels": np.array([0, 1, 2, 3, 0, 9])}, r"labels\[3\] is 3; expected -1 .* to 2"),
        ({"labels": np.array([0, 1, 2, 0, -2, 0])}, r"labels\[4\] is -2"),
        ({"labels": np.array([0, 1, 2, 0, 0, 2**32])}, r"labels\[5\] is 4294967296"),
    ],
)
def test_dataset_refuses(change, message):
    good = dataset()
    fields = {"images": good.images, "labels": good.labels, "classes": good.classes}
    with pytest.raises(InputError, match=message) as caught:
        Dataset(**{**fields, **change}, name="toy", split="test")
    assert "\n" not in str(caught.value)


def test_dataset_accepts_minus_one_and_any_integer_type():
    good = dataset()
    for labels in (np.full(6, -1), np.full(6, 2, np.uint8)):
        stored = Dataset(good.images, labels, good.classes, "toy", "test").labels
        assert stored.dtype == np.int32
        np.testing.assert_array_equal(stored, labels)


def test_slice_is_a_dataset_of_those_images():
    whole = dataset()
    part = whole[1:4]
    assert len(whole) == 6
    assert len(part) == 3
    np.testing.assert_array_equal(part.images, whole.images[1:4])
    np.testing.assert_array_equal(part.labels, [1, 2, 0])
    assert (part.classes, part.name, part.split) == (whole.classes, "toy", "test")
    with pytest.raises(InputError, match=r"dataset\[0\]: expected a slice"):
        whole[0]


def test_arrays_are_read_only_and_the_callers_are_not():
    images = np.zeros((1, 2, 2, 1), np.uint8)
    made = Dataset(images, np.zeros(1, int), ("a",), "toy", "test")
    with pytest.raises(ValueError, match="read-only"):
        made.images[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        made.labels[0] = 1
    images[0] = 1


def test_fingerprint_depends_on_content_only():
    def copy(**change):
        fields = {f: getattr(dataset(), f) for f in ("images", "labels", "classes")}
        return Dataset(**{**fields, "name": "toy", "split": "test", **change})

    pixel, label = dataset().images.copy(), dataset().labels.copy()
    pixel[3, 2, 1, 0] ^= 1
    label[5] = 0
    same = [dataset(), copy(name="other", split="train"), copy(labels=dataset().labels.astype(int))]
    different = [
        copy(images=pixel),
        copy(labels=label),
        copy(classes=("a", "b", "d")),
        copy(images=dataset().images.reshape(6, 2, 8, 1)),
        dataset()[:5],
    ]
    assert {d.fingerprint for d in same} == {dataset().fingerprint}
    assert len({d.fingerprint for d in [dataset(), *different]}) == 1 + len(different)
    assert len(dataset().fingerprint) == 16
    assert copy(images=np.asfortranarray(dataset().images)).fingerprint == dataset().fingerprint


# Digits


def test_digits_are_scikit_learns_split_once_and_for_all(digits):
    from sklearn.datasets import load_digits

    train, test = digits
    assert (len(train), len(test)) == (1297, 500)
    assert (train.split, test.split) == ("train", "test")
    assert train.images.max() == 255
    # together exactly the 1,797 originals: none lost, none in both
    levels = np.round(np.arange(17) * 255 / 16).astype(np.uint8)
    expected = [levels[image.astype(int)] for image in load_digits().images]
    both = np.concatenate([train.images, test.images])[..., 0]
    assert multiset(both, np.concatenate([train.labels, test.labels])) == multiset(
        np.array(expected), load_digits().target
    )
    # stratified: each class has its share of 500 / 1797, to the nearest image
    share = np.bincount(load_digits().target) * 500 / 1797
    assert np.abs(np.bincount(test.labels) - share).max() <= 1
    # recorded when the module was written: the split must not move under saved results
    assert [d.fingerprint for d in digits] == [d.fingerprint for d in load("digits")]
    assert [d.fingerprint for d in digits] == ["ead5b3fc2e94648b", "cd288876b8855ec9"]


def multiset(images, labels):
    return Counter(
        hashlib.sha256(image.tobytes() + bytes([label])).digest()
        for image, label in zip(images, labels, strict=True)
    )


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
    plain = tfds.data_source("mnist", split="test", data_dir=prepared_dir, download=False)
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
    monkeypatch.setitem(data._URLS, "mnist", "http://127.0.0.1:9/")  # discard: nobody answers
    return files, arrays


@pytest.fixture
def tiny_dir(tiny, tmp_path, monkeypatch):
    with serving(tiny[0]) as (url, _):
        monkeypatch.setitem(data._URLS, "mnist", url)
        load("mnist", tmp_path, progress=False)
    return tmp_path


def test_prepared_directory_is_an_ordinary_tfds_one(tiny, tiny_dir):
    for part, stem in zip(load("mnist", tiny_dir, progress=False), ("train", "t10k"), strict=True):
        images, labels = tiny[1][stem]
        assert multiset(part.images, part.labels) == multiset(images, labels)
        plain = tfds.data_source("mnist", split=part.split, data_dir=tiny_dir, download=False)
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
        monkeypatch.setitem(data._URLS, "mnist", url)
        message = rf"^{url}t.*gz could not be downloaded \({reason}\); try again.*--data-dir.*mnist"
        with pytest.raises(InputError, match=message) as caught:
            load("mnist", tmp_path, progress=False)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "mnist").glob("*")) == []  # nothing that could pass as prepared
    with serving(files) as (url, _):
        monkeypatch.setitem(data._URLS, "mnist", url)
        train, _ = load("mnist", tmp_path, progress=False)
    assert multiset(train.images, train.labels) == multiset(*arrays["train"])


def test_no_network_says_which_file_is_missing(tiny, tmp_path):
    message = r"http://127.0.0.1:9/t.*gz could not be downloaded \(ConnectionError\); .*--data-dir"
    with pytest.raises(InputError, match=message) as caught:
        load("mnist", tmp_path, progress=False)
    assert "\n" not in str(caught.value)


def test_silent_server_is_given_up(tiny, tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr(data, "_CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setitem(data._URLS, "mnist", f"http://127.0.0.1:{silent.getsockname()[1]}/")
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
        monkeypatch.setitem(data._URLS, "mnist", url)
        load("mnist", tmp_path, progress=False)
        load("mnist", tmp_path, progress=False)
    assert sorted(asked) == sorted(f"{verb} /{file}" for file in FILES for verb in ("GET", "HEAD"))


def test_interrupted_preparation_leaves_nothing_behind(tiny, tmp_path, monkeypatch):
    read = data._read_idx

    def interrupted(path, header):
        if "t10k" in Path(str(path) + ".INFO").read_text():
            raise KeyboardInterrupt
        return read(path, header)

    with serving(tiny[0]) as (url, _):
        monkeypatch.setitem(data._URLS, "mnist", url)
        monkeypatch.setattr(data, "_read_idx", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load("mnist", tmp_path, progress=False)
        assert list((tmp_path / "mnist").glob("*")) == []
        monkeypatch.setattr(data, "_read_idx", read)
        assert len(load("mnist", tmp_path, progress=False)[1]) == 10


def test_progress_goes_to_standard_error_or_nowhere(tiny, tmp_path, monkeypatch, capfd):
    with serving(tiny[0]) as (url, _):
        monkeypatch.setitem(data._URLS, "mnist", url)
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
    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_dataset", as_dataset)
    monkeypatch.setattr(tfds, "as_numpy", lambda tensors: tensors)
    train, test = load("mnist", tiny_dir, progress=False)
    np.testing.assert_array_equal(train.images[..., 0], tiny[1]["train"][0])
    np.testing.assert_array_equal(test.labels, tiny[1]["t10k"][1])


def test_damaged_directory_is_one_line(tiny_dir):
    records = next((tiny_dir / "mnist/3.0.1").glob("*test.array_record*"))
    records.write_bytes(records.read_bytes()[:1000])
    with pytest.raises(InputError, match="is damaged .*delete that directory") as caught:
        load("mnist", tiny_dir, progress=False)
    assert "\n" not in str(caught.value)
    (tiny_dir / "mnist/3.0.1/dataset_info.json").unlink()
    with pytest.raises(InputError, match=r"is incomplete \(no dataset_info.json\)"):
        load("mnist", tiny_dir, progress=False)


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
from probbnn import data
name, url, root = sys.argv[1:]
data._URLS[name] = url
train, test = data.load(name, root, progress=False)
assert not elsewhere, elsewhere
assert "tensorflow" not in sys.modules
print(train.fingerprint, test.fingerprint)
"""


@pytest.mark.parametrize("name", ["mnist", pytest.param("fashion_mnist", marks=pytest.mark.slow)])
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
    plain = tfds.data_source(name, split="test", data_dir=tmp_path, download=False)
    np.testing.assert_array_equal(plain[7]["image"], expected[1].images[7])


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_published_checksums_are_enforced(name, originals, tmp_path, monkeypatch):
    files = {file: (originals / name / file).read_bytes() for file in FILES}
    labels = bytearray(files["t10k-labels-idx1-ubyte.gz"])
    labels[100] ^= 1
    with serving({**files, "t10k-labels-idx1-ubyte.gz": bytes(labels)}) as (url, _):
        monkeypatch.setitem(data._URLS, name, url)
        with pytest.raises(InputError, match=r"t10k-labels-idx1-ubyte.gz .*its checksum is not"):
            load(name, tmp_path, progress=False)


def test_default_addresses_are_those_tfds_has_checksums_for():
    for name, builder in (("mnist", tfds_mnist.MNIST), ("fashion_mnist", tfds_mnist.FashionMNIST)):
        assert {data._URLS[name] + file for file in FILES} == set(builder.url_infos)


# Names and directories that do not work


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minst", "unknown data set 'minst'; .*digits, mnist, fashion_mnist; did you mean 'mnist'"),
        ("cifar10", "unknown data set 'cifar10'; expected one of digits, mnist, fashion_mnist$"),
    ],
)
def test_unknown_name(name, message):
    with pytest.raises(InputError, match=message):
        load(name)


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


# Shifts and patches


def test_rotated():
    start = dataset(shape=(5, 5, 3))
    turned = shift(start, "rotated")
    np.testing.assert_array_equal(turned.images[2], np.rot90(start.images[2]))
    np.testing.assert_array_equal(turned.labels, start.labels)
    assert turned.name == "toy/rotated"
    for _ in range(3):
        turned = shift(turned, "rotated")
    np.testing.assert_array_equal(turned.images, start.images)
    with pytest.raises(InputError, match="toy are 4x5; 'rotated' needs square ones"):
        shift(dataset(shape=(4, 5, 1)), "rotated")


def test_inverted():
    start = dataset()
    once = shift(start, "inverted")
    np.testing.assert_array_equal(once.images.astype(int) + start.images, 255)
    np.testing.assert_array_equal(once.labels, start.labels)
    np.testing.assert_array_equal(shift(once, "inverted").images, start.images)


def test_shuffled_moves_the_pixels_of_every_image_alike():
    # each pixel holds its own position, and the image's number in the second channel
    height, width = 4, 5
    position = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    images = np.stack([np.stack([position, np.full_like(position, i)], -1) for i in range(3)])
    start = Dataset(images, [0, 1, 0], ("a", "b"), "toy", "test")
    moved = shift(start, "shuffled").images
    order = moved[0, :, :, 0]
    assert sorted(order.ravel()) == sorted(position.ravel())
    assert (order != position).any()
    for i in range(3):
        np.testing.assert_array_equal(moved[i, :, :, 0], order)
        np.testing.assert_array_equal(moved[i, :, :, 1], i)
    np.testing.assert_array_equal(shift(start, "shuffled").images, moved)
    assert (shift(start, "shuffled", seed=1).images != moved).any()


def test_noise_is_uniform_and_no_label_is_right():
    noise = shift(dataset(n=100, shape=(28, 28, 1)), "noise")
    assert (noise.labels == -1).all()
    assert noise.images.shape == (100, 28, 28, 1)
    counts = np.bincount(noise.images.ravel(), minlength=256)
    expected = noise.images.size / 256
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert 170 < chi2 < 360  # 255 degrees of freedom; fixed seed
    assert (shift(dataset(n=100, shape=(28, 28, 1)), "noise", seed=1).images != noise.images).any()


@pytest.mark.parametrize("kind", SHIFTS)
def test_every_shift_works_on_digits_and_is_deterministic(kind, digits):
    first, again = (shift(digits[1], kind, seed=3) for _ in range(2))
    assert first.fingerprint == again.fingerprint != digits[1].fingerprint
    assert first.images.shape == digits[1].images.shape
    assert (first.name, first.split) == (f"digits/{kind}", "test")


def test_unknown_shift():
    with pytest.raises(InputError, match="unknown shift 'rotate'; .*did you mean 'rotated'"):
        shift(dataset(), "rotate")


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 12, 3), (500, 30, 1)])
def test_patches(shape):
    like = dataset(n=40, shape=shape)
    made = patches(like)
    assert made.images.shape == like.images.shape
    assert (made.labels == -1).all()
    assert (made.classes, made.name, made.split) == (like.classes, "toy/patches", "test")
    flat = made.images.reshape(40, -1)
    assert (flat.min(1) == 0).all()
    assert (flat.max(1) == 255).all()
    assert (made.images == made.images[..., :1]).all()  # grey
    assert made.fingerprint == patches(like).fingerprint != patches(like, seed=1).fingerprint
    assert len({image.tobytes() for image in made.images}) == 40
    np.testing.assert_array_equal(patches(like[:5]).images, made.images[:5])


def test_patches_pass_over_what_is_nearly_flat(monkeypatch):
    faint = np.random.default_rng(0).integers(100, 110, size=(427, 640), dtype=np.uint8)
    stripes = np.broadcast_to(np.arange(640, dtype=np.uint8) % 8 * 36, faint.shape)
    photos = types.SimpleNamespace(images=[np.stack([x] * 3, -1) for x in (faint, stripes)])
    monkeypatch.setattr("sklearn.datasets.load_sample_images", lambda: photos)
    made = patches(dataset(n=40, shape=(8, 8, 1)))
    assert np.ptp(made.images.astype(int), axis=1).max() <= 1  # all of them upright stripes


def test_patches_are_smooth_where_noise_is_not():
    def roughness(d):
        x = d.images.astype(float)
        return np.abs(np.diff(x, axis=1)).mean() / x.std()

    like = dataset(n=200, shape=(28, 28, 1))
    assert roughness(patches(like)) < 0.5 * roughness(shift(like, "noise"))


# The front door


def test_out_of_distribution_is_the_shift_or_the_patches(digits):
    test = digits[1]
    for kind in SHIFTS:
        expected = shift(test, kind, seed=5).fingerprint
        assert out_of_distribution(test, kind, seed=5).fingerprint == expected
    expected = patches(test, seed=5).fingerprint
    assert out_of_distribution(test, "patches", seed=5).fingerprint == expected


def test_out_of_distribution_is_the_test_split_of_another_data_set(tiny, tiny_dir):
    other = out_of_distribution(dataset(shape=(28, 28, 1)), "mnist", tiny_dir)
    assert (other.name, other.split, len(other)) == ("mnist", "test", 10)
    assert multiset(other.images, other.labels) == multiset(*tiny[1]["t10k"])
    assert other.classes == tuple("0123456789")


def test_out_of_distribution_refuses(digits):
    with pytest.raises(
        InputError, match=r"digits have shape \(8, 8, 1\), those of toy \(28, 28, 1"
    ):
        out_of_distribution(dataset(shape=(28, 28, 1)), "digits")
    with pytest.raises(InputError, match="unknown out-of-distribution data 'patch'.*'patches'"):
        out_of_distribution(digits[1], "patch")


def test_importing_the_module_imports_nothing_heavy():
    code = (
        "import sys, probbnn.data; "
        "print([m for m in ('tensorflow_datasets', 'sklearn', 'PIL', 'tqdm', 'requests') "
        "if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE)
    assert run.stdout.strip() == "[]", run.stderr
