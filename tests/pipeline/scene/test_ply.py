"""Numbers of vertices out of PLY files: ours, and files that have none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from quoin.pipeline.scene.ply import read_ply_mesh, read_vertex_property
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
