"""One number of every vertex out of a PLY file, which mesh libraries tend to leave behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32

Array = np.ndarray

TYPES = {"float": "<f4", "double": "<f8", "uchar": "u1", "int": "<i4"}
MAX_HEADER_LINES = 200


def vertex_values(path: Path, name: str) -> Float32[Array, "v"] | None:
    """Property ``name`` of the vertices, None where they have none.

    Read are binary little-endian files that begin with vertices, as those of fuse (``confidence``, ``views``,
    ``angle_deg``); of others: None.
    """
    with open(path, "rb") as handle:
        fields: list[tuple[str, str]] = []
        count = elements = 0
        for _ in range(MAX_HEADER_LINES):
            words = handle.readline(4096).decode("ascii", "replace").split()
            if words[:1] == ["format"] and words[1:2] != ["binary_little_endian"]:
                return None
            if words[:1] == ["element"]:
                elements += 1
                if elements == 1 and words[1:2] != ["vertex"]:
                    return None
                count = int(words[2]) if elements == 1 else count
            elif words[:1] == ["property"] and elements == 1:
                if words[1] not in TYPES:
                    return None
                fields.append((words[2], TYPES[words[1]]))
            elif words == ["end_header"]:
                break
        else:
            return None
        if name not in dict(fields):
            return None
        return np.fromfile(handle, fields, count)[name].astype(np.float32)
