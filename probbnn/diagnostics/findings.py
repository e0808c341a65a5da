"""All that is found of a run's convergence, as plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from probbnn.diagnostics.arviz_seam import LOO
from probbnn.diagnostics.between_chains import CrossChain, Disagreement
from probbnn.diagnostics.held_out import Running
from probbnn.diagnostics.mixing import Mixing

__all__ = ["Findings"]


@dataclass(frozen=True)
class Findings:
    """What was found. What the tree had no data for is ``None``, and `missing` says why.

    Attributes:
        num_chains: number of chains.
        num_draws: draws per chain.
        method: the method's name, ``""`` where the tree does not say.
        temperature: T that the run was asked for, ``None`` where the tree does not say.
        function: mixing of the function's values at the probes.
        parameters: mixing of parameters: of a random subset for a tree made by `Draws`.
        within_chain: R-hat of each chain against itself, in quarters, ``(chain, value)``.
        spread: each chain's standard deviation in units of the median of those that move, median
            over the values, ``(chain,)``: 0 stands still.
        leave_one_chain_out: share of values with R-hat > 1.01 without each chain, ``(chain,)``.
        distances: each chain's distance from the others in standard errors, median over the values
            with R-hat > 1.01, ``(chain,)``.
        nested_rhat: of each value, ``(value,)``, where superchains were given.
        num_superchains: how many these are.
        cross_chain: how far the chains move together.
        running: NLL and accuracy against draws.
        disagreement: between the chains' predictives.
        loo: PSIS-LOO of the examples in ``log_likelihood``.
        drift: R-hat of each chain's log density against itself late in the run, median over the
            chains.
        num_nonfinite: draws, over all chains, at which something is NaN or infinite.
        num_divergent: draws that ended a divergent trajectory, of kernels that say so.
        missing: what is ``None``, and why.
    """

    num_chains: int
    num_draws: int
    method: str = ""
    temperature: float | None = None
    function: Mixing | None = None
    parameters: Mixing | None = None
    within_chain: np.ndarray | None = None
    spread: np.ndarray | None = None
    leave_one_chain_out: np.ndarray | None = None
    distances: np.ndarray | None = None
    nested_rhat: np.ndarray | None = None
    num_superchains: int | None = None
    cross_chain: CrossChain | None = None
    running: Running | None = None
    disagreement: Disagreement | None = None
    loo: LOO | None = None
    drift: float | None = None
    num_nonfinite: int = 0
    num_divergent: int | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def judged(self) -> Mixing | None:
        """The values that convergence is judged by: the function's, or else the parameters."""
        return self.parameters if self.function is None else self.function

    @property
    def space(self) -> str:
        """What `judged` is about."""
        return "parameters" if self.function is None else "probe values"
