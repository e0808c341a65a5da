"""Verdicts: the right cause for every run that was spoiled on purpose, and none for a good one."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from chains import as_tree, independent

import probbnn as pb
from probbnn.cli import main
from probbnn.diagnostics import TemperatureMeters, diverged
from probbnn.metrics import Interval

pytestmark = pytest.mark.usefixtures("quick_compilation")

BIASED = "biased by minibatch noise or step size"


def meters(temperature=1.0, measured=(1.0, 0.98, 1.02), noise=(0.01, 0.0, 0.02)):
    return TemperatureMeters(
        temperature=temperature,
        configurational=Interval(*measured),
        configurational_by_layer={},
        gradient_noise=None if noise is None else Interval(*noise),
        gradient_noise_by_layer={},
        kinetic=None,
        num_parameters=10,
    )


def judge(values, *args, **groups):
    return pb.judge(pb.diagnose(as_tree(values, **groups)), *args)


# Each rule on numbers made for it


def test_independent_draws_at_the_right_temperature_have_converged():
    verdict = judge(independent(), meters())
    assert (verdict.label, verdict.cause, verdict.next_step) == ("converged", "", "use the draws")
    assert any("configurational temperature 1 [0.98, 1.02], asked 1" in e for e in verdict.evidence)


def test_without_meters_the_verdict_says_what_it_cannot_see():
    verdict = judge(independent())
    assert verdict.label == "converged"
    assert "temperature was not measured" in str(verdict)


def test_another_temperature_is_not_the_posterior():
    verdict = judge(independent(80), meters(0.5, (0.5, 0.49, 0.51)))
    assert verdict.next_step.endswith("; for the posterior, at temperature 1")
    verdict = judge(independent(), meters(0.5, (0.5, 0.49, 0.51)))
    assert verdict.label == "converged"
    assert verdict.next_step == "use the draws; for the posterior, at temperature 1"
    assert "T = 0.5 was asked for, which is not the posterior's T = 1" in verdict.evidence


def stuck(values):
    values[2] = values[2, :1]


def elsewhere(values):
    values[1] += 3


def regions(values):
    values += 3 * np.arange(4)[:, None, None]


def drifting(values):
    values += np.linspace(0, 5, values.shape[1])[:, None]


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (stuck, "chain 2 is stuck"),
        (elsewhere, "chain 1 is stuck where the others are not"),
        (regions, "each chain stays in a region of its own"),
        (drifting, "the run is too short"),
    ],
)
def test_the_cause_of_no_convergence_is_named(spoil, cause):
    values = independent()
    spoil(values)
    verdict = judge(values, meters())
    assert (verdict.label, verdict.cause) == ("not converged", cause)


def test_nobody_is_sent_to_wait_for_a_run_that_is_hundreds_of_times_longer():
    values = independent()
    values += np.linspace(0, 50, values.shape[1])[:, None]
    assert judge(values, meters()).next_step.startswith("a sampler that moves faster")
    values = independent()
    values += np.linspace(0, 0.5, values.shape[1])[:, None]
    assert judge(values, meters()).next_step.startswith("about ")


@pytest.mark.parametrize(
    ("method", "others"), [("sgld", "nuts or mclmc"), ("mclmc", "nuts"), ("nuts", "mclmc")]
)
def test_a_faster_sampler_is_another_one(method, others):
    tree = as_tree(independent() + np.linspace(0, 50, 500)[:, None])
    tree.attrs["method"] = method
    advice = pb.judge(pb.diagnose(tree)).next_step
    assert advice.startswith(f"a sampler that moves faster, such as {others}: about ")


def test_few_draws_are_told_from_short_runs():
    verdict = judge(independent(80), meters())
    assert (verdict.label, verdict.cause) == ("not converged", "too few draws were kept")
    verdict = judge(independent(1, 10), meters(600_000.0, (3e3, 1e3, 5e3), None))
    assert (verdict.label, verdict.cause) == (
        "not converged",
        "too few draws to tell: 1 per chain",
    )
    assert "T = 600,000 was asked for" in str(verdict)


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (
            meters(measured=(1, 0.9, 1.1), noise=(0.09, 0.08, 0.10)),
            "the minibatch noise is too large for this step size",
        ),
        (
            meters(measured=(1, 0.9, 1.1), noise=(0.06, 0.04, 0.08)),
            "the minibatch noise is too large for this step size",
        ),
        (
            meters(measured=(2.5, 2.4, 2.6), noise=(0.19, 0.1, 0.28)),
            "the step size is too large, and with it the minibatch noise",
        ),
        (meters(measured=(1.3, 1.2, 1.4)), "the step size is too large"),
        (meters(measured=(1.3, 1.2, 1.4), noise=None), "the step size is too large"),
    ],
)
def test_a_bias_is_one_however_well_the_chains_agree(given, cause):
    verdict = judge(independent(), given)
    assert (verdict.label, verdict.cause) == (BIASED, cause)
    assert verdict.next_step.startswith("divide the step size by")


@pytest.mark.parametrize("noise", [(0.045, 0.04, 0.05), (0.06, 0.02, 0.1), None])
def test_noise_that_is_small_or_uncertain_is_no_bias(noise):
    assert judge(independent(), meters(noise=noise)).label == "converged"


def test_a_chain_on_its_way_is_hot_without_being_biased():
    trace = {"logdensity": (("chain", "step"), np.tile(np.linspace(0, 9, 200), (4, 1)))}
    hot = meters(measured=(1.3, 1.2, 1.4))
    verdict = judge(independent(), hot, **{"/trace": xr.Dataset(trace)})
    assert verdict.label == "not converged"
    assert "the log density drifts" in str(verdict)


@pytest.mark.parametrize("measured", [(0.8, 0.79, 0.81), (1.0, 0.5, 1.5), (1.0, np.nan, np.nan)])
def test_a_temperature_that_is_low_or_unknown_is_no_convergence(measured):
    verdict = judge(independent(), meters(measured=measured))
    assert verdict.label == "not converged"
    assert verdict.cause.startswith("the temperature is not")


def test_shared_minibatches_are_never_vouched_for():
    verdict = judge(independent(), meters(), {"shared_minibatches": True})
    assert verdict.label == "not converged"
    assert verdict.cause.startswith("the chains share minibatches")
    together = independent() + 2 * independent(num_chains=1)
    verdict = judge(together, meters(), {"shared_minibatches": True})
    assert (verdict.label, verdict.cause) == (BIASED, "the chains share minibatches")


def test_chains_that_move_together_are_never_vouched_for():
    """One key for all, as a common slip with vmap has it: there need not be any minibatches."""
    alike = np.repeat(independent(num_chains=1), 4, axis=0)
    verdict = judge(alike)
    assert verdict.label == "not converged"
    assert verdict.cause.startswith("the chains move together")
    assert "random key" in verdict.next_step


def test_one_bad_value_is_one_too_many():
    values = independent()
    values[:, :, 7] += 3 * np.arange(4)[:, None]
    verdict = judge(np.concatenate([values, independent()], axis=-1))
    assert verdict.label == "not converged"
    assert "99.5% of 200 parameters" in verdict.evidence[0]
    assert "(theta[7])" in verdict.evidence[0]


def test_one_chain_cannot_tell_where_it_is():
    verdict = judge(independent(num_chains=1, num_draws=2_000))
    assert verdict.label == "converged"
    assert any(line.startswith("one chain") for line in verdict.evidence)
    assert "better of four chains" in verdict.next_step


@pytest.mark.parametrize(
    ("frozen", "num_chains", "cause"),
    [
        ([1], 2, "chain 1 is stuck"),
        ([0, 2, 3], 4, "chains 0, 2, 3 are stuck"),
        ([0, 1, 2, 3], 4, "no chain moves"),
    ],
)
def test_chains_that_stand_still_are_counted(frozen, num_chains, cause):
    values = independent(num_chains=num_chains)
    values[frozen] = values[frozen, :1]
    verdict = judge(values)
    assert (verdict.label, verdict.cause) == ("not converged", cause)


def test_divergence_comes_first():
    values = independent()
    stats = xr.Dataset({"diverging": (("chain", "draw"), values[..., 0] > 2)})
    verdict = judge(values, meters(measured=(3.0, 2.9, 3.1)), **{"/sample_stats": stats})
    assert verdict.label == "diverged"
    values[0, 3, 5] = np.inf
    verdict = judge(values, meters())
    assert (verdict.label, verdict.cause) == ("diverged", "draws that are not finite: 1 of 2000")
    assert diverged("chain 3 at step 20").evidence == ("chain 3 at step 20",)


def test_nothing_that_moves_is_nothing_to_trust():
    assert judge(np.ones((4, 100, 3)), meters()).cause == "nothing ever changes"


@pytest.mark.parametrize("given", [None, xr.DataTree()])
def test_a_verdict_is_of_what_diagnose_found(given):
    with pytest.raises(pb.InputError, match=f"of a {type(given).__name__}; give what diagnose"):
        pb.judge(given)


def test_a_verdict_is_text_and_json():
    verdict = judge(independent(), meters(measured=(1, 0.9, 1.1), noise=(0.09, 0.08, 0.1)))
    assert str(verdict).startswith(f"{BIASED}: the minibatch noise")
    assert json.loads(json.dumps(verdict.to_dict()))["evidence"] == list(verdict.evidence)


def test_meters_come_back_from_json():
    given = meters(measured=(1.0, np.nan, np.nan), noise=None)
    back = TemperatureMeters.from_dict(json.loads(json.dumps(given.to_dict())))
    assert str(back) == str(given)
    assert back.gradient_noise is None


# Runs


@pytest.fixture(scope="module")
def digits():
    train, test = pb.load("digits")
    target = pb.LogDensity(pb.MLP(hidden=(10,), activation="tanh"), train)
    return target, {
        "test": test.images[:20],
        "noise": pb.out_of_distribution(test, "noise").images[:20],
    }


def run(digits, method="sghmc", num_meter_draws=100, **settings):
    """A run with the settings of the preset, shorter and with those given, and its verdict."""
    target, probes = digits
    settings = {"step_size": 1e-3, "batch_size": 200, "num_steps": 400, **settings}
    draws = pb.sample(jax.random.key(0), target, method, progress=False, **settings)
    measured = pb.measure_temperature(jax.random.key(1), target, draws, num_draws=num_meter_draws)
    tree = pb.to_datatree(draws, target, probes)
    return tree, measured, pb.judge(pb.diagnose(tree), measured, draws.settings)


@pytest.fixture(scope="module")
def short(digits):
    return run(digits)


def test_a_run_that_is_too_short(short):
    _, _, verdict = short
    assert (verdict.label, verdict.cause) == ("not converged", "the run is too short")


def test_a_step_size_that_is_too_large(digits):
    _, _, verdict = run(digits, step_size=3e-2)
    assert verdict.label == BIASED
    assert "divide the step size" in verdict.next_step


@pytest.mark.parametrize(
    "settings", [{}, {"method": "psgld", "step_size": 5e-3}], ids=["sghmc", "psgld"]
)
def test_a_batch_of_ten(digits, settings):
    _, _, verdict = run(digits, batch_size=10, **settings)
    assert verdict.label == BIASED
    assert verdict.cause == "the minibatch noise is too large for this step size"


@pytest.mark.slow
def test_chains_that_share_their_minibatches(digits):
    _, _, verdict = run(digits, shared_minibatches=True)
    assert verdict.label == "not converged"
    assert verdict.cause.startswith("the chains share minibatches")


def test_a_chain_that_is_stuck(short):
    tree, measured, _ = short
    values = tree["posterior_predictive"]["probability"].copy()
    values[1] = values[1, 0]
    tree["posterior_predictive"]["probability"] = values
    verdict = pb.judge(pb.diagnose(tree), measured)
    assert (verdict.label, verdict.cause) == ("not converged", "chain 1 is stuck")


@pytest.fixture(scope="module")
def regression_1000():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1_000, 3)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5] + rng.normal(size=1_000)).astype(np.float32)
    target = pb.LogDensity(
        ((lambda key, x: jnp.zeros(3)), (lambda theta, x: x @ theta)),
        (x, y),
        prior_scale=10.0,
        likelihood=pb.Gaussian(1.0),
    )
    return target, {"in": x[:10], "out": 10 * x[:10]}


@pytest.mark.slow
def test_a_regression_that_has_converged(regression_1000):
    _, _, verdict = run(
        regression_1000,
        num_meter_draws=2_000,
        step_size=2e-4,
        batch_size=500,
        num_steps=20_000,
        num_warmup=2_000,
        thinning=30,
    )
    assert verdict.label == "converged", str(verdict)


def test_chains_heated_by_the_same_minibatches(regression_1000):
    """The field's folklore: R-hat is content, and the chains are correlated 0.9."""
    tree, _, verdict = run(
        regression_1000,
        "sgld",
        step_size=2e-4,
        batch_size=10,
        num_steps=8_000,
        thinning=4,
        shared_minibatches=True,
    )
    convergence = pb.diagnose(tree)
    assert np.median(convergence.function.rhat) < 1.02
    assert convergence.cross_chain.correlation > 0.8
    assert (verdict.label, verdict.cause) == (BIASED, "the chains share minibatches")
    # Without what the settings say, and without meters.
    assert pb.judge(convergence).cause.startswith("the chains move together")


@pytest.mark.slow
def test_the_demo_has_a_sampler_that_converges(tmp_path):
    """At seeds 0 to 3 the worst R-hat of 1,400 probe values was 1.007 to 1.009."""
    out = tmp_path / "run"
    assert main(["run", "digits", "--method", "mclmc", "--out", str(out)]) == 0
    metrics = json.loads((out / "metrics.json").read_text())["methods"]["mclmc"]
    assert metrics["verdict"]["label"] == "converged", metrics["verdict"]["evidence"]
    assert "### mclmc: converged" in (out / "report.md").read_text(encoding="utf-8")
