"""`sample` and the registry of methods, as a user meets them."""

import inspect
import io
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.base import SamplingAlgorithm
from flax import nnx
from flax.core import freeze
from numpy.testing import assert_array_equal

import probbnn as pb
from probbnn.inference import plan, runner
from probbnn.inference.collectors import Averages
from probbnn.samplers.registry import find_method

pytestmark = pytest.mark.usefixtures("quick_compilation")

# Those that take steps on minibatches; tests/samplers/test_full_data.py has the others.
OWN_AND_OPTAX = ("probbnn", "optax")
KERNELS = [n for n, m in pb.METHODS.items() if m.family in ("optimisation", "SG-MCMC")]
SHORT = {"num_steps": 6, "batch_size": 5, "progress": False}


def sample(target, method="sgld", **settings):
    return pb.sample(jax.random.key(0), target, method, **{**SHORT, **settings})


@pytest.fixture(scope="module")
def by_method(target):
    """A short run of each method, every key used at most once where BlackJAX lets it be so."""
    results = {}
    for name in KERNELS:
        with jax.debug_key_reuse(name != "blackjax_sghmc"):
            results[name] = sample(target, name, num_chains=1)
    return results


def test_methods_are_registered_under_their_names_with_their_settings():
    assert {"map", "ensemble", "sgld", "psgld", "sghmc"} < set(KERNELS)
    for name, method in pb.METHODS.items():
        assert find_method(name) is method
        assert method.name == name
        assert "\n" not in method.summary
        assert ("step_size" in method.defaults()) == (method.family != "MCMC")
        # The library whose algorithm it runs is the one that its module takes it from.
        source = inspect.getsource(inspect.getmodule(method))
        outside = [
            library
            for library in ("blackjax", "numpyro")
            if re.search(rf"^(import|from) {library}\b", source, re.MULTILINE)
        ]
        assert [method.backend] == outside or (not outside and method.backend in OWN_AND_OPTAX)
    assert pb.METHODS["psgld"].defaults()["temperature"] == 1.0
    assert {n for n, m in pb.METHODS.items() if m.point_estimate} == {"map", "ensemble"}


@pytest.mark.parametrize("name", KERNELS)
def test_every_method_gives_finite_draws_and_says_how(target, by_method, name):
    draws = by_method[name]
    point_estimate = pb.METHODS[name].point_estimate
    assert draws.method == name
    assert (draws.num_chains, draws.num_draws) == (1, 1 if point_estimate else 3)
    assert draws.temperature == (None if point_estimate else 1.0)
    assert_array_equal(draws.draw_steps, [6] if point_estimate else [4, 5, 6])
    assert draws.settings.items() >= {"num_steps": 6, "batch_size": 5, "num_chains": 1}.items()
    assert draws.settings.keys() >= pb.METHODS[name].defaults().keys()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(draws.positions))
    target.check_position(jax.tree.map(lambda leaf: leaf[0, 0], draws.positions))
    stats = {"logdensity", "grad_norm"}
    stats |= set() if point_estimate else {"step_size"}
    stats |= {"kinetic_temperature"} if name in ("sghmc", "sgnht") else set()
    assert {key: x.shape for key, x in draws.trace.items()} == dict.fromkeys(stats, (1, 6))


def test_passes_are_the_gradients_of_all_chains_in_passes_over_the_data(target, by_method, sampled):
    """⌈23/5⌉ minibatches are a pass, and BlackJAX's SGHMC takes 10 + 1 gradients a step."""
    for name, draws in by_method.items():
        per_step = 11 if name == "blackjax_sghmc" else 1
        np.testing.assert_allclose(draws.passes, per_step * draws.draw_steps / 5)
    np.testing.assert_allclose(sampled.passes, 2 * sampled.draw_steps / 5)
    center = target.init(jax.random.key(0))
    centered = sample(target.with_control_variates(center), num_chains=2)
    np.testing.assert_allclose(centered.passes, 2 * 2 * centered.draw_steps / 5)


@pytest.mark.parametrize(
    ("method", "step_size"),
    [
        (pb.METHODS["sgld"](), 0.02 / 1_000),
        (pb.METHODS["blackjax_sghmc"](), np.sqrt(0.02 / 1_000)),
        (pb.METHODS["sgnht"](), np.sqrt(0.02 / 1_000)),
        (pb.PSGLD(), 1e-3),
        (pb.SGHMC(), 1e-3),
        # Which moves as far as SGLD: h(2 − a)/(2a).
        (pb.SGHMC(preconditioner=None, friction=0.1), 0.02 / 1_000 * 0.2 / 1.9),
    ],
)
def test_default_step_sizes_are_stable_for_so_many_examples(method, step_size):
    np.testing.assert_allclose(method.settings(1_000)["step_size"], step_size)


def test_the_same_key_gives_the_same_draws(target, by_method):
    again = sample(target, "psgld", num_chains=1)
    jax.tree.map(assert_array_equal, again.positions, by_method["psgld"].positions)


def test_stats_at_a_draw_are_of_its_position_and_of_the_step_that_led_there(target, sampled):
    assert_array_equal(sampled.draw_steps, [9, 12, 15, 18])
    for name in ("logdensity", "grad_norm"):
        assert_array_equal(sampled.sample_stats[name], sampled.trace[name][:, [9, 12, 15, 18]])
    draws = sample(target, "sghmc", num_warmup=3, step_size=lambda step: 1e-3 / (1 + step))
    for name in ("step_size", "kinetic_temperature"):
        assert_array_equal(draws.sample_stats[name], draws.trace[name][:, [3, 4, 5]])
    np.testing.assert_allclose(
        draws.sample_stats["step_size"][0], 1e-3 / np.arange(4, 7), rtol=1e-6
    )


def test_a_ready_made_kernel_brings_its_temperature_and_its_cycles(target):
    kernel = pb.sgld(target.value_and_grad_estimator, pb.Cyclical(1e-4, 3, 0.5), 2.0)
    draws = sample(target, kernel, num_warmup=0)
    assert draws.temperature == 2.0
    assert_array_equal(draws.draw_steps, [3, 6])


def test_short_cycles_are_not_thinned_away(target):
    draws = sample(target, step_size=pb.Cyclical(1e-4, 4, 0.5), num_steps=5_000)
    assert_array_equal(np.diff(draws.draw_steps), 4)


def test_stats_belong_to_the_draw_itself(target):
    """With all the data in a minibatch the estimate is exact; the last draw has no later step."""
    draws = sample(target, num_chains=2, batch_size=23, num_warmup=1)
    flat = jax.tree.map(lambda leaf: leaf.reshape(10, *leaf.shape[2:]), draws.positions)
    exact = np.asarray(jax.jit(jax.vmap(target.logdensity_fn))(flat)).reshape(2, 5)
    stats = draws.sample_stats["logdensity"]
    np.testing.assert_allclose(stats[:, :-1], exact[:, :-1], rtol=1e-5)
    assert_array_equal(stats[:, -1], stats[:, -2])


@pytest.mark.parametrize("method", ["psgld", "sghmc"])
@pytest.mark.parametrize(("freeze", "freeze_after"), [(True, 7), (False, None)])
def test_freezing_starts_after_warm_up(target, monkeypatch, method, freeze, freeze_after):
    built = []
    monkeypatch.setattr(pb.METHODS[method], "kernel", lambda *arguments: built.append(arguments))
    pb.METHODS[method](freeze=freeze, step_size=1e-3).build(target, num_warmup=7, batch_size=5)
    assert built[-1][-1] == freeze_after


def test_temperature_reaches_the_kernel_and_the_draws(sampled):
    assert sampled.temperature == sampled.settings["temperature"] == 2.0


# A kernel of one's own


class State(NamedTuple):
    position: dict
    momentum: dict


class Info(NamedTuple):
    logdensity: jax.Array
    grad_norm: jax.Array
    momentum_norm: jax.Array


def test_a_kernel_in_blackjaxs_form_is_run_as_it_is(target):
    def init(position):
        return State(position, jax.tree.map(jnp.zeros_like, position))

    def step(rng_key, state, minibatch):
        value, grad = target.value_and_grad_estimator(state.position, minibatch)
        momentum = jax.tree.map(lambda m, g: 0.9 * m + 1e-3 * g, state.momentum, grad)
        norm = jnp.sqrt(sum(jnp.sum(m**2) for m in jax.tree.leaves(momentum)))
        position = jax.tree.map(jnp.add, state.position, momentum)
        return State(position, momentum), Info(value, norm, norm)

    kernel = SamplingAlgorithm(init, step)
    draws = sample(target, kernel, num_warmup=2)
    assert (draws.method, draws.num_chains, draws.num_draws) == ("custom kernel", 4, 4)
    assert draws.temperature is None
    assert draws.sample_stats["momentum_norm"].shape == (4, 4)
    with pytest.raises(pb.InputError, match="settings step_size were given beside a ready-made"):
        sample(target, kernel, step_size=0.1)


# What a user sees on the way


def test_callbacks_see_the_asked_positions_and_change_nothing(target):
    every = sample(target, num_chains=2, num_steps=40, num_warmup=0, thinning=1)
    seen = []

    def callback(step, positions):
        assert isinstance(jax.tree.leaves(positions)[0], jax.Array)
        seen.append((step, positions))  # and may keep them

    steps = (25, 1, 4, 5, 40)
    draws = sample(
        target,
        num_chains=2,
        num_steps=40,
        num_warmup=4,
        thinning=3,
        callback=callback,
        callback_steps=steps,
    )
    assert [step for step, _ in seen] == sorted(steps)
    for step, positions in seen:
        jax.tree.map(
            lambda x, kept, s=step: assert_array_equal(x, kept[:, s - 1]),
            positions,
            every.positions,
        )
    jax.tree.map(
        lambda x, kept: assert_array_equal(x, kept[:, draws.draw_steps - 1]),
        draws.positions,
        every.positions,
    )


def test_progress_bar_names_the_method_and_counts_steps(target, monkeypatch):
    class Bar:
        def __init__(self, total, desc, unit, disable):
            self.count = 0
            bars.append((self, total, desc, disable))

        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *_: None  # noqa: E731

        def update(self, count):
            self.count += count

    bars = []
    monkeypatch.setattr("probbnn.inference.loop.tqdm", Bar)
    sample(target, progress=True)
    ((bar, total, description, disable),) = bars
    assert (bar.count, total, description, disable) == (6, 6, "sgld", True)  # stderr is a file
    # A cell of a notebook is no terminal, and somebody sees it all the same.
    monkeypatch.setattr("sys.stderr", type("OutStream", (io.StringIO,), {"__module__": KERNEL})())
    sample(target, progress=True)
    sample(target, progress=False)
    assert [disable for *_, disable in bars] == [True, False, True]


KERNEL = "ipykernel.iostream"


def test_a_second_run_of_equal_shapes_compiles_nothing(classes):
    target = pb.LogDensity(pb.MLP(hidden=(5,), num_outputs=4), classes)
    first = sample(target, "psgld", decay=0.9)
    second = sample(target, pb.PSGLD(decay=0.9))
    assert second.compile_seconds < 0.1 * first.compile_seconds
    jax.tree.map(assert_array_equal, first.positions, second.positions)
    other = sample(target, "psgld", decay=0.5)
    assert not np.array_equal(
        other.positions["Dense_0"]["kernel"], first.positions["Dense_0"]["kernel"]
    )


def test_other_lengths_on_the_same_target_are_not_cut_to_the_first(classes):
    """Compiled programs are used again only where the room for draws and trace is the same."""
    target = pb.LogDensity(pb.MLP(hidden=(5,), num_outputs=4), classes)
    ten = sample(target, num_steps=20, num_warmup=10)
    for settings in ({"thinning": 5}, {"thinning": 2}, {"num_steps": 30}):
        draws = sample(target, **{"num_steps": 20, "num_warmup": 10, **settings})
        assert draws.num_draws == len(draws.draw_steps)
        assert draws.trace["logdensity"].shape == (4, len(draws.trace_steps))
        kernel = draws.positions["Dense_0"]["kernel"]
        some = draws.draw_steps <= 20
        same = ten.positions["Dense_0"]["kernel"][:, draws.draw_steps[some] - 11]
        assert_array_equal(kernel[:, some], same)


def test_a_ready_made_kernel_is_compiled_once(classes):
    target = pb.LogDensity(pb.MLP(hidden=(5,), num_outputs=4), classes)
    inner = pb.sgld(target.value_and_grad_estimator, 1e-3)
    kernel = SamplingAlgorithm(lambda position: inner.init(position), inner.step)
    first, second = (sample(target, kernel) for _ in range(2))
    assert second.compile_seconds < 0.1 * first.compile_seconds
    other = sample(target, pb.sgld(target.value_and_grad_estimator, 1e-1))
    assert (other.positions["Dense_0"]["kernel"] != first.positions["Dense_0"]["kernel"]).any()


def test_what_a_collector_keeps_on_the_way_is_what_predict_makes_of_the_draws(classes):
    target = pb.LogDensity(pb.MLP(hidden=(5,), num_outputs=4), classes)
    inputs = classes[0][:7]
    draws = sample(
        target,
        num_steps=30,
        collectors={"mine": Averages(target.summarise, (jnp.asarray(inputs),))},
    )
    mean, variance, num_draws = draws.collected["mine"]
    found = target.likelihood.predictive(mean, variance, num_draws)
    expected = pb.predict(target, draws, inputs)
    assert num_draws == draws.num_chains * draws.num_draws
    for name in ("probs", "votes", "mean_logits_probs", "expected_entropy"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-6
        )


def test_a_collector_with_arrays_is_compiled_once_for_all_chunks(target, classes, monkeypatch):
    chunk, traced = runner._chunk, []

    def counted(*arguments):
        traced.append(1)
        return chunk(*arguments)

    monkeypatch.setattr(runner, "_chunk", counted)
    monkeypatch.setattr(plan, "_CHUNK_STEPS", 2)
    mine = Averages(target.summarise, (jnp.asarray(classes[0]),))
    draws = sample(target, num_steps=30, collectors={"mine": mine})
    assert draws.collected["mine"][-1] == draws.num_chains * draws.num_draws
    assert len(traced) == 1


# Starting positions


def test_chains_start_where_they_are_told(target):
    start = jax.vmap(target.init)(jax.random.split(jax.random.key(9), 2))
    draws = sample(target, num_chains=2, initial_positions=start, step_size=1e-20)
    jax.tree.map(
        lambda kept, x: np.testing.assert_allclose(kept[:, -1], x, atol=1e-6),
        draws.positions,
        start,
    )


@pytest.mark.parametrize(
    "form",
    [
        lambda parameters, path: parameters,
        lambda parameters, path: {"params": parameters},
        lambda parameters, path: freeze({"params": parameters, "batch_stats": {}}),
        lambda parameters, path: jax.tree.map(lambda leaf: leaf.astype(jnp.float16), parameters),
        lambda parameters, path: orbax(path, {"params": parameters}),
    ],
    ids=["parameters", "variables", "FrozenDict", "float16", "Orbax"],
)
def test_a_checkpoint_in_any_form_is_the_start_of_every_chain(target, form, tmp_path):
    parameters = jax.tree.map(lambda leaf: jnp.round(8 * leaf) / 8, target.init(jax.random.key(3)))
    given = form(parameters, tmp_path / "checkpoint")
    draws = sample(target, num_chains=2, initial_positions=given, step_size=1e-20)

    def check(kept, leaf):
        assert kept.dtype == jnp.result_type(float)
        np.testing.assert_allclose(kept[:, -1], np.stack([leaf, leaf]), atol=1e-6)

    jax.tree.map(check, draws.positions, parameters)


def orbax(path, variables):
    orbax_checkpoint = pytest.importorskip("orbax.checkpoint")
    orbax_checkpoint.PyTreeCheckpointer().save(path, variables)
    return path


def test_an_nnx_module_that_was_trained_is_a_start(classes):
    module = nnx.Linear(3, 4, rngs=nnx.Rngs(7))
    target = pb.LogDensity(lambda rngs: nnx.Linear(3, 4, rngs=rngs), classes)
    draws = sample(target, num_chains=1, initial_positions=module, step_size=1e-20)
    np.testing.assert_allclose(draws.positions["kernel"][0, -1], module.kernel[...], atol=1e-6)


def test_parameters_of_the_likelihood_start_where_they_always_do(values):
    target = pb.LogDensity(
        pb.MLP(hidden=(), num_outputs=1), values, likelihood=pb.LearnedGaussian()
    )
    parameters = pb.MLP(hidden=(), num_outputs=1).init(jax.random.key(1), values[0])
    draws = sample(target, num_chains=2, initial_positions=parameters, step_size=1e-20)
    np.testing.assert_allclose(draws.positions["log_noise_scale"], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"Dense_0": p["Dense_0"]}, "the position has no Dense_1.bias"),
        (lambda p: jax.tree.map(lambda x: x[:1], p), "leading\\s+axis of the 2 chains"),
        (lambda p: jax.tree.map(lambda x: x[0, 0], p), "leading\\s+axis of the 2 chains"),
        (lambda p: {**p, "Dense_1": jax.tree.map(lambda x: x[0], p["Dense_1"])}, "none of them"),
        (lambda p: jax.tree.map(lambda x: x[..., :1], p), r"\['Dense_0'\]\['bias'\] has shape"),
    ],
)
def test_starting_positions_that_do_not_fit_are_refused(target, change, message):
    start = jax.vmap(target.init)(jax.random.split(jax.random.key(9), 2))
    with pytest.raises(pb.InputError, match=message):
        sample(target, num_chains=2, initial_positions=change(start))


@pytest.mark.skipif(jax.config.jax_enable_x64, reason="float64 takes longer to run out of numbers")
@pytest.mark.parametrize("name", ["sgld", "blackjax_sghmc"])
def test_a_default_step_size_that_is_too_large_names_one_that_is_not(name):
    """A linear regression with noise .1: the default does not know how steep that is."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(200, 3)).astype(np.float32)
    targets = (inputs @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=200)).astype(np.float32)
    target = pb.LogDensity(
        pb.MLP(hidden=(), num_outputs=1), (inputs, targets), likelihood=pb.Gaussian(0.1)
    )
    settings = {"num_chains": 2, "num_steps": 2_000, "batch_size": 50}
    with pytest.raises(pb.DivergenceError, match="the default step size, .*, knows") as caught:
        sample(target, name, **settings)
    step_size = float(re.search(r"step_size=(\S+) would be stable", str(caught.value))[1])
    draws = sample(target, name, step_size=step_size, **settings)
    kernel = draws.positions["Dense_0"]["kernel"][..., 0]
    np.testing.assert_allclose(kernel.mean(axis=(0, 1)), [1.0, -2.0, 0.5], atol=0.1)
    # With a step size of one's own there is no more to be said.
    with pytest.raises(pb.DivergenceError) as caught:
        sample(target, name, step_size=0.1, **settings)
    assert "curvature" not in str(caught.value)


# Bad input


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("psgdl", {}, "psgdl.*psgld"),
        ("sgld", {"step_sise": 0.1}, "step_sise.*step_size"),
        ("sgld", {"damping": 0.1}, "setting of sgld.*damping|damping.*setting of sgld"),
        ("map", {"temperature": 1.0}, "temperature"),
        ("map", {"num_chains": 3}, "num_chains is 3 for map, one point estimate; use 'ensemble'"),
        ("sgld", {"num_chains": 0}, "num_chains is 0; it must be at least 1"),
        ("sgld", {"num_steps": 20.0}, "num_steps is 20.0; a whole number is expected"),
        ("sgld", {"batch_size": True}, "batch_size is True; a whole number is expected"),
        ("sgld", {"chain_method": "threads"}, "unknown chain_method 'threads'; expected one of ve"),
        ("map", {"num_chains": 0}, "num_chains is 0; it must be at least 1"),
        ("sgld", {"num_steps": 0}, "num_steps is 0"),
        ("map", {"num_steps": 0}, "num_steps is 0"),
        ("sgld", {"num_warmup": 6}, "num_warmup is 6 of 6 steps"),
        ("sgld", {"thinning": 0}, "thinning 0"),
        ("sgld", {"thinning": 4}, "it must\\s+leave at least one draw"),
        ("sgld", {"batch_size": 24}, "batch_size is 24 and the data have 23 examples"),
        ("psgld", {"decay": 1.0}, "decay is 1.0"),
        ("psgld", {"gamma": "yes"}, "gamma is 'yes'"),
        *(
            (method, {"step_size": value}, f"step_size is {value}; it must be positive and finite")
            for method in ("map", "ensemble", "sgld", "psgld")
            for value in (0.0, -0.1, np.nan, np.inf)
        ),
        *(
            (method, {"temperature": value}, f"temperature is {value}; it must be positive")
            for method in ("sgld", "psgld")
            for value in (0.0, -1.0, np.nan, np.inf)
        ),
    ],
)
def test_bad_settings_are_one_clear_line(target, method, settings, message):
    with pytest.raises(pb.InputError, match=message) as caught:
        sample(target, method, **settings)
    assert "\n" not in str(caught.value)
