"""A log density and its parts: network, prior, likelihood."""
