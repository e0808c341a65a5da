"""Figures, as Matplotlib `Figure`s that are saved or put into a page.

- `predictions`: what the predictions of several methods are worth
- `chains`: where chains went and whether they agree
- `costs`: methods against what they took
- `style`: what all of them share: colours, sizes, and how they are written
"""

from probbnn.errors import requires

with requires("a figure", extra="report"):
    from probbnn.report.figures.chains import (
        mixing_figure,
        rhat_figure,
        running_figure,
        trace_figure,
    )
    from probbnn.report.figures.costs import cost_figure, detection_figure
    from probbnn.report.figures.predictions import (
        accuracy_vs_confidence_figure,
        coverage_figure,
        reliability_figure,
        risk_coverage_figure,
        uncertainty_figure,
    )
    from probbnn.report.figures.style import data_uri, family_styles, literal_text, save

__all__ = [
    "accuracy_vs_confidence_figure",
    "cost_figure",
    "coverage_figure",
    "data_uri",
    "detection_figure",
    "family_styles",
    "literal_text",
    "mixing_figure",
    "reliability_figure",
    "rhat_figure",
    "risk_coverage_figure",
    "running_figure",
    "save",
    "trace_figure",
    "uncertainty_figure",
]
