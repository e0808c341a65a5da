"""Predictions and scores that the tests of the metrics share."""

import json

import numpy as np
from hypothesis import strategies as st
from scipy.special import softmax

ROW_METRICS = ["accuracy", "nll", "brier", "ece", "aurc", "eaurc", "augrc"]
PROBS, LABELS = np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 1])


def softmax_case(seed=0, n=2000, k=10):
    rng = np.random.default_rng(seed)
    probs = softmax(12.0 * rng.random((n, k)), axis=1)
    flat = (0.7 * probs + 0.3 / k).cumsum(1)
    labels = (rng.random((n, 1)) > flat).sum(1).clip(0, k - 1)
    return probs, labels


def vote_case(num_votes=10):
    """Histograms of votes drawn from `softmax_case`: confidences full of ties."""
    probs, labels = softmax_case()
    rng = np.random.default_rng(1)
    votes = [
        (rng.random((len(probs), 1)) > probs.cumsum(1)).sum(1).clip(0, 9) for _ in range(num_votes)
    ]
    return np.eye(10)[np.array(votes)].sum(0) / num_votes, labels


@st.composite
def votes_and_labels(draw, lowest_label=-1):
    """A few rows of five votes over three classes, and labels."""
    votes = st.lists(st.integers(0, 2), min_size=5, max_size=5)
    rows = draw(st.lists(votes, min_size=1, max_size=12))
    label = st.integers(lowest_label, 2)
    labels = draw(st.lists(label, min_size=len(rows), max_size=len(rows)))
    return np.array([np.bincount(row, minlength=3) / 5 for row in rows]), np.array(labels)


def assert_clean(result):
    """No NaN or Infinity, neither for people nor for machines."""
    assert "nan" not in str(result).lower()
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()
