"""Each diagnostic for a person: its numbers, what they mean, and what to do if they are bad."""

import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from probbnn.diagnostics.findings import Findings
from probbnn.diagnostics.mixing import MAX_RHAT, MIN_ESS, RHATS, Mixing

__all__ = ["Diagnostic", "describe"]


class Diagnostic(NamedTuple):
    """One line of the report.

    Attributes:
        title: what it is.
        result: the numbers, or why there are none, for a person.
        meaning: one sentence.
        advice: one sentence: what to do if it is bad.
        numbers: the numbers by name; empty where there are none.
    """

    title: str
    result: str
    meaning: str
    advice: str
    numbers: Mapping[str, object]


# Text and numbers.
_Result = tuple[str, Mapping[str, object]]
_ResultOf = Callable[[Findings], _Result]
_DIAGNOSTICS: dict[str, Callable[[Findings], Diagnostic]] = {}


def describe(findings: Findings) -> dict[str, Diagnostic]:
    """Every diagnostic by name, in the order of the report."""
    return {name: diagnostic(findings) for name, diagnostic in _DIAGNOSTICS.items()}


def _described(
    name: str, *, title: str, meaning: str, advice: str, needs: str | None = None
) -> Callable[[_ResultOf], _ResultOf]:
    """Puts the result that the function below returns into the report, with what is said of it.

    ``needs``: what of the `Findings` it is about, if that is not what it is called.
    """

    def add(result_of: _ResultOf) -> _ResultOf:
        def diagnostic(c: Findings) -> Diagnostic:
            reason = c.missing.get(needs or name)
            result, numbers = result_of(c) if reason is None else (f"unknown: {reason}", {})
            return Diagnostic(title, result, meaning, advice, numbers)

        _DIAGNOSTICS[name] = diagnostic
        return result_of

    return add


@_described(
    "function",
    title="R-hat of the function",
    meaning="R-hat compares the halves of all chains at each probe value: 1 if they cannot be told "
    "apart, more the less they agree.",
    advice="Run longer until 99 % of the values are at 1.01 or below, with an ESS of 400; if that "
    "takes too long, sample by NUTS or with a larger step as far as the temperature allows.",
)
def _function(c: Findings) -> _Result:
    assert c.function is not None
    return _of_mixing(c.function)


@_described(
    "ess",
    title="Effective sample size",
    meaning="As many independent draws would estimate the mean (bulk) or the 5 % and 95 % "
    "quantiles (tail) as well as these correlated ones.",
    advice="Below 400, R-hat itself is not to be trusted: run longer, and keep more draws if "
    "nearly all that were kept are independent.",
    needs="parameters",
)
def _ess(c: Findings) -> _Result:
    assert c.judged is not None
    if not c.judged.num_varying:
        return _of_mixing(c.judged)
    numbers = c.judged.to_dict()
    bulk, tail = numbers["ess_bulk"], numbers["ess_tail"]
    total = c.num_chains * c.num_draws
    text = (
        f"bulk: worst {bulk['worst']:,.0f}, median {bulk['median']:,.0f}; tail: worst "
        f"{tail['worst']:,.0f}, median {tail['median']:,.0f}; of {total:,} draws"
    )
    return text, {"ess_bulk": bulk, "ess_tail": tail, "num_draws": total}


@_described(
    "mcse",
    title="Monte Carlo error",
    meaning="The standard error of a mean over the draws, in units of the value: the digits below "
    "it are chance.",
    advice="Four times the draws halve it.",
    needs="parameters",
)
def _mcse(c: Findings) -> _Result:
    assert c.judged is not None
    if not c.judged.num_varying:
        return _of_mixing(c.judged)
    numbers = c.judged.to_dict()["mcse"]
    return f"worst {numbers['worst']:.2g}, median {numbers['median']:.2g}", numbers


@_described(
    "within_chain",
    title="R-hat within chains",
    meaning="Each chain against itself, in quarters: far above 1, it has not settled, whatever the "
    "others do; near 1 while the chains disagree, each has settled in a region of its own.",
    advice="Run longer if it is large; start from more places, or use a cyclical step size, if it "
    "is small and the chains disagree.",
)
def _within_chain(c: Findings) -> _Result:
    assert c.within_chain is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a chain that never moves: NaN
        medians = np.nanmedian(c.within_chain, axis=1)
    text = f"median {medians.min():.3f} to {medians.max():.3f}"
    return text, {"median_by_chain": medians.tolist()}


@_described(
    "nested_rhat",
    title="Nested R-hat",
    meaning="Groups of chains against each other, each group from a start of its own: it tells "
    "whether many chains have forgotten their starts even where each is too short for R-hat.",
    advice="Lengthen the warm-up until it is at most what one independent draw from each chain "
    "gives.",
)
def _nested_rhat(c: Findings) -> _Result:
    assert c.nested_rhat is not None
    assert c.num_superchains is not None
    size = c.num_chains // c.num_superchains
    median, worst = float(np.nanmedian(c.nested_rhat)), float(np.nanmax(c.nested_rhat))
    independent = float(np.sqrt(1 + 1 / size))
    text = (
        f"median {median:.3f}, worst {worst:.3f} of {c.num_superchains} groups of {size} chains; "
        f"one independent draw from each: {independent:.3f}"
    )
    return text, {
        "num_superchains": c.num_superchains,
        "chains_in_each": size,
        "median": median,
        "worst": worst,
        "independent_draws": independent,
    }


@_described(
    "disagreement",
    title="Disagreement of chains",
    meaning="How far the prediction averaged over one chain is from that over another, from 0 to "
    "1: the part of a predicted probability that depends on the seed. Its interval is over the "
    "seeds.",
    advice="Where it is as large as the uncertainty that you report, that uncertainty depends on "
    "the seed: run longer, or average over more chains.",
)
def _disagreement(c: Findings) -> _Result:
    assert c.disagreement is not None
    variation, top, between = c.disagreement
    text = (
        f"total variation between two chains {between}, of each from the others "
        f"{variation.min():.3f} to {variation.max():.3f}; first choices differ at {top:.1%} of the "
        "inputs"
    )
    return text, {
        "total_variation": variation.tolist(),
        "top_class": top,
        "between": between.to_dict(),
    }


@_described(
    "cross_chain",
    title="Correlation between chains",
    meaning="Chains that see the same minibatches move together, and then agree without having "
    "converged, which no R-hat shows.",
    advice="Give each chain its own minibatches and its own random key.",
)
def _cross_chain(c: Findings) -> _Result:
    assert c.cross_chain is not None
    correlation, noise = c.cross_chain
    return f"{correlation:.3f} (± {noise:.3f} by chance)", c.cross_chain._asdict()


@_described(
    "running",
    title="NLL against draws",
    meaning="How good the average over the draws so far is: it levels off once further draws add "
    "nothing.",
    advice="If it still falls, the prediction gains from a longer run.",
)
def _running(c: Findings) -> _Result:
    assert c.running is not None
    nll, accuracy, held_out = c.running
    half = len(nll) // 2
    text = f"NLL {nll[half]:.4f} after half of the draws, {nll[-1]:.4f} after all"
    if accuracy is not None:
        text += f"; accuracy {accuracy[half]:.4f}, {accuracy[-1]:.4f}"
    text += " (held out)" if held_out else " (examples the draws have seen)"
    return text, {
        "nll": nll.tolist(),
        "accuracy": None if accuracy is None else accuracy.tolist(),
        "held_out": held_out,
    }


@_described(
    "drift",
    title="Drift of the log density",
    meaning="R-hat of each chain's log density against itself, late in the run: at the steps, "
    "which are there even where hardly a draw was kept, or else at the draws.",
    advice="Above 1.1 the chains are still on their way: lengthen the warm-up.",
)
def _drift(c: Findings) -> _Result:
    return f"R-hat within chains {c.drift:.3f}, late in the run", {"rhat": c.drift}


@_described(
    "loo",
    title="PSIS-LOO",
    meaning="The log predictive density of training examples with each left out in turn, by "
    "weighting the draws; a large Pareto k means that a few draws decide, and at T other than 1 it "
    "is none of the posterior's.",
    advice="If many k are large, rely on held-out data instead.",
)
def _loo(c: Findings) -> _Result:
    assert c.loo is not None
    loo, worst = c.loo, float(c.loo.pareto_k.max())
    num_examples = len(loo.pareto_k)
    text = (
        f"elpd {loo.elpd:.1f} ± {loo.se:.1f}, effective parameters {loo.p_loo:.1f} over "
        f"{num_examples} examples; Pareto k worst {worst:.2f}, {loo.share_bad:.1%} above "
        f"{loo.good_k:.2f}"
    )
    return text, {
        "elpd": loo.elpd,
        "se": loo.se,
        "p_loo": loo.p_loo,
        "num_examples": num_examples,
        "pareto_k_worst": worst,
        "good_k": loo.good_k,
        "share_bad": loo.share_bad,
    }


@_described(
    "parameters",
    title="R-hat of parameters",
    meaning="The same for single parameters; for those of a network it says little, as exchanging "
    "hidden units changes every weight and not the function.",
    advice="Do nothing if the function's values agree.",
)
def _parameters(c: Findings) -> _Result:
    assert c.parameters is not None
    return _of_mixing(c.parameters)


def _of_mixing(mixing: Mixing) -> _Result:
    if not mixing.num_varying:
        return f"none of the {len(mixing.names)} values ever changes, or they are not finite", {}
    numbers = mixing.to_dict()
    text = (
        f"{mixing.share_converged:.1%} of {mixing.num_varying:,} values have R-hat ≤ "
        f"{MAX_RHAT} and bulk and tail ESS ≥ {MIN_ESS}; R-hat: median "
        f"{numbers['rhat']['median']:.3f}, worst {numbers['rhat']['worst']:.3f} ({mixing.worst}), "
        + ", ".join(f"{mixing.share_above(r):.1%} above {r}" for r in RHATS)
    )
    if mixing.num_constant:
        text += f"; constant: {mixing.num_constant}"
    if mixing.nonfinite:
        text += f"; not finite: {len(mixing.nonfinite)}"
    return text, numbers
