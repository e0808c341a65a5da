"""Data of one split in memory: images with labels, or measurements with a real-valued target."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, Self

import numpy as np

from probbnn.arrays import owned, unmasked, with_dtype
from probbnn.errors import InputError

__all__ = ["Dataset", "Examples", "Regression"]


class Examples(Protocol):
    """Inputs with their targets: what a `Dataset` and a `Regression` have in common."""

    @property
    def inputs(self) -> np.ndarray:
        """What a network is given, (N, ...)."""

    @property
    def targets(self) -> np.ndarray:
        """What it is to predict, (N,): integers are classes, floating-point numbers are values."""

    @property
    def name(self) -> str:
        """Name of the data set, and of what was done to it."""

    @property
    def split(self) -> str:
        """Either "train" or "test"."""

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that depend on the content, and on no name."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice) -> Self: ...


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images and labels of one split, in memory.

    The arrays are read-only copies, so that `fingerprint` stays true. A slice such as
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
        images, labels = unmasked(self.images, "images"), unmasked(self.labels, "labels")
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
        object.__setattr__(self, "images", owned(images))
        object.__setattr__(self, "labels", owned(labels.astype(np.int32)))
        object.__setattr__(self, "classes", tuple(self.classes))

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

    @property
    def inputs(self) -> np.ndarray:
        """The images."""
        return self.images

    @property
    def targets(self) -> np.ndarray:
        """The labels."""
        return self.labels

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that depend on images, labels and classes, and on no name."""
        return _fingerprint(self.classes, self.images, self.labels)


@dataclass(frozen=True, eq=False, repr=False)
class Regression:
    """Measurements and a real-valued target of one split, in memory, both standardised.

    The arrays are read-only copies, so that `fingerprint` stays true. A slice such as
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
        inputs, targets = (
            with_dtype(unmasked(getattr(self, name), name), np.float32, name)
            for name in ("inputs", "targets")
        )
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
        object.__setattr__(self, "inputs", owned(inputs))
        object.__setattr__(self, "targets", owned(targets))
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
