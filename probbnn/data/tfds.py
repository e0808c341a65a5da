"""A TFDS data directory, prepared and read without TensorFlow."""

import contextlib
import gzip
import io
import os
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from probbnn.data.dataset import Dataset
from probbnn.errors import InputError, requires
from probbnn.files import expanded

__all__ = ["load"]

# Where TFDS itself gets the files from.
_URLS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
_CONNECT_SECONDS = 10
# What both data sets have, whatever a file says of them.
_SIZES = {"train": 60_000, "test": 10_000}
_INFO = "dataset_info.json"


def load(
    name: str, data_dir: str | os.PathLike[str] | None, progress: bool
) -> tuple[Dataset, Dataset]:
    """The train and the test split of "mnist" or "fashion_mnist": see `probbnn.data.load`."""
    with requires(f"the data set {name}", extra="data"):
        for package in ("tensorflow_datasets", "array_record", "PIL"):
            import_module(package)  # TFDS itself imports the other two when it needs them
    root = _data_root(data_dir, name)
    with _nothing_left_behind(root, name):
        builder = _builder(name, root)
        if not builder.data_path.exists():
            _prepare(builder, progress)
    return _read_split(builder, "train", progress), _read_split(builder, "test", progress)


def _data_root(data_dir: str | os.PathLike[str] | None, name: str) -> Path:
    root = expanded(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            root.stat()  # unlike `Path.exists`, says so where there cannot be such a path
        if root.exists() and not (root.is_dir() and os.access(root, os.R_OK | os.X_OK)):
            raise InputError(
                f"data directory {root} is not a directory that can be read; set --data-dir or "
                "TFDS_DATA_DIR to one that can, or to a new path"
            )
        inside = [folder for folder in (root, *root.glob("*.*.*")) if (folder / _INFO).exists()]
    except InputError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(
            f"data directory {str(root)!r:.200} cannot be used ({_one_line(error)}); set "
            "--data-dir or TFDS_DATA_DIR to another one"
        ) from error
    if inside:
        above = inside[0].resolve().parent.parent
        raise InputError(
            f"data directory {root} is that of one data set; give the one that {name} is in, "
            f"perhaps {above}"
        )
    return root


@contextlib.contextmanager
def _nothing_left_behind(root: Path, name: str) -> Iterator[None]:
    """Where it fails, empty directories that were not there go again, the system's own included."""
    roots = [root, *root.parents]
    before = {folder for folder in (*roots, *_folders(root, name)) if folder.exists()}
    tempdir = tempfile.tempdir
    with tempfile.TemporaryDirectory() as tempfile.tempdir:
        try:
            yield
        except BaseException:
            for folder in (*_folders(root, name), *roots):
                if folder not in before:
                    with contextlib.suppress(OSError):
                        folder.rmdir()
            raise
        finally:
            tempfile.tempdir = tempdir


def _folders(root: Path, name: str) -> list[Path]:
    """What TFDS makes in a data directory, the innermost first."""
    found = [p for top in ("downloads", name) for p in (root / top).rglob("*") if p.is_dir()]
    return [*reversed(found), root / "downloads", root / name]


def _builder(dataset: str, root: Path) -> Any:
    """TFDS's builder of the data set, except that it prepares without TensorFlow."""
    from tensorflow_datasets.image_classification import mnist

    original: Any = {"mnist": mnist.MNIST, "fashion_mnist": mnist.FashionMNIST}[dataset]

    class Builder(_WithoutTensorFlow, original, skip_registration=True):  # type: ignore[call-arg]
        # Under the original's names, so that the directory is the one that TFDS would make.
        name = original.name
        __module__ = original.__module__
        url_infos = {_URLS[dataset] + i.filename: i for i in original.url_infos.values()}

    try:
        return Builder(data_dir=root)
    except Exception as error:  # whatever TFDS makes of a directory that is not as it wrote it
        raise _unreadable(dataset, Path(root, dataset, str(original.VERSION)), error) from error


class _WithoutTensorFlow:
    """The two methods of TFDS's MNIST builders that use TensorFlow, on NumPy and PIL."""

    name: str
    url_infos: dict[str, Any]

    def _split_generators(self, downloads: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        # One after the other: TFDS leaves the rest of a batch running behind one that fails, and
        # the process cannot end before they do.
        paths = {
            info.filename: _download(downloads, self.name, url, info)
            for url, info in self.url_infos.items()
        }
        return {
            split: self._generate_examples(
                paths[f"{stem}-images-idx3-ubyte.gz"], paths[f"{stem}-labels-idx1-ubyte.gz"]
            )
            for split, stem in (("train", "train"), ("test", "t10k"))
        }

    def _generate_examples(
        self, images_path: Path, labels_path: Path
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        from PIL import Image

        labels = _read_idx(labels_path, header=8)
        images = _read_idx(images_path, header=16).reshape(len(labels), 28, 28)
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            # TFDS encodes an array with TensorFlow, but a PIL image with PIL.
            yield index, {"image": Image.fromarray(image), "label": int(label)}


def _read_idx(path: Path, header: int) -> np.ndarray:
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def _download(downloads: Any, name: str, url: str, info: Any) -> Path:
    """Path of the file in TFDS's download cache, where it is downloaded to unless it is there."""
    import requests
    from tensorflow_datasets.core.download import DownloadError
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    try:
        if not _is_cached(downloads, name, url, info):
            # TFDS itself would retry for minutes, and without a time limit, before it gives up.
            requests.head(url, timeout=_CONNECT_SECONDS, allow_redirects=True).raise_for_status()
        return downloads.download(url)
    except NonMatchingChecksumError as error:
        reason = "its checksum is not the one on record: damaged or incomplete"
        raise _not_downloaded(downloads, name, url, reason) from error
    except (requests.RequestException, DownloadError) as error:
        says_enough = isinstance(error, requests.HTTPError | DownloadError)
        reason = _one_line(error) if says_enough else type(error).__name__
        raise _not_downloaded(downloads, name, url, reason) from error


def _is_cached(downloads: Any, name: str, url: str, info: Any) -> bool:
    from tensorflow_datasets.core.download import resource

    root = Path(downloads.download_dir)
    file = resource.get_dl_fname(url, info.checksum)
    by_hand = root / "manual" / info.filename
    return by_hand.exists() or any(
        resource.is_locally_cached(folder / file) for folder in (root, root / name)
    )


def _not_downloaded(downloads: Any, name: str, url: str, reason: str) -> InputError:
    root = Path(downloads.download_dir).parent
    others = sorted(path.parent.name for path in root.glob(f"{name}/*/{_INFO}"))
    has = f", and {root} has but {name} {', '.join(others)}" if others else ""
    return InputError(
        f"{url} could not be downloaded ({reason}){has}; try again, or set --data-dir or "
        f"TFDS_DATA_DIR to a directory that holds {name} prepared by TFDS"
    )


def _prepare(builder: Any, progress: bool) -> None:
    import tensorflow_datasets as tfds

    config = tfds.download.DownloadConfig(try_download_gcs=False, force_checksums_validation=True)
    try:
        with _quiet_tfds(progress):
            builder.download_and_prepare(download_config=config, file_format="array_record")
    except OSError as error:
        raise InputError(
            f"cannot prepare {builder.name} in {builder.data_dir} ({_one_line(error)}); set "
            "--data-dir or TFDS_DATA_DIR to a directory that can be written"
        ) from error


@contextlib.contextmanager
def _quiet_tfds(progress: bool) -> Iterator[None]:
    """Show TFDS's progress bars or not, and never its print: standard output is the caller's."""
    import tensorflow_datasets as tfds

    if not progress:
        tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        if not progress:
            tfds.enable_progress_bar()


def _read_split(builder: Any, split: str, progress: bool) -> Dataset:
    directory = Path(builder.data_path)
    if not (directory / _INFO).exists():
        raise _unreadable(builder.name, directory, f"no {_INFO}")
    try:
        if builder.info.file_format.value == "array_record":
            images, labels = _read_array_record(builder, split, progress)
        else:
            images, labels = _read_with_tensorflow(builder, split)
        classes = tuple(builder.info.features["label"].names)
        if len(images) != _SIZES[split]:
            raise ValueError(f"{len(images):,} of {_SIZES[split]:,} {split} images")
        return Dataset(images, labels, classes, builder.name, split)
    except _NoTensorFlow:
        raise
    except Exception as error:  # whatever library finds the damage
        raise _unreadable(builder.name, directory, error) from error


class _NoTensorFlow(InputError):
    """A directory that is sound, for those who have TensorFlow."""


def _read_array_record(builder: Any, split: str, progress: bool) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow_datasets as tfds
    from PIL import Image
    from tqdm import tqdm

    # In one batch, and past TFDS's own decoder: 2.5 times as fast. Threads only slow PIL down.
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    examples = source.__getitems__(range(len(source)))
    bar = tqdm(
        examples, f"Reading {builder.name} {split}", disable=None if progress else True, leave=False
    )
    images = np.stack([np.asarray(Image.open(io.BytesIO(example["image"]))) for example in bar])
    return images[..., None], np.array([example["label"] for example in examples])


def _read_with_tensorflow(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow_datasets as tfds

    try:
        import tensorflow  # noqa: F401
    except ImportError as error:
        raise _NoTensorFlow(
            f"{builder.name} in {builder.data_path} was prepared as tfrecord: install tensorflow "
            "to read it, or set --data-dir or TFDS_DATA_DIR to another directory to have it "
            "prepared there"
        ) from error
    examples = tfds.as_numpy(builder.as_dataset(split, batch_size=-1))
    return examples["image"], examples["label"]


def _unreadable(name: str, directory: Path, why: Exception | str) -> InputError:
    """What to say of a directory that holds something else, or nothing that can be read."""
    closed = [path for path in directory.glob("*") if not os.access(path, os.R_OK)]
    if closed or isinstance(why, PermissionError) or not os.access(directory, os.R_OK | os.X_OK):
        return InputError(
            f"{(closed or [directory])[0]} must not be read (permission denied); have it opened, "
            "or set --data-dir or TFDS_DATA_DIR to another directory"
        )
    reason = why if isinstance(why, str) else _one_line(why)
    return InputError(
        f"{name} in {directory} is damaged or incomplete ({reason:.200}); move that directory away "
        "to have it prepared anew, or set --data-dir or TFDS_DATA_DIR to another one"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
