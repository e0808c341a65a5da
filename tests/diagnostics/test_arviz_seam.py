"""The seam to ArviZ, with an old and a new one that are not there."""

import sys
import warnings

import numpy as np
import pytest

from probbnn.diagnostics.arviz_seam import psis_loo

FAKE = """
import warnings
from types import SimpleNamespace

__version__ = "{version}"
warnings.warn("ArviZ is undergoing a major refactor", FutureWarning)
InferenceData = dict

def loo(data, pointwise, reff):
    assert pointwise
    assert data["log_likelihood"]["examples"].dims == ("chain", "draw", "example")
    warnings.warn("Estimated shape parameter of Pareto distribution is greater than 0.7")
    return SimpleNamespace({names}, se=2.0, pareto_k=[reff, 0.9], good_k=0.7)
"""


@pytest.mark.parametrize(
    ("version", "names"), [("0.23.4", "elpd_loo=1.0, p_loo=3.0"), ("1.3.0", "elpd=1.0, p=3.0")]
)
def test_both_versions_say_the_same_without_a_warning(monkeypatch, tmp_path, version, names):
    (tmp_path / "arviz.py").write_text(FAKE.format(version=version, names=names))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "arviz", None)  # what is there comes back afterwards
    del sys.modules["arviz"]
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        loo = psis_loo(np.zeros((2, 30, 2)), 0.5)
    assert not shown
    assert (loo.elpd, loo.se, loo.p_loo, loo.good_k) == (1.0, 2.0, 3.0, 0.7)
    assert loo.pareto_k.tolist() == [0.5, 0.9]
    assert loo.share_bad == 0.5
