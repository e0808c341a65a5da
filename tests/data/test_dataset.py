"""Data of one split: what is refused, slices, read-only arrays, fingerprints."""

import numpy as np
import pytest
from helpers import toy_dataset
from numpy.testing import assert_array_equal

from probbnn.data import Dataset, Regression
from probbnn.errors import InputError


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
    good = toy_dataset()
    fields = {"images": good.images, "labels": good.labels, "classes": good.classes}
    with pytest.raises(InputError, match=message) as caught:
        Dataset(**{**fields, **change}, name="toy", split="test")
    assert "\n" not in str(caught.value)


def test_dataset_accepts_minus_one_and_any_integer_type():
    good = toy_dataset()
    for labels in (np.full(6, -1), np.full(6, 2, np.uint8)):
        stored = Dataset(good.images, labels, good.classes, "toy", "test").labels
        assert stored.dtype == np.int32
        np.testing.assert_array_equal(stored, labels)


def test_slice_is_a_dataset_of_those_images():
    whole = toy_dataset()
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


def test_what_becomes_of_the_callers_arrays_is_their_affair():
    images, labels = np.zeros((2, 2, 2, 1), np.uint8), np.zeros(2, np.int32)
    made = Dataset(images, labels, ("a", "b"), "toy", "test")
    inputs, targets = np.zeros((2, 1), np.float32), np.zeros(2, np.float32)
    fitted = Regression(inputs, targets, 0.0, 1.0, "m", ("x",), "toy", "test")
    for array in (images, labels, inputs, targets):
        array[:] = 1
    for array in (made.images, made.labels, fitted.inputs, fitted.targets):
        assert not array.any()
    assert made.fingerprint == Dataset(made.images, made.labels, ("a", "b"), "", "").fingerprint


@pytest.mark.parametrize(
    ("inputs", "targets", "message"),
    [
        ([[0.0], [1e300]], [0.0, 1.0], "inputs hold 1e.300, which float32 cannot"),
        ([[0.0], [1.0]], [0, 10**40], "targets hold 1e.40"),
        ([[1.7e9], [1.7e9 + 60]], [0.0, 1.0], "inputs vary by 60 around 1700000060"),
        (np.ma.masked_equal([[0.0], [1.0]], 1), [0.0, 1.0], "inputs are a masked array with 1 "),
    ],
)
def test_a_regression_keeps_its_numbers(inputs, targets, message):
    targets = np.array(targets, float)
    with pytest.raises(InputError, match=message):
        Regression(inputs, targets, 0.0, 1.0, "m", ("x",), "toy", "test")


def test_a_mask_is_not_lost():
    good = toy_dataset()
    labels = np.ma.masked_equal(good.labels, 1)
    with pytest.raises(InputError, match="labels are a masked array with 2 masked entries"):
        Dataset(good.images, labels, good.classes, "toy", "test")


def test_fingerprint_depends_on_content_only():
    def copy(**change):
        fields = {f: getattr(toy_dataset(), f) for f in ("images", "labels", "classes")}
        return Dataset(**{**fields, "name": "toy", "split": "test", **change})

    pixel, label = toy_dataset().images.copy(), toy_dataset().labels.copy()
    pixel[3, 2, 1, 0] ^= 1
    label[5] = 0
    same = [
        toy_dataset(),
        copy(name="other", split="train"),
        copy(labels=toy_dataset().labels.astype(int)),
    ]
    different = [
        copy(images=pixel),
        copy(labels=label),
        copy(classes=("a", "b", "d")),
        copy(images=toy_dataset().images.reshape(6, 2, 8, 1)),
        toy_dataset()[:5],
    ]
    assert {d.fingerprint for d in same} == {toy_dataset().fingerprint}
    assert len({d.fingerprint for d in [toy_dataset(), *different]}) == 1 + len(different)
    assert len(toy_dataset().fingerprint) == 16
    assert (
        copy(images=np.asfortranarray(toy_dataset().images)).fingerprint
        == toy_dataset().fingerprint
    )


def test_data_sets_and_regressions_have_inputs_and_targets(diabetes):
    images, rows = toy_dataset(), diabetes[1]
    assert images.inputs is images.images
    assert images.targets is images.labels
    for data in (images, rows):
        assert len(data) == len(data.inputs) == len(data.targets)
        with pytest.raises(AttributeError):
            data.inputs = data.inputs
        with pytest.raises(AttributeError):
            data.targets = data.targets
    assert (images.targets.dtype.kind, rows.targets.dtype.kind) == ("i", "f")


# Regression


def test_slices_are_regressions(diabetes):
    test = diabetes[1]
    part = test[10:30]
    assert_array_equal(part.targets, test.targets[10:30])
    assert (len(part), part.split, part.unit) == (20, "test", test.unit)
    with pytest.raises(ValueError, match="read-only"):
        test.inputs[0] = 0


X, Y = np.zeros((6, 3), np.float32), np.zeros(6, np.float32)


def regression_of(**change):
    fields = {"inputs": X, "targets": Y, "features": ("a", "b", "c")}
    return Regression(
        **{**fields, **change}, target_mean=0, target_std=1, unit="m", name="toy", split="train"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": X[0]}, r"inputs have shape \(3,\); expected \(N, 3\)"),
        ({"features": ("a",)}, r"shape \(6, 3\); expected \(N, 1\)"),
        ({"targets": Y[:5]}, r"targets have shape \(5,\); expected \(6,\)"),
        ({"targets": Y + np.nan}, "contain NaN or infinity"),
    ],
)
def test_regression_refuses(change, message):
    with pytest.raises(InputError, match=message) as caught:
        regression_of(**change)
    assert "\n" not in str(caught.value)


def test_a_row_of_a_regression_is_a_slice():
    with pytest.raises(InputError, match=r"regression\[0\]: expected a slice"):
        regression_of()[0]
