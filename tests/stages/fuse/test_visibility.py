"""What a photo sees: a ball hides its back, a wall hides what is behind it, masks hide what they cover."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
import zarr

from quoin.pipeline.geometry.cameras import frustum_query, look_at
from quoin.pipeline.imaging import labels
from quoin.stages.fuse.visibility import (
    LocalView,
    ViewMaps,
    make_local_view,
    make_raycasting_scene,
    occlusion_of_chunks,
    occlusion_of_mesh,
    render_depth,
    split_sky,
    visible_vertices,
    write_occlusion_maps,
)

SIZE = np.array([96, 72])
INTRINSICS = np.array([80.0, 80.0, 48.0, 36.0])


def view_from(center: list[float], edge_px: int = 96, middle: tuple[float, float, float] = (0, 0, 0)):
    pose = look_at(np.array(center) + np.array(middle), np.array(middle, float))
    return make_local_view(pose, INTRINSICS, SIZE, edge_px, np.array(middle, float))


def ball(subdivisions: int = 4) -> tuple[np.ndarray, np.ndarray]:
    found = trimesh.creation.icosphere(subdivisions=subdivisions)
    return np.asarray(found.vertices, np.float32), np.asarray(found.faces)


def nearest_depth(vertices: np.ndarray, faces: np.ndarray, view: LocalView, n_parts: int) -> np.ndarray:
    """The depth map of a mesh, cast whole or in parts."""
    if n_parts == 1:
        return occlusion_of_mesh((vertices, faces), [view])(0)
    group = zarr.group()
    parts = enumerate(np.array_split(faces, n_parts))
    shown = [part for part, some in parts if write_occlusion_maps((vertices, some), [view], group, part)]
    return occlusion_of_chunks([view], group, [shown])(0)


@pytest.mark.parametrize("n_parts", [1, 7])
@pytest.mark.parametrize("edge_px", [96, 48])
def test_depth_of_a_ball_is_that_of_the_formula(n_parts: int, edge_px: int) -> None:
    vertices, faces = ball(5)
    view = view_from([4.0, 0.0, 0.0], edge_px)
    depth = nearest_depth(vertices, faces, view, n_parts)
    assert depth.shape == (view.height, view.width) == (72 * edge_px // 96, edge_px)
    xs = (np.arange(view.width) + 0.5 - view.intrinsics[2]) / view.intrinsics[0]
    ys = (np.arange(view.height) + 0.5 - view.intrinsics[3]) / view.intrinsics[1]
    square = xs[None] ** 2 + ys[:, None] ** 2 + 1
    root = 16 - 15 * square  # |z d - c|² = 1 along z
    expected = np.where(root > 0, (4 - np.sqrt(np.maximum(root, 0))) / square, np.inf)
    clear = np.abs(root) > 0.05
    np.testing.assert_array_equal(np.isinf(depth[clear]), np.isinf(expected[clear]))
    hit = clear & np.isfinite(expected)
    np.testing.assert_allclose(depth[hit], expected[hit], atol=3e-3)


def test_a_ball_shows_its_front_only() -> None:
    vertices, faces = ball()
    view = view_from([4.0, 0.0, 0.0])
    found = visible_vertices(
        ViewMaps(view, render_depth(make_raycasting_scene(vertices, faces), view)),
        vertices,
        vertices,
        tolerance=0.02,
        min_cosine=0.1,
    )
    to_camera = np.array([4.0, 0, 0]) - vertices
    cosine = np.einsum("ij,ij->i", vertices, to_camera) / np.linalg.norm(to_camera, axis=1)
    assert set(found.vertex) <= set(np.flatnonzero(cosine > 0.1))
    assert set(found.vertex) >= set(np.flatnonzero(cosine > 0.15))
    np.testing.assert_allclose(found.cosine, cosine[found.vertex], atol=1e-5)
    np.testing.assert_allclose(found.depth, 4 - vertices[found.vertex, 0], atol=1e-5)


def test_a_wall_hides_what_is_behind_it_and_a_mask_what_it_covers() -> None:
    ys, zs = np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-0.8, 0.8, 21))
    back = np.stack([np.zeros(ys.size), ys.ravel(), zs.ravel()], axis=1).astype(np.float32)
    wall = np.array([[1, 0, -2], [1, 3, -2], [1, 3, 2], [1, 0, 2]], np.float32)  # hides y > 0
    wall_scene = make_raycasting_scene(wall, np.array([[0, 1, 2], [0, 2, 3]]))
    view = view_from([4.0, 0.0, 0.0])
    normals = np.tile(np.array([[1, 0, 0]], np.float32), (len(back), 1))
    found = visible_vertices(
        ViewMaps(view, render_depth(wall_scene, view)), back, normals, tolerance=0.05, min_cosine=0.1
    )
    assert (back[found.vertex, 1] < 0.1).all()
    assert set(found.vertex) >= set(np.flatnonzero(back[:, 1] < -0.1))
    mask = np.zeros((36, 48), np.uint8)
    mask[:18] = 255  # the upper half of the photo
    upper = visible_vertices(
        ViewMaps(view, render_depth(wall_scene, view), mask), back, normals, tolerance=0.05, min_cosine=0.1
    )
    assert set(upper.vertex) == {v for v in found.vertex if back[v, 2] > 0}


def test_nothing_is_seen_behind_the_camera_or_beside_the_picture() -> None:
    points = np.array([[9, 0, 0], [0, 30, 0], [0, 0, 0]], np.float32)
    normals = np.array([[-1, 0, 0], [1, 0, 0], [1, 0, 0]], np.float32)
    view = view_from([4.0, 0.0, 0.0])
    nothing_in_the_way = np.full((72, 96), np.inf, np.float32)
    found = visible_vertices(ViewMaps(view, nothing_in_the_way), points, normals, tolerance=0.05, min_cosine=0.1)
    assert found.vertex.tolist() == [2]
    np.testing.assert_allclose(found.uv, [[0.5, 0.5]], atol=1e-6)


def test_a_view_far_from_the_origin_is_moved_without_loss() -> None:
    vertices, faces = ball(3)
    here, there = view_from([4.0, 1.0, 0.5]), view_from([4.0, 1.0, 0.5], middle=(4e5, 5e6, 100.0))
    both = make_raycasting_scene(vertices, faces)
    a, b = render_depth(both, here), render_depth(both, there)
    np.testing.assert_array_equal(np.isinf(a), np.isinf(b))
    np.testing.assert_allclose(a[np.isfinite(a)], b[np.isfinite(a)], atol=1e-4)


def test_a_surface_met_from_behind_shows_nothing() -> None:
    vertices, faces = ball()
    view = view_from([0.5, 0.0, 0.0])  # inside the ball
    for n_parts in (1, 3):
        depth = nearest_depth(vertices, faces, view, n_parts)
        assert (depth < 0).all()
        found = visible_vertices(ViewMaps(view, depth), vertices, -vertices, tolerance=0.05, min_cosine=0.1)
        assert len(found.vertex) == 0


def test_a_vertex_before_sky_is_a_vote_against_it_and_no_view() -> None:
    vertices, faces = ball()
    view = view_from([4.0, 0.0, 0.0])
    depth = render_depth(make_raycasting_scene(vertices, faces), view)
    whole = visible_vertices(ViewMaps(view, depth), vertices, vertices, tolerance=0.02, min_cosine=0.1)
    shown = np.zeros((72, 96), np.uint8)
    shown[:36] = labels.SKY
    found, against = split_sky(whole, shown)
    assert set(found.vertex) | set(against) == set(whole.vertex)
    assert not set(found.vertex) & set(against)
    row = dict(zip(whole.vertex.tolist(), (whole.uv[:, 1] * 72).tolist(), strict=True))
    assert all(row[v] < 36 for v in against.tolist())
    assert all(row[v] > 34 for v in found.vertex.tolist())  # a pixel inside the outline counts as sky
    assert len(split_sky(whole, np.full((72, 96), labels.TRANSIENT, np.uint8))[1]) == 0


def test_a_photo_that_looks_at_a_part_sees_the_same_without_a_look_at_the_rest() -> None:
    ys, zs = np.meshgrid(np.linspace(-30, 30, 241), np.linspace(-30, 30, 241))
    wall = np.stack([np.zeros(ys.size), ys.ravel(), zs.ravel()], axis=1).astype(np.float32)
    normals = np.tile(np.array([[1, 0, 0]], np.float32), (len(wall), 1))
    view = view_from([4.0, 0.0, 0.0])
    depth = np.full((view.height, view.width), np.inf, np.float32)
    candidates = frustum_query(wall)(view.cam_from_local, view.intrinsics, (view.width, view.height))
    assert len(candidates) < 0.1 * len(wall)
    every, some = (
        visible_vertices(ViewMaps(view, depth), wall, normals, tolerance=0.05, min_cosine=0.1, candidates=n)
        for n in (None, candidates)
    )
    assert len(every.vertex) > 100
    np.testing.assert_array_equal(some.vertex, every.vertex)
    np.testing.assert_array_equal(some.uv, every.uv)
    far = wall + np.array([0, 500, 0], np.float32)
    nobody = frustum_query(far)(view.cam_from_local, view.intrinsics, (view.width, view.height))
    empty = visible_vertices(ViewMaps(view, depth), far, normals, tolerance=0.05, min_cosine=0.1, candidates=nobody)
    assert len(nobody) == len(empty.vertex) == 0
