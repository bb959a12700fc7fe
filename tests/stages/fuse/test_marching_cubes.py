"""Marching cubes: closed, oriented, exact on planes, and the same surface however the samples are cut into bricks."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quoin.stages.fuse.marching_cubes import (
    MIN_EDGE_FRACTION,
    EdgeKeys,
    Patch,
    marching_cubes,
    positions_voxels,
    triangle_table,
    weld,
)


def grid(n: int) -> np.ndarray:
    return np.stack(np.meshgrid(*[np.arange(n, dtype=float)] * 3, indexing="ij"), axis=-1)


def surface(sdf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    keys = EdgeKeys((0, 0, 0), sdf.shape)
    patch = marching_cubes(sdf.astype(np.float32), np.zeros(3, int), keys)
    return positions_voxels(patch, keys), patch.faces


def directed_edges(faces: np.ndarray) -> np.ndarray:
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def assert_closed(faces: np.ndarray) -> None:
    """Every edge is walked once in each direction: closed, oriented, and no third face anywhere."""
    edges = {tuple(e) for e in directed_edges(faces).tolist()}
    assert len(edges) == 3 * len(faces)
    assert {(b, a) for a, b in edges} == edges


def test_every_case_has_at_most_five_triangles_and_none_where_nothing_crosses() -> None:
    table, count = triangle_table()
    assert count[0] == count[255] == 0
    assert count[1] == 1
    assert count.max() <= 5
    assert ((table >= 0).all(axis=2).sum(axis=1) == count).all()


@pytest.mark.parametrize("seed", range(3))
def test_noise_of_any_topology_gives_a_closed_oriented_surface(seed: int) -> None:
    sdf = np.random.default_rng(seed).normal(size=(12, 12, 12))
    sdf[[0, -1]] = sdf[:, [0, -1]] = sdf[:, :, [0, -1]] = 1.0
    _, faces = surface(sdf)
    assert len(faces) > 1000
    assert_closed(faces)


@given(arrays(np.int8, (5, 5, 5), elements=st.integers(-1, 1)))
def test_small_fields_with_exact_zeros_close_too(values: np.ndarray) -> None:
    sdf = np.full((7, 7, 7), 1.0)
    sdf[1:-1, 1:-1, 1:-1] = values
    points, faces = surface(sdf)
    assert_closed(faces)
    assert len(np.unique(points, axis=0)) == len(points)
    if len(faces):
        assert trimesh.Trimesh(points, faces, process=False).volume > 0  # outside is outside


def test_a_plane_is_met_exactly_and_faces_up() -> None:
    points, faces = surface(grid(9)[..., 2] - 3.4)
    np.testing.assert_allclose(points[:, 2], 3.4, atol=1e-6)
    a, b, c = (points[faces[:, i]] for i in range(3))
    normals = np.cross(b - a, c - a)
    assert (normals[:, 2] > 0).all()
    assert normals[:, 2].sum() / 2 == pytest.approx(64.0)


def test_a_plane_through_samples_stays_within_the_end_gap() -> None:
    points, faces = surface(grid(6)[..., 2] - 3.0)
    assert np.abs(points[:, 2] - 3.0).max() <= MIN_EDGE_FRACTION + 1e-6
    assert len(faces) == 50


@pytest.mark.parametrize("cut", [1, 4, 7, 8])
def test_bricks_weld_into_the_surface_of_the_whole(cut: int) -> None:
    sdf = np.linalg.norm(grid(17) - [8.1, 7.9, 8.3], axis=-1) - 6.2
    sdf = sdf.astype(np.float32)
    keys = EdgeKeys((0, 0, 0), sdf.shape)
    whole = weld([marching_cubes(sdf, np.zeros(3, int), keys)])
    parts = []
    for x in (0, cut):
        for y in (0, cut):
            x1, y1 = (cut if x == 0 else 16), (cut if y == 0 else 16)
            parts.append(marching_cubes(sdf[x : x1 + 1, y : y1 + 1], np.array([x, y, 0]), keys))
    joined = weld(parts)
    np.testing.assert_array_equal(joined.keys, whole.keys)
    np.testing.assert_array_equal(joined.fractions, whole.fractions)
    assert {tuple(np.roll(f, -f.argmin())) for f in joined.faces} == {
        tuple(np.roll(f, -f.argmin())) for f in whole.faces
    }
    assert_closed(joined.faces)


low = st.tuples(*[st.integers(-(10**6), 10**6)] * 3)
shape = st.tuples(*[st.integers(1, 10**6)] * 3)


@given(low, shape, st.data())
def test_edge_keys_are_unique_and_decode(low, shape, data) -> None:
    keys = EdgeKeys(low, shape)
    sample = st.tuples(*[st.integers(w, w + n - 1) for w, n in zip(low, shape, strict=True)])
    edges = data.draw(st.lists(st.tuples(sample, st.integers(0, 2)), min_size=1, max_size=20, unique=True))
    samples, axes = np.array([e[0] for e in edges]), np.array([e[1] for e in edges])
    codes = keys.encode(samples, axes)
    assert len(np.unique(codes)) == len(edges)
    back, back_axes = keys.decode(codes)
    np.testing.assert_array_equal(back, samples)
    np.testing.assert_array_equal(back_axes, axes)


def test_a_lattice_too_large_for_int64_is_refused() -> None:
    with pytest.raises(OverflowError):
        EdgeKeys((0, 0, 0), (2**21, 2**21, 2**21))


def test_nothing_in_nothing_out() -> None:
    assert len(weld([]).faces) == 0
    assert len(weld([Patch.empty(), Patch.empty()]).keys) == 0
    assert len(surface(np.ones((4, 4, 4)))[1]) == 0
