"""An experiment made real: what goes on record of it, and what is refused at once."""

import json
from dataclasses import replace

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

import probbnn as pb
from probbnn.experiments.experiment import Cosine
from probbnn.experiments.setup import begin, prepare
from probbnn.files import plain

pytestmark = pytest.mark.usefixtures("quick_compilation")


def experiment(classes, **changes):
    mine = pb.Experiment(
        "mine",
        pb.MLP(hidden=(5,), num_outputs=4),
        train=classes,
        test=classes,
        methods={"sgld": pb.MethodRun(num_chains=2, num_steps=20)},
    )
    return replace(mine, **changes)


def test_arrays_have_names_and_fingerprints(classes):
    inputs, labels = classes
    setup = prepare(experiment(classes, ood={"far": 9 * inputs, "near": (inputs, labels)}))
    assert list(setup.sets) == ["test", "far", "near"]
    assert [examples.name for examples in setup.sets.values()] == ["test", "far", "near"]
    assert setup.ood["far"].targets.tolist() == [-1] * len(inputs)
    assert setup.test.fingerprint == setup.ood["near"].fingerprint == setup.train.fingerprint
    assert setup.ood["far"].fingerprint != setup.test.fingerprint
    assert setup.test.record.size == len(inputs)


def test_open_settings_are_filled_in(classes):
    setup = prepare(experiment(classes, methods={"map": pb.MethodRun(), "nuts": pb.MethodRun()}))
    assert setup.experiment.batch_size == len(classes[0])
    assert setup.experiment.predictive == "mean_softmax"
    planned = setup.methods["map"]
    assert (planned.run.label, planned.num_chains, planned.num_steps) == ("map", 1, 5_000)
    assert planned.is_stepwise
    assert not setup.methods["nuts"].is_stepwise
    assert setup.methods["nuts"].batch_size is None
    assert setup.record.methods["nuts"].num_steps == pb.METHODS["nuts"].default_steps


@pytest.mark.parametrize(
    ("module", "written"),
    [
        (pb.MLP(hidden=(5,), num_outputs=4), "MLP(hidden=[5], num_outputs=4)"),
        (pb.MLP(hidden=(), num_outputs=4, activation=nn.tanh), "tanh"),
        (nn.Sequential([nn.Dense(4)]), "Sequential("),
        ((lambda key, x: jax.numpy.zeros((3, 4)), lambda w, x: x @ w), "<lambda>"),
    ],
)
def test_the_network_on_record(classes, module, written):
    record = prepare(experiment(classes, module=module)).record
    content = json.loads(json.dumps(plain(record)))
    assert written in type(record).from_dict(content).network
    assert " at 0x" not in record.network


def test_schedules_on_record(classes):
    settings = {
        "sgld": {"step_size": Cosine(1e-2, 1e-4)},
        "psgld": {"step_size": pb.Cyclical(peak=0.1, cycle_length=10)},
        "sghmc": {"step_size": optax.linear_schedule(1e-3, 1e-4, 20)},
    }
    methods = {name: pb.MethodRun(num_steps=20, settings=s) for name, s in settings.items()}
    setup = prepare(experiment(classes, methods=methods))
    written = [run.settings["step_size"] for run in setup.record.methods.values()]
    assert written[0] == "Cosine(start=0.01, end=0.0001)"
    assert written[1].startswith("Cyclical(peak=0.1")
    assert "schedule" in written[2]
    assert not any(" at 0x" in name for name in written)
    assert setup.methods["sgld"].settings["step_size"](0) == pytest.approx(1e-2)


class Counts(pb.Likelihood):
    """A likelihood that there is no predictive for."""

    def log_prob(self, outputs, targets):
        return jax.scipy.stats.poisson.logpmf(targets, jax.numpy.exp(outputs[:, 0]))

    def check(self, output_shape, targets):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": {}}, "mine has no methods"),
        ({"methods": {"sgdl": pb.MethodRun()}}, "did you mean 'sgld'"),
        ({"methods": {"sgld": pb.MethodRun(num_steps=0)}}, "must be at least 1"),
        ({"methods": {"sgld": pb.MethodRun(warmup=1.0)}}, "a warm-up from 0 to less than 1"),
        ({"methods": {"sgld": pb.MethodRun(draws=0)}}, "at least 1 draw"),
        ({"methods": {"sgld": pb.MethodRun(settings={"step": 1})}}, "unknown setting of sgld"),
        ({"batch_size": 24}, "batch size from 1 to 23"),
        ({"prior_scale": -1}, "prior_scale is -1"),
        ({"likelihood": Counts()}, "no predictive for a Counts likelihood"),
        ({"predictive": "mean"}, "unknown predictive 'mean'"),
        ({"test": np.ones((5, 3))}, "give a Dataset or a pair"),
        ({"test": (np.ones((5, 2)), np.zeros(5, int))}, "inputs have shape"),
        ({"test": (np.ones((5, 3)), np.full(5, 4))}, "label 4 at index 0 is out of range"),
        ({"ood": {"far": np.ones((5, 2))}}, "inputs have shape"),
        ({"ood": {"test": np.ones((5, 3))}}, "called train or test"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(classes, tmp_path, changes, message):
    with pytest.raises(pb.InputError, match=message) as caught:
        begin(experiment(classes, **changes), tmp_path / "out", 0)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_module_that_fails_leaves_nothing_behind(classes, tmp_path):
    def broken(rng_key, inputs):
        raise ZeroDivisionError

    with pytest.raises(Exception, match="."):
        begin(experiment(classes, module=(broken, broken)), tmp_path / "out", 0)
    assert not (tmp_path / "out").exists()


def test_a_library_that_cannot_build_a_method_stops_none_of_the_others(monkeypatch):
    def build(self, target, **lengths):
        raise TypeError("carry input and carry output must have equal types")

    monkeypatch.setattr(pb.METHODS["sgld"], "build", build)
    x = np.random.default_rng(0).normal(size=(20, 2))
    rows = {"sgld": pb.MethodRun(num_steps=4), "map": pb.MethodRun(num_steps=4)}
    data = (x, (x[:, 0] > 0).astype(int))
    module = pb.MLP(hidden=(2,), num_outputs=2)
    setup = prepare(pb.Experiment("mine", module, data, data, rows))
    assert list(setup.methods) == ["sgld", "map"]
