"""PLY files of fuse and of other programs: read as they were written, or refused in a sentence."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.mesh import face_areas
from quoin.pipeline.scene.ply_format import count_faces, read_ply_surface, read_vertex_property
from quoin.stages.fuse.mesh import Mesh
from tests.fixtures.ply_files import write_ply

BOX = trimesh.creation.box()
FORMATS = ["ascii", "binary_little_endian", "binary_big_endian"]
SQUARE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)]


def ply(
    format: str, points: Sequence, faces: Sequence, *, element: str = "face", count: str = "uchar", index: str = "int"
) -> bytes:
    """A file of points and of lists of corners."""
    head = [
        "ply",
        f"format {format} 1.0",
        "comment by hand",
        f"element vertex {len(points)}",
        *(f"property float {axis}" for axis in "xyz"),
        "property list uchar short seen_by",
        f"element {element} {len(faces)}",
        "property uchar label",
        f"property list {count} {index} vertex_indices",
        "property list uchar float texcoord",
        "end_header\n",
    ]
    if format == "ascii":
        rows = [" ".join(map(str, [*point, i % 3, *range(i % 3)])) for i, point in enumerate(points)]
        rows += [" ".join(map(str, [i % 7, len(face), *face, 1, 0.5])) for i, face in enumerate(faces)]
        return ("\n".join(head) + "\n".join(rows) + "\n").encode()
    order = "<" if format.endswith("little_endian") else ">"
    codes = {"uchar": "B", "int": "i", "uint": "I", "short": "h"}
    body = b"".join(struct.pack(f"{order}3fB{i % 3}h", *point, i % 3, *range(i % 3)) for i, point in enumerate(points))
    for i, face in enumerate(faces):
        body += struct.pack(f"{order}B{codes[count]}{len(face)}{codes[index]}", i % 7, len(face), *face)
        body += struct.pack(f"{order}Bf", 1, 0.5)
    return "\n".join(head).encode() + body


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kinds", [("uchar", "int"), ("int", "uint"), ("short", "short")])
def test_triangles_quads_and_polygons_of_one_file(tmp_path: Path, format: str, kinds: tuple[str, str]) -> None:
    """Unit squares along x: two triangles, a quad, a pentagon with a corner on a side, and two that are none."""
    points = [(x, y, 0) for y in (0, 1) for x in range(5)] + [(2.5, 0, 0)]
    faces = [[0, 1, 6], [0, 6, 5], [1, 2, 7, 6], [], [2, 10, 3, 8, 7], [3, 4]]
    path = tmp_path / "mixed.ply"
    path.write_bytes(ply(format, points, faces, count=kinds[0], index=kinds[1]))
    found = read_ply_surface(path)
    np.testing.assert_array_equal(found.vertices, points)
    assert found.face_rows.tolist() == [0, 1, 2, 2, 4, 4, 4]
    assert found.triangles.tolist()[:4] == [[0, 1, 6], [0, 6, 5], [1, 2, 7], [1, 7, 6]]
    assert found.face_values["label"].tolist() == [0, 1, 2, 3, 4, 5]
    areas = face_areas(found.vertices, found.triangles)
    np.testing.assert_allclose(np.bincount(found.face_rows, areas), [0.5, 0.5, 1, 0, 1], atol=1e-12)
    assert count_faces(path) == 6


@pytest.mark.parametrize("format", FORMATS)
def test_faces_of_one_length(tmp_path: Path, format: str) -> None:
    (tmp_path / "a.ply").write_bytes(ply(format, SQUARE, [[0, 1, 2, 3]] * 5))
    found = read_ply_surface(tmp_path / "a.ply")
    assert found.triangles.tolist() == [[0, 1, 2], [0, 2, 3]] * 5


@pytest.mark.parametrize("start", range(6))
def test_concave_polygons(tmp_path: Path, start: int) -> None:
    """An L and an arrow, whichever corner comes first, beside a square that is bent."""
    corner = [(0, 0, 0), (3, 0, 0), (3, 1, 0), (1, 1, 0), (1, 2, 0), (0, 2, 0)]
    arrow = [(5, 0, 0), (7, 1, 0), (5, 2, 0), (6, 1, 0)]
    bent = [(8, 0, 0), (9, 0, 0), (9, 1, 1), (8, 1, 0)]
    faces = [np.roll(np.arange(6), start).tolist(), (6 + np.roll(np.arange(4), start)).tolist(), [10, 11, 12, 13]]
    (tmp_path / "a.ply").write_bytes(ply("ascii", corner + arrow + bent, faces))
    found = read_ply_surface(tmp_path / "a.ply")
    areas = np.bincount(found.face_rows, face_areas(found.vertices, found.triangles))
    np.testing.assert_allclose(areas, [4, 1, np.sqrt(2)], atol=1e-9)


def test_polygons_that_no_fan_fills(tmp_path: Path) -> None:
    """A U is refused, unless it is as good as nothing of the surface."""
    u = [(0, 0, 0), (5, 0, 0), (5, 3, 0), (4, 3, 0), (4, 1, 0), (1, 1, 0), (1, 3, 0), (0, 3, 0)]
    (tmp_path / "a.ply").write_bytes(ply("ascii", u, [list(range(8))]))
    with pytest.raises(QuoinError, match="not convex"):
        read_ply_surface(tmp_path / "a.ply")
    field = [(1000 * x, 1000 * y, 0) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))]
    (tmp_path / "a.ply").write_bytes(ply("ascii", u + field, [list(range(8)), [8, 9, 10, 11]]))
    assert len(read_ply_surface(tmp_path / "a.ply").triangles) == 8


@pytest.mark.parametrize("format", FORMATS)
def test_triangle_strips(tmp_path: Path, format: str) -> None:
    """Two strips in one list, and a third with a corner that is there twice; all triangles look up."""
    points = [(x, y, 0) for x in range(4) for y in (1, 0)]
    strips = [[0, 1, 2, 3, -1, 4, 5, 6, 7], [2, 3, 3, 4, 5]]
    (tmp_path / "a.ply").write_bytes(ply(format, points, strips, element="tristrips"))
    found = read_ply_surface(tmp_path / "a.ply")
    assert (found.face_rows == -1).all()
    assert found.triangles.tolist() == [[0, 1, 2], [2, 1, 3], [4, 5, 6], [6, 5, 7], [3, 4, 5]]
    up = np.cross(*(found.vertices[found.triangles[:, k]] - found.vertices[found.triangles[:, 0]] for k in (1, 2)))
    assert (up[:4, 2] > 0).all()


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_meshes_and_points_of_a_library(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "box.ply").write_bytes(trimesh.exchange.ply.export_ply(BOX, encoding=encoding))
    found = read_ply_surface(tmp_path / "box.ply")
    np.testing.assert_allclose(found.vertices, BOX.vertices, atol=1e-7)
    np.testing.assert_array_equal(found.triangles, BOX.faces)
    cloud = trimesh.PointCloud(BOX.vertices)
    (tmp_path / "points.ply").write_bytes(trimesh.exchange.ply.export_ply(cloud, encoding=encoding))
    found = read_ply_surface(tmp_path / "points.ply")
    assert (len(found.vertices), found.triangles.shape) == (8, (0, 3))


@pytest.mark.parametrize("offset", [0.0, 1e7])  # far out, positions are doubles
def test_what_fuse_writes_comes_back(tmp_path: Path, offset: float) -> None:
    told = np.linspace(0, 1, len(BOX.vertices), dtype=np.float32)
    colors = np.full((len(told), 3), 9, np.uint8)
    mesh = Mesh(
        np.asarray(BOX.vertices) + offset, np.asarray(BOX.faces), colors, {"confidence": told, "views": 7 * told}
    )
    path = tmp_path / "mesh.ply"
    write_ply(path, mesh, mesh.vertex_normals())
    for name, value in mesh.values.items():
        np.testing.assert_array_equal(read_vertex_property(path, name), value)
    assert read_vertex_property(path, "angle_deg") is None
    found, theirs = read_ply_surface(path), trimesh.load(path, process=False)
    np.testing.assert_array_equal(found.vertices, theirs.vertices)
    np.testing.assert_array_equal(found.triangles, theirs.faces)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(QuoinError, match="ends"):
        read_ply_surface(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(QuoinError, match="ends"):
        read_vertex_property(path, "confidence")


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_files_without_a_value_have_none(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "mesh.ply").write_bytes(trimesh.exchange.ply.export_ply(BOX, encoding=encoding))
    assert read_vertex_property(tmp_path / "mesh.ply", "confidence") is None


@pytest.mark.parametrize("content", [b"", b"glTF" + bytes(400), b"ply\n" * 500, b"ply\nend_header\n"])
def test_what_is_no_ply(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mesh.ply"
    path.write_bytes(content)
    assert read_vertex_property(path, "confidence") is None
    assert count_faces(path) == 0
    with pytest.raises(QuoinError, match="no header that we read"):
        read_ply_surface(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"vertex 4", b"vertex 99999999999999", "ends before the 99999999999999 rows of 'vertex'"),
        (b"vertex 4", b"vertex " + b"9" * 4000, "ends before"),
        (b"vertex 4", b"vertex -4", "no header"),
        (b"face 2", b"face 1000000000", "ends before"),
        (b"face 2", b"face 2\nelement face 2", "no header"),
        (b"float x", b"float y", "no header"),
        (b"float x", b"float w", "no x, y and z"),
        (b"float x", b"half x", "no header"),
        (b"element vertex", b"element point", "no x, y and z"),
        (b"list uchar int", b"list float int", "ends|entries"),
        (b"end_header\n", b"end_header\nx", "ends|numbers|corner"),
    ],
)
@pytest.mark.parametrize("format", FORMATS)
def test_headers_that_lie(tmp_path: Path, format: str, old: bytes, new: bytes, message: str) -> None:
    content = ply(format, SQUARE, [[0, 1, 2], [0, 2, 3]])
    assert old in content
    (tmp_path / "a.ply").write_bytes(content.replace(old, new))
    if format == "ascii" and b"list float" in new:
        assert len(read_ply_surface(tmp_path / "a.ply").triangles) == 2  # lengths are text all the same
        return
    with pytest.raises(QuoinError, match=message):
        read_ply_surface(tmp_path / "a.ply")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("face", [[0, 1, 99999999], [0, 1, -1], [0, 1, 2, 4]])
def test_corners_that_are_no_vertices(tmp_path: Path, format: str, face: list[int]) -> None:
    (tmp_path / "a.ply").write_bytes(ply(format, SQUARE, [[0, 1, 2], face]))
    with pytest.raises(QuoinError, match="of 4 vertices"):
        read_ply_surface(tmp_path / "a.ply")


def test_text_whose_lists_have_no_length(tmp_path: Path) -> None:
    content = ply("ascii", SQUARE, [[0, 1, 2], [0, 2, 3]]).decode()
    for row in ("0 nan 0 1 2 1 0.5", "0 -3 0 1 2 1 0.5", "0 3.5 0 1 2 1 0.5", "0 1e30 0 1 2 1 0.5", "0 3 0 1 x 1 0.5"):
        (tmp_path / "a.ply").write_text(content.replace("0 3 0 1 2 1 0.5", row))
        with pytest.raises(QuoinError, match=r"a list has|ends|numbers"):
            read_ply_surface(tmp_path / "a.ply")


def check_damage(path: Path, examples: int) -> None:
    """Files with some bytes changed, taken out or put in are triangles of vertices, or a QuoinError."""

    @settings(max_examples=examples, deadline=None)
    @given(st.data())
    def damaged(data: st.DataObject) -> None:
        faces = [[0, 1, 2], [0, 1, 2, 3], [1, 2, 3]]
        content = bytearray(ply(data.draw(st.sampled_from(FORMATS)), SQUARE, faces))
        for _ in range(data.draw(st.integers(1, 3))):
            at, length = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 30))
            content[at : at + length] = data.draw(st.binary(max_size=12) | st.sampled_from([b"9999999999", b" -1 "]))
        path.write_bytes(content)
        count_faces(path)
        for read in (read_ply_surface, lambda path: read_vertex_property(path, "x")):
            try:
                found = read(path)
            except QuoinError:
                continue
            if read is read_ply_surface and len(found.triangles):
                assert 0 <= found.triangles.min() <= found.triangles.max() < len(found.vertices)
                assert len(found.face_rows) == len(found.triangles)

    damaged()


def test_any_damage_ends_in_a_surface_or_one_sentence(tmp_path: Path) -> None:
    check_damage(tmp_path / "a.ply", 100)


@pytest.mark.slow
def test_much_damage_ends_in_a_surface_or_one_sentence(tmp_path: Path) -> None:
    check_damage(tmp_path / "a.ply", 2000)
