"""Samplers: where along its ray each sample lies. All files count; ``sampler.Sampler`` is what they share."""
