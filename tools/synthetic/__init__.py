"""Synthetic: photo collections of a landmark, a furnished room or a town, with known cameras and a known surface."""
