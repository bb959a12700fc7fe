"""What a pixel of a posed photo shows, as far as the priors know (`scene.write_labels`); a byte each."""

from __future__ import annotations

UNKNOWN = 0  # a surface, or nothing is known
SKY = 1  # no surface behind it
PASSING = 2  # people, vehicles: to be ignored
FLOOR = 3  # level, and stood upon
CEILING = 4  # level, and overhead
WALL = 5  # upright
OTHER = 6  # a surface that is none of these three

KINDS = (OTHER, FLOOR, CEILING, WALL)  # of surface, where the room's layout is known
EMPTY = (SKY, PASSING)  # nothing of the scene
