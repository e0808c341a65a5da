"""Figures, and (later) the HTML report, of a run."""
