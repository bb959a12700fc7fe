"""Priors: what can be known of the surface before any training; today dense stereo depth with its support."""
