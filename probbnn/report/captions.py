"""The figures of a run, each with what it shows in words."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xarray as xr

from probbnn.diagnostics import ranks
from probbnn.diagnostics.mixing import RHATS
from probbnn.report import figures
from probbnn.report.load import Entry, Run
from probbnn.report.table import value_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ON_PAGE", "SAVED", "Picture", "figures_of"]


# Bytes of a file's name are at most 255, and a letter has up to four.
_MAX_NAME = 60


class Picture(NamedTuple):
    """A figure of a run and what it shows.

    Attributes:
        about: the method or the set that it is about.
        figure: the figure.
        alt: what it shows, for those who cannot see it; ``""`` if it is not on the page.
        caption: the line below it.
        stem: its file in ``figures/`` without an ending, ``""`` if it has none.
    """

    about: str
    figure: "Figure"
    alt: str = ""
    caption: str = ""
    stem: str = ""


def figures_of(run: Run, kinds: Iterable[str]) -> dict[str, list[Picture]]:
    """The figures of a run by kind, drawn from its directory alone.

    Args:
        run: the run.
        kinds: some of `ON_PAGE` and `SAVED`.
    """
    with figures.literal_text():
        return {kind: list(_KINDS[kind](run)) for kind in kinds}


def _file_name(name: str) -> str:
    """The name without what file systems, or their users, could stumble over."""
    return re.sub(r"[^\w.-]+", "-", name)[:_MAX_NAME]


def _mixing(run: Run) -> Iterator[Picture]:
    for entry in run.finished:
        quantities = _followed(entry) if entry.is_sampler else {}
        trace = _trace(entry)
        if trace is None and not quantities:
            continue
        rhats = {name: float(_rhat(values[..., None])[0]) for name, values in quantities.items()}
        alt = f"Traces of {entry.label}, one line for each chain"
        if trace is not None:
            alt += (
                f"; log density by minibatch from {trace[1][:, 0].mean():.4g} at the first step "
                f"to {trace[1][:, -1].mean():.4g} at the last, mean over chains"
            )
        if rhats:
            words = "; ".join(f"{name}: R-hat {rhat:.3f}" for name, rhat in rhats.items())
            alt += f"; with the ranks of the draws. {words}"
        if quantities:
            caption = (
                "Chains that agree cross all the time, their bars level with the dotted lines."
            )
        elif entry.is_sampler:
            caption = f"Ranks take {ranks.MIN_DRAWS} draws per chain, and it kept fewer."
        else:
            caption = "A point estimate has no draws to rank."
        figure = figures.mixing_figure(trace, quantities, entry.label)
        yield Picture(entry.label, figure, f"{alt}.", f"{entry.label}. {caption}")


def _trace(entry: Entry) -> tuple[np.ndarray, np.ndarray] | None:
    """Steps, and the minibatch estimate of the log density there, ``(chain, step)``."""
    found = entry.values("trace", "logdensity", "chain", "step")
    return None if found is None else (found["step"].values, found.values)


def _followed(entry: Entry) -> dict[str, np.ndarray]:
    """The log density, and of each kind of probe the value on which chains differ most."""
    found: dict[str, np.ndarray] = {}
    log_density = entry.values("posterior", "log_density", "chain", "draw")
    if log_density is not None:
        found["log density"] = log_density.values
    predicted = _function(entry)
    if predicted is not None and predicted.sizes["draw"] >= ranks.MIN_DRAWS:
        probes, columns = (predicted[dim].values.astype(str) for dim in predicted.dims[2:])
        kinds = np.array([re.sub(r"\[\d+\]$", "", probe) for probe in probes])
        kinds[~np.isin(kinds, ("test", "boundary"))] = "outside"
        for kind in ("test", "boundary", "outside"):
            of_kind = np.flatnonzero(kinds == kind)
            block = predicted.values[:, :, of_kind].reshape(*predicted.shape[:2], -1)
            if not block.size:
                continue
            worst = int(np.ptp(block.mean(axis=1), axis=0).argmax())
            probe, column = divmod(worst, len(columns))
            value = "p" if predicted.name == "probability" else "output"
            found[f"{value}({columns[column]}) at {probes[of_kind[probe]]}"] = block[..., worst]
    return {
        name: values
        for name, values in found.items()
        if values.shape[1] >= ranks.MIN_DRAWS and np.isfinite(values).all()
    }


def _function(entry: Entry) -> xr.DataArray | None:
    """What the network computes at the probes, ``(chain, draw, probe, class or unit)``."""
    probabilities = entry.values("posterior_predictive", "probability", "chain", "draw", "probe")
    if probabilities is not None:
        return _side_by_side(probabilities) if "pixel" in probabilities.dims else probabilities
    return entry.values("posterior_predictive", "output", "chain", "draw", "probe")


def _side_by_side(probabilities: xr.DataArray) -> xr.DataArray:
    """Those of all pixels of a probe as one axis."""
    shape, classes = probabilities.shape, probabilities["class"].values
    names = [f"{name}, pixel {pixel}" for pixel in range(shape[3]) for name in classes]
    return xr.DataArray(
        probabilities.values.reshape(*shape[:3], -1),
        dims=("chain", "draw", "probe", "value"),
        coords={"probe": probabilities["probe"], "value": names},
        name=probabilities.name,
    )


def _rhat(values: np.ndarray) -> np.ndarray:
    """R-hat of each quantity of ``(chain, draw, quantity)``, NaN for those that never change."""
    varying = np.isfinite(values).all(axis=(0, 1)) & (np.ptp(values, axis=(0, 1)) > 0)
    found = np.full(values.shape[-1], np.nan)
    found[varying] = ranks.rhat(values[..., varying])
    return found


def _rhats(run: Run) -> Iterator[Picture]:
    for entry in run.finished:
        if not entry.is_sampler:
            continue
        found = {}
        weights = entry.values("posterior", "weight", "chain", "draw")
        for name, values in (
            ("of the function, at the probes", _function(entry)),
            ("of single weights, for contrast", weights),
        ):
            if values is None or values.sizes["draw"] < ranks.MIN_DRAWS:
                continue
            rhat = _rhat(values.values.reshape(*values.shape[:2], -1))
            if not np.isnan(rhat).all():
                found[name] = rhat[~np.isnan(rhat)]
        if not found:
            continue
        parts = [
            f"R-hat {name}: {len(rhat)} values, median {np.median(rhat):.3f}, largest "
            f"{rhat.max():.3f}, " + ", ".join(f"{np.mean(rhat > x):.0%} above {x}" for x in RHATS)
            for name, rhat in found.items()
        ]
        caption = (
            f"{entry.label}. Lines at 1.01 (Vehtari et al., 2021), 1.05 and 1.1 (Gelman and "
            "Rubin, 1992)."
        )
        figure = figures.rhat_figure(found, f"{entry.label}: R-hat")
        yield Picture(entry.label, figure, f"{'; '.join(parts)}.", caption)


def _running(run: Run) -> Iterator[Picture]:
    curves, words, held_out = {}, [], True
    for entry in run.finished:
        convergence = entry.metrics.convergence
        diagnostic = convergence.diagnostics.get("running") if convergence else None
        numbers: Mapping[str, Any] = diagnostic.numbers if diagnostic else {}
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
        yield Picture("running", figures.running_figure(curves), f"{'; '.join(words)}.", caption)


def _coverage(run: Run) -> Iterator[Picture]:
    for label in _sets(run):
        curves, words = {}, []
        for entry in run.finished:
            found = entry.on(label)
            if found.thresholds is None:
                continue
            curve = curves[entry.label] = found.thresholds
            nearest = int(np.argmin(np.abs(curve.thresholds - 0.9)))
            text = f"{entry.label} {curve.coverage[nearest]:.1%}"
            if found.num_labelled and not np.isnan(curve.accuracy[nearest]):
                text += f" (right on {curve.accuracy[nearest]:.1%})"
            words.append(text)
        if curves:
            where = "test set" if label == "test" else f"{label} (out of distribution)"
            passing = f"Confidence of at least 90 %: {', '.join(words)}."
            alt = f"Accuracy and coverage against confidence threshold, {where}. {passing}"
            yield Picture(label, figures.coverage_figure(curves, where), alt, passing)


def _thresholds(run: Run) -> Iterator[Picture]:
    for entry in run.finished:
        for label in _sets(run):
            curve = entry.on(label).thresholds
            if curve is None:
                continue
            title = f"{entry.label} ({entry.shown.replace('_', ' ')}): {label}"
            figure = figures.accuracy_vs_confidence_figure(curve, title)
            stem = f"acc-vs-conf-{entry.label}" + ("" if label == "test" else f"-{label}")
            yield Picture(entry.label, figure, stem=_file_name(stem))


def _sets(run: Run) -> list[str]:
    return list(dict.fromkeys(label for entry in run.finished for label in entry.metrics.sets))


def _reliability(run: Run) -> Iterator[Picture]:
    curves, words = {}, []
    for entry in run.finished:
        if entry.metrics.reliability is not None:
            curves[entry.label] = entry.metrics.reliability
            ece = value_of(entry.on("test").intervals.get("ece"), ".3f")
            words.append(f"{entry.label}: calibration error {ece}")
    if curves:
        caption = "Above the diagonal it is right more often than it says, below less often."
        alt = f"Reliability diagram of the test set. {'; '.join(words)}."
        figure = figures.reliability_figure(curves)
        yield Picture("reliability", figure, alt, caption, stem="reliability")


def _risk(run: Run) -> Iterator[Picture]:
    curves, words = {}, []
    for entry in run.finished:
        curve = entry.metrics.risk_coverage
        if curve is not None and len(curve.coverage):
            curves[entry.label] = curve
            nearest = int(np.argmin(np.abs(curve.coverage - 0.9)))
            words.append(
                f"{entry.label} errs on {curve.risk[-1]:.2%} of all and on "
                f"{curve.risk[nearest]:.2%} of the surest 90 %"
            )
    if curves:
        caption = f"{'; '.join(words)}."
        alt = f"Risk-coverage curves of the test set. {words[0]}."
        figure = figures.risk_coverage_figure(curves)
        yield Picture("risk", figure, alt, caption, stem="risk-coverage")


def _uncertainty(run: Run) -> Iterator[Picture]:
    for entry in run.finished:
        found = entry.metrics.uncertainty
        if found is None:
            continue
        centres = (found.edges[1:] + found.edges[:-1]) / 2
        means = {label: float(centres @ shares) for label, shares in found.entropy.items()}
        words = ", ".join(f"{label} {mean:.2f}" for label, mean in means.items())
        alt = f"Histograms of entropy and mutual information, {entry.label}. Mean entropy: {words}."
        caption = (
            f"{entry.label}. Entropy is all uncertainty, mutual information the part that the "
            f"draws disagree about. Mean entropy in nats: {words}."
        )
        figure = figures.uncertainty_figure(found.to_dict(), entry.label)
        stem = _file_name(f"entropy-{entry.label}")
        yield Picture(entry.label, figure, alt, caption, stem)


def _log_density(run: Run) -> Iterator[Picture]:
    # What is fitted has no log density along the way.
    traces = {
        entry.label: trace[1] for entry in run.finished if (trace := _trace(entry)) is not None
    }
    if traces:
        figure = figures.trace_figure(traces, "Log density")
        yield Picture("log density", figure, stem="log-density")


_KINDS: dict[str, Callable[[Run], Iterator[Picture]]] = {
    "mixing": _mixing,
    "rhat": _rhats,
    "running": _running,
    "coverage": _coverage,
    "reliability": _reliability,
    "risk": _risk,
    "uncertainty": _uncertainty,
    "thresholds": _thresholds,
    "log density": _log_density,
}
ON_PAGE = ("mixing", "rhat", "running", "coverage", "reliability", "risk", "uncertainty")
"""Kinds of figures on the page."""
SAVED = ("thresholds", "uncertainty", "reliability", "risk", "log density")
"""Kinds of figures that are saved in ``figures/``, some of which are on the page as well."""
