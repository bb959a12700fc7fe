"""PLY files as fuse writes them: how many faces there will be, one number of every vertex, and large meshes in little
memory; what mesh libraries do not tell, or hold several times over.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int32

Array = np.ndarray

PLY_DTYPES = {"float": "<f4", "double": "<f8", "uchar": "u1", "int": "<i4"}
MAX_HEADER_LINES = 200


class PlyHeader(NamedTuple):
    """What a PLY file announces: its elements in their order, and their properties, ``None`` for an unknown type."""

    binary: bool  # and little-endian
    counts: dict[str, int]
    fields: dict[str, list[tuple[str, str | None]]]


def read_ply_header(handle: IO[bytes]) -> PlyHeader | None:
    """The header; None of what is no PLY file, or has more than ``MAX_HEADER_LINES`` lines of it."""
    binary, element, counts, fields = False, "", dict[str, int](), dict[str, list[tuple[str, str | None]]]()
    for _ in range(MAX_HEADER_LINES):
        match handle.readline(4096).decode("ascii", "replace").split():
            case ["format", kind, *_]:
                binary = kind == "binary_little_endian"
            case ["element", element, count] if count.isdecimal():
                counts[element], fields[element] = int(count), []
            case ["property", kind, *_, name] if element in fields:
                fields[element].append((name, PLY_DTYPES.get(kind)))
            case ["end_header"]:
                return PlyHeader(binary, counts, fields)
    return None


def count_faces(path: Path) -> int:
    """Number of faces by the header; 0 of what is no PLY file."""
    with open(path, "rb") as handle:
        header = read_ply_header(handle)
    return header.counts.get("face", 0) if header else 0


def read_vertex_property(path: Path, name: str) -> Float32[Array, "v"] | None:
    """Property ``name`` of the vertices, None where they have none.

    Read are binary little-endian files that begin with vertices, as those of fuse (``confidence``, ``views``,
    ``angle_deg``); of others: None.
    """
    with open(path, "rb") as handle:
        header = read_ply_header(handle)
        if header is None or not header.binary or next(iter(header.counts), "") != "vertex":
            return None
        rows = _vertices(handle, header)
        return rows[name].astype(np.float32) if rows is not None and name in (rows.dtype.names or ()) else None


def read_ply_mesh(path: Path) -> tuple[Float[Array, "v 3"], Int32[Array, "f 3"]] | None:
    """Vertices and faces of a binary little-endian file of vertices and triangles, as fuse writes; of others: None."""
    with open(path, "rb") as handle:
        header = read_ply_header(handle)
        if header is None or not header.binary or list(header.counts) != ["vertex", "face"]:
            return None
        begin, rows = handle.tell(), _vertices(handle, header)
        if rows is None or not {"x", "y", "z"} <= set(rows.dtype.names or ()):
            return None
        fields, n_faces, start = (
            np.dtype([("count", "u1"), ("corner", "<i4", 3)]),
            header.counts["face"],
            begin + rows.nbytes,
        )
        if len(header.fields["face"]) != 1 or path.stat().st_size != start + n_faces * fields.itemsize:
            return None  # not of triangles alone
        if n_faces == 0:
            return _xyz(rows), np.zeros((0, 3), np.int32)
        faces = np.memmap(handle, fields, "r", start, (n_faces,))
        return (_xyz(rows), np.array(faces["corner"])) if (faces["count"] == 3).all() else None


def _vertices(handle: IO[bytes], header: PlyHeader) -> Array | None:
    """The rows of the vertices, on the disk, where ``handle`` is at their beginning."""
    fields = [(field, kind) for field, kind in header.fields["vertex"] if kind is not None]
    count = header.counts["vertex"]
    if len(fields) < len(header.fields["vertex"]):
        return None
    if count == 0:
        return np.zeros(0, fields)
    return np.memmap(handle, np.dtype(fields), "r", handle.tell(), (count,))


def _xyz(rows: Array) -> Float[Array, "v 3"]:
    vertices = np.empty((len(rows), 3))
    for axis in range(3):
        vertices[:, axis] = rows["xyz"[axis]]
    return vertices
