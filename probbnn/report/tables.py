"""The terminal's tables of a run, made from the content of ``metrics.json``."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from rich.table import Table

__all__ = ["in_distribution_table", "out_of_distribution_table"]

# The threshold of the notebook's claims.
_THRESHOLD = 0.6
_KINDS = {
    "plug_in": "plug-in",
    "mean_softmax": "mean softmax",
    "votes": "votes",
    "mean_logits": "mean logits",
}


def in_distribution_table(metrics: Mapping[str, Any]) -> Table:
    """Accuracy and calibration on the test set, one row per method and predictive."""
    table = Table(title="In distribution: test set", title_justify="left")
    table.add_column("method")
    table.add_column("predictive")
    for heading in ("T", "networks", "error % [95 %]", "NLL [95 %]", "Brier", "ECE", "AURC", "s"):
        table.add_column(heading, justify="right")
    for method, kind, m in _rows(metrics):
        e = m["sets"]["test"][kind]
        table.add_row(
            method,
            _KINDS[kind],
            _temperature(m["temperature"]),
            str(m["num_chains"] * m["num_draws"]),
            _interval(e["error"], "{:.2f}", 100),
            # Most of the votes' NLL is the floor under probabilities of 0: no number to compare.
            "–" if kind == "votes" else _interval(e["nll"], "{:.4f}"),
            _value(e["brier"], "{:.4f}"),
            _value(e["ece"], "{:.4f}"),
            _value(e["aurc"], "{:.5f}"),
            f"{m['seconds']:.1f}",
        )
    return table


def out_of_distribution_table(metrics: Mapping[str, Any]) -> Table:
    """Detection and over-confidence on each out-of-distribution set."""
    table = Table(title="Out of distribution", title_justify="left")
    table.add_column("inputs")
    table.add_column("method")
    table.add_column("predictive")
    table.add_column(f"predicts at ≥ {_THRESHOLD}", justify="right")
    table.add_column("right of those", justify="right")
    for heading in ("max prob.", "entropy", "mutual inf."):
        table.add_column(f"AUROC {heading}", justify="right")
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


def _auroc(name: str, score: Mapping[str, Any], kind: str) -> str:
    # The scores are those of the mean softmax; and one network alone cannot disagree.
    if kind == "votes" or (kind == "plug_in" and name == "mutual information"):
        return "–"
    return _value(score["auroc"], "{:.3f}")


def _rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for m in metrics["methods"].values():
        for kind in m["sets"]["test"]:
            if kind != "mean_logits":
                yield m["label"], kind, m


def _temperature(temperature: float | None) -> str:
    return "–" if temperature is None else f"{temperature:,g}"


def _value(interval: Mapping[str, float] | None, spec: str) -> str:
    return "no labels" if interval is None else spec.format(interval["value"])


def _interval(interval: Mapping[str, float] | None, spec: str, factor: float = 1) -> str:
    if interval is None:
        return "no labels"
    value, low, high = (spec.format(factor * interval[k]) for k in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
