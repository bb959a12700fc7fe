"""Planes of textureless regions, where stereo matches nothing."""
