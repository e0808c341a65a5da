"""What draws say of new inputs: the predictives of each kind of likelihood."""

from dataclasses import dataclass

import numpy as np

from probbnn.metrics import entropy, max_prob_score

__all__ = ["GaussianPredictive", "Predictive"]


@dataclass(frozen=True)
class Predictive:
    """Predictions of a classifier for n inputs and K classes, averaged over draws.

    With one draw (a point estimate, the *plug-in*) the first three are the softmax of that
    network, its one-hot argmax, and the softmax again.

    Attributes:
        probs: mean of the draws' softmax, shape ``(n, K)``: the posterior predictive.
        votes: fraction of the draws whose argmax is each class, ``(n, K)``.
        mean_logits_probs: softmax of the draws' mean logits, ``(n, K)``.
        expected_entropy: mean of the draws' entropies, nats, ``(n,)``.
        num_draws: over how many draws (of all chains) the averages run.
    """

    probs: np.ndarray
    votes: np.ndarray
    mean_logits_probs: np.ndarray
    expected_entropy: np.ndarray
    num_draws: int

    @property
    def entropy(self) -> np.ndarray:
        """Entropy of `probs`, nats, ``(n,)``: the total uncertainty."""
        return entropy(self.probs)

    @property
    def ood_scores(self) -> dict[str, np.ndarray]:
        """Scores that are larger the less an input looks like the data, each ``(n,)``."""
        return {
            "max probability": max_prob_score(self.probs),
            "entropy": self.entropy,
            "mutual information": self.mutual_information,
        }

    @property
    def mutual_information(self) -> np.ndarray:
        """Entropy minus expected entropy, nats, ``(n,)``: what the draws disagree about."""
        return np.maximum(self.entropy - self.expected_entropy, 0.0)

    def least_decided(self, num_inputs: int) -> np.ndarray:
        """Indices of the inputs whose two most probable classes are closest: the boundary's."""
        second, first = np.partition(self.probs, -2, axis=1)[:, -2:].T
        return np.argsort(first - second, kind="stable")[:num_inputs]


@dataclass(frozen=True)
class GaussianPredictive:
    """Predictions of a regression network for n inputs, averaged over draws.

    Attributes:
        mean: shape ``(n, …)``, in units of the targets.
        epistemic_std: standard deviation of the network's output over the draws, ``(n, …)``.
        noise_std: standard deviation of the observation noise, a scalar; where it is learned,
            the root of the draws' mean variance.
        num_draws: over how many draws (of all chains) the averages run.
    """

    mean: np.ndarray
    epistemic_std: np.ndarray
    noise_std: float
    num_draws: int

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of a new observation, ``(n, …)``."""
        return np.sqrt(self.epistemic_std**2 + self.noise_std**2)
