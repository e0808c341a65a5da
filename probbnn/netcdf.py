"""``draws.nc`` of somebody else: what is in it is seen to before anything of it is loaded.

HDF5, which NetCDF is kept in, has ways to other files (external storage, external and symbolic
links, virtual data sets), hard links that make a tree without end, and sizes that nothing in the
file stands for. What xarray writes has none of them.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from probbnn.errors import InputError, first_line, requires
from probbnn.files import check_regular
from probbnn.machine import available_memory

if TYPE_CHECKING:
    import h5py

__all__ = ["check_netcdf"]

# What zlib can make of a byte is more; of draws it makes two or three.
_MAX_RATIO = 100
_MAX_OBJECTS = 100_000
# Of what has a length of its own, such as names of classes: how many, and how long together.
_MAX_STRINGS = 100_000
_MAX_STRING_BYTES = 2**24
# Of an attribute, which is loaded whole.
_MAX_ATTRIBUTE_BYTES = 2**16
_MAX_ATTRIBUTE_ITEMS = 32


def check_netcdf(path: Path) -> None:
    """See that a file of draws stands for itself, and fits into memory.

    Raises:
        FileNotFoundError: if there is none.
        OSError: if HDF5 cannot read it.
        InputError: if it is no regular file, refers to other files or to itself, or declares more
            than it holds or memory has.
    """
    check_regular(path)
    with requires("a report", extra="report"):
        import h5py

    try:
        with h5py.File(path) as file:
            declared = sum(_check_object(path, item) for item in _objects(path, file))
    except (InputError, OSError):
        raise
    except Exception as error:  # h5py has one of many kinds for each kind of damage
        raise OSError(first_line(error)) from error
    available, size = available_memory(), path.stat().st_size
    if declared > min(_MAX_RATIO * size, available or math.inf):
        raise _refused(
            path,
            f"declares {declared:,} bytes of data in a file of {size:,}"
            + (f", and {available:,} are available" if available else ""),
        )


def _objects(path: Path, file: "h5py.File") -> "list[h5py.Group | h5py.Dataset]":
    """All groups and data sets, each of which has one name."""
    import h5py

    found, seen = [file["/"]], {h5py.h5o.get_info(file.id).addr}
    for group in found:  # which grows on the way
        if not isinstance(group, h5py.Group):
            continue
        for name in group:
            link = group.get(name, getlink=True)
            where = f"{group.name.rstrip('/')}/{name}"
            if not isinstance(link, h5py.HardLink):
                raise _refused(path, f"has a link at {where:.80}")
            item = group[name]
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:
                raise _refused(path, f"has a second name for one thing, {where:.80}")
            seen.add(address)
            found.append(item)
            if len(found) > _MAX_OBJECTS:
                raise _refused(path, f"has more than {_MAX_OBJECTS:,} groups and variables")
    return found


def _check_object(path: Path, item: "h5py.Group | h5py.Dataset") -> int:
    """Bytes that it declares."""
    import h5py

    for name in item.attrs:
        attribute = item.attrs.get_id(name)
        is_many = attribute.get_space().get_simple_extent_npoints() > _MAX_ATTRIBUTE_ITEMS
        if attribute.get_storage_size() > _MAX_ATTRIBUTE_BYTES or (
            is_many and _has_own_length(attribute.get_type())
        ):
            raise _refused(path, f"has a large attribute, {name:.80} of {item.name:.80}")
    if not isinstance(item, h5py.Dataset):
        return 0
    if item.external:
        raise _refused(path, f"keeps {item.name:.80} in other files")
    if item.is_virtual:
        raise _refused(path, f"puts {item.name:.80} together from elsewhere")
    if _has_own_length(item.id.get_type()):
        return _length_of_strings(path, item)
    return item.size * item.dtype.itemsize if item.shape else 0


def _has_own_length(kind: "h5py.h5t.TypeID") -> bool:
    import h5py

    is_string = isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
    return is_string or isinstance(kind, h5py.h5t.TypeVlenID)


def _length_of_strings(path: Path, item: "h5py.Dataset") -> int:
    """What strings take together: many of them may be one and the same in the file."""
    if (item.size or 0) > _MAX_STRINGS:
        raise _refused(path, f"has {item.size:,} strings in {item.name:.80}")
    total = 0
    for index in np.ndindex(item.shape or (0,)):
        total += len(item[index])
        if total > _MAX_STRING_BYTES:
            raise _refused(path, f"has more than {_MAX_STRING_BYTES:,} bytes in {item.name:.80}")
    return total


def _refused(path: Path, why: str) -> InputError:
    return InputError(f"{path.name} {why}, which no run writes; do not use it")
