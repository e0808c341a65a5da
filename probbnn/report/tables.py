"""The terminal's tables of a run, made from the content of ``metrics.json``."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

__all__ = [
    "in_distribution_table",
    "out_of_distribution_table",
    "temperature_lines",
    "verdict_lines",
]

# The threshold of the notebook's claims.
_THRESHOLD = 0.6
_KINDS = {"plug_in": "plug-in", "mean_softmax": "mean", "votes": "votes"}


def in_distribution_table(metrics: Mapping[str, Any]) -> Table:
    """Accuracy and calibration on the test set, one row per method and predictive."""
    table = _table("In distribution: test set")
    for heading in ("T", "networks", "error % [95 %]", "NLL", "ECE", "seconds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for method, kind, m in _rows(metrics):
        e = m["sets"]["test"][kind]
        table.add_row(
            method,
            _KINDS[kind],
            "–" if m["temperature"] is None else f"{m['temperature']:,g}",
            str(m["num_chains"] * m["num_draws"]),
            _interval(e["error"], "{:.2f}", 100),
            # Most of the votes' NLL is the floor under probabilities of 0: no number to compare.
            "–" if kind == "votes" else _value(e["nll"], "{:.4f}"),
            _value(e["ece"], "{:.3f}"),
            f"{m['seconds']:.0f}",
        )
    return table


def out_of_distribution_table(metrics: Mapping[str, Any]) -> Table:
    """Detection and over-confidence on each out-of-distribution set."""
    table = _table(
        f"Out of distribution: sure (≥ {_THRESHOLD}), right of those, AUROC by score",
        "inputs",
    )
    for heading in ("sure", "right", "max p", "entropy", "MI"):
        table.add_column(heading, justify="right", no_wrap=True)
    labels = [label for m in metrics["methods"].values() for label in m["detection"]]
    for label in dict.fromkeys(labels):  # each once, in order
        for method, kind, m in _rows(metrics):
            thresholds = m["sets"][label][kind]["thresholds"]
            i = np.argmin(np.abs(np.array(thresholds["thresholds"]) - _THRESHOLD))
            right = thresholds["accuracy"][i]
            table.add_row(
                label,
                method,
                _KINDS[kind],
                f"{100 * thresholds['coverage'][i]:.1f} %",
                "no predictions" if right is None else f"{100 * right:.1f} %",
                *(_auroc(name, score, kind) for name, score in m["detection"][label].items()),
            )
        table.add_section()
    return table


def temperature_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """What the temperature meters say of each method that samples, one line each."""
    for m in metrics["methods"].values():
        if m["temperature_meters"] is not None:
            yield f"{m['label']}: {m['temperature_meters']['verdict']}"


def verdict_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Did it converge, and what to do if not: one line for each method that samples."""
    for m in [*metrics["methods"].values(), *metrics["failures"].values()]:
        verdict = m["verdict"]
        if verdict is not None:
            why = f" ({verdict['cause']})" if verdict["cause"] else ""
            yield f"{m['label']}: {verdict['label']}{why}; next: {verdict['next_step']}"


def _table(title: str, *first_columns: str) -> Table:
    """A table narrow enough for 80 columns, with the columns that every row begins with."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False
    )
    for heading in (*first_columns, "method", "predictive"):
        table.add_column(heading, no_wrap=True)
    return table


def _auroc(name: str, score: Mapping[str, Any], kind: str) -> str:
    # The scores are those of the mean softmax; and one network alone cannot disagree.
    if kind == "votes" or (kind == "plug_in" and name == "mutual information"):
        return "–"
    return _value(score["auroc"], "{:.3f}")


def _rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for m in metrics["methods"].values():
        for kind in m["sets"]["test"]:
            if kind in _KINDS:
                yield m["label"], kind, m


def _value(interval: Mapping[str, float] | None, spec: str) -> str:
    return "no labels" if interval is None else spec.format(interval["value"])


def _interval(interval: Mapping[str, float] | None, spec: str, factor: float = 1) -> str:
    if interval is None:
        return "no labels"
    value, low, high = (spec.format(factor * interval[k]) for k in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
