"""Encodings: features of a point, the input of a network. One file a kind; ``encoding.Encoding`` is what they share."""
