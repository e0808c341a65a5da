"""R-hat, ESS and Monte Carlo error: against ArviZ and closed forms."""

import arviz as az
import numpy as np
import pytest
import xarray as xr
from chains import autoregressive
from numpy.testing import assert_allclose, assert_array_equal

from probbnn.diagnostics import ranks

OLD_ARVIZ = az.__version__.startswith("0.")


@pytest.mark.parametrize("shape", [(4, 100), (3, 51), (1, 40), (2, 4), (5, 9)])
def test_the_statistics_are_those_of_arviz(shape):
    values = np.concatenate([autoregressive(rho, *shape, 5) for rho in (-0.7, 0, 0.9)], axis=-1)
    values[0, :, 3] += 2
    dataset = xr.Dataset({f"v{i}": (("chain", "draw"), values[..., i]) for i in range(15)})
    data = dataset if OLD_ARVIZ else xr.DataTree.from_dict({"/posterior": dataset})

    def arviz(function, **settings):
        return np.array([float(x) for x in function(data, **settings).data_vars.values()])

    assert_allclose(ranks.ess_bulk(values), arviz(az.ess, method="bulk"))
    assert_allclose(ranks.ess_mean(values), arviz(az.ess, method="mean"))
    assert_allclose(ranks.mcse_mean(values), arviz(az.mcse, method="mean"))
    if shape[1] % 2 == 0:  # of an odd number ArviZ may leave out the one draw that is in the tail
        assert_allclose(ranks.ess_tail(values), arviz(az.ess, method="tail", prob=(0.05, 0.95)))
    if shape[0] > 1:
        assert_allclose(ranks.rhat(values), arviz(az.rhat))
    if shape[0] == 4 and not OLD_ARVIZ:
        groups = np.array([0, 0, 1, 1])
        expected = arviz(az.rhat_nested, superchain_ids=groups)
        assert_allclose(ranks.nested_rhat(values, groups), expected)


def test_independent_draws_have_r_hat_1_and_count_in_full():
    """The mean ESS of 200 quantities is known to 1 %; R-hat − 1 to 1/(2 · 500)."""
    values = np.random.default_rng(0).normal(size=(4, 1_000, 200))
    assert np.quantile(ranks.rhat(values), 0.95) < 1.005
    assert_allclose(ranks.ess_bulk(values).mean(), 4_000, rtol=0.05)
    assert_allclose(ranks.mcse_mean(values).mean(), 1 / np.sqrt(4_000), rtol=0.05)


@pytest.mark.parametrize("rho", [0.5, 0.9])
def test_the_ess_of_an_autoregression_is_known(rho):
    """n(1 − ρ)/(1 + ρ)."""
    values = autoregressive(rho, 4, 2_000, 100)
    assert_allclose(ranks.ess_mean(values).mean(), 8_000 * (1 - rho) / (1 + rho), rtol=0.06)


def test_nested_r_hat_sees_what_groups_of_short_chains_do_not_share():
    values = np.random.default_rng(0).normal(size=(16, 10, 50))
    groups = np.repeat(np.arange(4), 4)
    assert np.median(ranks.nested_rhat(values, groups)) < 1.05
    values += groups[:, None, None]
    assert np.median(ranks.nested_rhat(values, groups)) > 1.3


def test_nested_r_hat_of_one_draw_from_each_chain_is_known():
    """√(1 + 1/m) for groups of m chains that stand still, each at an independent draw.

    That is 1.118; the larger one of bulk and folded is a little more.
    """
    places = np.random.default_rng(0).normal(size=(40, 1, 200))
    values = places + 1e-3 * np.random.default_rng(1).normal(size=(40, 10, 200))
    found = ranks.nested_rhat(values, np.repeat(np.arange(10), 4))
    assert 1.11 < np.median(found) < 1.2


def test_chains_that_stand_still_apart_have_no_finite_r_hat():
    values = np.tile(np.arange(4.0)[:, None, None], (1, 10, 1))
    assert_array_equal(ranks.rhat(values), [np.inf])
