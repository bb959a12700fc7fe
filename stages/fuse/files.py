"""Mesh files: PLY for the full surface, binary glTF for the light one. Written aside, then put in place in one move."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from pipeline.atomic import aside
from stages.fuse.mesh import Mesh

Array = np.ndarray

# Beyond this many float32 steps per smallest edge, a world coordinate needs float64 in the PLY file.
FLOAT32_STEPS = 64.0


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of ``path`` only when all of it is on the disk."""
    with aside(path) as part, open(part, "wb") as handle:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())


MAX_COMMENTS = 100  # readers give up on headers that do not end
_PLY_TYPE = {"<f4": "float", "<f8": "double", "u1": "uchar"}


class PlyWriter:
    """Binary little-endian PLY in world coordinates, of a mesh of known size that comes in pieces.

    Positions, normals, colours and ``values`` (``float``); ``comments`` are ASCII lines of the header. Coordinates are
    ``float``, or ``double`` where float32 could not tell vertices apart that are ``edge_m`` apart, ``reach_m`` from the
    origin.
    """

    def __init__(
        self,
        handle: IO[bytes],
        n_vertices: int,
        n_faces: int,
        values: Sequence[str],
        edge_m: float,
        reach_m: float,
        comments: Sequence[str] = (),
    ) -> None:
        step = float(np.spacing(np.float32(reach_m)))
        fields = [(name, "<f4" if edge_m >= FLOAT32_STEPS * step else "<f8") for name in "xyz"]
        fields += [(name, "<f4") for name in ("nx", "ny", "nz")]
        fields += [(name, "u1") for name in ("red", "green", "blue")]
        fields += [(name, "<f4") for name in values]
        header = ["ply", "format binary_little_endian 1.0", "comment made by quoin; world frame, metres, z up"]
        header += [f"comment {text}" for text in comments[:MAX_COMMENTS]]
        header += [f"element vertex {n_vertices}"]
        header += [f"property {_PLY_TYPE[kind]} {name}" for name, kind in fields]
        header += [f"element face {n_faces}", "property list uchar int vertex_indices", "end_header"]
        handle.write(("\n".join(header) + "\n").encode("ascii"))
        self._handle, self._vertex = handle, np.dtype(fields)

    def vertices(self, mesh: Mesh, normals: Float[Array, "n 3"], new: Bool[Array, "n"] | None = None) -> None:
        """The next vertices: those of a piece, or of them the ``new`` ones."""
        chosen = np.ones(len(normals), bool) if new is None else new
        rows = np.empty(int(chosen.sum()), self._vertex)
        for axis in range(3):
            rows["xyz"[axis]] = mesh.vertices_world[chosen, axis]
            rows[f"n{'xyz'[axis]}"] = normals[chosen, axis]
            if mesh.colors is not None:
                rows[("red", "green", "blue")[axis]] = mesh.colors[chosen, axis]
        for name, value in mesh.values.items():
            rows[name] = value[chosen]
        self._handle.write(rows.view(np.uint8).data)  # tofile would hide that a disk is full

    def faces(self, faces: Int[Array, "n 3"]) -> None:
        """The next faces, by the numbers of vertices in the file; after all vertices."""
        rows = np.empty(len(faces), [("count", "u1"), ("corner", "<i4", 3)])
        rows["count"], rows["corner"] = 3, faces
        self._handle.write(rows.view(np.uint8).data)


def linear_from_srgb(colors: UInt8[Array, "v 3"]) -> Float[Array, "v 3"]:
    """Linear light in [0, 1] of 8-bit sRGB (IEC 61966-2-1)."""
    x = np.arange(256) / 255.0
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)[colors]


# glTF is y up, the world is z up: (x, y, z) goes to (x, z, -y). Column-major, as glTF wants it.
_Y_UP_FROM_Z_UP = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]


def write_glb(path: Path, mesh: Mesh, normals: Float[Array, "v 3"]) -> None:
    """Binary glTF 2.0: unlit vertex colours (16-bit linear), y up by a node over the mesh in world axes.

    Vertices are float32 about the middle of the mesh; a second node carries that middle, so nothing is lost far from
    the origin. ``asset.extras`` says so: ``origin_world``, metres. Values are attributes of our own: ``_CONFIDENCE``.
    """
    middle = (mesh.vertices_world.min(axis=0) + mesh.vertices_world.max(axis=0)) / 2
    positions = (mesh.vertices_world - middle).astype("<f4")
    views, accessors, blob = [], [], b""

    def put(data: Array, kind: str, component: int, target: int, **extra: object) -> int:
        nonlocal blob
        raw = data.tobytes()
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": len(raw), "target": target})
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": component, "count": len(data), "type": kind, **extra}
        )
        blob += raw + b"\0" * (-len(raw) % 4)
        return len(accessors) - 1

    low, high = positions.min(axis=0).tolist(), positions.max(axis=0).tolist()
    attributes = {"POSITION": put(positions, "VEC3", 5126, 34962, min=low, max=high)}
    attributes["NORMAL"] = put(normals.astype("<f4"), "VEC3", 5126, 34962)
    if mesh.colors is not None:
        rgba = np.ones((len(positions), 4))
        rgba[:, :3] = linear_from_srgb(mesh.colors)
        attributes["COLOR_0"] = put(np.rint(rgba * 65535).astype("<u2"), "VEC4", 5123, 34962, normalized=True)
    for name, value in mesh.values.items():
        attributes[f"_{name.upper()}"] = put(value.astype("<f4"), "SCALAR", 5126, 34962)
    faces = put(mesh.faces.astype("<u4").reshape(-1), "SCALAR", 5125, 34963)
    tree = {
        "asset": {"version": "2.0", "generator": "quoin", "extras": {"origin_world": middle.tolist()}},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"name": "world", "matrix": _Y_UP_FROM_Z_UP, "children": [1]},
            {"name": "surface", "mesh": 0, "translation": middle.tolist()},
        ],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": faces, "material": 0}]}],
        "materials": [
            {
                "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
                "extensions": {"KHR_materials_unlit": {}},
            }
        ],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(blob)}],
    }
    text = json.dumps(tree, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    with replacing(path) as handle:
        handle.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + len(blob)))
        handle.write(struct.pack("<I4s", len(text), b"JSON") + text)
        handle.write(struct.pack("<I4s", len(blob), b"BIN\0") + blob)
