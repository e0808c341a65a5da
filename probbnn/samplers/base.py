"""The one contract of all samplers, and the settings that build one.

A `Kernel` moves one chain by one step on one minibatch. What warm-up tunes (step size, mass matrix,
a fitted approximation) is part of its state: `adapt` steps through warm-up, `settle` turns what it
has learnt into the state that `step` starts from. A method on all the data asks for no minibatch,
and a fitted approximation is a kernel whose steps after warm-up are independent draws.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from probbnn.checks import check_fields, check_positive
from probbnn.errors import one_of
from probbnn.posterior.base import Posterior
from probbnn.samplers.registry import LINES, Family
from probbnn.samplers.schedules import Cyclical
from probbnn.subsample import random_subset
from probbnn.types import Info, PRNGKey, PyTree, State, StepSize

__all__ = [
    "MEAN_LOSS_RATE",
    "ChainMethod",
    "Kernel",
    "Method",
    "MomentumStepInfo",
    "StepInfo",
    "as_schedule",
    "as_schedules",
    "check_step_size",
    "check_temperature",
    "kinetic_temperature",
    "largest_curvature",
    "untyped",
]

MEAN_LOSS_RATE = 0.02
"""A step size of this over N is stable wherever the mean loss is with this learning rate."""

# Of how many examples, and with how many products, the largest curvature is estimated.
_NUM_EXAMPLES, _NUM_PRODUCTS = 1_000, 20

ChainMethod = Literal["vectorized", "parallel"]
"""How chains run: as one batch, or each in a thread of its own."""


class Kernel(NamedTuple):
    """A sampler of one chain, called as BlackJAX's `SamplingAlgorithm` is.

    Attributes:
        init: ``init(position, rng_key) -> state``, a NamedTuple with a ``position``; the key may
            be left out where nothing is drawn.
        step: ``step(rng_key, state, batch) -> (state, info)``, where info is a NamedTuple of
            scalars with at least ``logdensity``.
        adapt: the same for the steps of warm-up; ``None``: `step` serves them too.
        settle: ``settle(state) -> state`` at the end of warm-up; ``None``: nothing changes.
        noise_gain: ``noise_gain(state) -> pytree`` like the position: by how much noise of unit
            variance in a coordinate of the gradient raises that coordinate's temperature, per
            unit of step size. ½ for SGLD (the noise of h·ĝ has variance h²·Var[ĝ], the injected
            noise 2hT). ``None`` where it is unknown.
        step_size: the step size or schedule that it was built with, if it has one.
        temperature: T of its stationary distribution, if it has one.
        gradients_per_step: gradients that a step takes. ``None``: the info's ``num_gradients``,
            counted since the start, says so, or nobody knows.
        examples_per_gradient: examples that a gradient sums over; ``None``: a minibatch's.
        full_data: whether it looks at all the data by itself and is given no batch.
        chain_method: how chains run fastest.
        looks_ahead: names of what its info reports of the position that the step *started* from.
    """

    init: Callable[..., State]
    step: Callable[..., tuple[State, Info]]
    adapt: Callable[..., tuple[State, Info]] | None = None
    settle: Callable[[State], State] | None = None
    noise_gain: Callable[[State], PyTree] | None = None
    step_size: StepSize | None = None
    temperature: float | None = None
    gradients_per_step: int | None = 1
    examples_per_gradient: float | None = None
    full_data: bool = False
    chain_method: ChainMethod = "vectorized"
    looks_ahead: frozenset[str] = frozenset({"logdensity", "grad_norm"})


class StepInfo(NamedTuple):
    """What one step saw at the position that it started from.

    Attributes:
        logdensity: minibatch estimate of the log density, a scalar.
        grad_norm: Euclidean norm of its gradient, a scalar.
        step_size: h of the step, a scalar.
    """

    logdensity: jax.Array
    grad_norm: jax.Array
    step_size: jax.Array


class MomentumStepInfo(NamedTuple):
    """What one step saw at the position that it started from, and where it left the momentum.

    Attributes:
        logdensity: minibatch estimate of the log density, a scalar.
        grad_norm: Euclidean norm of its gradient, a scalar.
        step_size: h of the step, a scalar.
        kinetic_temperature: ‖u‖²/d of the momentum u after the step, a scalar; T in expectation.
    """

    logdensity: jax.Array
    grad_norm: jax.Array
    step_size: jax.Array
    kinetic_temperature: jax.Array


@dataclass(frozen=True)
class Method:
    """Settings of a method, each declared once, as a field of a subclass.

    ``class PSGLD(Method, name="psgld")`` takes backend, family and summary from its line in
    `probbnn.samplers.registry`; a class that has no line there declares them itself.

    Attributes of the class, which say what the method is:

    - ``name``: what it is called in `sample` and on the command line;
    - ``backend``: the library whose algorithm it runs;
    - ``family``: see `Family`;
    - ``summary``: one line for a person;
    - ``point_estimate``: whether only the last step counts (an optimiser), rather than all draws;
    - ``full_data``: whether it looks at all the data at each step, and takes no batch size;
    - ``default_chains``, ``default_steps``: of a chain unless told otherwise, warm-up included.
    """

    name: ClassVar[str]
    backend: ClassVar[str]
    family: ClassVar[Family]
    summary: ClassVar[str]
    point_estimate: ClassVar[bool] = False
    full_data: ClassVar[bool] = False
    default_chains: ClassVar[int] = 4
    default_steps: ClassVar[int] = 5_000

    def __init_subclass__(cls, *, name: str, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.name = name
        if name in LINES:
            _, cls.backend, cls.family, cls.summary = LINES[name]

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """The method with these settings by name, and its defaults for the others.

        Raises:
            InputError: if one is unknown to the method or outside its range.
        """
        for name in settings:
            one_of(name, cls.defaults(), f"setting of {cls.name}")
        return cls(**settings)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The settings with their default values."""
        return {f.name: f.default for f in dataclasses.fields(cls)}

    @classmethod
    def is_markov_chain(cls) -> bool:
        """Whether its draws are the steps of a Markov chain, which can fail to converge."""
        return cls.family in ("SG-MCMC", "MCMC")

    @property
    def num_fitted_draws(self) -> int | None:
        """Draws from a fit after all steps; ``None``: draws are steps after warm-up."""
        return None

    def default_step_size(self, data_size: int) -> float:
        """The step size where it is ``None``, for N examples."""
        return MEAN_LOSS_RATE / data_size

    def stable_step_size(self, target: Posterior) -> float | None:
        """A step size that does not blow up where chains start, ``None`` where nobody knows.

        For whoever finds that the default, which knows N alone, does.
        """
        return None

    def settings(self, data_size: int) -> dict[str, Any]:
        """All settings that the method runs with on N examples, as they go on record."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        if found.get("step_size", 0) is None:
            found["step_size"] = self.default_step_size(data_size)
        return found

    def written(self) -> dict[str, Any] | None:
        """The settings as JSON has them, ``None`` if one is more than a number or a word."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain = all(x is None or isinstance(x, bool | int | float | str) for x in found.values())
        return found if plain else None

    def build(self, target: Posterior, *, num_warmup: int, batch_size: int) -> Kernel:
        """The kernel that samples ``target``.

        Raises:
            InputError: if the settings do not fit the target or the lengths.
        """
        raise NotImplementedError


def untyped(rng_key: PRNGKey) -> jax.Array:
    """The numbers of a key, which stand for the same key.

    For libraries that use a key twice, which `jax_debug_key_reuse` notes of keys with a type.
    """
    is_typed = jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key)
    if not is_typed or rng_key.dtype != jax.random.key(0).dtype:
        return rng_key
    return jax.random.key_data(rng_key)


def kinetic_temperature(momentum: PyTree) -> jax.Array:
    """‖u‖²/d, a scalar, of a momentum u that is N(0, T) distributed at temperature T."""
    size = sum(leaf.size for leaf in jax.tree.leaves(momentum))
    return optax.tree.norm(momentum, squared=True) / size


def largest_curvature(target: Posterior) -> float:
    """Largest eigenvalue, in absolute value, of the Hessian of the log density at a start.

    An estimate by power iteration, from at most 1,000 examples.
    """
    some = random_subset(target.data_size, _NUM_EXAMPLES)

    def estimate(start_key: PRNGKey, direction_key: PRNGKey) -> jax.Array:
        start, unravel = ravel_pytree(target.init(start_key))
        batch = target.data.gather(some)
        gradient = jax.grad(lambda x: target.logdensity_estimator(unravel(x), batch))

        def product(v: jax.Array) -> jax.Array:
            return jax.grad(lambda x: jnp.vdot(gradient(x), v))(start)

        def iterate(_: int, v: jax.Array) -> jax.Array:
            return product(v / jnp.linalg.norm(v))

        v = jax.random.normal(direction_key, start.shape, start.dtype)
        return jnp.linalg.norm(jax.lax.fori_loop(0, _NUM_PRODUCTS, iterate, v))

    return float(jax.jit(estimate)(*jax.random.split(jax.random.key(0))))


def as_schedule(step_size: StepSize) -> Callable[[Any], Any]:
    """A schedule ``step -> step size`` from a number or from a schedule.

    Raises:
        InputError: if a number is not positive and finite.

    Examples:
        >>> as_schedule(0.1)(1_000)
        0.1
    """
    check_step_size(step_size)
    return step_size if callable(step_size) else optax.constant_schedule(step_size)


def as_schedules(
    step_size: StepSize, temperature: float
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """The schedules ``step -> step size`` and ``step -> temperature`` of a kernel.

    The temperature is constant, except that a `Cyclical` step size turns the noise off (T = 0)
    while it explores.

    Raises:
        InputError: if a number is not positive and finite.
    """
    check_temperature(temperature)
    schedule = as_schedule(step_size)
    if isinstance(step_size, Cyclical):
        return schedule, lambda step: jnp.where(step_size.is_sampling(step), temperature, 0.0)
    return schedule, optax.constant_schedule(temperature)


def check_step_size(step_size: StepSize | None) -> None:
    """Raise `InputError` unless this is a schedule, positive and finite, or ``None``."""
    if step_size is not None and not callable(step_size):
        check_positive(step_size=step_size)


def check_temperature(temperature: float) -> None:
    """Raise `InputError` unless T is positive and finite."""
    check_positive(" (1 is the posterior)", temperature=temperature)
