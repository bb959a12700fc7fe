"""Numbers of vertices out of PLY files: ours, and files that have none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from pipeline.ply import vertex_values
from stages.fuse.mesh import Mesh, vertex_normals
from tests.plys import write_ply

BOX = trimesh.creation.box()


@pytest.mark.parametrize("offset", [0.0, 1e7])  # far out, positions are doubles
def test_values_come_back_as_they_were_written(tmp_path: Path, offset: float) -> None:
    told = np.linspace(0, 1, len(BOX.vertices), dtype=np.float32)
    colors = np.full((len(told), 3), 9, np.uint8)
    mesh = Mesh(
        np.asarray(BOX.vertices) + offset, np.asarray(BOX.faces), colors, {"confidence": told, "views": 7 * told}
    )
    write_ply(tmp_path / "mesh.ply", mesh, vertex_normals(mesh))
    for name, value in mesh.values.items():
        np.testing.assert_array_equal(vertex_values(tmp_path / "mesh.ply", name), value)
    assert vertex_values(tmp_path / "mesh.ply", "angle_deg") is None


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_files_without_it_have_none(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "mesh.ply").write_bytes(trimesh.exchange.ply.export_ply(BOX, encoding=encoding))
    assert vertex_values(tmp_path / "mesh.ply", "confidence") is None


@pytest.mark.parametrize("content", [b"", b"glTF" + bytes(400), b"ply\n" * 500])
def test_what_is_no_ply_has_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mesh.ply").write_bytes(content)
    assert vertex_values(tmp_path / "mesh.ply", "confidence") is None
