"""What a report says of each method in words: verdicts, their evidence, and each diagnostic."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from probbnn.diagnostics import Verdict, diverged
from probbnn.report.load import Entry, Run
from probbnn.report.table import NONE, value_of

__all__ = ["Card", "Explained", "cards", "diagnostics", "headline", "lines"]

# The class of a verdict for the style sheet, and a sign beside its colour.
_SIGNS = {
    "converged": ("good", "✓"),
    "not converged": ("poor", "!"),
    "biased by minibatch noise or step size": ("bad", "✗"),
    "diverged": ("bad", "✗"),
}


@dataclass(frozen=True)
class Card:
    """The verdict on a method and what led to it.

    Attributes:
        title: the method.
        label: the verdict.
        style: its class for the style sheet.
        sign: what stands beside its colour.
        cause: what is wrong, or why there is no verdict.
        evidence: a sentence each.
        next_step: what to try.
        numbers: the most important metrics, name and number.
        temperature: what the temperature meters say.
    """

    title: str
    label: str
    style: str
    sign: str
    cause: str
    evidence: Sequence[str]
    next_step: str
    numbers: Sequence[tuple[str, str]]
    temperature: str


def cards(run: Run) -> list[Card]:
    """One card for each method of a run."""
    return [_card(run, entry) for entry in run.entries]


def _card(run: Run, entry: Entry) -> Card:
    verdict = _verdict(entry)
    meters = entry.metrics.temperature_meters
    style, sign = _SIGNS.get(verdict.label if verdict else "", ("none", NONE))
    return Card(
        title=run.prefix + entry.label,
        label=verdict.label if verdict else "no verdict",
        style=style,
        sign=sign,
        cause=verdict.cause if verdict else _reason(entry),
        evidence=(*_stopped(entry), *(verdict.evidence if verdict else ())),
        next_step=verdict.next_step if verdict else "",
        numbers=_key_numbers(entry),
        temperature=meters.verdict if meters else "",
    )


def _verdict(entry: Entry) -> Verdict | None:
    found = entry.metrics.verdict or entry.failure.verdict
    if found is None and entry.record.status == "diverged":
        return diverged(entry.record.reason or "")
    return found


def _stopped(entry: Entry) -> list[str]:
    """Why a run until it has converged ended."""
    return [f"why it ended: {entry.metrics.stopped}"] if entry.metrics.stopped else []


def _reason(entry: Entry) -> str:
    """Why there is no verdict."""
    if not entry.is_finished:
        return entry.record.reason or "this method did not finish"
    if not entry.is_sampler:
        return "it samples nothing, so that there is nothing to converge"
    return "none is on record, as of a run of an older version"


def _key_numbers(entry: Entry) -> list[tuple[str, str]]:
    found = entry.on("test").intervals
    numbers = [
        ("accuracy", value_of(found.get("accuracy"), "{:.1f} %".format, 100)),
        ("RMSE", value_of(found.get("rmse"), ".4f")),
        # Most of the votes' NLL is the floor under probabilities of 0: no number to compare.
        ("NLL", NONE if entry.shown == "votes" else value_of(found.get("nll"), ".4f")),
        ("calibration error", value_of(found.get("ece"), ".3f")),
    ]
    return [(name, text) for name, text in numbers if text != NONE]


def headline(runs: Sequence[Run]) -> str:
    """All verdicts in one sentence."""
    labels = [
        verdict.label if (verdict := _verdict(entry)) else None
        for run in runs
        for entry in run.entries
        if entry.is_sampler
    ]
    good = labels.count("converged")
    if not labels:
        return "Nothing here samples a posterior, so that nothing has to converge."
    if not any(labels):
        return "There is no verdict on any of the sampling methods."
    if good == len(labels):
        return "Every sampling method has converged." if good > 1 else "It has converged."
    if good:
        return f"{good} of {len(labels)} sampling methods have converged."
    return "No sampling method has converged." if len(labels) > 1 else "It has not converged."


@dataclass(frozen=True)
class Explained:
    """One diagnostic, and what it says of each method.

    Attributes:
        title: what it is.
        meaning: one sentence.
        advice: what to do if it is bad.
        results: method and result.
    """

    title: str
    meaning: str
    advice: str
    results: list[tuple[str, str]]


def diagnostics(runs: Sequence[Run]) -> list[Explained]:
    """Each diagnostic once."""
    found: dict[str, Explained] = {}
    for run in runs:
        for entry in run.finished:
            convergence = entry.metrics.convergence
            for name, d in convergence.diagnostics.items() if convergence else ():
                explained = found.setdefault(name, Explained(d.title, d.meaning, d.advice, []))
                explained.results.append((run.prefix + entry.label, d.result))
    return list(found.values())


def lines(run: Run) -> Iterator[str]:
    """For the terminal: what the temperature meters say, then the verdicts, a line each."""
    found = cards(run)
    for card in found:
        if card.temperature:
            yield f"{card.title}: {card.temperature}"
    for card in found:
        if card.next_step:
            said = [card.cause, *(x for x in card.evidence if x.startswith("why it ended"))]
            why = f" ({'; '.join(filter(None, said))})" if any(said) else ""
            yield f"{card.title}: {card.label}{why}; next: {card.next_step}"
