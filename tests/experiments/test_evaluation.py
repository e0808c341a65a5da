"""What is measured of predictions, kind by kind."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import random_draws

import probbnn as pb
from probbnn.experiments.evaluation import task_of
from probbnn.experiments.examples import Examples


def measured(target, data, num_chains=3, shown="", **ood):
    draws = random_draws(target, num_chains=num_chains, num_draws=7 if num_chains > 1 else 1)
    sets = {"test": Examples.of(data, "test")}
    sets |= {label: Examples.outside(inputs, label) for label, inputs in ood.items()}
    predictives = {k: pb.predict(target, draws, examples.inputs) for k, examples in sets.items()}
    task = task_of(predictives["test"])
    test = sets["test"]
    density = (
        pb.log_predictive(target, draws, test.inputs, test.targets) if task.by_density else None
    )
    return predictives, task.measure(sets, predictives, shown or task.predictives[0], density)


def test_classification(target, classes):
    predictives, metrics = measured(target, classes, shown="votes", far=9 * classes[0])
    assert metrics.predictive == "votes"
    names = {"mean_softmax": "probs", "votes": "votes", "mean_logits": "mean_logits_probs"}
    assert set(metrics.sets["test"]) == set(names)
    for name, field in names.items():
        exact = pb.evaluate(getattr(predictives["test"], field), classes[1])
        found = metrics.sets["test"][name].intervals
        assert (found["nll"], found["accuracy"]) == (exact.nll, exact.accuracy)
    # Nothing far away belongs to a class, and the curves are those of the votes.
    assert metrics.sets["far"]["votes"].intervals["accuracy"].value == 0
    assert metrics.sets["far"]["votes"].num_labelled == 0
    assert metrics.reliability.confidence.max() <= predictives["test"].votes.max()
    assert set(metrics.detection["far"]) == {"max probability", "entropy", "mutual information"}
    for shares in (metrics.uncertainty.entropy, metrics.uncertainty.mutual_information):
        assert set(shares) == {"test", "far"}
        assert all(of_set.sum() == pytest.approx(1) for of_set in shares.values())


def test_one_network_is_its_own_plug_in(target, classes):
    predictives, metrics = measured(target, classes, num_chains=1, shown="votes")
    assert metrics.predictive == "plug_in"
    assert set(metrics.sets["test"]) == {"plug_in"}
    exact = pb.evaluate(predictives["test"], classes[1])
    assert metrics.sets["test"]["plug_in"].intervals["nll"] == exact.nll


def test_labels_that_are_no_class_of_the_networks(target, classes):
    inputs, labels = classes
    _, metrics = measured(target, classes, other=(inputs, labels + 1))
    assert metrics.sets["other"]["votes"].num_labelled == (labels < 3).sum()


def test_regression(regression, values):
    predictives, metrics = measured(regression, values, far=9 * values[0])
    error = predictives["test"].mean[:, 0] - values[1]
    found = metrics.sets["test"]["mixture"].intervals
    assert found["rmse"].value == pytest.approx(np.sqrt(np.mean(error**2)))
    log_density = pb.log_predictive(regression, random_draws(regression), *values)
    assert found["nll"].value == pytest.approx(-log_density.mean(), rel=1e-5)
    assert set(metrics.sets) == {"test"}
    assert metrics.detection["far"]["standard deviation"].auroc.value > 0.5
    _, metrics = measured(regression, values, num_chains=1)
    assert set(metrics.sets["test"]) == {"plug_in"}


def test_scores_and_kinds(target, classes, regression, values):
    predictive = pb.predict(target, random_draws(target), classes[0])
    task = task_of(predictive)
    right = predictive.votes.argmax(axis=1) == classes[1]
    assert task.score(predictive, classes[1], "votes") == pytest.approx(right.mean())
    assert (task.has_boundary, task.by_density) == (True, False)
    gaussian = pb.predict(regression, random_draws(regression), values[0])
    task = task_of(gaussian)
    exact = replace(gaussian, mean=values[1][:, None])
    assert task.score(exact, values[1], "mixture") == 0
    assert (task.has_boundary, task.by_density) == (False, True)


def test_a_kind_that_nothing_is_known_of():
    with pytest.raises(pb.InputError, match="no metrics for a str; expected a Predictive of"):
        task_of("a sentence")
