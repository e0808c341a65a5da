"""Data sets by name: what is loaded is what was published."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import multiset
from numpy.testing import assert_allclose
from sklearn.datasets import load_diabetes, load_digits

from probbnn.data import load, load_regression
from probbnn.errors import InputError

HERE = Path(__file__).resolve().parents[2]


def test_digits_are_scikit_learns_split_once_and_for_all(digits):
    train, test = digits
    assert (len(train), len(test)) == (1297, 500)
    assert (train.split, test.split) == ("train", "test")
    assert train.images.max() == 255
    # together exactly the 1,797 originals: none lost, none in both
    levels = np.round(np.arange(17) * 255 / 16).astype(np.uint8)
    expected = [levels[image.astype(int)] for image in load_digits().images]
    both = np.concatenate([train.images, test.images])[..., 0]
    assert multiset(both, np.concatenate([train.labels, test.labels])) == multiset(
        np.array(expected), load_digits().target
    )
    # stratified: each class has its share of 500 / 1797, to the nearest image
    share = np.bincount(load_digits().target) * 500 / 1797
    assert np.abs(np.bincount(test.labels) - share).max() <= 1
    # recorded when the module was written: the split must not move under saved results
    assert [d.fingerprint for d in digits] == [d.fingerprint for d in load("digits")]
    assert [d.fingerprint for d in digits] == ["ead5b3fc2e94648b", "cd288876b8855ec9"]


def test_diabetes_is_standardised_by_the_training_split(diabetes):
    train, test = diabetes
    assert (len(train), len(test)) == (342, 100)
    assert train.inputs.dtype == train.targets.dtype == np.float32
    assert_allclose(train.inputs.mean(axis=0), 0, atol=1e-6)
    assert_allclose(train.inputs.std(axis=0), 1, atol=1e-6)
    assert_allclose([train.targets.mean(), train.targets.std()], [0, 1], atol=1e-6)
    assert np.abs(test.inputs.mean(axis=0)).max() > 0.01
    assert (test.target_mean, test.target_std) == (train.target_mean, train.target_std)


def test_diabetes_is_scikit_learns_table_each_row_once(diabetes):
    table = load_diabetes(scaled=False)
    targets = np.concatenate(
        [part.target_mean + part.target_std * part.targets for part in diabetes]
    )
    inputs = np.concatenate([part.inputs for part in diabetes])
    # Rows by their targets and, among equal ones, by a column that tells them apart.
    bmi = diabetes[0].features.index("bmi")
    mine = np.lexsort((inputs[:, bmi], np.rint(targets)))
    theirs = np.lexsort((table.data[:, bmi], table.target))
    assert_allclose(targets[mine], table.target[theirs], rtol=1e-5)
    raw = table.data[theirs]
    slope = raw.std(axis=0) / inputs.std(axis=0)
    assert_allclose((inputs[mine] - inputs.mean(axis=0)) * slope, raw - raw.mean(axis=0), atol=2e-3)
    assert diabetes[0].features == tuple(table.feature_names)


def test_another_seed_is_another_split_and_the_same_seed_the_same(diabetes):
    again, other = load_regression(), load_regression(seed=1)
    assert [part.fingerprint for part in again] == [part.fingerprint for part in diabetes]
    assert other[0].fingerprint != diabetes[0].fingerprint
    assert diabetes[0].fingerprint != diabetes[1].fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("minst", "unknown data set 'minst'; .*digits, mnist, fashion_mnist; did you mean 'mnist'"),
        ("cifar10", "unknown data set 'cifar10'; expected one of digits, mnist, fashion_mnist$"),
    ],
)
def test_unknown_name(name, message):
    with pytest.raises(InputError, match=message):
        load(name)


def test_unknown_regression():
    with pytest.raises(InputError, match="unknown regression 'diabets'.*did you mean"):
        load_regression("diabets")


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: load("digits"), "the data set digits"),
        (lambda: load_regression("diabetes"), "the data set diabetes"),
    ],
)
def test_without_scikit_learn_the_bundled_data_sets_say_what_to_install(call, what, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.datasets", raising=False)
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == (
        f"{what} needs sklearn, which is not installed; pip install 'probbnn[data]'"
    )


def test_importing_the_module_imports_nothing_heavy():
    code = (
        "import sys, probbnn.data; "
        "print([m for m in ('tensorflow_datasets', 'sklearn', 'PIL', 'tqdm', 'requests') "
        "if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE)
    assert run.stdout.strip() == "[]", run.stderr
