"""What is said of each method."""

from probbnn.report import verdicts
from probbnn.report.load import collect


def test_verdict_is_printed(run_directory):
    meters, verdict = verdicts.lines(*collect([run_directory]))
    assert meters.startswith("psgld: sampling at T")
    assert verdict.startswith("psgld: not converged (the run is too short); next: ")
