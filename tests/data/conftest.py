"""Data sets that several test files of this directory load."""

import pytest

from probbnn.data import load, load_regression


@pytest.fixture(scope="session")
def digits():
    return load("digits")


@pytest.fixture(scope="session")
def diabetes():
    return load_regression("diabetes")
