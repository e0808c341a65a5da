"""Draws kept in a file, joined, and shown in a line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import probbnn as pb


def same(one, two):
    assert jax.tree.structure(one) == jax.tree.structure(two)

    def check(a, b):
        assert a.dtype == b.dtype
        assert_array_equal(a, b)

    jax.tree.map(check, one, two)


def test_draws_come_back_as_they_were_saved(target, sampled, classes, tmp_path):
    sampled.save(tmp_path / "draws.npz")
    back = pb.Draws.load(tmp_path / "draws.npz")
    same(back.positions, sampled.positions)
    same(back.sample_stats, dict(sampled.sample_stats))
    same(back.trace, dict(sampled.trace))
    same(back.noise_gain, sampled.noise_gain)
    for name in ("method", "temperature", "seconds", "excluded", "stopped", "settings"):
        assert getattr(back, name) == getattr(sampled, name), name
    for name in ("trace_steps", "draw_steps", "passes"):
        assert_array_equal(getattr(back, name), getattr(sampled, name))
    assert_array_equal(
        pb.predict(target, back, classes[0]).probs, pb.predict(target, sampled, classes[0]).probs
    )
    assert [path.name for path in tmp_path.iterdir()] == ["draws.npz"]


def test_any_nest_of_containers_and_types_is_kept(tmp_path):
    positions = {
        "a": [np.ones((2, 3)), (np.zeros((2, 3, 1), jnp.bfloat16) + jnp.bfloat16(0.1),)],
        "b": {
            0: np.arange(6, dtype=np.int32).reshape(2, 3),
            10: np.ones((2, 3)),
            2: np.ones((2, 3)),
        },
    }
    pb.Draws(positions, "by hand").save(tmp_path / "draws")
    back = pb.Draws.load(tmp_path / "draws")
    same(back.positions, positions)
    assert (back.temperature, back.draw_steps, back.noise_gain) == (None, None, None)


def test_draws_on_disk_are_saved_like_others(target, tmp_path):
    draws = pb.sample(
        jax.random.key(0), target, "sgld", num_steps=6, out=tmp_path / "run", progress=False
    )
    draws.save(tmp_path / "draws.npz")
    back = pb.Draws.load(tmp_path / "draws.npz")
    jax.tree.map(lambda a, b: assert_array_equal(a, b[:]), back.positions, draws.positions)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no file .*; give what draws.save wrote"),
        (b"PK\x03\x04 cut off", "is damaged, or was not written by draws.save"),
        (b"text", "is damaged, or was not written by draws.save"),
    ],
)
def test_a_file_that_holds_no_draws_is_one_line(tmp_path, content, message):
    path = tmp_path / "draws.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(pb.InputError, match=message) as caught:
        pb.Draws.load(path)
    assert "\n" not in str(caught.value)


def test_a_file_of_pickles_is_not_opened(tmp_path):
    np.savez(tmp_path / "draws.npz", record=np.array([{"format": "probbnn draws 1"}], object))
    with pytest.raises(pb.InputError, match="is damaged"):
        pb.Draws.load(tmp_path / "draws.npz")


def test_what_cannot_be_saved_is_one_line(sampled, tmp_path):
    with pytest.raises(pb.InputError, match="the draws are in a set; save writes arrays in dicts"):
        pb.Draws({"a": set()}, "by hand").save(tmp_path / "x")
    with pytest.raises(pb.InputError, match="cannot be written"):
        sampled.save(tmp_path / "no such folder" / "draws.npz")


def test_two_runs_side_by_side_are_one_of_more_chains(target, sampled, classes):
    both = pb.concatenate(sampled, sampled)
    assert (both.num_chains, both.num_draws) == (4, 4)
    jax.tree.map(
        lambda leaf, one: assert_array_equal(leaf, np.concatenate([one, one])),
        both.positions,
        sampled.positions,
    )
    assert both.sample_stats["logdensity"].shape == (4, 4)
    assert both.trace["logdensity"].shape == (4, len(sampled.trace_steps))
    assert_array_equal(both.passes, 2 * sampled.passes)
    assert both.settings == sampled.settings
    assert jax.tree.leaves(both.noise_gain)[0].shape[0] == 4
    assert_allclose(
        pb.predict(target, both, classes[0]).probs,
        pb.predict(target, sampled, classes[0]).probs,
        rtol=1e-6,
    )
    assert pb.diagnose(pb.to_datatree(both, target)).num_chains == 4


def test_a_run_behind_another_makes_longer_chains(sampled):
    longer = pb.concatenate(sampled, sampled.last(), along="draw")
    assert (longer.num_chains, longer.num_draws) == (2, 5)
    # What was counted from the start of a run is not known of the second one.
    assert (longer.passes, longer.draw_steps, dict(longer.trace)) == (None, None, {})


def test_runs_that_do_not_fit_each_other_are_not_joined(sampled):
    kernel = {"Dense_0": sampled.positions["Dense_0"]}
    for others, message in [
        ((pb.Draws(kernel, "x", temperature=2.0),), "the position has no Dense_1.bias"),
        ((pb.Draws(sampled.positions, "x"),), "T = 2.0 and at T = None are of different"),
        ((sampled.last(),), "as many draws of each run"),
        ((sampled.positions,), "a dict was given; concatenate takes Draws"),
    ]:
        with pytest.raises(pb.InputError, match=message):
            pb.concatenate(sampled, *others)
    with pytest.raises(pb.InputError, match="nothing to concatenate"):
        pb.concatenate()
    with pytest.raises(pb.InputError, match="unknown along 'time'"):
        pb.concatenate(sampled, sampled, along="time")


def test_everything_that_a_notebook_shows_is_short(target, sampled, classes, regression, values):
    tree = pb.to_datatree(sampled, target, {"some": classes[0][:4]})
    convergence = pb.diagnose(tree)
    predictive = pb.predict(target, sampled, classes[0])
    meters = pb.measure_temperature(jax.random.key(0), target, sampled)
    shown = {
        "draws": sampled,
        "target": target,
        "predictive": predictive,
        "evaluation": pb.evaluate(predictive, classes[1], num_resamples=5),
        "detection": pb.evaluate_ood(predictive.ood_scores, predictive.ood_scores),
        "convergence": convergence,
        "verdict": pb.judge(convergence, meters),
        "meters": meters,
        "data": pb.load("digits")[0],
        "likelihood": regression.likelihood,
        "prior": pb.LogDensity(pb.LeNet300100(), pb.load("digits")[0]),
    }
    assert "balanced_accuracy" in shown["evaluation"]._repr_html_()  # as it is printed
    for name, value in shown.items():
        text = repr(value)
        assert len(text.splitlines()) <= 10, name
        assert len(text) < 1_500, name
