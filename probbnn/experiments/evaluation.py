"""What is measured of predictions: one path for every kind of predictive.

Each kind is a `Task`, found by what the predictive that `probbnn.predict` returns can say.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from probbnn.errors import InputError
from probbnn.experiments.examples import Examples
from probbnn.experiments.records import (
    MethodMetrics,
    PredictiveMetrics,
    Uncertainty,
)
from probbnn.metrics import (
    OodMetrics,
    RiskCoverage,
    accuracy,
    evaluate,
    evaluate_ood,
    reliability,
    risk_coverage,
)
from probbnn.posterior.predictives import Predictive
from probbnn.subsample import evenly_spaced

__all__ = ["PLUG_IN", "Task", "task_of"]

# What is drawn of a curve over all test inputs, and of a distribution.
_NUM_POINTS = 200
_NUM_BINS = 30

PLUG_IN = "plug_in"
"""The predictive of a point estimate, whose averages over draws are all the same."""


class Task(Protocol):
    """What one kind of predictive is measured by."""

    @property
    def predictives(self) -> tuple[str, ...]:
        """Names of the ways to average over draws; the first one is the usual one."""

    @property
    def arrays(self) -> tuple[str, ...]:
        """Attributes of the predictive that say all of it."""

    def score(self, predictive: Any, targets: Any, name: str) -> float:
        """One number for a learning curve, of the predictive called ``name``."""

    @property
    def has_boundary(self) -> bool:
        """Whether there is anything to decide between."""

    @property
    def by_density(self) -> bool:
        """Whether it is measured by the log density of the targets too."""

    def measure(
        self,
        sets: Mapping[str, Examples],
        predictives: Mapping[str, Any],
        shown: str,
        log_density: np.ndarray | None = None,
    ) -> MethodMetrics:
        """All metrics of the predictions on "test" and on other sets.

        Args:
            sets: the examples, by label.
            predictives: what `probbnn.predict` returned for each.
            shown: the predictive that stands for several draws.
            log_density: what `probbnn.log_predictive` returned for the test set, if it is measured
                by that.

        Returns:
            Metrics without what is not about predictions.
        """


def task_of(predictive: Any) -> Task:
    """What a predictive is measured by.

    Raises:
        InputError: if nothing is known for its kind.
    """
    if isinstance(predictive, Predictive):
        return _Classification()
    if all(hasattr(predictive, name) for name in ("mean", "std", "evaluate")):
        return _Regression()
    raise InputError(
        f"there are no metrics for a {type(predictive).__name__}; expected a Predictive of "
        "classes, or a predictive of values with mean, std and evaluate"
    )


class _Classification:
    """A `Predictive`: accuracy, calibration, selective prediction and detection."""

    _fields = {"mean_softmax": "probs", "votes": "votes", "mean_logits": "mean_logits_probs"}
    predictives = tuple(_fields)
    arrays = ("probs",)
    has_boundary = True
    by_density = False

    def score(self, predictive: Predictive, targets: Any, name: str) -> float:
        """Accuracy."""
        return accuracy(*_rows(self._probs(predictive, name), np.asarray(targets)))

    def measure(
        self,
        sets: Mapping[str, Examples],
        predictives: Mapping[str, Predictive],
        shown: str,
        log_density: np.ndarray | None = None,
    ) -> MethodMetrics:
        """See `Task.measure`."""
        on_test = predictives["test"]
        names = (PLUG_IN,) if on_test.num_draws == 1 else self.predictives
        shown = shown if shown in names else names[0]
        labels = {k: _labels(examples, on_test.probs) for k, examples in sets.items()}
        rows = _rows(self._probs(on_test, shown), labels["test"])
        return MethodMetrics(
            predictive=shown,
            sets={
                label: {
                    name: PredictiveMetrics.from_dict(
                        evaluate(
                            replace(predictive, probs=self._probs(predictive, name)), labels[label]
                        ).to_dict()
                    )
                    for name in names
                }
                for label, predictive in predictives.items()
            },
            detection=_detection({k: p.ood_scores for k, p in predictives.items()}),
            reliability=reliability(*rows),
            risk_coverage=_thinned(risk_coverage(*rows)),
            uncertainty=_uncertainty(predictives),
        )

    def _probs(self, predictive: Predictive, name: str) -> np.ndarray:
        return getattr(predictive, self._fields.get(name, "probs"))


class _OfValues(Protocol):
    """A predictive of values, such as a `GaussianPredictive` or a `SampledPredictive`."""

    @property
    def mean(self) -> np.ndarray: ...

    @property
    def std(self) -> np.ndarray: ...

    @property
    def num_draws(self) -> int: ...

    def evaluate(self, targets: Any, log_predictive: Any = None) -> Any: ...


class _Regression:
    """A predictive of values: errors, proper scores, coverage, and detection by its spread."""

    predictives = ("mixture",)
    arrays = ("mean", "std")
    has_boundary = False
    by_density = True

    def score(self, predictive: _OfValues, targets: Any, name: str) -> float:
        """Root of the mean squared error, in units of the targets."""
        error = np.asarray(targets).reshape(predictive.mean.shape) - predictive.mean
        return float(np.sqrt(np.mean(error**2)))

    def measure(
        self,
        sets: Mapping[str, Examples],
        predictives: Mapping[str, _OfValues],
        shown: str,
        log_density: np.ndarray | None = None,
    ) -> MethodMetrics:
        """See `Task.measure`. Targets from elsewhere are not looked at."""
        on_test, test = predictives["test"], sets["test"]
        name = PLUG_IN if on_test.num_draws == 1 else "mixture"
        assert log_density is not None
        evaluation = on_test.evaluate(test.targets, log_density)
        scores = {
            label: {"standard deviation": predictive.std.reshape(len(predictive.std), -1).mean(1)}
            for label, predictive in predictives.items()
        }
        return MethodMetrics(
            predictive=name,
            sets={"test": {name: PredictiveMetrics.from_dict(evaluation.to_dict())}},
            detection=_detection(scores),
        )


def _labels(examples: Examples, probs: np.ndarray) -> np.ndarray:
    """The labels, with -1 for those that are no class of the network's."""
    labels = np.where(examples.targets < probs.shape[-1], examples.targets, -1)
    shape = (len(labels), *probs.shape[1:-1])
    # Inputs from elsewhere have one label, of no class, where these have one for each pixel.
    return labels if labels.shape == shape else np.full(shape, -1)


def _rows(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels, those of pixels row by row."""
    return probs.reshape(-1, probs.shape[-1]), labels.reshape(-1)


def _detection(
    scores: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, dict[str, OodMetrics]]:
    """How well each score tells each set from the test set."""
    return {
        label: evaluate_ood(scores["test"], found).scores
        for label, found in scores.items()
        if label != "test"
    }


def _thinned(curve: RiskCoverage) -> RiskCoverage:
    index = evenly_spaced(len(curve.coverage), _NUM_POINTS)
    return RiskCoverage(curve.coverage[index], curve.risk[index])


def _uncertainty(predictives: Mapping[str, Predictive]) -> Uncertainty:
    """Shares of the inputs of each set in bins of entropy and of mutual information."""
    num_classes = predictives["test"].probs.shape[-1]
    edges = np.linspace(0, np.log(num_classes), _NUM_BINS + 1)

    def shares(values: np.ndarray) -> np.ndarray:
        # Rounding may take the entropy of a uniform distribution past the last edge.
        return np.histogram(values.clip(max=edges[-1]), edges)[0] / values.size

    return Uncertainty(
        edges,
        {label: shares(p.entropy) for label, p in predictives.items()},
        {label: shares(p.mutual_information) for label, p in predictives.items()},
    )
