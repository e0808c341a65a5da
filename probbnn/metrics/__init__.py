"""Metrics of predictions: plain arrays in, one number out.

- `calibration`: accuracy, NLL, Brier score, expected calibration error, reliability diagram
- `selective`: accuracy against confidence, risk-coverage curve and the areas under it
- `ood`: scores for out-of-distribution inputs, and AUROC, AUPR, FPR95 of a score
- `fidelity`: agreement, total variation and entropy error against a reference posterior
- `regression`: errors, proper scores and coverage of means and spreads, or of replicates
- `bootstrap`: an interval around any of them
- `evaluate`: all those of a predictive at once

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
from probbnn.metrics.evaluate import Evaluation, evaluate
from probbnn.metrics.fidelity import (
    Fidelity,
    agreement,
    entropy_error,
    evaluate_fidelity,
    total_variation,
)
from probbnn.metrics.ood import (
    OodEvaluation,
    OodMetrics,
    aupr,
    auroc,
    entropy,
    evaluate_ood,
    fpr95,
    max_prob_score,
)
from probbnn.metrics.regression import (
    RegressionEvaluation,
    RegressionFidelity,
    SampleEvaluation,
    evaluate_regression,
    evaluate_replicates,
    pit,
    regression_fidelity,
)
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
    "Fidelity",
    "Interval",
    "OodEvaluation",
    "OodMetrics",
    "RegressionEvaluation",
    "RegressionFidelity",
    "Reliability",
    "RiskCoverage",
    "SampleEvaluation",
    "accuracy",
    "accuracy_vs_confidence",
    "agreement",
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
    "entropy_error",
    "evaluate",
    "evaluate_fidelity",
    "evaluate_ood",
    "evaluate_regression",
    "evaluate_replicates",
    "fpr95",
    "max_prob_score",
    "nll",
    "pit",
    "regression_fidelity",
    "reliability",
    "risk_coverage",
    "total_variation",
]
