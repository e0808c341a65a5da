"""The verdicts and tables of a report, as text."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from probbnn.diagnostics import diverged
from probbnn.metrics.bootstrap import rounded
from probbnn.report.comparison import PlainTable
from probbnn.report.load import Entry, Run, at

__all__ = [
    "cost_table",
    "detection_table",
    "diagnostics",
    "headline",
    "metrics_table",
    "run_facts",
    "settings_table",
    "temperature_table",
]

_NONE = "–"
_PREDICTIVES = {
    "plug_in": "plug-in",
    "mean_softmax": "mean softmax",
    "votes": "votes",
    "mean_logits": "mean logits",
}
# The class of a verdict for the style sheet, and a sign beside its colour.
_SIGNS = {
    "converged": ("good", "✓"),
    "not converged": ("poor", "!"),
    "biased by minibatch noise or step size": ("bad", "✗"),
    "diverged": ("bad", "✗"),
}


def run_facts(run: Run) -> dict[str, Any]:
    """What the run as a whole was, and on what."""
    record = run.record
    device = record.get("device") or {}
    data = (record.get("data") or {}).items()
    versions = record.get("versions") or {}
    rows = [
        ["preset", f"{at(record, 'preset', 'name')}: {at(record, 'preset', 'summary')}"],
        ["network", _network(record)],
        ["prior", f"N(0, σ²) with σ = {_setting(at(record, 'preset', 'prior_scale'))}"],
        *(
            [label, f"{at(d, 'name')}, {at(d, 'size')} examples, {at(d, 'fingerprint')}"]
            for label, d in data
        ),
        ["seed", str(record.get("seed", _NONE))],
        ["device", f"{device.get('kind', _NONE)}, {device.get('cpu_cores', '?')} CPU cores"],
        ["Python", str(record.get("python", _NONE))],
        ["versions", ", ".join(f"{name} {version}" for name, version in versions.items())],
    ]
    return {
        "name": run.name,
        "prefix": run.prefix,
        "preset": at(record, "preset", "name") or "unknown preset",
        "summary": at(record, "preset", "summary") or "",
        "seconds": record.get("seconds"),
        "problems": run.problems,
        "cards": [_card(run, entry) for entry in run.entries],
        "facts": PlainTable(f"The run {run.name}", ["what", "which"], rows, ""),
    }


def _network(record: Mapping[str, Any]) -> str:
    model = at(record, "preset", "model")
    if not isinstance(model, list) or len(model) != 2 or not isinstance(model[1], Mapping):
        return _NONE
    arguments = ", ".join(f"{name}={value}" for name, value in model[1].items())
    return f"{model[0]}({arguments})"


def _card(run: Run, entry: Entry) -> dict[str, Any]:
    """The verdict on a method, or why there is none."""
    verdict = at(entry.metrics, "verdict") or at(entry.failure, "verdict")
    reason = at(entry.record, "reason")
    if verdict is None and reason is not None:
        verdict = diverged(reason).to_dict()
    found: dict[str, Any] = {
        "title": run.prefix + entry.label,
        "method": entry.name,
        "style": "none",
        "sign": _NONE,
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
        found["style"], found["sign"] = _SIGNS.get(label, ("none", _NONE))
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
        ("accuracy", _percent(at(on_test, "accuracy", "value"))),
        ("NLL", _NONE if shown == "votes" else _number(at(on_test, "nll", "value"), ".4f")),
        ("calibration error", _number(at(on_test, "ece", "value"), ".3f")),
    ]
    return [(name, value) for name, value in numbers if value != _NONE]


def headline(runs: Sequence[Run]) -> str:
    """All verdicts in one sentence."""
    cards = [_card(run, entry) for run in runs for entry in run.entries]
    labels = [card["label"] for card in cards if card["sampled"]]
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


# Tables.


def _number(value: Any, spec: str = ".4g") -> str:
    return format(value, spec) if isinstance(value, int | float) else _NONE


def _percent(value: Any) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else _NONE


def _interval(interval: Any, show: Callable[[float], str], factor: float = 1) -> str:
    numbers = [at(interval, key) for key in ("value", "low", "high")]
    if not isinstance(numbers[0], int | float):
        return _NONE
    texts = [_NONE if x is None else show(factor * x) for x in numbers]
    return f"{texts[0]} ({texts[1]}, {texts[2]})"


def _table(
    title: str,
    header: Sequence[str],
    rows: Iterable[tuple[Run, Sequence[str]]],
    note: str,
    runs: Sequence[Run],
) -> PlainTable:
    """A table with a first column for the run where there are several."""
    if len(runs) == 1:
        return PlainTable(title, list(header), [list(row) for _, row in rows], note)
    return PlainTable(title, ["run", *header], [[run.name, *row] for run, row in rows], note)


def settings_table(runs: Sequence[Run]) -> PlainTable:
    """How each method was run, and at which T."""
    apart = ("num_chains", "num_steps", "num_warmup", "thinning", "batch_size", "temperature")

    def row(entry: Entry) -> list[str]:
        settings = entry.record.get("settings") or {}
        number = {name: settings.get(name, entry.planned.get(name)) for name in apart}
        temperature = entry.metrics.get("temperature", number["temperature"])
        return [
            entry.label,
            entry.name,
            _number(temperature, ",g"),
            *(_number(number[name], ",") for name in apart[:3]),
            _number(entry.metrics.get("num_draws"), ","),
            _number(number["batch_size"], ","),
            ", ".join(
                f"{name.replace('_', ' ')} {_setting(value)}"
                for name, value in settings.items()
                if name not in apart
            )
            or _NONE,
        ]

    header = ["label", "method", "T", "chains", "steps", "warm-up", "draws kept", "batch", "more"]
    hot = [
        f"{run.prefix}{entry.label} was run at T = {temperature:,g}"
        for run in runs
        for entry in run.finished
        if isinstance(temperature := entry.metrics.get("temperature"), int | float)
        and temperature != 1
    ]
    note = "T = 1 is the posterior. " + (
        f"{'; '.join(hot)}: that is another law, whose spread is not the posterior's."
        if hot
        else ""
    )
    rows = [(run, row(entry)) for run in runs for entry in run.entries]
    return _table("Settings", header, rows, note.strip(), runs)


def _setting(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({', '.join(f'{k}: {_setting(v)}' for k, v in value.items())})"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, int | float) else str(value)


_METRICS: list[tuple[str, str, Callable[[float], str], float]] = [
    ("accuracy %", "accuracy", "{:.2f}".format, 100),
    ("NLL", "nll", "{:.4f}".format, 1),
    ("Brier", "brier", "{:.4f}".format, 1),
    ("ECE", "ece", "{:.4f}".format, 1),
    ("AURC", "aurc", "{:.4f}".format, 1),
]


def metrics_table(runs: Sequence[Run]) -> PlainTable:
    """How good and how calibrated each predictive of each method is."""
    rows = []
    for run in runs:
        for entry in run.finished:
            for kind, found in (at(entry.metrics, "sets", "test") or {}).items():
                cells = [
                    # Most of the votes' NLL is the floor under probabilities of 0.
                    _NONE
                    if (kind, name) == ("votes", "nll")
                    else _interval(at(found, name), show, factor)
                    for _, name, show, factor in _METRICS
                ]
                networks = _number(entry.num_networks, ",")
                rows.append((run, [entry.label, _PREDICTIVES.get(kind, kind), networks, *cells]))
    header = ["method", "predictive", "networks", *(heading for heading, *_ in _METRICS)]
    note = (
        "On the test set; in brackets 95 % bootstrap intervals, which know which examples were "
        "drawn for the test and nothing of another training run. NLL in nats. ECE: calibration "
        "error of the most probable class. AURC: mean error over all coverages. All but accuracy "
        "are better when smaller."
    )
    return _table("On the test set", header, rows, note, runs)


def detection_table(runs: Sequence[Run]) -> PlainTable:
    """How well each method tells other inputs from test inputs."""
    rows = []
    for run in runs:
        for label in _ood_labels(run):
            for entry in run.finished:
                found = at(entry.metrics, "detection", label) or {}
                single = entry.num_networks == 1
                cells = [
                    _NONE
                    if single and score == "mutual information"
                    else _interval(at(found, score, "auroc"), "{:.3f}".format)
                    for score in ("max probability", "entropy", "mutual information")
                ]
                false = _interval(at(found, "entropy", "fpr95"), "{:.3f}".format)
                rows.append((run, [label, entry.label, *cells, false]))
    header = ["inputs", "method", "max probability", "entropy", "mutual information", "FPR95"]
    note = (
        "How well a score tells these inputs from test inputs: AUROC (0.5 guesses, 1 is never "
        "wrong) by each of three scores, and the false positives at 95 % detection by entropy."
    )
    return _table("Out of distribution", header, rows, note, runs)


def _ood_labels(run: Run) -> list[str]:
    found = [label for entry in run.finished for label in entry.metrics.get("detection") or {}]
    return list(dict.fromkeys(found))


def temperature_table(runs: Sequence[Run]) -> PlainTable:
    """The temperature meters, of all parameters and by layer."""
    rows = []
    for run in runs:
        for entry in run.finished:
            meters = at(entry.metrics, "temperature_meters")
            if not isinstance(meters, Mapping):
                continue
            asked = _number(meters.get("temperature"), ",g")
            parts = {"all": meters, **(meters.get("by_layer") or {})}
            rows += [
                (
                    run,
                    [
                        entry.label,
                        part,
                        asked,
                        _interval(at(found, "configurational"), partial(rounded, digits=3)),
                        _interval(at(found, "gradient_noise"), "{:.1f}".format, 100),
                        _interval(at(found, "kinetic"), partial(rounded, digits=3)),
                    ],
                )
                for part, found in parts.items()
            ]
    header = ["method", "layer", "T asked", "configurational T", "minibatch noise, % of T"]
    return _table(
        "Temperature",
        [*header, "kinetic T"],
        rows,
        "The configurational temperature measures where the draws are: it should hold the T that "
        "was asked for. Minibatch noise is what noisy gradients add to T. In brackets two standard "
        "errors.",
        runs,
    )


def cost_table(runs: Sequence[Run]) -> PlainTable:
    """What each method took, and what it gave for that."""
    rows = []
    for run in runs:
        for entry in run.finished:
            m = entry.metrics
            ess = at(m, "convergence", "diagnostics", "ess", "numbers", "ess_bulk", "median")
            seconds = m.get("seconds")
            rate = ess / seconds if isinstance(ess, int | float) and seconds else None
            cells = [
                _number(m.get("passes"), ",.0f"),
                _number(seconds, ",.1f"),
                _number(m.get("compile_seconds"), ",.1f"),
                _number(ess, ",.0f"),
                _number(rate, ",.2f"),
            ]
            rows.append((run, [entry.label, *cells]))
    header = ["method", "passes", "seconds", "compile s", "median ESS", "ESS per second"]
    note = (
        "Passes: gradient evaluations of all chains, warm-up included, in passes over the training "
        "data. Seconds are those of the steps, compilation apart. ESS: bulk effective sample size "
        "of the probe values."
    )
    return _table("Cost", header, rows, note, runs)


def diagnostics(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Each diagnostic once, with what it says of each method."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        for entry in run.finished:
            for name, d in (at(entry.metrics, "convergence", "diagnostics") or {}).items():
                texts = {key: at(d, key) or "" for key in ("title", "meaning", "advice")}
                result = (run.prefix + entry.label, at(d, "result") or _NONE)
                found.setdefault(name, {**texts, "results": []})["results"].append(result)
    return list(found.values())
