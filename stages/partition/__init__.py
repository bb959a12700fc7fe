"""Partition: the region to reconstruct, its voxel lattice, and blocks of whole bricks with the photos that see them."""
