"""Images: the extremes of certainty, and what each chain says of them."""

import base64
import io

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from probbnn.experiments.records import FailureRecord, MethodMetrics, MethodRecord, RunRecord
from probbnn.report.images import images
from probbnn.report.load import Entry, Run

NUM_IMAGES = 10


@pytest.fixture
def run(tmp_path):
    """A run whose chains agree, from an image that both know to one on which they guess."""

    def make(inputs, targets=(0,) * NUM_IMAGES):
        sure = np.linspace(1, 0.5, NUM_IMAGES)
        probability = np.stack([sure, 1 - sure], axis=-1)
        tree = xr.DataTree.from_dict(
            {
                "psgld/predictions": xr.Dataset(
                    {
                        "probability": (
                            ("chain", "draw", "example", "class"),
                            np.broadcast_to(probability, (2, 3, NUM_IMAGES, 2)),
                        )
                    },
                    coords={"example": 100 + np.arange(NUM_IMAGES), "class": ["cat", "dog"]},
                ),
                "psgld/predictions_constant_data": xr.Dataset(
                    {
                        "inputs": (("example", "height", "width", "channel"), inputs),
                        "targets": ("example", np.array(targets)),
                    },
                    coords={"example": 100 + np.arange(NUM_IMAGES)},
                ),
            }
        )
        path = tmp_path / "draws.nc"
        tree.to_netcdf(path, engine="h5netcdf")
        metrics = MethodMetrics(label="pSGLD")
        entry = Entry("psgld", "pSGLD", None, MethodRecord(), metrics, FailureRecord(), True, path)
        return Run(tmp_path, "run", RunRecord(), [entry], [], "")

    return make


def grey():
    return np.arange(NUM_IMAGES * 4, dtype=np.uint8).reshape(NUM_IMAGES, 2, 2, 1)


def test_both_ends_of_the_scale(run):
    (gallery,) = images(run(grey()))
    assert (gallery.title, gallery.num_examples) == ("pSGLD", NUM_IMAGES)
    (least, unsure), (most, sure) = gallery.groups
    assert (least, most) == ("least certain", "most certain")
    assert [image.number for image in unsure] == [109, 108, 107, 106]
    assert [image.number for image in sure] == [100, 101, 102, 103]
    assert sure[0].probability == pytest.approx(1)
    assert sure[0].chains == [("chain 0", "cat", 1.0), ("chain 1", "cat", 1.0)]


def test_right_wrong_and_neither(run):
    (gallery,) = images(run(grey(), [0, 1, -1, *[0] * 7]))
    _, (_, (right, wrong, neither, _)) = gallery.groups
    assert right.right
    assert (right.true, right.said) == ("cat", "cat")
    assert not wrong.right
    assert (wrong.true, wrong.said) == ("dog", "cat")
    assert not neither.right
    assert neither.true == "none of the classes"


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_is_the_input(run, channels):
    inputs = np.repeat(grey(), channels, axis=-1)
    (gallery,) = images(run(inputs))
    uri = gallery.groups[1][1][0].uri
    shown = np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    np.testing.assert_array_equal(shown.reshape(2, 2, channels), inputs[0])


@pytest.mark.parametrize("inputs", [grey() / 255.0, np.repeat(grey(), 2, axis=-1)])
def test_what_is_no_image_is_left_out(run, inputs):
    assert list(images(run(inputs))) == []
