"""Ready-made and user-made experiments, written to run directories."""
