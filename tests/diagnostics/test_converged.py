"""Runs that stop by themselves: at the right verdict, at the second look, or when a budget ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import probbnn as pb
from probbnn.diagnostics import converged as module
from probbnn.diagnostics.converged import Converged, Watching
from probbnn.follow import Follow

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def line(values):
    """A conjugate regression, of which NUTS draws nearly independently."""
    linear = (lambda key, inputs: jnp.zeros(3), lambda theta, inputs: inputs @ theta)
    return pb.LogDensity(linear, values, likelihood=pb.Gaussian(0.3), prior_scale=0.7)


def sample(target, until=None, method="nuts", **settings):
    settings = {"num_steps": 600, "num_warmup": 100, "thinning": 1, **settings}
    return pb.sample(jax.random.key(0), target, method, until=until, progress=False, **settings)


# Of what the looks are told to say, any sampler will do.
SHORT = {"method": "sgld", "num_steps": 20, "num_warmup": 10}


def test_a_run_stops_at_the_second_look_that_says_so(line):
    draws = sample(line, pb.converged())
    assert draws.stopped == "converged at two looks in a row, 2 in all"
    assert_array_equal(draws.draw_steps[[0, -1]], [601, 1_200])
    tree = pb.to_datatree(draws, line)
    meters = pb.measure_temperature(jax.random.key(0), line, draws)
    assert pb.judge(pb.diagnose(tree), meters).label == "converged"


def test_one_look_is_enough_if_nothing_has_to_be_confirmed(line):
    until = Converged(confirmed=False)
    draws = sample(line, until)
    assert draws.stopped == "converged, 1 in all"
    assert until.looks == ["converged"]


def verdicts(monkeypatch, *labels):
    """What the looks say, one after the other."""
    said = iter(labels)

    def judged(self):
        return None, pb.Verdict(next(said), "", (), "")

    monkeypatch.setattr(module.Look, "judged", judged)


BIASED = "biased by minibatch noise or step size"


@pytest.mark.parametrize(
    ("said", "stopped"),
    [
        # A look in between that does not say so begins anew.
        (
            ["converged", "not converged", "converged", "converged"],
            "converged at two looks in a row, 4 in all",
        ),
        (
            ["not converged", BIASED, BIASED],
            f"{BIASED}, which stays at two looks in a row, 3 in all",
        ),
    ],
)
def test_what_has_to_be_said_twice(line, monkeypatch, said, stopped):
    verdicts(monkeypatch, *said)
    draws = sample(line, pb.converged(), **SHORT)
    assert draws.stopped == stopped
    assert draws.draw_steps[-1] == 20 * 2 ** (len(said) - 1)


def test_not_converged_twice_is_no_reason_to_stop(line, monkeypatch):
    verdicts(monkeypatch, *["not converged"] * 9)
    draws = sample(line, pb.converged(max_steps=100), **SHORT)
    assert draws.stopped == "the budget of 100 steps was spent"
    assert 80 < draws.draw_steps[-1] <= 160


def test_a_budget_of_time(line, monkeypatch):
    verdicts(monkeypatch, *["not converged"] * 99)
    draws = sample(line, pb.converged(max_seconds=1e-9), **SHORT)
    assert draws.stopped == "the budget of 1e-09 seconds was spent"


def test_looks_of_before_count_when_a_run_goes_on(line, monkeypatch, tmp_path):
    """The first look says *converged*, the process dies, and the next look confirms it."""
    verdicts(monkeypatch, "converged", "converged")
    whole = sample(line, pb.converged(), **SHORT)

    class Dies(Converged):
        def reached(self, target, draws):
            if self.looks:
                raise RuntimeError("power cut")
            return super().reached(target, draws)

    verdicts(monkeypatch, "converged")
    out = tmp_path / "run"
    with pytest.raises(RuntimeError, match="power cut"):
        sample(line, Dies(), **SHORT, out=out, checkpoint_seconds=0)
    verdicts(monkeypatch, "converged")
    found = pb.resume(out, line, until=pb.converged(), progress=False)
    assert found.stopped == whole.stopped == "converged at two looks in a row, 2 in all"
    assert_array_equal(np.asarray(found.positions), np.asarray(whole.positions))


@pytest.mark.parametrize("budget", [{"max_steps": 0}, {"max_seconds": -1.0}])
def test_budgets_are_positive(budget):
    (name,) = budget
    with pytest.raises(pb.InputError, match=f"{name} is .*it must be positive"):
        pb.converged(**budget)


# What is seen on the way


def test_what_is_followed_on_the_way_is_what_the_draws_say(target, classes):
    follow = Follow.of(target, {"test": classes[0][:5]}, held_out=classes)
    watching = Watching(follow=follow, num_chains=2)
    draws = pb.sample(
        jax.random.key(0),
        target,
        "sgld",
        num_chains=2,
        num_steps=40,
        thinning=1,
        batch_size=5,
        collectors=watching.collectors(target),
        progress=False,
    )
    look = watching.look(target, draws)
    assert look.kept.num_draws == draws.num_draws == 20
    jax.tree.map(assert_array_equal, look.kept.positions, draws.positions)
    meters = pb.measure_temperature(jax.random.key(0), target, draws)
    tree = pb.to_datatree(draws, target, {"test": classes[0][:5]}, classes, meters)
    for name in ("posterior", "posterior_predictive", "predictions", "log_likelihood"):
        for variable, expected in tree[name].data_vars.items():
            assert_allclose(look.tree[name][variable], expected, rtol=1e-4, atol=1e-5)
    assert_allclose(
        look.tree["sample_stats"]["configurational_temperature"],
        tree["sample_stats"]["configurational_temperature"],
        rtol=1e-4,
    )
    described = watching.describe(target, draws)
    assert set(described) == {"median R-hat", "smallest ESS", "temperature"}
    assert described["median R-hat"] > 0.9


def test_positions_that_are_kept_are_few_where_they_are_large(line, monkeypatch):
    """They are among the draws that are followed, and the meters stand at those."""
    monkeypatch.setattr(module, "_KEPT_BYTES", 4 * 3 * 4 * 8)  # eight draws of four chains
    watching = Watching(num_chains=4)
    draws = sample(line, num_steps=130, collectors=watching.collectors(line))
    look = watching.look(line, draws)
    assert look.kept.num_draws == 8
    assert_array_equal(look.kept.draw_steps, draws.draw_steps[::4])
    measured = look.tree["sample_stats"]["configurational_temperature"].values
    assert measured.shape == (4, 30)
    assert_array_equal(np.isfinite(measured).all(axis=0), np.arange(30) % 4 == 0)
    for ours, theirs in zip(
        jax.tree.leaves(look.kept.positions), jax.tree.leaves(draws.positions), strict=True
    ):
        assert_array_equal(ours, theirs[:, ::4])


def test_of_the_candidates_those_at_the_boundary_stay():
    """Between two classes, a linear classifier decides least where its input is smallest."""
    x = np.array([5.0, 0.1, -7.0, -0.2, 9.0, 0.05], np.float32)[:, None]
    linear = (
        lambda key, x: jnp.zeros(()),
        lambda w, x: jnp.stack([x[:, 0], 0 * x[:, 0]], -1) * (1 + w),
    )
    target = pb.LogDensity(linear, (x, (x[:, 0] > 0).astype(int)))
    follow = Follow.of(target, {"test": x[:2], "boundary": x, "far": x[4:5]}, num_boundary=3)
    draws = pb.Draws(np.zeros((2, 4)), "by hand")
    chosen, followed = follow.at_the_boundary(follow.along(draws))
    assert_array_equal(chosen.probes["boundary"], x[[1, 3, 5]])
    assert_array_equal(chosen.probe_inputs, x[[0, 1, 1, 3, 5, 4]])
    expected = follow.along(draws)["probes"].values[:, :, [0, 1, 3, 5, 7, 8]]
    assert_array_equal(followed["probes"].values, expected)


def test_nothing_is_followed_before_there_is_a_target(line):
    with pytest.raises(pb.InputError, match="nothing is followed yet"):
        Watching().look(line, None)
