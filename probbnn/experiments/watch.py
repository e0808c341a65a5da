"""How a run is getting on, for whoever looks at its directory from elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from probbnn.errors import InputError
from probbnn.experiments.records import RunRecord, read
from probbnn.files import read_json
from probbnn.inference.directory import is_held

__all__ = ["Status", "status"]


@dataclass(frozen=True)
class Status:
    """Where a run is.

    Attributes:
        lines: one on the run, and one for each method.
        is_running: whether a process is at work on it.
    """

    lines: tuple[str, ...]
    is_running: bool

    def __str__(self) -> str:
        return "\n".join(self.lines)


def status(directory: Path) -> Status:
    """How the run in a directory is getting on.

    Raises:
        InputError: if there is none.
    """
    record = read(RunRecord, directory)
    if record is None:
        raise InputError(f"{directory} holds no run: there is no run.json that can be read")
    is_running = record.status == "running" and is_held(directory)
    head = f"{directory}: {record.status}"
    if record.status not in ("running", "finished") or (
        record.status == "running" and not is_running
    ):
        head = f"{directory}: interrupted; go on with: probbnn resume {directory}"
    lines = [head]
    for name, row in record.experiment.methods.items():
        ended = record.methods.get(name)
        label = f"  {row.label or name}: "
        if ended is not None and ended.status != "running":
            lines.append(label + ended.status + (f" ({ended.reason})" if ended.reason else ""))
        else:
            lines.append(label + _progress(directory / "methods" / name / "progress.json"))
    return Status(tuple(lines), is_running)


def _progress(path: Path) -> str:
    found = _read(path)
    step, num_steps = (_number(found, key) for key in ("step", "num_steps"))
    if step is None or not num_steps:
        return "not begun"
    parts = [f"step {step:,.0f} of {num_steps:,.0f} ({step / num_steps:.0%})"]
    if rate := _number(found, "steps_per_second"):
        parts.append(f"{rate:,.0f} steps/s")
    if (left := _number(found, "seconds_left")) is not None:
        parts.append(f"{_time(left)} left")
    for key in ("median R-hat", "smallest ESS", "temperature"):
        if (value := _number(found, key)) is not None:
            parts.append(f"{key} {value:.4g}")
    return ", ".join(parts)


def _read(path: Path) -> Mapping[str, object]:
    try:
        found = read_json(path)
    except (OSError, ValueError):  # not there yet, or none of ours
        return {}
    return found if isinstance(found, dict) else {}


def _number(found: Mapping[str, object], key: str) -> float | None:
    value = found.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None  # type: ignore[return-value]


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
