"""Chains against each other: with faults planted, and by hand."""

import numpy as np
import pytest
from chains import as_tree, autoregressive, held_out
from numpy.testing import assert_allclose

import probbnn as pb
from probbnn.diagnostics import between_chains


def test_a_stuck_chain_stands_out():
    values = np.random.default_rng(0).normal(size=(4, 500, 20))
    values[2] = 1e-3 * values[2] + 1
    c = pb.diagnose(as_tree(values))
    assert c.parameters.share_above(1.05) == 1
    assert c.spread[2] < 0.01
    assert c.spread[[0, 1, 3]].min() > 0.8
    assert c.leave_one_chain_out.argmin() == 2
    assert c.leave_one_chain_out[2] < 0.1
    assert c.leave_one_chain_out[[0, 1, 3]].min() == 1


def test_within_chain_r_hat_tells_regions_from_unfinished_chains():
    settled = np.random.default_rng(0).normal(size=(4, 500, 20))
    apart = settled + 5 * np.arange(4)[:, None, None]
    drifting = settled + np.linspace(0, 5, 500)[:, None]
    assert np.median(pb.diagnose(as_tree(apart)).within_chain) < 1.02
    assert np.median(pb.diagnose(as_tree(apart)).parameters.rhat) > 1.5
    assert np.median(pb.diagnose(as_tree(drifting)).within_chain) > 1.5


def test_chains_that_share_their_noise_move_together():
    own = autoregressive(0.8, 4, 500, 20)
    shared = np.sqrt(0.1) * own + np.sqrt(0.9) * autoregressive(0.8, 1, 500, 20, seed=1)
    on_the_way = own + np.linspace(0, 500, 500)[:, None]
    assert_allclose(pb.diagnose(as_tree(shared)).cross_chain.correlation, 0.9, atol=0.02)
    for values in (own, on_the_way):
        correlation, noise = pb.diagnose(as_tree(values)).cross_chain
        assert abs(correlation) < 4 * noise < 0.05


def test_short_chains_of_known_starts_have_a_nested_r_hat():
    """Four starts, sixteen chains from each: they have forgotten them, or they have not."""
    groups = np.repeat(np.arange(4), 16)
    forgotten = np.random.default_rng(0).normal(size=(64, 8, 3))
    remembered = forgotten + 5 * groups[:, None, None]
    c = pb.diagnose(as_tree(forgotten), superchains=groups)
    assert c.num_superchains == 4
    bound = c.diagnostics["nested_rhat"].numbers["independent_draws"]
    assert bound == np.sqrt(1 + 1 / 16)
    assert np.max(c.nested_rhat) < bound
    assert np.min(pb.diagnose(as_tree(remembered), superchains=groups).nested_rhat) > 2
    # Chains of unknown starts cannot be grouped: their dispersion would be in both variances.
    assert "known to share their starts" in pb.diagnose(as_tree(remembered)).missing["nested_rhat"]


@pytest.mark.parametrize("groups", [[0, 0, 1], [0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 0, 1]])
def test_superchains_must_be_equal_groups(groups):
    tree = as_tree(np.random.default_rng(0).normal(size=(4, 20, 1)))
    with pytest.raises(pb.InputError, match=r"superchains has \d entries .* 4 chains; give"):
        pb.diagnose(tree, superchains=groups)


def test_disagreement_of_chains_by_hand():
    """Two chains of two draws at two held-out examples of two classes."""
    first = np.array([[[0.9, 0.3], [0.7, 0.5]], [[0.2, 0.2], [0.1, 0.4]]])
    c = pb.diagnose(as_tree(np.zeros((2, 2, 1)), **held_out(first)))
    assert_allclose(c.disagreement.total_variation, [(0.65 + 0.1) / 2] * 2)
    assert c.disagreement.top_class == 0.5
    assert_allclose(c.disagreement.between, [(0.65 + 0.1) / 2, np.nan, np.nan])


@pytest.mark.parametrize("num_chains", [3, 10])
def test_the_interval_of_the_disagreement_holds_it_95_percent_of_the_time(num_chains):
    """Chains of independent predictions 0.5 + 0.1·z: between two, 0.1·2/√π. Of 400, ± 3.5 %."""
    rng, found = np.random.default_rng(0), []
    for _ in range(400):
        first = 0.5 + 0.1 * rng.normal(size=(num_chains, 1, 10))
        tree = as_tree(np.zeros((num_chains, 1, 1)), **held_out(first))
        found.append(between_chains.disagreement(tree).between)
    value, low, high = np.transpose(found)
    exact = 0.2 / np.sqrt(np.pi)
    assert_allclose(value.mean(), exact, rtol=0.02)
    assert_allclose(((low <= exact) & (exact <= high)).mean(), 0.95, atol=0.035)


@pytest.mark.parametrize(("rho", "factor"), [(0.0, 1.0), (0.9, 19.0)])
def test_a_chain_is_so_many_standard_errors_from_the_others(rho, factor):
    """3 from the mean of three others: 3/√(4/3 · σ²/n), where n draws count for n/factor."""
    values = autoregressive(rho, 4, 1_000, 50)
    values[1] += 3
    found = pb.diagnose(as_tree(values)).distances
    assert_allclose(found[1], 3 / np.sqrt(4 / 3 * factor / 1_000), rtol=0.1)
    # Their own mean of the others has the third of the shift, and a third of its error.
    assert_allclose(found[[0, 2, 3]], found[1] / 3, rtol=0.2)
