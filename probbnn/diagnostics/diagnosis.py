"""From an ArviZ tree to all diagnostics of convergence: `diagnose`, which takes any run's tree."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from probbnn.diagnostics import between_chains, held_out, ranks, trees
from probbnn.diagnostics.drift import drift
from probbnn.diagnostics.mixing import mixing_of
from probbnn.diagnostics.result import Convergence
from probbnn.errors import InputError

__all__ = ["diagnose"]

_TOO_SHORT = f"needs at least {ranks.MIN_DRAWS} draws per chain"
# Why something is missing: of what takes values along the chains, where these are not too short.
_REASONS_OF_VALUES = {
    "function": "no probes",
    "parameters": _TOO_SHORT,
    "within_chain": "needs 8 draws per chain",
    "nested_rhat": "needs chains known to share their starts (superchains, for diagnose)",
    "cross_chain": "needs two chains that move",
}
_REASONS_OF_OTHERS = {
    "running": "no log likelihood",
    "disagreement": "needs two chains and class probabilities",
    "loo": "no log likelihood of training examples, too few draws, or values not finite",
    "drift": "no log density of the steps or draws",
}


def diagnose(tree: trees.Tree, superchains: Sequence[int] | None = None) -> Convergence:
    """Judge convergence from an ArviZ tree.

    Args:
        tree: an `xarray.DataTree` from `probbnn.to_datatree`, or of any run: `arviz.from_numpyro`,
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
    posterior = trees.group(tree, "posterior")
    if posterior is None or not {"chain", "draw"} <= set(posterior.dims):
        raise InputError(
            f"the {type(tree).__name__} has no group posterior with dims chain and draw; give what "
            "to_datatree(draws, target, probes) or an arviz.from_… function returned"
        )
    num_chains, num_draws = posterior.sizes["chain"], posterior.sizes["draw"]
    if not num_chains * num_draws:
        raise InputError(
            f"the posterior has {num_chains} chains of {num_draws} draws; expected some"
        )
    ids = None if superchains is None else between_chains.superchain_ids(superchains, num_chains)
    parameters = trees.parameters(posterior)
    function = trees.function(tree, num_chains, num_draws)
    attrs = getattr(tree, "attrs", {})
    convergence = Convergence(
        num_chains=num_chains,
        num_draws=num_draws,
        method=str(attrs.get("method", "")),
        temperature=attrs.get("temperature"),
        running=held_out.running(tree),
        disagreement=between_chains.disagreement(tree),
        loo=held_out.loo(tree),
        drift=drift(tree),
        num_nonfinite=_num_nonfinite(parameters, function),
        num_divergent=_num_divergent(tree),
    )
    if num_draws >= ranks.MIN_DRAWS:
        convergence = _with_mixing(convergence, parameters, function, ids)
    return replace(convergence, missing=_missing(convergence))


def _with_mixing(
    convergence: Convergence,
    parameters: trees.Quantities,
    function: trees.Quantities | None,
    ids: np.ndarray | None,
) -> Convergence:
    """Also what is computed from the values along the chains; ``ids``: each chain's superchain."""
    _, values = parameters if function is None else function
    values = values[..., np.isfinite(values).all(axis=(0, 1))]
    some = between_chains.some_varying(values)
    return replace(
        convergence,
        function=None if function is None else mixing_of(function),
        parameters=mixing_of(parameters),
        within_chain=between_chains.within_chain(some),
        spread=between_chains.spread(some),
        leave_one_chain_out=between_chains.leave_one_chain_out(some),
        distances=between_chains.distances(some),
        nested_rhat=None if ids is None else ranks.nested_rhat(values, ids),
        num_superchains=None if ids is None else len(np.unique(ids)),
        cross_chain=between_chains.cross_chain(values),
    )


def _missing(c: Convergence) -> dict[str, str]:
    reasons = _REASONS_OF_VALUES | _REASONS_OF_OTHERS
    if c.num_draws < ranks.MIN_DRAWS:
        reasons |= dict.fromkeys(_REASONS_OF_VALUES, _TOO_SHORT)
    return {name: reason for name, reason in reasons.items() if getattr(c, name) is None}


def _num_nonfinite(*followed: trees.Quantities | None) -> int:
    """Draws, over all chains, at which anything that is followed is not finite."""
    bad = [~np.isfinite(found.values).all(axis=-1) for found in followed if found is not None]
    return int(np.any(bad, axis=0).sum())


def _num_divergent(tree: trees.Tree) -> int | None:
    stats = trees.group(tree, "sample_stats")
    return int(stats["diverging"].sum()) if stats is not None and "diverging" in stats else None
