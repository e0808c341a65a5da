"""One word on a run, by stated rules, with the numbers behind it and the next thing to try.

The first rule that holds decides; the evidence lists all that was found.

1. *diverged*: a draw is not finite, or more than 1 % of the trajectories ended in a divergence.
2. *biased by minibatch noise or step size*: the noise of minibatch gradients adds more than 5 % of
   T (and the meter's whole interval is above half of that); or the configurational temperature is
   more than 10 % above T (its whole interval is) and the log density does not drift (R-hat within
   chains up to 1.1); or the chains share minibatches and move together (correlation above 0.1, and
   above four times what chance gives).
3. *not converged*: fewer than 99 % of the values have R-hat ≤ 1.01 and a bulk ESS of at least 400,
   or one has an R-hat above 1.1; or the configurational temperature is not within 10 % of T, known
   to ±20 %; or the chains share minibatches or move together, so that R-hat cannot vouch for them.
   Its cause is the first of: fewer than 4 draws per chain; chains whose spread is under a fifth of
   the others'; a chain without which three quarters of the bad values are good; shared minibatches
   or chains that move together; chains that agree with themselves and not with each other; at least
   half of the draws independent, and too few of them; a run that is too short.
4. *converged*: none of these.

The values are the function's at the probes, or parameters where a run has no probes. Chains can
converge to the stationary distribution at a temperature other than 1, which is not the posterior:
the evidence says so.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from probbnn.diagnostics.mixing import MAX_RHAT, MIN_ESS, MIN_SHARE, Mixing, mixes
from probbnn.diagnostics.result import Convergence
from probbnn.diagnostics.temperature import MAX_NOISE, TOLERANCE, TemperatureMeters

__all__ = ["Label", "Verdict", "diverged", "judge"]

Label = Literal["converged", "not converged", "biased by minibatch noise or step size", "diverged"]

# Share of the trajectories.
_MAX_DIVERGENT = 0.01
# R-hat of the log density within chains.
_MAX_DRIFT = 1.1
_MAX_CORRELATION = 0.1
# Of a chain, in units of the others': one of less is stuck.
_MIN_SPREAD = 0.2
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

    Examples:
        >>> import numpy as np, xarray as xr
        >>> from probbnn.diagnostics import diagnose
        >>> theta = np.random.default_rng(0).normal(size=(4, 1_000))
        >>> posterior = xr.Dataset({"theta": (("chain", "draw"), theta)})
        >>> print(judge(diagnose(xr.DataTree.from_dict({"/posterior": posterior}))))
        converged
        - 100.0% of 1 parameters have R-hat ≤ 1.01 and a bulk ESS of at least 400 ...
        - the temperature was not measured: a bias by minibatch noise or step size would not show
        Next: use the draws
    """
    evidence, settings = tuple(_evidence(convergence, meters)), settings or {}
    finding = (
        _divergence(convergence)
        or _bias(convergence, meters, settings)
        or _no_convergence(convergence, meters, settings)
        or _Finding("converged", "", "use the draws")
    )
    label, cause, next_step = finding
    if label == "converged" and convergence.num_chains == 1:
        next_step += "; better of four chains, from different starts"
    asked = _asked(convergence, meters)
    if asked is not None and asked != 1:
        next_step += "; for the posterior, at temperature 1"
    return Verdict(label, cause, evidence, next_step)


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
    noise = meters.gradient_noise
    excess = meters.configurational.value / meters.temperature - 1
    hot = meters.configurational.low > meters.temperature * (1 + TOLERANCE)
    drifting = c.drift is not None and c.drift > _MAX_DRIFT
    if not meters.is_noisy and (not hot or drifting):
        return None
    added = 0.0 if noise is None else noise.value
    ratio = max(added / MAX_NOISE, excess / TOLERANCE if hot else 0.0)
    if not meters.is_noisy:
        cause = "the step size is too large"
    elif hot and excess - added > TOLERANCE:
        cause = "the step size is too large, and with it the minibatch noise"
    else:
        cause = "the minibatch noise is too large for this step size"
    return _Finding(
        label,
        cause,
        f"divide the step size by {math.ceil(ratio)}; against minibatch noise, a larger batch or "
        "control variates help too",
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
            "keep at least 100 draws per chain, after a warm-up",
        )
    if not mixing.num_varying:
        return _Finding(label, "nothing ever changes", _CHECK)
    short = not mixes(mixing)
    if c.spread is not None and (c.spread < _MIN_SPREAD).all():
        return _Finding(label, "no chain moves", _CHECK)
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
    if meters is not None and not _as_asked(meters):
        return _Finding(
            label,
            "the temperature is not the one asked for, or not known well enough",
            "measure it on more draws; if it stays off, run longer",
        )
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
    if c.leave_one_chain_out[best] < 0.25 * min(others.min(), mixing.share_above(MAX_RHAT)):
        return f"chain {best} is stuck where the others are not"
    return ""


def _too_short(c: Convergence, mixing: Mixing) -> tuple[str, str]:
    ess = mixing.ess_bulk[~np.isnan(mixing.ess_bulk)]
    within = None if c.within_chain is None else float(np.nanmedian(c.within_chain))
    between = float(np.nanmedian(mixing.rhat))
    if within is not None and within < 1.05 and between > 1.1:
        return (
            "each chain stays in a region of its own",
            "more chains from more places, a cyclical step size, or a longer run",
        )
    # Of nearly all values if these are the trouble, else of the worst.
    left_out = 0.01 if mixing.share_converged < MIN_SHARE else 0.0
    low_ess = np.quantile(ess, left_out)
    high_rhat = np.quantile(mixing.rhat[np.isfinite(mixing.rhat)], 1 - left_out)
    if low_ess > c.num_chains * c.num_draws / 2:
        ratio = math.ceil(2 * MIN_ESS / low_ess)
        return "too few draws were kept", f"keep {ratio} times as many draws"
    # Variances of means, and so R-hat − 1, fall as 1/steps.
    ratio = math.ceil(max(2, MIN_ESS / low_ess, (high_rhat - 1) / (MAX_RHAT - 1)))
    faster = "a sampler that moves faster, such as nuts or mclmc"
    return (
        "the run is too short",
        f"about {ratio} times as many steps, or {faster}"
        if ratio <= _MAX_TIMES
        else f"{faster}: about {ratio} times as many steps would be needed",
    )


def _as_asked(meters: TemperatureMeters) -> bool:
    measured, asked = meters.configurational, meters.temperature
    near = abs(measured.value - asked) <= TOLERANCE * asked
    return near and measured.high - measured.low <= 4 * TOLERANCE * asked


def _evidence(c: Convergence, meters: TemperatureMeters | None) -> list[str]:
    lines = []
    mixing = c.judged
    if mixing is None:
        lines.append(f"no R-hat can be computed from so few draws: {c.num_draws} per chain")
    elif mixing.num_varying:
        lines.append(
            f"{mixing.share_converged:.1%} of {mixing.num_varying:,} {c.space} have R-hat ≤ "
            f"{MAX_RHAT} and a bulk ESS of at least {MIN_ESS} ({MIN_SHARE:.0%} are "
            f"needed); median R-hat {np.nanmedian(mixing.rhat):.3f}, worst "
            f"{np.nanmax(mixing.rhat):.3f} ({mixing.worst}); median ESS "
            f"{np.nanmedian(mixing.ess_bulk):,.0f}, worst {np.nanmin(mixing.ess_bulk):,.0f}"
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
        lines.append(f"configurational temperature {meters.configurational}, asked {asked:,g}")
        if meters.gradient_noise is not None:
            noise = meters.gradient_noise
            lines.append(
                f"minibatch noise adds {noise.value:.1%} of T [{noise.low:.1%}, {noise.high:.1%}]"
            )
    return lines
