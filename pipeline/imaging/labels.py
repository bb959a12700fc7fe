"""What a pixel of a posed photo shows, as far as the priors know (`priors.write_labels`), or a face of a known surface.

A byte each, also as the property ``label`` of the faces in a demo's truth/mesh.ply.
"""

from __future__ import annotations

UNKNOWN = 0  # a surface, or nothing is known
SKY = 1  # no surface behind it
TRANSIENT = 2  # people, vehicles: to be ignored
FLOOR = 3  # level, and faces up
CEILING = 4  # level, and faces down
WALL = 5  # upright
OTHER = 6  # a surface that is none of these three

SURFACE_LABELS = (OTHER, FLOOR, CEILING, WALL)  # of surface, where the layout of a room is known
SURFACE_LABEL_NAMES = {OTHER: "other", FLOOR: "floor", CEILING: "ceiling", WALL: "wall"}
NON_SURFACE_LABELS = (SKY, TRANSIENT)  # nothing of the scene
