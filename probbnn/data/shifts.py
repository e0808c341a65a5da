"""Data that a network was not trained on: shifted, stretched, or from elsewhere."""

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from probbnn.data.dataset import Dataset, Regression
from probbnn.data.datasets import DATASETS, load
from probbnn.errors import InputError, one_of, requires

__all__ = ["SHIFTS", "out_of_distribution", "patches", "shift", "stretch"]

SHIFTS = {
    "rotated": "every image turned by 90 degrees; labels kept",
    "inverted": "black and white exchanged; labels kept",
    "shuffled": "the pixels of every image in one fixed random order; labels kept",
    "noise": "uniform noise in place of the images; no label is right",
}
"""Name of every transformation that `shift` knows, and one line on each."""


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

    Raises:
        InputError: the extra `data`, which brings the photographs, is not installed.

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


def _photo_crops(height: int, width: int, seed: int) -> Iterator[np.ndarray]:
    """Endless uint8 crops of shape (height, width)."""
    with requires("out-of-distribution data from photographs", extra="data"):
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
