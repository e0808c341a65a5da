"""Indices of some of many: at random, or evenly spaced."""

import numpy as np

__all__ = ["evenly_spaced", "random_subset"]


def random_subset(size: int, number: int) -> np.ndarray:
    """At most ``number`` of the indices below ``size``, in order, random and always the same.

    Examples:
        >>> random_subset(3, 10)
        array([0, 1, 2])
        >>> len(random_subset(1_000, 10))
        10
    """
    return np.sort(np.random.default_rng(0).choice(size, min(size, number), replace=False))


def evenly_spaced(size: int, number: int) -> np.ndarray:
    """At most ``number`` of the indices below ``size``, the first and the last among them.

    Examples:
        >>> evenly_spaced(11, 3)
        array([ 0,  5, 10])
        >>> evenly_spaced(2, 3)
        array([0, 1])
    """
    return np.unique(np.linspace(0, size - 1, min(number, size)).round().astype(int))
