"""Data that a network was not trained on: what is done to each image, and what it is called."""

import sys
import types

import numpy as np
import pytest
from helpers import toy_dataset

from probbnn.data import SHIFTS, Dataset, out_of_distribution, patches, shift, stretch
from probbnn.errors import InputError


def test_rotated():
    start = toy_dataset(shape=(5, 5, 3))
    turned = shift(start, "rotated")
    np.testing.assert_array_equal(turned.images[2], np.rot90(start.images[2]))
    np.testing.assert_array_equal(turned.labels, start.labels)
    assert turned.name == "toy/rotated"
    for _ in range(3):
        turned = shift(turned, "rotated")
    np.testing.assert_array_equal(turned.images, start.images)
    with pytest.raises(InputError, match="toy are 4x5; 'rotated' needs square ones"):
        shift(toy_dataset(shape=(4, 5, 1)), "rotated")


def test_inverted():
    start = toy_dataset()
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
    noise = shift(toy_dataset(n=100, shape=(28, 28, 1)), "noise")
    assert (noise.labels == -1).all()
    assert noise.images.shape == (100, 28, 28, 1)
    counts = np.bincount(noise.images.ravel(), minlength=256)
    expected = noise.images.size / 256
    chi2 = ((counts - expected) ** 2 / expected).sum()
    assert 170 < chi2 < 360  # 255 degrees of freedom; fixed seed
    assert (
        shift(toy_dataset(n=100, shape=(28, 28, 1)), "noise", seed=1).images != noise.images
    ).any()


@pytest.mark.parametrize("kind", SHIFTS)
def test_every_shift_works_on_digits_and_is_deterministic(kind, digits):
    first, again = (shift(digits[1], kind, seed=3) for _ in range(2))
    assert first.fingerprint == again.fingerprint != digits[1].fingerprint
    assert first.images.shape == digits[1].images.shape
    assert (first.name, first.split) == (f"digits/{kind}", "test")


def test_unknown_shift():
    with pytest.raises(InputError, match="unknown shift 'rotate'; .*did you mean 'rotated'"):
        shift(toy_dataset(), "rotate")


@pytest.mark.parametrize("shape", [(28, 28, 1), (8, 12, 3), (500, 30, 1)])
def test_patches(shape):
    like = toy_dataset(n=40, shape=shape)
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
    made = patches(toy_dataset(n=40, shape=(8, 8, 1)))
    assert np.ptp(made.images.astype(int), axis=1).max() <= 1  # all of them upright stripes


def test_patches_are_smooth_where_noise_is_not():
    def roughness(d):
        x = d.images.astype(float)
        return np.abs(np.diff(x, axis=1)).mean() / x.std()

    like = toy_dataset(n=200, shape=(28, 28, 1))
    assert roughness(patches(like)) < 0.5 * roughness(shift(like, "noise"))


def test_without_pillow_patches_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(InputError, match=r"needs PIL, .*; pip install 'probbnn\[data\]'$"):
        patches(toy_dataset())


def test_stretched_rows_are_a_regression(diabetes):
    part = diabetes[1][10:30]
    far = stretch(part)
    np.testing.assert_allclose(far.inputs, 3 * part.inputs)
    np.testing.assert_array_equal(far.targets, part.targets)
    assert repr(far) == "Regression('diabetes/stretched', 'test': 20 rows of 10 features)"


# The front door


def test_out_of_distribution_is_the_shift_or_the_patches(digits):
    test = digits[1]
    for kind in SHIFTS:
        expected = shift(test, kind, seed=5).fingerprint
        assert out_of_distribution(test, kind, seed=5).fingerprint == expected
    expected = patches(test, seed=5).fingerprint
    assert out_of_distribution(test, "patches", seed=5).fingerprint == expected


def test_out_of_distribution_refuses(digits):
    with pytest.raises(
        InputError, match=r"digits have shape \(8, 8, 1\), those of toy \(28, 28, 1"
    ):
        out_of_distribution(toy_dataset(shape=(28, 28, 1)), "digits")
    with pytest.raises(InputError, match="unknown out-of-distribution data 'patch'.*'patches'"):
        out_of_distribution(digits[1], "patch")
