"""Renderers: from samples along a ray to opacities. One file a kind; ``renderer.Renderer`` is what they share."""
