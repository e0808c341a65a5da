"""Runs whose truth is known, of the kinds that a verdict was once wrong about.

benchmarks/verdicts.py judges more of them, from more seeds, and counts.
"""

import re
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chains import as_tree, autoregressive

import probbnn as pb

pytestmark = pytest.mark.usefixtures("quick_compilation")

BIASED = "biased by minibatch noise or step size"


@pytest.fixture(scope="module")
def standard_normal():
    """Posteriors N(0, I) of layers of these sizes: data that say nothing, and a prior."""
    data = np.zeros((1, 1), np.float32), np.zeros(1, np.float32)

    @cache
    def target(sizes):
        network = (
            lambda key, x: {f"layer {i}": jnp.zeros(size) for i, size in enumerate(sizes)},
            lambda theta, x: 0 * x @ jnp.zeros(1),
        )
        return pb.LogDensity(network, data, likelihood=pb.Gaussian(1.0), prior_scale=1.0)

    return target


def measured(standard_normal, theta, sizes, **settings):
    """The meters of draws ``(chain, draw, d)``."""
    parts = np.split(theta.astype(np.float32), np.cumsum(sizes)[:-1], axis=-1)
    draws = pb.Draws({f"layer {i}": x for i, x in enumerate(parts)}, "exact", temperature=1.0)
    target = standard_normal(sizes)
    return pb.measure_temperature(jax.random.key(0), target, draws, **settings)


def normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def judge(values, *args, **groups):
    return pb.judge(pb.diagnose(as_tree(values, **groups)), *args)


# 1. Layers


@pytest.mark.parametrize(
    ("sizes", "temperatures", "label", "named"),
    [
        ((30, 30), (1.5, 0.5), BIASED, "layer 0 is at 1."),
        ((28, 29, 3), (1, 1, 2), BIASED, "layer 2 is at "),
        ((28, 29, 3), (1, 1, 3), BIASED, "layer 2 is at "),
        ((28, 29, 3), (1, 1, 1), "converged", ""),
        ((28, 29, 3), (1, 1, 0), "not converged", "layer 2 is at -"),
    ],
)
def test_a_layer_at_another_temperature_is_named(
    standard_normal, sizes, temperatures, label, named
):
    """The last one hardly moves: all of its chains are at the same place."""
    theta = np.sqrt(np.repeat(temperatures, sizes)) * normal(0, 4, 500, sum(sizes))
    if temperatures[-1] == 0:
        theta[..., -3:] = 1 + 0.03 * normal(1, 4, 500, 3)
    meters = measured(standard_normal, theta, sizes)
    # R-hat is content with all of them.
    verdict = judge(theta, meters)
    assert verdict.label == label, str(verdict)
    if named:
        assert re.search(named.replace("-", "-?0?"), str(verdict)), str(verdict)


def test_intervals_of_temperatures_hold_them_95_percent_of_the_time(standard_normal):
    """Of 200 runs of exact draws, in chains of a memory of five draws: ± 5 %, which is 3 σ."""
    sizes, held = (3, 2), []
    for seed in range(200):
        theta = autoregressive(0.67, 4, 60, 5, seed)
        meters = measured(standard_normal, theta, sizes, num_draws=240)
        for found in (meters.configurational, *meters.configurational_by_layer.values()):
            held.append(found.low <= 1 <= found.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.05)


# 2. Prediction and measurement


def test_noise_that_the_measured_temperature_excludes_is_no_bias():
    """Where chains forget slower than an epoch, SGLD is heated less than its minibatches would."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1_000, 3)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5] + rng.normal(size=1_000)).astype(np.float32)
    linear = (lambda key, x: jnp.zeros(3), lambda theta, x: x @ theta)
    target = pb.LogDensity(linear, (x, y), prior_scale=10.0, likelihood=pb.Gaussian(1.0))
    draws = pb.sample(
        jax.random.key(0),
        target,
        "sgld",
        step_size=2e-5,
        batch_size=100,
        num_steps=30_000,
        num_warmup=2_000,
        progress=False,
    )
    meters = pb.measure_temperature(jax.random.key(1), target, draws)
    precision = x.T @ x + np.eye(3) / 100
    covariance = np.mean([np.cov(chain.T) for chain in draws.positions], axis=0)
    assert 0.9 < np.trace(precision @ covariance) / 3 < 1.05
    assert meters.gradient_noise.low > 0.08
    verdict = pb.judge(pb.diagnose(pb.to_datatree(draws, target, {"in": x[:10]})), meters)
    assert verdict.label == "converged", str(verdict)
    assert "at most, where chains forget within an epoch" in str(verdict)
    assert meters.verdict.endswith("as asked")


# 3, 9, 10. How well the temperature is known


@pytest.mark.parametrize("seed", range(3))
def test_a_temperature_that_is_surely_above_is_a_bias(standard_normal, seed):
    theta = np.sqrt(1.165) * normal(seed, 4, 500, 30)
    verdict = judge(theta, measured(standard_normal, theta, (30,)))
    assert (verdict.label, verdict.cause) == (BIASED, "the step size is too large")


@pytest.mark.parametrize("dim", [1, 2, 3, 5])
def test_the_temperature_of_few_parameters_is_measured_on_as_many_draws_as_it_takes(
    standard_normal, dim
):
    """Known to ±6 % at most (2 standard errors of 2,000 draws of one coordinate)."""
    theta = normal(dim, 4, 500, dim)
    meters = measured(standard_normal, theta, (dim,))
    assert meters.precision < 0.07
    assert judge(theta, meters).label == "converged"


@pytest.mark.parametrize(("tolerance", "label"), [(0.1, "converged"), (0.02, BIASED)])
def test_a_finer_tolerance_takes_more_draws_and_sees_less_heat(standard_normal, tolerance, label):
    theta = np.sqrt(1.076) * normal(0, 4, 500, 30)
    meters = measured(standard_normal, theta, (30,), tolerance=tolerance)
    number = np.isfinite(meters.sample_stats["configurational_temperature"]).sum()
    assert (number == 2_000) == (tolerance == 0.02)
    assert number >= 150
    assert meters.tolerance == tolerance
    verdict = judge(theta, meters)
    assert verdict.label == label
    assert "known to ±" in str(verdict)
    assert ("let pass" in str(verdict)) == (label == "converged")


@pytest.mark.parametrize("tolerance", [0, 1.5, -0.1])
def test_a_tolerance_is_a_part_of_t(standard_normal, tolerance):
    with pytest.raises(pb.InputError, match="it must be between 0 and 1, such as 0.1"):
        measured(standard_normal, normal(0, 2, 20, 2), (2,), tolerance=tolerance)


# 4, 8. Advice


def following(verdict):
    """Times as many steps, and draws of each chain."""
    times, draws = (
        re.search(pattern, verdict.next_step)[1]
        for pattern in (r"(\d+) times as many steps", r"([\d,]+) draws of each chain")
    )
    return int(times), int(draws.replace(",", ""))


@pytest.mark.parametrize(("num_chains", "num_draws"), [(4, 100), (10, 60), (2, 200), (1, 300)])
def test_independent_draws_are_too_few_until_the_advice_is_followed(num_chains, num_draws):
    values = normal(0, num_chains, num_draws, 100)
    verdict = judge(values)
    assert (verdict.label, verdict.cause) == ("not converged", "too few draws were kept")
    times, draws = following(verdict)
    assert times >= 2
    assert draws == times * num_draws
    assert judge(normal(1, num_chains, draws, 100)).label == "converged"


@pytest.mark.parametrize("tau", [3.0, 30.0])
@pytest.mark.parametrize("num_draws", [100, 500])
def test_a_run_that_is_too_short_has_converged_where_the_advice_was_followed(tau, num_draws):
    """Chains that forget in so many of 500 steps; benchmarks/verdicts.py takes 20 seeds each."""

    def run(times, draws, seed):
        return autoregressive(np.exp(-times * 500 / draws / tau), 4, draws, 50, seed)

    verdict = judge(run(1, num_draws, 0))
    assert verdict.label == "not converged"
    assert "is stuck" not in verdict.cause
    assert judge(run(*following(verdict), 1)).label == "converged"


def test_tails_that_are_seldom_visited_are_not_converged():
    """The bulk is as of independent draws; beyond 1.6 a chain stays for 60 draws."""
    rng = np.random.default_rng(0)
    values = np.clip(normal(1, 4, 1_000, 20), -1.6, 1.6)
    for chain, value in np.ndindex(4, 20):
        for start in rng.choice(900, 2, replace=False):
            values[chain, start : start + 60, value] = rng.choice([-2, 2], 60) * rng.uniform(
                1, 2, 60
            )
    c = pb.diagnose(as_tree(values))
    assert np.median(c.parameters.ess_bulk) > 1_000
    assert np.median(c.parameters.ess_tail) < 400
    verdict = pb.judge(c)
    assert verdict.label == "not converged"
    assert following(verdict)[0] >= 2


def test_the_defaults_of_sample_keep_draws_that_can_converge(linear_regression):
    """Exact draws, as many as kept: SGLD's default steps, of which 100 were kept once."""
    draws = pb.sample(jax.random.key(0), linear_regression, "sgld", progress=False)
    assert (draws.num_chains, draws.num_draws) == (4, 500)
    assert judge(normal(0, draws.num_chains, draws.num_draws, 100)).label == "converged"


# 5. No chain is named by chance


@pytest.mark.parametrize("seed", range(5))
def test_no_chain_is_named_where_chance_sets_one_apart(seed):
    """Independent and slow chains of many kinds, of fixed seeds."""
    mode = normal(seed, 4, 500, 1) > 0
    for t in range(1, 500):
        stays = np.random.default_rng([seed, t]).random(4) > 0.02
        mode[stays, t] = mode[stays, t - 1]
    for values in (
        normal(seed, 10, 60, 100),
        normal(seed, 4, 50, 1),
        autoregressive(0.9, 4, 500, 1, seed),
        autoregressive(0.98, 4, 500, 3, seed),
        normal(seed + 100, 4, 500, 30) + 1.5 * mode,
    ):
        assert "stuck" not in judge(values).cause


@pytest.mark.parametrize(("shift", "which"), [(0.5, slice(None)), (3.0, slice(3))])
def test_a_chain_that_is_elsewhere_is_named(shift, which):
    values = normal(0, 4, 500, 100)
    values[1, :, which] += shift
    assert judge(values).cause == "chain 1 is stuck where the others are not"


# 6. The worst value


def test_three_values_of_400_that_jump_between_modes_are_three_too_many():
    values = normal(0, 4, 500, 400)
    mode = np.random.default_rng(1).random((4, 500)) < 0.5
    for t in range(1, 500):
        stays = np.random.default_rng([2, t]).random(4) > 0.06
        mode[stays, t] = mode[stays, t - 1]
    values[..., :3] += 4 * mode[..., None]
    c = pb.diagnose(as_tree(values))
    assert c.parameters.share_converged > 0.99
    assert np.nanmin(c.parameters.ess) < 100
    assert pb.judge(c).label == "not converged"


def test_independent_draws_of_1400_values_are_far_from_the_floor():
    """benchmarks/verdicts.py takes 200 seeds."""
    found = pb.diagnose(as_tree(normal(0, 4, 500, 1_400))).parameters
    assert found.rhat.max() < 1.02
    assert found.ess.min() > 1_000
