"""What is learnt: surface, colour, appearance per photo, and what lies outside the block."""
