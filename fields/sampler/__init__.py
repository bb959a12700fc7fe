"""Samplers: where along its ray each sample lies. A file here that builds on ``sampler.Sampler`` adds one."""
