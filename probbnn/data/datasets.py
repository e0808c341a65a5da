"""Data sets by name: what scikit-learn bundles, and what TFDS downloads and prepares."""

import os
from dataclasses import replace

import numpy as np

from probbnn.data import tfds
from probbnn.data.dataset import Dataset, Regression
from probbnn.errors import one_of, requires

__all__ = ["DATASETS", "REGRESSIONS", "load", "load_regression"]

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
            the data set was prepared as tfrecord and TensorFlow, which reads that, is missing; the
            extra `data` is not installed.

    Example:
        >>> import probbnn.data
        >>> probbnn.data.load("digits")
        (Dataset('digits', 'train': 1297 images of 8x8x1, 10 classes),
         Dataset('digits', 'test': 500 images of 8x8x1, 10 classes))
    """
    if one_of(name, DATASETS, "data set") == "digits":
        return _load_digits()
    return tfds.load(name, data_dir, progress)


def _load_digits() -> tuple[Dataset, Dataset]:
    with requires("the data set digits", extra="data"):
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


def load_regression(name: str = "diabetes", *, seed: int = 0) -> tuple[Regression, Regression]:
    """Load a regression problem, standardised by what its training split is like.

    Args:
        name: one of `REGRESSIONS`.
        seed: decides which rows are in which split.

    Returns:
        The train and the test split.

    Raises:
        InputError: unknown name, or the extra `data` is not installed.

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


def _load_diabetes(seed: int) -> tuple[Regression, Regression]:
    with requires("the data set diabetes", extra="data"):
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
