"""probbnn: what does your Flax network not know?

Public names are imported on first use, so that ``import probbnn`` and the command line stay quick.
"""

# ruff: noqa: F403

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # all that a type checker needs; _PUBLIC says which of it is public
    from probbnn.data import *
    from probbnn.datatree import *
    from probbnn.diagnostics import *
    from probbnn.diagnostics.converged import *
    from probbnn.errors import *
    from probbnn.experiments.compare import *
    from probbnn.experiments.equality import *
    from probbnn.experiments.experiment import *
    from probbnn.experiments.run import *
    from probbnn.inference.draws import *
    from probbnn.inference.resume import *
    from probbnn.inference.runner import *
    from probbnn.inference.sample import sample as sample
    from probbnn.inference.signals import *
    from probbnn.metrics import *
    from probbnn.models import *
    from probbnn.posterior.base import *
    from probbnn.posterior.flax import *
    from probbnn.posterior.from_numpyro import *
    from probbnn.posterior.likelihoods import *
    from probbnn.posterior.numpyro_model import *
    from probbnn.posterior.predictives import *
    from probbnn.posterior.priors import *
    from probbnn.predictive import *
    from probbnn.samplers.base import *

    # By name, since the modules of kernels share names such as `init` and `build_kernel`.
    from probbnn.samplers.from_blackjax import sgld as sgld
    from probbnn.samplers.psgld import PSGLD as PSGLD
    from probbnn.samplers.psgld import psgld as psgld
    from probbnn.samplers.registry import *
    from probbnn.samplers.schedules import *
    from probbnn.samplers.sghmc import SGHMC as SGHMC
    from probbnn.samplers.sghmc import sghmc as sghmc
    from probbnn.types import *

__version__ = "0.1.0"

_PUBLIC = {
    "datatree": "to_datatree",
    "data": "DATASETS Dataset load load_regression out_of_distribution patches shift",
    "diagnostics": "Convergence TemperatureMeters Verdict diagnose judge measure_temperature "
    "to_arviz",
    "diagnostics.converged": "converged",
    "errors": "InputError OutputError",
    "experiments.compare": "compare",
    "experiments.equality": "MismatchError",
    "experiments.experiment": "Experiment MethodRun",
    "experiments.run": "resume_run run",
    "inference.draws": "Draws concatenate",
    "inference.runner": "DivergenceError",
    "inference.resume": "resume",
    "inference.sample": "sample",
    "inference.signals": "Interrupted Terminated",
    "metrics": "Fidelity evaluate evaluate_fidelity evaluate_ood evaluate_regression",
    "models": "LeNet300100 MLP",
    "posterior.base": "Posterior",
    "posterior.flax": "LogDensity",
    "posterior.from_numpyro": "NumPyroPosterior from_numpyro",
    "posterior.likelihoods": "Bernoulli Categorical Gaussian HeteroscedasticGaussian "
    "LearnedGaussian Likelihood NegativeBinomial Poisson StudentT Summary",
    "posterior.numpyro_model": "to_numpyro",
    "posterior.predictives": "GaussianPredictive Predictive SampledPredictive",
    "posterior.priors": "GaussianPrior PathPrior Prior",
    "predictive": "log_predictive posterior_predictive predict",
    "samplers.base": "Kernel Method",
    "samplers.from_blackjax": "sgld",
    "samplers.psgld": "PSGLD psgld",
    "samplers.registry": "METHODS",
    "samplers.schedules": "Cyclical",
    "samplers.sghmc": "SGHMC sghmc",
    "types": "Batch",
}
_HOMES = {name: home for home, names in _PUBLIC.items() for name in names.split()}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604


if not TYPE_CHECKING:  # which would then take any name for granted

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'probbnn' has no attribute '{name}'")
        value = getattr(import_module(f"probbnn.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return list(__all__)
