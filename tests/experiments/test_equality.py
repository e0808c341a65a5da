"""The proof that all backends see one density: that it holds, and that it can fail."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import log_softmax
from targets import INPUTS, LABELS, ONE, PER_LEAF, TARGETS

import probbnn as pb
from probbnn.experiments import equality
from probbnn.experiments.equality import MismatchError, check_equality
from probbnn.posterior.base import Posterior
from probbnn.types import Batch

pytestmark = pytest.mark.usefixtures("quick_compilation")

BACKENDS = ["BlackJAX, full data", "BlackJAX, minibatch", "NumPyro", "Optax and our kernels"]
KEY = jax.random.key(0)


def linear(targets, likelihood):
    size = targets.size // 23
    pair = lambda key, x: jnp.ones((3, size)), lambda theta, x: x @ theta
    return pb.LogDensity(pair, (INPUTS, targets), likelihood=likelihood)


def disagreement(target):
    """Names of the backends that disagree, as the error has them."""
    with pytest.raises(MismatchError) as caught:
        check_equality(KEY, target, num_positions=1)
    assert "\n" not in str(caught.value)
    assert not caught.value.equality.holds
    largest = caught.value.equality.largest
    assert list(largest) == BACKENDS
    wrong = {name for name, found in largest.items() if max(found) > equality.TOLERANCE}
    assert any(str(caught.value).startswith(f"{name} sees another") for name in wrong)
    return wrong


@pytest.fixture(scope="module")
def gaussian():
    """As small as a network can be, where it is the wrong code that counts."""
    return linear(ONE, pb.Gaussian(0.3))


@pytest.fixture(scope="module")
def categorical():
    return TARGETS["scale per leaf"]()


# It holds


@pytest.mark.parametrize(
    "name",
    [
        "images",
        "Linen CNN",
        "NNX tied",
        "NNX unusual",
        "names alike",  # sums its inputs, which are float32, before any parameter is float64
        "scale per leaf",
        "LearnedGaussian (N,)",
    ],
)
def test_all_backends_see_one_density(name):
    target = TARGETS[name]()
    found = check_equality(KEY, target, num_positions=2)
    assert found.holds
    assert found.num_positions == 2
    assert list(found.largest) == BACKENDS
    assert max(map(max, found.largest.values())) <= 1e-9
    # Rounding in float64, not in float32 and not nothing.
    assert max(map(max, found.largest.values())) > 0


def test_the_one_density_is_that_of_numpy_and_scipy(categorical):
    """So the backends do not agree on something wrong."""
    position = jax.tree.map(
        lambda leaf: np.random.default_rng(1).normal(size=leaf.shape), categorical.shapes
    )
    first, second = position["Dense_0"], position["Dense_1"]
    hidden = np.tanh(INPUTS.astype(float) @ first["kernel"] + first["bias"])
    logits = hidden @ second["kernel"] + second["bias"]
    exact = log_softmax(logits, axis=1)[np.arange(23), LABELS].sum() + sum(
        stats.norm.logpdf(leaf, scale=scale).sum()
        for leaf, scale in zip(jax.tree.leaves(position), jax.tree.leaves(PER_LEAF), strict=True)
    )
    with jax.enable_x64(True):
        for name in BACKENDS:
            value, _ = jax.jit(equality._backends(categorical)[name])(position)
            assert value.dtype == np.float64
            assert_allclose(value, exact, rtol=1e-12, err_msg=name)


def test_float64_stays_inside(gaussian):
    check_equality(KEY, gaussian, num_positions=1)
    assert not jax.config.jax_enable_x64
    arrays = gaussian.data.inputs, gaussian.data.targets
    assert {jnp.zeros(1).dtype, *(array.dtype for array in arrays)} == {np.dtype(np.float32)}
    position = gaussian.init(KEY)
    assert position.dtype == jax.jit(gaussian.logdensity_fn)(position).dtype == np.float32


def test_float64_does_not_stay_behind_an_error(gaussian, monkeypatch):
    monkeypatch.setattr(equality, "_backends", lambda target: {"bad": lambda position: 1 / 0})
    with pytest.raises(ZeroDivisionError):
        check_equality(KEY, gaussian)
    assert jnp.zeros(1).dtype == np.float32


def test_positions_are_of_the_initialiser_and_of_the_prior(categorical):
    positions = equality._positions(KEY, categorical, 60)
    kernels = np.array([position["Dense_0"]["kernel"] for position in positions])
    biases = np.array([position["Dense_0"]["bias"] for position in positions])
    assert (biases[:30] == 0).all()
    assert_allclose(biases[30:].std(), 0.5, rtol=4.5 / np.sqrt(2 * 150))
    assert_allclose(kernels[30:].std(), 2.0, rtol=4.5 / np.sqrt(2 * 450))
    assert len(np.unique(kernels)) == kernels.size


# It fails


def scaled_prior(target):
    changed = copy.copy(target)
    changed.prior = pb.GaussianPrior(1.001 * target.prior.scale)
    return pb.to_numpyro(changed)


def swapped_leaves(target):
    """Two leaves of one shape in each other's place."""
    model = pb.to_numpyro(target)
    plain = model._sample_position

    def swapped():
        position = plain()
        first, second = position["Dense_0"], position["Dense_1"]
        return {
            "Dense_0": {**first, "bias": second["bias"]},
            "Dense_1": {**second, "bias": first["bias"]},
        }

    model._sample_position = swapped
    return model


@pytest.mark.parametrize("change", [scaled_prior, swapped_leaves])
def test_a_numpyro_model_of_another_posterior_is_found(change, monkeypatch):
    module = pb.MLP(hidden=(4,), num_outputs=4, activation="tanh")
    target = pb.LogDensity(module, (INPUTS, LABELS), prior_scale=0.7)
    monkeypatch.setattr(equality, "to_numpyro", change)
    assert disagreement(target) == {"NumPyro"}


def test_a_forgotten_data_size_over_batch_size_is_found(gaussian, monkeypatch):
    def forgetful(self, position, minibatch):
        log_probs = self.pointwise_loglikelihood_fn(position, Batch(*minibatch))
        return self.logprior_fn(position) + log_probs.sum()

    monkeypatch.setattr(Posterior, "logdensity_estimator", forgetful)
    assert disagreement(gaussian) == {"Optax and our kernels"}


def test_a_mask_that_counts_is_found(gaussian, monkeypatch):
    """N/b with the b of the padded minibatch: only the ragged last one of an epoch is wrong."""
    plain = Posterior.logdensity_estimator

    def unmasked(self, position, minibatch):
        return plain(self, position, Batch(*minibatch)._replace(mask=None))

    monkeypatch.setattr(Posterior, "logdensity_estimator", unmasked)
    assert disagreement(gaussian) == {"Optax and our kernels"}


def test_a_wrong_gradient_beside_a_right_value_is_found(gaussian, monkeypatch):
    plain = Posterior.value_and_grad_estimator

    def halved(self, position, minibatch):
        value, gradient = plain(self, position, minibatch)
        return value, jax.tree.map(lambda leaf: leaf * (1 + 1e-8), gradient)

    monkeypatch.setattr(Posterior, "value_and_grad_estimator", halved)
    assert disagreement(gaussian) == {"Optax and our kernels"}


class NotANumber(pb.Gaussian):
    def log_prob(self, outputs, targets):
        return super().log_prob(outputs, targets) + jnp.log(-jnp.ones(()))


class NoSlope(pb.Gaussian):
    """Finite, with a gradient that is not."""

    def log_prob(self, outputs, targets):
        return super().log_prob(outputs, targets) + jnp.sqrt(0 * outputs[:, 0])


@pytest.mark.parametrize("likelihood", [NotANumber(0.3), NoSlope(0.3)], ids=["value", "gradient"])
def test_what_is_not_finite_is_no_agreement(likelihood):
    assert disagreement(linear(ONE, likelihood)) == set(BACKENDS)


# What is shown of it


def test_the_report_is_json_and_a_table():
    found = equality.Equality(1, dict.fromkeys(BACKENDS, (1e-16, 2e-15)))
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["holds"] is True
    assert record["tolerance"] == 1e-9
    assert {name: tuple(d.values()) for name, d in record["backends"].items()} == found.largest
    lines = str(found).splitlines()
    assert [line[:21].strip() for line in lines] == ["", *BACKENDS]
    broken = equality.Equality(1, {**found.largest, "NumPyro": (np.inf, 0.0)})
    assert not broken.holds
    assert broken.to_dict()["backends"]["NumPyro"] == {"logdensity": "inf", "gradient": 0.0}
    json.dumps(broken.to_dict(), allow_nan=False)


def test_control_variates_play_no_part(gaussian):
    centered = gaussian.with_control_variates(gaussian.init(KEY))
    assert check_equality(KEY, centered, num_positions=1).holds
