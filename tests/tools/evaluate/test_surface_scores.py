"""Scores against what geometry says: shells, half surfaces, similarities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.geometry.similarity import Similarity
from quoin.pipeline.imaging.labels import CEILING, FLOOR, WALL
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.photo_table import PhotoRow, write_photo_table
from quoin.pipeline.storage.run import Run
from quoin.tools.evaluate.config import EvaluateConfig
from quoin.tools.evaluate.evaluation import evaluate_surface
from quoin.tools.evaluate.reference_surface import (
    SurfaceGeometry,
    point_spacing,
    read_face_labels,
    read_surface,
    voxel_downsample,
)
from quoin.tools.evaluate.surface_scores import normal_errors_deg, score_confidence, score_labels, score_surface
from tests.fixtures.synthetic import faces_camera, make_run, posed_points, ring_of_cameras, sphere_points

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


TRUTH = trimesh.creation.icosphere(subdivisions=4)
REFERENCE = SurfaceGeometry(np.array(TRUTH.vertices), np.array(TRUTH.faces, np.int64))


def spoiled() -> tuple[SurfaceGeometry, np.ndarray]:
    """A ball that is too small, by 0 at the top to 0.1 at the bottom, and that error [v]."""
    error = 0.1 * (1 - REFERENCE.vertices[:, 2]) / 2
    return SurfaceGeometry(REFERENCE.vertices * (1 - error)[:, None], REFERENCE.faces), error


def test_errors_fall_with_a_confidence_that_knows_them_and_rise_with_one_that_lies() -> None:
    mesh, error = spoiled()
    scored = score_surface(mesh, REFERENCE, (0.04, 0.2), n_samples=4000)
    told = score_confidence(mesh, 1 - 10 * error, REFERENCE, scored, n_samples=4000)
    assert told is not None
    # heights of an even sphere are uniform: quarter k of the vertices has errors about 0.1 (k + 1/2) / 4
    np.testing.assert_allclose([p.mean_m for p in told.parts], [0.0875, 0.0625, 0.0375, 0.0125], atol=0.004)
    assert [p.precision[0] for p in told.parts] == pytest.approx([0, 0, 0.6, 1], abs=0.1)
    assert all(p.precision[1] == 1 for p in told.parts)
    assert told.parts[0].high <= told.parts[1].low
    assert sum(p.n_vertices for p in told.parts) == len(mesh.vertices)
    assert told.confident_share == pytest.approx(0.53, abs=0.03)  # the upper half is larger
    assert told.confident[0].precision > scored.scores[0].precision + 0.3
    assert told.confident[0].recall == pytest.approx(scored.scores[0].recall, abs=0.02)
    lies = score_confidence(mesh, 10 * error, REFERENCE, scored, n_samples=4000)
    assert lies is not None
    assert [p.mean_m for p in lies.parts] == pytest.approx([p.mean_m for p in told.parts][::-1], abs=0.002)
    assert lies.confident[0].precision < scored.scores[0].precision


def test_a_mesh_beside_the_reference_has_nothing_to_judge_and_a_doubtful_one_no_confident_part() -> None:
    mesh, error = spoiled()
    far = SurfaceGeometry(mesh.vertices + 50, mesh.faces)
    scored = score_surface(far, REFERENCE, (0.1,), n_samples=1000)
    assert score_confidence(far, error, REFERENCE, scored, n_samples=1000) is None
    none = score_confidence(mesh, np.zeros(len(error)), REFERENCE, scored, n_samples=1000)
    assert none is not None
    assert none.confident_share == 0.0
    assert none.confident[0].f_score == 0.0


N_BOX, DISTANCES = 20_000, (0.02, 0.05)


def room_box() -> tuple[SurfaceGeometry, np.ndarray]:
    """A box of 4 x 3 x 2.5 m, its sides told apart."""
    mesh = trimesh.creation.box((4.0, 3.0, 2.5))
    up = mesh.face_normals[:, 2]
    labels = np.where(up < -0.5, FLOOR, np.where(up > 0.5, CEILING, WALL))
    return SurfaceGeometry(np.array(mesh.vertices), np.array(mesh.faces, np.int64)), labels


def transformed(surface: SurfaceGeometry, matrix: np.ndarray) -> SurfaceGeometry:
    return SurfaceGeometry(trimesh.transform_points(surface.vertices, matrix), surface.faces)


def by_name(scores) -> dict:
    return {score.label: score for score in scores}


def test_the_same_box_is_all_there_and_turned_as_it_should_be() -> None:
    box, labels = room_box()
    found = by_name(score_labels(box, box, labels, DISTANCES, n_samples=N_BOX))
    assert set(found) == {"floor", "ceiling", "wall"}
    assert found["wall"].share == pytest.approx(35 / 59)
    for score in found.values():
        assert score.recall == [1.0, 1.0]
        assert score.normal_median_deg == pytest.approx(0.0, abs=1e-4)


def test_walls_that_lean_have_their_lean_as_error() -> None:
    """Turned by 0.6 degrees about z, walls are off by 0.6 and floors by nothing; which side faces us is no error."""
    box, labels = room_box()
    turned = transformed(box, trimesh.transformations.rotation_matrix(np.radians(0.6), [0, 0, 1]))
    found = by_name(
        score_labels(SurfaceGeometry(turned.vertices, turned.faces[:, ::-1]), box, labels, DISTANCES, n_samples=N_BOX)
    )
    assert found["wall"].normal_median_deg == pytest.approx(0.6, abs=0.01)
    assert found["floor"].normal_median_deg == pytest.approx(0.0, abs=1e-4)


def test_a_shift_counts_where_it_leads_away() -> None:
    """3 cm along x: the two walls across x are 3 cm off, of the others all but a strip is where it was."""
    box, labels = room_box()
    found = by_name(
        score_labels(transformed(box, trimesh.transformations.translation_matrix([0.03, 0, 0])), box, labels, DISTANCES)
    )
    across = 2 * 3.0 * 2.5 / 35
    assert found["wall"].recall[0] == pytest.approx(1 - across, abs=0.01)
    assert found["wall"].recall[1] == 1.0
    assert found["floor"].recall[0] == pytest.approx(1.0, abs=0.005)


def test_what_is_missing_has_no_normal() -> None:
    box, labels = room_box()
    floor = SurfaceGeometry(box.vertices, box.faces[labels == FLOOR])
    found = by_name(score_labels(floor, box, labels, DISTANCES, n_samples=N_BOX))
    assert found["floor"].recall == [1.0, 1.0]
    assert found["ceiling"].recall == [0.0, 0.0]
    assert found["ceiling"].normal_median_deg is None
    nothing = SurfaceGeometry(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    assert all(s.recall == [0.0, 0.0] for s in score_labels(nothing, box, labels, DISTANCES, n_samples=N_BOX))


def test_angles_of_normals() -> None:
    up = np.array([0.0, 0.0, 1.0])
    angles = np.array([0.0, 1e-6, 30.0, 90.0, 150.0, 180.0])
    leaning = np.stack([np.sin(np.radians(angles)), 0 * angles, np.cos(np.radians(angles))], axis=1)
    np.testing.assert_allclose(normal_errors_deg(leaning, np.tile(up, (6, 1))), [0, 1e-6, 30, 90, 30, 0], atol=1e-9)


@pytest.fixture
def boxes(tmp_path: Path) -> tuple[Run, Path]:
    """A fused run of the box, given its cameras, and the truth with labels."""
    run = make_run(tmp_path, "ingest", "pose", "fuse")
    posed = posed_points(ring_of_cameras(9, 4.0, 1.0), sphere_points(200), faces_camera)
    posed_images.write_posed(run, posed)
    write_photo_table(run, [PhotoRow(name, name) for name in posed.names])
    box, labels = room_box()
    mesh = trimesh.Trimesh(box.vertices, box.faces, process=False)
    mesh.export(run.path / "mesh.ply")
    mesh.face_attributes["label"] = labels.astype(np.uint8)
    mesh.export(tmp_path / "truth.ply")
    return run, tmp_path / "truth.ply"


def test_labels_of_a_file_are_scored_and_a_file_without_has_none(boxes: tuple[Run, Path], tmp_path: Path) -> None:
    run, truth = boxes
    posed = posed_images.read_posed(run)
    centers = centers_world(posed.cam_from_world)
    rows = "".join(f"{n},{c[0]},{c[1]},{c[2]}\n" for n, c in zip(posed.names, centers, strict=True))
    (tmp_path / "cameras.csv").write_text("name,x,y,z\n" + rows)
    config = EvaluateConfig(n_samples=5000, distances_m=DISTANCES)
    result = evaluate_surface(run, truth, tmp_path / "cameras.csv", Reporter(), config)
    assert [s.distance_m for s in result.surface.scores] == list(DISTANCES)
    assert {s.label: s.recall for s in result.labels} == {k: [1.0, 1.0] for k in ("floor", "ceiling", "wall")}
    assert evaluate_surface(run, run.path / "mesh.ply", tmp_path / "cameras.csv", Reporter(), config).labels == ()
    assert read_face_labels(truth, len(read_surface(truth).faces) + 1) is None
    assert read_face_labels(tmp_path / "cameras.csv", 3) is None
