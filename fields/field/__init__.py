"""Fields of a block: its surface, heads for color and semantic class, and the background."""
