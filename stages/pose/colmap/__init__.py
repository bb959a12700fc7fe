"""COLMAP behind one door: a process of its own, its database, its models as arrays."""
