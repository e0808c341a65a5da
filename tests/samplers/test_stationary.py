"""All kernels against the exact stationary distributions of their discretised chains.

Every test is one run from a fixed key; by chance it fails at most 7 times in 10⁶ per moment.
"""

from dataclasses import replace

import jax
import numpy as np
import pytest
import stationary
from numpy.testing import assert_allclose
from stationary import (
    ANISOTROPIC,
    BLACKJAX_SGHMC,
    CASES,
    CORRELATED,
    PSGLD,
    REGRESSION,
    SGHMC,
    SGHMC_RMS,
    SGLD,
    SKEWED,
    Case,
    Part,
    Quantity,
    Underpowered,
    check,
    exact,
)

import probbnn as pb

PRECISION = np.array([1.0, 10.0])  # of ANISOTROPIC


def in_turn(case):
    """Whether the case belongs to the default tests: T has its say on the Gaussians already."""
    known = case.temperature != 1 and any(case.target is t for t in (SKEWED, REGRESSION))
    return pytest.param(case, marks=pytest.mark.slow) if known else case


@pytest.mark.parametrize("case", map(in_turn, CASES), ids=str)
def test_kernels_sample_their_exact_laws(case):
    check(case.quantities(), case.tolerance, case.allowance)


@pytest.mark.parametrize("entry", [SGLD, PSGLD, SGHMC], ids=lambda entry: entry.name)
def test_variance_is_proportional_to_temperature(entry):
    """The three runs of which the test above knows each: errors of 1 % at most."""
    temperatures = np.array([0.25, 1.0, 4.0])
    for i in (2, 4):
        variances = [Case(entry, ANISOTROPIC, t).quantities()[i].measured for t in temperatures]
        slope = np.polyfit(np.log(temperatures), np.log(variances), 1)[0]
        assert_allclose(slope, 1, atol=0.01)


# The exact stationary distributions themselves


@pytest.mark.parametrize("temperature", [0.25, 1.0, 4.0])
def test_exact_laws_of_langevin_kernels_have_their_closed_form(temperature):
    for entry, g in ((SGLD, 1.0), (PSGLD, stationary.G)):
        h = entry.step_size * g
        law = exact(entry, ANISOTROPIC, temperature)
        variance = temperature / (PRECISION * (1 - h * PRECISION / 2))
        assert_allclose(law.mean, [3, -2])
        assert_allclose(law.covariance, np.diag(variance), atol=1e-12)


@pytest.mark.parametrize("entry", [SGHMC, SGHMC_RMS], ids=lambda entry: entry.name)
@pytest.mark.parametrize("target", [ANISOTROPIC, CORRELATED], ids=lambda target: target.name)
def test_sghmc_has_the_targets_law_at_any_stable_step_size(entry, target):
    """θ has the covariance TΛ⁻¹ and u that of T, up to hGΛ = 4, beyond which there is no law."""
    root = np.diag(np.sqrt(stationary.G if entry is SGHMC_RMS else np.ones(2)))
    precision = np.linalg.inv(target.moments(1.0).covariance)
    largest = np.linalg.eigvalsh(root @ precision @ root).max()
    for size in (0.1, 1.0, 3.9):
        scaled = replace(entry, step_size=size / largest)
        law, goal = exact(scaled, target, 4.0), target.moments(4.0)
        assert_allclose(law.mean, goal.mean, rtol=1e-9)
        assert_allclose(law.covariance, goal.covariance, rtol=1e-9, atol=1e-12)
        assert_allclose(law.kinetic, 4.0)
    with pytest.raises(ValueError, match="has no stationary distribution"):
        stationary.relaxation(replace(entry, step_size=4.1 / largest), target, 4.0)


def test_an_unstable_kernel_has_no_law():
    with pytest.raises(ValueError, match="sgld has no stationary distribution on aniso"):
        Case(replace(SGLD, step_size=0.21), ANISOTROPIC).quantities()


def test_an_epoch_of_one_batch_is_a_step_with_all_the_data():
    whole = replace(REGRESSION, batch_size=5)
    law, goal = exact(SGHMC, whole, 4.0), REGRESSION.moments(4.0)
    assert_allclose(law.mean, goal.mean)
    assert_allclose(law.covariance, goal.covariance)


@pytest.mark.parametrize("length", [2, 5, 10])
def test_blackjaxs_sghmc_is_too_wide_however_small_its_steps(length):
    """Its first position update of L uses no gradient: L/(L−1) times the variance as ε → 0."""
    entry = replace(
        BLACKJAX_SGHMC, step_size=1e-8, parts=lambda h, t: stationary.euler(h, t, 0.01, length)
    )
    factor = np.diag(exact(entry, ANISOTROPIC, 1.0).covariance) * PRECISION
    assert_allclose(factor, length / (length - 1), rtol=1e-4)


def with_gradient_noise(part: Part, scale: float) -> Part:
    """The same where the gradient comes with independent noise of that standard deviation."""
    if part.gradient is None:
        return part
    rows = part.noise or [[] for _ in part.matrix]
    gradients = [[scale * k for k in row] for row in part.gradient]
    return part._replace(noise=[[*row, *k] for row, k in zip(rows, gradients, strict=True)])


@pytest.mark.parametrize("entry", [SGLD, PSGLD, SGHMC, SGHMC_RMS], ids=lambda entry: entry.name)
def test_noise_gain_is_what_gradient_noise_adds_to_the_temperature(entry):
    h, t = 1e-5, 2.0
    small = replace(entry, step_size=h)
    noisy = replace(
        small, parts=lambda h, t: [with_gradient_noise(p, 3.0) for p in entry.parts(h, t)]
    )
    variances = [np.diag(exact(e, ANISOTROPIC, t).covariance) for e in (noisy, small)]
    gain = t * (variances[0] / variances[1] - 1) / (h * 9.0)
    kernel = small.build(ANISOTROPIC.estimator, h, t)
    state = kernel.init(np.zeros(2, np.float32))
    assert_allclose(kernel.noise_gain(state), gain, rtol=1e-3)


# The adaptive preconditioner


STRETCHED = stationary.gaussian("stretched Gaussian", np.diag([1.0, 100.0]), [0.0, 0.0])


@pytest.mark.parametrize(("decay", "known"), [(0.99, [1.48, 1.12]), (0.9, [1.86, 1.53])])
def test_adapting_without_gamma_is_biased(decay, known):
    """Variance ratios that a simulation in NumPy gave; here their standard error is 0.014."""
    kernel = pb.psgld(STRETCHED.estimator, 5e-3, decay=decay, damping=1e-5)
    sample = stationary.run(
        kernel,
        STRETCHED,
        [1.0, 0.1],
        num_chains=1_000,
        num_warmup=2_000,
        thinning=80,
        num_draws=50,
    )
    quantities = stationary.compare(sample, STRETCHED.moments(1.0))
    for q, ratio in zip((quantities[2], quantities[4]), known, strict=True):
        assert q.measured - q.exact > stationary.SIGMAS * q.error
        assert abs(q.measured / q.exact - ratio) < 0.07


def test_a_preconditioner_frozen_after_warm_up_samples_its_exact_law():
    """Each chain froze its own G, so the law of all is a mixture, known from their last states."""
    h, temperature = 0.5, 4.0
    kernel = pb.psgld(ANISOTROPIC.estimator, h, temperature, decay=0.9, freeze_after=30)
    sample = stationary.run(
        kernel, ANISOTROPIC, [0.0, 0.0], num_chains=12_000, num_warmup=200, thinning=2
    )
    g = 2 * np.asarray(jax.vmap(kernel.noise_gain)(sample.state), float)
    assert (g.std(axis=0) > 0.1 * g.mean(axis=0)).all()
    variance = temperature / (PRECISION * (1 - h * g * PRECISION / 2))
    law = stationary.Moments(np.array([3.0, -2.0]), np.diag(variance.mean(axis=0)))
    check(stationary.compare(sample, law), 0.01)


# Chains among themselves


@pytest.mark.parametrize("shared", [False, True])
def test_chains_are_correlated_only_by_shared_minibatches(shared):
    """SGLD at T = 0.01, so that nearly all the noise is that of the minibatches.

    Correlation of 2,000 disjoint pairs of chains, standard error from the spread between pairs.
    """
    temperature, h = 0.01, SGLD.step_size * REGRESSION.pace
    law = exact(SGLD, REGRESSION, temperature)
    sample = stationary.run(
        pb.sgld(REGRESSION.estimator, h, temperature),
        REGRESSION,
        law.mean,
        num_chains=4_000,
        num_warmup=60,
        thinning=9,
        num_draws=40,
        shared_minibatches=shared,
    )
    z = (sample.positions - law.mean) / np.sqrt(np.diag(law.covariance))
    pairs = (z[::2] * z[1::2]).mean(axis=(1, 2))
    if shared:
        assert pairs.mean() > 0.5
    else:
        error = pairs.std() / np.sqrt(len(pairs))
        assert error < 0.005
        assert abs(pairs.mean()) < stationary.SIGMAS * error


# The harness


def test_estimates_off_their_values_are_named_with_their_sample_size():
    good, bad = (
        Quantity("variance 0", 1.0, measured, 0.001, 1.0, 2e6, 100) for measured in (1.009, 0.98)
    )
    check([good, bad], 0.05)
    check([good, bad], 0.01, allowance=0.011)
    message = r"outside 1.00%: variance 0 is 0.98 ± 0.001 and should be 1 \(-2.00%, ESS 2,000,000\)"
    with pytest.raises(AssertionError, match=message):
        check([good, bad], 0.01)
    with pytest.raises(AssertionError):
        check([bad._replace(measured=np.nan)], 0.01)


def test_a_test_without_power_is_refused():
    vague = Quantity("mean 1", 1.0, 1.0, 0.004, 1.0, 6e4, 100)
    with pytest.raises(Underpowered, match=r"100 chains ran and about 324 are needed"):
        check([vague], 0.01)
    with pytest.raises(Underpowered):
        check([vague._replace(error=np.nan)], 0.01)


def test_estimates_and_their_errors_are_those_of_independent_samples():
    """Log-gamma variates from NumPy in place of chains: all moments, and errors of 1/√ESS."""
    rng = np.random.default_rng(0)
    x = np.log(rng.gamma([12.0, 24.0], size=(20_000, 10, 2)))
    sample = stationary.Sample(x, (rng.normal(size=(20_000, 10, 2)) ** 2).mean(axis=-1), None)
    law = SKEWED.moments(1.0)._replace(kinetic=1.0)
    quantities = stationary.compare(sample, law)
    check(quantities, 0.02)
    assert [q.name for q in quantities] == [
        *("mean 0", "mean 1", "variance 0", "covariance 0, 1", "variance 1"),
        *("third central moment 0", "third central moment 1", "kinetic temperature"),
    ]
    assert_allclose([q.ess for q in quantities], 200_000, rtol=0.05)
    assert_allclose(quantities[0].error, quantities[0].scale / np.sqrt(200_000), rtol=0.05)


def test_log_gamma_moments_at_another_temperature():
    """p^{1/T} integrated numerically."""
    grid = np.linspace(-25, 12, 200_001)[:, None]
    density = np.exp((np.array([12.0, 24.0]) * grid - np.exp(grid)) / 4 - 12)
    density /= density.sum(axis=0)
    law, mean = SKEWED.moments(4.0), (density * grid).sum(axis=0)
    assert_allclose(law.mean, mean)
    assert_allclose(np.diag(law.covariance), (density * (grid - mean) ** 2).sum(axis=0))
    assert_allclose(law.third, (density * (grid - mean) ** 3).sum(axis=0))
