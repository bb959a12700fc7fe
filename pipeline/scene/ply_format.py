"""PLY files of meshes and points: those of fuse, and those of other programs (ASCII or binary, polygons, strips).

Mesh libraries hold large files several times over, fail on triangles and quads in one binary file, and believe headers.
What a header announces is compared with the size of the file before memory is taken.
"""

from __future__ import annotations

import struct
import warnings
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped

from quoin.pipeline.core.errors import QuoinError

Array = np.ndarray

PLY_DTYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}
PLY_DTYPES |= {"float": "f4", "double": "f8"}
PLY_DTYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
PLY_DTYPES |= {"float32": "f4", "float64": "f8"}
KINDS = PLY_DTYPES.keys()
BYTE_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
CORNER_PROPERTIES = ("vertex_indices", "vertex_index")
MAX_HEADER_LINES, MAX_LINE_BYTES = 1000, 4096
MAX_FAN_CORNERS = 64  # corners of a concave polygon that are tried
MAX_OVERLAP = 1e-3  # of the area of all polygons
CELLS_PER_BATCH = 1 << 22  # to bound memory


class PlyProperty(NamedTuple):
    """A property of an element; ``count_dtype`` is that of the length of a list, "" where it is none."""

    name: str
    dtype: str
    count_dtype: str = ""


class PlyHeader(NamedTuple):
    """What a PLY file announces: its elements in their order, with their counts and properties."""

    byte_order: str  # "" for ASCII
    counts: dict[str, int]
    properties: dict[str, list[PlyProperty]]

    def row_dtype(self, element: str) -> np.dtype | None:
        """The dtype of the rows of an element without lists; None of one with lists."""
        properties = self.properties[element]
        if any(prop.count_dtype for prop in properties):
            return None
        return np.dtype([(prop.name, self.byte_order + prop.dtype) for prop in properties])


class PlySurface(NamedTuple):
    """Vertices, the triangles of faces and strips, and the face that each triangle is part of (-1: a strip).

    ``face_values``: the properties of the faces that are no lists.
    """

    vertices: Float[Array, "v 3"]
    triangles: Int[Array, "f 3"]
    face_rows: Int[Array, "f"]
    face_values: dict[str, Shaped[Array, "p"]]


def _refuse(what: str) -> QuoinError:
    return QuoinError(f"The PLY file is damaged: {what}", hint="export it again")


def read_ply_header(handle: IO[bytes]) -> PlyHeader | None:
    """The header; None of what is no PLY file, or not one that we read."""
    byte_order, element = None, ""
    counts, properties = dict[str, int](), dict[str, list[PlyProperty]]()
    if handle.readline(MAX_LINE_BYTES).strip() != b"ply":
        return None
    for _ in range(MAX_HEADER_LINES):
        match handle.readline(MAX_LINE_BYTES).decode("ascii", "replace").split():
            case ["format", kind, *_]:
                byte_order = BYTE_ORDERS.get(kind)
            case ["element", element, count] if count.isdecimal() and element not in counts:
                counts[element], properties[element] = int(count), []
            case ["property", "list", count_kind, kind, name] if {count_kind, kind} <= KINDS and element in counts:
                properties[element].append(PlyProperty(name, PLY_DTYPES[kind], PLY_DTYPES[count_kind]))
            case ["property", kind, name] if kind in KINDS and element in counts:
                properties[element].append(PlyProperty(name, PLY_DTYPES[kind]))
            case ["end_header"]:
                names = [[prop.name for prop in listed] for listed in properties.values()]
                is_readable = byte_order is not None and all(len(set(listed)) == len(listed) for listed in names)
                return PlyHeader(str(byte_order), counts, properties) if is_readable else None
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                return None
    return None


def count_faces(path: Path) -> int:
    """Number of faces by the header; 0 of what is no PLY file."""
    with open(path, "rb") as handle:
        header = read_ply_header(handle)
    return header.counts.get("face", 0) if header else 0


def read_vertex_property(path: Path, name: str) -> Float32[Array, "v"] | None:
    """Property ``name`` of the vertices, None where they have none.

    Read are binary files that begin with vertices, as those of fuse (``confidence``, ``views``, ``angle_deg``); of
    others: None.
    """
    with open(path, "rb") as handle:
        header = read_ply_header(handle)
        if header is None or not header.byte_order or next(iter(header.counts), "") != "vertex":
            return None
        fields = header.row_dtype("vertex")
        if fields is None or name not in (fields.names or ()):
            return None
        count, begin = header.counts["vertex"], handle.tell()
        if count * fields.itemsize > path.stat().st_size - begin:
            raise _refuse("it ends too early")
        return np.zeros(0, np.float32) if not count else _mapped(handle, fields, begin, count)[name].astype(np.float32)


def _mapped(handle: IO[bytes], fields: np.dtype, begin: int, count: int) -> Array:
    return np.memmap(handle, fields, "r", begin, (count,))


def read_ply_surface(path: Path) -> PlySurface:
    """The surface in a PLY file, polygons cut into triangles; QuoinError where it cannot be read."""
    with open(path, "rb") as handle:
        header = read_ply_header(handle)
        if header is None:
            raise _refuse("it has no header that we read")
        if header.byte_order:
            body = PlyBody(np.memmap(path, np.uint8, "r"), handle.tell(), header.byte_order)
        else:
            body = PlyBody(_parse_numbers(handle.read().strip()), 0, "")
    rows: dict[str, PlyRows] = {}
    for element, count in header.counts.items():
        rows[element] = body.read_rows(element, header.properties[element], count)
    if "vertex" not in rows or not {"x", "y", "z"} <= set(rows["vertex"].scalars):
        raise _refuse("its vertices have no x, y and z")
    vertices = np.stack([rows["vertex"].values(axis)[1].astype(np.float64) for axis in "xyz"], axis=1)
    parts, values = [], dict[str, Array]()
    if (faces := rows.get("face")) is not None and (corners := faces.corners()) is not None:
        lengths, flat = corners
        parts.append(_triangulate(lengths, _checked_corners(flat, len(vertices)), vertices))
        values = {name: faces.values(name)[1] for name in faces.scalars}
    if (strips := rows.get("tristrips")) is not None and (corners := strips.corners()) is not None:
        parts.append(_strip_triangles(*corners, len(vertices)))
    if len(parts) == 1:  # without another copy
        return PlySurface(vertices, *parts[0], values)
    empty = np.zeros((0, 3), np.int64), np.zeros(0, np.int64)
    triangles, face_rows = (np.concatenate(arrays) for arrays in zip(empty, *parts, strict=True))
    return PlySurface(vertices, triangles, face_rows, values)


def _parse_numbers(text: bytes) -> Float[Array, "n"]:
    """All numbers of the text."""
    if not text:  # which numpy takes for one number
        return np.zeros(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        try:
            return np.fromstring(text, np.float64, sep=" ")
        except (ValueError, DeprecationWarning):
            raise _refuse("its text holds something else than numbers") from None


# -- rows of elements --------------------------------------------------------------------------------------------------


@dataclass
class PlyBody:
    """What follows the header: bytes, or the numbers of a text; read from ``at`` on."""

    cells: Shaped[Array, "n"]
    at: int
    byte_order: str  # "" for the numbers of a text

    def width(self, dtype: str) -> int:
        """Cells of a value."""
        return np.dtype(dtype).itemsize if self.byte_order else 1

    def view(self, cells: Shaped[Array, "*n"], dtype: str) -> Shaped[Array, "*m"]:
        """The values in cells along the last axis."""
        return np.ascontiguousarray(cells).view(self.byte_order + dtype) if self.byte_order else np.asarray(cells)

    def read_rows(self, element: str, properties: list[PlyProperty], count: int) -> PlyRows:
        """The next ``count`` rows."""
        min_width = sum(self.width(prop.count_dtype or prop.dtype) for prop in properties)
        if count * min_width > len(self.cells) - self.at:
            raise _refuse(f"it ends before the {str(count)[:20]} rows of {element!r} that it announces")
        if count == 0 or not properties:
            empty = np.zeros((0, len(properties)), np.int64)
            return PlyRows(self, properties, empty, empty)
        begin = self.at
        starts, lengths, end = self._walk(properties, 1)
        width = end - begin
        if count * width <= len(self.cells) - begin:
            table = self.cells[begin : begin + count * width].reshape(count, width)
            rows = PlyRows(self, properties, starts - begin, lengths, table)
            if rows.is_uniform():
                self.at = begin + count * width
                return rows
        starts, lengths, self.at = self._walk(properties, count)
        return PlyRows(self, properties, starts, lengths)

    def _walk(self, properties: list[PlyProperty], count: int) -> tuple[Int[Array, "n k"], Int[Array, "n k"], int]:
        """Where the values of each property begin and how many they are, row by row, and where the rows end."""
        layout = [(self.width(prop.dtype), prop.count_dtype and self.width(prop.count_dtype)) for prop in properties]
        counters = [struct.Struct(self.byte_order + np.dtype(prop.count_dtype or "u1").char) for prop in properties]
        starts, lengths, at, end = array("q"), array("q"), self.at, len(self.cells)
        cells = memoryview(self.cells)  # type: ignore[arg-type]  # faster than an array
        try:
            for _ in range(count):
                for (width, count_width), counter in zip(layout, counters, strict=True):
                    length = 1
                    if count_width:
                        value = counter.unpack_from(cells, at)[0] if self.byte_order else cells[at]
                        length, at = _as_count(value), at + count_width
                    starts.append(at)
                    lengths.append(length)
                    at += length * width
                    if at > end:
                        raise _refuse("it ends too early")
        except (struct.error, IndexError):
            raise _refuse("it ends too early") from None
        shape = count, len(properties)
        return np.array(starts, np.int64).reshape(shape), np.array(lengths, np.int64).reshape(shape), at


def _as_count(value: float) -> int:
    if not (0 <= value < 1 << 62 and int(value) == value):  # NaN is none
        raise _refuse(f"a list has {value} entries")
    return int(value)


@dataclass(frozen=True)
class PlyRows:
    """Rows of an element: where the values of each property begin, in cells, and how many they are.

    Where all rows are alike, ``table`` has their cells, and ``starts`` and ``lengths`` have one row, for all of them.
    """

    body: PlyBody
    properties: list[PlyProperty]
    starts: Int[Array, "n k"]
    lengths: Int[Array, "n k"]
    table: Shaped[Array, "m w"] | None = None

    def is_uniform(self) -> bool:
        """Whether the lists of all rows have the lengths of those of the first."""
        assert self.table is not None
        for prop, start, length in zip(self.properties, self.starts[0], self.lengths[0], strict=True):
            if prop.count_dtype:
                cells = self.table[:, start - self.body.width(prop.count_dtype) : start]
                if (self.body.view(cells, prop.count_dtype) != length).any():
                    return False
        return True

    @property
    def scalars(self) -> list[str]:
        """Names of the properties that are no lists."""
        return [prop.name for prop in self.properties if not prop.count_dtype]

    def corners(self) -> tuple[Int[Array, "n"], Shaped[Array, "c"]] | None:
        """The lengths of the lists of corners, and the corners of all; None where there are no such lists."""
        names = [prop.name for prop in self.properties if prop.count_dtype and prop.name in CORNER_PROPERTIES]
        return self.values(names[0]) if names else None

    def values(self, name: str) -> tuple[Int[Array, "n"], Shaped[Array, "c"]]:
        """How many values of a property each row has, and the values of all rows."""
        column = [prop.name for prop in self.properties].index(name)
        dtype = self.properties[column].dtype
        width = self.body.width(dtype)
        if self.table is not None:
            start, length = int(self.starts[0, column]), int(self.lengths[0, column])
            values = self.body.view(self.table[:, start : start + length * width], dtype)
            return np.full(len(self.table), length), values.reshape(-1)
        starts, lengths = self.starts[:, column], self.lengths[:, column]
        offsets = np.cumsum(lengths) - lengths
        flat = np.empty(int(lengths.sum()), (self.body.byte_order + dtype) if self.body.byte_order else np.float64)
        for length, rows in _by_length(lengths):
            cells = self.body.cells[starts[rows, None] + np.arange(length * width)]
            flat[offsets[rows, None] + np.arange(length)] = self.body.view(cells, dtype)
        return lengths, flat


def _by_length(lengths: Int[Array, "n"]) -> Iterator[tuple[int, Int[Array, "m"]]]:
    """The rows of each length above 0, some at a time."""
    order = np.argsort(lengths, kind="stable")
    steps = np.flatnonzero(np.diff(lengths[order])) + 1
    for rows in np.split(order, steps):
        if len(rows) and lengths[rows[0]]:
            length = int(lengths[rows[0]])
            n_batch = max(1, CELLS_PER_BATCH // length)
            for start in range(0, len(rows), n_batch):
                yield length, rows[start : start + n_batch]


# -- triangles ---------------------------------------------------------------------------------------------------------


def _checked_corners(corners: Shaped[Array, "c"], n_vertices: int, allowed: int = 0) -> Int[Array, "c"]:
    """Corners as whole numbers from ``allowed`` to the last vertex."""
    is_vertex = (corners >= allowed) & (corners < n_vertices)  # NaN is none
    if not is_vertex.all():
        raise _refuse(f"a face has corner {corners[np.argmin(is_vertex)]:.20g} of {n_vertices} vertices")
    whole = corners.astype(np.int32 if n_vertices < 1 << 31 else np.int64, copy=False)
    if (whole != corners).any():
        raise _refuse("a corner of a face is no whole number")
    return whole


def _triangulate(
    lengths: Int[Array, "n"], corners: Int[Array, "c"], vertices: Float[Array, "v 3"]
) -> tuple[Int[Array, "f 3"], Int[Array, "f"]]:
    """Triangles that fan out from a corner of each polygon, and the polygon of each, in their order.

    The corner is the first, or of a concave polygon one from which all others are seen. QuoinError where polygons that
    have none make more than MAX_OVERLAP of the surface: their triangles lie over one another.
    """
    if (lengths == 3).all():
        return corners.reshape(-1, 3), np.arange(len(lengths))
    offsets, n_triangles = np.cumsum(lengths) - lengths, np.maximum(lengths - 2, 0)
    first = np.cumsum(n_triangles) - n_triangles
    triangles = np.empty((int(n_triangles.sum()), 3), corners.dtype)
    area, overlap = 0.0, 0.0
    for length, rows in _by_length(lengths):
        if length > 2:
            polygons = corners[offsets[rows, None] + np.arange(length)]
            fans = _fans(polygons)
            areas, overlaps = _fan_areas(fans, vertices)
            for shift in range(1, min(length, MAX_FAN_CORNERS)):
                bad = np.flatnonzero(overlaps > 0)
                if not len(bad):
                    break
                shifted = _fans(np.roll(polygons[bad], -shift, axis=1))
                _, shifted_overlaps = _fan_areas(shifted, vertices)
                better = shifted_overlaps < overlaps[bad]
                fans[bad[better]], overlaps[bad[better]] = shifted[better], shifted_overlaps[better]
            triangles[first[rows, None] + np.arange(length - 2)] = fans
            area, overlap = area + float(areas.sum()), overlap + float(overlaps.sum())
    if overlap > MAX_OVERLAP * area:
        raise QuoinError("The PLY file has faces that are not convex", hint="cut them into triangles and export again")
    return triangles, np.repeat(np.arange(len(lengths)), n_triangles)


def _fans(polygons: Int[Array, "n k"]) -> Int[Array, "n m 3"]:
    """The triangles from the first corner of each polygon to its other sides."""
    firsts = np.broadcast_to(polygons[:, :1], (len(polygons), polygons.shape[1] - 2))
    return np.stack([firsts, polygons[:, 1:-1], polygons[:, 2:]], axis=2)


def _fan_areas(fans: Int[Array, "n m 3"], vertices: Float[Array, "v 3"]) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    """The area of each fan, and that of its triangles that are turned against the others and so lie outside."""
    with np.errstate(invalid="ignore", over="ignore"):  # of vertices that are not finite
        a, b, c = (vertices[fans[..., k]] for k in range(3))
        vectors = np.cross(b - a, c - a) / 2
        normals = vectors.sum(axis=1, keepdims=True)
        areas = np.linalg.norm(vectors, axis=2)
        is_turned = (vectors * normals).sum(axis=2) < -1e-9 * (normals**2).sum(axis=2)
        return np.nan_to_num(areas.sum(axis=1), posinf=0), np.nan_to_num((areas * is_turned).sum(axis=1), posinf=0)


def _strip_triangles(
    lengths: Int[Array, "n"], corners: Shaped[Array, "c"], n_vertices: int
) -> tuple[Int[Array, "f 3"], Int[Array, "f"]]:
    """Triangles of strips, every second one turned round, and -1 for each; corner -1 begins a new strip."""
    corners = _checked_corners(corners, n_vertices, allowed=-1)
    ends = np.cumsum(lengths)
    strips = np.insert(corners, ends, -1)
    places = np.arange(len(strips))
    begins = np.maximum.accumulate(np.where(strips < 0, places + 1, 0))
    triangles = np.stack([strips[:-2], strips[1:-1], strips[2:]], axis=1) if len(strips) > 2 else np.zeros((0, 3), int)
    is_turned = (places - begins)[: len(triangles)] % 2 == 1
    triangles[is_turned] = triangles[is_turned][:, [1, 0, 2]]
    a, b, c = triangles.T
    triangles = triangles[(triangles >= 0).all(axis=1) & (a != b) & (b != c) & (a != c)]
    return triangles, np.full(len(triangles), -1)
