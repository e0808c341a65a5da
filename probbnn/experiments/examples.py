"""The data of an experiment, whatever they were given as, in one form."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Self

import jax
import numpy as np

from probbnn.data.sources import arrays_of
from probbnn.experiments.records import DataRecord

__all__ = ["Examples"]


@dataclass(frozen=True, eq=False)
class Examples:
    """A set of examples.

    Attributes:
        data: as they were given, which may know the names of the classes.
        inputs: shape ``(n, …)``.
        targets: shape ``(n, …)``.
        name: of the data set, and of what was done to it.
        fingerprint: of the content.
    """

    data: Any
    inputs: np.ndarray
    targets: np.ndarray
    name: str
    fingerprint: str

    @classmethod
    def of(cls, data: Any, label: str) -> Self:
        """The examples of a `Dataset`, a `Regression` or a pair of arrays.

        Args:
            data: which ones.
            label: the name of arrays, which have none.

        Raises:
            InputError: if it is nothing of the kind, or inputs are not finite.
        """
        inputs, targets = arrays_of(data)
        return cls(
            data,
            inputs,
            targets,
            name=getattr(data, "name", label),
            fingerprint=getattr(data, "fingerprint", None) or _fingerprint(inputs, targets),
        )

    @classmethod
    def outside(cls, data: Any, label: str) -> Self:
        """The same, or an array of inputs alone, which are none of the classes.

        Nor are names of classes, which are those of something else.
        """
        if isinstance(data, np.ndarray | jax.Array):
            data = data, np.full(data.shape[:1], -1)
        examples = cls.of(data, label)
        if examples.targets.dtype.kind != "U":
            return examples
        return replace(examples, targets=np.full(len(examples.targets), -1))

    @property
    def record(self) -> DataRecord:
        """What goes on record."""
        return DataRecord(self.name, len(self.inputs), self.fingerprint)


def _fingerprint(*arrays: np.ndarray) -> str:
    """Sixteen hexadecimal digits that depend on the content of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
