"""Cameras, similarity transforms, frusta, covisibility, the voxel lattice, planes. Arrays in, arrays out."""
