"""Priors of leaves and layers by dotted path, around a point, and of NumPyro's distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import probbnn as pb
from probbnn.tree import matching, nearest

pytestmark = pytest.mark.usefixtures("quick_compilation")

MODULE = pb.MLP(hidden=(5,), num_outputs=4)


@pytest.fixture(scope="module")
def position(target):
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), target.init(jax.random.key(0))
    )


def total(distribution, *leaves):
    return sum(distribution.logpdf(np.asarray(leaf, float)).sum() for leaf in leaves)


def by_layer(position, of_first, of_second):
    return total(of_first, *position["Dense_0"].values()) + total(
        of_second, *position["Dense_1"].values()
    )


CASES = {
    "one distribution": (
        {"prior": dist.StudentT(4.0, 0.0, 2.0)},
        lambda p: by_layer(p, stats.t(4, 0, 2), stats.t(4, 0, 2)),
    ),
    "by layer": (
        {"prior": {"Dense_0": dist.Laplace(0.0, 0.5), "Dense_1": 2.0}},
        lambda p: by_layer(p, stats.laplace(0, 0.5), stats.norm(0, 2)),
    ),
    "by leaf, with wildcards": (
        {"prior": {"**/bias": dist.Laplace(1.0, 3.0), "**": 0.7}},
        lambda p: (
            total(stats.laplace(1, 3), *(layer["bias"] for layer in p.values()))
            + total(stats.norm(0, 0.7), *(layer["kernel"] for layer in p.values()))
        ),
    ),
    "the first that matches": (
        {"prior": {"Dense_1.kernel": 0.1, "Dense_*": pb.GaussianPrior(3.0)}},
        lambda p: (
            total(stats.norm(0, 0.1), p["Dense_1"]["kernel"])
            + total(stats.norm(0, 3), p["Dense_1"]["bias"], *p["Dense_0"].values())
        ),
    ),
    "around a point": (
        {
            "prior": pb.GaussianPrior(
                0.5,
                center=jax.tree.map(
                    np.ones,
                    {
                        "Dense_0": {"bias": 5, "kernel": (3, 5)},
                        "Dense_1": {"bias": 4, "kernel": (5, 4)},
                    },
                    is_leaf=lambda x: not isinstance(x, dict),
                ),
            )
        },
        lambda p: by_layer(p, stats.norm(1, 0.5), stats.norm(1, 0.5)),
    ),
    "correlated rows": (
        {
            "prior": {
                "Dense_1.bias": dist.MultivariateNormal(jnp.zeros(4), 2 * jnp.eye(4)),
                "**": 1.0,
            }
        },
        lambda p: (
            total(stats.norm(0, 2**0.5), p["Dense_1"]["bias"])
            + total(stats.norm(), p["Dense_1"]["kernel"], *p["Dense_0"].values())
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_log_prior_is_scipys(classes, position, name):
    settings, exact = CASES[name]
    target = pb.LogDensity(MODULE, classes, **settings)
    assert_allclose(target.logprior_fn(position), exact(position), rtol=1e-5)
    drawn = target.sample_prior(jax.random.key(0))
    target.check_position(drawn)
    other = target.sample_prior(jax.random.key(1))
    assert not np.array_equal(drawn["Dense_0"]["kernel"], other["Dense_0"]["kernel"])


def test_draws_of_a_prior_have_its_quartiles(classes):
    """Of 15 entries each of 2,000 draws: quartiles within 5 standard errors."""
    target = pb.LogDensity(MODULE, classes, prior={"Dense_0": dist.Laplace(1.0, 0.5), "**": 2.0})
    drawn = jax.vmap(target.sample_prior)(jax.random.split(jax.random.key(0), 2_000))
    for leaf, exact in [
        (drawn["Dense_0"]["kernel"], stats.laplace(1, 0.5)),
        (drawn["Dense_1"]["kernel"], stats.norm(0, 2)),
    ]:
        below = np.mean(np.ravel(leaf) < exact.ppf(0.25))
        assert abs(below - 0.25) < 5 * (0.25 * 0.75 / leaf.size) ** 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior_scale": {"Dense_0": 1.0}}, "Dense_1.bias has none: give it one, or prior="),
        ({"prior_scale": {"Dense_0": 1.0, "Dens_1": 1.0}}, "none of its paths; did you mean 'Den"),
        ({"prior_scale": np.ones(3)}, "must be one positive finite number"),
        ({"prior_scale": dist.Normal(0, 1)}, "whose layers are Dense_0, Dense_1; a Normal was"),
        ({"prior_scale": 1.0, "prior": pb.GaussianPrior()}, "give one of them"),
        ({"prior": {"Dense_0": 1.0}}, "says nothing of Dense_1.bias; .* by the pattern"),
        ({"prior": {"Dense_O": 1.0, "**": 1.0}}, "'Dense_O', which is .*; did you mean 'Dense_"),
        ({"prior": {"**": -1.0}}, "the prior of Dense_0.bias is -1.0; give a standard deviation"),
        ({"prior": {"**": dist.Gamma(1.0, 1.0)}}, "a Gamma, whose support is not the real line"),
        ({"prior": dist.Normal(jnp.zeros(7), 1.0)}, "of Dense_0.bias does not fit its shape"),
        ({"prior": 1.0}, "for a standard deviation give prior_scale=1.0"),
        ({"prior": np.ones(3)}, "give a Prior such as GaussianPrior"),
        (
            {"prior": pb.GaussianPrior(1.0, center={"Dense_0": {"bias": np.ones(5)}})},
            "center has no Dense_0.kernel and the network Dense_0.kernel of shape",
        ),
    ],
)
def test_a_prior_that_does_not_fit_names_the_layer_in_one_line(classes, settings, message):
    with pytest.raises(pb.InputError, match=message) as caught:
        pb.LogDensity(MODULE, classes, **settings)
    assert "\n" not in str(caught.value)
    assert "PyTreeDef" not in str(caught.value)


def test_patterns_match_whole_parts_of_a_path():
    names = ["a.bias", "a.kernel", "ab.bias", "b.a.bias"]
    assert matching("a", names) == ["a.bias", "a.kernel"]
    assert matching("a*", names) == ["a.bias", "a.kernel", "ab.bias"]
    assert matching("**.a", names) == ["a.bias", "a.kernel", "b.a.bias"]
    assert matching("**", names) == names
    assert matching("*/bias", names) == ["a.bias", "ab.bias"]
    assert matching("bias", names) == []
    assert nearest("xyz", names) == ""
