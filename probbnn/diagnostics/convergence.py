"""Have the chains arrived, and do they agree? Answered from an ArviZ tree alone.

A network's weights can be exchanged without changing what it computes, so that chains may agree on
the function and not on a single weight. What is judged are therefore the values of the function at
probe inputs; where a tree has none, its parameters.

Sources: Vehtari et al. (2021), "Rank-normalization, folding, and localization"; Margossian et al.
(2024), "Nested R-hat"; Vehtari et al. (2024), "Pareto smoothed importance sampling".
"""

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from probbnn.diagnostics import ranks
from probbnn.errors import InputError
from probbnn.metrics import NLL_FLOOR
from probbnn.subsample import random_subset

__all__ = [
    "LEAST_ESS",
    "LEAST_SHARE",
    "LOO",
    "LARGEST_RHAT",
    "RHATS",
    "Convergence",
    "CrossChain",
    "Diagnostic",
    "Disagreement",
    "Mixing",
    "Running",
    "diagnose",
]

LARGEST_RHAT = 1.01
"""R-hat up to which a value counts as converged (Vehtari et al., 2021)."""

LEAST_ESS = 400
"""Bulk effective sample size from which it does (the same)."""

LEAST_SHARE = 0.99
"""Share of the values that must do so."""

RHATS = (LARGEST_RHAT, 1.05, 1.1)
"""R-hat thresholds whose shares are reported, from today's strict one to Gelman & Rubin's."""

# Variables of ``posterior_predictive`` that are the function, and not new observations, whose
# noise would make any chain look as if it mixed.
_FUNCTIONS = ("probability", "output")
# Variables of ``posterior`` that are no parameters.
_NO_PARAMETERS = {"log_density", "log_prior", "layer_norm"}
# Names of the log density in ``sample_stats``: ours, and ArviZ's, whose sign makes no difference.
_LOG_DENSITIES = ("logdensity", "lp")
# Of more than this, a random subset says the same.
_MOST_VALUES = 2_000
_MOST_VALUES_BY_CHAIN = 300
_MOST_EXAMPLES = 1_000
_NUM_SHIFTS = 20
# A fifth of the draws is the tail that PSIS fits a distribution to, and it takes five.
_LEAST_DRAWS_LOO = 25


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
    numbers: Mapping[str, Any]


@dataclass(frozen=True)
class Mixing:
    """How well chains agree on many quantities. NaN for those that never change.

    Attributes:
        names: what each quantity is called, ``(k,)``.
        rhat: rank-normalised split R-hat, ``(k,)``.
        ess_bulk: bulk effective sample size, ``(k,)``.
        ess_tail: the smaller one of the 5 % and 95 % quantiles, ``(k,)``.
        mcse: Monte Carlo standard error of the mean, in units of the quantity, ``(k,)``.
        nonfinite: names of those that are NaN or infinite in some draw.
    """

    names: Sequence[str]
    rhat: np.ndarray
    ess_bulk: np.ndarray
    ess_tail: np.ndarray
    mcse: np.ndarray
    nonfinite: Sequence[str] = ()

    @property
    def num_constant(self) -> int:
        """Quantities that were the same in every draw: there is nothing to compare."""
        return len(self.names) - self.num_varying - len(self.nonfinite)

    @property
    def num_varying(self) -> int:
        """Those that can be compared, of which the shares are taken."""
        return int((~np.isnan(self.ess_bulk)).sum())

    @property
    def worst(self) -> str:
        """Name of the quantity with the largest R-hat, ``""`` if there is none."""
        known = ~np.isnan(self.rhat)
        return self.names[int(np.nanargmax(self.rhat))] if known.any() else ""

    def share_above(self, rhat: float) -> float:
        """Share of the varying quantities with a larger R-hat."""
        return float(np.mean(self.rhat[~np.isnan(self.rhat)] > rhat))

    @property
    def share_converged(self) -> float:
        """Share of the varying quantities with R-hat ≤ 1.01 and a bulk ESS ≥ 400."""
        varying = ~np.isnan(self.ess_bulk)
        good = (self.rhat <= LARGEST_RHAT) & (self.ess_bulk >= LEAST_ESS)
        return float(good[varying].mean())

    def to_dict(self) -> dict[str, Any]:
        """Worst, median and shares, for JSON."""
        return {
            "num_values": len(self.names),
            "num_constant": self.num_constant,
            "share_converged": self.share_converged,
            "rhat": {
                "worst": float(np.nanmax(self.rhat)),
                "worst_at": self.worst,
                "median": float(np.nanmedian(self.rhat)),
                "share_above": {str(limit): self.share_above(limit) for limit in RHATS},
            },
            **{
                name: {
                    "worst": float(np.nanmin(ess)),
                    "percentile_1": float(np.nanquantile(ess, 0.01)),
                    "median": float(np.nanmedian(ess)),
                }
                for name, ess in (("ess_bulk", self.ess_bulk), ("ess_tail", self.ess_tail))
            },
            "mcse": {
                "worst": float(np.nanmax(self.mcse)),
                "median": float(np.nanmedian(self.mcse)),
            },
        }


class CrossChain(NamedTuple):
    """Do the chains move together?

    Attributes:
        correlation: of the steps from draw to draw, mean over pairs of chains and values.
        noise: standard deviation of that among chains shifted in time against each other.
    """

    correlation: float
    noise: float


class Running(NamedTuple):
    """Predictions as draws come in, all chains together, after each draw.

    Attributes:
        nll: mean negative log likelihood of the averaged likelihood, nats, ``(draw,)``.
        accuracy: of the averaged probabilities, ``(draw,)``; ``None`` without probabilities.
        held_out: whether on held-out examples, or on those that were trained on.
    """

    nll: np.ndarray
    accuracy: np.ndarray | None
    held_out: bool


class Disagreement(NamedTuple):
    """How far each chain's predictive is from that of the others.

    Attributes:
        total_variation: mean over inputs, in [0, 1], ``(chain,)``.
        top_class: share of inputs for which the chains' first choices are not all the same.
    """

    total_variation: np.ndarray
    top_class: float


class LOO(NamedTuple):
    """PSIS-LOO.

    Attributes:
        elpd: expected log predictive density of the examples, nats, summed over them.
        se: its standard error.
        p_loo: effective number of parameters.
        pareto_k: how heavy the tail of each example's weights is, ``(example,)``.
        good_k: up to which k the estimate can be relied on at this number of draws.
    """

    elpd: float
    se: float
    p_loo: float
    pareto_k: np.ndarray
    good_k: float

    @property
    def share_bad(self) -> float:
        """Share of the examples whose k is too large."""
        return float(np.mean(~(self.pareto_k <= self.good_k)))


@dataclass(frozen=True)
class Convergence:
    """What `diagnose` found. What the tree had no data for is ``None``, and `missing` says why.

    Attributes:
        num_chains: number of chains.
        num_draws: draws per chain.
        method: the method's name, ``""`` where the tree does not say.
        temperature: T that the run was asked for, ``None`` where the tree does not say.
        function: mixing of the function's values at the probes.
        parameters: mixing of parameters: of a random subset for a tree made by `Draws`.
        within_chain: R-hat of each chain against itself, in quarters, ``(chain, value)``.
        spread: each chain's standard deviation in units of the median of those that move, median
            over the values, ``(chain,)``: 0 stands still.
        bad_without: share of values with R-hat > 1.01 if a chain is left out, ``(chain,)``.
        nested_rhat: of each value, ``(value,)``, where superchains were given.
        num_superchains: how many these are.
        cross_chain: do the chains move together?
        running: NLL and accuracy against draws.
        disagreement: between the chains' predictives.
        loo: PSIS-LOO of the examples in ``log_likelihood``.
        drift: R-hat of each chain's log density against itself late in the run, median over the
            chains.
        num_nonfinite: draws, over all chains, at which something is NaN or infinite.
        num_divergent: draws that ended a divergent trajectory, of kernels that say so.
        missing: what is ``None``, and why.
    """

    num_chains: int
    num_draws: int
    method: str = ""
    temperature: float | None = None
    function: Mixing | None = None
    parameters: Mixing | None = None
    within_chain: np.ndarray | None = None
    spread: np.ndarray | None = None
    bad_without: np.ndarray | None = None
    nested_rhat: np.ndarray | None = None
    num_superchains: int | None = None
    cross_chain: CrossChain | None = None
    running: Running | None = None
    disagreement: Disagreement | None = None
    loo: LOO | None = None
    drift: float | None = None
    num_nonfinite: int = 0
    num_divergent: int | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def judged(self) -> Mixing | None:
        """The values that convergence is judged by: the function's, or else the parameters."""
        return self.parameters if self.function is None else self.function

    @property
    def space(self) -> str:
        """What `judged` is about."""
        return "parameters" if self.function is None else "probe values"

    @property
    def diagnostics(self) -> dict[str, Diagnostic]:
        """Each of them with its numbers, what it means, and what to do."""
        return {name: _describe(name, self) for name in _RESULTS}

    def __str__(self) -> str:
        title = f"{self.num_chains} chains of {self.num_draws} draws"
        rows = [(d.title, d.result) for d in self.diagnostics.values()]
        width = max(len(name) for name, _ in rows)
        return "\n".join([title, *(f"{name:<{width}}  {result}" for name, result in rows)])

    def to_dict(self) -> dict[str, Any]:
        """Every diagnostic by name for JSON, with ``None`` for what is undefined."""
        return {
            "num_chains": self.num_chains,
            "num_draws": self.num_draws,
            "space": self.space,
            "num_nonfinite": self.num_nonfinite,
            "num_divergent": self.num_divergent,
            "diagnostics": {
                name: {
                    "title": d.title,
                    "result": d.result,
                    "meaning": d.meaning,
                    "advice": d.advice,
                    "numbers": _plain(d.numbers),
                }
                for name, d in self.diagnostics.items()
            },
        }


def diagnose(tree: Any, superchains: Sequence[int] | None = None) -> Convergence:
    """Judge convergence from an ArviZ tree.

    Args:
        tree: an `xarray.DataTree` from `Draws.to_datatree`, or of any run: `arviz.from_numpyro`,
            or one with a ``posterior`` made by hand; an ArviZ 0.23 `InferenceData` too. The
            function's values are looked for in ``posterior_predictive`` as ``probability`` or
            ``output`` (other names there are taken for new observations, which say nothing about
            mixing), and in ``predictions``, where held-out examples are; ``log_likelihood`` is
            for PSIS-LOO. What is not there is reported as missing.
        superchains: for nested R-hat, the group of each chain, ``(chain,)``: chains of a group
            started from the same position, and other groups from others. At least two groups, of
            equal size, of at least two chains.

    Raises:
        InputError: if there is no ``posterior`` with dims ``chain`` and ``draw``, it has no draws,
            or the superchains are not as described.

    Examples:
        >>> import numpy as np, xarray as xr
        >>> theta = np.random.default_rng(0).normal(size=(4, 500, 3))
        >>> posterior = xr.Dataset({"theta": (("chain", "draw", "unit"), theta)})
        >>> convergence = diagnose(xr.DataTree.from_dict({"/posterior": posterior}))
        >>> convergence.parameters.share_above(1.05), convergence.function is None
        (0.0, True)
    """
    posterior = _group(tree, "posterior")
    if posterior is None or not {"chain", "draw"} <= set(posterior.dims):
        raise InputError(
            f"the {type(tree).__name__} has no group posterior with dims chain and draw; give what "
            "draws.to_datatree(target, probes) or an arviz.from_… function returned"
        )
    num_chains, num_draws = posterior.sizes["chain"], posterior.sizes["draw"]
    if not num_chains * num_draws:
        raise InputError(
            f"the posterior has {num_chains} chains of {num_draws} draws; expected some"
        )
    groups = None if superchains is None else _check_superchains(superchains, num_chains)
    attrs = getattr(tree, "attrs", {})
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}

    function = _function_values(tree, num_chains, num_draws)
    others = [name for name in posterior.data_vars if name not in _NO_PARAMETERS]
    parameters = _values(posterior[others] if others else posterior)
    if function is None:
        missing["function"] = "no probes"
    if num_draws < ranks.MIN_DRAWS:
        short = f"needs at least {ranks.MIN_DRAWS} draws per chain"
        affected = ("function", "parameters", "within_chain", "nested_rhat", "cross_chain")
        missing |= dict.fromkeys(affected, short)
    else:
        found["parameters"] = _mixing(*parameters)
        names, values = parameters if function is None else function
        if function is not None:
            found["function"] = _mixing(names, values)
        values = values[..., np.isfinite(values).all(axis=(0, 1))]
        found |= _chain_by_chain(values)
        if groups is not None:
            found["nested_rhat"] = ranks.nested_rhat(values, groups)
            found["num_superchains"] = len(np.unique(groups))
        found["cross_chain"] = _cross_chain(values)
    found["running"] = _running(tree)
    found["disagreement"] = _disagreement(tree)
    found["loo"] = _loo(_group(tree, "log_likelihood"))
    found["drift"] = _drift(tree)
    for name, reason in {
        "within_chain": "needs 8 draws per chain",
        "nested_rhat": "needs chains known to share their starts (superchains, for diagnose)",
        "cross_chain": "needs two chains that move",
        "running": "no log likelihood",
        "disagreement": "needs two chains and class probabilities",
        "loo": "no log likelihood of training examples, too few draws, or values not finite",
        "drift": "no log density of the steps or draws",
    }.items():
        if found.get(name) is None:
            missing.setdefault(name, reason)

    stats = _group(tree, "sample_stats")
    if stats is not None and "diverging" in stats:
        found["num_divergent"] = int(stats["diverging"].sum())
    sets = [values for _, values in filter(None, (parameters, function))]
    return Convergence(
        num_chains=num_chains,
        num_draws=num_draws,
        method=str(attrs.get("method", "")),
        temperature=attrs.get("temperature"),
        num_nonfinite=int(np.any([_nonfinite(values) for values in sets], axis=0).sum()),
        missing=missing,
        **found,
    )


# From the tree to arrays (chain, draw, value).


def _group(tree: Any, name: str) -> xr.Dataset | None:
    try:
        group = tree[name]
    except (KeyError, TypeError):
        return None
    return group.to_dataset() if isinstance(group, xr.DataTree) else group


def _check_superchains(superchains: Sequence[int], num_chains: int) -> np.ndarray:
    """The groups numbered from 0, ``(chain,)``."""
    _, groups, sizes = np.unique(np.asarray(superchains), return_inverse=True, return_counts=True)
    if len(groups) != num_chains or len(sizes) < 2 or sizes.min() < 2 or np.ptp(sizes):
        raise InputError(
            f"superchains has {len(groups)} entries in groups of {', '.join(map(str, sizes))}, for "
            f"{num_chains} chains; give the group of each chain, in at least two groups of equal "
            "size, of at least two chains"
        )
    return groups


def _values(group: xr.Dataset) -> tuple[list[str], np.ndarray]:
    """All numbers of a group, a random subset if there are too many, and their names."""
    names: list[str] = []
    columns = []
    for name, variable in group.data_vars.items():
        if not {"chain", "draw"} <= set(variable.dims) or variable.dtype.kind not in "biuf":
            continue
        variable = variable.transpose("chain", "draw", ...)
        axes = [
            variable.coords[dim].values if dim in variable.coords else range(size)
            for dim, size in zip(variable.dims[2:], variable.shape[2:], strict=True)
        ]
        names += [_label(str(name), at) for at in itertools.product(*axes)]
        column = variable.values.reshape(*variable.shape[:2], -1)
        columns.append(column if column.dtype.kind == "f" else column.astype(float))
    if not columns:
        return [], np.empty((group.sizes.get("chain", 0), group.sizes.get("draw", 0), 0))
    values = np.concatenate(columns, axis=-1)
    if len(names) > _MOST_VALUES:
        chosen = random_subset(len(names), _MOST_VALUES)
        names, values = [names[i] for i in chosen], values[..., chosen]
    return names, values


def _label(name: str, at: Sequence[Any]) -> str:
    return f"{name}[{', '.join(map(str, at))}]" if at else name


def _function_values(
    tree: Any, num_chains: int, num_draws: int
) -> tuple[list[str], np.ndarray] | None:
    """What is followed at the probes, if it is that of the very draws of the posterior."""
    group = _group(tree, "posterior_predictive")
    if group is None:
        return None
    names, values = _values(group[[name for name in _FUNCTIONS if name in group]])
    return (names, values) if names and values.shape[:2] == (num_chains, num_draws) else None


def _nonfinite(values: np.ndarray) -> np.ndarray:
    return ~np.isfinite(values).all(axis=-1)


# The numbers.


def _mixing(names: Sequence[str], values: np.ndarray) -> Mixing:
    finite = np.isfinite(values).all(axis=(0, 1))
    varying = finite & (np.ptp(values, axis=(0, 1)) > 0)

    def of_varying(statistic: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        result = np.full(len(names), np.nan)
        result[varying] = statistic(values[..., varying])
        return result

    return Mixing(
        names=names,
        rhat=of_varying(ranks.rhat),
        ess_bulk=of_varying(ranks.ess_bulk),
        ess_tail=of_varying(ranks.ess_tail),
        mcse=of_varying(ranks.mcse_mean),
        nonfinite=[name for name, ok in zip(names, finite, strict=True) if not ok],
    )


def _chain_by_chain(values: np.ndarray) -> dict[str, np.ndarray]:
    """Each chain against itself, against the others, and the others without it."""
    num_chains, num_draws, num_values = values.shape
    values = values[..., random_subset(num_values, _MOST_VALUES_BY_CHAIN)]
    values = values[..., np.ptp(values, axis=(0, 1)) > 0]
    found = {}
    half = num_draws // 2
    if half >= ranks.MIN_DRAWS:
        halves = [np.stack([chain[:half], chain[-half:]]) for chain in values]
        found["within_chain"] = np.stack([ranks.rhat(pair) for pair in halves])
    if num_chains >= 2 and values.shape[-1]:
        # In units of the chains that move, however few they are.
        deviations = values.std(axis=1, dtype=float)
        moving = deviations > 1e-6 * np.ptp(values, axis=(0, 1))
        typical = np.ma.median(np.ma.array(deviations, mask=~moving), axis=0).filled(np.inf)
        found["spread"] = np.median(deviations / typical, axis=1)
    if num_chains >= 3 and values.shape[-1]:
        found["bad_without"] = np.array(
            [
                np.mean(ranks.rhat(np.delete(values, chain, axis=0)) > LARGEST_RHAT)
                for chain in range(num_chains)
            ]
        )
    return found


def _cross_chain(values: np.ndarray) -> CrossChain | None:
    """Correlation of the chains' steps: a common trend, as on the way from the start, is none."""
    steps = np.diff(values.astype(float), axis=1)
    steps -= steps.mean(axis=1, keepdims=True)
    lengths = np.sqrt(np.square(steps).sum(axis=1, keepdims=True))
    moving = (lengths > 0).all(axis=(0, 1))
    if len(values) < 2 or not moving.any():
        return None
    steps = steps[..., moving] / lengths[..., moving]

    def correlation(steps: np.ndarray) -> float:
        together = np.square(steps.sum(axis=0)).sum(axis=0).mean()
        return float((together - len(steps)) / (len(steps) * (len(steps) - 1)))

    rng = np.random.default_rng(0)
    shifted = [
        correlation(np.stack([np.roll(chain, rng.integers(len(chain)), axis=0) for chain in steps]))
        for _ in range(_NUM_SHIFTS)
    ]
    return CrossChain(correlation(steps), float(np.std(shifted)))


def _running(tree: Any) -> Running | None:
    predictions, seen = _group(tree, "predictions"), _group(tree, "log_likelihood")
    if predictions is not None and "log_likelihood" in predictions:
        _, values = _values(predictions[["log_likelihood"]])
    elif seen is not None:
        _, values = _values(seen)
    else:
        return None
    num_chains, num_draws, num_examples = values.shape
    if not num_examples:
        return None
    probabilities = _probabilities(predictions, "example")
    data = _group(tree, "predictions_constant_data")
    so_far = np.logaddexp.accumulate(np.logaddexp.reduce(values.astype(float), axis=0), axis=0)
    so_far -= np.log(num_chains * np.arange(1, num_draws + 1))[:, None]
    if probabilities is not None:
        so_far = np.maximum(so_far, np.log(NLL_FLOOR))  # as `metrics.nll` has it
    nll = -so_far.mean(axis=1)
    if probabilities is None or data is None or "targets" not in data:
        return Running(nll, None, held_out=predictions is not None)
    choices = probabilities.mean("chain").values.cumsum(axis=0, dtype=float).argmax(axis=-1)
    return Running(nll, (choices == data["targets"].values).mean(axis=1), held_out=True)


def _probabilities(group: xr.Dataset | None, dim: str) -> xr.DataArray | None:
    """Class probabilities ``(chain, draw, dim, class)`` as `Draws.to_datatree` has them."""
    dims = ("chain", "draw", dim, "class")
    if group is None or "probability" not in group or set(group["probability"].dims) != set(dims):
        return None
    return group["probability"].transpose(*dims)


def _disagreement(tree: Any) -> Disagreement | None:
    for name, dim in (("predictions", "example"), ("posterior_predictive", "probe")):
        probabilities = _probabilities(_group(tree, name), dim)
        if probabilities is not None and probabilities.sizes["chain"] > 1:
            means = probabilities.mean("draw").values
            others = (means.sum(axis=0) - means) / (len(means) - 1)
            choices = means.argmax(axis=-1)
            return Disagreement(
                total_variation=0.5 * np.abs(means - others).sum(axis=-1).mean(axis=1),
                top_class=float((choices != choices[0]).any(axis=0).mean()),
            )
    return None


def _loo(log_likelihood: xr.Dataset | None) -> LOO | None:
    if log_likelihood is None:
        return None
    _, values = _values(log_likelihood)
    if not values.size:
        return None
    values = values[..., random_subset(values.shape[-1], _MOST_EXAMPLES)].astype(float)
    # One that every draw is equally sure of has no tail to look at.
    values = values[..., np.ptp(values, axis=(0, 1)) > 0]
    num_chains, num_draws, num_examples = values.shape
    few = num_chains * num_draws < _LEAST_DRAWS_LOO
    if few or not num_examples or not np.isfinite(values).all():
        return None
    import arviz as az

    dataset = xr.Dataset({"targets": (("chain", "draw", "example"), values)})
    tree = xr.DataTree.from_dict({"/log_likelihood": dataset})
    efficiency = np.nanmean(ranks.ess_mean(np.exp(values))) / (num_chains * num_draws)
    reff = float(np.nan_to_num(min(efficiency, 1.0), nan=1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a k that is too large, which is reported
        if az.__version__.startswith("0."):
            result = az.loo(az.InferenceData(log_likelihood=dataset), pointwise=True, reff=reff)
            elpd, p_loo = result.elpd_loo, result.p_loo
        else:
            result = az.loo(tree, pointwise=True, reff=reff)
            elpd, p_loo = result.elpd, result.p
    return LOO(
        elpd=float(elpd),
        se=float(result.se),
        p_loo=float(p_loo),
        pareto_k=np.asarray(result.pareto_k, float),
        good_k=float(result.good_k),
    )


def _drift(tree: Any) -> float | None:
    """R-hat of each chain's log density against itself, median over the chains.

    Over the second half of the trace, and of that only what follows warm-up unless next to nothing
    does; over the second half of the draws where there is no trace.
    """
    trace, stats = _group(tree, "trace"), _group(tree, "sample_stats")
    group = stats if trace is None else trace
    name = next((name for name in _LOG_DENSITIES if group is not None and name in group), None)
    if group is None or name is None:
        return None
    values = group[name].transpose("chain", ...).values
    start = values.shape[1] // 2
    if trace is not None and stats is not None and "step" in stats and "step" in trace:
        settled = int(np.searchsorted(trace["step"].values, stats["step"].values[0]))
        if settled <= 0.75 * values.shape[1]:
            start = max(start, settled)
    late = values[:, start:, None]
    if late.shape[1] < ranks.MIN_DRAWS or not np.isfinite(late).all():
        return None
    rhats = [float(ranks.rhat(chain[None])[0]) for chain in late if np.ptp(chain) > 0]
    return float(np.median(rhats)) if rhats else None


# What a person reads: result and numbers of each diagnostic, and what is said of it.

_Result = tuple[str, dict[str, Any]]


def _mixing_result(mixing: Mixing) -> _Result:
    if not mixing.num_varying:
        return f"none of the {len(mixing.names)} values ever changes, or they are not finite", {}
    numbers = mixing.to_dict()
    text = (
        f"{mixing.share_converged:.1%} of {mixing.num_varying:,} values have R-hat ≤ "
        f"{LARGEST_RHAT} and ESS ≥ {LEAST_ESS}; R-hat: median {numbers['rhat']['median']:.3f}, "
        f"worst {numbers['rhat']['worst']:.3f} ({mixing.worst}), "
        + ", ".join(f"{mixing.share_above(r):.1%} above {r}" for r in RHATS)
    )
    if mixing.num_constant:
        text += f"; constant: {mixing.num_constant}"
    if mixing.nonfinite:
        text += f"; not finite: {len(mixing.nonfinite)}"
    return text, numbers


def _function_result(c: Convergence) -> _Result:
    assert c.function is not None
    return _mixing_result(c.function)


def _parameters_result(c: Convergence) -> _Result:
    assert c.parameters is not None
    return _mixing_result(c.parameters)


def _ess_result(c: Convergence) -> _Result:
    assert c.judged is not None
    if not c.judged.num_varying:
        return _mixing_result(c.judged)
    numbers = c.judged.to_dict()
    bulk, tail = numbers["ess_bulk"], numbers["ess_tail"]
    total = c.num_chains * c.num_draws
    text = (
        f"bulk: worst {bulk['worst']:,.0f}, median {bulk['median']:,.0f}; tail: worst "
        f"{tail['worst']:,.0f}, median {tail['median']:,.0f}; of {total:,} draws"
    )
    return text, {"ess_bulk": bulk, "ess_tail": tail, "num_draws": total}


def _mcse_result(c: Convergence) -> _Result:
    assert c.judged is not None
    if not c.judged.num_varying:
        return _mixing_result(c.judged)
    numbers = c.judged.to_dict()["mcse"]
    return f"worst {numbers['worst']:.2g}, median {numbers['median']:.2g}", numbers


def _within_result(c: Convergence) -> _Result:
    assert c.within_chain is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a chain that never moves: NaN
        medians = np.nanmedian(c.within_chain, axis=1)
    return (
        f"median {medians.min():.3f} to {medians.max():.3f}",
        {"median_by_chain": medians.tolist()},
    )


def _nested_result(c: Convergence) -> _Result:
    assert c.nested_rhat is not None
    assert c.num_superchains is not None
    size = c.num_chains // c.num_superchains
    numbers = {
        "num_superchains": c.num_superchains,
        "chains_in_each": size,
        "median": float(np.nanmedian(c.nested_rhat)),
        "worst": float(np.nanmax(c.nested_rhat)),
        "independent_draws": float(np.sqrt(1 + 1 / size)),
    }
    return (
        f"median {numbers['median']:.3f}, worst {numbers['worst']:.3f} of {c.num_superchains} "
        f"groups of {size} chains; one independent draw from each: "
        f"{numbers['independent_draws']:.3f}",
        numbers,
    )


def _chains_result(c: Convergence) -> _Result:
    assert c.disagreement is not None
    variation, top = c.disagreement
    return (
        f"total variation {variation.min():.3f} to {variation.max():.3f}; first choices differ at "
        f"{top:.1%} of the inputs",
        {"total_variation": variation.tolist(), "top_class": top},
    )


def _cross_chain_result(c: Convergence) -> _Result:
    assert c.cross_chain is not None
    return (
        f"{c.cross_chain.correlation:.3f} (± {c.cross_chain.noise:.3f} by chance)",
        c.cross_chain._asdict(),
    )


def _running_result(c: Convergence) -> _Result:
    assert c.running is not None
    nll, accuracy, held_out = c.running
    half = len(nll) // 2
    text = f"NLL {nll[half]:.4f} after half of the draws, {nll[-1]:.4f} after all"
    if accuracy is not None:
        text += f"; accuracy {accuracy[half]:.4f}, {accuracy[-1]:.4f}"
    numbers = {
        "nll": nll.tolist(),
        "accuracy": None if accuracy is None else accuracy.tolist(),
        "held_out": held_out,
    }
    return text + (" (held out)" if held_out else " (examples the draws have seen)"), numbers


def _loo_result(c: Convergence) -> _Result:
    assert c.loo is not None
    k = c.loo.pareto_k
    return (
        f"elpd {c.loo.elpd:.1f} ± {c.loo.se:.1f}, effective parameters {c.loo.p_loo:.1f} over "
        f"{len(k)} examples; Pareto k worst {k.max():.2f}, {c.loo.share_bad:.1%} above "
        f"{c.loo.good_k:.2f}",
        {
            "elpd": c.loo.elpd,
            "se": c.loo.se,
            "p_loo": c.loo.p_loo,
            "num_examples": len(k),
            "pareto_k_worst": float(k.max()),
            "good_k": c.loo.good_k,
            "share_bad": c.loo.share_bad,
        },
    )


def _drift_result(c: Convergence) -> _Result:
    return f"R-hat within chains {c.drift:.3f}, late in the run", {"rhat": c.drift}


_RESULTS: dict[str, Callable[[Convergence], _Result]] = {
    "function": _function_result,
    "ess": _ess_result,
    "mcse": _mcse_result,
    "within_chain": _within_result,
    "nested_rhat": _nested_result,
    "disagreement": _chains_result,
    "cross_chain": _cross_chain_result,
    "running": _running_result,
    "drift": _drift_result,
    "loo": _loo_result,
    "parameters": _parameters_result,
}

# Title, meaning, and what to do.
_TEXTS = {
    "function": (
        "R-hat of the function",
        "R-hat compares the halves of all chains at each probe value: 1 if they cannot be told "
        "apart, more the less they agree.",
        "Run longer until 99 % of the values are at 1.01 or below; if that takes too long, sample "
        "by NUTS or with a larger step as far as the temperature allows.",
    ),
    "ess": (
        "Effective sample size",
        "As many independent draws would estimate the mean (bulk) or the 5 % and 95 % quantiles "
        "(tail) as well as these correlated ones.",
        "Below 400, R-hat itself is not to be trusted: run longer, and keep more draws if nearly "
        "all that were kept are independent.",
    ),
    "mcse": (
        "Monte Carlo error",
        "The standard error of a mean over the draws, in units of the value: the digits below it "
        "are chance.",
        "Four times the draws halve it.",
    ),
    "within_chain": (
        "R-hat within chains",
        "Each chain against itself, in quarters: far above 1, it has not settled, whatever the "
        "others do; near 1 while the chains disagree, each has settled in a region of its own.",
        "Run longer if it is large; start from more places, or use a cyclical step size, if it is "
        "small and the chains disagree.",
    ),
    "nested_rhat": (
        "Nested R-hat",
        "Groups of chains against each other, each group from a start of its own: it tells "
        "whether many chains have forgotten their starts even where each is too short for R-hat.",
        "Lengthen the warm-up until it is at most what one independent draw from each chain gives.",
    ),
    "disagreement": (
        "Disagreement of chains",
        "How far the prediction averaged over one chain is from that over the others, from 0 to 1.",
        "Where it is as large as the uncertainty that you report, that uncertainty depends on the "
        "seed: run longer, or average over more chains.",
    ),
    "cross_chain": (
        "Correlation between chains",
        "Chains that see the same minibatches move together, and then agree without having "
        "converged, which no R-hat shows.",
        "Give each chain its own minibatches and its own random key.",
    ),
    "running": (
        "NLL against draws",
        "How good the average over the draws so far is: it levels off once further draws add "
        "nothing.",
        "If it still falls, the prediction gains from a longer run.",
    ),
    "drift": (
        "Drift of the log density",
        "R-hat of each chain's log density against itself, late in the run: at the steps, which "
        "are there even where hardly a draw was kept, or else at the draws.",
        "Above 1.1 the chains are still on their way: lengthen the warm-up.",
    ),
    "loo": (
        "PSIS-LOO",
        "The log predictive density of training examples with each left out in turn, by weighting "
        "the draws; a large Pareto k means that a few draws decide, and at T other than 1 it is "
        "none of the posterior's.",
        "If many k are large, rely on held-out data instead.",
    ),
    "parameters": (
        "R-hat of parameters",
        "The same for single parameters; for those of a network it says little, as exchanging "
        "hidden units changes every weight and not the function.",
        "Do nothing if the function's values agree.",
    ),
}


def _describe(name: str, c: Convergence) -> Diagnostic:
    title, meaning, advice = _TEXTS[name]
    # Those that speak of the judged values are missing where these are.
    source = name if name not in ("ess", "mcse") else "parameters"
    if source in c.missing:
        return Diagnostic(title, f"unknown: {c.missing[source]}", meaning, advice, {})
    result, numbers = _RESULTS[name](c)
    return Diagnostic(title, result, meaning, advice, numbers)


def _plain(value: Any) -> Any:
    """For JSON, which knows no NaN and no infinity."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
