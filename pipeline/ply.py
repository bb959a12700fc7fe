"""What mesh libraries do not tell of a PLY file: how many faces there will be, and one number of every vertex."""

from __future__ import annotations

from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Float32

Array = np.ndarray

TYPES = {"float": "<f4", "double": "<f8", "uchar": "u1", "int": "<i4"}
MAX_HEADER_LINES = 200
DRAW_LIMIT_FACES = 6_000_000  # a larger mesh is not loaded for pictures (rays are cast at 150 bytes a face)


class Header(NamedTuple):
    """What a PLY file announces: its elements in their order, and their properties, ``None`` for an unknown type."""

    binary: bool  # and little-endian
    counts: dict[str, int]
    fields: dict[str, list[tuple[str, str | None]]]


def read_header(handle: IO[bytes]) -> Header | None:
    """The header; None of what is no PLY file, or has more than ``MAX_HEADER_LINES`` lines of it."""
    binary, element, counts, fields = False, "", dict[str, int](), dict[str, list[tuple[str, str | None]]]()
    for _ in range(MAX_HEADER_LINES):
        match handle.readline(4096).decode("ascii", "replace").split():
            case ["format", kind, *_]:
                binary = kind == "binary_little_endian"
            case ["element", element, count] if count.isdecimal():
                counts[element], fields[element] = int(count), []
            case ["property", kind, *_, name] if element in fields:
                fields[element].append((name, TYPES.get(kind)))
            case ["end_header"]:
                return Header(binary, counts, fields)
    return None


def announced_faces(path: Path) -> int:
    """Number of faces by the header; 0 of what is no PLY file."""
    with open(path, "rb") as handle:
        header = read_header(handle)
    return header.counts.get("face", 0) if header else 0


def vertex_values(path: Path, name: str) -> Float32[Array, "v"] | None:
    """Property ``name`` of the vertices, None where they have none.

    Read are binary little-endian files that begin with vertices, as those of fuse (``confidence``, ``views``,
    ``angle_deg``); of others: None.
    """
    with open(path, "rb") as handle:
        header = read_header(handle)
        if header is None or not header.binary or next(iter(header.counts), "") != "vertex":
            return None
        fields = [(field, kind) for field, kind in header.fields["vertex"] if kind is not None]
        if name not in dict(fields) or len(fields) < len(header.fields["vertex"]):
            return None
        return np.fromfile(handle, fields, header.counts["vertex"])[name].astype(np.float32)
