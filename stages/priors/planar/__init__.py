"""Planes of the scene where nothing can be matched."""
