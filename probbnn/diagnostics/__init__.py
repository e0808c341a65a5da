"""What R-hat cannot see: the temperature that a run really sampled at."""

from probbnn.diagnostics.temperature import TemperatureMeters, measure_temperature

__all__ = ["TemperatureMeters", "measure_temperature"]
