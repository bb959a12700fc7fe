"""Checks of a sparse model: photos, cameras and groups of photos that are registered wrongly, and what is done then."""
