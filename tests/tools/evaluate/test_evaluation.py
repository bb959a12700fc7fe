"""Evaluating a run as a user does: files in, numbers and files out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import trimesh

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.geometry.similarity import Similarity
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.photo_table import PhotoRow, write_photo_table
from quoin.pipeline.storage.run import Run
from quoin.tools.evaluate.config import EvaluateConfig, EvaluateResult
from quoin.tools.evaluate.evaluation import evaluate_surface
from quoin.tools.evaluate.reference_surface import read_surface
from tests.fixtures.camera_files import write_colmap_binary
from tests.fixtures.synthetic import faces_camera, make_run, posed_points, ring_of_cameras, sphere_points

TRUTH_FROM_WORLD = Similarity(2.5, np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([100.0, -50, 3]))
CONFIG = EvaluateConfig(n_samples=5000)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A fused run of a unit sphere, and beside it its truth in another frame, two and a half times as large."""
    run = make_run(tmp_path, "ingest", "pose", "fuse")
    poses = ring_of_cameras(9, 4.0, 1.0)
    poses[::2, :, 3] *= 1.2
    posed = posed_points(poses, sphere_points(200), faces_camera)
    posed_images.write_posed(run, posed)
    write_photo_table(run, [PhotoRow(name, name) for name in posed.names])
    ball = trimesh.creation.icosphere(subdivisions=3)
    ball.export(run.path / "mesh.ply")
    transformed = trimesh.Trimesh(TRUTH_FROM_WORLD.apply(ball.vertices), ball.faces)
    for end in ("ply", "obj", "stl", "glb"):
        transformed.export(tmp_path / f"truth.{end}")
    np.savetxt(tmp_path / "truth.xyz", transformed.sample(30_000, seed=0))
    centers = TRUTH_FROM_WORLD.apply(centers_world(posed.cam_from_world))
    rows = "".join(f"{n},{c[0]},{c[1]},{c[2]}\n" for n, c in zip(posed.names, centers, strict=True))
    (tmp_path / "cameras.csv").write_text("name,x,y,z\n" + rows)
    return run


@pytest.mark.parametrize("end", ["ply", "obj", "stl", "glb", "xyz"])
def test_a_right_reconstruction_scores_one_in_any_format(run: Run, tmp_path: Path, end: str) -> None:
    result = evaluate_surface(run, tmp_path / f"truth.{end}", tmp_path / "cameras.csv", Reporter(), CONFIG)
    assert result.scale == pytest.approx(2.5, rel=1e-6)
    assert result.surface.scores[-1].f_score == pytest.approx(1.0, abs=0.01 if end == "xyz" else 0.0)
    assert result.poses.n_matched == 9
    assert result.poses.center_max_m < 1e-3
    assert EvaluateResult.model_validate(json.loads((run.path / "evaluation.json").read_text())) == result
    f_scores = [score.f_score for score in result.surface.scores]
    assert pq.read_table(run.table("evaluation")).column("f_score").to_pylist() == f_scores
    assert pq.read_table(run.table("evaluation_poses")).num_rows == 9


def test_confidence_is_scored_where_the_mesh_tells_it(run: Run, tmp_path: Path) -> None:
    truth = tmp_path / "truth.ply", tmp_path / "cameras.csv"
    assert evaluate_surface(run, *truth, Reporter(), CONFIG).confidence is None
    ball = trimesh.load_mesh(run.path / "mesh.ply", process=False)
    ball.vertex_attributes["confidence"] = np.linspace(0, 1, len(ball.vertices)).astype(np.float32)
    ball.export(run.path / "mesh.ply")
    found = evaluate_surface(run, *truth, Reporter(), CONFIG).confidence
    assert found is not None
    assert [p.low for p in found.parts] == pytest.approx([0, 0.25, 0.5, 0.75], abs=0.01)
    assert all(p.mean_m < 1e-3 for p in found.parts)


def test_distances_may_be_given(run: Run, tmp_path: Path) -> None:
    config = EvaluateConfig(n_samples=1000, distances_m=(0.5, 0.1))
    result = evaluate_surface(run, tmp_path / "truth.ply", tmp_path / "cameras.csv", Reporter(), config)
    assert [s.distance_m for s in result.surface.scores] == [0.1, 0.5]


def test_sparse_reference_points_are_told(run: Run, tmp_path: Path) -> None:
    events: list[dict] = []
    config = EvaluateConfig(n_samples=1000, distances_m=(0.01,))
    evaluate_surface(run, tmp_path / "truth.xyz", tmp_path / "cameras.csv", Reporter(events.append), config)
    assert any(e["kind"] == "log" and e["level"] == "warning" and "comes out too low" in e["message"] for e in events)


def test_cameras_are_asked_for_where_the_run_was_given_none(run: Run, tmp_path: Path) -> None:
    with pytest.raises(QuoinError, match="--cameras"):
        evaluate_surface(run, tmp_path / "truth.ply", None, Reporter(), CONFIG)


def test_cameras_that_the_run_was_given_serve(run: Run, tmp_path: Path) -> None:
    run.record.settings["pose"] = {"known_poses": str(tmp_path / "cameras.csv")}
    result = evaluate_surface(run, tmp_path / "truth.ply", None, Reporter(), CONFIG)
    assert result.surface.scores[0].f_score == 1.0


def test_the_folder_that_the_run_was_given_serves(run: Run, tmp_path: Path) -> None:
    posed = posed_images.read_posed(run)
    poses = TRUTH_FROM_WORLD.apply_to_poses(posed.cam_from_world)
    write_colmap_binary(tmp_path / "given" / "sparse" / "0", posed.names, poses)
    run.record.settings["pose"] = {"known_poses": str(tmp_path / "given")}
    result = evaluate_surface(run, tmp_path / "truth.ply", None, Reporter(), CONFIG)
    assert result.poses.rotation_max_deg == pytest.approx(0.0, abs=1e-4)
    assert result.surface.scores[0].f_score == 1.0


def test_a_run_without_a_mesh_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, "ingest", "pose")
    with pytest.raises(QuoinError, match="'fuse' has not been completed"):
        evaluate_surface(run, tmp_path / "truth.ply", tmp_path / "cameras.csv", Reporter(), CONFIG)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.ply", b"ply\nformat ascii 1.0\n"), ("a.obj", b""), ("a.xyz", b"1 2\n"), ("a.glb", b"glTF"), ("a.doc", b"x")],
)
def test_damaged_and_empty_surfaces_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(QuoinError):
        read_surface(tmp_path / name)
    with pytest.raises(QuoinError, match="does not exist"):
        read_surface(tmp_path / "absent.ply")


def test_points_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.xyz", [[0, 0, 0], [1, np.nan, 0], [1, 1, 1]])
    assert len(read_surface(tmp_path / "a.xyz").vertices) == 2
    mesh = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0], [np.inf, 0, 0]], [[0, 1, 2], [0, 1, 3]], process=False)
    mesh.export(tmp_path / "a.ply")
    assert len(read_surface(tmp_path / "a.ply").faces) == 1
