"""Data sets: images (digits, MNIST, Fashion-MNIST), a regression, and what lies outside them."""

from probbnn.data.dataset import Dataset, Examples, Regression
from probbnn.data.datasets import DATASETS, REGRESSIONS, load, load_regression
from probbnn.data.shifts import SHIFTS, out_of_distribution, patches, shift, stretch

__all__ = [
    "DATASETS",
    "REGRESSIONS",
    "SHIFTS",
    "Dataset",
    "Examples",
    "Regression",
    "load",
    "load_regression",
    "out_of_distribution",
    "patches",
    "shift",
    "stretch",
]
