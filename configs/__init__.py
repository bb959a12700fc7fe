"""Presets and methods in YAML: what a user may turn."""
