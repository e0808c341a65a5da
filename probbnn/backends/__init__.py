"""How each outside library samples, or optimises, a `LogDensity`: one a file."""
