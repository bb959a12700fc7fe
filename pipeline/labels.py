"""What a pixel of a posed photo shows, as far as the priors know (`scene.write_labels`); a byte each."""

from __future__ import annotations

UNKNOWN = 0  # a surface, or nothing is known
SKY = 1  # no surface behind it
PASSING = 2  # people, vehicles: to be ignored

# property ``label`` of the faces of a known surface (truth/mesh.ply of a demo), a byte each
OTHER, FLOOR, CEILING, WALL = range(4)
FACE_LABELS = ("other", "floor", "ceiling", "wall")
