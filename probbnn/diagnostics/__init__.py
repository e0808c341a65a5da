"""Convergence of the chains, the temperature that they sampled at, and a verdict on both.

- `diagnosis`: all of convergence from an ArviZ tree, in a `result`
- `trees`: from a tree to arrays
- `ranks`: R-hat, effective sample size and their kin, of many quantities at once
- `mixing`: these, of the function at probe inputs or of parameters
- `between_chains`, `drift`, `held_out`: what else a tree says about its chains
- `arviz_seam`: either version of ArviZ, and PSIS-LOO by it
- `descriptions`: what each diagnostic means, and what to do if it is bad
- `temperature`: what R-hat cannot see
- `verdict`: one word on all of it, by stated rules
"""

from probbnn.diagnostics.arviz_seam import to_arviz
from probbnn.diagnostics.descriptions import Diagnostic
from probbnn.diagnostics.diagnosis import diagnose
from probbnn.diagnostics.mixing import Mixing
from probbnn.diagnostics.result import Convergence
from probbnn.diagnostics.temperature import TemperatureMeters, measure_temperature
from probbnn.diagnostics.verdict import Verdict, diverged, judge

__all__ = [
    "Convergence",
    "Diagnostic",
    "Mixing",
    "TemperatureMeters",
    "Verdict",
    "diagnose",
    "diverged",
    "judge",
    "measure_temperature",
    "to_arviz",
]
