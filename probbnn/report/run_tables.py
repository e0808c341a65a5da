"""The tables of a run: those of the page, and shorter ones for the terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from probbnn.experiments.records import LayerMeters, Meters
from probbnn.metrics import Interval
from probbnn.metrics.bootstrap import rounded
from probbnn.report.load import Entry, Run
from probbnn.report.table import NONE, Spec, Table, interval, number, percent, setting, value_of

__all__ = [
    "cost_table",
    "detection_table",
    "facts_table",
    "metrics_table",
    "seed_table",
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
    record, experiment = run.record, run.record.experiment
    kind, cores = (record.device.kind, record.device.cpu_cores) if record.device else ("", None)
    rows = [
        ["preset", f"{experiment.name or NONE}: {experiment.summary}"],
        ["network", experiment.network or NONE],
        ["likelihood", experiment.likelihood or NONE],
        ["prior", _prior(experiment.prior_scale)],
        *(
            [label, f"{data.name}, {number(data.size, 'd')} examples, {data.fingerprint}"]
            for label, data in record.data.items()
        ),
        ["seed", number(record.seed, "d")],
        ["device", f"{kind or NONE}, {number(cores, 'd')} CPU cores"],
        ["Python", record.python or NONE],
        ["versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())],
    ]
    return Table(f"The run {run.name}", ["what", "which"], rows)


def _prior(scale: object) -> str:
    # Another prior is on record as Python writes it.
    return scale if isinstance(scale, str) else f"N(0, σ²) with σ = {setting(scale)}"


def settings_table(runs: Sequence[Run]) -> Table:
    """How each method was run, and at which T."""
    header = ["label", "method", "T", "chains", "steps", "warm-up", "draws kept", "batch", "more"]
    rows = [(run, _settings(entry)) for run in runs for entry in run.entries]
    others = [
        f"{run.prefix}{entry.label} was run at T = {entry.metrics.temperature:,g}"
        for run, entry in _finished(runs)
        if entry.metrics.temperature not in (None, 1)
    ]
    note = "T = 1 is the posterior."
    if others:
        note += (
            f" {'; '.join(others)}: that is another distribution, whose spread is not the "
            "posterior's."
        )
    return _table("Settings", header, rows, note, runs, num_labels=2)


def _settings(entry: Entry) -> list[str]:
    settings, planned = entry.record.settings, entry.planned
    apart = ("num_chains", "num_steps", "num_warmup", "thinning", "batch_size", "temperature")
    others = [
        f"{name.replace('_', ' ')} {setting(value)}"
        for name, value in settings.items()
        if name not in apart
    ]
    return [
        entry.label,
        entry.name,
        number(entry.temperature, ",g"),
        _count(settings.get("num_chains", planned and planned.num_chains)),
        _count(settings.get("num_steps", planned and planned.num_steps)),
        _count(settings.get("num_warmup")),
        _count(entry.metrics.num_draws),
        _count(settings.get("batch_size")),
        ", ".join(others) or NONE,
    ]


def _count(value: object) -> str:
    return number(value, ",") if isinstance(value, int | float) else NONE


class _Metric(NamedTuple):
    """A column: its heading, how it is written, and what to know of it."""

    heading: str
    spec: Spec
    factor: float
    note: str


_METRICS = {
    "accuracy": _Metric("accuracy %", ".2f", 100, ""),
    "rmse": _Metric("RMSE", ".4f", 1, "RMSE and CRPS in units of the targets."),
    "nll": _Metric("NLL", ".4f", 1, "NLL in nats."),
    "crps": _Metric("CRPS", ".4f", 1, ""),
    "brier": _Metric("Brier", ".4f", 1, ""),
    "ece": _Metric("ECE", ".4f", 1, "ECE: calibration error of the most probable class."),
    "aurc": _Metric("AURC", ".4f", 1, "AURC: mean error over all coverages."),
    "coverage_90": _Metric(
        "in 90 %", ".1f", 100, "In 90 %: targets within the central 90 % interval, in %."
    ),
    "pit_error": _Metric(
        "PIT", ".3f", 1, "PIT: distance of the randomised PIT from uniform (Kolmogorov-Smirnov)."
    ),
}
_OF_A_CLASSIFIER = ("accuracy", "nll", "brier", "ece", "aurc")


def metrics_table(runs: Sequence[Run]) -> Table:
    """How good and how calibrated each predictive of each method is."""
    on_test = [(run, entry, entry.metrics.sets.get("test", {})) for run, entry in _finished(runs)]
    measured = {
        name for *_, kinds in on_test for found in kinds.values() for name in found.intervals
    }
    shown = [name for name in _METRICS if name in (measured or _OF_A_CLASSIFIER)]
    rows = []
    for run, entry, kinds in on_test:
        for kind, found in kinds.items():
            cells = [
                _unless_floor(kind, name, interval(found.intervals.get(name), spec, factor))
                for name in shown
                for _, spec, factor, _ in [_METRICS[name]]
            ]
            networks = number(entry.num_networks, ",")
            rows.append((run, [entry.label, _PREDICTIVES.get(kind, kind), networks, *cells]))
    header = ["method", "predictive", "networks", *(_METRICS[name].heading for name in shown)]
    note = [
        "On the test set; in brackets 95 % bootstrap intervals, which know which examples were "
        "drawn for the test and nothing of another training run.",
        *(_METRICS[name].note for name in shown if _METRICS[name].note),
        "All but accuracy are better when smaller." if "accuracy" in shown else "",
    ]
    return _table("On the test set", header, rows, " ".join(note), runs, num_labels=2)


# Of more classes than this, a table has no room for each.
_MAX_PARTS = 12
_OF_PARTS = {
    "balanced_accuracy": _Metric("balanced", ".1f", 100, ""),
    "accuracy": _Metric("", ".1f", 100, ""),
    "rmse": _Metric("RMSE", ".4g", 1, ""),
    "crps": _Metric("CRPS", ".4g", 1, ""),
    "coverage_90": _Metric("in 90 %", ".1f", 100, ""),
}


def parts_table(runs: Sequence[Run]) -> Table:
    """How good the usual predictive of each method is for each class, or each output."""
    found = [
        (run, entry.label, predictive.intervals)
        for run, entry in _finished(runs)
        for predictive in list(entry.metrics.sets.get("test", {}).values())[:1]
    ]
    # Named "accuracy[fig]" or "coverage_90[0]", and the mean over the classes.
    split = {name: name.removesuffix("]").partition("[") for *_, of in found for name in of}
    shown = {
        name: (_OF_PARTS[metric], part)
        for name, (metric, _, part) in split.items()
        if metric in _OF_PARTS and (part or name == "balanced_accuracy")
    }
    if len({part for _, part in shown.values()}) > 1 + _MAX_PARTS:
        shown = {name: column for name, column in shown.items() if not column[1]}
    header = ["method", *(f"{metric.heading} {part}".strip() for metric, part in shown.values())]
    rows = [
        (
            run,
            [label, *(value_of(of.get(n), m.spec, m.factor) for n, (m, _) in shown.items())],
        )
        for run, label, of in found
        if shown
    ]
    note = (
        "On the test set: of each class, the share of its examples that is right, in %, and the "
        "mean of these (balanced); or each output's own metrics."
    )
    return _table("By class or output", header, rows, note, runs)


def _unless_floor(kind: str, metric: str, text: str) -> str:
    # Most of the votes' NLL is the floor under probabilities of 0: no number to compare.
    return NONE if (kind, metric) == ("votes", "nll") else text


def short_metrics_table(run: Run) -> Table:
    """Error and calibration on the test set."""
    rows = []
    for entry, kind, short in _in_terminal(run):
        found = entry.metrics.sets["test"][kind].intervals
        rows.append(
            [
                entry.label,
                short,
                number(entry.temperature, ",g"),
                number(entry.num_networks, "d"),
                interval(found.get("error"), ".2f", 100),
                _unless_floor(kind, "nll", value_of(found.get("nll"), ".4f")),
                value_of(found.get("ece"), ".3f"),
                number(entry.metrics.seconds, ".0f"),
            ]
        )
    header = ["method", "predictive", "T", "networks", "error % (95 %)", "NLL", "ECE", "seconds"]
    return Table("In distribution: test set", header, rows, num_labels=2)


def seed_table(run: Run) -> Table:
    """How much of a predicted probability depends on the seed, of methods without convergence."""
    rows = []
    for entry in run.finished:
        convergence, verdict = entry.metrics.convergence, entry.metrics.verdict
        found = convergence.diagnostics.get("disagreement") if convergence else None
        if verdict is None or verdict.label == "converged" or found is None:
            continue
        between, differ = (found.numbers.get(name) for name in ("between", "top_class"))
        if isinstance(between, Mapping) and isinstance(differ, float):
            bounds = {name: np.nan if x is None else x for name, x in between.items()}
            moves = interval(Interval(**bounds), ".3f")
            rows.append([entry.label, verdict.label, moves, percent(differ)])
    header = ["method", "verdict", "between two chains (95 %)", "first choices differ"]
    return Table("Predicted probabilities depend on the seed: total variation", header, rows)


_SCORES = ("max probability", "entropy", "mutual information")


def detection_table(runs: Sequence[Run]) -> Table:
    """How well each method tells other inputs from test inputs."""
    rows = []
    for run in runs:
        for label in _outside(run):
            for entry in run.finished:
                cells = [interval(x, ".3f") for x in _aurocs(entry, label)]
                entropy = entry.metrics.detection.get(label, {}).get("entropy")
                cells.append(interval(entropy.fpr95 if entropy else None, ".3f"))
                rows.append((run, [label, entry.label, *cells]))
    header = ["inputs", "method", *_SCORES, "FPR95"]
    note = (
        "How well a score tells these inputs from test inputs: AUROC (0.5 guesses, 1 is never "
        "wrong) by each of three scores, and the false positives at 95 % detection by entropy."
    )
    return _table("Out of distribution", header, rows, note, runs, num_labels=2)


# The threshold of the notebook's claims.
_THRESHOLD = 0.6


def short_detection_table(run: Run) -> Table:
    """Over-confidence outside, and detection."""
    rows = []
    for label in _outside(run):
        for entry, kind, short in _in_terminal(run):
            found = entry.metrics.sets.get(label, {}).get(kind)
            if found is None or found.thresholds is None:
                continue
            curve = found.thresholds
            nearest = int(np.argmin(np.abs(curve.thresholds - _THRESHOLD)))
            right = curve.accuracy[nearest]
            # The scores are those of the mean softmax.
            scores = _aurocs(entry, label) if kind != "votes" else [None] * len(_SCORES)
            rows.append(
                [
                    label,
                    entry.label,
                    short,
                    percent(curve.coverage[nearest]),
                    "no predictions" if np.isnan(right) else percent(right),
                    *(value_of(score, ".3f") for score in scores),
                ]
            )
    title = f"Out of distribution: sure (≥ {_THRESHOLD}), right of those, AUROC by score"
    header = ["inputs", "method", "predictive", "sure", "right", "max p", "entropy", "MI"]
    return Table(title, header, rows, num_labels=3)


def _outside(run: Run) -> list[str]:
    """Labels of the out-of-distribution sets, each once, in order."""
    return list(dict.fromkeys(label for e in run.finished for label in e.metrics.detection))


def _aurocs(entry: Entry, label: str) -> list[Interval | None]:
    """By each of `_SCORES`."""
    scores = entry.metrics.detection.get(label, {})
    found = [scores[name].auroc if name in scores else None for name in _SCORES]
    # One network alone cannot disagree.
    return [*found[:-1], None] if entry.num_networks == 1 else found


def temperature_table(runs: Sequence[Run]) -> Table:
    """The temperature meters, of all parameters and by layer."""
    to_three_digits = partial(rounded, digits=3)
    rows = []
    for run, entry in _finished(runs):
        meters = entry.metrics.temperature_meters
        if meters is None:
            continue
        parts: Mapping[str, Meters | LayerMeters] = {"all": meters, **meters.by_layer}
        for part, found in parts.items():
            kinetic = found.kinetic if isinstance(found, Meters) else None
            cells = [
                number(meters.temperature, ",g"),
                interval(found.configurational, to_three_digits),
                interval(found.gradient_noise, ".1f", 100),
                interval(kinetic, to_three_digits),
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
        passes, seconds = entry.metrics.passes, entry.metrics.seconds
        ess = _median_ess(entry)
        cells = [
            number(passes, ",.0f"),
            number(seconds, ",.1f"),
            number(entry.metrics.compile_seconds, ",.1f"),
            number(ess, ",.0f"),
            number(ess / seconds if ess is not None and seconds else None, ",.2f"),
        ]
        rows.append((run, [entry.label, *cells]))
    header = ["method", "passes", "seconds", "compile s", "median ESS", "ESS per second"]
    note = (
        "Passes: gradient evaluations of all chains, warm-up included, in passes over the training "
        "data. Seconds are those of the steps, compilation apart. ESS: bulk effective sample size "
        "of the probe values."
    )
    return _table("Cost", header, rows, note, runs)


def _median_ess(entry: Entry) -> float | None:
    convergence = entry.metrics.convergence
    found = convergence.diagnostics.get("ess") if convergence else None
    ess: Any = found.numbers.get("ess_bulk", {}) if found else {}
    return ess.get("median")


def _finished(runs: Sequence[Run]) -> Iterator[tuple[Run, Entry]]:
    for run in runs:
        for entry in run.finished:
            yield run, entry


def _in_terminal(run: Run) -> Iterator[tuple[Entry, str, str]]:
    """Each method with each predictive that there is room for, and what that is called."""
    for entry in run.finished:
        for kind in entry.metrics.sets.get("test", {}):
            if kind in _SHORT:
                yield entry, kind, _SHORT[kind]


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
