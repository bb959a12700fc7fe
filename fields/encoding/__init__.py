"""Encodings: features of a point, the input of a network. All files count; ``encoding.Encoding`` is what they share."""
