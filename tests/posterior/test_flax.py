"""The adapter against arithmetic done elsewhere: NumPy, SciPy, closed forms and BlackJAX."""

from functools import partial

import blackjax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from scipy.special import log_softmax, softmax

import probbnn as pb
from probbnn.data import sources

pytestmark = pytest.mark.usefixtures("quick_compilation")

CLOSE = partial(assert_allclose, rtol=2e-5, atol=2e-5)


@pytest.fixture(scope="module")
def position(target):
    return target.init(jax.random.key(1))


@pytest.fixture(scope="module")
def full_gradient(target, position):
    return jax.grad(target.logdensity_fn)(position)


def numpy_logits(position, inputs):
    first, second = position["Dense_0"], position["Dense_1"]
    hidden = np.maximum(inputs @ np.asarray(first["kernel"], float) + first["bias"], 0)
    return hidden @ np.asarray(second["kernel"], float) + second["bias"]


def numpy_loglikelihoods(position, inputs, labels):
    return log_softmax(numpy_logits(position, inputs), axis=1)[np.arange(len(labels)), labels]


# Values

FIRST, SECOND = {"bias": 0.5, "kernel": 2.0}, {"bias": 1.5, "kernel": 0.1}


@pytest.mark.parametrize(
    ("prior_scale", "per_leaf"),
    [
        (0.7, {"Dense_0": {"bias": 0.7, "kernel": 0.7}, "Dense_1": {"bias": 0.7, "kernel": 0.7}}),
        ({"Dense_0": FIRST, "Dense_1": SECOND}, {"Dense_0": FIRST, "Dense_1": SECOND}),
        (
            {"Dense_0": 3, "Dense_1": SECOND},
            {"Dense_0": dict.fromkeys(FIRST, 3), "Dense_1": SECOND},
        ),
    ],
    ids=["scalar", "per leaf", "prefix"],
)
def test_log_density_is_prior_plus_likelihood_written_out(classes, position, prior_scale, per_leaf):
    target = pb.LogDensity(pb.MLP(hidden=(5,), num_outputs=4), classes, prior_scale=prior_scale)
    logprior = sum(
        stats.norm.logpdf(leaf, scale=scale).sum()
        for leaf, scale in zip(jax.tree.leaves(position), jax.tree.leaves(per_leaf), strict=True)
    )
    loglikelihoods = numpy_loglikelihoods(position, *classes)
    CLOSE(target.logprior_fn(position), logprior)
    CLOSE(target.pointwise_loglikelihood_fn(position, pb.Batch(*classes)), loglikelihoods)
    CLOSE(target.loglikelihood_fn(position, (classes[0][3], classes[1][3])), loglikelihoods[3])
    CLOSE(target.logdensity_fn(position), logprior + loglikelihoods.sum())


def test_float64_agrees_with_numpy_to_its_last_digits(classes):
    inputs, labels = classes
    with jax.enable_x64(True):
        target = pb.LogDensity(
            pb.MLP(hidden=(5,), num_outputs=4), (inputs.astype(float), labels), prior_scale=0.7
        )
        position = jax.tree.map(lambda x: x.astype(float), target.init(jax.random.key(1)))
        exact = sum(
            stats.norm.logpdf(leaf, scale=0.7).sum() for leaf in jax.tree.leaves(position)
        ) + sum(numpy_loglikelihoods(position, inputs.astype(float), labels))
        value, gradient = jax.value_and_grad(target.logdensity_fn)(position)
        assert value.dtype == np.float64
        assert_allclose(value, exact, rtol=1e-13)

        def moved(by):
            bias = position["Dense_1"]["bias"].at[0].add(by)
            return target.logdensity_fn(
                {**position, "Dense_1": {**position["Dense_1"], "bias": bias}}
            )

        slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
        assert_allclose(gradient["Dense_1"]["bias"][0], slope, rtol=1e-8)


def test_uint8_images_are_scaled_to_one_and_nothing_else_is(classes):
    labels = classes[1]
    images = np.random.default_rng(0).integers(256, size=(len(labels), 2, 2, 1), dtype=np.uint8)
    module = pb.MLP(hidden=(5,), num_outputs=4)
    as_images = pb.LogDensity(module, (images, labels))
    as_floats = pb.LogDensity(module, (images.astype(np.float32) / 255, labels))
    position = as_images.init(jax.random.key(0))
    CLOSE(as_images.logdensity_fn(position), as_floats.logdensity_fn(position))
    CLOSE(as_images.apply(position, images), as_floats.apply(position, images / np.float32(255)))


@pytest.mark.parametrize("block_size", [1, 7, 22])
def test_blocks_do_not_change_value_or_gradient(
    target, position, full_gradient, monkeypatch, block_size
):
    whole = target.logdensity_fn(position)
    monkeypatch.setattr(sources, "_BLOCK_SIZE", block_size)
    value, gradient = jax.value_and_grad(target.logdensity_fn)(position)
    CLOSE(value, whole)
    jax.tree.map(CLOSE, gradient, full_gradient)


def test_linear_regression_has_its_textbook_posterior_and_evidence(values, linear_regression):
    """log p(θ) + log p(y | θ) = log N(θ; m, S) + log evidence, all three in closed form."""
    x, y = values
    target = linear_regression
    covariance = np.linalg.inv(x.T @ x / 0.3**2 + np.eye(3) / 0.7**2)
    posterior = stats.multivariate_normal(covariance @ x.T @ y / 0.3**2, covariance)
    evidence = stats.multivariate_normal(cov=0.3**2 * np.eye(len(y)) + 0.7**2 * x @ x.T).logpdf(y)
    for theta in np.random.default_rng(0).normal(posterior.mean, 0.1, size=(3, 3)):
        CLOSE(target.logdensity_fn(jnp.array(theta)), posterior.logpdf(theta) + evidence)


def test_gaussian_likelihood_is_scipys_with_one_output_or_several():
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    exact = stats.norm.logpdf(targets, outputs, 0.4)
    CLOSE(pb.Gaussian(0.4).log_prob(jnp.array(outputs), jnp.array(targets)), exact.sum(axis=1))
    one = pb.Gaussian(0.4).log_prob(jnp.array(outputs[:, :1]), jnp.array(targets[:, 0]))
    CLOSE(one, exact[:, 0])


def test_a_bfloat16_network_has_a_float32_log_density(classes):
    module = pb.MLP(hidden=(5,), num_outputs=4, dtype=jnp.bfloat16)
    target = pb.LogDensity(module, classes)
    position = target.init(jax.random.key(0))
    usual = jnp.zeros(()).dtype  # float32, or float64 where that is on
    assert {leaf.dtype for leaf in jax.tree.leaves(position)} == {usual}
    assert target.logdensity_fn(position).dtype == usual


# Minibatch estimates


def epoch_of(target, batch_size):
    """The minibatches of one epoch, stacked."""

    def step(stream, t):
        return target.data.next(stream, t)

    stream = target.data.init(jax.random.key(0), batch_size)
    return jax.lax.scan(step, stream, jnp.arange(-(-target.data_size // batch_size)))[1]


@pytest.mark.parametrize("control_variates", [False, True])
@pytest.mark.parametrize("batch_size", [5, 22, 23])
def test_estimates_average_to_the_full_data_over_an_epoch(
    target, position, full_gradient, batch_size, control_variates
):
    if control_variates:  # around a center that has nothing to do with the position
        target = target.with_control_variates(target.init(jax.random.key(7)))
    batches = epoch_of(target, batch_size)
    weights = batches.mask.sum(axis=1) / target.data_size
    estimate = jax.jit(jax.vmap(target.value_and_grad_estimator, (None, 0)))
    estimates = estimate(position, batches)
    value, gradient = jax.tree.map(lambda xs: jnp.tensordot(weights, xs, 1), estimates)
    CLOSE(value, target.logdensity_fn(position))
    jax.tree.map(CLOSE, gradient, full_gradient)


def test_an_estimate_from_all_the_data_is_the_log_density(target, position, classes):
    CLOSE(target.logdensity_estimator(position, classes), target.logdensity_fn(position))


def test_masked_rows_count_for_nothing(target, position, classes):
    inputs, labels = (array[:6].copy() for array in classes)
    mask = np.array([True, True, False, True, False, True])
    kept = target.value_and_grad_estimator(position, (inputs[mask], labels[mask]))
    inputs[~mask], labels[~mask] = 1e6, 3
    masked = target.value_and_grad_estimator(position, pb.Batch(inputs, labels, mask))
    jax.tree.map(CLOSE, masked, kept)


def test_value_gradient_and_both_agree(target, position, classes):
    batch = pb.Batch(classes[0][:5], classes[1][:5])
    value, gradient = target.value_and_grad_estimator(position, batch)
    CLOSE(value, target.logdensity_estimator(position, batch))
    jax.tree.map(CLOSE, gradient, target.grad_estimator(position, batch))


# Control variates


def test_control_variates_leave_no_noise_at_the_center_and_little_near_it(
    target, position, full_gradient
):
    centered = target.with_control_variates(position)
    batches = epoch_of(target, 5)
    estimate = jax.jit(jax.vmap(centered.value_and_grad_estimator, (None, 0)))
    value, gradient = estimate(position, batches)
    exact = jnp.broadcast_to(target.logdensity_fn(position), value.shape)
    CLOSE(value, exact)
    jax.tree.map(
        lambda g, full: CLOSE(g, jnp.broadcast_to(full, g.shape), atol=1e-4),
        gradient,
        full_gradient,
    )
    near = jax.tree.map(lambda leaf: leaf + 0.01, position)
    plain = jax.jit(jax.vmap(target.value_and_grad_estimator, (None, 0)))
    spread = [
        sum(leaf.var(axis=0).sum() for leaf in jax.tree.leaves(f(near, batches)[1]))
        for f in (plain, estimate)
    ]
    assert spread[1] < 0.01 * spread[0]


def test_control_variates_leave_the_target_as_it_was(target, position):
    centered = target.with_control_variates(position)
    other = target.init(jax.random.key(3))
    assert centered.logdensity_fn(other) == target.logdensity_fn(other)
    batch = pb.Batch(target.data.inputs[:5], target.data.targets[:5])
    assert target.logdensity_estimator(other, batch) != centered.logdensity_estimator(other, batch)


def test_a_center_of_another_network_or_without_density_is_refused(target, regression, position):
    with pytest.raises(pb.InputError, match="position"):
        target.with_control_variates(regression.init(jax.random.key(0)))
    nowhere = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), position)
    with pytest.raises(pb.InputError, match="log density at the center is nan"):
        target.with_control_variates(nowhere)


# BlackJAX takes the functions as they are


@pytest.mark.parametrize("as_batch", [tuple, lambda pair: pb.Batch(*pair)])
def test_blackjax_builds_the_same_gradient_estimator(target, position, classes, as_batch):
    batch = as_batch((classes[0][:7], classes[1][:7]))
    theirs = blackjax.sgmcmc.gradients.grad_estimator(
        target.logprior_fn, target.loglikelihood_fn, target.data_size
    )
    jax.tree.map(CLOSE, theirs(position, batch), target.grad_estimator(position, batch))


def test_blackjax_nuts_runs_on_the_log_density(target, position):
    size = target.num_parameters(position)
    nuts = blackjax.nuts(target.logdensity_fn, step_size=0.05, inverse_mass_matrix=jnp.ones(size))
    state, step = nuts.init(position), jax.jit(nuts.step)
    for key in jax.random.split(jax.random.key(0)):
        state, info = step(key, state)
        assert not info.is_divergent
        CLOSE(state.logdensity, target.logdensity_fn(state.position))


# Modules of every kind, through the main path unchanged


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(2, (3, 3))(x))
        return nn.Dense(4)(x.mean(axis=(1, 2)))


class NNXMLP(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(16, 5, rngs=rngs), nnx.Linear(5, 4, rngs=rngs)])

    def __call__(self, x):
        first, second = self.layers
        return second(nnx.relu(first(x.reshape(x.shape[0], -1))))


class TiedWithDropout(nnx.Module):
    """One layer used twice, and noise that evaluation has to switch off."""

    def __init__(self, rngs):
        self.first = nnx.Linear(16, 16, rngs=rngs)
        self.again = self.first
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(16, 4, rngs=rngs)

    def __call__(self, x):
        hidden = nnx.tanh(self.again(nnx.tanh(self.first(x.reshape(x.shape[0], -1)))))
        return self.last(self.dropout(hidden))


PAIR = (
    lambda key, x: 0.1 * jax.random.normal(key, (x[0].size, 4)),
    lambda theta, x: x.reshape(x.shape[0], -1) @ theta,
)


@pytest.mark.parametrize(
    ("make", "num_parameters"),
    [
        (CNN, 2 * 9 + 2 + 2 * 4 + 4),
        (lambda: NNXMLP(nnx.Rngs(0)), 16 * 5 + 5 + 5 * 4 + 4),
        (lambda: NNXMLP, 16 * 5 + 5 + 5 * 4 + 4),
        (lambda: TiedWithDropout(nnx.Rngs(0)), 16 * 16 + 16 + 16 * 4 + 4),
        (lambda: PAIR, 16 * 4),
    ],
    ids=["Linen CNN", "NNX instance", "NNX constructor", "NNX tied, dropout", "init and apply"],
)
def test_any_module_is_sampled_and_predicts(make, num_parameters):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(256, size=(12, 4, 4, 1), dtype=np.uint8), np.arange(12) % 4
    target = pb.LogDensity(make(), (images, labels))
    position = target.init(jax.random.key(0))
    assert target.num_parameters(position) == num_parameters
    draws = pb.sample(
        jax.random.key(1), target, "sgld", num_chains=2, num_steps=4, batch_size=5, progress=False
    )
    probs = pb.predict(target, draws, images[:5]).probs
    flat = jax.tree.map(lambda leaf: leaf.reshape(4, *leaf.shape[2:]), draws.positions)
    logits = jax.jit(jax.vmap(target.apply, (0, None)))(flat, images[:5])
    CLOSE(probs, softmax(logits, axis=-1).mean(axis=0))


def test_nnx_parameters_are_plain_and_the_users_module_is_left_alone():
    module = TiedWithDropout(nnx.Rngs(0))
    before = module.first.kernel[...].copy()
    target = pb.LogDensity(module, (np.zeros((2, 16), np.float32), np.array([0, 1])))
    position = target.init(jax.random.key(0))
    assert sorted(position) == ["again", "last"]
    assert isinstance(position["again"]["kernel"], jax.Array)
    assert_array_equal(module.first.kernel[...], before)
    assert not module.dropout.deterministic


def test_an_nnx_instance_starts_at_its_own_entries_shuffled():
    module = NNXMLP(nnx.Rngs(0))
    target = pb.LogDensity(module, (np.zeros((2, 16), np.float32), np.array([0, 1])))
    one, other = (target.init(jax.random.key(seed))["layers"][0]["kernel"] for seed in (0, 1))
    own = module.layers[0].kernel[...]
    for kernel in (one, other):
        assert_array_equal(np.sort(kernel.ravel()), np.sort(own.ravel()))
        assert (kernel != own).mean() > 0.8
    assert (one != other).mean() > 0.8


def test_an_nnx_constructor_starts_at_its_own_initialiser():
    target = pb.LogDensity(NNXMLP, (np.zeros((2, 16), np.float32), np.array([0, 1])))
    position = target.init(jax.random.key(3))
    module = NNXMLP(nnx.Rngs(jax.random.key(3)))
    assert_array_equal(position["layers"][0]["kernel"], module.layers[0].kernel[...])
    other = target.init(jax.random.key(4))["layers"][0]["kernel"]
    assert (other != position["layers"][0]["kernel"]).all()


class LinenBatchNorm(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.BatchNorm(use_running_average=False)(x))


class NNXBatchNorm(nnx.Module):
    def __init__(self, rngs):
        self.norm, self.dense = nnx.BatchNorm(3, rngs=rngs), nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.norm(x))


@pytest.mark.parametrize("make", [LinenBatchNorm, lambda: NNXBatchNorm])
def test_batch_normalisation_is_refused(classes, make):
    with pytest.raises(pb.InputError, match=r"state outside its parameters \(batch_stats\)"):
        pb.LogDensity(make(), classes)


# Bad input: one clear line


def classifier(inputs, labels, module=None, **settings):
    return pb.LogDensity(module or pb.MLP(hidden=(5,), num_outputs=4), (inputs, labels), **settings)


X, Y = np.zeros((6, 3), np.float32), np.arange(6) % 4


def with_entry(array, value):
    return np.array([value, *array.ravel()[1:]], array.dtype).reshape(array.shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classifier(X, with_entry(Y, 4)), "label 4 at index 0 is out of range: .* 0 to 3"),
        (lambda: classifier(X, with_entry(Y, -1)), "label -1 at index 0 is out of range"),
        (
            lambda: classifier(X, Y.astype(float)),
            r"labels are float\d\d of shape .* needs integers",
        ),
        (lambda: classifier(X, Y[:, None]), r"labels are int\d\d of shape \(6, 1\)"),
        (lambda: classifier(X, Y[:5]), r"shape \(6, 3\) and targets \(5,\); they need the same"),
        (lambda: classifier(X[:0], Y[:0]), "at least one"),
        (lambda: classifier(np.float32(1), Y), "the same number of examples"),
        (lambda: classifier(with_entry(X, np.nan), Y), "inputs contain NaN or infinity"),
        (lambda: classifier(with_entry(X, np.inf), Y), "inputs contain NaN or infinity"),
        (lambda: pb.LogDensity(pb.MLP(), [X, Y]), "data is a list; give a Dataset or a pair"),
        (lambda: classifier(X, Y, module=3), "module is a int; give a Flax module"),
        (
            lambda: classifier(X, Y, module=CNN()),
            r"cannot be applied to inputs of shape \(n, 3\): ",
        ),
        (
            lambda: classifier(X, Y, module=NNXMLP),
            r"cannot be applied to inputs of shape \(n, 3\): ",
        ),
        (
            lambda: classifier(X, Y, module=(PAIR[0], lambda theta, x: x[:, 0])),
            r"outputs of shape \(\) per example; a categorical likelihood needs a vector",
        ),
        (
            lambda: classifier(X, X[:, 0], likelihood=pb.Gaussian()),
            r"targets have shape \(\) per example and the network's outputs \(4,\)",
        ),
        (
            lambda: classifier(X, np.full((6, 4), np.nan), likelihood=pb.Gaussian()),
            "targets contain NaN or infinity",
        ),
        (
            lambda: classifier(X, np.zeros((6, 4)), likelihood=pb.Gaussian(0.0)),
            "the noise scale is 0.0; it must be positive and finite",
        ),
        *(
            (partial(classifier, X, Y, prior_scale=scale), f"prior_scale.* is {scale}; .* positive")
            for scale in (0.0, -1.0, np.inf, np.nan)
        ),
        (
            lambda: classifier(
                X, Y, prior_scale={"Dense_0": 1.0, "Dense_1": {"bias": 0, "kernel": 1}}
            ),
            r"prior_scale\['Dense_1'\]\['bias'\] is 0; ",
        ),
        (lambda: classifier(X, Y, prior_scale={"Dense_0": 1.0}), "a prefix of the parameters'"),
        (lambda: classifier(X, Y, prior_scale=np.ones(3)), r"must be one\s+positive finite number"),
    ],
)
def test_bad_input_is_one_clear_line(make, message):
    with pytest.raises(pb.InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_bad_scalar_prior_scale_is_called_just_that():
    with pytest.raises(pb.InputError, match=r"^prior_scale is 0\.0;"):
        classifier(X, Y, prior_scale=0.0)


@pytest.mark.parametrize("module", [pb.MLP, nnx.Linear], ids=["Linen", "NNX"])
def test_a_class_in_place_of_an_instance_is_refused(module):
    with pytest.raises(pb.InputError):
        classifier(X, Y, module=module)


def test_positions_are_checked_against_the_network(target, position):
    target.check_position(position)
    with pytest.raises(
        pb.InputError, match=r"has no Dense_1.bias; one of this .* has Dense_0.bias, "
    ):
        target.check_position({"Dense_0": position["Dense_0"]})
    wrong = {**position, "Dense_1": {**position["Dense_1"], "bias": jnp.zeros(3)}}
    with pytest.raises(pb.InputError, match=r"\['Dense_1'\]\['bias'\] has shape \(3,\)"):
        target.check_position(wrong)


class Scaled(pb.Gaussian):
    def parameters(self, output_shape):
        return {"network": jnp.zeros(())}


@pytest.mark.parametrize(
    ("inputs", "settings", "message"),
    [
        (None, {"prior": 0.5}, "prior is 0.5; give a Prior such as"),
        (None, {"prior": pb.GaussianPrior(), "prior_scale": 2.0}, "prior_scale is 2.0 beside a pr"),
        (None, {"likelihood": pb.Gaussian}, "give an instance such as Categorical"),
        (None, {"likelihood": "categorical"}, "likelihood is 'categorical'; give an instance"),
        (None, {"likelihood": Scaled()}, "called network, network; .* names of their own"),
        (np.full((23, 3), "a"), {}, "inputs are <U1 and targets .*; both must be numbers"),
    ],
)
def test_parts_that_are_none_are_one_line(values, inputs, settings, message):
    given = values[0] if inputs is None else inputs, values[1]
    arguments = {"likelihood": pb.Gaussian(), **settings}
    with pytest.raises(pb.InputError, match=message) as caught:
        pb.LogDensity(pb.MLP(hidden=(), num_outputs=1), given, **arguments)
    assert "\n" not in str(caught.value)
