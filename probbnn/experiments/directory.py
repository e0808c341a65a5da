"""The directory of a run: its files are written anew, each atomically, after each method."""

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import numpy as np
import xarray as xr

from probbnn.diagnostics import diverged
from probbnn.errors import OutputError, writing_to
from probbnn.experiments.loop import Failure
from probbnn.experiments.method import MethodResult
from probbnn.experiments.records import (
    ComparisonRecord,
    DataRecord,
    Device,
    FailureRecord,
    MethodRecord,
    MetricsRecord,
    RunRecord,
    read,
)
from probbnn.experiments.setup import Setup
from probbnn.files import write_json, written_atomically
from probbnn.inference.directory import Lock
from probbnn.machine import environment
from probbnn.netcdf import check_netcdf

__all__ = ["ResultDirectory", "RunDirectory", "beginning", "data_of"]

_DRAWS = "draws.nc"
_SPARE_BYTES = 2**20
# Of the 23 bits of a float32 behind the point: the others are right to a part in 16,000.
_DROPPED_BITS = 10

_Record = TypeVar("_Record", RunRecord, ComparisonRecord)


def beginning(setup: Setup, seed: int) -> dict[str, Any]:
    """What the record of any result begins with, by field."""
    made = environment()
    return {
        "status": "running",
        "experiment": setup.record,
        "seed": seed,
        **made,
        "device": Device(**made["device"]),
    }


class ResultDirectory(Generic[_Record]):
    """Keeps a record in its file up to date; used as a context, it says how it ended.

    Attributes:
        path: the directory, which belongs to this process as long as the context lasts.
        record: what is on record so far.

    Raises:
        InputError: if another process is at work there.
        OutputError: if it cannot be written.
    """

    def __init__(self, path: Path, record: _Record) -> None:
        self.path = path
        self._lock = Lock(path)
        self.record: _Record = record
        self._started = time.perf_counter() - (record.seconds or 0.0)
        try:
            with writing_to(path):
                self.write()
        except OutputError:
            # Nothing was begun, so nothing is left behind where nothing was before.
            self._lock.release()
            with contextlib.suppress(OSError):
                (path / "lock").unlink(missing_ok=True)
                path.rmdir()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self.record.status == "running":
                broken = isinstance(error, KeyboardInterrupt | SystemExit | OutputError)
                status = "interrupted" if broken else "failed"
                self.end("finished" if error is None else status)
        except OSError:
            if error is None:
                raise
        finally:
            self._lock.release()
            with contextlib.suppress(OSError):
                (self.path / "lock").unlink(missing_ok=True)

    def end(self, status: str) -> None:
        """Record how it ended, and after how long."""
        self.note(status=status, seconds=time.perf_counter() - self._started)

    def note(self, **fields: Any) -> None:
        """Put these fields on record."""
        self.record = replace(self.record, **fields)
        self.write()

    def write(self) -> None:
        """Write the files."""
        write_json(self.path / self.record.FILE, self.record)


class RunDirectory(ResultDirectory[RunRecord]):
    """``run.json``, ``metrics.json`` and ``draws.nc`` of a run.

    Attributes:
        metrics: what is in ``metrics.json`` so far.
    """

    def __init__(
        self, path: Path, setup: Setup, record: RunRecord, metrics: MetricsRecord, tree: xr.DataTree
    ) -> None:
        self._setup = setup
        self._tree = tree
        self.metrics = metrics
        super().__init__(path, record)

    @classmethod
    def begin(cls, path: Path, setup: Setup, seed: int, **asked: Any) -> Self:
        """A new one; ``asked``: the fields of `RunRecord` that say what was asked for."""
        record = RunRecord(**beginning(setup, seed), data=data_of(setup), **asked)
        return cls(path, setup, record, MetricsRecord(), xr.DataTree())

    @classmethod
    def open(cls, path: Path, setup: Setup, record: RunRecord, **asked: Any) -> Self:
        """One that goes on, with what had finished there."""
        metrics = read(MetricsRecord, path) or MetricsRecord()
        record = replace(record, status="running", **asked)
        return cls(path, setup, record, metrics, _read_tree(path / _DRAWS, metrics))

    def add(self, result: MethodResult) -> None:
        """Write a method that finished."""
        name, draws = result.method, result.draws
        self._tree[name] = result.tree
        # First: what is on record as finished is whole.
        _write_tree(self._tree, self.path / _DRAWS)
        methods = {**self.metrics.methods, name: result.metrics}
        self.metrics = replace(self.metrics, methods=methods)
        self._put(
            name,
            MethodRecord(
                status="finished",
                settings=draws.settings,
                temperature=draws.temperature,
                seconds=draws.seconds,
                compile_seconds=draws.compile_seconds,
            ),
        )

    def add_failure(self, name: str, failure: Failure) -> None:
        """Write why a method did not finish; the result that one has had stays."""
        if failure.refused and name in self.metrics.methods:
            self._put(name, replace(self.record.methods[name], status="finished"))
            return
        run = self._setup.methods[name].run
        verdict = diverged(failure.reason) if failure.diverged else None
        self.metrics = replace(
            self.metrics,
            methods={k: v for k, v in self.metrics.methods.items() if k != name},
            failures={**self.metrics.failures, name: FailureRecord(run.label, verdict)},
        )
        self._put(
            name,
            MethodRecord(
                status="diverged" if failure.diverged else "failed",
                settings=run.settings,
                reason=failure.reason,
            ),
        )

    def write(self) -> None:
        """Write both JSON files."""
        super().write()
        write_json(self.path / self.metrics.FILE, self.metrics)

    def _put(self, name: str, method: MethodRecord) -> None:
        self.note(methods={**self.record.methods, name: method})

    def again(self, names: Sequence[str]) -> None:
        """Put on record that these methods go on, so that they do if this is interrupted."""
        methods = dict(self.record.methods)
        for name in names:
            if name in methods:
                methods[name] = replace(methods[name], status="running")
        self.note(methods=methods)

    @property
    def unfinished(self) -> list[str]:
        """Methods that have no result yet, and those that failed for a reason that may be gone."""
        done = {
            name
            for name, method in self.record.methods.items()
            if method.status == "diverged"
            or (method.status == "finished" and name in self.metrics.methods)
        }
        return [name for name in self._setup.methods if name not in done]


def data_of(setup: Setup) -> dict[str, DataRecord]:
    """What is on record of the data of an experiment."""
    sets = {"train": setup.train, **setup.sets}
    return {label: examples.record for label, examples in sets.items()}


def _write_tree(tree: xr.DataTree, path: Path) -> None:
    # HDF5 may crash where the disk is full, so that this is seen before.
    needed = tree.nbytes + _SPARE_BYTES
    if shutil.disk_usage(path.parent).free < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    tree = tree.map_over_datasets(lambda of_group: of_group.map(_rounded, keep_attrs=True))
    packed = {"zlib": True, "complevel": 1, "shuffle": True}
    encoding = {
        node.path: {name: packed for name, values in node.data_vars.items() if values.ndim > 1}
        for node in tree.subtree
    }
    with written_atomically(path) as part:
        tree.to_netcdf(part, engine="h5netcdf", encoding=encoding)


def _rounded(values: xr.DataArray) -> xr.DataArray:
    """What draws say, to four digits, so that it can be compressed; anything else as it is."""
    if values.dtype != np.float32 or not {"chain", "draw"} < set(values.dims) or values.ndim < 4:
        return values
    bits = np.ascontiguousarray(values.values).view(np.uint32)
    half = np.uint32(1 << (_DROPPED_BITS - 1))
    kept = ((bits + half) >> _DROPPED_BITS << _DROPPED_BITS).view(np.float32)
    # Of what is not finite a carry could make something else.
    return values.copy(data=np.where(np.isfinite(values.values), kept, values.values))


def _read_tree(path: Path, metrics: MetricsRecord) -> xr.DataTree:
    """The trees of the methods that have metrics."""
    if not metrics.methods or not path.is_file():
        return xr.DataTree()
    check_netcdf(path)
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        return tree.load().copy()
