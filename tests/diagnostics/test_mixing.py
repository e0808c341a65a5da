"""Mixing: what is counted, and what is left out."""

import json

import numpy as np
from chains import as_tree

import probbnn as pb


def test_values_that_never_change_are_counted_and_left_out():
    values = np.random.default_rng(0).normal(size=(4, 1_000, 5))
    values[..., 2] = 1.0
    mixing = pb.diagnose(as_tree(values)).parameters
    assert (mixing.num_constant, mixing.num_varying) == (1, 4)
    assert np.isnan(mixing.rhat[2])
    assert mixing.share_converged == 1
    assert "constant: 1" in pb.diagnose(as_tree(values)).diagnostics["parameters"].result
    frozen = pb.diagnose(as_tree(np.ones((4, 100, 2))))
    assert "none of the 2 values ever changes" in str(frozen)
    json.dumps(frozen.to_dict(), allow_nan=False)


def test_values_that_are_not_finite_are_no_constants():
    values = np.random.default_rng(0).normal(size=(4, 500, 3))
    values[0, 7, 1] = np.nan
    values[..., 2] = 1.0
    c = pb.diagnose(as_tree(values))
    assert (c.parameters.num_constant, c.parameters.num_varying) == (1, 1)
    assert c.parameters.nonfinite == ["theta[1]"]
    assert c.num_nonfinite == 1
