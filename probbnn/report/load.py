"""What is on record in a run directory, as the report reads it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probbnn.errors import InputError
from probbnn.samplers.registry import METHODS

if TYPE_CHECKING:
    import xarray

__all__ = ["Entry", "Run", "at", "collect"]


@dataclass(frozen=True)
class Entry:
    """One method of one run; empty where there is nothing on record.

    Attributes:
        name: of the method.
        label: what the run calls it.
        planned: its row of the preset.
        record: what ``run.json`` has of it.
        metrics: what ``metrics.json`` has of it.
        failure: the same if it failed.
        tree: its ArviZ tree.
    """

    name: str
    label: str
    planned: Mapping[str, Any]
    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    failure: Mapping[str, Any]
    tree: "xarray.DataTree | None"

    @property
    def is_sampler(self) -> bool:
        """Whether it has chains that can converge, as a fit has not."""
        return self.name not in METHODS or METHODS[self.name].family in ("SG-MCMC", "MCMC")

    @property
    def shown(self) -> str:
        """The predictive that stands for it in the figures."""
        kinds = at(self.metrics, "sets", "test") or {}
        return self.metrics.get("predictive") or next(iter(kinds), "")

    @property
    def num_networks(self) -> int | None:
        """Draws of all chains."""
        chains, draws = (self.metrics.get(name) for name in ("num_chains", "num_draws"))
        return chains * draws if isinstance(chains, int) and isinstance(draws, int) else None

    def group(self, name: str) -> Any:
        """A group of its tree, ``None`` if there is none."""
        return None if self.tree is None or name not in self.tree.children else self.tree[name]


@dataclass(frozen=True)
class Run:
    """A run directory.

    Attributes:
        name: of the directory.
        record: the content of ``run.json``.
        entries: the methods that were planned, in order.
        problems: what is wrong with it, a line each.
        prefix: what its methods are called by in the company of other runs.
    """

    name: str
    record: Mapping[str, Any]
    entries: list[Entry]
    problems: list[str]
    prefix: str

    @property
    def finished(self) -> list[Entry]:
        """Methods with metrics."""
        return [entry for entry in self.entries if entry.metrics]


def collect(directories: Sequence[Path]) -> list[Run]:
    """Read run directories.

    Args:
        directories: where `probbnn.experiments.run.run` wrote.

    Raises:
        InputError: if one has no ``run.json`` or is there twice; whatever else is missing from
            them is missing from the result.
    """
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
    record = _read_json(directory / "run.json")
    if record is None:
        kind = "is no directory"
        if directory.is_dir():
            found = "a comparison" if (directory / "comparison.json").exists() else "no run"
            kind = f"holds {found}: there is no run.json that can be read"
        raise InputError(f"{directory} {kind}; give a directory that `probbnn run` wrote")
    problems = []
    status = record.get("status")
    if status != "finished":
        problems.append(
            f"This run is {status}: shown are the methods that had finished."
            if status == "running"
            else f"This run did not finish ({status}): shown are the methods that had."
        )
    metrics = _read_json(directory / "metrics.json")
    if metrics is None:
        problems.append("metrics.json cannot be read: there are no metrics and no verdicts.")
    trees, problem = _read_draws(directory / "draws.nc")
    methods = at(metrics, "methods") or {}
    if problem and methods:
        problems.append(problem)
    planned = at(record, "preset", "methods") or {}
    entries = [
        Entry(
            name=method,
            label=at(planned, method, "label") or at(methods, method, "label") or method,
            planned=at(planned, method) or {},
            record=at(record, "methods", method) or {},
            metrics=at(methods, method) or {},
            failure=at(metrics, "failures", method) or {},
            tree=trees.get(method),
        )
        for method in dict.fromkeys([*planned, *methods])
    ]
    return Run(name, record, entries, problems, prefix)


def _read_json(path: Path) -> dict[str, Any] | None:
    """What is in the file, ``None`` where that is nothing that a run writes."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _read_draws(path: Path) -> tuple[dict[str, Any], str]:
    """The tree of each method, read whole, and what is wrong if there is none."""
    import xarray as xr

    if not path.exists():
        return {}, "There is no draws.nc: traces, ranks, R-hat and images are missing."
    try:
        with xr.open_datatree(path, engine="h5netcdf") as tree:
            return dict(tree.load().children), ""
    except (OSError, ValueError, KeyError):
        return {}, "draws.nc cannot be read: traces, ranks, R-hat and images are missing."


def at(content: Any, *keys: str) -> Any:
    """What is at the end of a path of keys, ``None`` if there is no such path."""
    for key in keys:
        if not isinstance(content, Mapping) or key not in content:
            return None
        content = content[key]
    return content
