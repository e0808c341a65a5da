"""Runs that are cut and go on, as a user has it: `sample(out=…)` and `resume`."""

import json
import os
import shutil
import signal
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

import probbnn as pb
from probbnn.inference import loop, plan
from probbnn.inference.directory import Lock

pytestmark = pytest.mark.usefixtures("quick_compilation")

KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
Y = (X @ np.array([[1.0], [-2], [0.5]]) + 0.3 * RNG.normal(size=(40, 1))).astype(np.float32)
LINEAR = (lambda key, x: 0.1 * jax.random.normal(key, (3, 1)), lambda theta, x: x @ theta)


def posterior(x=X, y=Y, scale=0.3, prior_scale=1.0, network=LINEAR):
    return pb.LogDensity(network, (x, y), likelihood=pb.Gaussian(scale), prior_scale=prior_scale)


TARGET = posterior()
SETTINGS = {
    "psgld": {"step_size": 1e-3, "batch_size": 10, "thinning": 3},
    "sghmc": {"step_size": 1e-3, "batch_size": 10},
    "nuts": {},
    "mclmc": {},
}


class Cut(Exception):
    pass


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    """So that a short run has many."""
    monkeypatch.setattr(plan, "_CHUNK_STEPS", 7)


def start(method, out=None, num_steps=60, **more):
    settings = {"num_chains": 2, "num_steps": num_steps, "progress": False}
    return pb.sample(KEY, TARGET, method, out=out, **settings, **SETTINGS[method], **more)


def cut_after(monkeypatch, chunks):
    """The run fails in the chunk after so many."""
    advance, count = loop.advance, []

    def failing(run, state):
        count.append(1)
        if len(count) > chunks:
            raise Cut
        return advance(run, state)

    monkeypatch.setattr(loop, "advance", failing)


def assert_same(found, wanted):
    assert_array_equal(np.asarray(found.positions), np.asarray(wanted.positions))
    for part in ("sample_stats", "trace"):
        found_part, wanted_part = getattr(found, part), getattr(wanted, part)
        assert found_part.keys() == wanted_part.keys()
        for name in wanted_part:
            assert_array_equal(found_part[name], wanted_part[name], err_msg=name)
    for name in ("draw_steps", "trace_steps", "passes"):
        assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)


@pytest.mark.parametrize("method", SETTINGS)
def test_a_run_that_was_cut_ends_as_if_it_had_not_been(method, tmp_path, monkeypatch):
    wanted = start(method)
    for chunks in (0, 3, 7):  # at the start, in warm-up, and after it
        out = tmp_path / str(chunks)
        with monkeypatch.context() as patch:
            cut_after(patch, chunks)
            with pytest.raises(Cut):
                start(method, out, checkpoint_seconds=0)
        assert_same(pb.resume(out, TARGET, progress=False), wanted)


@pytest.mark.parametrize("method", ["psgld", "nuts"])
def test_a_run_that_is_made_longer_is_the_long_run(method, tmp_path):
    out = tmp_path / "run"
    start(method, out, num_steps=62)  # 31 after warm-up: one is left over where every third counts
    wanted = start(method, num_steps=92, num_warmup=31)
    assert_same(pb.resume(out, TARGET, more_steps=30, progress=False), wanted)
    # And once it is longer, it stays so.
    assert_same(pb.resume(out, TARGET, progress=False), wanted)


def test_an_optimiser_goes_on(tmp_path):
    settings = {"batch_size": 10, "progress": False, "step_size": 1e-2}
    pb.sample(KEY, TARGET, "map", num_steps=20, out=tmp_path / "run", **settings)
    wanted = pb.sample(KEY, TARGET, "map", num_steps=50, **settings)
    longer = pb.resume(tmp_path / "run", TARGET, more_steps=30, progress=False)
    assert_array_equal(longer.positions, wanted.positions)


def test_what_collectors_have_seen_is_not_forgotten(tmp_path, monkeypatch):
    from probbnn.inference.collectors import Averages, Thinned

    collectors = {
        "mean": Averages(TARGET.summarise, (jnp.asarray(X[:4]),)),
        "some": Thinned(lambda position: position[0], 4),
    }
    wanted = start("psgld", collectors=collectors, keep_positions=False)
    assert wanted.positions is None
    assert wanted.num_chains == 2
    with monkeypatch.context() as patch:
        cut_after(patch, 7)
        with pytest.raises(Cut):
            start(
                "psgld",
                tmp_path / "run",
                checkpoint_seconds=0,
                collectors=collectors,
                keep_positions=False,
            )
    found = pb.resume(tmp_path / "run", TARGET, collectors=collectors, progress=False)
    jax.tree.map(assert_array_equal, found.collected, wanted.collected)
    assert not (tmp_path / "run" / "draws.zarr" / "positions").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    start("psgld", out, checkpoint_seconds=0)
    return out


@pytest.fixture
def home(finished, tmp_path):
    """A copy that a test may do anything to."""
    return shutil.copytree(finished, tmp_path / "run")


def test_draws_on_disk_predict_and_are_diagnosed_as_in_memory(finished):
    stored, held = pb.resume(finished, TARGET, progress=False), start("psgld")
    assert_array_equal(pb.predict(TARGET, stored, X).mean, pb.predict(TARGET, held, X).mean)
    meters = [pb.measure_temperature(KEY, TARGET, draws) for draws in (stored, held)]
    assert str(meters[0]) == str(meters[1])
    trees = [pb.to_datatree(draws, TARGET) for draws in (stored, held)]
    assert trees[0].equals(trees[1])


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (posterior(x=X[::-1].copy()), "data"),
        (posterior(prior_scale=2.0), "prior"),
        (posterior(scale=0.4), "network or likelihood"),
        (posterior(network=(lambda key, x: jnp.zeros((4, 1)), lambda t, x: x @ t[:3])), "network"),
    ],
)
def test_another_posterior_is_refused_by_what_is_other(finished, target, named):
    with pytest.raises(pb.InputError, match=rf"was sampled with another {named} \("):
        pb.resume(finished, target)


def test_another_version_is_refused_unless_forced(home):
    path = home / "sampling.json"
    record = json.loads(path.read_text())
    record["environment"]["jax"] = "0.0.1"
    path.write_text(json.dumps(record))
    with pytest.raises(pb.InputError, match=r"begun with jax 0\.0\.1 \(now .*force=True"):
        pb.resume(home, TARGET)
    assert pb.resume(home, TARGET, force=True, progress=False).num_draws == 10


def test_another_setting_is_refused(finished):
    with pytest.raises(pb.InputError, match=r"another step_size of psgld \(0\.001, now 0\.1\)"):
        pb.resume(finished, TARGET, pb.PSGLD(step_size=0.1))
    with pytest.raises(pb.InputError, match="was begun with psgld"):
        pb.resume(finished, TARGET, pb.SGHMC())


def test_a_schedule_has_to_be_given_again_and_cannot_be_made_longer(tmp_path):
    def schedule(step):
        return 1e-3 / (1 + step)

    method, out = pb.PSGLD(step_size=schedule), tmp_path / "run"
    settings = {"num_steps": 20, "batch_size": 10, "progress": False}
    draws = pb.sample(KEY, TARGET, method, out=out, **settings)
    with pytest.raises(pb.InputError, match="that a file cannot hold.*give it again as method="):
        pb.resume(out, TARGET)
    assert_array_equal(pb.resume(out, TARGET, method).positions, draws.positions)
    with pytest.raises(pb.InputError, match="is a schedule over 20 steps.*start anew"):
        pb.resume(out, TARGET, method, more_steps=10)


def test_a_fit_cannot_be_made_longer(tmp_path):
    settings = {"num_steps": 20, "num_draws": 5, "num_chains": 2, "progress": False}
    pb.sample(KEY, TARGET, "laplace", out=tmp_path / "run", **settings)
    with pytest.raises(pb.InputError, match="laplace draws after its fit"):
        pb.resume(tmp_path / "run", TARGET, more_steps=10)


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(home, damage):
    wanted = start("psgld")
    newest = max((home / "checkpoints").iterdir(), key=lambda path: int(path.name))
    files = [f for f in (newest / "state").rglob("*") if f.is_file() and f.stat().st_size > 500]
    for file in files:
        content = bytearray(file.read_bytes())
        if damage == "truncate":
            file.write_bytes(content[: len(content) // 2])
        else:
            content[len(content) // 2] ^= 255
            file.write_bytes(content)
    with pytest.warns(UserWarning, match=f"checkpoint {newest.name} cannot be read.*an earlier"):
        found = pb.resume(home, TARGET, progress=False)
    assert_same(found, wanted)


def test_without_any_checkpoint_that_can_be_read_there_is_one_line(home):
    for path in (home / "checkpoints").rglob("*"):
        if path.is_file() and "ocdbt" in str(path):
            path.write_bytes(b"")
    with pytest.raises(pb.InputError, match="no checkpoint can be read.*start anew"):
        pb.resume(home, TARGET)


def test_checkpoints_are_bounded(home):
    assert len(list((home / "checkpoints").iterdir())) == 2


def test_what_is_no_run_is_refused(tmp_path, finished):
    with pytest.raises(pb.InputError, match=r"has no sampling\.json"):
        pb.resume(tmp_path, TARGET)
    with pytest.raises(pb.InputError, match="is not empty"):
        start("psgld", finished)


@pytest.mark.parametrize("content", ["", "[" * 100_000, "{}", '{"status": 5}', "\udcff"])
def test_a_damaged_record_is_one_line(home, content):
    (home / "sampling.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(pb.InputError, match=r"sampling\.json (cannot be read|is damaged)"):
        pb.resume(home, TARGET)


def test_a_second_process_is_refused(finished):
    held = Lock(finished)
    with pytest.raises(pb.InputError, match=rf"another process \({os.getpid()}\) is at work"):
        pb.resume(finished, TARGET)
    held.release()
    assert pb.resume(finished, TARGET, progress=False).num_draws == 10


# Signals


def signalled(monkeypatch, number, chunks):
    advance, count = loop.advance, []

    def advance_and_signal(run, state):
        count.append(1)
        if len(count) == chunks:
            os.kill(os.getpid(), number)
        return advance(run, state)

    monkeypatch.setattr(loop, "advance", advance_and_signal)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, pb.Interrupted), (signal.SIGTERM, pb.Terminated)]
)
def test_a_signal_ends_a_run_that_goes_on_later(number, error, tmp_path, monkeypatch):
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        signalled(patch, number, 8)
        with pytest.raises(error) as caught:
            start("psgld", tmp_path / "run")
    assert signal.getsignal(number) == before
    wanted = start("psgld")
    so_far = caught.value.draws
    assert 0 < so_far.num_draws < wanted.num_draws
    kept = np.asarray(so_far.positions)
    assert_array_equal(kept, np.asarray(wanted.positions)[:, : so_far.num_draws])
    assert json.loads((tmp_path / "run" / "sampling.json").read_text())["status"] == "interrupted"
    assert_same(pb.resume(tmp_path / "run", TARGET, progress=False), wanted)


def test_the_exit_status_is_that_of_the_signal():
    assert pb.Terminated(128 + signal.SIGTERM).code == 143
    assert issubclass(pb.Interrupted, KeyboardInterrupt)


# Chains that leave the finite numbers


def test_a_chain_that_diverges_can_be_left_out():
    starts = np.zeros((3, 3, 1), np.float32)
    starts[1] = np.nan
    settings = {"num_steps": 20, "num_chains": 3, "progress": False, **SETTINGS["psgld"]}
    with pytest.warns(UserWarning, match="psgld: left out.*: chain 1 at step 0"):
        draws = pb.sample(KEY, TARGET, "psgld", initial_positions=starts, **settings)
    with pytest.raises(pb.InputError, match="chain 1 starts where parameters is not finite"):
        pb.sample(KEY, TARGET, "psgld", initial_positions=starts, on_divergence="stop", **settings)
    verdict = pb.judge(pb.diagnose(pb.to_datatree(draws)))
    assert verdict.label == "diverged"
    assert "became non-finite: chain 1 at step 0" in verdict.cause
    assert draws.excluded == {1: 0}
    assert draws.num_chains == 2
    assert np.isfinite(draws.positions).all()
    starts[1] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = pb.sample(KEY, TARGET, "psgld", initial_positions=starts, **settings)
    assert_array_equal(draws.positions, whole.positions[[0, 2]])
    for name, stat in whole.sample_stats.items():
        assert_array_equal(draws.sample_stats[name], stat[[0, 2]], err_msg=name)
    assert_array_equal(draws.noise_gain, whole.noise_gain[[0, 2]])
    assert_array_equal(draws.passes, whole.passes)  # what was computed counts


def test_without_a_finite_chain_nothing_is_left():
    starts = np.full((2, 3, 1), np.nan, np.float32)
    with pytest.raises(pb.InputError, match="chain 0 starts where"):
        start("psgld", initial_positions=starts)


# Going on until something is reached


class Enough:
    """Satisfied at the third look."""

    def __init__(self):
        self.looks = []

    def __str__(self):
        return "three looks"

    def collectors(self, target):
        return {}

    def describe(self, target, draws):
        return {}

    def reached(self, target, draws):
        self.looks.append((int(draws.draw_steps[0]), int(draws.draw_steps[-1]), draws.num_draws))
        return "looked often enough" if len(self.looks) == 3 else ""

    def spent(self, steps, seconds):
        return ""


def test_each_look_is_at_the_second_half_of_twice_as_many_steps():
    enough = Enough()
    draws = start("sghmc", num_steps=20, thinning=1, until=enough)
    assert enough.looks == [(11, 20, 10), (21, 40, 20), (41, 80, 40)]
    assert draws.stopped == "looked often enough"
    long = start("sghmc", num_steps=80, num_warmup=10, thinning=1)
    assert_array_equal(draws.positions, long.positions[:, -40:])


def test_a_run_until_something_is_resumed_with_it(tmp_path):
    draws = start("sghmc", tmp_path / "run", num_steps=20, until=Enough())
    with pytest.raises(pb.InputError, match="is a run until three looks"):
        pb.resume(tmp_path / "run", TARGET)
    found = pb.resume(tmp_path / "run", TARGET, until=Enough(), progress=False)
    assert found.stopped == "looked often enough"
    assert_array_equal(np.asarray(found.positions), np.asarray(draws.positions))


def test_until_is_for_markov_chains():
    with pytest.raises(pb.InputError, match="until is given for map"):
        pb.sample(KEY, TARGET, "map", until=Enough())
