"""The images on which a method is most, and least, certain, and what each chain says of them."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from probbnn.errors import InputError, requires
from probbnn.report.load import Entry, Run

__all__ = ["Gallery", "Shown", "images"]

# Of each end of the scale, for each method.
_NUM_IMAGES = 4


@dataclass(frozen=True)
class Shown:
    """An image and what is predicted of it.

    Attributes:
        uri: the image as a ``data:`` address.
        number: which of the test images it is.
        true: its class.
        said: the most probable class, averaged over all draws.
        probability: of that.
        right: whether it is the true one.
        chains: name, most probable class and its probability, of each chain.
    """

    uri: str
    number: int
    true: str
    said: str
    probability: float
    right: bool
    chains: Sequence[tuple[str, str, float]]


@dataclass(frozen=True)
class Gallery:
    """Some of the images that one method predicted.

    Attributes:
        title: the method.
        num_examples: images of which these are the extremes.
        groups: what a few of them have in common, and these.
    """

    title: str
    num_examples: int
    groups: Sequence[tuple[str, Sequence[Shown]]]


def images(run: Run) -> Iterator[Gallery]:
    """Of each method whose predictions of single images are on record, a few of both ends."""
    for entry in run.finished:
        predicted = entry.values("predictions", "probability", "chain", "draw", "example", "class")
        data = entry.group("predictions_constant_data")
        if predicted is None or data is None or "inputs" not in data or "targets" not in data:
            continue
        if "pixel" in predicted.dims:  # which have no one class to be shown
            continue
        inputs = data["inputs"].values
        if inputs.dtype != np.uint8 or inputs.ndim != 4 or inputs.shape[-1] not in (1, 3):
            continue
        if len(inputs) != predicted.sizes["example"] or data["targets"].shape != inputs.shape[:1]:
            raise InputError(
                f"{entry.draws}: the examples of {entry.name} are {len(inputs)}, and predicted are "
                f"{predicted.sizes['example']}; restore the file as probbnn wrote it"
            )
        by_chain = predicted.mean("draw")
        confidence = by_chain.mean("chain").max("class").values
        order = np.argsort(-confidence, kind="stable")
        groups = {
            "least certain": order[: -_NUM_IMAGES - 1 : -1],
            "most certain": order[:_NUM_IMAGES],
        }
        yield Gallery(
            run.prefix + entry.label,
            len(order),
            [
                (name, [_shown(entry, by_chain, inputs, data["targets"].values, i) for i in some])
                for name, some in groups.items()
            ],
        )


def _shown(
    entry: Entry, by_chain: xr.DataArray, inputs: np.ndarray, targets: np.ndarray, index: int
) -> Shown:
    classes = by_chain["class"].values.astype(str)
    probabilities = by_chain.values[:, index]
    mean, true = probabilities.mean(axis=0), targets[index]
    member = "chain" if entry.is_sampler else "network"
    return Shown(
        uri=_png(inputs[index]),
        number=int(by_chain["example"].values[index]),
        true=classes[true] if 0 <= true < len(classes) else "none of the classes",
        said=classes[mean.argmax()],
        probability=float(mean.max()),
        right=bool(mean.argmax() == true),
        chains=[
            (f"{member} {number}", classes[p.argmax()], float(p.max()))
            for number, p in enumerate(probabilities)
        ],
    )


def _png(image: np.ndarray) -> str:
    with requires("a report with images", extra="report"):
        from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
