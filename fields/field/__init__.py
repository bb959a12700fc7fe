"""Fields of a block: surface, color, appearance of photos, semantic class, and the background."""
