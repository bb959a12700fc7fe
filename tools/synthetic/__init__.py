"""Demo: a generated photo collection of a landmark or a furnished room, with known cameras and known surface."""
