"""Arguments as callers give them: numbers that are numbers, in a range that a run can have."""

import typing
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probbnn.errors import InputError, is_positive

__all__ = [
    "check_fields",
    "check_flag",
    "check_key",
    "check_number",
    "check_positive",
    "check_whole",
]

# Steps, draws and examples are counted in int32 on the device.
_MAX_WHOLE = 2**31 - 1


def check_whole(minimum: int | None = None, **numbers: Any) -> None:
    """Raise `InputError` unless each number is a whole one, or ``None``.

    Args:
        minimum: the least that it may be.
        **numbers: by what they are called.

    Examples:
        >>> check_whole(num_steps=1e3)
        Traceback (most recent call last):
        probbnn.errors.InputError: num_steps is 1000.0; a whole number is expected, such as 1000
    """
    for name, number in numbers.items():
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, Integral):
            is_near = isinstance(number, Real) and float(number).is_integer()
            hint = f", such as {int(number)}" if is_near and not isinstance(number, bool) else ""
            raise InputError(f"{name} is {number!r:.80}; a whole number is expected{hint}")
        if minimum is not None and number < minimum:
            raise InputError(f"{name} is {number:,}; it must be at least {minimum}")
        if abs(int(number)) > _MAX_WHOLE:
            raise InputError(f"{name} is {number:,}; it can be {_MAX_WHOLE:,} at most")


def check_number(**numbers: Any) -> None:
    """Raise `InputError` unless each is one number, or ``None``; truth values are none."""
    for name, number in numbers.items():
        is_array = hasattr(number, "dtype") and np.ndim(number) == 0 and not _is_bool(number)
        if number is None or (is_array and jnp.issubdtype(number.dtype, jnp.number)):
            continue
        if isinstance(number, bool) or not isinstance(number, Real):
            raise InputError(f"{name} is {number!r:.80}; a number is expected")


def check_positive(hint: str = "", /, **numbers: Any) -> None:
    """Raise `InputError` unless all are positive and finite.

    Args:
        hint: what else to say of them.
        **numbers: by what they are called.
    """
    for name, number in numbers.items():
        if not is_positive(number):
            rounded = isinstance(number, float) and 0 < number < float("inf")
            where = " in float32" if rounded else ""
            raise InputError(
                f"{name} is {number!r:.80}; it must be positive and finite{where}{hint}"
            )


def check_flag(**flags: Any) -> None:
    """Raise `InputError` unless each is True or False."""
    for name, flag in flags.items():
        if not isinstance(flag, bool | np.bool_):
            raise InputError(f"{name} is {flag!r:.80}; True or False is expected")


def check_fields(settings: Any) -> None:
    """Raise `InputError` unless the numbers and flags of a dataclass are of the declared kind."""
    hints = typing.get_type_hints(type(settings))
    checks = {bool: check_flag, int: check_whole, float: check_number}
    for f in fields(settings):
        if hints[f.name] in checks:
            checks[hints[f.name]](**{f.name: getattr(settings, f.name)})


def check_key(rng_key: Any) -> None:
    """Raise `InputError` unless this is one random key of JAX."""
    dtype, shape = getattr(rng_key, "dtype", None), np.shape(rng_key)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if shape == ():
            return
        raise InputError(f"rng_key is an array of keys, of shape {shape}; give one of them")
    if dtype != np.uint32 or shape != (2,):
        given = f"{rng_key!r:.80}" if dtype is None else f"an array of {dtype}, of shape {shape}"
        seed = f"{rng_key}" if isinstance(rng_key, Integral) else "0"
        raise InputError(f"rng_key is {given}; a key is expected, such as jax.random.key({seed})")


def _is_bool(number: Any) -> bool:
    return number.dtype == bool
