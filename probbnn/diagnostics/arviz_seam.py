"""ArviZ, whether it is 0.23 or 1: a tree for its functions, and PSIS-LOO by it.

Nothing else here asks which it is. Source of PSIS-LOO: Vehtari et al. (2024), "Pareto smoothed
importance sampling".
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from probbnn.errors import InputError

__all__ = ["LOO", "psis_loo", "to_arviz"]


def to_arviz(tree: xr.DataTree) -> Any:
    """A tree as the functions of the installed ArviZ take it: `az.summary`, `az.plot_trace`, ….

    ArviZ 1 takes the tree itself. ArviZ 0.23 would take it for a dictionary and go through all that
    it holds, for minutes; it gets an `InferenceData`.

    Args:
        tree: what `probbnn.to_datatree` returned, or what was read from a run's ``draws.nc``.

    Raises:
        InputError: if it is no tree.

    Examples:
        >>> import arviz as az, numpy as np
        >>> theta = np.random.default_rng(0).normal(size=(4, 500))
        >>> posterior = xr.Dataset({"theta": (("chain", "draw"), theta)})
        >>> tree = xr.DataTree.from_dict({"/posterior": posterior})
        >>> list(az.summary(to_arviz(tree)).index)
        ['theta']
    """
    if not isinstance(tree, xr.DataTree):
        raise InputError(
            f"to_arviz was given a {type(tree).__name__}; give what to_datatree(draws, …) returned"
        )
    az = _arviz()
    return az.InferenceData.from_datatree(tree) if _is_old(az) else tree


def _arviz() -> Any:
    with warnings.catch_warnings():
        # That ArviZ 0.23 is to change, which it says once a day to whoever imports it.
        warnings.simplefilter("ignore")
        import arviz
    return arviz


def _is_old(az: Any) -> bool:
    return bool(az.__version__.startswith("0."))


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


def psis_loo(log_likelihood: np.ndarray, relative_efficiency: float) -> LOO:
    """PSIS-LOO of finite values ``(chain, draw, example)``.

    ``relative_efficiency`` is that of the likelihoods' means: effective draws per draw, up to 1.
    """
    dataset = xr.Dataset({"examples": (("chain", "draw", "example"), log_likelihood)})
    az = _arviz()
    is_old = _is_old(az)
    with warnings.catch_warnings():
        # Of a k that is too large, which is reported.
        warnings.simplefilter("ignore")
        data = (
            az.InferenceData(log_likelihood=dataset)
            if is_old
            else xr.DataTree.from_dict({"/log_likelihood": dataset})
        )
        result = az.loo(data, pointwise=True, reff=relative_efficiency)
    return LOO(
        elpd=float(result.elpd_loo if is_old else result.elpd),
        se=float(result.se),
        p_loo=float(result.p_loo if is_old else result.p),
        pareto_k=np.asarray(result.pareto_k, float),
        good_k=float(result.good_k),
    )
