"""Drift of the log density: where it is looked for, and of what it is none."""

import numpy as np
import pytest
import xarray as xr
from chains import as_tree

import probbnn as pb


def test_the_log_density_drifts_by_its_trace_or_else_by_its_draws():
    level = np.random.default_rng(0).normal(size=(4, 1_000))
    rising = level + np.linspace(0, 20, 1_000)
    late = level + np.where(np.arange(1_000) < 500, -20, 0)
    apart = level + 5 * np.arange(4)[:, None]

    def drift(values, group, dim, name="logdensity", **groups):
        groups[group] = xr.Dataset({name: (("chain", dim), values)})
        return pb.diagnose(as_tree(level[..., None], **groups)).drift

    for where in (("/trace", "step"), ("/sample_stats", "draw"), ("/sample_stats", "draw", "lp")):
        assert drift(rising, *where) > 1.5
        assert drift(late, *where) < 1.01  # its first half is no matter
        assert drift(apart, *where) < 1.01  # nor is where a chain is, if it stays there
    assert pb.diagnose(as_tree(level[..., None])).drift is None


@pytest.mark.parametrize(("warmup", "drifts"), [(700, False), (990, True)])
def test_warm_up_is_no_drift_where_enough_follows_it(warmup, drifts):
    steps = np.arange(1, 1_001)
    values = np.random.default_rng(0).normal(size=(4, 1_000)) + 20 * np.minimum(steps / warmup, 1)
    trace = xr.Dataset({"logdensity": (("chain", "step"), values)}, {"step": steps})
    kept = np.arange(warmup + 1, 1_001, 9)
    stats = xr.Dataset({"step": ("draw", kept)})
    tree = as_tree(np.zeros((4, len(kept), 1)), **{"/trace": trace, "/sample_stats": stats})
    assert (pb.diagnose(tree).drift > 1.1) == drifts
