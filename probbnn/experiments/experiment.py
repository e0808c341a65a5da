"""An experiment: a network, its data and its prior, and the methods that share them.

Importing this module is cheap.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probbnn.data import Dataset, Regression
    from probbnn.posterior.likelihoods import Likelihood
    from probbnn.posterior.network import Trainable
    from probbnn.posterior.priors import PriorLike

__all__ = ["Cosine", "Experiment", "MethodRun"]


@dataclass(frozen=True)
class Cosine:
    """A step size that falls along a half cosine over all steps of a method.

    Attributes:
        start: at the first step.
        end: at the last step.
    """

    start: float
    end: float

    def over(self, num_steps: int) -> Callable[[Any], Any]:
        """The Optax schedule for so many steps."""
        import optax

        return optax.cosine_decay_schedule(self.start, num_steps, self.end / self.start)


@dataclass(frozen=True)
class MethodRun:
    """One row of an experiment: a method and what it runs with.

    Attributes:
        label: what tables and figures call it; default: the method's name.
        num_chains: chains, or members of an ensemble; default: the method's own number.
        num_steps: steps per chain, warm-up included; default: the method's own number.
        warmup: fraction of the steps from which no draw is kept.
        draws: draws kept per chain, evenly spaced after warm-up.
        settings: the method's own settings, as `probbnn.sample` takes them. A step size may be a
            schedule of Optax, or a `Cosine`.
        shared_minibatches: see `probbnn.sample`.
        start_spread: ``None`` starts each chain from its own initialisation; a number starts all
            from a common one plus N(0, start_spread²) noise.
    """

    label: str = ""
    num_chains: int | None = None
    num_steps: int | None = None
    warmup: float = 0.5
    draws: int = 400
    settings: Mapping[str, Any] = field(default_factory=dict)
    shared_minibatches: bool = False
    start_spread: float | None = None


@dataclass(frozen=True, eq=False)
class Experiment:
    """What `probbnn.run` runs and `probbnn.compare` compares.

    Attributes:
        name: what it is called.
        module: the network: anything that `LogDensity` takes.
        train: training data: a `Dataset`, a `Regression`, or a pair of arrays (inputs, targets).
        test: held-out data, likewise.
        methods: the rows, by the name of the method.
        ood: data from elsewhere by label, likewise, or an array of inputs alone. A label that is
            no class of the network's is taken for -1, which is none of them.
        likelihood: see `LogDensity`; default: `Categorical`.
        prior_scale: σ of the Gaussian prior: one number, or a tree of numbers by layer.
        prior: any other prior, in place of that one.
        trainable, variables, images, standardise, weights: see `LogDensity`.
        batch_size: examples per minibatch; default: 1,000, or all if there are fewer.
        summary: one line for a person.
        predictive: what stands for a method with several draws in the figures: for a classifier
            "mean_softmax" (the default), "votes" or "mean_logits".
        curve_predictive: likewise for the learning curve.
        curve_points: the learning curve is measured after k + 1 of the n steps, evenly spaced
            from step 1 to step n, for this k.
    """

    name: str
    module: Any
    train: "Dataset | Regression | tuple[Any, Any]"
    test: "Dataset | Regression | tuple[Any, Any]"
    methods: Mapping[str, MethodRun] = field(default_factory=dict)
    ood: Mapping[str, Any] = field(default_factory=dict)
    likelihood: "Likelihood | None" = None
    prior_scale: Any = 1.0
    prior: "PriorLike | None" = None
    trainable: "Trainable | None" = None
    variables: Any = None
    images: bool | None = None
    standardise: bool = False
    weights: Any = None
    batch_size: int | None = None
    summary: str = ""
    predictive: str = ""
    curve_predictive: str = ""
    curve_points: int = 10
