"""What is taken from trees that others made, and what is left."""

import numpy as np
import xarray as xr
from chains import as_tree, autoregressive, per_draw

import probbnn as pb


def test_new_observations_are_not_taken_for_the_function():
    noise = per_draw("y", np.random.default_rng(0).normal(size=(4, 100, 3)), "n")
    c = pb.diagnose(as_tree(autoregressive(0.99, 4, 100, 2), **{"/posterior_predictive": noise}))
    assert c.function is None


def test_indicators_counts_and_text_are_taken_or_left():
    rng = np.random.default_rng(0)
    shape = (4, 200)
    posterior = xr.Dataset(
        {
            "switch": (("chain", "draw"), rng.random(shape) < 0.5),
            "count": (("chain", "draw"), rng.integers(9, size=shape)),
            "name": (("chain", "draw"), np.full(shape, "a")),
            "fixed": ("unit", [1.0, 2.0]),
        }
    )
    c = pb.diagnose(xr.DataTree.from_dict({"/posterior": posterior}))
    assert sorted(c.parameters.names) == ["count", "switch"]
    assert c.parameters.share_above(1.05) == 0


def test_variables_of_other_shapes_are_no_probes():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2, 50, 3))
    elsewhere = {
        # What ArviZ calls the axes of a NumPyro site.
        "/posterior_predictive": {
            "probability": (("chain", "draw", "p_dim_0"), rng.random((2, 50, 4)))
        },
        "/predictions": {"probability": (("chain", "draw", "p_dim_0"), rng.random((2, 50, 4)))},
        "/log_likelihood": {"y": ("y_dim_0", rng.random(5))},
    }
    c = pb.diagnose(as_tree(values, **{k: xr.Dataset(v) for k, v in elsewhere.items()}))
    assert c.running is c.disagreement is c.loo is None
    fewer = xr.Dataset({"output": (("chain", "draw", "probe"), rng.random((2, 10, 4)))})
    assert pb.diagnose(as_tree(values, **{"/posterior_predictive": fewer})).space == "parameters"


def test_a_log_density_alone_is_judged():
    posterior = xr.Dataset(
        {"log_density": (("chain", "draw"), np.random.default_rng(0).normal(size=(4, 500)))}
    )
    assert pb.diagnose(xr.DataTree.from_dict({"/posterior": posterior})).parameters.num_varying == 1
