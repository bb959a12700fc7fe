"""Priors: what is known of the surface before training: depth by stereo or a sensor, planes, sky, labels, exposures."""
