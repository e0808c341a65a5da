"""Transition kernels written here, one a file."""
