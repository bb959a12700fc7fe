"""What a pixel of a posed photo shows, as far as the priors know (`scene.write_labels`); a byte each."""

from __future__ import annotations

UNKNOWN = 0  # a surface, or nothing is known
SKY = 1  # no surface behind it
PASSING = 2  # people, vehicles: to be ignored
