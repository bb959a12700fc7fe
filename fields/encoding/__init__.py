"""Encodings: features of a point, the input of a network. A file here that builds on ``encoding.Encoding`` adds one."""
