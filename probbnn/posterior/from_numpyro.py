"""A user's NumPyro model as a posterior: minibatches are indices of its data plate.

A model says what an example is with a plate over the data, of which it may look at some rows only:

    with numpyro.plate("data", len(y), subsample_size=100) as indices:
        numpyro.sample("obs", dist.Normal(x[indices] @ w, noise), obs=y[indices])

Here the minibatch says which rows those are, as `numpyro.infer.HMCECS` does it, so that any number
of them works whatever ``subsample_size`` was written.
"""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.infer import init_to_sample
from numpyro.infer.util import constrain_fn, potential_energy
from numpyro.primitives import Messenger

from probbnn.arrays import on_device, unmasked
from probbnn.data.sources import DeviceArrays
from probbnn.errors import InputError, first_line
from probbnn.posterior.base import Posterior
from probbnn.types import Batch, Position, PRNGKey

__all__ = ["NumPyroPosterior", "from_numpyro"]


def from_numpyro(model: Callable[..., Any], *args: Any, **kwargs: Any) -> "NumPyroPosterior":
    """The posterior of a NumPyro model, for every method here and for BlackJAX.

    The model needs one plate over the data, and in it the observed sites, computed from the rows
    that the plate's indices (or `numpyro.subsample`) pick. That plate is the one with a
    ``subsample_size``, or else the only one with observed sites and nothing to sample. All that is
    sampled stands outside of it and is continuous.

    Args:
        model: the model, observed data included: what `numpyro.infer.NUTS` takes.
        *args: the model's arguments; NumPy arrays are put on the device.
        **kwargs: the same.

    Raises:
        InputError: if the model cannot be run, or cannot be split into a prior and independent
            examples.

    Examples:
        >>> import jax, jax.numpy as jnp, numpyro, probbnn as pb
        >>> from numpyro import distributions as dist
        >>> def model(x, y):
        ...     w = numpyro.sample("w", dist.Normal(0, 1).expand([3]).to_event(1))
        ...     noise = numpyro.sample("noise", dist.HalfNormal(1))
        ...     with numpyro.plate("data", len(y), subsample_size=10) as indices:
        ...         numpyro.sample("obs", dist.Normal(x[indices] @ w, noise), obs=y[indices])
        >>> x = jax.random.normal(jax.random.key(0), (50, 3))
        >>> target = pb.from_numpyro(model, x, x @ jnp.array([1.0, -2.0, 0.5]))
        >>> draws = pb.sample(
        ...     jax.random.key(1), target, "sghmc", num_steps=200, batch_size=20, progress=False
        ... )
        >>> target.constrain(draws.positions)["noise"].shape
        (4, 100)
    """
    return NumPyroPosterior(model, args, kwargs)


class NumPyroPosterior(Posterior):
    """The posterior of a NumPyro model; `from_numpyro` makes one.

    A position is a dict of the model's own site names to *unconstrained* values, those that
    NumPyro's `biject_to` maps to a site's support; `logdensity_fn` is NumPyro's
    ``-potential_energy``, Jacobians of those maps included. `constrain` leads back to the model's
    values.

    Args:
        model: the model.
        args: its arguments.
        kwargs: its keyword arguments.

    Attributes:
        data: whose inputs are the indices of the data plate's rows, int32 of shape ``(N,)``.
        data_size: N, the size of the data plate.
        plate: its name.
        sites: names of the sites that are sampled, the keys of a position.

    Raises:
        InputError: as `from_numpyro`.
    """

    def __init__(
        self, model: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        if not callable(model):
            raise InputError(f"model is a {type(model).__name__}; give a NumPyro model, a function")
        self._model = model
        self._args, self._kwargs = jax.tree.map(_on_device, (args, dict(kwargs)))
        sites = _survey(model, self._args, self._kwargs)
        self.plate = _data_plate(sites)
        self.sites = _sampled_sites(sites, self.plate)
        data_size, _ = sites[self.plate]["args"]
        indices = jnp.arange(data_size, dtype=jnp.int32)
        self._rows = indices
        super().__init__(DeviceArrays(indices, indices))
        self._check_lengths()
        self._check_rows()

    def init(self, rng_key: PRNGKey) -> dict[str, jax.Array]:
        """A position drawn from the prior.

        Draws of the prior are on the scale of each site and mostly spread wider than the posterior,
        which is what comparing chains with each other needs; NumPyro's own uniform(−2, 2) has no
        such scale. Sites with an improper prior start there nevertheless.
        """
        seeded = handlers.seed(self._outside(self._few), rng_key)
        trace = self._trace(handlers.substitute(seeded, substitute_fn=init_to_sample()))
        sites = {name: trace[name] for name in self.sites}
        return {
            name: biject_to(site["fn"].support).inv(site["value"]) for name, site in sites.items()
        }

    def logprior_fn(self, position: Position) -> jax.Array:
        """Log density of all sites outside the data plate at unconstrained values: a scalar."""
        return self._logprior(position, self._few)

    def pointwise_loglikelihood_fn(self, position: Position, minibatch: Batch) -> jax.Array:
        """Log likelihood of each row of a minibatch, shape ``(b,)``; 0 where masked out.

        Summed over the observed sites in the data plate and over their other dims, and not scaled
        by N/b as NumPyro has it.
        """
        indices, mask = jnp.asarray(minibatch.inputs), minibatch.mask
        if indices.ndim != 1 or not jnp.issubdtype(indices.dtype, jnp.integer):
            raise InputError(
                f"the minibatch's inputs are {indices.dtype} of shape {indices.shape}; for a "
                "NumPyro model they are the indices of rows, integers of shape (b,)"
            )
        if mask is not None:
            # What does not count repeats what does, and so brings no NaN into the gradient.
            indices = jnp.where(mask, indices, indices[jnp.argmax(mask)])
        if len(indices) < self.data_size:
            values = self._loglikelihoods(position, indices)
        else:
            # To numpyro.subsample, N indices mean all rows as they come.
            values = self._loglikelihoods(position, self._rows)[indices]
        return values if mask is None else jnp.where(mask, values, 0.0)

    def constrain(self, position: Position) -> dict[str, jax.Array]:
        """The model's own values at a position, or at many: leading axes stay, as of draws.

        Deterministic sites outside the data plate are among them, as they are in NumPyro's draws:
        a reparametrised site is one of them. Those inside are as long as a minibatch and left out.

        Raises:
            InputError: if ``position`` is not like those of `init`, leading axes apart.

        Examples:
            >>> import numpyro, probbnn as pb
            >>> from numpyro import distributions as dist
            >>> def model(y):
            ...     rate = numpyro.sample("rate", dist.Gamma(2, 1))
            ...     with numpyro.plate("data", len(y)) as indices:
            ...         numpyro.sample("obs", dist.Exponential(rate), obs=y[indices])
            >>> target = pb.from_numpyro(model, np.ones(5))
            >>> target.constrain({"rate": np.zeros((4, 100))})["rate"][0, 0]
            Array(1., dtype=float32)
        """
        num_axes = self._num_leading_axes(position)
        one = jax.tree.map(lambda leaf: np.empty(jnp.shape(leaf)[num_axes:]), position)
        self.check_position(one)
        return constrain_fn(
            self._outside(self._few),
            self._args,
            self._kwargs,
            jax.tree.map(jnp.asarray, position),
            return_deterministic=True,
            batch_ndims=num_axes,
        )

    def check_inputs(self, inputs: Any) -> NoReturn:
        """Raise `InputError`: what `predict` would feed, a NumPyro model has no known place for."""
        raise InputError(
            "predict needs a LogDensity, and this is a NumPyro model; use numpyro.infer.Predictive("
            "model, target.constrain(draws.positions), batch_ndims=2) with the new inputs"
        )

    def _num_leading_axes(self, position: Position) -> int:
        site = self.sites[0]
        if not isinstance(position, Mapping) or site not in position:
            return 0  # and `check_position` says what is wrong
        own = jax.eval_shape(self.init, jax.random.key(0))[site].ndim
        return max(jnp.ndim(position[site]) - own, 0)

    @property
    def _few(self) -> jax.Array:
        """The rows that a model is run on where none is asked for."""
        return self._rows[:2]

    def _trace(self, model: Callable[..., Any]) -> dict[str, Any]:
        return handlers.trace(model).get_trace(*self._args, **self._kwargs)

    def _at(self, indices: jax.Array) -> Callable[..., Any]:
        """The model on these rows of the data plate."""
        return _Rows(self._model, self.plate, indices)

    def _outside(self, indices: jax.Array) -> Callable[..., Any]:
        """The model without what is inside the data plate."""
        return handlers.block(self._at(indices), hide_fn=lambda site: _is_in(site, self.plate))

    def _logprior(self, position: Position, indices: jax.Array) -> jax.Array:
        return -potential_energy(self._outside(indices), self._args, self._kwargs, position)

    def _loglikelihoods(self, position: Position, indices: jax.Array) -> jax.Array:
        """Log likelihoods of some rows: fewer than N, or all of them in their order."""
        values = constrain_fn(self._outside(self._few), self._args, self._kwargs, position)
        trace = self._trace(handlers.substitute(self._at(indices), data=values))
        total = jnp.zeros(len(indices))
        for name, site in trace.items():
            if site["type"] != "sample" or not _is_in(site, self.plate):
                continue
            log_prob = site["fn"].log_prob(site["value"])
            if site["scale"] is not None:
                # The plate has scaled by N/b; what other handlers did is the model's.
                log_prob = log_prob * (site["scale"] * (len(indices) / self.data_size))
            dim = next(f.dim for f in site["cond_indep_stack"] if f.name == self.plate)
            if log_prob.shape[dim] != len(indices):
                raise InputError(f"site '{name}' has {log_prob.shape[dim]} rows")
            rows = jnp.moveaxis(log_prob, dim, 0).reshape(len(indices), -1)
            total = total + rows.sum(axis=1)
        return total

    def _check_lengths(self) -> None:
        """Arrays of all the data would fail on fewer rows, or be broadcast silently on one.

        Two lengths tell them from arrays that happen to have one of them.
        """
        longest = min(self.data_size, 3)
        for length in range(max(longest - 1, 1), longest + 1):
            try:
                position = jax.eval_shape(self.init, jax.random.key(0))
                jax.eval_shape(self._loglikelihoods, position, self._rows[:length])
            except Exception as error:  # whatever the user's model raises on these rows
                raise InputError(
                    f"the model does not follow the indices of plate '{self.plate}': on {length} "
                    f"of its {self.data_size} rows, {first_line(error)}; in the plate, use rows "
                    f"only: with numpyro.plate('{self.plate}', N) as indices: … data[indices]"
                ) from error

    def _check_rows(self) -> None:
        """Rows of right lengths may still be the wrong ones, or depend on each other."""
        if self.data_size < 3:
            return
        last = self.data_size - 1

        @jax.jit
        def values(position: Position, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
            row = self._loglikelihoods(position, rows)[jnp.argmax(rows == last)]
            return row, self._logprior(position, rows)

        # Of two lengths, since a sum over the minibatch may not depend much on its rows.
        minibatches = [0, last], [last, last // 2, 0][: self.data_size - 1]
        position = jax.jit(self.init)(jax.random.key(0))
        with jax.default_matmul_precision("highest"):
            pairs = (values(position, jnp.array(rows)) for rows in minibatches)
            loglikelihoods, logpriors = zip(*pairs, strict=True)
        if not _are_alike(*loglikelihoods):
            raise InputError(
                f"the log likelihood of row {last} of plate '{self.plate}' is "
                f"{loglikelihoods[0]:.6g} or {loglikelihoods[1]:.6g}, depending on the minibatch; "
                "it must depend on that row alone: index the data with the plate's indices, and "
                "mix no rows of a minibatch"
            )
        if not _are_alike(*logpriors):
            raise InputError(
                f"the sites outside plate '{self.plate}' depend on its indices; what is computed "
                "from rows of the data belongs inside it"
            )


class _Rows(Messenger):
    """Gives a plate its indices, in place of the random ones that NumPyro would draw."""

    def __init__(self, model: Callable[..., Any], plate: str, indices: jax.Array) -> None:
        super().__init__(model)
        self.plate = plate
        self.indices = indices

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] == "plate" and msg["name"] == self.plate:
            msg["value"] = self.indices
            # NumPyro warns where this is not the number of indices.
            msg["args"] = (msg["args"][0], len(self.indices))


_Sites = dict[str, Any]  # a NumPyro trace


def _survey(model: Callable[..., Any], args: Any, kwargs: Any) -> _Sites:
    """The sites of the model as it was written, with abstract values."""
    sites: _Sites = {}

    def run(rng_key: PRNGKey) -> None:
        seeded = handlers.seed(model, rng_key)
        started = handlers.substitute(seeded, substitute_fn=init_to_sample())
        sites.update(handlers.trace(started).get_trace(*args, **kwargs))

    try:
        jax.eval_shape(run, jax.random.key(0))
    except Exception as error:  # whatever the user's model raises
        raise InputError(
            f"the NumPyro model cannot be run under JAX on the given arguments: {first_line(error)}"
        ) from error
    return sites


def _data_plate(sites: _Sites) -> str:
    """The plate over the data: the subsampled one, or the only one that it can be."""
    plates = {name: site["args"] for name, site in sites.items() if site["type"] == "plate"}
    subsampled = [name for name, (size, part) in plates.items() if part not in (None, size)]
    declared = [name for name, (_, part) in plates.items() if part is not None]
    possible = [
        name
        for name in plates
        if any(_is_observed(site) and _is_in(site, name) for site in sites.values())
        and not any(_is_latent(site) and _is_in(site, name) for site in sites.values())
    ]
    found = next(filter(None, (subsampled, declared, possible)), [])
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise InputError(
            f"plates {_quoted(found)} could all be the one over the data; exactly one is expected: "
            "give that one a subsample_size, and none to the others"
        )
    others = f"only {_quoted(plates)}, not with observed sites alone" if plates else "none"
    raise InputError(
        f"the model has no plate over its data ({others}); put the observed sites into "
        "numpyro.plate(name, N, subsample_size=b), and what is sampled outside of it"
    )


def _sampled_sites(sites: _Sites, plate: str) -> list[str]:
    """Names of the latent sites, if they and the rest of the model fit."""
    latent = [name for name, site in sites.items() if _is_latent(site)]
    inside = [name for name in latent if _is_in(sites[name], plate)]
    if inside:
        raise InputError(
            f"latent sites {_quoted(inside)} are inside plate '{plate}', one value per row; a "
            "minibatch knows its own rows only: move them out of the plate, or integrate them out"
        )
    if not any(_is_observed(site) and _is_in(site, plate) for site in sites.values()):
        raise InputError(
            f"plate '{plate}' has no observed site; at least one is expected: "
            "numpyro.sample(…, obs=data[indices]) inside the plate"
        )
    discrete = [name for name in latent if sites[name]["fn"].support.is_discrete]
    if discrete:
        raise InputError(
            f"latent sites {_quoted(discrete)} are discrete, and gradients move continuous ones "
            "only; sum them out, as dist.MixtureSameFamily does"
        )
    # random_flax_module declares a param too, but one without arrays once all have a prior.
    params = [n for n, s in sites.items() if s["type"] == "param" and jax.tree.leaves(s["value"])]
    if params:
        raise InputError(
            f"params {_quoted(params)} have no prior, so nothing would sample them; make them "
            "numpyro.sample sites, or give every part of a random module a prior"
        )
    state = [name for name, site in sites.items() if site["type"] == "mutable"]
    if state:
        raise InputError(
            f"the model keeps mutable state ({_quoted(state)}), so its density is no function of "
            "what is sampled alone; use layer or group normalisation instead of batch normalisation"
        )
    if not latent:
        raise InputError("the model has no latent site; there is nothing to sample")
    return latent


def _is_latent(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def _is_observed(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and site["is_observed"]


def _is_in(site: Mapping[str, Any], plate: str) -> bool:
    return any(frame.name == plate for frame in site.get("cond_indep_stack", ()))


def _are_alike(one: jax.Array, other: jax.Array) -> bool:
    """Whether two numbers are the same up to rounding, even that of a bfloat16 network."""
    return np.allclose(one, other, rtol=1e-2, atol=1e-2, equal_nan=True)


def _on_device(leaf: Any) -> Any:
    """NumPy arrays cannot be indexed with traced indices; anything else is the model's affair."""
    is_numeric = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"
    return on_device(unmasked(leaf, "the model's data"), "the model's data") if is_numeric else leaf


def _quoted(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)
