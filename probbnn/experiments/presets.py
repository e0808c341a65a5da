"""The ready-made experiments of the command line. Importing this module is cheap.

A preset is a function that loads data and says which network and prior they get, and the methods
that run on it, which can be looked at and changed before anything is loaded.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from probbnn.errors import one_of
from probbnn.experiments.experiment import Cosine, Experiment, MethodRun

__all__ = [
    "COMPARISONS",
    "PRESETS",
    "Preset",
    "diabetes",
    "digits",
    "find_comparison",
    "find_preset",
    "mnist",
    "notebook",
]

_DataDir = str | os.PathLike[str] | None


class Loader(Protocol):
    """A function that loads the data of an experiment without methods."""

    def __call__(self, data_dir: _DataDir = None, *, progress: bool = True) -> Experiment:
        """See `probbnn.load` for both arguments."""


@dataclass(frozen=True)
class Preset:
    """A ready-made experiment whose data are not loaded yet.

    Attributes:
        name: what the command line calls it.
        summary: one line for a person.
        loader: makes the experiment, its methods apart.
        methods: the rows by method name.
        changes: fields of the `Experiment` that are not what ``loader`` makes them.
    """

    name: str
    summary: str
    loader: Loader
    methods: Mapping[str, MethodRun]
    changes: Mapping[str, Any] = field(default_factory=dict)

    def load(self, data_dir: _DataDir = None, *, progress: bool = True) -> Experiment:
        """The experiment with its data.

        Args:
            data_dir: see `probbnn.load`.
            progress: show progress bars where stderr is a terminal.

        Raises:
            InputError: if data are missing.

        Examples:
            >>> find_preset("digits").load().train
            Dataset('digits', 'train': 1297 images of 8x8x1, 10 classes)
        """
        experiment = self.loader(data_dir, progress=progress)
        own = {"name": self.name, "summary": self.summary, "methods": self.methods}
        return replace(experiment, **own | dict(self.changes))


def find_comparison(name: str) -> Preset:
    """The comparison called ``name``.

    Raises:
        InputError: if there is none.
    """
    return COMPARISONS[one_of(name, COMPARISONS, "comparison")]


def find_preset(name: str) -> Preset:
    """The preset called ``name``.

    Raises:
        InputError: if there is none.
    """
    return PRESETS[one_of(name, PRESETS, "preset")]


# The loaders. Networks and data are imported when they are asked for: listing the presets must
# not wait for them.


def digits(data_dir: _DataDir = None, *, progress: bool = True) -> Experiment:
    """scikit-learn's digits, and what lies outside them and needs no download."""
    from probbnn.data import load, out_of_distribution
    from probbnn.models import MLP

    train, test = load("digits")
    kinds = ("patches", "rotated", "inverted", "shuffled", "noise")
    return Experiment(
        name="digits",
        # Smooth, so that samplers with momentum get far on it; small enough for NUTS.
        module=MLP(hidden=(10,), activation="tanh"),
        train=train,
        test=test,
        ood={kind: out_of_distribution(test, kind) for kind in kinds},
        prior_scale=1.0,
        batch_size=200,
    )


def diabetes(data_dir: _DataDir = None, *, progress: bool = True) -> Experiment:
    """Regression with learned noise: 342 patients, and the others with stretched inputs."""
    from probbnn.data import load_regression, stretch
    from probbnn.models import MLP
    from probbnn.posterior.likelihoods import LearnedGaussian

    train, test = load_regression("diabetes")
    return Experiment(
        name="diabetes",
        module=MLP(hidden=(10,), num_outputs=1, activation="tanh"),
        train=train,
        test=test,
        ood={"stretched": stretch(test)},
        likelihood=LearnedGaussian(),
        prior_scale=1.0,
        batch_size=57,  # a sixth of the data
    )


def mnist(data_dir: _DataDir = None, *, progress: bool = True) -> Experiment:
    """LeNet-300-100 on MNIST, and Fashion-MNIST outside it."""
    from probbnn.data import load, out_of_distribution
    from probbnn.models import LeNet300100

    train, test = load("mnist", data_dir, progress=progress)
    fashion = out_of_distribution(test, "fashion_mnist", data_dir, progress=progress)
    return Experiment(
        name="mnist",
        module=LeNet300100(),
        train=train,
        test=test,
        ood={"fashion": fashion},
        # How it was chosen: docs/presets.md.
        prior_scale={"Dense_0": 0.2, "Dense_1": 0.4, "Dense_2": 1.0},
        batch_size=1_000,
    )


def notebook(data_dir: _DataDir = None, *, progress: bool = True) -> Experiment:
    """The same with the prior of the seed notebook, and what it looks at."""
    return replace(
        mnist(data_dir, progress=progress),
        prior_scale=60**-0.5,
        predictive="votes",
        curve_predictive="mean_logits",
    )


# The methods.

_DIGITS = {
    "map": MethodRun(
        "sgd", num_chains=1, num_steps=3_000, settings={"step_size": Cosine(1e-2, 1e-4)}
    ),
    "sgld": MethodRun("sgld", num_chains=4, num_steps=20_000, settings={"step_size": 2e-4}),
    "psgld": MethodRun("psgld", num_chains=4, num_steps=20_000, settings={"step_size": 5e-3}),
    "sghmc": MethodRun("sghmc", num_chains=4, num_steps=20_000, settings={"step_size": 1e-3}),
    # On all the data at every step, and the one that converges within a demo.
    "mclmc": MethodRun("mclmc", num_chains=4, num_steps=40_000, warmup=0.25, draws=400),
}

# The notebook minimises −mean(onehot·log_softmax) over batch *and* ten classes + 1e-4·½‖θ‖². With
# N = 60,000 examples that is −logdensity/(10 N) for the prior precision 10 N · 1e-4 = 60. Its
# chains see unit noise on that scale: T = 10 N. With the gradient 10 N times larger, so is ε.
_NOTEBOOK_SCALE = 10 * 60_000

_NOTEBOOK = {
    "map": MethodRun(
        "sgd",
        num_chains=1,
        num_steps=5_001,
        # ε = 1e-8 on the gradient of the mean over classes; ours is 10 times that.
        settings={"optimizer": "rmsprop", "step_size": 1e-3, "eps": 1e-6},
    ),
    "psgld": MethodRun(
        "sgld",
        num_chains=10,
        num_steps=5_001,
        warmup=5_000 / 5_001,
        draws=1,
        settings={
            "step_size": 5e-3,
            "temperature": float(_NOTEBOOK_SCALE),
            "decay": 0.9,
            "damping": 1e-9 * _NOTEBOOK_SCALE,
            "bias_correction": False,
            "freeze": False,
        },
        shared_minibatches=True,
        start_spread=0.01,
    ),
}

_MNIST = {
    "map": MethodRun(
        "sgd", num_chains=1, num_steps=5_000, settings={"step_size": Cosine(1e-3, 1e-5)}
    ),
    "ensemble": MethodRun(
        "ensemble",
        num_chains=10,
        num_steps=5_000,
        settings={"step_size": Cosine(1e-3, 1e-5)},
    ),
    "psgld": MethodRun(
        "psgld",
        num_chains=10,
        num_steps=5_000,
        draws=25,
        settings={"step_size": Cosine(1e-3, 1e-4)},
    ),
}

# Every method, on a target whose full-data gradient is cheap.
_FALLING = {"step_size": Cosine(1e-2, 1e-4)}
_SMALL = {
    "map": MethodRun("MAP", 1, 3_000, settings=_FALLING),
    "ensemble": MethodRun("deep ensemble", 10, 3_000, settings=_FALLING),
    "sgld": MethodRun("SGLD", 4, 40_000, 0.25, 500, {"step_size": 2e-4}),
    "psgld": MethodRun("pSGLD", 4, 40_000, 0.25, 500, {"step_size": 5e-3}),
    "sghmc": MethodRun("SGHMC", 4, 40_000, 0.25, 500, {"step_size": 1e-3}),
    "blackjax_sghmc": MethodRun("SGHMC, BlackJAX", 4, 4_000, 0.25, 500),
    "sgnht": MethodRun("SGNHT, BlackJAX", 4, 40_000, 0.25, 500, {"step_size": 4e-3, "alpha": 10.0}),
    "nuts": MethodRun("NUTS, BlackJAX", 4, 1_500, 0.2, 1_200),
    "numpyro_nuts": MethodRun("NUTS, NumPyro", 4, 1_500, 0.2, 1_200),
    "mclmc": MethodRun("MCLMC, BlackJAX", 4, 20_000, 0.25, 500),
    "hmcecs": MethodRun(
        "HMCECS, NumPyro", 4, 300, 0.5, 150, {"num_blocks": 100, "max_tree_depth": 8}
    ),
    "svi": MethodRun("SVI, mean field", 4, 10_000, settings=_FALLING),
    "svi_low_rank": MethodRun("SVI, low rank", 4, 10_000, settings=_FALLING),
    "laplace": MethodRun("Laplace, last layer", 4, 3_000, settings=_FALLING),
    "laplace_diagonal": MethodRun("Laplace, diagonal", 4, 3_000, settings=_FALLING),
}

_DIABETES = {
    **_SMALL,
    "blackjax_sghmc": MethodRun("SGHMC, BlackJAX", 4, 4_000, 0.25, 500, {"step_size": 2e-3}),
    "nuts": MethodRun("NUTS, BlackJAX", 4, 1_500, 1 / 3, 1_000),
    "numpyro_nuts": MethodRun("NUTS, NumPyro", 4, 1_500, 1 / 3, 1_000),
    "hmcecs": MethodRun(
        "HMCECS, NumPyro", 4, 600, 0.5, 300, {"num_blocks": 57, "max_tree_depth": 8}
    ),
}

_MNIST_COMPARED = {
    "map": MethodRun("MAP", 1, 2_000, settings={"step_size": Cosine(1e-3, 1e-5)}),
    "ensemble": MethodRun("deep ensemble", 4, 2_000, settings={"step_size": Cosine(1e-3, 1e-5)}),
    "sgld": MethodRun("SGLD", 4, 2_000, draws=25),
    "psgld": MethodRun("pSGLD", 4, 2_000, draws=25, settings={"step_size": Cosine(1e-3, 1e-4)}),
    "sghmc": MethodRun("SGHMC", 4, 2_000, draws=25, settings={"step_size": Cosine(1e-3, 1e-4)}),
    "blackjax_sghmc": MethodRun("SGHMC, BlackJAX", 4, 200, draws=25),
    "sgnht": MethodRun("SGNHT, BlackJAX", 4, 2_000, draws=25),
    "svi": MethodRun(
        "SVI, mean field",
        4,
        2_000,
        settings={"step_size": Cosine(1e-2, 1e-4), "num_draws": 25},
    ),
}

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "digits",
            "8x8 digits bundled with scikit-learn, T = 1: SGD and four samplers",
            digits,
            _DIGITS,
        ),
        Preset(
            "notebook",
            "the seed notebook to the letter: MNIST, RMSprop and pSGLD at T = 600,000",
            notebook,
            _NOTEBOOK,
        ),
        Preset(
            "mnist",
            "the true posterior (T = 1) of LeNet-300-100 beside SGD and a deep ensemble",
            mnist,
            _MNIST,
        ),
    )
}
"""What `probbnn run` runs, by name."""

# How steps and step sizes were chosen: docs/backends.md.
COMPARISONS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("digits", "every method on the 8x8 digits", digits, _SMALL),
        Preset(
            "diabetes",
            "regression with learned noise, 342 patients: every method",
            diabetes,
            _DIABETES,
        ),
        Preset(
            "mnist",
            "the methods on minibatches at scale, LeNet-300-100 on MNIST",
            mnist,
            _MNIST_COMPARED,
        ),
    )
}
"""What `probbnn compare` runs, by name: every method that the size of the data allows."""
