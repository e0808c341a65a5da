"""Did the chains arrive, do they agree, and at which temperature did they really sample?

- `convergence`: R-hat, effective sample size and their kin, of the function at probe inputs
- `ranks`: the statistics themselves, of many quantities at once
- `temperature`: what R-hat cannot see
- `verdict`: one word on all of it, by stated rules
"""

from probbnn.diagnostics.convergence import Convergence, Diagnostic, Mixing, diagnose
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
]
