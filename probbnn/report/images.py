"""The images on which a method is most, and least, certain, and what each chain says of them."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from probbnn.report.load import Run

__all__ = ["images"]

# Of each end of the scale, for each method.
_NUM_IMAGES = 4


def images(run: Run) -> Iterator[dict[str, Any]]:
    """Of each method whose predictions of single images are on record, a few of both ends."""
    for entry in run.finished:
        group, data = (entry.group(name) for name in ("predictions", "predictions_constant_data"))
        if group is None or data is None or "probability" not in group or "inputs" not in data:
            continue
        inputs, targets = data["inputs"].values, data["targets"].values
        if inputs.dtype != np.uint8 or inputs.ndim != 4 or inputs.shape[-1] not in (1, 3):
            continue
        values = group["probability"].transpose("chain", "draw", "example", "class")
        classes = group["class"].values.astype(str)
        by_chain = values.mean("draw").values
        confidence = by_chain.mean(axis=0).max(axis=-1)
        order = np.argsort(-confidence, kind="stable")
        member = "chain" if entry.is_sampler else "network"

        def shown(
            index: int,
            inputs: np.ndarray = inputs,
            targets: np.ndarray = targets,
            by_chain: np.ndarray = by_chain,
            classes: np.ndarray = classes,
            examples: np.ndarray = group["example"].values,
            member: str = member,
        ) -> dict[str, Any]:
            mean = by_chain[:, index].mean(axis=0)
            said, true = classes[mean.argmax()], targets[index]
            is_class = 0 <= true < len(classes)
            return {
                "uri": _png(inputs[index]),
                "number": int(examples[index]),
                "true": classes[true] if is_class else "none of the classes",
                "said": said,
                "probability": float(mean.max()),
                "right": bool(mean.argmax() == true),
                "chains": [
                    (f"{member} {chain}", classes[p.argmax()], float(p.max()))
                    for chain, p in enumerate(by_chain[:, index])
                ],
            }

        yield {
            "title": run.prefix + entry.label,
            "num_examples": len(order),
            "groups": [
                ("least certain", [shown(i) for i in order[: -_NUM_IMAGES - 1 : -1]]),
                ("most certain", [shown(i) for i in order[:_NUM_IMAGES]]),
            ],
        }


def _png(image: np.ndarray) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
