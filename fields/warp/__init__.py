"""Warps from the space of a photo's moment to the field's own: ``warp(points, condition) -> points, jacobian``."""
