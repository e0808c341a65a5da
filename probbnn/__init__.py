"""probbnn: what does your Flax network not know?

Public names are imported on first use, so that ``import probbnn`` and the command line stay quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probbnn.backends.blackjax import sgld as sgld
    from probbnn.chains import DivergenceError as DivergenceError
    from probbnn.data import DATASETS as DATASETS
    from probbnn.data import Dataset as Dataset
    from probbnn.data import load as load
    from probbnn.data import load_regression as load_regression
    from probbnn.data import out_of_distribution as out_of_distribution
    from probbnn.data import patches as patches
    from probbnn.data import shift as shift
    from probbnn.diagnostics import Convergence as Convergence
    from probbnn.diagnostics import TemperatureMeters as TemperatureMeters
    from probbnn.diagnostics import Verdict as Verdict
    from probbnn.diagnostics import diagnose as diagnose
    from probbnn.diagnostics import judge as judge
    from probbnn.diagnostics import measure_temperature as measure_temperature
    from probbnn.draws import Draws as Draws
    from probbnn.errors import InputError as InputError
    from probbnn.kernels.base import Kernel as Kernel
    from probbnn.kernels.cyclical import Cyclical as Cyclical
    from probbnn.kernels.psgld import psgld as psgld
    from probbnn.kernels.sghmc import sghmc as sghmc
    from probbnn.likelihoods import Categorical as Categorical
    from probbnn.likelihoods import Gaussian as Gaussian
    from probbnn.likelihoods import LearnedGaussian as LearnedGaussian
    from probbnn.logdensity import LogDensity as LogDensity
    from probbnn.methods import METHODS as METHODS
    from probbnn.metrics import Fidelity as Fidelity
    from probbnn.metrics import evaluate as evaluate
    from probbnn.metrics import evaluate_fidelity as evaluate_fidelity
    from probbnn.metrics import evaluate_ood as evaluate_ood
    from probbnn.metrics import evaluate_regression as evaluate_regression
    from probbnn.models import MLP as MLP
    from probbnn.models import LeNet300100 as LeNet300100
    from probbnn.numpyro_target import NumPyroTarget as NumPyroTarget
    from probbnn.numpyro_target import from_numpyro as from_numpyro
    from probbnn.predictive import GaussianPredictive as GaussianPredictive
    from probbnn.predictive import Predictive as Predictive
    from probbnn.predictive import log_predictive as log_predictive
    from probbnn.predictive import predict as predict
    from probbnn.sampling import sample as sample
    from probbnn.target import Minibatch as Minibatch

__version__ = "0.1.0"

_HOMES = {
    "DATASETS": "data",
    "Categorical": "likelihoods",
    "Convergence": "diagnostics",
    "Cyclical": "kernels.cyclical",
    "Dataset": "data",
    "DivergenceError": "chains",
    "Draws": "draws",
    "Fidelity": "metrics",
    "Gaussian": "likelihoods",
    "GaussianPredictive": "predictive",
    "InputError": "errors",
    "Kernel": "kernels.base",
    "LeNet300100": "models",
    "LearnedGaussian": "likelihoods",
    "LogDensity": "logdensity",
    "METHODS": "methods",
    "MLP": "models",
    "Minibatch": "target",
    "NumPyroTarget": "numpyro_target",
    "Predictive": "predictive",
    "TemperatureMeters": "diagnostics",
    "Verdict": "diagnostics",
    "diagnose": "diagnostics",
    "evaluate": "metrics",
    "evaluate_fidelity": "metrics",
    "evaluate_ood": "metrics",
    "evaluate_regression": "metrics",
    "from_numpyro": "numpyro_target",
    "judge": "diagnostics",
    "load": "data",
    "load_regression": "data",
    "log_predictive": "predictive",
    "measure_temperature": "diagnostics",
    "out_of_distribution": "data",
    "patches": "data",
    "predict": "predictive",
    "psgld": "kernels.psgld",
    "sample": "sampling",
    "sghmc": "kernels.sghmc",
    "sgld": "backends.blackjax",
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
