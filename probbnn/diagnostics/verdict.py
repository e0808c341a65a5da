"""One word on a run, by stated rules, with the numbers behind it and the next thing to try.

The first rule that holds decides; the evidence lists all that was found.

1. *diverged*: a draw is not finite, a chain was left out because it was not, or more than 1 % of
   the trajectories ended in a divergence.
2. *biased by minibatch noise or step size*: the configurational temperature is more than the
   tolerance (10 %) above T and its interval above T, or a layer's whole interval is that far above
   T, while the log density does not drift (R-hat within chains up to 1.1); or the noise of
   minibatch gradients is to add more than half the tolerance to T (and the meter's whole interval
   is above half of that), and the configurational temperature does not exclude it; or the chains
   share minibatches and move together (correlation above 0.1, and above four times what chance
   gives).
3. *not converged*: fewer than 99 % of the values have R-hat ≤ 1.01 and a bulk and tail ESS of at
   least 400, or one has an R-hat above 1.05 or an ESS below 200; or more than 0.1 % of the
   trajectories diverged; or the configurational temperature is not within the tolerance of T, known
   to twice the tolerance, or a layer's whole interval is further below T; or the chains share
   minibatches or move together, so that R-hat cannot vouch for them.
   Its cause is the first of: fewer than 4 draws per chain; chains whose spread is under a fifth of
   the others'; divergent trajectories; a chain five standard errors from the others without which
   three quarters of the bad values are good; shared minibatches or chains that move together;
   chains that agree with themselves and not with each other; draws of which at least a third are
   effective, and too few of them; tails alone that are too little visited; a run that is too
   short; a temperature that is off or unknown.
4. *converged*: none of these.

Intervals of layers' temperatures are widened for their number. How often each is said of runs whose
truth is known, ``python benchmarks/verdicts.py`` measures.

The values are the function's at the probes, or parameters where a run has no probes. Chains can
converge to the stationary distribution at a temperature other than 1, which is not the posterior:
the evidence says so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from probbnn.diagnostics.mixing import MAX_RHAT, MIN_ESS, MIN_SHARE, Mixing, enough_ess, mixes
from probbnn.diagnostics.result import Convergence
from probbnn.diagnostics.temperature import TemperatureMeters, of_layers
from probbnn.errors import InputError

__all__ = ["Label", "Verdict", "diverged", "judge"]

Label = Literal["converged", "not converged", "biased by minibatch noise or step size", "diverged"]

# Shares of the trajectories, of a run that diverged and of one that leaves something out.
_MAX_DIVERGENT = 0.01
_SOME_DIVERGENT = 0.001
# R-hat of the log density within chains.
_MAX_DRIFT = 1.1
_MAX_CORRELATION = 0.1
# Of a chain, in units of the others': one of less is stuck.
_MIN_SPREAD = 0.2
# Standard errors between a chain and the others that chance does not give.
_MIN_DISTANCE = 5
# Nobody waits for a run that is more times longer.
_MAX_TIMES = 20


@dataclass(frozen=True)
class Verdict:
    """What `judge` says of a run.

    Attributes:
        label: one of the four.
        cause: what is wrong, in a few words; ``""`` if nothing is.
        evidence: the numbers, a sentence each.
        next_step: what to try.
    """

    label: Label
    cause: str
    evidence: tuple[str, ...]
    next_step: str

    def __str__(self) -> str:
        head = f"{self.label}: {self.cause}" if self.cause else self.label
        return "\n".join(
            [head, *(f"- {line}" for line in self.evidence), f"Next: {self.next_step}"]
        )

    def to_dict(self) -> dict[str, object]:
        """All of it for JSON."""
        return {
            "label": self.label,
            "cause": self.cause,
            "evidence": list(self.evidence),
            "next_step": self.next_step,
        }


def diverged(reason: str) -> Verdict:
    """The verdict on a run that broke off, such as with a `DivergenceError`."""
    return Verdict(
        "diverged",
        "a chain became non-finite",
        (reason,),
        "divide the step size by ten, or start from a point estimate",
    )


def judge(
    convergence: Convergence,
    meters: TemperatureMeters | None = None,
    settings: Mapping[str, object] | None = None,
) -> Verdict:
    """The verdict on a run. How it is reached is stated at the head of this module.

    Args:
        convergence: what `diagnose` returned.
        meters: what `measure_temperature` returned; without it no bias can be seen.
        settings: the run's settings, as in `Draws.settings`: ``shared_minibatches`` is looked at.

    Raises:
        InputError: if the first is not what `diagnose` returned, as an ArviZ tree is not.

    Examples:
        >>> import numpy as np, xarray as xr
        >>> from probbnn.diagnostics import diagnose
        >>> theta = np.random.default_rng(0).normal(size=(4, 1_000))
        >>> posterior = xr.Dataset({"theta": (("chain", "draw"), theta)})
        >>> print(judge(diagnose(xr.DataTree.from_dict({"/posterior": posterior}))))
        converged
        - 100.0% of 1 parameters have R-hat ≤ 1.01 and a bulk and tail ESS of at least 400 ...
        - the temperature was not measured: a bias by minibatch noise or step size would not show
        Next: use the draws
    """
    if not isinstance(convergence, Convergence):
        raise InputError(
            f"the verdict is asked of a {type(convergence).__name__}; give what diagnose(tree) "
            "returned"
        )
    evidence, settings = _evidence(convergence, meters), settings or {}
    finding = (
        _divergence(convergence)
        or _bias(convergence, meters, settings)
        or _no_convergence(convergence, meters, settings)
        or _Finding("converged", "", "use the draws")
    )
    label, cause, next_step = finding
    if label == "converged" and convergence.num_chains == 1:
        next_step += "; better of four chains, from different starts"
    elif label != "converged" and convergence.disagreement is not None:
        evidence.append(
            f"a predicted probability depends on the seed: between two chains it moves by "
            f"{convergence.disagreement.between} (total variation)"
        )
    asked = _asked(convergence, meters)
    if asked is not None and asked != 1:
        next_step += "; for the posterior, at temperature 1"
    return Verdict(label, cause, tuple(evidence), next_step)


class _Finding(NamedTuple):
    """What the first rule that holds says; the attributes are those of `Verdict`."""

    label: Label
    cause: str
    next_step: str


_CHECK = "check the step size, and that this is a sampler"
_OWN_MINIBATCHES = "run with shared_minibatches=False"


def _divergence(c: Convergence) -> _Finding | None:
    total = c.num_chains * c.num_draws
    if c.num_nonfinite:
        return _Finding(
            "diverged",
            f"draws that are not finite: {c.num_nonfinite} of {total}",
            "divide the step size by ten, or start from a point estimate",
        )
    if c.excluded:
        return _Finding(
            "diverged",
            f"left out, because they became non-finite: {c.excluded}",
            "divide the step size by ten, or start from a point estimate",
        )
    if c.num_divergent is not None and c.num_divergent > _MAX_DIVERGENT * total:
        return _Finding(
            "diverged",
            f"divergent trajectories: {c.num_divergent} of {total}",
            "raise target_acceptance_rate towards 0.99, which makes the steps smaller",
        )
    return None


def _asked(c: Convergence, meters: TemperatureMeters | None) -> float | None:
    return c.temperature if meters is None else meters.temperature


def _move_together(c: Convergence) -> bool:
    if c.cross_chain is None:
        return False
    correlation, by_chance = c.cross_chain
    return correlation > max(_MAX_CORRELATION, 4 * by_chance)


def _bias(
    c: Convergence, meters: TemperatureMeters | None, settings: Mapping[str, object]
) -> _Finding | None:
    label: Label = "biased by minibatch noise or step size"
    if _move_together(c) and settings.get("shared_minibatches"):
        return _Finding(label, "the chains share minibatches", _OWN_MINIBATCHES)
    if meters is None:
        return None
    drifting = c.drift is not None and c.drift > _MAX_DRIFT
    hot = meters.is_hot and not drifting
    layers = {} if drifting else meters.hot_layers
    if not (hot or layers or meters.is_noisy):
        return None
    asked, tolerance = meters.temperature, meters.tolerance
    added = meters.gradient_noise.value if meters.gradient_noise and meters.is_noisy else 0.0
    excess = meters.configurational.value / asked - 1 if hot else 0.0
    if not meters.is_noisy and not hot:
        cause = f"the step size is too large for some layers: {of_layers(layers)}"
    elif not meters.is_noisy:
        cause = "the step size is too large"
    elif hot and excess - added > tolerance:
        cause = "the step size is too large, and with it the minibatch noise"
    else:
        cause = "the minibatch noise is too large for this step size"
    # Both fall as the step size does; to well inside of what is let pass.
    excesses = [excess, *(found.value / asked - 1 for found in layers.values())]
    ratio = math.ceil(max(2 * max(excesses) / tolerance, 1.5 * added / meters.max_noise))
    return _Finding(
        label,
        cause,
        f"divide the step size by {ratio}, and take as many times more steps; against minibatch "
        "noise, a larger batch or control variates help too",
    )


def _no_convergence(
    c: Convergence, meters: TemperatureMeters | None, settings: Mapping[str, object]
) -> _Finding | None:
    label: Label = "not converged"
    mixing = c.judged
    if mixing is None:
        return _Finding(
            label,
            f"too few draws to tell: {c.num_draws} per chain",
            "keep at least 500 draws per chain, after a warm-up",
        )
    if not mixing.num_varying:
        return _Finding(label, "nothing ever changes", _CHECK)
    short = not mixes(mixing)
    if c.spread is not None and (c.spread < _MIN_SPREAD).all():
        return _Finding(label, "no chain moves", _CHECK)
    if (
        c.num_divergent is not None
        and c.num_divergent > _SOME_DIVERGENT * c.num_chains * c.num_draws
    ):
        return _Finding(
            label,
            f"divergent trajectories ({c.num_divergent}): some of the posterior is left out",
            "raise target_acceptance_rate towards 0.99, or parametrise anew what is curved",
        )
    if short and (stuck := _stuck_chain(c, mixing)):
        anew = "start anew from elsewhere where it is stuck, and run all chains longer"
        return _Finding(label, stuck, anew)
    if settings.get("shared_minibatches"):
        cause = "the chains share minibatches, and R-hat cannot vouch for them"
        return _Finding(label, cause, _OWN_MINIBATCHES)
    if _move_together(c):
        return _Finding(
            label,
            "the chains move together, and R-hat cannot vouch for them",
            "give each chain its own random key, its own start and its own minibatches",
        )
    if short:
        return _Finding(label, *_too_short(c, mixing))
    if meters is not None and (off := _off_temperature(meters)):
        return _Finding(label, *off)
    return None


def _off_temperature(meters: TemperatureMeters) -> tuple[str, str] | None:
    longer = "run longer, with a longer warm-up"
    if meters.is_hot or meters.is_cold:
        return "the temperature is not the one asked for", longer
    if not meters.is_as_asked:
        return (
            "the temperature is not known well enough",
            "keep more draws, and measure it on more of them",
        )
    if off := {**meters.cold_layers, **meters.hot_layers}:
        return f"some layers are not at the temperature asked for: {of_layers(off)}", longer
    return None


def _stuck_chain(c: Convergence, mixing: Mixing) -> str:
    """What is wrong with some of the chains, if that is the trouble."""
    stuck = [] if c.spread is None else np.flatnonzero(c.spread < _MIN_SPREAD).tolist()
    if len(stuck) == 1:
        return f"chain {stuck[0]} is stuck"
    if stuck:
        return f"chains {', '.join(map(str, stuck))} are stuck"
    if c.leave_one_chain_out is None:
        return ""
    best = int(c.leave_one_chain_out.argmin())
    others = np.delete(c.leave_one_chain_out, best)
    alone = c.leave_one_chain_out[best] < 0.25 * min(others.min(), mixing.share_above(MAX_RHAT))
    if alone and c.distances is not None and c.distances[best] > _MIN_DISTANCE:
        return f"chain {best} is stuck where the others are not"
    return ""


def _too_short(c: Convergence, mixing: Mixing) -> tuple[str, str]:
    within = None if c.within_chain is None else float(np.nanmedian(c.within_chain))
    between = float(np.nanmedian(mixing.rhat))
    if within is not None and within < 1.05 and between > 1.1:
        return (
            "each chain stays in a region of its own",
            "more chains from more places, a cyclical step size, or a longer run",
        )
    # Of nearly all values if these are the trouble, else of the worst.
    left_out = 1 - MIN_SHARE if mixing.share_converged < MIN_SHARE else 0.0
    varying = ~np.isnan(mixing.ess_bulk)
    bulk, ess = (np.quantile(x[varying], left_out) for x in (mixing.ess_bulk, mixing.ess))
    rhat = np.quantile(mixing.rhat[np.isfinite(mixing.rhat)], 1 - left_out)
    enough = enough_ess(c.num_chains)
    # Variances of means, and so R-hat − 1, fall as 1/steps.
    times = math.ceil(max(2, 1.2 * enough / ess, (rhat - 1) / (MAX_RHAT - 1)))
    if ess > c.num_chains * c.num_draws / 3:
        return (
            "too few draws were kept",
            f"{times} times as many steps, and {times * c.num_draws:,} draws of each chain kept",
        )
    # As many as keep most of what the steps are worth.
    draws = max(c.num_draws, 100 * math.ceil(2.4 * enough / c.num_chains / 100))
    only_tails = rhat <= MAX_RHAT and bulk >= MIN_ESS
    cause = "the tails are visited too little" if only_tails else "the run is too short"
    others = [name for name in ("nuts", "mclmc") if name != c.method]
    faster = f"a sampler that moves faster, such as {' or '.join(others)}"
    return (
        cause,
        f"about {times} times as many steps with {draws:,} draws of each chain kept, or {faster}"
        if times <= _MAX_TIMES
        else f"{faster}: about {times} times as many steps would be needed, with {draws:,} draws "
        "of each chain kept",
    )


def _evidence(c: Convergence, meters: TemperatureMeters | None) -> list[str]:
    lines = []
    mixing = c.judged
    if mixing is None:
        lines.append(f"no R-hat can be computed from so few draws: {c.num_draws} per chain")
    elif mixing.num_varying:
        lines.append(
            f"{mixing.share_converged:.1%} of {mixing.num_varying:,} {c.space} have R-hat ≤ "
            f"{MAX_RHAT} and a bulk and tail ESS of at least {MIN_ESS} ({MIN_SHARE:.0%} are "
            f"needed); median R-hat {np.nanmedian(mixing.rhat):.3f}, worst "
            f"{np.nanmax(mixing.rhat):.3f} ({mixing.worst}); median ESS "
            f"{np.nanmedian(mixing.ess_bulk):,.0f}, worst {np.nanmin(mixing.ess_bulk):,.0f}, of "
            f"the tails {np.nanmin(mixing.ess_tail):,.0f}"
        )
        if mixing.num_constant:
            lines.append(f"constant in every draw, and left out: {mixing.num_constant}")
    if mixing is not None and mixing.nonfinite:
        some = ", ".join(mixing.nonfinite[:3]) + (", …" if len(mixing.nonfinite) > 3 else "")
        lines.append(f"not finite in some draw: {len(mixing.nonfinite)} {c.space} ({some})")
    if c.num_chains == 1:
        lines.append("one chain: compared are its halves, which would agree in the wrong place too")
    if c.spread is not None and c.spread.min() < _MIN_SPREAD:
        lines.append("spread of the chains: " + ", ".join(f"{s:.2f}" for s in c.spread))
    if c.drift is not None and c.drift > _MAX_DRIFT:
        lines.append(f"the log density drifts: R-hat within chains {c.drift:.2f}, late in the run")
    if c.cross_chain is not None and _move_together(c):
        lines.append(
            f"the chains move together: correlation {c.cross_chain.correlation:.3f} ± "
            f"{c.cross_chain.noise:.3f}"
        )
    if c.num_divergent:
        lines.append(f"divergent trajectories: {c.num_divergent}")
    asked = _asked(c, meters)
    if asked is not None and asked != 1:
        lines.append(f"T = {asked:,g} was asked for, which is not the posterior's T = 1")
    if meters is None:
        lines.append(
            "the temperature was not measured: a bias by minibatch noise or step size would not "
            "show"
        )
    else:
        lines += _of_temperature(meters)
    return lines


def _of_temperature(meters: TemperatureMeters) -> list[str]:
    asked, measured = meters.temperature, meters.configurational
    line = f"configurational temperature {measured}, asked {asked:,g}"
    if np.isfinite(meters.precision):
        line += f": known to ±{meters.precision:.1%}"
        if meters.is_as_asked and not measured.low <= asked <= measured.high:
            line += (
                f"; it is not {asked:,g}, but within the {meters.tolerance:.0%} that are let pass"
            )
    lines = [line]
    if off := {**meters.hot_layers, **meters.cold_layers}:
        number = len(meters.configurational_by_layer)
        lines.append(f"{of_layers(off)} (intervals widened for the number of layers, {number})")
    vague = [
        name
        for name, found in meters.widened_by_layer.items()
        if found.high - found.low > 4 * meters.tolerance * asked and name not in off
    ]
    if vague:
        lines.append(
            f"not known to ±{2 * meters.tolerance:.0%}: the temperature of layer "
            + ", ".join(vague[:3])
            + (", …" if len(vague) > 3 else "")
        )
    if meters.gradient_noise is not None:
        noise = meters.gradient_noise
        line = f"minibatch noise adds {noise.value:.1%} of T [{noise.low:.1%}, {noise.high:.1%}]"
        if meters.predicts_noise and meters.excludes_noise:
            line += (
                " at most, where chains forget within an epoch: the configurational temperature "
                "is below that, and decides"
            )
        lines.append(line)
    return lines
