"""PLY files by trimesh and Open3D, and binary glTF, read as they were written."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.mesh_formats import (
    GltfMesh,
    decode_glb,
    encode_glb,
    linear_from_srgb,
    read_ply_mesh,
    read_vertex_property,
    srgb_from_linear,
)
from quoin.stages.fuse.mesh import Mesh
from tests.fixtures.ply_files import write_ply

BOX = trimesh.creation.box()


@pytest.mark.parametrize("offset", [0.0, 1e7])  # far out, positions are doubles
def test_values_come_back_as_they_were_written(tmp_path: Path, offset: float) -> None:
    told = np.linspace(0, 1, len(BOX.vertices), dtype=np.float32)
    colors = np.full((len(told), 3), 9, np.uint8)
    mesh = Mesh(
        np.asarray(BOX.vertices) + offset, np.asarray(BOX.faces), colors, {"confidence": told, "views": 7 * told}
    )
    write_ply(tmp_path / "mesh.ply", mesh, mesh.vertex_normals())
    for name, value in mesh.values.items():
        np.testing.assert_array_equal(read_vertex_property(tmp_path / "mesh.ply", name), value)
    assert read_vertex_property(tmp_path / "mesh.ply", "angle_deg") is None


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_files_without_it_have_none(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "mesh.ply").write_bytes(trimesh.exchange.ply.export_ply(BOX, encoding=encoding))
    assert read_vertex_property(tmp_path / "mesh.ply", "confidence") is None


@pytest.mark.parametrize("content", [b"", b"glTF" + bytes(400), b"ply\n" * 500])
def test_what_is_no_ply_has_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mesh.ply").write_bytes(content)
    assert read_vertex_property(tmp_path / "mesh.ply", "confidence") is None


@pytest.mark.parametrize("offset", [0.0, 1e7])
def test_triangles_are_read_as_a_library_reads_them(tmp_path: Path, offset: float) -> None:
    mesh = Mesh(np.asarray(BOX.vertices) + offset, np.asarray(BOX.faces), np.full((8, 3), 9, np.uint8), {})
    write_ply(tmp_path / "mesh.ply", mesh, mesh.vertex_normals())
    found = read_ply_mesh(tmp_path / "mesh.ply")
    assert found is not None
    theirs = trimesh.load(tmp_path / "mesh.ply", process=False)
    np.testing.assert_array_equal(found[0], theirs.vertices)
    np.testing.assert_array_equal(found[1], theirs.faces)
    shortened = (tmp_path / "mesh.ply").read_bytes()[:-1]
    (tmp_path / "mesh.ply").write_bytes(shortened)
    assert read_ply_mesh(tmp_path / "mesh.ply") is None


def test_triangles_of_other_files_are_left_to_libraries(tmp_path: Path) -> None:
    (tmp_path / "ascii.ply").write_bytes(trimesh.exchange.ply.export_ply(BOX, encoding="ascii"))
    assert read_ply_mesh(tmp_path / "ascii.ply") is None
    cloud = trimesh.PointCloud(BOX.vertices)
    (tmp_path / "points.ply").write_bytes(trimesh.exchange.ply.export_ply(cloud, encoding="binary"))
    assert read_ply_mesh(tmp_path / "points.ply") is None


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
    with pytest.raises(QuoinError, match=r"not a mesh.glb written by quoin"):
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
