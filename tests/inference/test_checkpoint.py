"""Checkpoints: what they bring back, and what is not believed of them."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest
from numpy.testing import assert_array_equal

from probbnn.inference.checkpoint import Checkpoints

STATE = {
    "position": jnp.arange(6.0).reshape(2, 3),
    "step": jnp.asarray(7, jnp.int32),
    "key": jax.random.key(3),
    "half": jnp.arange(3, dtype=jnp.bfloat16) / 3,
    "nothing": jnp.zeros((2, 0)),
}


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.save(STATE, {"note": "here"}) is None
    assert checkpoints.wait() is None
    yield checkpoints
    checkpoints.close()


def blank(record):
    zeros = {name: jnp.zeros_like(leaf) for name, leaf in STATE.items() if name != "key"}
    return {**zeros, "key": jax.random.key(0)}


def test_a_state_comes_back_as_it_was(saved):
    found = saved.newest(blank)
    assert (found.record, found.notes) == ({"note": "here"}, [])
    for name, leaf in STATE.items():
        assert found.state[name].dtype == leaf.dtype
        one, other = (
            jax.random.key_data(x) if name == "key" else x for x in (found.state[name], leaf)
        )
        assert_array_equal(one, other)


def test_an_array_that_changed_unnoticed_is_seen_by_the_checksum(saved, monkeypatch):
    """Of each array, the first and the last: what is read differs in one bit."""
    restore = orbax.checkpoint.CheckpointManager.restore
    number = len([leaf for leaf in STATE.values() if leaf.size])
    for which in range(number):

        def changed(*args, which=which, **kwargs):
            found = restore(*args, **kwargs)
            name = sorted(found.state)[which]
            array = np.array(found.state[name])
            array.reshape(-1).view(np.uint8)[-1] ^= 1
            found.state[name] = array
            return found

        monkeypatch.setattr(orbax.checkpoint.CheckpointManager, "restore", changed)
        found = saved.newest(blank)
        assert found.state is None
        assert found.notes == ["checkpoint 0 cannot be read (its checksum is wrong)"]


def test_a_state_of_other_shapes_is_no_state(saved):
    other = {**blank(None), "position": jnp.zeros((2, 2))}
    (note,) = saved.newest(lambda record: other).notes
    assert "is float32(2, 3), not float32(2, 2)" in note


def test_a_damaged_checkpoint_is_told_once_and_makes_room(saved, monkeypatch, tmp_path):
    assert saved.save(STATE, {"note": "later"}) is saved.wait() is None
    restore = orbax.checkpoint.CheckpointManager.restore

    def damaged(self, step, *args, **kwargs):
        if step == 1:
            raise ValueError("half of it is missing")
        return restore(self, step, *args, **kwargs)

    monkeypatch.setattr(orbax.checkpoint.CheckpointManager, "restore", damaged)
    found = saved.newest(blank)
    assert found.record == {"note": "here"}
    assert found.notes == ["checkpoint 1 cannot be read (half of it is missing)"]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["0"]
    assert saved.newest(blank).notes == []
