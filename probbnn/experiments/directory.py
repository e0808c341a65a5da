"""The directory of a run: its files are written anew, each atomically, after each method."""

import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import xarray as xr

from probbnn.diagnostics import diverged
from probbnn.experiments.loop import Failure
from probbnn.experiments.method import MethodResult
from probbnn.experiments.records import (
    ComparisonRecord,
    Device,
    FailureRecord,
    MethodRecord,
    MetricsRecord,
    RunRecord,
)
from probbnn.experiments.setup import Setup
from probbnn.files import write_json, written_atomically
from probbnn.machine import environment

__all__ = ["ResultDirectory", "RunDirectory", "beginning"]

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
        path: the directory.
        record: what is on record so far.
    """

    def __init__(self, path: Path, record: _Record) -> None:
        self.path = path
        self.record: _Record = record
        self._started = time.perf_counter()
        self.write()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.record.status == "running":
            broken = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            self.end("finished" if error is None else broken)

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

    def __init__(self, path: Path, setup: Setup, seed: int) -> None:
        self._setup = setup
        self._tree = xr.DataTree()
        self.metrics = MetricsRecord()
        sets = {"train": setup.train, **setup.sets}
        data = {label: examples.record for label, examples in sets.items()}
        super().__init__(path, RunRecord(**beginning(setup, seed), data=data))

    def add(self, result: MethodResult) -> None:
        """Write a method that finished."""
        name, draws = result.method, result.draws
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
        self._tree[name] = result.tree
        with written_atomically(self.path / "draws.nc") as path:
            self._tree.to_netcdf(path, engine="h5netcdf")

    def add_failure(self, name: str, failure: Failure) -> None:
        """Write why a method did not finish."""
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
