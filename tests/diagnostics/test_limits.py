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
TAILS = ("not converged", "the tails are visited too little")
TOGETHER = "the chains move together, and R-hat cannot vouch for them"
OFF = ("not converged", "the temperature is not the one asked for")
UNKNOWN = ("not converged", "the temperature is not known well enough")
HOT = (BIASED, "the step size is too large")


def mixing(rhat=1.0, bulk=1_000.0, tail=1_000.0, num_bad=0, bad_rhat=1.02, bad_ess=None):
    """Of 200 values, of which some have another R-hat, or another bulk or tail ESS."""
    rhats, bulks, tails = (np.full(200, x) for x in (rhat, bulk, tail))
    rhats[:num_bad] = rhat if bad_ess else bad_rhat
    for name, ess in (bad_ess or {}).items():
        {"bulk": bulks, "tail": tails}[name][:num_bad] = ess
    return Mixing([f"v{i}" for i in range(200)], rhats, bulks, tails, 1 / np.sqrt(bulks))


def judge(judged=None, given=None, settings=None, **found):
    """Label and cause for four chains of 1,000 draws that mix well, but for what is given."""
    convergence = Convergence(4, 1_000, parameters=judged or mixing(), **found)
    verdict = pb.judge(convergence, given or meters(), settings)
    return verdict.label, verdict.cause


def meters(
    measured=(1.0, 0.98, 1.02), noise=(0.01, 0.0, 0.02), temperature=1.0, layers=None, **more
):
    """Meters of a run at T, in units of T."""

    def interval(values):
        return Interval(*(temperature * x for x in values))

    return TemperatureMeters(
        temperature=temperature,
        configurational=interval(measured),
        configurational_by_layer={k: interval(x) for k, x in (layers or {}).items()},
        gradient_noise=Interval(*noise),
        gradient_noise_by_layer={},
        kinetic=None,
        num_parameters=10,
        **more,
    )


# Convergence


@pytest.mark.parametrize(("num_bad", "expected"), [(2, CONVERGED), (3, TOO_SHORT)])
def test_99_percent_of_the_values_are_needed(num_bad, expected):
    assert judge(mixing(num_bad=num_bad)) == expected


@pytest.mark.parametrize(("rhat", "expected"), [(1.0099, CONVERGED), (1.0101, TOO_SHORT)])
def test_a_value_is_good_up_to_an_r_hat_of_1_01(rhat, expected):
    assert judge(mixing(rhat)) == expected


@pytest.mark.parametrize(
    ("bulk", "tail", "expected"),
    [
        (400.0, 400.0, CONVERGED),
        (399.0, 1_000.0, TOO_SHORT),
        (1_000.0, 399.0, TAILS),
        (399.0, 399.0, TOO_SHORT),
    ],
)
def test_a_value_is_good_from_an_ess_of_400_of_bulk_and_tail(bulk, tail, expected):
    assert judge(mixing(bulk=bulk, tail=tail)) == expected


@pytest.mark.parametrize(("worst", "expected"), [(1.049, CONVERGED), (1.051, TOO_SHORT)])
def test_no_value_may_have_an_r_hat_above_1_05(worst, expected):
    assert judge(mixing(num_bad=1, bad_rhat=worst)) == expected


@pytest.mark.parametrize("name", ["bulk", "tail"])
@pytest.mark.parametrize(("worst", "label"), [(201.0, "converged"), (199.0, "not converged")])
def test_no_value_may_have_an_ess_below_200(name, worst, label):
    assert judge(mixing(num_bad=1, bad_ess={name: worst}))[0] == label


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
    ("best", "distance", "cause"),
    [
        (0.26, 9.0, "the run is too short"),
        (0.24, 9.0, "chain 1 is stuck where the others are not"),
        (0.24, 5.1, "chain 1 is stuck where the others are not"),
        (0.24, 4.9, "the run is too short"),
        (0.24, np.nan, "the run is too short"),
    ],
)
def test_a_chain_is_elsewhere_if_it_is_far_and_without_it_three_quarters_of_the_bad_are_good(
    best, distance, cause
):
    without, distances = np.array([1, best, 1, 1]), np.array([1, distance, 1, 1])
    found = judge(mixing(1.05), leave_one_chain_out=without, distances=distances)
    assert found == ("not converged", cause)


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
    ("num_divergent", "expected"),
    [
        (4, CONVERGED),
        (5, ("not converged", "divergent trajectories (5): some of the posterior is left out")),
        (40, ("not converged", "divergent trajectories (40): some of the posterior is left out")),
        (41, ("diverged", "divergent trajectories: 41 of 4000")),
    ],
)
def test_up_to_a_thousandth_of_the_trajectories_may_diverge(num_divergent, expected):
    """Of 4 × 1,000; of more than a hundredth the run has diverged."""
    assert judge(num_divergent=num_divergent) == expected


# Temperature


at_temperature = pytest.mark.parametrize("temperature", [1.0, 2.0])


@at_temperature
@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ((1.09, 1.05, 1.13), CONVERGED),
        ((1.11, 1.07, 1.15), HOT),
        ((0.91, 0.87, 0.95), CONVERGED),
        ((0.89, 0.85, 0.93), OFF),
        ((1.0, 0.81, 1.19), CONVERGED),
        ((1.0, 0.79, 1.21), UNKNOWN),
        # By the value and the interval: what chance may give is neither hot nor cold.
        ((1.15, 0.99, 1.31), UNKNOWN),
        ((1.15, 1.01, 1.29), HOT),
        ((0.85, 0.69, 1.01), UNKNOWN),
        ((0.85, 0.71, 0.99), OFF),
    ],
)
def test_the_temperature_is_wrong_beyond_a_tenth(temperature, measured, expected):
    assert judge(given=meters(measured, temperature=temperature)) == expected


@at_temperature
@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ((1.3, 0.99, 1.61), "cannot tell the temperature"),
        ((1.3, 1.01, 1.59), "smaller step, or more steps if the chains are still on their way"),
        ((0.7, 0.39, 1.01), "cannot tell the temperature"),
        ((0.7, 0.41, 0.99), "the chains are probably still on their way from their starts"),
    ],
)
def test_the_meters_own_sentence_goes_by_the_whole_interval(temperature, measured, said):
    assert said in meters(measured, temperature=temperature).verdict


@pytest.mark.parametrize(
    ("drift", "expected"),
    [(1.09, HOT), (1.11, OFF)],
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
    """Where the temperature is not known so well that it excludes the noise."""
    assert judge(given=meters((1.0, 0.9, 1.1), noise))[0] == label


@at_temperature
@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ((1.03, 0.98, 1.079), CONVERGED),
        ((1.03, 0.98, 1.081), (BIASED, "the minibatch noise is too large for this step size")),
        # Cold chains are on their way, and tell nothing of where they will be.
        ((0.85, 0.8, 0.9), (BIASED, "the minibatch noise is too large for this step size")),
    ],
)
def test_a_temperature_below_what_noise_would_make_of_it_decides(temperature, measured, expected):
    given = meters(measured, (0.087, 0.08, 0.094), temperature)
    assert judge(given=given) == expected
    if expected == CONVERGED:
        evidence = pb.judge(Convergence(4, 500, parameters=mixing()), given).evidence
        assert any("adds 8.7% of T" in e and "decides" in e for e in evidence)


@at_temperature
@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        # Of three layers the interval is widened by 2.94 / 2.
        ((1.3, 1.17, 1.43), (BIASED, "the step size is too large for some layers: layer one")),
        ((1.3, 1.16, 1.44), CONVERGED),
        ((0.7, 0.57, 0.83), ("not converged", "some layers are not at the temperature asked for")),
        ((0.7, 0.56, 0.84), CONVERGED),
        ((1.0, 0.2, 1.8), CONVERGED),
    ],
)
def test_each_layers_temperature_is_judged_by_a_widened_interval(temperature, layer, expected):
    given = meters(temperature=temperature, layers={"one": layer, "two": (1, 0.9, 1.1), "b": layer})
    label, cause = judge(given=given)
    assert label == expected[0]
    assert cause.startswith(expected[1])
    assert label == "converged" or "layer one is at" in cause


def test_layers_interval_covers_as_often_as_is_said():
    """Of 20,000 draws of ten right layers, some layer is called hot 0.5 % of the time (± 0.15)."""
    z = np.random.default_rng(0).normal(size=(20_000, 10))
    factor = meters(layers=dict.fromkeys("abcdefghij", (0, -2, 2))).widened_by_layer["a"].high
    assert_allclose((z > factor).any(axis=1).mean(), 0.005, atol=0.0015)


@pytest.mark.parametrize(
    ("tolerance", "expected"), [(0.1, CONVERGED), (0.05, HOT), (0.02, HOT), (0.077, CONVERGED)]
)
def test_the_tolerance_is_the_users(tolerance, expected):
    assert judge(given=meters((1.076, 1.06, 1.092), tolerance=tolerance)) == expected


def test_how_well_the_temperature_is_known_is_said():
    found = pb.judge(
        Convergence(4, 500, parameters=mixing()),
        meters((1.076, 1.05, 1.102), layers={"one": (1, 0.5, 1.5), "two": (1, 0.99, 1.01)}),
    )
    assert found.label == "converged"
    (line,) = [e for e in found.evidence if e.startswith("configurational")]
    assert line.endswith("known to ±2.6%; it is not 1, but within the 10% that are let pass")
    assert "not known to ±20%: the temperature of layer one" in found.evidence


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
