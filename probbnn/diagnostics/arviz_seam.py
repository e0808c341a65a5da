"""PSIS-LOO by ArviZ, the same whether it is ArviZ 0.23 or 1. Nothing else here asks which it is.

Source: Vehtari et al. (2024), "Pareto smoothed importance sampling".
"""

import warnings
from typing import NamedTuple

import numpy as np
import xarray as xr

__all__ = ["LOO", "psis_loo"]


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
    with warnings.catch_warnings():
        # Of a k that is too large, which is reported; and that ArviZ 0.23 is to change, which it
        # says once a day to whoever imports it.
        warnings.simplefilter("ignore")
        import arviz as az

        is_old = az.__version__.startswith("0.")
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
