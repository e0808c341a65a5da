"""The registry of methods: what `sample` and the command line can be asked for by name.

Importing this module is cheap; a method's library is imported when the method is built.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probbnn.errors import InputError, one_of

if TYPE_CHECKING:
    from probbnn.kernels.base import Kernel
    from probbnn.logdensity import LogDensity

__all__ = ["METHODS", "Method", "find_method"]

# A step size of this over N is stable wherever the mean loss is with this learning rate.
_MEAN_LOSS_RATE = 0.02


@dataclass(frozen=True)
class Method:
    """One way to explore a `LogDensity`.

    Attributes:
        name: what it is called in `sample` and on the command line.
        backend: the library whose kernel it runs.
        summary: one line for a person.
        builder: ``(target, num_warmup, **settings) -> Kernel``; its keyword-only
            parameters are the method's settings and their defaults.
        point_estimate: whether only the last step counts (an optimiser), rather than all draws.
        num_chains: number of chains (or ensemble members) unless told otherwise.
        default_step_size: ``(N, settings) -> step size`` of methods whose default is ``None``.
    """

    name: str
    backend: str
    summary: str
    builder: Callable[..., "Kernel"]
    point_estimate: bool = False
    num_chains: int = 4
    default_step_size: Callable[[int, Mapping[str, Any]], float] = lambda data_size, settings: (
        _MEAN_LOSS_RATE / data_size
    )

    @property
    def defaults(self) -> dict[str, Any]:
        """The method's settings with their default values."""
        parameters = inspect.signature(self.builder).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def build(self, target: "LogDensity", num_warmup: int, settings: Mapping[str, Any]) -> "Kernel":
        """The kernel for ``target`` with the given settings.

        Raises:
            InputError: if a setting is unknown to the method or outside its range.
        """
        return self.builder(target, num_warmup, **self.complete(target, settings))

    def complete(self, target: "LogDensity", settings: Mapping[str, Any]) -> dict[str, Any]:
        """All settings that the method runs with: the given ones, and defaults.

        Raises:
            InputError: if a setting is unknown to the method.
        """
        for name in settings:
            one_of(name, self.defaults, f"setting of {self.name}")
        complete = {**self.defaults, **settings}
        if complete["step_size"] is None:
            complete["step_size"] = self.default_step_size(target.data_size, complete)
        return complete


def find_method(name: str) -> Method:
    """The method called ``name``.

    Raises:
        InputError: if there is none.

    Examples:
        >>> find_method("psgld").backend
        'probbnn'
    """
    return METHODS[one_of(name, METHODS, "method")]


def _optax(
    target: "LogDensity",
    num_warmup: int,
    *,
    optimizer: Any = "adam",
    step_size: Any = 1e-3,
    eps: float = 1e-8,
) -> "Kernel":
    """``optimizer`` is "adam", "rmsprop" or any `optax.GradientTransformation`.

    The step size and eps are those of the optimisers by name; a transformation has its own.
    """
    import optax

    from probbnn.backends.optax import optimizer as build
    from probbnn.kernels.base import as_schedule

    if isinstance(optimizer, str):
        rate = as_schedule(step_size)
        # RMSprop as the field knows it: decay 0.9 and ε inside the square root.
        optimizers = {
            "adam": lambda: optax.adam(rate, eps=eps),
            "rmsprop": lambda: optax.rmsprop(rate, decay=0.9, eps=eps, eps_in_sqrt=True),
        }
        optimizer = optimizers[one_of(optimizer, optimizers, "optimizer")]()
    return build(target.value_and_grad_estimator, optimizer, target.data_size)


def _sgld(
    target: "LogDensity",
    num_warmup: int,
    *,
    step_size: Any = None,
    temperature: float = 1.0,
) -> "Kernel":
    """``step_size`` is 0.02/N unless given."""
    from probbnn.backends.blackjax import sgld

    return sgld(target.value_and_grad_estimator, step_size, temperature)


def _psgld(
    target: "LogDensity",
    num_warmup: int,
    *,
    step_size: Any = 1e-3,
    temperature: float = 1.0,
    decay: float = 0.99,
    damping: float = 1.0,
    bias_correction: bool = True,
    gamma: Any = None,
    freeze: bool = True,
) -> "Kernel":
    """``freeze``: keep the preconditioner as warm-up left it, which makes the law right."""
    from probbnn.kernels.psgld import psgld

    return psgld(
        target.value_and_grad_estimator,
        step_size,
        temperature,
        decay=decay,
        damping=damping,
        bias_correction=bias_correction,
        gamma=gamma,
        freeze_after=_freeze_after(num_warmup) if freeze else None,
    )


def _sghmc(
    target: "LogDensity",
    num_warmup: int,
    *,
    step_size: Any = None,
    temperature: float = 1.0,
    friction: float = 0.1,
    preconditioner: Any = "rms",
    decay: float = 0.99,
    damping: float = 1.0,
    bias_correction: bool = True,
    freeze: bool = True,
) -> "Kernel":
    """``preconditioner`` is "rms", frozen after warm-up if ``freeze``, or None.

    ``step_size`` is 1e-3 unless given; without preconditioner, what moves as SGLD with 0.02/N.
    """
    from probbnn.kernels.sghmc import sghmc

    freeze = freeze and preconditioner is not None
    return sghmc(
        target.value_and_grad_estimator,
        step_size,
        temperature,
        friction=friction,
        preconditioner=preconditioner,
        decay=decay,
        damping=damping,
        bias_correction=bias_correction,
        freeze_after=_freeze_after(num_warmup) if freeze else None,
    )


def _sghmc_step_size(data_size: int, settings: Mapping[str, Any]) -> float:
    if settings["preconditioner"] is not None:
        return 1e-3
    friction = settings["friction"]
    return 2 * friction / (2 - friction) * _MEAN_LOSS_RATE / data_size


def _blackjax_sghmc(
    target: "LogDensity",
    num_warmup: int,
    *,
    step_size: Any = None,
    temperature: float = 1.0,
    num_integration_steps: int = 10,
    alpha: float = 0.01,
) -> "Kernel":
    """``step_size`` is a step in time, √(0.02/N) unless given; ``temperature`` must be 1."""
    from probbnn.backends.blackjax import sghmc

    return sghmc(
        target.value_and_grad_estimator,
        step_size,
        temperature,
        num_integration_steps=num_integration_steps,
        alpha=alpha,
    )


def _sgnht(
    target: "LogDensity",
    num_warmup: int,
    *,
    step_size: Any = None,
    temperature: float = 1.0,
    alpha: float = 0.01,
) -> "Kernel":
    """``step_size`` is a step in time, √(0.02/N) unless given."""
    from probbnn.backends.blackjax import sgnht

    return sgnht(target.value_and_grad_estimator, step_size, temperature, alpha=alpha)


def _freeze_after(num_warmup: int) -> int:
    if num_warmup == 0:
        raise InputError(
            "the preconditioner freezes after warm-up, and num_warmup is 0; give it some steps, "
            "or freeze=False"
        )
    return num_warmup


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="map",
            backend="optax",
            summary="point estimate of highest posterior density, by Adam or RMSprop",
            builder=_optax,
            point_estimate=True,
            num_chains=1,
        ),
        Method(
            name="ensemble",
            backend="optax",
            summary="deep ensemble: point estimates from independent starts and minibatches",
            builder=_optax,
            point_estimate=True,
        ),
        Method(
            name="sgld",
            backend="blackjax",
            summary="stochastic gradient Langevin dynamics (Welling & Teh 2011)",
            builder=_sgld,
        ),
        Method(
            name="psgld",
            backend="probbnn",
            summary="RMS-preconditioned SGLD (Li et al. 2016), preconditioner frozen after warm-up",
            builder=_psgld,
        ),
        Method(
            name="sghmc",
            backend="probbnn",
            summary="SGLD with momentum (Chen et al. 2014), RMS-preconditioned, any temperature",
            builder=_sghmc,
            default_step_size=_sghmc_step_size,
        ),
        Method(
            name="blackjax_sghmc",
            backend="blackjax",
            summary="SGHMC with momentum redrawn every L steps: T = L/(L-1) at best, and no other",
            builder=_blackjax_sghmc,
            default_step_size=lambda data_size, _: (_MEAN_LOSS_RATE / data_size) ** 0.5,
        ),
        Method(
            name="sgnht",
            backend="blackjax",
            summary="SGHMC with a Nosé-Hoover thermostat (Ding et al. 2014)",
            builder=_sgnht,
            default_step_size=lambda data_size, _: (_MEAN_LOSS_RATE / data_size) ** 0.5,
        ),
    )
}
