"""Demo: a generated photo collection of an outdoor landmark, with known cameras and known surface."""
