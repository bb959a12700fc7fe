"""Floor, ceiling and walls of an analytic box, each scored alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.imaging.labels import CEILING, FLOOR, WALL
from quoin.pipeline.scene import posed_images
from quoin.pipeline.storage.run import Run
from quoin.tools.evaluate.config import EvaluateConfig
from quoin.tools.evaluate.evaluation import evaluate_surface
from quoin.tools.evaluate.label_scores import normal_errors_deg, score_labels
from quoin.tools.evaluate.reference_surface import SurfaceGeometry, read_face_labels, read_surface
from tests.fixtures.synthetic import faces_camera, make_run, posed_points, ring_of_cameras, sphere_points

N, DISTANCES = 20_000, (0.02, 0.05)


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
    found = by_name(score_labels(box, box, labels, DISTANCES, n_samples=N))
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
        score_labels(SurfaceGeometry(turned.vertices, turned.faces[:, ::-1]), box, labels, DISTANCES, n_samples=N)
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
    found = by_name(score_labels(floor, box, labels, DISTANCES, n_samples=N))
    assert found["floor"].recall == [1.0, 1.0]
    assert found["ceiling"].recall == [0.0, 0.0]
    assert found["ceiling"].normal_median_deg is None
    nothing = SurfaceGeometry(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    assert all(s.recall == [0.0, 0.0] for s in score_labels(nothing, box, labels, DISTANCES, n_samples=N))


def test_angles_of_normals() -> None:
    up = np.array([0.0, 0.0, 1.0])
    angles = np.array([0.0, 1e-6, 30.0, 90.0, 150.0, 180.0])
    leaning = np.stack([np.sin(np.radians(angles)), 0 * angles, np.cos(np.radians(angles))], axis=1)
    np.testing.assert_allclose(normal_errors_deg(leaning, np.tile(up, (6, 1))), [0, 1e-6, 30, 90, 30, 0], atol=1e-9)


@pytest.fixture
def boxes(tmp_path: Path) -> tuple[Run, Path]:
    """A fused run of the box, given its cameras, and the truth with labels."""
    run = make_run(tmp_path, "ingest", "pose", "fuse")
    posed_images.write_posed(run, posed_points(ring_of_cameras(9, 4.0, 1.0), sphere_points(200), faces_camera))
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
