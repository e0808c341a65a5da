"""What a report says of each method in words: verdicts, their evidence, and each diagnostic."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from probbnn.diagnostics import diverged
from probbnn.report.load import Entry, Run, at
from probbnn.report.table import NONE, number, percent

__all__ = ["cards", "diagnostics", "headline", "temperature_lines", "verdict_lines"]

# The class of a verdict for the style sheet, and a sign beside its colour.
_SIGNS = {
    "converged": ("good", "✓"),
    "not converged": ("poor", "!"),
    "biased by minibatch noise or step size": ("bad", "✗"),
    "diverged": ("bad", "✗"),
}


def cards(run: Run) -> list[dict[str, Any]]:
    """Of each method the verdict and what led to it, or why there is none."""
    return [_card(run, entry) for entry in run.entries]


def _card(run: Run, entry: Entry) -> dict[str, Any]:
    verdict = at(entry.metrics, "verdict") or at(entry.failure, "verdict")
    reason = at(entry.record, "reason")
    if verdict is None and reason is not None:
        verdict = diverged(reason).to_dict()
    found: dict[str, Any] = {
        "title": run.prefix + entry.label,
        "method": entry.name,
        "style": "none",
        "sign": NONE,
        "label": "no verdict",
        "cause": "",
        "evidence": [],
        "next_step": "",
        "sampled": entry.is_sampler,
        "numbers": _key_numbers(entry),
        "temperature": at(entry.metrics, "temperature_meters", "verdict"),
    }
    if isinstance(verdict, Mapping):
        label = str(verdict.get("label"))
        found["style"], found["sign"] = _SIGNS.get(label, ("none", NONE))
        found |= {name: verdict.get(name) or "" for name in ("cause", "evidence", "next_step")}
        found["label"] = label
    elif not entry.metrics:
        found["cause"] = "this method did not finish"
    elif not found["sampled"]:
        found["cause"] = "it samples nothing, so that there is nothing to converge"
    else:
        found["cause"] = "none is on record, as of a run of an older version"
    return found


def _key_numbers(entry: Entry) -> list[tuple[str, str]]:
    shown = entry.shown
    on_test = at(entry.metrics, "sets", "test", shown) or {}
    numbers = [
        ("accuracy", percent(at(on_test, "accuracy", "value"))),
        ("NLL", NONE if shown == "votes" else number(at(on_test, "nll", "value"), ".4f")),
        ("calibration error", number(at(on_test, "ece", "value"), ".3f")),
    ]
    return [(name, value) for name, value in numbers if value != NONE]


def headline(runs: Sequence[Run]) -> str:
    """All verdicts in one sentence."""
    labels = [card["label"] for run in runs for card in cards(run) if card["sampled"]]
    judged = [label for label in labels if label != "no verdict"]
    if not labels:
        return "Nothing here samples a posterior, so that nothing has to converge."
    if not judged:
        return "There is no verdict on any of the sampling methods."
    good = judged.count("converged")
    if good == len(labels):
        return "Every sampling method has converged." if good > 1 else "It has converged."
    if good:
        return f"{good} of {len(labels)} sampling methods have converged."
    return "No sampling method has converged." if len(labels) > 1 else "It has not converged."


def diagnostics(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Each diagnostic once, with what it says of each method."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        for entry in run.finished:
            for name, d in (at(entry.metrics, "convergence", "diagnostics") or {}).items():
                texts = {key: at(d, key) or "" for key in ("title", "meaning", "advice")}
                result = (run.prefix + entry.label, at(d, "result") or NONE)
                found.setdefault(name, {**texts, "results": []})["results"].append(result)
    return list(found.values())


def temperature_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """What the temperature meters say of each method that samples, one line each."""
    for m in metrics["methods"].values():
        if m["temperature_meters"] is not None:
            yield f"{m['label']}: {m['temperature_meters']['verdict']}"


def verdict_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """The verdict on each method that samples, and what to do next, one line each."""
    for m in [*metrics["methods"].values(), *metrics["failures"].values()]:
        verdict = m["verdict"]
        if verdict is not None:
            why = f" ({verdict['cause']})" if verdict["cause"] else ""
            yield f"{m['label']}: {verdict['label']}{why}; next: {verdict['next_step']}"
