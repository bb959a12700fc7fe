"""Binary glTF, read as it was written."""

from __future__ import annotations

import dataclasses
import json
import struct

import numpy as np
import pytest
import trimesh

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.mesh_formats import (
    GltfMesh,
    decode_glb,
    encode_glb,
    linear_from_srgb,
    srgb_from_linear,
)


def ball(middle: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> GltfMesh:
    """A coloured ball with a value of each vertex."""
    found = trimesh.creation.icosphere(subdivisions=2)
    at = np.array(found.vertices)
    colors, normals = np.rint((at + 1) * 127.5).astype(np.uint8), np.array(found.vertex_normals, np.float32)
    return GltfMesh(at + middle, np.array(found.faces), normals, colors, {"confidence": (at[:, 2] + 1) / 2})


@pytest.mark.parametrize("middle", [(0.0, 0.0, 0.0), (412_345.25, 5_812_345.5, 120.0)])
def test_what_is_written_is_read_again(middle: tuple[float, float, float]) -> None:
    made = ball(middle)
    found = decode_glb(encode_glb(made))
    np.testing.assert_allclose(found.vertices_world, made.vertices_world, atol=1e-6)
    np.testing.assert_array_equal(found.faces, made.faces)
    np.testing.assert_array_equal(found.colors, made.colors)
    np.testing.assert_allclose(found.normals, made.normals, atol=1e-6)
    np.testing.assert_allclose(found.values["confidence"], made.values["confidence"], atol=1e-6)
    bare = decode_glb(encode_glb(dataclasses.replace(made, colors=None, values={})))
    assert bare.colors is None
    assert bare.values == {}


@pytest.mark.parametrize("data", [b"", b"glTF", b"not a mesh at all, and much longer than a header of one would be"])
def test_what_is_no_mesh_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(QuoinError, match=r"not a mesh that fuse wrote.*--force fuse"):
        decode_glb(data)


def test_all_colours_survive_linear_light() -> None:
    all_of_them = np.arange(256, dtype=np.uint8).repeat(3).reshape(-1, 3)
    stored = np.rint(linear_from_srgb(all_of_them) * 65535) / 65535
    np.testing.assert_array_equal(srgb_from_linear(stored), all_of_them)


def test_it_holds_linear_colors_and_valid_bounds() -> None:
    sphere = ball()
    assert sphere.colors is not None
    raw = encode_glb(sphere)
    magic, version, length = struct.unpack("<4sII", raw[:12])
    assert (magic, version, length) == (b"glTF", 2, len(raw))
    size = struct.unpack("<I", raw[12:16])[0]
    tree = json.loads(raw[20 : 20 + size])
    blob = raw[20 + size + 8 :]
    assert tree["buffers"][0]["byteLength"] == len(blob)

    def read(accessor: int, dtype: str, width: int) -> np.ndarray:
        view = tree["bufferViews"][tree["accessors"][accessor]["bufferView"]]
        data = blob[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
        return np.frombuffer(data, dtype).reshape(-1, width)

    primitive = tree["meshes"][0]["primitives"][0]
    position = primitive["attributes"]["POSITION"]
    points = read(position, "<f4", 3)
    np.testing.assert_allclose(tree["accessors"][position]["min"], points.min(axis=0))
    np.testing.assert_allclose(tree["accessors"][position]["max"], points.max(axis=0))
    colors = read(primitive["attributes"]["COLOR_0"], "<u2", 4) / 65535
    np.testing.assert_allclose(colors[:, :3], linear_from_srgb(sphere.colors), atol=1e-5)
    assert (colors[:, 3] == 1).all()
    np.testing.assert_array_equal(read(primitive["indices"], "<u4", 3), sphere.faces)


def test_srgb_to_linear_at_known_values() -> None:
    found = linear_from_srgb(np.array([[0, 10, 128], [188, 255, 55]], np.uint8))
    np.testing.assert_allclose(found[0], [0.0, 0.003035, 0.215861], atol=1e-6)
    np.testing.assert_allclose(found[1], [0.502886, 1.0, 0.038204], atol=1e-6)
