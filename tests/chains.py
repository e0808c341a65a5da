"""Chains made by hand, and ArviZ trees of them."""

import numpy as np
import xarray as xr


def autoregressive(rho, num_chains, num_draws, num_values, seed=0):
    """Stationary AR(1) chains of variance 1."""
    noise = np.random.default_rng(seed).normal(size=(num_chains, num_draws, num_values))
    values = noise.copy()
    for t in range(1, num_draws):
        values[:, t] = rho * values[:, t - 1] + np.sqrt(1 - rho**2) * noise[:, t]
    return values


def independent(num_draws=500, num_chains=4, num_values=100):
    """Draws of a standard normal."""
    return np.random.default_rng(0).normal(size=(num_chains, num_draws, num_values))


def as_tree(values, **groups):
    """A tree whose posterior is ``theta``, ``(chain, draw, unit)``, with other groups by path."""
    posterior = xr.Dataset({"theta": (("chain", "draw", "unit"), values)})
    return xr.DataTree.from_dict({"/posterior": posterior, **groups})


def per_draw(name, values, *dims):
    """A group with one variable, of dims ``chain``, ``draw`` and these."""
    return xr.Dataset({name: (("chain", "draw", *dims), values)})


def held_out(first):
    """Groups of held-out examples, all of class 0 of two, whose probabilities are ``first``."""
    predictions = xr.Dataset(
        {
            "probability": (
                ("chain", "draw", "example", "class"),
                np.stack([first, 1 - first], axis=-1),
            ),
            "log_likelihood": (("chain", "draw", "example"), np.log(first)),
        }
    )
    data = xr.Dataset({"targets": ("example", np.zeros(first.shape[-1], int))})
    return {"/predictions": predictions, "/predictions_constant_data": data}
