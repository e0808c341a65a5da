"""What is no number, no key or out of range is one line, before anything is done with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probbnn as pb
from probbnn.checks import check_key, check_number, check_positive, check_whole
from probbnn.errors import InputError, is_positive
from probbnn.inference.plan import Plan


def said(call, *arguments, **settings):
    with pytest.raises(InputError) as caught:
        call(*arguments, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("number", ["1", b"1", True, np.True_, np.array("1"), None, 1j, [1.0]])
def test_what_only_looks_positive(number):
    assert not is_positive(number)


@pytest.mark.parametrize("number", [1e-300, 1e-39, 1e39, 10**400, float("nan"), 0, -1])
def test_what_no_device_can_hold(number):
    assert not is_positive(number)
    assert "must be positive and finite" in said(check_positive, x=number)


@pytest.mark.parametrize("number", [1, 0.1, np.float32(1), np.int64(3), jnp.array(2.0), 1.2e-38])
def test_what_is_positive(number):
    assert is_positive(number)
    check_positive(x=number)
    check_number(x=number)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (10.0, "n is 10.0; a whole number is expected, such as 10"),
        (1.5, "n is 1.5; a whole number is expected"),
        ("10", "n is '10'; a whole number is expected"),
        (True, "n is True; a whole number is expected"),
        (10**23, "n is 100,000,000,000,000,000,000,000; it can be 2,147,483,647 at most"),
        (0, "n is 0; it must be at least 1"),
    ],
)
def test_whole_numbers(number, message):
    assert said(check_whole, 1, n=number) == message
    check_whole(1, n=np.int32(5), m=None)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (0, r"rng_key is 0; a key is expected, such as jax.random.key(0)"),
        (7, "such as jax.random.key(7)"),
        (None, "rng_key is None"),
        ("key", "rng_key is 'key'"),
        (np.zeros(2), "rng_key is an array of float64, of shape (2,)"),
        (jax.random.split(jax.random.key(0)), "rng_key is an array of keys, of shape (2,)"),
    ],
)
def test_keys(key, message):
    assert message in said(check_key, key)
    check_key(jax.random.key(0))
    check_key(jax.random.PRNGKey(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_size": "0.1"}, "step_size is '0.1'; it must be positive and finite"),
        ({"step_size": True}, "step_size is True"),
        ({"temperature": "1"}, "temperature is '1'"),
        ({"temperature": True}, "temperature is True"),
        ({"temperature": 1e-300}, "temperature is 1e-300; it must be positive and finite in float"),
        ({"freeze": "no"}, "freeze is 'no'; True or False is expected"),
        ({"decay": "0.9"}, "decay is '0.9'; a number is expected"),
        ({"method": "nuts", "max_tree_depth": 3.0}, "max_tree_depth is 3.0; a whole number"),
        ({"method": "svi", "num_draws": True}, "num_draws is True; a whole number"),
        ({"num_steps": 10.0}, "num_steps is 10.0; a whole number is expected, such as 10"),
        ({"num_steps": 10**23}, "num_steps is 100,000"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"thinning": 50, "num_steps": 10}, "thinning is 50 of 10 steps"),
        ({"callback_steps": 5}, "callback_steps is 5; give numbers of steps, such as [5]"),
        ({"callback_steps": [1.5]}, "callback_steps is 1.5; a whole number"),
        ({"callback_steps": [2_000], "num_steps": 10}, "callback_steps has 2,000"),
        ({"shared_minibatches": "no"}, "shared_minibatches is 'no'; True or False"),
        ({"keep_positions": 0}, "keep_positions is 0; True or False"),
        ({"num_chains": 10**9}, "1,000,000,000 chains that keep 100 draws each take"),
        ({"rng_key": 0}, "rng_key is 0"),
        ({"out": []}, "[] is no path; give a string or a Path"),
        ({"checkpoint_seconds": "60"}, "checkpoint_seconds is '60'"),
    ],
)
def test_sample(target, tmp_path, settings, message):
    settings = {"rng_key": jax.random.key(0), "method": "psgld", "out": None, **settings}
    settings["batch_size"] = settings.get("batch_size", 5)
    if settings["method"] != "psgld":
        del settings["batch_size"]
    key, method = settings.pop("rng_key"), settings.pop("method")
    assert message in said(pb.sample, key, target, method, **settings)
    # What is on disk takes less memory, and there is one path.
    if "num_chains" not in settings and settings["out"] is None:
        out = tmp_path / "out"
        assert message in said(pb.sample, key, target, method, **settings | {"out": out})
        assert not out.exists()


@pytest.mark.parametrize("scale", ["1", True, 1e-300, np.inf])
def test_scales(classes, scale):
    module = pb.MLP(hidden=(2,), num_outputs=4)
    assert f"prior_scale is {scale}" in said(pb.LogDensity, module, classes, prior_scale=scale)
    likelihood = pb.Gaussian(scale)
    assert "scale is" in said(pb.LogDensity, module, classes, likelihood=likelihood)


@pytest.mark.parametrize("changes", [{"num_steps": 1e3}, {"num_chains": "4"}, {"draws": 2.5}])
def test_a_row_of_an_experiment(classes, tmp_path, changes):
    rows = {"sgld": pb.MethodRun(**changes)}
    module = pb.MLP(hidden=(2,), num_outputs=4)
    experiment = pb.Experiment("mine", module, classes, classes, rows)
    assert "a whole number is expected" in said(pb.run, experiment, tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_draws_are_counted_without_their_numbers():
    for plan in (Plan(100, 10, 7), Plan(100, 10, 7, phases=((0, 40), (50, 99)))):
        assert plan.num_draws == len(plan.draw_steps)
    assert Plan(2**31 - 1, 0, 1).num_draws == 2**31 - 1
