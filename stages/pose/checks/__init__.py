"""What makes a sparse model unbelievable, and what is done about it."""
