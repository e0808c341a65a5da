"""Texts of the diagnostics."""

import numpy as np
import pytest
from chains import as_tree, held_out, independent, per_draw

import probbnn as pb


@pytest.fixture(params=["everything", "hardly anything"])
def convergence(request):
    values = independent(num_draws=20, num_values=3)
    if request.param == "hardly anything":
        return pb.diagnose(as_tree(values[:, :6]))
    probabilities = np.random.default_rng(0).uniform(size=(4, 20, 2))
    groups = held_out(probabilities) | {
        "/posterior_predictive": per_draw("output", values, "probe"),
        "/log_likelihood": per_draw("y", values, "n"),
        "/sample_stats": per_draw("logdensity", values[..., 0]),
    }
    return pb.diagnose(as_tree(values, **groups), superchains=[0, 0, 1, 1])


def test_every_diagnostic_says_what_it_means_and_what_to_do(convergence):
    for name, diagnostic in convergence.diagnostics.items():
        for sentence in (diagnostic.meaning, diagnostic.advice):
            assert sentence.endswith("."), name
            assert len(sentence) > 20, name
        assert diagnostic.title in str(convergence)
        missing = name in convergence.missing
        assert diagnostic.result.startswith("unknown") == missing
        assert (not diagnostic.numbers) == missing


def test_what_speaks_of_the_judged_values_is_unknown_without_them():
    diagnostics = pb.diagnose(as_tree(independent(num_draws=3))).diagnostics
    for name in ("ess", "mcse"):
        assert diagnostics[name].result == "unknown: needs at least 4 draws per chain"
