"""An experiment: a network, its data, its prior, and the methods that share them.

Importing this module is cheap.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MethodRun"]


@dataclass(frozen=True)
class MethodRun:
    """One row of an experiment: a method and what it runs with.

    Attributes:
        label: what tables and figures call it.
        num_chains: chains, or members of an ensemble.
        num_steps: steps per chain, warm-up included.
        warmup: fraction of the steps from which no draw is kept.
        draws: draws kept per chain, evenly spaced after warm-up.
        settings: the method's own settings. A step size may be a schedule as `cosine` gives it.
        shared_minibatches: see `probbnn.sample`.
        start_spread: ``None`` starts each chain from its own initialisation; a number starts all
            from a common one plus N(0, start_spread²) noise.
    """

    label: str
    num_chains: int
    num_steps: int
    warmup: float = 0.5
    draws: int = 100
    settings: Mapping[str, Any] = field(default_factory=dict)
    shared_minibatches: bool = False
    start_spread: float | None = None
