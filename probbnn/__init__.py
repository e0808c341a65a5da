"""probbnn: what does your Flax network not know?

Public names are imported on first use, so that ``import probbnn`` and the command line stay quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probbnn.data import DATASETS as DATASETS
    from probbnn.data import Dataset as Dataset
    from probbnn.data import load as load
    from probbnn.data import load_regression as load_regression
    from probbnn.data import out_of_distribution as out_of_distribution
    from probbnn.data import patches as patches
    from probbnn.data import shift as shift
    from probbnn.datatree import to_datatree as to_datatree
    from probbnn.diagnostics import Convergence as Convergence
    from probbnn.diagnostics import TemperatureMeters as TemperatureMeters
    from probbnn.diagnostics import Verdict as Verdict
    from probbnn.diagnostics import diagnose as diagnose
    from probbnn.diagnostics import judge as judge
    from probbnn.diagnostics import measure_temperature as measure_temperature
    from probbnn.errors import InputError as InputError
    from probbnn.inference.draws import Draws as Draws
    from probbnn.inference.runner import DivergenceError as DivergenceError
    from probbnn.inference.sample import sample as sample
    from probbnn.metrics import Fidelity as Fidelity
    from probbnn.metrics import evaluate as evaluate
    from probbnn.metrics import evaluate_fidelity as evaluate_fidelity
    from probbnn.metrics import evaluate_ood as evaluate_ood
    from probbnn.metrics import evaluate_regression as evaluate_regression
    from probbnn.models import MLP as MLP
    from probbnn.models import LeNet300100 as LeNet300100
    from probbnn.posterior.base import Posterior as Posterior
    from probbnn.posterior.flax import LogDensity as LogDensity
    from probbnn.posterior.from_numpyro import NumPyroPosterior as NumPyroPosterior
    from probbnn.posterior.from_numpyro import from_numpyro as from_numpyro
    from probbnn.posterior.likelihoods import Categorical as Categorical
    from probbnn.posterior.likelihoods import Gaussian as Gaussian
    from probbnn.posterior.likelihoods import LearnedGaussian as LearnedGaussian
    from probbnn.posterior.likelihoods import Likelihood as Likelihood
    from probbnn.posterior.numpyro_model import to_numpyro as to_numpyro
    from probbnn.posterior.predictives import GaussianPredictive as GaussianPredictive
    from probbnn.posterior.predictives import Predictive as Predictive
    from probbnn.posterior.priors import GaussianPrior as GaussianPrior
    from probbnn.posterior.priors import Prior as Prior
    from probbnn.predictive import log_predictive as log_predictive
    from probbnn.predictive import predict as predict
    from probbnn.samplers.base import Kernel as Kernel
    from probbnn.samplers.from_blackjax import sgld as sgld
    from probbnn.samplers.psgld import PSGLD as PSGLD
    from probbnn.samplers.psgld import psgld as psgld
    from probbnn.samplers.registry import METHODS as METHODS
    from probbnn.samplers.schedules import Cyclical as Cyclical
    from probbnn.samplers.sghmc import SGHMC as SGHMC
    from probbnn.samplers.sghmc import sghmc as sghmc
    from probbnn.types import Batch as Batch

__version__ = "0.1.0"

_HOMES = {
    "DATASETS": "data",
    "Categorical": "posterior.likelihoods",
    "Convergence": "diagnostics",
    "Cyclical": "samplers.schedules",
    "Dataset": "data",
    "DivergenceError": "inference.runner",
    "Draws": "inference.draws",
    "Fidelity": "metrics",
    "Gaussian": "posterior.likelihoods",
    "GaussianPredictive": "posterior.predictives",
    "InputError": "errors",
    "Kernel": "samplers.base",
    "LeNet300100": "models",
    "LearnedGaussian": "posterior.likelihoods",
    "LogDensity": "posterior.flax",
    "METHODS": "samplers.registry",
    "MLP": "models",
    "Batch": "types",
    "NumPyroPosterior": "posterior.from_numpyro",
    "to_numpyro": "posterior.numpyro_model",
    "to_datatree": "datatree",
    "Posterior": "posterior.base",
    "Likelihood": "posterior.likelihoods",
    "GaussianPrior": "posterior.priors",
    "Prior": "posterior.priors",
    "PSGLD": "samplers.psgld",
    "SGHMC": "samplers.sghmc",
    "Predictive": "posterior.predictives",
    "TemperatureMeters": "diagnostics",
    "Verdict": "diagnostics",
    "diagnose": "diagnostics",
    "evaluate": "metrics",
    "evaluate_fidelity": "metrics",
    "evaluate_ood": "metrics",
    "evaluate_regression": "metrics",
    "from_numpyro": "posterior.from_numpyro",
    "judge": "diagnostics",
    "load": "data",
    "load_regression": "data",
    "log_predictive": "predictive",
    "measure_temperature": "diagnostics",
    "out_of_distribution": "data",
    "patches": "data",
    "predict": "predictive",
    "psgld": "samplers.psgld",
    "sample": "inference.sample",
    "sghmc": "samplers.sghmc",
    "sgld": "samplers.from_blackjax",
    "shift": "data",
}

__all__ = ["__version__", *sorted(_HOMES)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'probbnn' has no attribute '{name}'")
    value = getattr(import_module(f"probbnn.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
