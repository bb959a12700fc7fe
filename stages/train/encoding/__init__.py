"""What a point is turned into before a network sees it."""
