"""What `probbnn.diagnose` returns."""

from dataclasses import dataclass

from probbnn.diagnostics.descriptions import Diagnostic, describe
from probbnn.diagnostics.findings import Findings
from probbnn.files import plain

__all__ = ["Convergence"]


@dataclass(frozen=True, repr=False)
class Convergence(Findings):
    """What `diagnose` found, see `Findings`, and what it means; ``print`` it for all of it."""

    def __repr__(self) -> str:
        return f"Convergence({self.num_chains} chains of {self.num_draws} draws, {self.method})"

    @property
    def diagnostics(self) -> dict[str, Diagnostic]:
        """Each of them with its numbers, what it means, and what to do."""
        return describe(self)

    def __str__(self) -> str:
        title = f"{self.num_chains} chains of {self.num_draws} draws"
        rows = [(d.title, d.result) for d in self.diagnostics.values()]
        width = max(len(name) for name, _ in rows)
        return "\n".join([title, *(f"{name:<{width}}  {result}" for name, result in rows)])

    def to_dict(self) -> dict[str, object]:
        """Every diagnostic by name for JSON, with ``None`` for what is undefined."""
        return {
            "num_chains": self.num_chains,
            "num_draws": self.num_draws,
            "space": self.space,
            "num_nonfinite": self.num_nonfinite,
            "num_divergent": self.num_divergent,
            "diagnostics": {
                name: {**d._asdict(), "numbers": plain(d.numbers)}
                for name, d in self.diagnostics.items()
            },
        }
