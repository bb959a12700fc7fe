"""How samples along a ray become a colour, or a ray finds the surface."""
