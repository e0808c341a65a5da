"""The tables of a run: those of the page, and shorter ones for the terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from probbnn.metrics.bootstrap import rounded
from probbnn.report.load import Entry, Run, at
from probbnn.report.table import NONE, Table, interval, number, percent, setting

__all__ = [
    "cost_table",
    "detection_table",
    "facts_table",
    "metrics_table",
    "settings_table",
    "short_detection_table",
    "short_metrics_table",
    "temperature_table",
]

_PREDICTIVES = {
    "plug_in": "plug-in",
    "mean_softmax": "mean softmax",
    "votes": "votes",
    "mean_logits": "mean logits",
}
# Those that the terminal has room for.
_SHORT = {"plug_in": "plug-in", "mean_softmax": "mean", "votes": "votes"}


def facts_table(run: Run) -> Table:
    """What the run as a whole was, and on what."""
    record = run.record
    device = record.get("device") or {}
    data = record.get("data") or {}
    versions = record.get("versions") or {}
    rows = [
        ["preset", f"{at(record, 'preset', 'name')}: {at(record, 'preset', 'summary')}"],
        ["network", _network(at(record, "preset", "model"))],
        ["prior", f"N(0, σ²) with σ = {setting(at(record, 'preset', 'prior_scale'))}"],
        *(
            [label, f"{at(d, 'name')}, {at(d, 'size')} examples, {at(d, 'fingerprint')}"]
            for label, d in data.items()
        ),
        ["seed", str(record.get("seed", NONE))],
        ["device", f"{device.get('kind', NONE)}, {device.get('cpu_cores', '?')} CPU cores"],
        ["Python", str(record.get("python", NONE))],
        ["versions", ", ".join(f"{name} {version}" for name, version in versions.items())],
    ]
    return Table(f"The run {run.name}", ["what", "which"], rows)


def _network(model: Any) -> str:
    if not isinstance(model, list) or len(model) != 2 or not isinstance(model[1], Mapping):
        return NONE
    return f"{model[0]}({', '.join(f'{name}={value}' for name, value in model[1].items())})"


def settings_table(runs: Sequence[Run]) -> Table:
    """How each method was run, and at which T."""
    header = ["label", "method", "T", "chains", "steps", "warm-up", "draws kept", "batch", "more"]
    temperatures = {
        run.prefix + entry.label: entry.metrics.get("temperature")
        for run in runs
        for entry in run.finished
    }
    others = [
        f"{name} was run at T = {temperature:,g}"
        for name, temperature in temperatures.items()
        if isinstance(temperature, int | float) and temperature != 1
    ]
    note = "T = 1 is the posterior."
    if others:
        note += (
            f" {'; '.join(others)}: that is another distribution, whose spread is not the "
            "posterior's."
        )
    rows = [(run, _settings(entry)) for run in runs for entry in run.entries]
    return _table("Settings", header, rows, note, runs, num_labels=2)


def _settings(entry: Entry) -> list[str]:
    apart = ("num_chains", "num_steps", "num_warmup", "thinning", "batch_size", "temperature")
    settings = entry.record.get("settings") or {}
    found = {name: settings.get(name, entry.planned.get(name)) for name in apart}
    others = [
        f"{name.replace('_', ' ')} {setting(value)}"
        for name, value in settings.items()
        if name not in apart
    ]
    return [
        entry.label,
        entry.name,
        number(entry.metrics.get("temperature", found["temperature"]), ",g"),
        *(number(found[name], ",") for name in apart[:3]),
        number(entry.metrics.get("num_draws"), ","),
        number(found["batch_size"], ","),
        ", ".join(others) or NONE,
    ]


def metrics_table(runs: Sequence[Run]) -> Table:
    """How good and how calibrated each predictive of each method is."""
    rows = []
    for run, entry in _finished(runs):
        for kind, found in (at(entry.metrics, "sets", "test") or {}).items():
            cells = [
                interval(at(found, "accuracy"), ".2f", 100),
                _nll(kind, interval(at(found, "nll"), ".4f")),
                *(interval(at(found, name), ".4f") for name in ("brier", "ece", "aurc")),
            ]
            networks = number(entry.num_networks, ",")
            rows.append((run, [entry.label, _PREDICTIVES.get(kind, kind), networks, *cells]))
    header = ["method", "predictive", "networks", "accuracy %", "NLL", "Brier", "ECE", "AURC"]
    note = (
        "On the test set; in brackets 95 % bootstrap intervals, which know which examples were "
        "drawn for the test and nothing of another training run. NLL in nats. ECE: calibration "
        "error of the most probable class. AURC: mean error over all coverages. All but accuracy "
        "are better when smaller."
    )
    return _table("On the test set", header, rows, note, runs, num_labels=2)


def short_metrics_table(metrics: Mapping[str, Any]) -> Table:
    """Accuracy and calibration on the test set, from the content of ``metrics.json``."""
    rows = [
        [
            method["label"],
            _SHORT[kind],
            number(method["temperature"], ",g"),
            str(method["num_chains"] * method["num_draws"]),
            interval(found["error"], ".2f", 100),
            _nll(kind, number(at(found, "nll", "value"), ".4f")),
            number(at(found, "ece", "value"), ".3f"),
            number(method["seconds"], ".0f"),
        ]
        for method, kind in _shown_in_terminal(metrics)
        for found in [method["sets"]["test"][kind]]
    ]
    header = ["method", "predictive", "T", "networks", "error % (95 %)", "NLL", "ECE", "seconds"]
    return Table("In distribution: test set", header, rows, num_labels=2)


def _nll(kind: str, text: str) -> str:
    # Most of the votes' NLL is the floor under probabilities of 0: no number to compare.
    return NONE if kind == "votes" else text


def detection_table(runs: Sequence[Run]) -> Table:
    """How well each method tells other inputs from test inputs."""
    rows = []
    for run in runs:
        for label in _others([entry.metrics for entry in run.finished]):
            for entry in run.finished:
                found = at(entry.metrics, "detection", label)
                cells = [
                    interval(at(found, score, "auroc"), ".3f")
                    for score in ("max probability", "entropy", "mutual information")
                ]
                # One network alone cannot disagree.
                if entry.num_networks == 1:
                    cells[-1] = NONE
                false = interval(at(found, "entropy", "fpr95"), ".3f")
                rows.append((run, [label, entry.label, *cells, false]))
    header = ["inputs", "method", "max probability", "entropy", "mutual information", "FPR95"]
    note = (
        "How well a score tells these inputs from test inputs: AUROC (0.5 guesses, 1 is never "
        "wrong) by each of three scores, and the false positives at 95 % detection by entropy."
    )
    return _table("Out of distribution", header, rows, note, runs, num_labels=2)


# The threshold of the notebook's claims.
_THRESHOLD = 0.6


def short_detection_table(metrics: Mapping[str, Any]) -> Table:
    """Detection and over-confidence outside, from the content of ``metrics.json``."""
    rows = []
    for label in _others(list(metrics["methods"].values())):
        for method, kind in _shown_in_terminal(metrics):
            thresholds = method["sets"][label][kind]["thresholds"]
            nearest = int(np.argmin(np.abs(np.array(thresholds["thresholds"]) - _THRESHOLD)))
            right = thresholds["accuracy"][nearest]
            scores = [
                number(at(score, "auroc", "value"), ".3f")
                for score in method["detection"][label].values()
            ]
            # The scores are those of the mean softmax; and one network alone cannot disagree.
            if kind == "votes":
                scores = [NONE] * len(scores)
            elif kind == "plug_in":
                scores[-1] = NONE
            rows.append(
                [
                    label,
                    method["label"],
                    _SHORT[kind],
                    percent(thresholds["coverage"][nearest]),
                    "no predictions" if right is None else percent(right),
                    *scores,
                ]
            )
    title = f"Out of distribution: sure (≥ {_THRESHOLD}), right of those, AUROC by score"
    header = ["inputs", "method", "predictive", "sure", "right", "max p", "entropy", "MI"]
    return Table(title, header, rows, num_labels=3)


def _others(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Labels of the out-of-distribution sets, each once, in order."""
    return list(dict.fromkeys(label for m in methods for label in m.get("detection") or {}))


def temperature_table(runs: Sequence[Run]) -> Table:
    """The temperature meters, of all parameters and by layer."""
    to_three_digits = partial(rounded, digits=3)
    rows = []
    for run, entry in _finished(runs):
        meters = at(entry.metrics, "temperature_meters")
        if not isinstance(meters, Mapping):
            continue
        for part, found in {"all": meters, **(meters.get("by_layer") or {})}.items():
            cells = [
                number(meters.get("temperature"), ",g"),
                interval(at(found, "configurational"), to_three_digits),
                interval(at(found, "gradient_noise"), ".1f", 100),
                interval(at(found, "kinetic"), to_three_digits),
            ]
            rows.append((run, [entry.label, part, *cells]))
    header = [
        *("method", "layer", "T asked", "configurational T", "minibatch noise, % of T"),
        "kinetic T",
    ]
    note = (
        "The configurational temperature measures where the draws are: it should hold the T that "
        "was asked for. Minibatch noise is what noisy gradients add to T. In brackets two standard "
        "errors."
    )
    return _table("Temperature", header, rows, note, runs, num_labels=2)


def cost_table(runs: Sequence[Run]) -> Table:
    """What each method took, and what it gave for that."""
    rows = []
    for run, entry in _finished(runs):
        metrics = entry.metrics
        ess = at(metrics, "convergence", "diagnostics", "ess", "numbers", "ess_bulk", "median")
        seconds = metrics.get("seconds")
        cells = [
            number(metrics.get("passes"), ",.0f"),
            number(seconds, ",.1f"),
            number(metrics.get("compile_seconds"), ",.1f"),
            number(ess, ",.0f"),
            number(ess / seconds if isinstance(ess, int | float) and seconds else None, ",.2f"),
        ]
        rows.append((run, [entry.label, *cells]))
    header = ["method", "passes", "seconds", "compile s", "median ESS", "ESS per second"]
    note = (
        "Passes: gradient evaluations of all chains, warm-up included, in passes over the training "
        "data. Seconds are those of the steps, compilation apart. ESS: bulk effective sample size "
        "of the probe values."
    )
    return _table("Cost", header, rows, note, runs)


def _finished(runs: Sequence[Run]) -> Iterator[tuple[Run, Entry]]:
    for run in runs:
        for entry in run.finished:
            yield run, entry


def _shown_in_terminal(metrics: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], str]]:
    for method in metrics["methods"].values():
        for kind in method["sets"]["test"]:
            if kind in _SHORT:
                yield method, kind


def _table(
    title: str,
    header: Sequence[str],
    rows: Iterable[tuple[Run, Sequence[str]]],
    note: str,
    runs: Sequence[Run],
    num_labels: int = 1,
) -> Table:
    """A table with a first column for the run where there are several."""
    if len(runs) == 1:
        return Table(title, header, [row for _, row in rows], note, num_labels)
    named = [[run.name, *row] for run, row in rows]
    return Table(title, ["run", *header], named, note, 1 + num_labels)
