"""The figures of a report, each with what it shows in words."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from probbnn.diagnostics import ranks
from probbnn.diagnostics.convergence import RHATS
from probbnn.metrics import AccuracyVsConfidence, Reliability, RiskCoverage
from probbnn.report import figures
from probbnn.report.load import Entry, Run, at

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "pictures"]


class Picture(NamedTuple):
    """A figure, what it shows in words, and the line below it."""

    uri: str
    alt: str
    caption: str


# Figures. Each function yields those of one run: what it is about, the figure, what it shows in
# words, and the line below it.

_Drawn = Iterator[tuple[str, "Figure", str, str]]


def pictures(runs: Sequence[Run]) -> dict[str, list[Picture]]:
    """All figures by kind; those about the same thing come together, run by run."""
    return {name: _pictures(runs, draw) for name, draw in _KINDS.items()}


def _pictures(runs: Sequence[Run], draw: Callable[[Run], _Drawn]) -> list[Picture]:
    found: dict[str, list[Picture]] = {}
    with figures.literal_text():
        for run in runs:
            for about, figure, alt, caption in draw(run):
                uri = figures.data_uri(figure)
                picture = Picture(uri, run.prefix + alt, run.prefix + caption)
                found.setdefault(about, []).append(picture)
    return [picture for about in found.values() for picture in about]


def _mixing_pictures(run: Run) -> _Drawn:
    for entry in run.finished:
        quantities = _followed(entry) if entry.is_sampler else {}
        group = entry.group("trace")
        trace = None
        if group is not None and "logdensity" in group:
            values = group["logdensity"].transpose("chain", "step").values
            trace = group["step"].values, values
        if trace is None and not quantities:
            continue
        shown = {name: values for name, (values, _) in quantities.items()}
        rhats = "; ".join(f"{name}: R-hat {rhat:.3f}" for name, (_, rhat) in quantities.items())
        alt = f"Traces of {entry.label}, one line for each chain"
        if trace is not None:
            alt += (
                f"; log density by minibatch from {trace[1][:, 0].mean():.4g} at the first step "
                f"to {trace[1][:, -1].mean():.4g} at the last, mean over chains"
            )
        if rhats:
            alt += f"; with the ranks of the draws. {rhats}"
        if quantities:
            caption = (
                "Chains that agree cross all the time, their bars level with the dotted lines."
            )
        elif entry.is_sampler:
            caption = f"Ranks take {ranks.MIN_DRAWS} draws per chain, and it kept fewer."
        else:
            caption = "A point estimate has no draws to rank."
        caption = f"{entry.label}. {caption}"
        yield entry.label, figures.mixing_figure(trace, shown, entry.label), f"{alt}.", caption


def _followed(entry: Entry) -> dict[str, tuple[np.ndarray, float]]:
    """The log density, and of each kind of probe the value on which chains differ most."""
    found: dict[str, np.ndarray] = {}
    posterior, predictive = entry.group("posterior"), entry.group("posterior_predictive")
    if posterior is not None and "log_density" in posterior:
        found["log density"] = posterior["log_density"].transpose("chain", "draw").values
    if predictive is not None and "probability" in predictive:
        values = predictive["probability"].transpose("chain", "draw", "probe", "class")
        if values.sizes["draw"] >= ranks.MIN_DRAWS:
            probes, classes = (values[dim].values.astype(str) for dim in ("probe", "class"))
            kinds = np.array([re.sub(r"\[\d+\]$", "", probe) for probe in probes])
            kinds[~np.isin(kinds, ("test", "boundary"))] = "outside"
            for kind in ("test", "boundary", "outside"):
                of_kind = np.flatnonzero(kinds == kind)
                block = values.values[:, :, of_kind].reshape(*values.shape[:2], -1)
                if not block.size:
                    continue
                worst = int(np.ptp(block.mean(axis=1), axis=0).argmax())
                probe, label = divmod(worst, len(classes))
                name = f"p({classes[label]}) at {probes[of_kind[probe]]}"
                found[name] = block[..., worst]
    return {
        name: (values, float(_rhat(values[..., None])[0]))
        for name, values in found.items()
        if values.shape[1] >= ranks.MIN_DRAWS and np.isfinite(values).all()
    }


def _rhat(values: np.ndarray) -> np.ndarray:
    """R-hat of each quantity of ``(chain, draw, quantity)``, NaN for those that never change."""
    varying = np.isfinite(values).all(axis=(0, 1)) & (np.ptp(values, axis=(0, 1)) > 0)
    found = np.full(values.shape[-1], np.nan)
    found[varying] = ranks.rhat(values[..., varying])
    return found


def _rhat_pictures(run: Run) -> _Drawn:
    for entry in run.finished:
        if not entry.is_sampler:
            continue
        found = {}
        for name, group, variable in (
            ("of the function, at the probes", "posterior_predictive", "probability"),
            ("of single weights, for contrast", "posterior", "weight"),
        ):
            tree = entry.group(group)
            if tree is None or variable not in tree:
                continue
            values = tree[variable].transpose("chain", "draw", ...).values
            if values.shape[1] < ranks.MIN_DRAWS:
                continue
            rhat = _rhat(values.reshape(*values.shape[:2], -1))
            found[name] = rhat[~np.isnan(rhat)]
        found = {name: rhat for name, rhat in found.items() if len(rhat)}
        if not found:
            continue
        parts = [
            f"R-hat {name}: {len(rhat)} values, median {np.median(rhat):.3f}, largest "
            f"{rhat.max():.3f}, " + ", ".join(f"{np.mean(rhat > x):.0%} above {x}" for x in RHATS)
            for name, rhat in found.items()
        ]
        caption = f"{entry.label}. Lines at 1.01 (today's rule), 1.05 and 1.1 (the first one)."
        figure = figures.rhat_figure(found, f"{entry.label}: R-hat")
        yield entry.label, figure, f"{'; '.join(parts)}.", caption


def _running_pictures(run: Run) -> _Drawn:
    curves, words, held_out = {}, [], True
    for entry in run.finished:
        numbers = at(entry.metrics, "convergence", "diagnostics", "running", "numbers") or {}
        if len(numbers.get("nll") or ()) > 1:
            nll = np.array(numbers["nll"], float)
            accuracy = numbers.get("accuracy")
            curves[entry.label] = nll, None if accuracy is None else np.array(accuracy, float)
            words.append(f"{entry.label}: NLL {nll[0]:.4f} after one draw, {nll[-1]:.4f} after all")
            held_out = held_out and bool(numbers.get("held_out"))
    if curves:
        where = "held-out examples" if held_out else "examples, which some of them have seen"
        caption = (
            f"The average over the draws so far, on {where}. It levels off once further draws add "
            "nothing."
        )
        yield "running", figures.running_figure(curves), f"{'; '.join(words)}.", caption


def _coverage_pictures(run: Run) -> _Drawn:
    labels = [label for entry in run.finished for label in entry.metrics.get("sets") or {}]
    for label in dict.fromkeys(labels):
        curves, words = {}, []
        for entry in run.finished:
            thresholds = at(entry.metrics, "sets", label, entry.shown, "thresholds")
            if not isinstance(thresholds, Mapping):
                continue
            curve = curves[entry.label] = AccuracyVsConfidence(
                **{name: _array(thresholds.get(name)) for name in AccuracyVsConfidence._fields}
            )
            nearest = int(np.argmin(np.abs(curve.thresholds - 0.9)))
            text = f"{entry.label} {curve.coverage[nearest]:.1%}"
            if at(entry.metrics, "sets", label, entry.shown, "num_labelled"):
                right = curve.accuracy[nearest]
                text += "" if np.isnan(right) else f" (right on {right:.1%})"
            words.append(text)
        if curves:
            where = "test set" if label == "test" else f"{label} (out of distribution)"
            passing = f"Confidence of at least 90 %: {', '.join(words)}."
            alt = f"Accuracy and coverage against confidence threshold, {where}. {passing}"
            yield label, figures.coverage_figure(curves, where), alt, passing


def _array(column: Sequence[float | None] | None) -> Any:
    """Numbers from JSON, which has ``None`` for NaN, and for columns that were not computed."""
    return None if column is None else np.array(column, float)


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "not on record"


def _reliability_pictures(run: Run) -> _Drawn:
    curves, words = {}, []
    for entry in run.finished:
        found = entry.metrics.get("reliability")
        if found:
            curves[entry.label] = Reliability(*(np.array(found[k]) for k in Reliability._fields))
            ece = at(entry.metrics, "sets", "test", entry.shown, "ece", "value")
            words.append(f"{entry.label}: calibration error {_number(ece)}")
    if curves:
        caption = "Above the diagonal it is right more often than it says, below less often."
        alt = f"Reliability diagram of the test set. {'; '.join(words)}."
        yield "reliability", figures.reliability_figure(curves), alt, caption


def _risk_pictures(run: Run) -> _Drawn:
    curves, words = {}, []
    for entry in run.finished:
        found = entry.metrics.get("risk_coverage")
        if found:
            curve = RiskCoverage(*(np.array(found[k]) for k in RiskCoverage._fields))
            curves[entry.label] = curve
            nearest = int(np.argmin(np.abs(curve.coverage - 0.9)))
            words.append(
                f"{entry.label} errs on {curve.risk[-1]:.2%} of all and on "
                f"{curve.risk[nearest]:.2%} of the surest 90 %"
            )
    if curves:
        caption = f"{'; '.join(words)}."
        alt = f"Risk-coverage curves of the test set. {words[0]}."
        yield "risk", figures.risk_coverage_figure(curves), alt, caption


def _uncertainty_pictures(run: Run) -> _Drawn:
    for entry in run.finished:
        found = entry.metrics.get("uncertainty")
        if not found:
            continue
        edges = np.array(found["edges"])
        centres = (edges[1:] + edges[:-1]) / 2
        means = {label: float(centres @ shares) for label, shares in found["entropy"].items()}
        words = ", ".join(f"{label} {mean:.2f}" for label, mean in means.items())
        alt = f"Histograms of entropy and mutual information, {entry.label}. Mean entropy: {words}."
        caption = (
            f"{entry.label}. Entropy is all uncertainty, mutual information the part that the "
            f"draws disagree about. Mean entropy in nats: {words}."
        )
        yield entry.label, figures.uncertainty_figure(found, entry.label), alt, caption


_KINDS: dict[str, Callable[[Run], _Drawn]] = {
    "mixing": _mixing_pictures,
    "rhat": _rhat_pictures,
    "running": _running_pictures,
    "coverage": _coverage_pictures,
    "reliability": _reliability_pictures,
    "risk": _risk_pictures,
    "uncertainty": _uncertainty_pictures,
}
