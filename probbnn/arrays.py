"""Arrays as they are given, and as a device holds them: no number changes unseen on the way."""

from typing import TYPE_CHECKING, Any

import numpy as np

from probbnn.errors import InputError

if TYPE_CHECKING:
    import jax

__all__ = ["canonical", "on_device", "owned", "unmasked", "with_dtype"]

# A column keeps its meaning where rounding moves it by less than this part of its range.
_MAX_ROUNDING = 0.01


def unmasked(values: Any, what: str) -> np.ndarray:
    """``values`` as a NumPy array, which has no mask.

    Raises:
        InputError: if they have one, which nothing behind would look at.

    Examples:
        >>> unmasked([1, 2], "inputs")
        array([1, 2])
    """
    if isinstance(values, np.ma.MaskedArray):
        number = int(np.ma.count_masked(values))
        raise InputError(
            f"{what} are a masked array with {number} masked entries, which would be taken for "
            "numbers; remove or impute those examples and give .data"
        )
    return np.asarray(values)


def owned(array: np.ndarray) -> np.ndarray:
    """A read-only copy, which stays as it is whatever becomes of the original."""
    copy = np.array(array)
    copy.flags.writeable = False
    return copy.view()


def with_dtype(array: np.ndarray, dtype: Any, what: str) -> np.ndarray:
    """``array`` with another type of numbers, which hold the same.

    Floating-point numbers may be rounded, as long as they do not run into one another or leave the
    range of the type.

    Raises:
        InputError: if a number would become another one.

    Examples:
        >>> with_dtype(np.array([3_000_000_000]), np.int32, "targets")
        Traceback (most recent call last):
        probbnn.errors.InputError: targets hold 3,000,000,000, which int32 cannot: it ends at ...
    """
    dtype = np.dtype(dtype)
    if not array.size or array.dtype.kind not in "iuf" or array.dtype == dtype:
        return array.astype(dtype, copy=False)
    low, high = array.min(), array.max()
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if low < limits.min or high > limits.max:
            worst = high if high > limits.max else low
            raise InputError(
                f"{what} hold {worst:,}, which {dtype} cannot: it ends at {limits.max:,}; give "
                "floating-point numbers, or subtract and divide first"
            )
    elif dtype.itemsize < 8 and array.dtype.itemsize >= 4:
        _check_rounding(array, dtype, what)
    return array.astype(dtype, copy=False)


def _check_rounding(array: np.ndarray, dtype: np.dtype, what: str) -> None:
    import jax  # here, since the list of the data sets does without it

    limits = jax.numpy.finfo(dtype)
    # Of NaN and infinity others have to speak.
    low, high = (np.asarray(f(array, axis=0), float) for f in (np.min, np.max))
    peak, spread = np.asarray(np.maximum(np.abs(low), np.abs(high))), np.asarray(high - low)
    too_large = np.isfinite(peak) & (peak > float(limits.max))
    if too_large.any():
        raise InputError(
            f"{what} hold {peak[too_large].flat[0]:.4g}, which {dtype} cannot: it ends at "
            f"{float(limits.max):.4g}; scale them first"
        )
    merged = (spread > 0) & (peak * float(limits.eps) / 2 > _MAX_ROUNDING * spread)
    if merged.any():
        raise InputError(
            f"{what} vary by {spread[merged].flat[0]:.4g} around {peak[merged].flat[0]:.10g}, "
            f"which {dtype} rounds away; subtract the mean first"
        )


def canonical(array: np.ndarray, what: str) -> np.ndarray:
    """``array`` with the type that JAX has on the device: 32 bits without ``JAX_ENABLE_X64``.

    Raises:
        InputError: if a number would become another one.
    """
    import jax

    return with_dtype(array, jax.dtypes.canonicalize_dtype(array.dtype), what)


def on_device(array: np.ndarray, what: str) -> "jax.Array":
    """A copy of ``array`` on the device.

    Raises:
        InputError: if a number would become another one.
    """
    import jax

    # A copy; `jax.device_put` takes the very memory of the array where the device is a CPU.
    return jax.numpy.array(canonical(array, what))
