"""What every method returns: draws of the parameters, how they came about, and an ArviZ view."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from probbnn.errors import InputError

if TYPE_CHECKING:
    import xarray

    from probbnn.logdensity import LogDensity

__all__ = ["Draws"]


@dataclass(frozen=True)
class Draws:
    """Draws of a network's parameters from one method.

    Attributes:
        positions: pytree of NumPy arrays of shape ``(chain, draw, …)``.
        method: name of the method.
        temperature: T of the law that was sampled: 1 is the posterior; ``None`` for point
            estimates, which sample nothing, and where a ready-made kernel does not say.
        sample_stats: per-draw statistics of shape ``(chain, draw)``, for instance the minibatch
            estimate of the log density and the norm of its gradient.
        trace: the same statistics at *every* step, warm-up included, shape ``(chain, step)``.
        draw_steps: number of steps taken at each draw, shape ``(draw,)``, where known.
        noise_gain: how gradient noise heats each coordinate, per unit of step size, as
            `Kernel.noise_gain` has it at the last step: leaves of shape ``(chain, …)``; ``None``
            where it is unknown.
        settings: the settings that the method ran with.
        seconds: wall time of the steps, compilation apart.
        compile_seconds: wall time of tracing and compilation.
    """

    positions: Any
    method: str
    temperature: float | None = None
    sample_stats: Mapping[str, np.ndarray] = field(default_factory=dict)
    trace: Mapping[str, np.ndarray] = field(default_factory=dict)
    draw_steps: np.ndarray | None = None
    noise_gain: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    compile_seconds: float = 0.0

    @property
    def num_chains(self) -> int:
        """Number of chains (or ensemble members)."""
        return jax.tree.leaves(self.positions)[0].shape[0]

    @property
    def num_draws(self) -> int:
        """Number of draws per chain."""
        return jax.tree.leaves(self.positions)[0].shape[1]

    def last(self) -> "Draws":
        """The last draw of each chain alone."""
        return replace(
            self,
            positions=jax.tree.map(lambda leaf: leaf[:, -1:], self.positions),
            sample_stats={name: stat[:, -1:] for name, stat in self.sample_stats.items()},
            draw_steps=None if self.draw_steps is None else self.draw_steps[-1:],
        )

    def to_datatree(
        self,
        target: "LogDensity | None" = None,
        probes: Mapping[str, np.ndarray] | None = None,
    ) -> "xarray.DataTree":
        """An ArviZ `DataTree` with dims ``chain, draw`` for `az.summary`, `az.rhat`, NetCDF, ….

        The weights themselves are not in it (their R-hat says little and they are many); the
        group ``posterior`` holds the root mean square of each leaf, named ``rms_<leaf>``, and
        ``sample_stats`` the per-draw statistics. With ``target``, ``posterior`` also holds the
        full-data log density ``log_density`` of each draw; with ``probes`` as well,
        ``posterior_predictive`` holds the outputs there (class probabilities ``probability`` for
        a classifier, network outputs ``output`` otherwise).

        Args:
            target: the `LogDensity` that was sampled.
            probes: named sets of inputs, each ``(n, *input_shape)``, where the function that the
                network computes is to be followed. Coordinates are ``name[i]``.
        """
        import xarray as xr

        from probbnn.predictive import logdensities, outputs_per_draw

        dims = ("chain", "draw")
        coords: dict[str, Any] = {
            "chain": np.arange(self.num_chains),
            "draw": np.arange(self.num_draws),
        }
        posterior: dict[str, Any] = {
            f"rms_{name}": (dims, rms) for name, rms in _leaf_rms(self.positions).items()
        }
        groups = {}
        if probes and target is None:
            raise InputError("to_datatree got probes but no target to evaluate there; give both")
        if target is not None:
            posterior["log_density"] = (dims, logdensities(target, self))
        if target is not None and probes:
            names = [f"{name}[{i}]" for name, inputs in probes.items() for i in range(len(inputs))]
            kind, outputs = outputs_per_draw(target, self, np.concatenate(list(probes.values())))
            axes = ("probe", "class" if kind == "probability" else "unit")
            groups["/posterior_predictive"] = xr.Dataset(
                {kind: ((*dims, *axes), outputs)},
                coords={**coords, "probe": names, axes[-1]: np.arange(outputs.shape[-1])},
            )
        groups["/posterior"] = xr.Dataset(posterior, coords=coords)
        groups["/sample_stats"] = xr.Dataset(
            {name: (dims, stat) for name, stat in self.sample_stats.items()},
            coords=coords
            if self.draw_steps is None
            else {**coords, "step": ("draw", self.draw_steps)},
        )
        tree = xr.DataTree.from_dict(groups)
        tree.attrs["method"] = self.method
        if self.temperature is not None:
            tree.attrs["temperature"] = self.temperature
        return tree


def _leaf_rms(positions: Any) -> dict[str, np.ndarray]:
    """Root mean square of each leaf, shape ``(chain, draw)``, by the leaf's dotted path."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): np.sqrt(
            np.mean(np.square(leaf, dtype=float), axis=tuple(range(2, leaf.ndim)))
        )
        for path, leaf in jax.tree.leaves_with_path(positions)
    }
