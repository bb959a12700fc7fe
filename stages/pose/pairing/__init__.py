"""Pairs of photos: proposed by order, GPS and similarity, matched, and expanded in rounds."""
