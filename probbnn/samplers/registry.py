"""The methods by name: what `sample` and the command line can be asked for.

A new method is a settings class in a file of its own and a line here. Importing this module is
cheap; a method's library is imported when the method is looked up.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from probbnn.errors import one_of

if TYPE_CHECKING:
    from probbnn.samplers.base import Method

__all__ = ["METHODS", "find_method"]

_HOMES = {
    "map": "from_optax.MAP",
    "ensemble": "from_optax.Ensemble",
    "sgld": "from_blackjax.SGLD",
    "psgld": "psgld.PSGLD",
    "sghmc": "sghmc.SGHMC",
    "blackjax_sghmc": "from_blackjax.BlackJAXSGHMC",
    "sgnht": "from_blackjax.SGNHT",
    "nuts": "nuts.NUTS",
    "numpyro_nuts": "from_numpyro.NumPyroNUTS",
    "mclmc": "mclmc.MCLMC",
    "hmcecs": "from_numpyro.HMCECS",
    "svi": "approximations.SVI",
    "svi_low_rank": "approximations.LowRankSVI",
    "laplace": "approximations.Laplace",
    "laplace_diagonal": "approximations.DiagonalLaplace",
}


class _Methods(Mapping[str, "type[Method]"]):
    def __getitem__(self, name: str) -> "type[Method]":
        module, _, method = _HOMES[name].partition(".")
        return getattr(import_module(f"probbnn.samplers.{module}"), method)

    def __iter__(self) -> Iterator[str]:
        return iter(_HOMES)

    def __len__(self) -> int:
        return len(_HOMES)


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
    return METHODS[one_of(name, METHODS, "method")]
