"""Each limit of the verdict, pinned by what is said just inside it and just outside."""

import jax
import numpy as np
import pytest
from chains import as_tree, autoregressive, per_draw
from numpy.testing import assert_allclose

import probbnn as pb
from probbnn.diagnostics import Convergence, Mixing, TemperatureMeters, ranks
from probbnn.diagnostics.arviz_seam import psis_loo
from probbnn.diagnostics.between_chains import CrossChain
from probbnn.metrics import Interval

pytestmark = pytest.mark.usefixtures("quick_compilation")

BIASED = "biased by minibatch noise or step size"
CONVERGED = ("converged", "")
TOO_SHORT = ("not converged", "the run is too short")
TOGETHER = "the chains move together, and R-hat cannot vouch for them"
OFF = "the temperature is not the one asked for, or not known well enough"


def mixing(rhat=1.0, ess=1_000.0, num_bad=0, bad_rhat=1.05):
    """Of 200 values, of which some have another R-hat."""
    rhats = np.full(200, rhat)
    rhats[:num_bad] = bad_rhat
    ess = np.full(200, ess)
    return Mixing([f"v{i}" for i in range(200)], rhats, ess, ess, 1 / np.sqrt(ess))


def judge(judged=None, given=None, settings=None, **found):
    """Label and cause for four chains of 500 draws that mix well, but for what is given."""
    convergence = Convergence(4, 500, parameters=judged or mixing(), **found)
    verdict = pb.judge(convergence, given or meters(), settings)
    return verdict.label, verdict.cause


def meters(measured=(1.0, 0.98, 1.02), noise=(0.01, 0.0, 0.02), temperature=1.0):
    """Meters of a run at T, in units of T."""
    return TemperatureMeters(
        temperature=temperature,
        configurational=Interval(*(temperature * x for x in measured)),
        configurational_by_layer={},
        gradient_noise=Interval(*noise),
        gradient_noise_by_layer={},
        kinetic=None,
        num_parameters=10,
    )


# Convergence


@pytest.mark.parametrize(("num_bad", "expected"), [(2, CONVERGED), (3, TOO_SHORT)])
def test_99_percent_of_the_values_are_needed(num_bad, expected):
    assert judge(mixing(num_bad=num_bad)) == expected


@pytest.mark.parametrize(("rhat", "expected"), [(1.0099, CONVERGED), (1.0101, TOO_SHORT)])
def test_a_value_is_good_up_to_an_r_hat_of_1_01(rhat, expected):
    assert judge(mixing(rhat)) == expected


@pytest.mark.parametrize(("ess", "expected"), [(400.0, CONVERGED), (399.0, TOO_SHORT)])
def test_a_value_is_good_from_an_ess_of_400(ess, expected):
    assert judge(mixing(ess=ess)) == expected


@pytest.mark.parametrize(("worst", "expected"), [(1.099, CONVERGED), (1.101, TOO_SHORT)])
def test_no_value_may_have_an_r_hat_above_1_1(worst, expected):
    assert judge(mixing(num_bad=1, bad_rhat=worst)) == expected


@pytest.mark.parametrize(
    ("least", "cause"), [(0.21, "the run is too short"), (0.19, "chain 3 is stuck")]
)
def test_a_chain_is_stuck_below_a_fifth_of_the_others_spread(least, cause):
    assert judge(mixing(1.05), spread=np.array([1, 1, 1, least])) == ("not converged", cause)


@pytest.mark.parametrize(
    ("spread", "expected"), [(0.21, CONVERGED), (0.19, ("not converged", "no chain moves"))]
)
def test_no_chain_moves_below_a_fifth(spread, expected):
    assert judge(spread=np.full(4, spread)) == expected


@pytest.mark.parametrize(
    ("best", "cause"),
    [(0.26, "the run is too short"), (0.24, "chain 1 is stuck where the others are not")],
)
def test_a_chain_is_elsewhere_if_without_it_three_quarters_of_the_bad_are_good(best, cause):
    without = np.array([1, best, 1, 1])
    assert judge(mixing(1.05), leave_one_chain_out=without) == ("not converged", cause)


@pytest.mark.parametrize(
    ("correlation", "noise", "expected"),
    [
        (0.09, 0.01, CONVERGED),
        (0.11, 0.01, ("not converged", TOGETHER)),
        (0.15, 0.04, CONVERGED),
        (0.17, 0.04, ("not converged", TOGETHER)),
    ],
)
def test_chains_move_together_above_a_tenth_and_four_times_what_chance_gives(
    correlation, noise, expected
):
    assert judge(cross_chain=CrossChain(correlation, noise)) == expected


@pytest.mark.parametrize(
    ("num_divergent", "label"), [(0, "converged"), (20, "converged"), (21, "diverged")]
)
def test_up_to_1_percent_of_the_trajectories_may_diverge(num_divergent, label):
    """Of 4 × 500."""
    assert judge(num_divergent=num_divergent)[0] == label


# Temperature


at_temperature = pytest.mark.parametrize("temperature", [1.0, 2.0])


@at_temperature
@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ((1.09, 1.05, 1.13), CONVERGED),
        ((1.11, 1.07, 1.15), ("not converged", OFF)),
        ((0.91, 0.87, 0.95), CONVERGED),
        ((0.89, 0.85, 0.93), ("not converged", OFF)),
        ((1.0, 0.81, 1.19), CONVERGED),
        ((1.0, 0.79, 1.21), ("not converged", OFF)),
        # Hot, and so biased, if the whole interval is: not by the value.
        ((1.3, 1.09, 1.51), ("not converged", OFF)),
        ((1.3, 1.11, 1.49), (BIASED, "the step size is too large")),
        ((1.12, 1.11, 1.13), (BIASED, "the step size is too large")),
    ],
)
def test_the_temperature_is_wrong_beyond_a_tenth(temperature, measured, expected):
    assert judge(given=meters(measured, temperature=temperature)) == expected


@at_temperature
@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ((1.3, 1.09, 1.51), "cannot tell the temperature"),
        ((1.3, 1.11, 1.49), "smaller step, or more steps if the chains are still on their way"),
        ((0.7, 0.49, 0.91), "cannot tell the temperature"),
        ((0.7, 0.51, 0.89), "the chains are probably still on their way from their starts"),
    ],
)
def test_the_meters_own_sentence_goes_by_the_whole_interval(temperature, measured, said):
    assert said in meters(measured, temperature=temperature).verdict


@pytest.mark.parametrize(
    ("drift", "expected"),
    [(1.09, (BIASED, "the step size is too large")), (1.11, ("not converged", OFF))],
)
def test_hot_chains_may_be_on_their_way_while_the_drift_is_above_1_1(drift, expected):
    assert judge(given=meters((1.3, 1.2, 1.4)), drift=drift) == expected


@pytest.mark.parametrize(
    ("noise", "label"),
    [
        ((0.049, 0.04, 0.058), "converged"),
        ((0.051, 0.04, 0.062), BIASED),
        ((0.06, 0.024, 0.096), "converged"),
        ((0.06, 0.026, 0.094), BIASED),
    ],
)
def test_noise_is_too_much_above_5_percent_and_certainly_2_5(noise, label):
    assert judge(given=meters(noise=noise))[0] == label


@pytest.mark.parametrize(("correlation", "label"), [(0.09, "not converged"), (0.11, BIASED)])
def test_chains_that_share_minibatches_are_biased_if_they_move_together(correlation, label):
    shared = {"shared_minibatches": True}
    assert judge(settings=shared, cross_chain=CrossChain(correlation, 0.01))[0] == label


def test_intervals_of_the_temperature_are_two_standard_errors(target, sampled):
    found = pb.measure_temperature(jax.random.key(0), target, sampled)
    measured = found.sample_stats["configurational_temperature"]
    by_chain = found.sample_stats["gradient_noise"][:, -1]
    for interval, error in (
        (found.configurational, ranks.mcse_mean(measured[..., None])[0]),
        (found.gradient_noise, by_chain.std(ddof=1) / np.sqrt(len(by_chain))),
    ):
        assert_allclose(interval.high - interval.value, 2 * error, rtol=1e-4)
        assert_allclose(interval.value - interval.low, 2 * error, rtol=1e-4)


# PSIS-LOO


@pytest.mark.parametrize(("rho", "efficiency"), [(0.9, 1 / 19), (-0.7, 1.0)])
def test_the_tail_of_psis_is_as_long_as_the_efficiency_of_the_draws_has_it(rho, efficiency):
    """(1 − ρ)/(1 + ρ) effective draws per draw, and at most 1."""
    likelihood = 0.5 + 0.05 * autoregressive(rho, 4, 1_000, 10)
    values = np.log(likelihood)
    found = pb.diagnose(as_tree(likelihood, **{"/log_likelihood": per_draw("y", values, "n")})).loo
    assert_allclose(found.pareto_k, psis_loo(values, efficiency).pareto_k)
    other = psis_loo(values, 1.0 if efficiency < 1 else (1 - rho) / (1 + rho))
    assert np.abs(found.pareto_k - other.pareto_k).max() > 0.01
