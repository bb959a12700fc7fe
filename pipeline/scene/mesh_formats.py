"""Binary glTF 2.0 of meshes for viewers, and colors of vertices' confidence.

Mesh libraries read 16-bit colours of glTF wrongly, or drop colours beside a material; so what quoin reads it reads
itself.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from quoin.pipeline.core.errors import QuoinError

Array = np.ndarray

# glTF is y up, the world is z up: (x, y, z) goes to (x, z, -y). Column-major, as glTF wants it.
_Y_UP_FROM_Z_UP = [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
_DTYPES = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_N_COMPONENTS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
_FILE_HEADER = struct.Struct("<4sII")

# of no confidence, of half, and of full: told apart without telling red from green
CONFIDENCE_COLORS = ((196, 60, 26), (246, 226, 160), (35, 105, 143))
CONFIDENCE_THRESHOLD = 0.5


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
    """What ``encode_glb`` has written; QuoinError for what another program has."""
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
        return GltfMesh(vertices.astype(float) + origin, faces, normals, colors, values)
    except (struct.error, ValueError, KeyError, IndexError, TypeError) as error:
        raise QuoinError(
            f"This file is not a mesh.glb written by quoin: {error}", hint="redo fuse with --force fuse"
        ) from error


# -- confidence --------------------------------------------------------------------------------------------------------


def confident_faces(confidence: Float[Array, "v"], faces: Int[Array, "f 3"]) -> Bool[Array, "f"]:
    """Faces whose corners are above CONFIDENCE_THRESHOLD in the mean."""
    return confidence[faces].mean(axis=1) > CONFIDENCE_THRESHOLD


def confidence_colors(confidence: Float[Array, "*n"]) -> Float[Array, "*n 3"]:
    """Colours in [0, 255] of confidences in [0, 1]: linear between CONFIDENCE_COLORS."""
    at = np.linspace(0, 1, len(CONFIDENCE_COLORS))
    return np.stack([np.interp(confidence, at, channel) for channel in np.array(CONFIDENCE_COLORS).T], axis=-1)
