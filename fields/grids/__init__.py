"""Grids of signed distances: dense over a block, and sparse near its surface."""
