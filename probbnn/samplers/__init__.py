"""Everything that moves or fits a position, one sampler a file."""
