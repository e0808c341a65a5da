"""What is on record in a run directory, as the report reads it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from probbnn.errors import InputError, first_line
from probbnn.experiments.experiment import MethodRun
from probbnn.experiments.records import (
    FailureRecord,
    MethodMetrics,
    MethodRecord,
    MetricsRecord,
    PredictiveMetrics,
    RunRecord,
    read,
)
from probbnn.files import expanded
from probbnn.netcdf import check_netcdf
from probbnn.samplers.registry import LINES

__all__ = ["Entry", "Run", "collect", "family_of"]


@dataclass(frozen=True)
class Entry:
    """One method of one run.

    Attributes:
        name: of the method.
        label: what the run calls it.
        planned: its row of the experiment, ``None`` if it has none.
        record: what ``run.json`` has of it; like the next two without content if that is nothing.
        metrics: what ``metrics.json`` has of it.
        failure: the same if it failed.
        is_finished: whether there are metrics.
        draws: the file of its draws, ``None`` where none are.
    """

    name: str
    label: str
    planned: MethodRun | None
    record: MethodRecord
    metrics: MethodMetrics
    failure: FailureRecord
    is_finished: bool
    draws: Path | None

    @property
    def is_sampler(self) -> bool:
        """Whether it has chains that can converge, as a fit has not."""
        if self.metrics.convergence is not None:
            return True
        # Older runs, and methods that did not finish, have no more than their name on record.
        return family_of(self.name) in ("SG-MCMC", "MCMC", "")

    @property
    def shown(self) -> str:
        """The predictive that stands for it in the figures."""
        return self.metrics.predictive or next(iter(self.metrics.sets.get("test", {})), "")

    @property
    def num_networks(self) -> int | None:
        """Draws of all chains."""
        chains, draws = self.metrics.num_chains, self.metrics.num_draws
        return None if chains is None or draws is None else chains * draws

    @property
    def temperature(self) -> float | None:
        """T of what it sampled or was to sample, ``None`` if it samples nothing."""
        if self.is_finished:
            return self.metrics.temperature
        asked = self.record.settings.get("temperature")
        return asked if isinstance(asked, int | float) else None

    def on(self, label: str) -> PredictiveMetrics:
        """Metrics of the predictive that is shown, on one set."""
        return self.metrics.sets.get(label, {}).get(self.shown, PredictiveMetrics())

    def group(self, name: str) -> xr.Dataset | None:
        """A group of its ArviZ tree, ``None`` if there is none."""
        if self.draws is None:
            return None
        import h5py

        path = f"{self.name}/{name}"
        with h5py.File(self.draws) as file:
            if path not in file:
                return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what is missing, which is said below
                with xr.open_dataset(
                    self.draws, group=path, engine="h5netcdf", decode_times=False
                ) as dataset:
                    found = dataset.load()
        except Exception as error:  # of whatever library finds the damage
            raise self._damaged(path, f"cannot be read ({first_line(error)})") from error
        missing = [str(dim) for dim in found.dims if dim in _LABELLED and dim not in found.coords]
        if missing:
            raise self._damaged(path, f"has no coordinate {missing[0]}")
        return found

    def values(self, group: str, variable: str, *dims: str) -> xr.DataArray | None:
        """A variable of its ArviZ tree with the axes in this order, ``None`` if there is none."""
        dataset = self.group(group)
        if dataset is None or variable not in dataset:
            return None
        found = dataset[variable]
        if not set(dims) <= set(found.dims):
            raise self._damaged(f"{self.name}/{group}", f"has {variable} over {found.dims}")
        if found.dtype.kind not in "fiub" or not found.size:
            kind = f"{found.dtype}{list(found.shape)}"
            raise self._damaged(f"{self.name}/{group}", f"has {variable} as {kind}")
        return found.transpose(*dims, ...)

    def _damaged(self, path: str, what: str) -> InputError:
        return InputError(f"{self.draws}: {path} {what}; restore the file as probbnn wrote it")


# Dimensions whose labels are shown.
_LABELLED = {"class", "example", "parameter", "probe", "step", "unit"}


@dataclass(frozen=True)
class Run:
    """A run directory.

    Attributes:
        directory: where it is.
        name: of the directory, with what is before it where another run has the same.
        record: the content of ``run.json``.
        entries: the methods that were planned, in order.
        notes: what is wrong with it, a line each.
        prefix: what its methods are called by in the company of other runs.
    """

    directory: Path
    name: str
    record: RunRecord
    entries: Sequence[Entry]
    notes: Sequence[str]
    prefix: str

    @property
    def finished(self) -> list[Entry]:
        """Methods with metrics."""
        return [entry for entry in self.entries if entry.is_finished]


def collect(directories: Sequence[Path]) -> list[Run]:
    """Read run directories.

    Args:
        directories: where `probbnn.experiments.run.run` wrote.

    Raises:
        InputError: if one has no ``run.json`` or is there twice, or what a file holds is of the
            wrong type; whatever else is missing from them is missing from the result.
    """
    directories = [expanded(directory) for directory in directories]
    paths = [directory.resolve() for directory in directories]
    for number, path in enumerate(paths):
        if path in paths[:number]:
            raise InputError(f"{directories[number]} was given twice; give each run once")
    names = [path.name for path in paths]
    # Runs of one name are told apart by what is different before it.
    labels = [
        name if names.count(name) == 1 else "/".join(path.parts[-2:])
        for name, path in zip(names, paths, strict=True)
    ]
    if len(set(labels)) < len(labels):
        labels = [str(path) for path in paths]
    return [
        _collect(directory, name, prefix="" if len(paths) == 1 else f"{name}: ")
        for directory, name in zip(directories, labels, strict=True)
    ]


def _collect(directory: Path, name: str, prefix: str) -> Run:
    draws = directory / "draws.nc"
    try:
        record, metrics = read(RunRecord, directory), read(MetricsRecord, directory)
        unreadable = _unreadable(draws)
    except InputError as error:
        raise InputError(f"{directory}: {error}") from error
    if record is None:
        kind = "is no directory"
        if directory.is_dir():
            found = "a comparison" if (directory / "comparison.json").exists() else "no run"
            kind = f"holds {found}: there is no run.json that can be read"
        raise InputError(f"{directory} {kind}; give a directory that `probbnn run` wrote")
    notes = []
    if record.status == "running":
        notes.append("This run is running: shown are the methods that had finished.")
    elif record.status != "finished":
        notes.append(f"This run did not finish ({record.status}): shown are the methods that had.")
    if metrics is None:
        notes.append("metrics.json cannot be read: there are no metrics and no verdicts.")
        metrics = MetricsRecord()
    if unreadable and metrics.methods:
        notes.append(f"{unreadable}: traces, ranks, R-hat and images are missing.")
    planned = record.experiment.methods
    entries = []
    for method in dict.fromkeys([*planned, *metrics.methods]):
        measured = metrics.methods.get(method, MethodMetrics())
        row = planned.get(method)
        entries.append(
            Entry(
                name=method,
                label=(row.label if row else measured.label) or method,
                planned=row,
                record=record.methods.get(method, MethodRecord()),
                metrics=measured,
                failure=metrics.failures.get(method, FailureRecord()),
                is_finished=method in metrics.methods,
                draws=None if unreadable else draws,
            )
        )
    return Run(directory, name, record, entries, notes, prefix)


def _unreadable(draws: Path) -> str:
    """Why there are no draws to show, ``""`` if there are."""
    try:
        check_netcdf(draws)
    except FileNotFoundError:
        return "There is no draws.nc"
    except OSError:
        return "draws.nc cannot be read"
    return ""


def family_of(method: str) -> str:
    """The family of a method by its name, ``""`` if it is none of ours."""
    return LINES[method].family if method in LINES else ""
