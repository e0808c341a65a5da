"""Data sets: images (digits, MNIST, Fashion-MNIST), a regression, and what lies outside them."""

import contextlib
import gzip
import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from probbnn.errors import InputError, one_of

__all__ = [
    "DATASETS",
    "REGRESSIONS",
    "SHIFTS",
    "Dataset",
    "Regression",
    "load",
    "load_regression",
    "out_of_distribution",
    "patches",
    "shift",
    "stretch",
]

DATASETS = {
    "digits": "handwritten digits, 8x8, 1,297 train and 500 test; bundled, needs no download",
    "mnist": "handwritten digits, 28x28, 60,000 train and 10,000 test; 11 MB download",
    "fashion_mnist": "articles of clothing, 28x28, 60,000 train and 10,000 test; 30 MB download",
}
"""Name of every data set that `load` knows, and one line on each."""

REGRESSIONS = {
    "diabetes": "progress of diabetes from 10 measurements, 342 train and 100 test; bundled",
}
"""Name of every data set that `load_regression` knows, and one line on each."""

SHIFTS = {
    "rotated": "every image turned by 90 degrees; labels kept",
    "inverted": "black and white exchanged; labels kept",
    "shuffled": "the pixels of every image in one fixed random order; labels kept",
    "noise": "uniform noise in place of the images; no label is right",
}
"""Name of every transformation that `shift` knows, and one line on each."""

# Where TFDS itself gets the files from.
_URLS = {
    "mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "fashion_mnist": "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
}
_CONNECT_SECONDS = 10


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and labels of one split, in memory.

    The arrays are read-only views, so that `fingerprint` stays true. A slice such as
    `dataset[:1000]` is again a `Dataset`.

    Attributes:
        images: uint8, shape (N, H, W, C), 0..255.
        labels: int32, shape (N,), index into `classes`; -1 belongs to none of them, so that every
            prediction is wrong. Any integer type may be given.
        classes: name of each class.
        name: name of the data set, such as "mnist", or "mnist/rotated" for a shifted version.
        split: "train" or "test".

    Raises:
        InputError: an array has the wrong type, shape or length, or a label is out of range.

    Example:
        >>> import probbnn.data
        >>> train, test = probbnn.data.load("digits")
        >>> test[:100]
        Dataset('digits', 'test': 100 images of 8x8x1, 10 classes)
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    name: str
    split: str

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.dtype != np.uint8 or images.ndim != 4:
            raise InputError(
                f"images are {images.dtype} of shape {images.shape}; expected uint8 of shape "
                "(N, H, W, C): scale them to 0..255 and keep the channel axis"
            )
        if not np.issubdtype(labels.dtype, np.integer) or labels.shape != images.shape[:1]:
            raise InputError(
                f"labels are {labels.dtype} of shape {labels.shape}; expected integers of shape "
                f"({len(images)},): one for each image"
            )
        wrong = np.flatnonzero((labels < -1) | (labels >= len(self.classes)))
        if wrong.size:
            raise InputError(
                f"labels[{wrong[0]}] is {labels[wrong[0]]}; expected -1 (none of the classes) to "
                f"{len(self.classes) - 1} for {len(self.classes)} classes"
            )
        object.__setattr__(self, "images", _read_only(images))
        object.__setattr__(self, "labels", _read_only(labels.astype(np.int32)))
        object.__setattr__(self, "classes", tuple(self.classes))

    @property
    def inputs(self) -> np.ndarray:
        """The images."""
        return self.images

    @property
    def targets(self) -> np.ndarray:
        """The labels."""
        return self.labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: slice) -> "Dataset":
        if not isinstance(index, slice):
            raise InputError(f"dataset[{index!r}]: expected a slice, such as dataset[:1000]")
        return replace(self, images=self.images[index], labels=self.labels[index])

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.images.shape[1:]))
        return (
            f"Dataset({self.name!r}, {self.split!r}: {len(self)} images of {shape}, "
            f"{len(self.classes)} classes)"
        )

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that depend on images, labels and classes, and on no name."""
        return _fingerprint(self.classes, self.images, self.labels)


@dataclass(frozen=True, eq=False, repr=False)
class Regression:
    """Measurements and a real-valued target of one split, in memory, both standardised.

    The arrays are read-only views, so that `fingerprint` stays true. A slice such as
    `regression[:100]` is again a `Regression`.

    Attributes:
        inputs: float32, shape (N, D); on the training split each column has mean 0 and standard
            deviation 1.
        targets: float32, shape (N,), standardised likewise.
        target_mean: in `unit`: a target y is `target_mean + target_std * y` of them.
        target_std: in `unit`.
        unit: what the target counts.
        features: name of each column of the inputs.
        name: name of the data set, such as "diabetes", or "diabetes/stretched".
        split: "train" or "test".

    Raises:
        InputError: an array has the wrong shape or length, or numbers that are not finite.

    Example:
        >>> import probbnn.data
        >>> train, test = probbnn.data.load_regression("diabetes")
        >>> test[:10]
        Regression('diabetes', 'test': 10 rows of 10 features)
    """

    inputs: np.ndarray
    targets: np.ndarray
    target_mean: float
    target_std: float
    unit: str
    features: tuple[str, ...]
    name: str
    split: str

    def __post_init__(self) -> None:
        inputs = np.asarray(self.inputs, np.float32)
        targets = np.asarray(self.targets, np.float32)
        if inputs.ndim != 2 or inputs.shape[1] != len(self.features):
            raise InputError(
                f"inputs have shape {inputs.shape}; expected (N, {len(self.features)}): one column "
                "for each of the features"
            )
        if targets.shape != inputs.shape[:1]:
            raise InputError(
                f"targets have shape {targets.shape}; expected ({len(inputs)},): one number for "
                "each row of the inputs"
            )
        if not (np.isfinite(inputs).all() and np.isfinite(targets).all()):
            raise InputError(
                "inputs or targets contain NaN or infinity; remove or impute those rows"
            )
        object.__setattr__(self, "inputs", _read_only(inputs))
        object.__setattr__(self, "targets", _read_only(targets))
        object.__setattr__(self, "features", tuple(self.features))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: slice) -> "Regression":
        if not isinstance(index, slice):
            raise InputError(f"regression[{index!r}]: expected a slice, such as regression[:100]")
        return replace(self, inputs=self.inputs[index], targets=self.targets[index])

    def __repr__(self) -> str:
        return (
            f"Regression({self.name!r}, {self.split!r}: {len(self)} rows of {len(self.features)} "
            "features)"
        )

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that depend on inputs, targets and features alone."""
        return _fingerprint(self.features, self.inputs, self.targets)


def _fingerprint(names: tuple[str, ...], *arrays: np.ndarray) -> str:
    digest = hashlib.sha256(repr(names).encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def load(
    name: str, data_dir: str | os.PathLike[str] | None = None, *, progress: bool = True
) -> tuple[Dataset, Dataset]:
    """Load a data set; download and prepare it first where that has not been done yet.

    Args:
        name: one of `DATASETS`.
        data_dir: TFDS data directory. Default: the environment variable `TFDS_DATA_DIR`, or else
            `~/tensorflow_datasets`. "digits" needs none.
        progress: show progress on standard error.

    Returns:
        The train and the test split.

    Raises:
        InputError: unknown name; `data_dir` cannot be used; the download failed or was corrupted;
            the data set was prepared as tfrecord and TensorFlow, which reads that, is missing.

    Example:
        >>> import probbnn.data
        >>> probbnn.data.load("digits")
        (Dataset('digits', 'train': 1297 images of 8x8x1, 10 classes),
         Dataset('digits', 'test': 500 images of 8x8x1, 10 classes))
    """
    if one_of(name, DATASETS, "data set") == "digits":
        return _load_digits()
    return _load_tfds(name, _data_root(data_dir), progress)


def load_regression(name: str = "diabetes", *, seed: int = 0) -> tuple[Regression, Regression]:
    """Load a regression problem, standardised by what its training split is like.

    Args:
        name: one of `REGRESSIONS`.
        seed: decides which rows are in which split.

    Returns:
        The train and the test split.

    Raises:
        InputError: unknown name.

    Example:
        >>> import probbnn.data
        >>> train, test = probbnn.data.load_regression("diabetes")
        >>> train
        Regression('diabetes', 'train': 342 rows of 10 features)
        >>> test.inputs.shape, test.targets.shape, round(test.target_std)
        ((100, 10), (100,), 79)
    """
    one_of(name, REGRESSIONS, "regression")
    return _load_diabetes(seed)


def stretch(regression: Regression, factor: float = 3.0) -> Regression:
    """The same rows, each `factor` times as far from the middle of the training data.

    Args:
        regression: any split.
        factor: what the standardised inputs are multiplied by. The targets stay, and no longer
            belong to the inputs: look at how uncertain a prediction is there, not at its error.

    Returns:
        As many rows, called `"<name>/stretched"`.

    Example:
        >>> import probbnn.data
        >>> train, test = probbnn.data.load_regression("diabetes")
        >>> probbnn.data.stretch(test)
        Regression('diabetes/stretched', 'test': 100 rows of 10 features)
    """
    return replace(
        regression, inputs=factor * regression.inputs, name=f"{regression.name}/stretched"
    )


def shift(dataset: Dataset, kind: str, *, seed: int = 0) -> Dataset:
    """Transform every image, so that a network trained on `dataset` meets what it has not seen.

    Args:
        dataset: images of any size; square ones for "rotated".
        kind: one of `SHIFTS`.
        seed: decides the pixel order of "shuffled" and the pixels of "noise".

    Returns:
        As many images of the same shape, called `"<name>/<kind>"`.

    Raises:
        InputError: unknown kind, or images that are not square are to be rotated.

    Example:
        >>> import probbnn.data
        >>> train, test = probbnn.data.load("digits")
        >>> probbnn.data.shift(test, "rotated")
        Dataset('digits/rotated', 'test': 500 images of 8x8x1, 10 classes)
    """
    images, labels = dataset.images, dataset.labels
    n, height, width, channels = images.shape
    rng = np.random.default_rng(seed)
    match one_of(kind, SHIFTS, "shift"):
        case "rotated":
            if height != width:
                raise InputError(
                    f"images of {dataset.name} are {height}x{width}; 'rotated' needs square ones"
                )
            images = np.rot90(images, axes=(1, 2))
        case "inverted":
            images = 255 - images
        case "shuffled":
            order = rng.permutation(height * width)
            images = images.reshape(n, -1, channels)[:, order].reshape(images.shape)
        case "noise":
            images = rng.integers(256, size=images.shape, dtype=np.uint8)
            labels = np.full(n, -1)
    return replace(dataset, images=images, labels=labels, name=f"{dataset.name}/{kind}")


def patches(like: Dataset, *, seed: int = 0) -> Dataset:
    """Grey-scale crops of two photographs: natural images that show none of the classes.

    The crops come from scikit-learn's two sample photographs, at one to eight times the size of an
    image, and are averaged down. Each one is stretched to 0..255, so that contrast alone does not
    give it away; crops that are nearly flat are passed over.

    Args:
        like: gives the number of images, their shape and the classes.
        seed: decides where the crops lie.

    Returns:
        Images of the shape of those of `like`, all labelled -1, called `"<name>/patches"`.

    Example:
        >>> import probbnn.data
        >>> train, test = probbnn.data.load("digits")
        >>> probbnn.data.patches(test)
        Dataset('digits/patches', 'test': 500 images of 8x8x1, 10 classes)
    """
    images = np.empty_like(like.images)
    height, width = images.shape[1:3]
    for image, crop in zip(images, _photo_crops(height, width, seed), strict=False):
        image[:] = crop[..., None]  # the same grey in every channel
    labels = np.full(len(like), -1)
    return replace(like, images=images, labels=labels, name=f"{like.name}/patches")


def out_of_distribution(
    test: Dataset,
    kind: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    progress: bool = True,
) -> Dataset:
    """Images of the same shape as those of `test`, but from elsewhere.

    Args:
        test: the data set that a network knows.
        kind: one of `SHIFTS`, "patches", or one of `DATASETS` whose images have the same shape.
            The test split of another data set keeps its own labels and classes: to compare
            predictions with them is to compare clothes with digits.
        data_dir: as for `load`.
        seed: as for `shift` and `patches`.
        progress: whether to show progress bars while another data set is read.

    Returns:
        The images; labels are -1 where no class could be right.

    Raises:
        InputError: unknown kind, or the images of that data set have another shape; else as `load`.

    Example:
        >>> import probbnn.data
        >>> train, test = probbnn.data.load("digits")
        >>> probbnn.data.out_of_distribution(test, "noise").labels[:3]
        array([-1, -1, -1], dtype=int32)
    """
    one_of(kind, [*SHIFTS, "patches", *DATASETS], "out-of-distribution data")
    if kind in SHIFTS:
        return shift(test, kind, seed=seed)
    if kind == "patches":
        return patches(test, seed=seed)
    other = load(kind, data_dir, progress=progress)[1]
    if other.images.shape[1:] != test.images.shape[1:]:
        raise InputError(
            f"images of {kind} have shape {other.images.shape[1:]}, those of {test.name} "
            f"{test.images.shape[1:]}; expected the same shape: use one of "
            f"{', '.join([*SHIFTS, 'patches'])}"
        )
    return other


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


# Digits, diabetes and photographs: what scikit-learn brings along


def _load_digits() -> tuple[Dataset, Dataset]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    parts = train_test_split(
        images, digits.target, test_size=500, stratify=digits.target, random_state=0
    )
    classes = tuple(map(str, digits.target_names))
    return (
        Dataset(parts[0], parts[2], classes, "digits", "train"),
        Dataset(parts[1], parts[3], classes, "digits", "test"),
    )


def _load_diabetes(seed: int) -> tuple[Regression, Regression]:
    from sklearn.datasets import load_diabetes

    # scikit-learn's own scaling has seen every row, the test split's among them.
    table = load_diabetes(scaled=False)
    order = np.random.default_rng(seed).permutation(len(table.data))
    train, test = order[:-100], order[-100:]
    inputs = (table.data - table.data[train].mean(axis=0)) / table.data[train].std(axis=0)
    mean, std = float(table.target[train].mean()), float(table.target[train].std())
    whole = Regression(
        inputs=inputs,
        targets=(table.target - mean) / std,
        target_mean=mean,
        target_std=std,
        unit="points of disease progression after one year",
        features=tuple(table.feature_names),
        name="diabetes",
        split="train",
    )
    return (
        replace(whole, inputs=whole.inputs[train], targets=whole.targets[train]),
        replace(whole, inputs=whole.inputs[test], targets=whole.targets[test], split="test"),
    )


def _photo_crops(height: int, width: int, seed: int) -> Iterator[np.ndarray]:
    """Endless uint8 crops of shape (height, width)."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    # Mode F: a stretched crop keeps the grey levels that rounding before the stretch would lose.
    photos = [Image.fromarray(p).convert("L").convert("F") for p in load_sample_images().images]
    rng = np.random.default_rng(seed)
    while True:
        photo = photos[rng.integers(len(photos))]
        largest = min(8, photo.width / width, photo.height / height)
        scale = min(largest, largest ** rng.uniform())  # below 1 only for images above 427x640
        left = rng.uniform(0, photo.width - scale * width)
        top = rng.uniform(0, photo.height - scale * height)
        box = (left, top, left + scale * width, top + scale * height)
        crop = np.asarray(photo.resize((width, height), Image.Resampling.BOX, box))
        low, high = crop.min(), crop.max()
        if high - low >= 32:  # a clear sky, stretched, would be noise
            yield np.round((crop - low) * (255 / (high - low))).astype(np.uint8)


# MNIST and Fashion-MNIST: a TFDS data directory, without TensorFlow


def _data_root(data_dir: str | os.PathLike[str] | None) -> Path:
    root = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()
    if root.exists() and not (root.is_dir() and os.access(root, os.R_OK | os.X_OK)):
        raise InputError(
            f"data directory {root} is not a directory that can be read; set --data-dir or "
            "TFDS_DATA_DIR to one that can, or to a new path"
        )
    return root


def _load_tfds(name: str, root: Path, progress: bool) -> tuple[Dataset, Dataset]:
    builder = _builder(name, root)
    if not builder.data_path.exists():
        _prepare(builder, progress)
    return _read_split(builder, "train", progress), _read_split(builder, "test", progress)


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
        raise _not_downloaded(name, url, reason) from error
    except (requests.RequestException, DownloadError) as error:
        says_enough = isinstance(error, requests.HTTPError | DownloadError)
        reason = _one_line(error) if says_enough else type(error).__name__
        raise _not_downloaded(name, url, reason) from error


def _is_cached(downloads: Any, name: str, url: str, info: Any) -> bool:
    from tensorflow_datasets.core.download import resource

    root = Path(downloads.download_dir)
    file = resource.get_dl_fname(url, info.checksum)
    by_hand = root / "manual" / info.filename
    return by_hand.exists() or any(
        resource.is_locally_cached(folder / file) for folder in (root, root / name)
    )


def _not_downloaded(name: str, url: str, reason: str) -> InputError:
    return InputError(
        f"{url} could not be downloaded ({reason}); try again, or set --data-dir or TFDS_DATA_DIR "
        f"to a directory that holds {name} prepared by TFDS"
    )


def _builder(dataset: str, root: Path) -> Any:
    """TFDS's builder of the data set, except that it prepares without TensorFlow."""
    from tensorflow_datasets.image_classification import mnist

    original: Any = {"mnist": mnist.MNIST, "fashion_mnist": mnist.FashionMNIST}[dataset]

    class Builder(_WithoutTensorFlow, original, skip_registration=True):  # type: ignore[call-arg]
        # Under the original's names, so that the directory is the one that TFDS would make.
        name = original.name
        __module__ = original.__module__
        url_infos = {_URLS[dataset] + i.filename: i for i in original.url_infos.values()}

    return Builder(data_dir=root)


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
    if not (builder.data_path / "dataset_info.json").exists():
        raise _unreadable(builder, "is incomplete (no dataset_info.json)")
    if builder.info.file_format.value == "array_record":
        images, labels = _read_array_record(builder, split, progress)
    else:
        images, labels = _read_with_tensorflow(builder, split)
    classes = tuple(builder.info.features["label"].names)
    return Dataset(images, labels, classes, builder.name, split)


def _read_array_record(builder: Any, split: str, progress: bool) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow_datasets as tfds
    from PIL import Image
    from tqdm import tqdm

    # In one batch, and past TFDS's own decoder: 2.5 times as fast. Threads only slow PIL down.
    source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    try:
        examples = source.__getitems__(range(len(source)))
    except RuntimeError as error:
        raise _unreadable(builder, f"is damaged ({_one_line(error)})") from error
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
        raise _unreadable(
            builder, "was prepared as tfrecord: install tensorflow to read it"
        ) from error
    examples = tfds.as_numpy(builder.as_dataset(split, batch_size=-1))
    return examples["image"], examples["label"]


def _unreadable(builder: Any, why: str) -> InputError:
    return InputError(
        f"{builder.name} in {builder.data_dir} {why}; delete that directory to have it prepared "
        "anew, or set --data-dir or TFDS_DATA_DIR to another one"
    )
