"""Binary glTF 2.0 of meshes for viewers, and colors of vertices' confidence.

Mesh libraries read 16-bit colours of glTF wrongly, or drop colours beside a material; so what quoin reads it reads
itself.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from quoin.pipeline.scene.ply_format import read_ply_header
from quoin.pipeline.storage.layout import damaged_file_error
from quoin.pipeline.storage.run import Run

Array = np.ndarray

# glTF is y up, the world is z up: (x, y, z) goes to (x, z, -y). Column-major, as glTF wants it.
_Y_UP_FROM_Z_UP = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
_DTYPES = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_N_COMPONENTS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
_FILE_HEADER = struct.Struct("<4sII")

# of no confidence, of half, and of full: told apart without telling red from green
CONFIDENCE_COLORS = ((196, 60, 26), (246, 226, 160), (35, 105, 143))
CONFIDENCE_THRESHOLD = 0.5


def committed_mesh(run: Run, name: str) -> Path:
    """Path of mesh.ply or mesh.glb of a fused run; QuoinError where it is missing, or not as long as it announces."""
    run.require("fuse")
    path = run.file(name)
    try:
        with open(path, "rb") as handle:
            expected = _announced_glb_bytes(handle) if path.suffix == ".glb" else _announced_ply_bytes(handle)
    except OSError as error:
        raise damaged_file_error(name, f"this file cannot be read ({error.strerror})") from error
    size = path.stat().st_size
    if expected is None:
        raise damaged_file_error(name, "this file is not a mesh that fuse wrote")
    if size != expected:
        raise damaged_file_error(name, f"this file has {size:,} bytes, and announces {expected:,}")
    return path


def _announced_ply_bytes(handle: IO[bytes]) -> int | None:
    """Size of a PLY file by its header; None of what is no binary file of vertices and triangles."""
    header = read_ply_header(handle)
    if header is None or not header.byte_order or list(header.counts) != ["vertex", "face"]:
        return None
    row, faces = header.row_dtype("vertex"), header.properties["face"]
    if row is None or len(faces) != 1 or not faces[0].count_dtype:
        return None
    triangle_bytes = np.dtype(faces[0].count_dtype).itemsize + 3 * np.dtype(faces[0].dtype).itemsize
    return handle.tell() + header.counts["vertex"] * row.itemsize + header.counts["face"] * triangle_bytes


def _announced_glb_bytes(handle: IO[bytes]) -> int | None:
    """Size of a binary glTF 2.0 by its header; None of what is none."""
    head = handle.read(_FILE_HEADER.size)
    if len(head) < _FILE_HEADER.size:
        return None
    magic, version, n_bytes = _FILE_HEADER.unpack(head)
    return int(n_bytes) if (magic, version) == (b"glTF", 2) else None


# -- glTF --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GltfMesh:
    """A mesh in the world (metres), its normals, colours (sRGB) where it has any, and ``values`` of its vertices."""

    vertices_world: Float[Array, "v 3"]
    faces: Int[Array, "f 3"]
    normals: Float[Array, "v 3"]
    colors: UInt8[Array, "v 3"] | None = None
    values: dict[str, Float[Array, "v"]] = field(default_factory=dict)


def linear_from_srgb(colors: UInt8[Array, "v 3"]) -> Float[Array, "v 3"]:
    """Linear light in [0, 1] of 8-bit sRGB (IEC 61966-2-1)."""
    x = np.arange(256) / 255.0
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)[colors]


def srgb_from_linear(light: Float[Array, "v 3"]) -> UInt8[Array, "v 3"]:
    """8-bit sRGB of linear light in [0, 1]."""
    curve = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0.0031308) ** (1 / 2.4) - 0.055)
    return np.rint(255 * curve).astype(np.uint8)


def encode_glb(mesh: GltfMesh) -> bytes:
    """The file: unlit vertex colours (16-bit linear), y up by a node over the mesh in world axes.

    Vertices are float32 about the middle of the mesh; a second node carries that middle, so nothing is lost far from
    the origin. ``asset.extras`` says so: ``origin_world``, metres. Values are attributes of our own: ``_CONFIDENCE``.
    """
    positions_world = mesh.vertices_world
    origin = (positions_world.min(axis=0) + positions_world.max(axis=0)) / 2
    positions = (positions_world - origin).astype("<f4")
    views, accessors, blob = [], [], bytearray()

    def put(data: Array, kind: str, component: int, target: int, **extra: object) -> int:
        raw = data.tobytes()
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": len(raw), "target": target})
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": component, "count": len(data), "type": kind, **extra}
        )
        blob.extend(raw + b"\0" * (-len(raw) % 4))
        return len(accessors) - 1

    low, high = positions.min(axis=0).tolist(), positions.max(axis=0).tolist()
    attributes = {"POSITION": put(positions, "VEC3", 5126, 34962, min=low, max=high)}
    attributes["NORMAL"] = put(mesh.normals.astype("<f4"), "VEC3", 5126, 34962)
    if mesh.colors is not None:
        rgba = np.ones((len(positions), 4))
        rgba[:, :3] = linear_from_srgb(mesh.colors)
        attributes["COLOR_0"] = put(np.rint(rgba * 65535).astype("<u2"), "VEC4", 5123, 34962, normalized=True)
    for name, value in mesh.values.items():
        attributes[f"_{name.upper()}"] = put(value.astype("<f4"), "SCALAR", 5126, 34962)
    faces = put(mesh.faces.astype("<u4").reshape(-1), "SCALAR", 5125, 34963)
    tree = {
        "asset": {"version": "2.0", "generator": "quoin", "extras": {"origin_world": origin.tolist()}},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"name": "world", "matrix": _Y_UP_FROM_Z_UP, "children": [1]},
            {"name": "surface", "mesh": 0, "translation": origin.tolist()},
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
    head = _FILE_HEADER.pack(b"glTF", 2, 12 + 8 + len(text) + 8 + len(blob))
    return b"".join(
        [head, struct.pack("<I4s", len(text), b"JSON"), text, struct.pack("<I4s", len(blob), b"BIN\0"), bytes(blob)]
    )


def decode_glb(data: bytes) -> GltfMesh:
    """What ``encode_glb`` has written as the mesh.glb of a run; QuoinError for other content."""
    try:
        n_text = struct.unpack_from("<I", data, 12)[0]
        tree = json.loads(data[20 : 20 + n_text])
        origin = np.array(tree["asset"]["extras"]["origin_world"], float)
        primitive = tree["meshes"][0]["primitives"][0]
        start = 20 + n_text + 8

        def get(number: int) -> Array:
            accessor = tree["accessors"][number]
            view, width = tree["bufferViews"][accessor["bufferView"]], _N_COMPONENTS[accessor["type"]]
            kind, count = np.dtype(_DTYPES[accessor["componentType"]]), accessor["count"] * width
            flat = np.frombuffer(data, kind, count, start + view["byteOffset"])
            return flat.reshape(-1, width) if width > 1 else flat

        named = {name: get(number) for name, number in primitive["attributes"].items()}
        faces = get(primitive["indices"]).reshape(-1, 3).astype(np.int64)
        vertices, normals, color = named.pop("POSITION"), named.pop("NORMAL"), named.pop("COLOR_0", None)
        colors = None if color is None else srgb_from_linear(color[:, :3] / 65535.0)
        values = {name.removeprefix("_").lower(): value for name, value in named.items()}
        of_vertices = [normals, *([] if colors is None else [colors]), *values.values()]
        if any(len(array) != len(vertices) for array in of_vertices) or faces.max(initial=-1) >= len(vertices):
            raise ValueError("its arrays do not fit together")
        return GltfMesh(vertices.astype(float) + origin, faces, normals, colors, values)
    except (struct.error, ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise damaged_file_error("mesh.glb", f"this file is not a mesh that fuse wrote ({error})") from error


# -- confidence --------------------------------------------------------------------------------------------------------


def confident_faces(confidence: Float[Array, "v"], faces: Int[Array, "f 3"]) -> Bool[Array, "f"]:
    """Faces whose corners are above CONFIDENCE_THRESHOLD in the mean."""
    return confidence[faces].mean(axis=1) > CONFIDENCE_THRESHOLD


def confidence_colors(confidence: Float[Array, "*n"]) -> Float[Array, "*n 3"]:
    """Colours in [0, 255] of confidences in [0, 1]: linear between CONFIDENCE_COLORS."""
    at = np.linspace(0, 1, len(CONFIDENCE_COLORS))
    return np.stack([np.interp(confidence, at, channel) for channel in np.array(CONFIDENCE_COLORS).T], axis=-1)
