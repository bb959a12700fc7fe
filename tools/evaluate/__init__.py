"""Evaluate: how near a run's mesh and cameras are to a reference."""
