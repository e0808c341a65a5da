"""The methods by name: what `sample` and the command line can be asked for.

A new method is a settings class in a file of its own and a line here, which says what it is.
Importing this module is cheap; a method's library is imported when the method is looked up.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Literal, NamedTuple

from probbnn.errors import one_of

if TYPE_CHECKING:
    from probbnn.samplers.base import Method

__all__ = ["LINES", "METHODS", "Family", "find_method"]

Family = Literal["optimisation", "SG-MCMC", "MCMC", "approximation"]
"""On minibatches: optimisers and SG-MCMC; on all the data, or a minibatch in the state: MCMC."""


class _Line(NamedTuple):
    """What is known of a method without its library.

    Attributes:
        home: module and class of its settings.
        backend: the library whose algorithm it runs.
        family: see `Family`.
        summary: one line for a person.
    """

    home: str
    backend: str
    family: Family
    summary: str


LINES: dict[str, _Line] = {
    "map": _Line(
        "from_optax.MAP",
        "optax",
        "optimisation",
        "point estimate of highest posterior density, by Adam or RMSprop",
    ),
    "ensemble": _Line(
        "from_optax.Ensemble",
        "optax",
        "optimisation",
        "deep ensemble: point estimates from independent starts and minibatches",
    ),
    "sgld": _Line(
        "from_blackjax.SGLD",
        "blackjax",
        "SG-MCMC",
        "stochastic gradient Langevin dynamics (Welling & Teh 2011)",
    ),
    "psgld": _Line(
        "psgld.PSGLD",
        "probbnn",
        "SG-MCMC",
        "RMS-preconditioned SGLD (Li et al. 2016), preconditioner frozen after warm-up",
    ),
    "sghmc": _Line(
        "sghmc.SGHMC",
        "probbnn",
        "SG-MCMC",
        "SGLD with momentum (Chen et al. 2014), RMS-preconditioned, any temperature",
    ),
    "blackjax_sghmc": _Line(
        "from_blackjax.BlackJAXSGHMC",
        "blackjax",
        "SG-MCMC",
        "SGHMC with momentum redrawn every L steps: T = L/(L-1) at best, and no other",
    ),
    "sgnht": _Line(
        "from_blackjax.SGNHT",
        "blackjax",
        "SG-MCMC",
        "SGHMC with a Nosé-Hoover thermostat (Ding et al. 2014)",
    ),
    "nuts": _Line(
        "nuts.NUTS", "blackjax", "MCMC", "No-U-Turn sampler on all the data (Hoffman & Gelman 2014)"
    ),
    "numpyro_nuts": _Line(
        "from_numpyro.NumPyroNUTS", "numpyro", "MCMC", "No-U-Turn sampler on all the data"
    ),
    "mclmc": _Line(
        "mclmc.MCLMC",
        "blackjax",
        "MCMC",
        "microcanonical Langevin on all the data, unadjusted (Robnik et al. 2023)",
    ),
    "hmcecs": _Line(
        "from_numpyro.HMCECS",
        "numpyro",
        "MCMC",
        "HMC whose minibatch is part of its state (Dang et al. 2019); small targets",
    ),
    "svi": _Line(
        "approximations.SVI",
        "numpyro",
        "approximation",
        "variational inference: independent Gaussians fitted to the posterior",
    ),
    "svi_low_rank": _Line(
        "approximations.LowRankSVI",
        "numpyro",
        "approximation",
        "variational inference: a Gaussian of diagonal plus low-rank covariance",
    ),
    "laplace": _Line(
        "approximations.Laplace",
        "numpyro",
        "approximation",
        "Laplace approximation in the last layer, the others at their MAP estimate",
    ),
    "laplace_diagonal": _Line(
        "approximations.DiagonalLaplace",
        "numpyro",
        "approximation",
        "Laplace approximation with the diagonal of the Hessian; small targets",
    ),
}
"""A line on each method, by name."""


class _Methods(Mapping[str, "type[Method]"]):
    def __getitem__(self, name: str) -> "type[Method]":
        module, _, method = LINES[name].home.partition(".")
        return getattr(import_module(f"probbnn.samplers.{module}"), method)

    def __iter__(self) -> Iterator[str]:
        return iter(LINES)

    def __len__(self) -> int:
        return len(LINES)


METHODS: "Mapping[str, type[Method]]" = _Methods()
"""The settings class of each method, by name."""


def find_method(name: str) -> "type[Method]":
    """The settings class of the method called ``name``.

    Raises:
        InputError: if there is none.

    Examples:
        >>> find_method("psgld").backend
        'probbnn'
    """
    return METHODS[one_of(name, LINES, "method")]
