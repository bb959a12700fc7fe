"""Render: held-out views and films of the trained blocks."""
