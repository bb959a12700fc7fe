"""Labels by a semantic network that the user brings."""
