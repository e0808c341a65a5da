"""A log density as a NumPyro model: the way back from `from_numpyro`."""

from collections.abc import Mapping
from typing import Any

import jax
import numpyro
from numpyro import distributions as dist

from probbnn.errors import InputError
from probbnn.posterior.flax import LogDensity, Parts
from probbnn.tree import leaf_names
from probbnn.types import Batch, Position

__all__ = ["NumPyroModel", "to_numpyro"]


def to_numpyro(target: LogDensity) -> "NumPyroModel":
    """The posterior as a NumPyro model, for NumPyro's own MCMC, SVI and `Predictive`.

    Raises:
        InputError: if the target is no `LogDensity`.

    Examples:
        >>> import jax, numpyro, probbnn as pb
        >>> train, test = pb.load("digits")
        >>> target = pb.LogDensity(pb.MLP(hidden=(10,)), train)
        >>> model = pb.to_numpyro(target)
        >>> params = model.params(target.init(jax.random.key(0)))
        >>> list(params)
        ['Dense_0.bias', 'Dense_0.kernel', 'Dense_1.bias', 'Dense_1.kernel']
        >>> value, _ = numpyro.infer.util.log_density(model, (), {}, params)
        >>> bool(abs(value / target.logdensity_fn(model.position(params)) - 1) < 1e-5)
        True
    """
    if not isinstance(target, LogDensity):
        raise InputError(
            f"the target is a {type(target).__name__}, and a LogDensity is expected; a NumPyro "
            "model of your own can be given to NumPyro itself"
        )
    return NumPyroModel(target)


class NumPyroModel:
    """A NumPyro model: call it within NumPyro's inference or under its handlers.

    Each leaf of the position is a site with its prior, called by its dotted path (`params` shows
    the names); the data are the observed site ``"targets"`` in the plate ``"examples"``. NumPyro
    starts a chain at uniform(−2, 2) weights, a bad place for a network, unless it is given
    ``init_params``.
    """

    def __init__(self, target: LogDensity) -> None:
        self.target = target
        # Sites of the leaves, apart from those of the data and each other.
        names = ["examples", "targets"]
        for name in leaf_names(target.shapes):
            while name in names:
                name = f"{name}.parameter"
            names.append(name)
        self._names = names[2:]

    def __call__(self, subsample_size: int | None = None, batch: Batch | None = None) -> None:
        """The model.

        Args:
            subsample_size: examples in a random minibatch, its log likelihood scaled to all the
                data, as SVI and HMCECS take it; default: all the data.
            batch: examples that somebody else has chosen; their scaled log likelihood is a factor.
        """
        target = self.target
        position = self._sample_position()
        own = target.split(position).likelihood
        if batch is not None:
            count = len(batch.inputs) if batch.mask is None else batch.mask.sum()
            log_probs = target.pointwise_loglikelihood_fn(position, batch)
            numpyro.factor("targets", target.data_size / count * log_probs.sum())
            return
        with numpyro.plate("examples", target.data_size, subsample_size) as index:
            # All of them without gathering, which an index would be.
            everything = subsample_size is None or subsample_size == target.data_size
            some = target.data.gather(slice(None) if everything else index)
            outputs = target.apply(position, some.inputs)
            observed = target.likelihood.numpyro_distribution(outputs, **own)
            if observed is None:
                log_probs = target.likelihood.log_prob(outputs, some.targets, **own)
                numpyro.factor("targets", log_probs)
            else:
                numpyro.sample("targets", observed, obs=some.targets.reshape(observed.shape()))

    def _sample_position(self) -> Position:
        """A site for each leaf of the position, with its prior where NumPyro has such a thing.

        Where it has not, the site is flat and the prior's log density a factor.
        """
        target = self.target
        shapes = target.split(target.shapes)
        of_network = target.prior.numpyro_distributions(shapes.network)
        of_likelihood = target.likelihood.numpyro_prior()
        priors = Parts(
            jax.tree.map(_flat, shapes.network)
            if of_network is None
            else jax.tree.unflatten(jax.tree.structure(shapes.network), of_network),
            jax.tree.map(_flat, shapes.prior),
            of_likelihood or jax.tree.map(_flat, shapes.likelihood),
        )
        leaves = jax.tree.leaves(target.join(priors), is_leaf=_is_distribution)
        values = [numpyro.sample(*site) for site in zip(self._names, leaves, strict=True)]
        position = jax.tree.unflatten(jax.tree.structure(target.shapes), values)
        network, prior, likelihood = target.split(position)
        if of_network is None:
            numpyro.factor("prior", target.prior.log_prob(network, **prior))
        if likelihood and not of_likelihood:
            numpyro.factor("likelihood_prior", target.likelihood.log_prior(**likelihood))
        return position

    def params(self, position: Position) -> dict[str, Any]:
        """A position as values of the sites; leading axes stay.

        Raises:
            InputError: if ``position`` has not the structure of the target's positions.
        """
        structures = (
            str(jax.tree.structure(position)),
            str(jax.tree.structure(self.target.shapes)),
        )
        if structures[0] != structures[1]:
            raise InputError(
                f"the position has the structure {structures[0]}; the network's parameters have "
                f"{structures[1]}"
            )
        return dict(zip(self._names, jax.tree.leaves(position), strict=True))

    def position(self, params: Mapping[str, Any]) -> Position:
        """The way back: the position that values of the sites stand for.

        Leading axes, as of NumPyro's draws, stay; sites that are no parameters are passed over.

        Raises:
            InputError: if a parameter's site is missing.
        """
        missing = [name for name in self._names if name not in params]
        if missing:
            raise InputError(
                f"site {missing[0]} is not among {', '.join(params) or 'no sites'}; the values of "
                "all parameters' sites are needed, as the model names them"
            )
        structure = jax.tree.structure(self.target.shapes)
        return jax.tree.unflatten(structure, [params[name] for name in self._names])


def _flat(leaf: jax.ShapeDtypeStruct) -> dist.Distribution:
    return dist.ImproperUniform(dist.constraints.real, (), ()).expand(leaf.shape).to_event()


def _is_distribution(node: object) -> bool:
    return isinstance(node, dist.Distribution)
