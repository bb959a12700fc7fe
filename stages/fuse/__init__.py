"""Fuse: the SDF bricks of all blocks blended on one lattice, one surface extracted from them, cleaned and coloured."""
