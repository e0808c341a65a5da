"""Between a dataclass and the JSON object that holds it, by the annotations of its fields."""

import dataclasses
import reprlib
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from types import NoneType, UnionType
from typing import Any, Self

import numpy as np

from probbnn.errors import InputError
from probbnn.files import plain

__all__ = ["Record", "read_fields", "read_value"]


@dataclass(frozen=True)
class Record:
    """One JSON object."""

    def to_dict(self) -> dict[str, Any]:
        """All of it for JSON, with None for NaN and infinity."""
        return {_key(f): plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, content: object, where: str = "") -> Self:
        """The record that a JSON object holds.

        Args:
            content: what `json.loads` gave.
            where: the file, and the path within it, for messages; default: the class's own file.

        Raises:
            InputError: if a part is of another type than it should be.

        Examples:
            >>> from probbnn.experiments.records import RunRecord
            >>> RunRecord.from_dict({"device": {"kind": "cpu", "cpu_cores": "two"}})
            Traceback (most recent call last):
            probbnn.errors.InputError: run.json: device.cpu_cores is 'two'; expected an integer: ...
        """
        return cls(**read_fields(cls, content, where or getattr(cls, "FILE", cls.__name__)))


def read_fields(kind: Any, content: object, where: str) -> dict[str, Any]:
    """Arguments for a dataclass or a `NamedTuple`, by name."""
    content = _object(content, where)
    hints = typing.get_type_hints(kind)
    found = {}
    for name, key, is_required in _fields(kind):
        value, path = content.get(key), _at(where, key)
        if value is not None or (key in content and hints[name] is float):
            found[name] = read_value(hints[name], value, path)
        elif is_required:
            raise _damaged(f"{path} is missing")
    return found


def _fields(kind: Any) -> list[tuple[str, str, bool]]:
    """Name, key in the file, and whether there is no default, of each field."""
    if dataclasses.is_dataclass(kind):
        return [
            (f.name, _key(f), f.default is MISSING and f.default_factory is MISSING)
            for f in dataclasses.fields(kind)
        ]
    return [(name, name, name not in kind._field_defaults) for name in kind._fields]


def _key(f: dataclasses.Field) -> str:
    return f.metadata.get("key", f.name)


def read_value(kind: Any, value: Any, where: str) -> Any:
    """What JSON has of a value of one type.

    Args:
        kind: a `Record`, another dataclass or a `NamedTuple`, an array, a number, a string, or a
            mapping, a tuple or an optional one of these.
        value: what `json.loads` gave.
        where: the file, and the path within it, for messages.

    Raises:
        InputError: if it is of another type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in (object, Any):
        return value
    if origin in (typing.Union, UnionType):
        (some,) = (a for a in arguments if a is not NoneType)
        return None if value is None else read_value(some, value, where)
    if origin is tuple:
        return tuple(
            read_value(arguments[0], item, f"{where}[{i}]")
            for i, item in enumerate(_list(value, where))
        )
    if origin is Mapping:
        return {
            str(key): read_value(arguments[1], item, _at(where, key))
            for key, item in _object(value, where).items()
        }
    if kind is np.ndarray:
        return np.array([_number(x, f"{where}[{i}]") for i, x in enumerate(_list(value, where))])
    if kind is float:
        return _number(value, where)
    if kind in (int, bool, str) or origin is typing.Literal:
        return _scalar(kind if origin is None else str, value, where)
    if issubclass(kind, Record):
        return kind.from_dict(value, where)
    return kind(**read_fields(kind, value, where))


def _at(where: str, key: object) -> str:
    """The path to what is under a key: ``run.json: device.kind``."""
    return f"{where}.{key}" if ": " in where else f"{where}: {key}"


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _damaged(f"{where} is {reprlib.repr(value)}; expected an object")
    return value


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _damaged(f"{where} is {reprlib.repr(value)}; expected a list")
    return list(value)


def _number(value: object, where: str) -> float:
    if value is None:  # JSON has no NaN
        return float("nan")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _damaged(f"{where} is {reprlib.repr(value)}; expected a number")
    return value


_SCALARS = {int: "an integer", bool: "true or false", str: "a string"}


def _scalar(kind: type, value: object, where: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _damaged(f"{where} is {reprlib.repr(value)}; expected {_SCALARS[kind]}")
    return value


def _damaged(what: str) -> InputError:
    return InputError(f"{what}: restore the file as probbnn wrote it")
