"""Renderers: from samples along a ray to opacities. A file here that builds on ``renderer.Renderer`` adds one."""
