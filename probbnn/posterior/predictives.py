"""What draws say of new inputs: the predictives of each kind of likelihood."""

import dataclasses
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import entr, ndtri

from probbnn.errors import InputError
from probbnn.metrics import (
    RegressionEvaluation,
    SampleEvaluation,
    evaluate_regression,
    evaluate_replicates,
)

__all__ = ["GaussianPredictive", "Predictive", "SampledPredictive"]


class _Arrays:
    """A frozen dataclass of arrays, whose ``repr`` says how large they are."""

    def __repr__(self) -> str:
        fields = (
            f"{f.name}: {value.dtype}{list(value.shape)}"
            if isinstance(value := getattr(self, f.name), np.ndarray)
            else f"{f.name}={value!r}"
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
        )
        return f"{type(self).__name__}({', '.join(fields)})"


@dataclass(frozen=True, repr=False)
class Predictive(_Arrays):
    """Predictions of a classifier for n inputs and K classes, averaged over draws.

    With one draw (a point estimate, the *plug-in*) the first three are the softmax of that
    network, its one-hot argmax, and the softmax again. Where there is a class for each pixel or
    token, arrays have axes of these between the first and the last.

    Attributes:
        probs: mean of the draws' softmax, shape ``(n, K)``: the posterior predictive.
        votes: fraction of the draws whose argmax is each class, ``(n, K)``.
        mean_logits_probs: softmax of the draws' mean logits, ``(n, K)``.
        expected_entropy: mean of the draws' entropies, nats, ``(n,)``: the aleatoric part.
        num_draws: over how many draws (of all chains) the averages run.
        classes: names of the classes, if the labels had some.
    """

    probs: np.ndarray
    votes: np.ndarray
    mean_logits_probs: np.ndarray
    expected_entropy: np.ndarray
    num_draws: int
    classes: tuple[str, ...] = ()

    @property
    def entropy(self) -> np.ndarray:
        """Entropy of `probs`, nats, ``(n,)``: the total uncertainty."""
        return entr(self.probs).sum(axis=-1)

    @property
    def ood_scores(self) -> dict[str, np.ndarray]:
        """Scores that are larger the less an input looks like the data, each ``(n,)``.

        A single network has no mutual information to score by. Scores of pixels are averaged.
        """
        scores = {"max probability": 1 - self.probs.max(axis=-1), "entropy": self.entropy}
        if self.num_draws > 1:
            scores["mutual information"] = self.mutual_information
        return {name: s.reshape(len(s), -1).mean(axis=1) for name, s in scores.items()}

    @property
    def mutual_information(self) -> np.ndarray:
        """Entropy minus expected entropy, nats, ``(n,)``: what the draws disagree about."""
        if self.num_draws == 1:
            return np.zeros_like(self.expected_entropy)
        return np.maximum(self.entropy - self.expected_entropy, 0.0)

    def least_decided(self, num_inputs: int) -> np.ndarray:
        """Indices of the inputs whose two most probable classes are closest: the boundary's."""
        first_two = np.partition(self.probs, -2, axis=-1)[..., -2:]
        gap = (first_two[..., 1] - first_two[..., 0]).reshape(len(self.probs), -1).mean(axis=1)
        return np.argsort(gap, kind="stable")[:num_inputs]


@dataclass(frozen=True, repr=False)
class GaussianPredictive(_Arrays):
    """Predictions of a regression network for n inputs, averaged over draws.

    Attributes:
        mean: shape ``(n, …)``, in units of the targets.
        epistemic_std: standard deviation of the network's output over the draws, ``(n, …)``.
        noise_std: standard deviation of the observation noise: a number, one for each output
            ``(…)``, or one for each input too, ``(n, …)``; where draws differ in it, the root of
            their mean variance.
        num_draws: over how many draws (of all chains) the averages run.
    """

    mean: np.ndarray
    epistemic_std: np.ndarray
    noise_std: Any
    num_draws: int

    @property
    def aleatoric_std(self) -> np.ndarray:
        """The noise's standard deviation at each input, ``(n, …)``."""
        return np.broadcast_to(self.noise_std, self.mean.shape)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of a new observation, ``(n, …)``."""
        return np.sqrt(self.epistemic_std**2 + np.square(self.noise_std))

    def quantile(self, level: float) -> np.ndarray:
        """Quantile of a new observation, ``(n, …)``, of the Gaussian with this mean and std.

        Raises:
            InputError: if ``level`` is not between 0 and 1.
        """
        return self.mean + self.std * ndtri(_check_level(level))

    def evaluate(
        self,
        targets: npt.ArrayLike,
        log_predictive: npt.ArrayLike | None = None,
        *,
        num_resamples: int = 500,
        seed: int = 0,
    ) -> RegressionEvaluation:
        """See `probbnn.evaluate_regression`."""
        return evaluate_regression(
            self, targets, log_predictive, num_resamples=num_resamples, seed=seed
        )

    def in_units(self, mean: np.ndarray, std: np.ndarray) -> Self:
        """The same of ``mean + std * target``."""
        noise_std: Any = self.noise_std * std
        return replace(
            self,
            mean=mean + std * self.mean,
            epistemic_std=std * self.epistemic_std,
            noise_std=noise_std if np.ndim(noise_std) else float(noise_std),
        )


@dataclass(frozen=True, repr=False)
class SampledPredictive(_Arrays):
    """Predictions by any likelihood for n inputs: moments, and replicates of the targets.

    Attributes:
        mean: of a new observation, shape ``(n, …)``, in units of the targets.
        epistemic_std: standard deviation over the draws of the mean that each of them predicts.
        aleatoric_std: root of the draws' mean variance around these, ``(n, …)``.
        replicates: S new observations for each input, ``(S, n, …)``, each from one of the draws,
            evenly taken from all of them, by a random key that is always the same.
        num_draws: over how many draws (of all chains) the averages run.
    """

    mean: np.ndarray
    epistemic_std: np.ndarray
    aleatoric_std: np.ndarray
    replicates: np.ndarray | None = None
    num_draws: int = 1

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of a new observation, ``(n, …)``."""
        return np.sqrt(self.epistemic_std**2 + self.aleatoric_std**2)

    def quantile(self, level: float) -> np.ndarray:
        """Quantile of a new observation, ``(n, …)``, among the replicates.

        Raises:
            InputError: if ``level`` is not between 0 and 1.
        """
        drawn, level = self._drawn, _check_level(level)
        if drawn.dtype.kind in "iu":
            found = np.quantile(drawn, level, axis=0, method="inverted_cdf")
        else:
            found = np.quantile(drawn, level, axis=0)
        return found.reshape(self.mean.shape)

    def evaluate(
        self,
        targets: npt.ArrayLike,
        log_predictive: npt.ArrayLike | None = None,
        *,
        num_resamples: int = 500,
        seed: int = 0,
    ) -> SampleEvaluation:
        """See `probbnn.metrics.evaluate_replicates`."""
        return evaluate_replicates(
            self._drawn,
            targets,
            log_predictive,
            mean=self.mean,
            num_resamples=num_resamples,
            seed=seed,
        )

    def in_units(self, mean: np.ndarray, std: np.ndarray) -> Self:
        """The same of ``mean + std * target``; replicates come in these units already."""
        return replace(
            self,
            mean=mean + std * self.mean,
            epistemic_std=std * self.epistemic_std,
            aleatoric_std=std * self.aleatoric_std,
        )

    @property
    def _drawn(self) -> np.ndarray:
        if self.replicates is None:
            raise InputError(
                "this predictive has no replicates; give its likelihood the method sample"
            )
        return self.replicates


def _check_level(level: float) -> float:
    if not 0 < level < 1:
        raise InputError(f"level is {level}; a quantile's level lies between 0 and 1")
    return level
