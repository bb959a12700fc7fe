"""The nearest point, part by part; clipping; reading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from quoin.tools.evaluate import reference_surface
from quoin.tools.evaluate.reference_surface import SurfaceGeometry, nearest_on_surface, read_surface

BALL = trimesh.creation.icosphere(subdivisions=4)


def ball() -> SurfaceGeometry:
    return SurfaceGeometry(np.asarray(BALL.vertices), np.asarray(BALL.faces))


@pytest.mark.parametrize("most_faces", [7, 300, 4000])
def test_distances_part_by_part_are_those_of_the_whole(most_faces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(0).normal(size=(500, 3)) * [3, 1, 1]
    whole, normals = nearest_on_surface(ball(), points)
    radii = np.linalg.norm(points, axis=1)
    np.testing.assert_allclose(whole, np.abs(radii - 1), atol=3e-3)  # flat faces lie within
    monkeypatch.setattr(reference_surface, "MAX_RAYCAST_FACES", most_faces)
    monkeypatch.setattr(reference_surface, "MAX_BOUND_CORNERS", 50)
    parts = list(reference_surface._face_chunks(ball()))
    assert max(map(len, parts)) <= most_faces
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(BALL.faces)))
    found, there = nearest_on_surface(ball(), points)
    np.testing.assert_allclose(found, whole, atol=1e-6)
    assert ((normals * there).sum(axis=1) > 0.98).all()  # on an edge two faces are as near


@given(st.lists(st.floats(-1.5, 1.5), min_size=6, max_size=6))
def test_what_is_clipped_lies_in_the_box_and_has_the_area_that_lies_there(numbers: list[float]) -> None:
    low, high = np.sort(np.reshape(numbers, (2, 3)), axis=0)
    high = high + 0.1
    part = ball().clipped(low, high)
    assert (part.vertices >= low - 1e-9).all()
    assert (part.vertices <= high + 1e-9).all()
    points, _ = ball().sample(20_000, np.random.default_rng(0))
    share = np.all((points >= low) & (points <= high), axis=1).mean()
    assert part.face_areas().sum() / ball().face_areas().sum() == pytest.approx(share, abs=0.02)
    assert set(part.faces.ravel().tolist()) == set(range(len(part.vertices)))


def test_a_triangle_that_spans_the_box_is_cut_out_of_it() -> None:
    large = SurfaceGeometry(np.array([[-9.0, -9, 0], [9, -9, 0], [0, 9, 0]]), np.array([[0, 1, 2]]))
    assert large.clipped(np.full(3, -1.0), np.full(3, 1.0)).face_areas().sum() == pytest.approx(4.0)


@pytest.mark.parametrize("faces", [[[0, 1, 2], [0, 2, 3]], [[0, 1, 2, 3]]])
def test_a_file_of_others_is_read_as_well(tmp_path: Path, faces: list) -> None:
    lines = ["ply", "format ascii 1.0", "element vertex 4", *(f"property float {axis}" for axis in "xyz")]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header"]
    lines += ["0 0 0", "1 0 0", "1 1 0", "0 1 0", *(" ".join(map(str, [len(face), *face])) for face in faces)]
    (tmp_path / "square.ply").write_text("\n".join(lines) + "\n")
    assert read_surface(tmp_path / "square.ply").face_areas().sum() == pytest.approx(1.0)
