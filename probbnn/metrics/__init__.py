"""Metrics of class probabilities: plain arrays in, one number out.

- `calibration`: accuracy, NLL, Brier score, expected calibration error, reliability diagram
- `selective`: accuracy against confidence, risk-coverage curve and the areas under it
- `ood`: scores for out-of-distribution inputs, and AUROC, AUPR, FPR95 of a score
- `bootstrap`: an interval around any of them
- `evaluate`: all of them at once

Everything is NumPy in float64. Probabilities are (n, K), labels integers (n,).
"""

from probbnn.metrics.bootstrap import Interval, bootstrap, bootstrap_each
from probbnn.metrics.calibration import (
    NLL_FLOOR,
    Reliability,
    accuracy,
    brier,
    ece,
    nll,
    reliability,
)
from probbnn.metrics.evaluate import (
    Evaluation,
    OodEvaluation,
    OodMetrics,
    evaluate,
    evaluate_ood,
)
from probbnn.metrics.ood import aupr, auroc, entropy, fpr95, max_prob_score
from probbnn.metrics.selective import (
    AccuracyVsConfidence,
    RiskCoverage,
    accuracy_vs_confidence,
    augrc,
    aurc,
    eaurc,
    risk_coverage,
)

__all__ = [
    "NLL_FLOOR",
    "AccuracyVsConfidence",
    "Evaluation",
    "Interval",
    "OodEvaluation",
    "OodMetrics",
    "Reliability",
    "RiskCoverage",
    "accuracy",
    "accuracy_vs_confidence",
    "augrc",
    "aupr",
    "auroc",
    "aurc",
    "bootstrap",
    "bootstrap_each",
    "brier",
    "eaurc",
    "ece",
    "entropy",
    "evaluate",
    "evaluate_ood",
    "fpr95",
    "max_prob_score",
    "nll",
    "reliability",
    "risk_coverage",
]
