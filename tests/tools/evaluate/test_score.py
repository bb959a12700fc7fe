"""Scores against what geometry says: shells, half surfaces, similarities."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.pipeline.geometry.similarity import Similarity
from quoin.tools.evaluate.reference_surface import SurfaceGeometry, point_spacing, voxel_downsample
from quoin.tools.evaluate.score import score_surface

N = 5_000
SQUARE = SurfaceGeometry(np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), np.array([[0, 1, 2], [0, 2, 3]]))


def sphere(radius: float = 1.0, center: tuple[float, float, float] = (0, 0, 0)) -> SurfaceGeometry:
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return SurfaceGeometry(np.array(mesh.vertices) + center, np.array(mesh.faces, np.int64))


def test_identical_surfaces_score_one() -> None:
    found = score_surface(sphere(), sphere(), n_samples=N)
    assert [s.f_score for s in found.scores] == [1.0, 1.0, 1.0]
    assert found.chamfer_m == pytest.approx(0.0, abs=1e-5)
    assert found.normal_consistency == pytest.approx(1.0, abs=1e-3)
    assert found.cropped_share == 0.0
    assert [s.distance_percent for s in found.scores] == pytest.approx([0.25, 0.5, 1.0])
    assert found.diagonal_m == pytest.approx(2 * np.sqrt(3), rel=1e-3)


def test_a_larger_shell_is_right_beyond_its_gap_and_wrong_below() -> None:
    found = score_surface(sphere(1.05), sphere(1.0), (0.03, 0.07), n_samples=N)
    below, beyond = found.scores
    assert (below.precision, below.recall, below.f_score) == (0.0, 0.0, 0.0)
    assert (beyond.precision, beyond.recall, beyond.f_score) == (1.0, 1.0, 1.0)
    assert found.accuracy_mean_m == pytest.approx(0.05, abs=2e-3)
    assert found.completeness_median_m == pytest.approx(0.05, abs=2e-3)


def test_a_shifted_sphere_follows_archimedes() -> None:
    """At the offset t along z, a point at height z lies |z| t from the other sphere, and z is uniform in -1..1."""
    shift = 0.05
    found = score_surface(
        sphere(center=(0, 0, shift)), sphere(), (0.25 * shift, 0.5 * shift, 1.2 * shift), n_samples=40_000
    )
    assert [s.precision for s in found.scores] == pytest.approx([0.25, 0.5, 1.0], abs=0.03)
    assert [s.recall for s in found.scores] == pytest.approx([0.25, 0.5, 1.0], abs=0.03)
    assert found.accuracy_mean_m == pytest.approx(shift / 2, abs=2e-3)


def test_half_a_surface_has_half_the_recall() -> None:
    whole = sphere()
    upper = whole.vertices[whole.faces].mean(axis=1)[:, 2] > 0
    found = score_surface(SurfaceGeometry(whole.vertices, whole.faces[upper]), whole, (0.001,), n_samples=40_000)
    assert found.scores[0].precision == 1.0
    assert found.scores[0].recall == pytest.approx(0.5, abs=0.02)


def test_what_lies_outside_the_reference_is_not_judged_but_told() -> None:
    near, far = sphere(), sphere(center=(10, 0, 0))
    faces = np.concatenate([near.faces, far.faces + len(near.vertices)])
    both = SurfaceGeometry(np.concatenate([near.vertices, far.vertices]), faces)
    found = score_surface(both, near, (0.01,), n_samples=N)
    assert found.scores[0].precision == 1.0
    assert found.cropped_share == pytest.approx(0.5, abs=1e-6)


def test_ground_that_goes_on_beyond_the_reference_costs_no_precision() -> None:
    """Two huge triangles over a patch 2 wide: cut at the box; only its corners (1 - pi / 4 of 4 d^2) are too far."""
    flat = SurfaceGeometry(100 * SQUARE.vertices - [50, 50, 0], SQUARE.faces)
    patch = SurfaceGeometry(flat.vertices / 50, flat.faces)
    found = score_surface(flat, patch, (0.01, 0.1), n_samples=40_000)
    for got in found.scores:
        d = got.distance_m
        assert got.precision == pytest.approx(1 - (4 - np.pi) * d**2 / (2 + 2 * d) ** 2, abs=1e-3)
        assert got.recall == 1.0
    assert found.cropped_share == pytest.approx(1 - 2**2 / 100**2, abs=1e-8)


def test_nothing_in_the_box_scores_zero() -> None:
    found = score_surface(sphere(center=(10, 0, 0)), sphere(), n_samples=N)
    assert [s.f_score for s in found.scores] == [0.0, 0.0, 0.0]
    assert found.chamfer_m is None
    assert found.accuracy_mean_m is None
    assert found.cropped_share == 1.0


def test_points_serve_as_reference() -> None:
    rng = np.random.default_rng(0)
    points = sphere().sample(20_000, rng)[0]
    found = score_surface(sphere(1.02), SurfaceGeometry(points, np.zeros((0, 3), np.int64)), (0.01, 0.1), n_samples=N)
    assert found.normal_consistency is None
    assert [s.recall for s in found.scores] == [0.0, 1.0]
    assert [s.precision for s in found.scores] == [0.0, 1.0]
    assert 0 < found.reference_spacing_m < 0.05


def test_a_dense_side_of_points_weighs_no_more() -> None:
    """Half the sphere scanned 50 times as densely: its share of recall stays a half."""
    rng = np.random.default_rng(0)
    even = sphere().sample(4_000, rng)[0]
    crowd = sphere().sample(400_000, rng)[0]
    points = np.concatenate([even, crowd[crowd[:, 2] > 0]])
    whole = sphere()
    upper = whole.vertices[whole.faces].mean(axis=1)[:, 2] > 0
    found = score_surface(
        SurfaceGeometry(whole.vertices, whole.faces[upper]), SurfaceGeometry(points, np.zeros((0, 3), np.int64)), (0.2,)
    )
    lower_share = (voxel_downsample(points, 0.1)[:, 2] < -0.2).mean()
    assert found.scores[0].recall == pytest.approx(1 - lower_share, abs=0.02)
    assert lower_share > 0.3


def test_the_same_seed_gives_the_same_numbers() -> None:
    a, b = (score_surface(sphere(1.01), sphere(), n_samples=N, seed=3) for _ in range(2))
    assert a == b
    assert a != score_surface(sphere(1.01), sphere(), n_samples=N, seed=4)


def test_spacing_of_a_grid() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(6) * 0.5] * 3), -1).reshape(-1, 3)
    assert point_spacing(grid, np.random.default_rng(0)) == pytest.approx(0.5)
    assert point_spacing(grid[:1], np.random.default_rng(0)) == np.inf


@settings(max_examples=6)
@given(
    scale=st.floats(1e-3, 1e3),
    angles=st.tuples(*[st.floats(-3.0, 3.0)] * 3),
    shift=st.tuples(*[st.floats(-1e3, 1e3)] * 3),
)
def test_scores_do_not_depend_on_the_frame(scale: float, angles: tuple, shift: tuple) -> None:
    """Both surfaces moved together by a similarity, over six orders of scale, the one within the other's box."""
    matrix = trimesh.transformations.euler_matrix(*angles)[:3, :3]
    move = Similarity(scale, matrix, scale * np.array(shift) / 1e3)
    ours, truth = sphere(0.985, (0.0, 0.0, 0.01)), sphere()
    distances = (0.01, 0.02)
    plain = score_surface(ours, truth, distances, n_samples=N)
    transformed = score_surface(
        ours.transformed(move), truth.transformed(move), [scale * d for d in distances], n_samples=N
    )
    assert [s.f_score for s in transformed.scores] == pytest.approx([s.f_score for s in plain.scores], abs=5e-3)
    assert transformed.chamfer_m == pytest.approx(scale * plain.chamfer_m, rel=1e-3)


@settings(max_examples=20)
@given(gap=st.floats(0.001, 0.2), asked=st.floats(0.001, 0.2))
def test_precision_and_recall_step_at_the_gap_of_two_planes(gap: float, asked: float) -> None:
    if abs(gap - asked) < 1e-4:
        return
    above = SurfaceGeometry(SQUARE.vertices + np.array([0, 0, gap]), SQUARE.faces)
    found = score_surface(above, SQUARE, (asked, 0.3), n_samples=1_000).scores[0]
    assert found.f_score == (1.0 if gap < asked else 0.0)
