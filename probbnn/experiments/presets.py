"""The ready-made experiments of the command line. Importing this module is cheap."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from probbnn.errors import one_of
from probbnn.experiments.experiment import MethodRun

__all__ = [
    "COMPARISONS",
    "PRESETS",
    "Preset",
    "cosine",
    "find_comparison",
    "find_preset",
]


@dataclass(frozen=True)
class Preset:
    """An experiment: data, network, prior, and the methods that share them.

    Attributes:
        name: what the command line calls it.
        summary: one line for a person.
        dataset: name for `probbnn.load`.
        ood: out-of-distribution sets, label → name for `probbnn.out_of_distribution`.
        model: name of a class in `probbnn.models` and its arguments.
        prior_scale: σ of the Gaussian prior: one number, or one for each layer.
        batch_size: examples per minibatch.
        methods: the rows by method name.
        predictive: the predictive that stands for a method with several draws in the figures:
            ``"mean_softmax"`` or ``"votes"``.
        curve_predictive: the predictive of the learning curve, ``"probs"`` or
            ``"mean_logits_probs"``.
        curve_points: the learning curve is measured after k + 1 of the n steps, evenly spaced
            from step 1 to step n, for this k.
    """

    name: str
    summary: str
    dataset: str
    ood: Mapping[str, str]
    model: tuple[str, Mapping[str, Any]]
    prior_scale: float | Mapping[str, float]
    batch_size: int
    methods: Mapping[str, MethodRun]
    predictive: str = "mean_softmax"
    curve_predictive: str = "probs"
    curve_points: int = 10


def cosine(start: float, end: float) -> dict[str, Any]:
    """A step size that falls from ``start`` to ``end`` along a half cosine, for `MethodRun`."""
    return {"schedule": "cosine", "start": start, "end": end}


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


# The notebook minimises −mean(onehot·log_softmax) over batch *and* ten classes + 1e-4·½‖θ‖². With
# N = 60,000 examples that is −logdensity/(10 N) for the prior precision 10 N · 1e-4 = 60. Its
# chains see unit noise on that scale: T = 10 N. With the gradient 10 N times larger, so is ε.
_NOTEBOOK_SCALE = 10 * 60_000

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="digits",
            summary="8x8 digits bundled with scikit-learn, T = 1: SGD and four samplers",
            dataset="digits",
            ood={kind: kind for kind in ("patches", "rotated", "inverted", "shuffled", "noise")},
            # Smooth, so that samplers with momentum get far on it; small enough for NUTS.
            model=("MLP", {"hidden": (10,), "activation": "tanh"}),
            prior_scale=1.0,
            batch_size=200,
            methods={
                "map": MethodRun(
                    "sgd", num_chains=1, num_steps=3_000, settings={"step_size": cosine(1e-2, 1e-4)}
                ),
                "sgld": MethodRun(
                    "sgld", num_chains=4, num_steps=20_000, settings={"step_size": 2e-4}
                ),
                "psgld": MethodRun(
                    "psgld", num_chains=4, num_steps=20_000, settings={"step_size": 5e-3}
                ),
                "sghmc": MethodRun(
                    "sghmc", num_chains=4, num_steps=20_000, settings={"step_size": 1e-3}
                ),
                # On all the data at every step, and the one that converges within a demo.
                "mclmc": MethodRun("mclmc", num_chains=4, num_steps=40_000, warmup=0.25, draws=400),
            },
        ),
        Preset(
            name="notebook",
            summary="the seed notebook to the letter: MNIST, RMSprop and pSGLD at T = 600,000",
            dataset="mnist",
            ood={"fashion": "fashion_mnist"},
            model=("LeNet300100", {}),
            prior_scale=60**-0.5,
            batch_size=1_000,
            methods={
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
            },
            predictive="votes",
            curve_predictive="mean_logits_probs",
        ),
        Preset(
            name="mnist",
            summary="the true posterior (T = 1) of LeNet-300-100 beside SGD and a deep ensemble",
            dataset="mnist",
            ood={"fashion": "fashion_mnist"},
            model=("LeNet300100", {}),
            # How it was chosen: docs/presets.md.
            prior_scale={"Dense_0": 0.2, "Dense_1": 0.4, "Dense_2": 1.0},
            batch_size=1_000,
            methods={
                "map": MethodRun(
                    "sgd", num_chains=1, num_steps=5_000, settings={"step_size": cosine(1e-3, 1e-5)}
                ),
                "ensemble": MethodRun(
                    "ensemble",
                    num_chains=10,
                    num_steps=5_000,
                    settings={"step_size": cosine(1e-3, 1e-5)},
                ),
                "psgld": MethodRun(
                    "psgld",
                    num_chains=10,
                    num_steps=5_000,
                    draws=25,
                    settings={"step_size": cosine(1e-3, 1e-4)},
                ),
            },
        ),
    )
}

# Every method, on a target whose full-data gradient is cheap.
_FALLING = {"step_size": cosine(1e-2, 1e-4)}
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

# What `probbnn compare` runs: the same log density as the preset of that name, and every method
# that its size allows. How steps and step sizes were chosen: docs/backends.md.
COMPARISONS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        replace(
            PRESETS["digits"],
            summary="every method on the 8x8 digits",
            methods=_SMALL,
        ),
        Preset(
            name="diabetes",
            summary="regression with learned noise, 342 patients: every method",
            dataset="diabetes",
            ood={"stretched": "stretched"},
            model=("MLP", {"hidden": (10,), "num_outputs": 1, "activation": "tanh"}),
            prior_scale=1.0,
            batch_size=57,  # a sixth of the data
            methods={
                **_SMALL,
                "blackjax_sghmc": MethodRun(
                    "SGHMC, BlackJAX", 4, 4_000, 0.25, 500, {"step_size": 2e-3}
                ),
                "nuts": MethodRun("NUTS, BlackJAX", 4, 1_500, 1 / 3, 1_000),
                "numpyro_nuts": MethodRun("NUTS, NumPyro", 4, 1_500, 1 / 3, 1_000),
                "hmcecs": MethodRun(
                    "HMCECS, NumPyro", 4, 600, 0.5, 300, {"num_blocks": 57, "max_tree_depth": 8}
                ),
            },
        ),
        replace(
            PRESETS["mnist"],
            summary="the methods on minibatches at scale, LeNet-300-100 on MNIST",
            methods={
                "map": MethodRun("MAP", 1, 2_000, settings={"step_size": cosine(1e-3, 1e-5)}),
                "ensemble": MethodRun(
                    "deep ensemble", 4, 2_000, settings={"step_size": cosine(1e-3, 1e-5)}
                ),
                "sgld": MethodRun("SGLD", 4, 2_000, draws=25),
                "psgld": MethodRun(
                    "pSGLD", 4, 2_000, draws=25, settings={"step_size": cosine(1e-3, 1e-4)}
                ),
                "sghmc": MethodRun(
                    "SGHMC", 4, 2_000, draws=25, settings={"step_size": cosine(1e-3, 1e-4)}
                ),
                "blackjax_sghmc": MethodRun("SGHMC, BlackJAX", 4, 200, draws=25),
                "sgnht": MethodRun("SGNHT, BlackJAX", 4, 2_000, draws=25),
                "svi": MethodRun(
                    "SVI, mean field",
                    4,
                    2_000,
                    settings={"step_size": cosine(1e-2, 1e-4), "num_draws": 25},
                ),
            },
        ),
    )
}
