"""Probabilities and labels that no metric takes."""

import numpy as np
import pytest
from predictions import LABELS, PROBS, ROW_METRICS

from probbnn import metrics as m
from probbnn.errors import InputError


@pytest.mark.parametrize("name", [*ROW_METRICS, "reliability", "risk_coverage", "evaluate"])
@pytest.mark.parametrize(
    ("probs", "labels", "message"),
    [
        (PROBS[:0], LABELS[:0], "no rows"),
        (PROBS[None], LABELS, r"shape \(1, 2, 2\)"),
        (PROBS[:, :1], LABELS, "two classes"),
        (PROBS * 1.01, LABELS, "sum to 1"),
        (PROBS * [[1], [np.nan]], LABELS, "1 of 2 rows .* finite .row 1"),
        (np.array([[3.0, -2.0], [0.5, 0.5]]), LABELS, "softmax"),
        (PROBS, LABELS[:1], "1 entries and probs 2 rows"),
        (PROBS, LABELS + 1, r"\[1, 2\]; expected 0 to 1"),
        (PROBS, LABELS - 2, r"\[-2, -1\]"),
        (PROBS, LABELS * 1.0, "float64; expected one integer"),
        (PROBS, np.eye(2, dtype=int), "one-hot"),
    ],
)
def test_bad_predictions_are_refused_in_one_line(name, probs, labels, message):
    with pytest.raises(InputError, match=message) as error:
        getattr(m, name)(probs, labels)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["nll", "brier", "ece", "reliability"])
def test_rows_of_no_class_are_refused_where_a_metric_is_undefined_for_them(name):
    with pytest.raises(InputError, match="labels: 1 of 2 are -1 .no class."):
        getattr(m, name)(PROBS, [0, -1])
