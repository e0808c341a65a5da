"""Preconditioned stochastic gradient Langevin dynamics (pSGLD), RMSprop's preconditioner.

One step from θ with the gradient estimate g, on the scale of the log density, and the
preconditioner G = 1/(λ + √V) of `probbnn.samplers.preconditioners`, which sees g first:

    θ ← θ + h (G·g + T·Γ) + √(2hTG) ξ,   ξ ~ N(0, I)

Source: Li, Chen, Carlson & Carin (2016), "Preconditioned stochastic gradient Langevin dynamics
for deep neural networks", algorithm 1. Their ε is 2h. They feed V with the *mean* gradient ḡ, on
whose scale λ is N times smaller than here: their λ = 1e-5 is λ = 0.6 for N = 60,000.

For h → 0 the chain samples p(θ)^{1/T} if G is constant, that is, once the preconditioner is
*frozen*. While G adapts, the drift lacks Γ_i = ∂G_i/∂θ_i and the stationary distribution is biased,
even with exact gradients. ``gamma`` adds it:

    D ← αD + (1−α) ∂g²/∂θ           Γ = −½G² D/√V

The paper's eq. 7 has the newest term of D alone. But V remembers some 1/(1−α) steps, over which a
chain with a small step size has hardly moved: the older terms weigh as much as they do in V, and
leaving them out leaves most of the bias (docs/correctness.md). The paper has T = 1; the
correction of a diffusion T·G is T·Γ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from probbnn.errors import InputError
from probbnn.posterior.base import Posterior
from probbnn.samplers.base import Kernel, Method, StepInfo, as_schedules
from probbnn.samplers.noise import normal_like
from probbnn.samplers.preconditioners import RMSPreconditioner, check_freeze
from probbnn.types import Position, PRNGKey, PyTree, StepSize, ValueAndGrad

__all__ = ["PSGLD", "PSGLDInfo", "PSGLDState", "build_kernel", "init", "psgld"]

Gamma = Literal["exact", "hutchinson"] | None


class PSGLDState(NamedTuple):
    """State of the pSGLD chain.

    Attributes:
        position: θ, a pytree of parameters.
        second_moment: V, running average of the squared gradient estimates, a pytree like θ.
        step: number of steps taken, an int32 scalar.
        slope: D, running average of the derivatives of the squared gradient estimates, a pytree
            like θ; an empty tuple without Γ.
    """

    position: Position
    second_moment: PyTree
    step: jax.Array
    slope: PyTree = ()


PSGLDInfo = StepInfo


def init(position: Position, gamma: Gamma = None) -> PSGLDState:
    """The state of a chain that starts at ``position`` with V = 0 and D = 0."""
    zeros = jax.tree.map(jnp.zeros_like, position)
    step = jnp.zeros((), jnp.int32)
    return PSGLDState(position, zeros, step, () if gamma is None else zeros)


def build_kernel(rms: RMSPreconditioner, gamma: Gamma = None) -> Callable:
    """Build the pSGLD transition kernel.

    Args:
        rms: the preconditioner's settings.
        gamma: ``None`` leaves Γ out, as published implementations do; ``"exact"`` computes the
            Hessian's diagonal with one Jacobian-vector product per parameter (small targets);
            ``"hutchinson"`` estimates it without bias from one Rademacher probe a step. Once the
            preconditioner is frozen, Γ is 0. It corrects for how V depends on θ; that V has
            also seen the noise of the minibatch whose gradient it scales, no Γ corrects.

    Returns:
        ``kernel(rng_key, state, value_and_grad_estimator, minibatch, step_size, temperature=1.0)
        -> (PSGLDState, PSGLDInfo)``, where ``value_and_grad_estimator(position, minibatch)``
        gives an estimate of the log density and its gradient, as
        `LogDensity.value_and_grad_estimator` does.

    Raises:
        InputError: if there is no such gamma.
    """
    if gamma is not None and gamma not in _HESSIAN_DIAGONALS:
        raise InputError(f"gamma is {gamma!r}; choose None, 'exact' or 'hutchinson'")

    def kernel(
        rng_key: PRNGKey,
        state: PSGLDState,
        value_and_grad_estimator: ValueAndGrad,
        minibatch: Any,
        step_size: Any,
        temperature: Any = 1.0,
    ) -> tuple[PSGLDState, PSGLDInfo]:
        noise_key, probe_key = jax.random.split(rng_key)
        position, step = state.position, state.step
        value, grad = value_and_grad_estimator(position, minibatch)
        second_moment = rms.update(state.second_moment, grad, step)
        preconditioner = rms.diagonal(second_moment, step + 1)
        drift = jax.tree.map(jnp.multiply, preconditioner, grad)
        slope: PyTree = ()
        if gamma is not None:
            hessian_diagonal = _HESSIAN_DIAGONALS[gamma](
                probe_key, lambda theta: value_and_grad_estimator(theta, minibatch)[1], position
            )
            slope = jax.tree.map(
                lambda d, g, hessian: (rms.decay * d + (1 - rms.decay) * 2 * g * hessian).astype(
                    d.dtype
                ),
                state.slope,
                grad,
                hessian_diagonal,
            )
            weight = jnp.where(rms.is_frozen(step), 0.0, temperature)
            # D is not corrected for its start at 0: Γ fades in as V becomes an average, since
            # that of the first few gradients alone may be all but infinite.
            normaliser = rms.normaliser(step + 1)
            drift = jax.tree.map(
                lambda drift, g, v, d: drift + weight * _gamma(g, v / normaliser, d),
                drift,
                preconditioner,
                second_moment,
                slope,
            )
        new_position = jax.tree.map(
            lambda theta, d, g, xi: (
                theta + step_size * d + jnp.sqrt(2 * step_size * temperature * g) * xi
            ).astype(theta.dtype),
            position,
            drift,
            preconditioner,
            normal_like(noise_key, position),
        )
        info = PSGLDInfo(value, optax.tree.norm(grad), jnp.asarray(step_size))
        return PSGLDState(new_position, second_moment, step + 1, slope), info

    return kernel


@dataclass(frozen=True)
class PSGLD(Method, name="psgld"):
    """Settings of pSGLD.

    Attributes:
        step_size: h, a positive number, or a schedule ``step -> h`` (any Optax schedule, or a
            `Cyclical`).
        temperature: T > 0; the stationary distribution is p(θ)^{1/T}.
        decay: α, see `RMSPreconditioner`.
        damping: λ.
        bias_correction: whether V is divided by 1 − α^t.
        gamma: see `build_kernel`.
        freeze: keep the preconditioner as warm-up left it, which makes the stationary distribution
            right.

    Raises:
        InputError: if a number is outside its range.
    """

    step_size: StepSize = 1e-3
    temperature: float = 1.0
    decay: float = 0.99
    damping: float = 1.0
    bias_correction: bool = True
    gamma: Gamma = None
    freeze: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.kernel(lambda position, minibatch: (position, position))  # checks all settings

    def build(self, target: Posterior, *, num_warmup: int, batch_size: int) -> Kernel:
        """The kernel that samples ``target``.

        Raises:
            InputError: if the preconditioner is to freeze after a warm-up of no step.
        """
        freeze_after = check_freeze(num_warmup) if self.freeze else None
        return self.kernel(target.value_and_grad_estimator, freeze_after)

    def kernel(
        self, value_and_grad_estimator: ValueAndGrad, freeze_after: int | None = None
    ) -> Kernel:
        """The kernel for any estimate of a log density.

        Args:
            value_and_grad_estimator: ``(position, minibatch) -> (value, gradient)``.
            freeze_after: number of steps after which V, and so G, stays as it is; ``None``: never.
        """
        rms = RMSPreconditioner(self.decay, self.damping, self.bias_correction, freeze_after)
        kernel = build_kernel(rms, self.gamma)
        step_sizes, temperatures = as_schedules(self.step_size, self.temperature)

        def init_fn(position: Position, rng_key: PRNGKey | None = None) -> PSGLDState:
            return init(position, self.gamma)

        def step_fn(
            rng_key: PRNGKey, state: PSGLDState, minibatch: Any
        ) -> tuple[PSGLDState, PSGLDInfo]:
            h, t = step_sizes(state.step), temperatures(state.step)
            return kernel(rng_key, state, value_and_grad_estimator, minibatch, h, t)

        def noise_gain(state: PSGLDState) -> PyTree:
            return optax.tree.scale(0.5, rms.diagonal(state.second_moment, state.step))

        return Kernel(
            init_fn,
            step_fn,
            noise_gain=noise_gain,
            step_size=self.step_size,
            temperature=self.temperature,
            # What Γ costs beside the gradient depends on the network.
            gradients_per_step=1 if self.gamma is None else None,
        )


def psgld(
    value_and_grad_estimator: ValueAndGrad,
    step_size: StepSize,
    temperature: float = 1.0,
    *,
    freeze_after: int | None = None,
    **settings: Any,
) -> Kernel:
    """The sampler: ``init(position)`` and ``step(rng_key, state, minibatch) -> (state, info)``.

    Args:
        value_and_grad_estimator: ``(position, minibatch) -> (value, gradient)`` of a log density.
        step_size: h, a positive number, or a schedule ``step -> h``.
        temperature: T > 0; the stationary distribution is p(θ)^{1/T}.
        freeze_after: number of steps after which V, and so G, stays as it is; ``None``: never.
        **settings: the others of `PSGLD`.

    Raises:
        InputError: if a number is outside its range.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> def standard_normal(position, minibatch):
        ...     return -0.5 * position**2, -position
        >>> sampler = psgld(standard_normal, step_size=1e-2)
        >>> state = sampler.init(jnp.array(1.0))
        >>> state, info = sampler.step(jax.random.key(0), state, None)
        >>> float(info.logdensity)
        -0.5
    """
    method = PSGLD.of({"step_size": step_size, "temperature": temperature, **settings})
    return method.kernel(value_and_grad_estimator, freeze_after)


def _gamma(g: jax.Array, v: jax.Array, slope: jax.Array) -> jax.Array:
    """∂G/∂θ of G = 1/(λ + √V), where V has the derivative ``slope``."""
    root = jnp.sqrt(v)
    return jnp.where(root > 0, -0.5 * g**2 * slope / jnp.where(root > 0, root, 1.0), 0.0)


def _exact_hessian_diagonal(rng_key: PRNGKey, grad_fn: Callable, position: Position) -> PyTree:
    flat, unravel = ravel_pytree(position)

    def entry(basis_vector: jax.Array) -> jax.Array:
        tangent = unravel(basis_vector)
        _, product = jax.jvp(grad_fn, (position,), (tangent,))
        return jnp.vdot(ravel_pytree(product)[0], basis_vector)

    return unravel(jax.lax.map(entry, jnp.eye(flat.size, dtype=flat.dtype)))


def _hutchinson_hessian_diagonal(rng_key: PRNGKey, grad_fn: Callable, position: Position) -> PyTree:
    """Unbiased estimate z ∘ Hz with independent signs z (Bekas et al. 2007)."""
    leaves, structure = jax.tree.flatten(position)
    keys = jax.random.split(rng_key, len(leaves))
    signs = jax.tree.unflatten(
        structure,
        [
            jax.random.rademacher(key, leaf.shape, leaf.dtype)
            for key, leaf in zip(keys, leaves, strict=True)
        ],
    )
    _, product = jax.jvp(grad_fn, (position,), (signs,))
    return jax.tree.map(jnp.multiply, signs, product)


_HESSIAN_DIAGONALS = {
    "exact": _exact_hessian_diagonal,
    "hutchinson": _hutchinson_hessian_diagonal,
}
