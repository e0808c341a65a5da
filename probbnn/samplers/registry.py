"""The registry of methods: what `sample` and the command line can be asked for by name.

Importing this module is cheap; a method's library is imported when the method is built.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from probbnn.errors import InputError, one_of

if TYPE_CHECKING:
    from probbnn.inference.whole_chains import Sampler
    from probbnn.posterior.base import Target
    from probbnn.posterior.flax import LogDensity
    from probbnn.samplers.base import Kernel

__all__ = ["METHODS", "Method", "find_method"]

# A step size of this over N is stable wherever the mean loss is with this learning rate.
_MEAN_LOSS_RATE = 0.02
# What the windows of an adaptive warm-up need, as Stan has it.
_SHORTEST_WARMUP = 20


@dataclass(frozen=True)
class Method:
    """One way to explore a `Target`.

    Attributes:
        name: what it is called in `sample` and on the command line.
        backend: the library whose kernel it runs.
        family: "optimisation", "SG-MCMC" (on minibatches), "MCMC" (on all the data, or a
            minibatch that is part of the state) or "approximation" (a fitted Gaussian).
        summary: one line for a person.
        builder: ``(target, num_warmup, **settings)`` to a `Kernel`, which takes steps on
            minibatches, or to a `Sampler`, which runs a whole chain; its keyword-only parameters
            are the method's settings and their defaults.
        point_estimate: whether only the last step counts (an optimiser), rather than all draws.
        full_data: whether it looks at all the data at each step, and takes no batch size.
        num_chains: number of chains (or ensemble members) unless told otherwise.
        num_steps: steps per chain unless told otherwise, warm-up included.
        default_step_size: ``(N, settings) -> step size`` of methods whose default is ``None``.
    """

    name: str
    backend: str
    family: str
    summary: str
    builder: Callable[..., "Kernel | Sampler"]
    point_estimate: bool = False
    full_data: bool = False
    num_chains: int = 4
    num_steps: int = 5_000
    default_step_size: Callable[[int, Mapping[str, Any]], float] = lambda data_size, settings: (
        _MEAN_LOSS_RATE / data_size
    )

    @property
    def is_markov_chain(self) -> bool:
        """Whether its draws are the steps of a Markov chain, which can fail to converge."""
        return self.family in ("SG-MCMC", "MCMC")

    @property
    def defaults(self) -> dict[str, Any]:
        """The method's settings with their default values."""
        parameters = inspect.signature(self.builder).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def build(
        self, target: "Target", num_warmup: int, settings: Mapping[str, Any]
    ) -> "Kernel | Sampler":
        """The kernel or sampler for ``target`` with the given settings.

        Raises:
            InputError: if a setting is unknown to the method or outside its range.
        """
        return self.builder(target, num_warmup, **self.complete(target, settings))

    def complete(self, target: "Target", settings: Mapping[str, Any]) -> dict[str, Any]:
        """All settings that the method runs with: the given ones, and defaults.

        Raises:
            InputError: if a setting is unknown to the method.
        """
        for name in settings:
            one_of(name, self.defaults, f"setting of {self.name}")
        complete = {**self.defaults, **settings}
        if complete.get("step_size", 0) is None:
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
    target: "Target",
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

    from probbnn.samplers.base import as_schedule
    from probbnn.samplers.from_optax import optimizer as build

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
    target: "Target",
    num_warmup: int,
    *,
    step_size: Any = None,
    temperature: float = 1.0,
) -> "Kernel":
    """``step_size`` is 0.02/N unless given."""
    from probbnn.samplers.from_blackjax import sgld

    return sgld(target.value_and_grad_estimator, step_size, temperature)


def _psgld(
    target: "Target",
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
    from probbnn.samplers.psgld import psgld

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
    target: "Target",
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
    from probbnn.samplers.sghmc import sghmc

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
    target: "Target",
    num_warmup: int,
    *,
    step_size: Any = None,
    temperature: float = 1.0,
    num_integration_steps: int = 10,
    alpha: float = 0.01,
) -> "Kernel":
    """``step_size`` is a step in time, √(0.02/N) unless given; ``temperature`` must be 1."""
    from probbnn.samplers.from_blackjax import sghmc

    return sghmc(
        target.value_and_grad_estimator,
        step_size,
        temperature,
        num_integration_steps=num_integration_steps,
        alpha=alpha,
    )


def _sgnht(
    target: "Target",
    num_warmup: int,
    *,
    step_size: Any = None,
    temperature: float = 1.0,
    alpha: float = 0.01,
) -> "Kernel":
    """``step_size`` is a step in time, √(0.02/N) unless given."""
    from probbnn.samplers.from_blackjax import sgnht

    return sgnht(target.value_and_grad_estimator, step_size, temperature, alpha=alpha)


def _nuts(
    target: "Target",
    num_warmup: int,
    *,
    target_acceptance_rate: float = 0.8,
    max_tree_depth: int = 10,
) -> "Sampler":
    from probbnn.samplers.from_blackjax import nuts

    _check_nuts(num_warmup, target_acceptance_rate, max_tree_depth)
    return nuts(
        target, target_acceptance_rate=target_acceptance_rate, max_tree_depth=max_tree_depth
    )


def _numpyro_nuts(
    target: "Target",
    num_warmup: int,
    *,
    target_acceptance_rate: float = 0.8,
    max_tree_depth: int = 10,
) -> "Sampler":
    from probbnn.samplers.from_numpyro import nuts

    _check_nuts(num_warmup, target_acceptance_rate, max_tree_depth)
    return nuts(
        _network(target, "numpyro_nuts"),
        target_acceptance_rate=target_acceptance_rate,
        max_tree_depth=max_tree_depth,
    )


def _mclmc(target: "Target", num_warmup: int, *, desired_energy_var: float = 5e-4) -> "Sampler":
    from probbnn.samplers.from_blackjax import mclmc

    _check_warmup(num_warmup)
    return mclmc(target, desired_energy_var=desired_energy_var)


def _hmcecs(
    target: "Target",
    num_warmup: int,
    *,
    num_blocks: int = 10,
    map_steps: int = 3_000,
    target_acceptance_rate: float = 0.8,
    max_tree_depth: int = 10,
) -> "Sampler":
    """``map_steps`` of Adam find the centre of the Taylor expansion, where the chains start."""
    from probbnn.samplers.from_numpyro import hmcecs

    _check_nuts(num_warmup, target_acceptance_rate, max_tree_depth)
    return hmcecs(
        _network(target, "hmcecs"),
        num_blocks=num_blocks,
        map_steps=map_steps,
        target_acceptance_rate=target_acceptance_rate,
        max_tree_depth=max_tree_depth,
    )


def _svi(
    target: "Target",
    num_warmup: int,
    *,
    guide: str = "normal",
    step_size: Any = 1e-3,
    init_scale: float = 0.01,
    num_draws: int = 500,
) -> "Sampler":
    """All steps fit the guide; ``num_draws`` are then drawn from each chain's fit."""
    from probbnn.samplers.from_numpyro import svi

    return svi(
        _network(target, "svi"),
        guide=guide,
        step_size=step_size,
        init_scale=init_scale,
        num_draws=num_draws,
    )


def _laplace(
    target: "Target",
    num_warmup: int,
    *,
    covariance: str = "last_layer",
    step_size: Any = 1e-3,
    num_draws: int = 500,
) -> "Sampler":
    """All steps look for the MAP estimate; ``num_draws`` are then drawn around each chain's."""
    from probbnn.samplers.from_numpyro import laplace

    return laplace(
        _network(target, "laplace"), covariance=covariance, step_size=step_size, num_draws=num_draws
    )


def _network(target: "Target", method: str) -> "LogDensity":
    from probbnn.posterior.flax import LogDensity

    if not isinstance(target, LogDensity):
        raise InputError(
            f"{method} samples a LogDensity, and the target is a {type(target).__name__}; give "
            "your NumPyro model to NumPyro itself, or choose another method"
        )
    return target


def _check_nuts(num_warmup: int, target_acceptance_rate: float, max_tree_depth: int) -> None:
    _check_warmup(num_warmup)
    if not 0 < target_acceptance_rate < 1:
        raise InputError(
            f"target_acceptance_rate is {target_acceptance_rate}; it must be between 0 and 1"
        )
    if max_tree_depth < 1:
        raise InputError(f"max_tree_depth is {max_tree_depth}; it must be at least 1")


def _check_warmup(num_warmup: int) -> None:
    if num_warmup < _SHORTEST_WARMUP:
        raise InputError(
            f"num_warmup is {num_warmup}; the sampler tunes itself during warm-up and needs at "
            f"least {_SHORTEST_WARMUP} steps, better some hundreds"
        )


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
            family="optimisation",
            summary="point estimate of highest posterior density, by Adam or RMSprop",
            builder=_optax,
            point_estimate=True,
            num_chains=1,
        ),
        Method(
            name="ensemble",
            backend="optax",
            family="optimisation",
            summary="deep ensemble: point estimates from independent starts and minibatches",
            builder=_optax,
            point_estimate=True,
        ),
        Method(
            name="sgld",
            backend="blackjax",
            family="SG-MCMC",
            summary="stochastic gradient Langevin dynamics (Welling & Teh 2011)",
            builder=_sgld,
        ),
        Method(
            name="psgld",
            backend="probbnn",
            family="SG-MCMC",
            summary="RMS-preconditioned SGLD (Li et al. 2016), preconditioner frozen after warm-up",
            builder=_psgld,
        ),
        Method(
            name="sghmc",
            backend="probbnn",
            family="SG-MCMC",
            summary="SGLD with momentum (Chen et al. 2014), RMS-preconditioned, any temperature",
            builder=_sghmc,
            default_step_size=_sghmc_step_size,
        ),
        Method(
            name="blackjax_sghmc",
            backend="blackjax",
            family="SG-MCMC",
            summary="SGHMC with momentum redrawn every L steps: T = L/(L-1) at best, and no other",
            builder=_blackjax_sghmc,
            default_step_size=lambda data_size, _: (_MEAN_LOSS_RATE / data_size) ** 0.5,
        ),
        Method(
            name="sgnht",
            backend="blackjax",
            family="SG-MCMC",
            summary="SGHMC with a Nosé-Hoover thermostat (Ding et al. 2014)",
            builder=_sgnht,
            default_step_size=lambda data_size, _: (_MEAN_LOSS_RATE / data_size) ** 0.5,
        ),
        Method(
            name="nuts",
            backend="blackjax",
            family="MCMC",
            summary="No-U-Turn sampler on all the data (Hoffman & Gelman 2014)",
            builder=_nuts,
            full_data=True,
            num_steps=1_000,
        ),
        Method(
            name="numpyro_nuts",
            backend="numpyro",
            family="MCMC",
            summary="No-U-Turn sampler on all the data",
            builder=_numpyro_nuts,
            full_data=True,
            num_steps=1_000,
        ),
        Method(
            name="mclmc",
            backend="blackjax",
            family="MCMC",
            summary="microcanonical Langevin on all the data, unadjusted (Robnik et al. 2023)",
            builder=_mclmc,
            full_data=True,
            num_steps=10_000,
        ),
        Method(
            name="hmcecs",
            backend="numpyro",
            family="MCMC",
            summary="HMC whose minibatch is part of its state (Dang et al. 2019); small targets",
            builder=_hmcecs,
            num_steps=1_000,
        ),
        Method(
            name="svi",
            backend="numpyro",
            family="approximation",
            summary="variational inference: independent Gaussians fitted to the posterior",
            builder=_svi,
        ),
        Method(
            name="svi_low_rank",
            backend="numpyro",
            family="approximation",
            summary="variational inference: a Gaussian of diagonal plus low-rank covariance",
            builder=partial(_svi, guide="low_rank"),
        ),
        Method(
            name="laplace",
            backend="numpyro",
            family="approximation",
            summary="Laplace approximation in the last layer, the others at their MAP estimate",
            builder=_laplace,
        ),
        Method(
            name="laplace_diagonal",
            backend="numpyro",
            family="approximation",
            summary="Laplace approximation with the diagonal of the Hessian; small targets",
            builder=partial(_laplace, covariance="diagonal"),
        ),
    )
}
