"""Samplers: where along its ray each sample lies. One file a kind; ``sampler.Sampler`` is what they share."""
