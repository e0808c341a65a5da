"""The NumPyro model of a `LogDensity`: its sites, its density, and NumPyro's own code on it."""

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.util import log_density
from targets import INPUTS, LABELS, ONE, PER_LEAF, TARGETS, small

import probbnn as pb

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module", params=TARGETS)
def each(request):
    return TARGETS[request.param]()


@pytest.fixture(scope="module")
def gaussian():
    return TARGETS["Gaussian (N,)"]()


def from_prior(target, seed=0):
    """A position none of whose leaves is like another, zeros of biases included."""
    leaves, structure = jax.tree.flatten(target.shapes)
    rng = np.random.default_rng(seed)
    draws = [rng.normal(scale=0.1, size=leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, draws)


def trace_of(model, *args):
    """The sites, without computing what they hold."""
    sites = {}

    def run(key):
        sites.update(handlers.trace(handlers.seed(model, key)).get_trace(*args))
        return 0

    jax.eval_shape(run, jax.random.key(0))
    return sites


def joint_density(model, sites, *args):
    return jax.jit(lambda sites: log_density(model, args, {}, sites)[0])(sites)


# Sites


def test_every_leaf_is_one_sampled_site(each):
    trace = trace_of(pb.to_numpyro(each))
    sampled = {
        name: site["value"].shape
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }
    shapes = {name: leaf.shape for name, leaf in pb.to_numpyro(each).params(each.shapes).items()}
    assert sampled == shapes
    assert len(sampled) == len(jax.tree.leaves(each.shapes))
    assert set(trace) == {*sampled, "examples", "targets"}
    assert trace["targets"]["is_observed"]
    assert trace["examples"]["args"][0] == each.data_size
    assert not any("/" in name for name in trace)
    for name, shape in shapes.items():
        assert trace[name]["fn"].event_shape == shape
        assert trace[name]["cond_indep_stack"] == []


@pytest.mark.parametrize(
    ("name", "sites"),
    [
        ("Linen CNN", "Conv_0.bias Conv_0.kernel Dense_0.bias Dense_0.kernel"),
        ("NNX tied", "again.bias again.kernel last.bias last.kernel"),
        (
            "NNX unusual",
            "examples.parameter layers.0.bias layers.0.kernel layers.1.bias layers.1.kernel "
            "named.block.scale targets.parameter",
        ),
        ("bare array", "parameters"),
        ("names alike", "a.b a.b_2 a.b_3 targets.parameter targets.parameter.parameter"),
        (
            "LearnedGaussian (N,)",
            "log_noise_scale network.Dense_0.bias network.Dense_0.kernel network.Dense_1.bias "
            "network.Dense_1.kernel",
        ),
    ],
)
def test_sites_are_called_by_their_dotted_paths(name, sites):
    target = TARGETS[name]()
    assert sorted(pb.to_numpyro(target).params(target.shapes)) == sites.split()


def test_a_site_holds_the_leaf_that_it_is_called_by():
    target = TARGETS["NNX unusual"]()
    position = from_prior(target)
    sites = pb.to_numpyro(target).params(position)
    assert sites["layers.1.kernel"] is position["layers"][1]["kernel"]
    assert sites["layers.0.bias"] is position["layers"][0]["bias"]
    assert sites["named.block.scale"] is position["named"]["block/scale"]
    assert sites["targets.parameter"] is position["targets"]
    assert sites["examples.parameter"] is position["examples"]


# To sites and back


@pytest.mark.parametrize("batch", [(), (3, 2)], ids=["one", "chains and draws"])
def test_there_and_back_is_the_same_position(each, batch):
    position = jax.tree.map(
        lambda leaf: np.random.default_rng(0).normal(size=(*batch, *leaf.shape)), each.shapes
    )
    sites = pb.to_numpyro(each).params(position)
    shuffled = dict(sorted(sites.items(), reverse=True))
    back = pb.to_numpyro(each).position({"something else": np.zeros(2), **shuffled})
    assert jax.tree.structure(back) == jax.tree.structure(position)
    jax.tree.map(assert_array_equal, back, position)


def test_a_missing_site_is_named(gaussian):
    sites = pb.to_numpyro(gaussian).params(from_prior(gaussian))
    del sites["Dense_1.bias"]
    with pytest.raises(pb.InputError, match=r"site Dense_1.bias is not among Dense_0.bias") as one:
        pb.to_numpyro(gaussian).position(sites)
    with pytest.raises(pb.InputError, match="is not among no sites") as other:
        pb.to_numpyro(gaussian).position({})
    assert "\n" not in str(one.value) + str(other.value)


def test_a_position_of_another_network_is_refused(gaussian):
    with pytest.raises(pb.InputError, match="the position has no Dense_1.bias"):
        pb.to_numpyro(gaussian).params({"Dense_0": from_prior(gaussian)["Dense_0"]})


# Densities


def test_the_joint_density_is_the_log_density_and_estimates_are_our_estimates(each):
    """On the same indices, which NumPyro would draw itself."""
    position, index = from_prior(each), np.array([5, 0, 17, 9, 22, 3])
    minibatch = pb.Batch(each.data.inputs[index], each.data.targets[index])
    sites = pb.to_numpyro(each).params(position)
    whole = joint_density(pb.to_numpyro(each), sites)
    assert_allclose(whole, jax.jit(each.logdensity_fn)(position), rtol=1e-5)
    some = joint_density(pb.to_numpyro(each), {**sites, "examples": index}, len(index))
    assert_allclose(some, jax.jit(each.logdensity_estimator)(position, minibatch), rtol=1e-5)
    assert abs(some - whole) > 2e-5 * abs(whole)  # or the two could be taken for each other


def test_subsamples_are_random_and_without_replacement(gaussian):
    def indices(key):
        trace = handlers.trace(handlers.seed(pb.to_numpyro(gaussian), key)).get_trace(7)
        return trace["examples"]["value"]

    drawn = jax.jit(jax.vmap(indices))(jax.random.split(jax.random.key(0), 50))
    assert drawn.shape == (50, 7)
    assert all(len(np.unique(row)) == 7 for row in drawn)
    # Some of 23 is never among them with a probability of at most 23 · (16/23)⁵⁰ = 3e-7.
    assert_array_equal(np.unique(drawn), np.arange(23))


def test_a_subsample_of_all_is_no_subsample(gaussian):
    position = from_prior(gaussian)
    value = joint_density(pb.to_numpyro(gaussian), pb.to_numpyro(gaussian).params(position), 23)
    assert_allclose(value, gaussian.logdensity_fn(position), rtol=1e-5)


def test_the_model_samples_its_prior():
    """Moments of each leaf: 4.5 standard errors, 7 in 10⁶ times each."""
    target = TARGETS["scale per leaf"]()

    def draw(key):
        trace = handlers.trace(handlers.seed(pb.to_numpyro(target), key)).get_trace()
        return pb.to_numpyro(target).position({name: site["value"] for name, site in trace.items()})

    position = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 2_000))
    for leaf, scale in zip(jax.tree.leaves(position), jax.tree.leaves(PER_LEAF), strict=True):
        assert_allclose(leaf.std(), scale, rtol=4.5 / np.sqrt(2 * leaf.size))
        assert abs(leaf.mean()) < 4.5 * scale / np.sqrt(leaf.size)


# NumPyro's own code


@pytest.fixture(scope="module")
def mcmc(gaussian):
    """A user's own run, of two chains, around the model with something of their own in it."""

    def model():
        pb.to_numpyro(gaussian)()
        numpyro.sample("mine", numpyro.distributions.Normal(3.0, 0.1))

    starts = jax.vmap(gaussian.init)(jax.random.split(jax.random.key(0)))
    mcmc = MCMC(
        NUTS(model, max_tree_depth=3),
        num_warmup=10,
        num_samples=20,
        num_chains=2,
        chain_method="sequential",
        progress_bar=False,
    )
    mine = {"mine": jnp.array([2.9, 3.1])}
    mcmc.run(jax.random.key(1), init_params={**pb.to_numpyro(gaussian).params(starts), **mine})
    return mcmc


def test_a_users_mcmc_runs_on_the_model(gaussian, mcmc):
    samples = mcmc.get_samples(group_by_chain=True)
    positions = pb.to_numpyro(gaussian).position(samples)
    gaussian.check_position(jax.tree.map(lambda leaf: leaf[0, 0], positions))
    assert positions["Dense_0"]["kernel"].shape == (2, 20, 3, 5)
    kernel = positions["Dense_0"]["kernel"]
    assert (kernel[0] != kernel[1]).all()
    assert len(np.unique(kernel[0, :, 0, 0])) > 10
    assert abs(samples["mine"].mean() - 3) < 0.2
    # What was drawn is what our own code predicts with and judges.
    draws = pb.Draws(positions=jax.tree.map(np.asarray, positions), method="mine")
    assert pb.predict(gaussian, draws, INPUTS[:2]).mean.shape == (2, 1)


def test_predictive_gives_what_the_network_says_with_its_noise(gaussian, mcmc):
    samples = {name: x for name, x in mcmc.get_samples().items() if name != "mine"}
    replicate = Predictive(handlers.uncondition(pb.to_numpyro(gaussian)), samples)
    drawn = replicate(jax.random.key(2))["targets"]
    means = jax.vmap(gaussian.apply, (0, None))(pb.to_numpyro(gaussian).position(samples), INPUTS)
    assert drawn.shape == (40, *ONE.shape)
    noise = (drawn - means[..., 0]) / 0.3
    # 920 standard normals: 4.5 standard errors, 7 in 10⁶ times each.
    assert abs(noise.mean()) < 4.5 / np.sqrt(noise.size)
    assert abs(noise.std() - 1) < 4.5 / np.sqrt(2 * noise.size)


@pytest.mark.skipif(not az.__version__.startswith("0."), reason="ArviZ 1.x names groups anew")
def test_arviz_takes_the_run(gaussian, mcmc):
    data = az.from_numpyro(mcmc, log_likelihood=True)
    assert set(data.posterior.data_vars) == {
        *pb.to_numpyro(gaussian).params(gaussian.shapes),
        "mine",
    }
    assert data.posterior["Dense_0.kernel"].shape == (2, 20, 3, 5)
    assert_array_equal(data.observed_data["targets"].to_numpy().ravel(), ONE)
    positions = pb.to_numpyro(gaussian).position(mcmc.get_samples(group_by_chain=True))
    one = jax.tree.map(lambda leaf: leaf[1, 7], positions)
    exact = gaussian.pointwise_loglikelihood_fn(one, pb.Batch(INPUTS, ONE))
    assert_allclose(data.log_likelihood["targets"][1, 7], exact, rtol=1e-4, atol=1e-4)
    assert np.isfinite(az.loo(data, var_name="targets").elpd_loo)


def test_a_batch_that_somebody_chose_is_a_factor(each):
    """What SVI and Laplace fit to: the minibatches of our own streams, padding left out."""
    position, index = from_prior(each), np.array([5, 0, 17, 9])
    batch = each.data.gather(index)._replace(mask=np.array([True, True, True, False]))
    model = pb.to_numpyro(each)
    found = jax.jit(lambda p: log_density(model, (), {"batch": batch}, p)[0])(
        model.params(position)
    )
    assert_allclose(found, jax.jit(each.logdensity_estimator)(position, batch), rtol=1e-5)


class Cauchy(pb.Prior):
    """A prior of one's own that NumPyro knows nothing of."""

    def log_prob(self, network, **own):
        leaves = jax.tree.leaves(network)
        return -sum(jnp.log(np.pi * (1 + leaf**2)).sum() for leaf in leaves)

    def sample(self, rng_key, shapes):
        raise NotImplementedError

    def check(self, shapes):
        pass


class OwnNoise(pb.Likelihood):
    """Parameters and a prior of them that NumPyro knows nothing of."""

    def parameters(self, output_shape):
        return {"log_noise": jnp.zeros(2)}

    def log_prior(self, **own):
        return -jnp.abs(own["log_noise"]).sum()

    def log_prob(self, outputs, targets, **own):
        return -jnp.abs(outputs[:, 0] - targets) * jnp.exp(own["log_noise"].sum())

    def check(self, output_shape, targets):
        pass


@pytest.mark.parametrize("likelihood", [pb.Gaussian(0.3), OwnNoise()], ids=["Gaussian", "own"])
def test_priors_of_ones_own_are_factors_of_the_same_density(likelihood):
    target = pb.LogDensity(
        small(num_outputs=1), (INPUTS, ONE), likelihood=likelihood, prior=Cauchy()
    )
    position, model = from_prior(target), pb.to_numpyro(target)
    value = joint_density(model, model.params(position))
    assert_allclose(value, target.logdensity_fn(position), rtol=1e-5)
    network = target.split(position).network
    exact = -sum(np.log(np.pi * (1 + x.astype(float) ** 2)).sum() for x in jax.tree.leaves(network))
    if likelihood.parameters((1,)):
        exact -= np.abs(position["log_noise"]).sum()
    assert_allclose(target.logprior_fn(position), exact, rtol=1e-5)


def test_a_likelihood_of_ones_own_is_the_distribution_of_the_targets():
    target = TARGETS["own likelihood"]()
    site = trace_of(pb.to_numpyro(target))["targets"]
    assert [frame.name for frame in site["cond_indep_stack"]] == ["examples"]
    assert site["fn"].batch_shape == (23,)


# One density, whatever is overridden


class Weighted(pb.Categorical):
    """Classes that count differently: `log_prob` alone is another."""

    def log_prob(self, outputs, targets):
        return jnp.array([1.0, 19.0, 1.0, 2.0])[targets] * super().log_prob(outputs, targets)


class Flat(pb.GaussianPrior):
    def log_prob(self, network, **own):
        return -sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(network))


class LaplacePrior(pb.LogDensity):
    def logprior_fn(self, position):
        return -sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(position))


class Doubled(pb.LogDensity):
    def pointwise_loglikelihood_fn(self, position, minibatch):
        return 2 * super().pointwise_loglikelihood_fn(position, minibatch)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (pb.LogDensity, {"likelihood": Weighted()}),
        (pb.LogDensity, {"prior": Flat()}),
        (pb.LogDensity, {"weights": np.arange(23.0)}),
        (LaplacePrior, {}),
        (Doubled, {}),
    ],
    ids=["log_prob", "prior", "weights", "logprior_fn", "pointwise_loglikelihood_fn"],
)
def test_what_is_overridden_is_the_density_of_every_backend(kind, settings):
    plain = pb.LogDensity(small(num_outputs=4), (INPUTS, LABELS))
    target = kind(small(num_outputs=4), (INPUTS, LABELS), **settings)
    position, model = from_prior(target), pb.to_numpyro(target)
    value = joint_density(model, model.params(position))
    assert_allclose(value, target.logdensity_fn(position), rtol=1e-5)
    assert abs(value - plain.logdensity_fn(position)) > 1


@pytest.mark.parametrize("name", ["logdensity_fn", "loglikelihood_fn", "grad_estimator"])
def test_a_density_of_which_backends_would_see_different_ones_cannot_be_made(name):
    with pytest.raises(pb.InputError, match=f"Another overrides {name}, .* override logprior_fn"):
        type("Another", (pb.LogDensity,), {name: lambda self, position: 0.0})
