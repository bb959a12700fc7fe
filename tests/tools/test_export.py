"""Exports read back by the programs' own libraries: what they say is what the run holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.scene import posed_images
from quoin.pipeline.storage.run import Run
from quoin.tools.export import EXPORT_FORMATS, export_run, jpeg_names
from tests.fixtures.synthetic import (
    faces_camera,
    make_run,
    posed_points,
    pyramid,
    ring_of_cameras,
    sphere_photo,
    sphere_points,
)

SIZE = (96, 72)


class Fused(StageResult):
    n_faces: int
    glb_faces: int


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A fused run of a coloured sphere seen by six cameras of two kinds; photo 2 has a mask."""
    run = make_run(tmp_path, "ingest", "pose")
    posed = posed_points(ring_of_cameras(6, 4.0, 1.0), sphere_points(150), faces_camera, size=SIZE, focal_px=80.0)
    posed.intrinsics[3:, :2] = 81.0
    posed.names[:] = ["a/one.png", "a/two words.jpg", "a/three.heic", "b/one.png", "b/x.jpg", "b/x.png"]
    posed.point_colors[:] = np.random.default_rng(0).integers(0, 255, posed.point_colors.shape)
    posed_images.write_posed(run, posed)
    for index in range(6):
        rgb = sphere_photo(posed, index, 1.0, lambda p: 127 + 120 * p)
        mask = np.full(rgb.shape[:2], 255, np.uint8)
        if index == 2:
            mask[:10] = 0
        posed_images.write_photo(run, index, pyramid(rgb), mask)
    ball = trimesh.creation.icosphere(subdivisions=2)
    ball.visual.vertex_colors = np.clip(127 + 120 * ball.vertices, 0, 255).astype(np.uint8)
    ball.export(run.path / "mesh.ply")
    ball.export(run.path / "mesh.glb")
    run.commit("fuse", "key", Fused(n_faces=len(ball.faces), glb_faces=len(ball.faces)), 0.0)
    return run


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture)


@pytest.mark.parametrize("end", ["ply", "glb", "obj"])
def test_meshes_keep_surface_and_colours(run: Run, tmp_path: Path, end: str) -> None:
    out = tmp_path / "new" / f"ball.{end}"
    result = export_run(run, end, out, Reporter())
    source = trimesh.load(run.path / "mesh.ply", process=False)
    read = trimesh.load(out, process=False)
    read = read.to_mesh() if isinstance(read, trimesh.Scene) else read
    np.testing.assert_allclose(read.vertices, source.vertices, atol=1e-6)
    np.testing.assert_array_equal(read.faces, source.faces)
    colours, expected = (m.visual.vertex_colors[:, :3].astype(int) for m in (read, source))
    np.testing.assert_allclose(colours, expected, atol=1)
    assert np.ptp(expected) > 100
    assert (result.n_faces, result.n_files, result.n_bytes) == (len(source.faces), 1, out.stat().st_size)


def test_a_colmap_model_holds_the_cameras_points_and_tracks(run: Run, tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    result = export_run(run, "colmap", tmp_path / "model", Reporter())
    posed = posed_images.read_posed(run)
    model = pycolmap.Reconstruction(tmp_path / "model" / "sparse" / "0")
    assert model.num_reg_images() == result.n_photos == 6
    assert model.num_points3D() == result.n_points == len(posed.points_world)
    assert len(model.cameras) == 2
    errors = []
    for image in model.images.values():
        index = image.image_id - 1
        picture = tmp_path / "model" / "images" / image.name
        with Image.open(picture) as opened:
            assert opened.size == SIZE == (image.camera.width, image.camera.height)
        assert image.camera.model.name == "PINHOLE"
        np.testing.assert_allclose(image.camera.params, posed.intrinsics[index])
        np.testing.assert_allclose(image.cam_from_world().matrix(), posed.cam_from_world[index], atol=1e-12)
        for seen in image.points2D:
            projected = image.project_point(model.points3D[seen.point3D_id].xyz)
            errors.append((index, np.linalg.norm(projected - seen.xy)))
    assert len(errors) == len(posed.track_photo)
    # The observations were made with the intrinsics of photos 0..2.
    assert max(error for index, error in errors if index < 3) < 1e-6
    order = [int(np.argmin(np.linalg.norm(posed.points_world - p.xyz, axis=1))) for p in model.points3D.values()]
    assert sorted(order) == list(range(len(posed.points_world)))
    for index, point in zip(order, model.points3D.values(), strict=True):
        np.testing.assert_array_equal(point.color, posed.point_colors[index])
        assert point.track.length() == posed.track_lengths[index]


def test_a_colmap_export_has_photos_and_masks(run: Run, tmp_path: Path) -> None:
    export_run(run, "colmap", tmp_path / "model", Reporter())
    root = tmp_path / "model"
    names = sorted(str(p.relative_to(root / "images")) for p in (root / "images").rglob("*.jpg"))
    assert names == ["a/one.jpg", "a/three.jpg", "a/two words.jpg", "b/one.jpg", "b/x.jpg.jpg", "b/x.png.jpg"]
    masks = [str(p.relative_to(root / "masks")) for p in (root / "masks").rglob("*.png")]
    assert masks == ["a/three.jpg.png"]
    np.testing.assert_array_equal(pixels(root / "masks" / masks[0]), posed_images.read_mask(run, 2))
    written = pixels(root / "images" / "a" / "one.jpg").astype(float)
    assert np.abs(written - posed_images.read_photo(run, 0)).mean() < 2.0


def test_nerfstudio_cameras_look_at_the_points(run: Run, tmp_path: Path) -> None:
    result = export_run(run, "nerfstudio", tmp_path / "nerf", Reporter())
    posed = posed_images.read_posed(run)
    data = json.loads((tmp_path / "nerf" / "transforms.json").read_text())
    points = trimesh.load(tmp_path / "nerf" / data["ply_file_path"]).vertices
    np.testing.assert_allclose(points, posed.points_world, atol=1e-6)
    assert [("mask_path" in f) for f in data["frames"]] == [False, False, True, False, False, False]
    for index, frame in enumerate(data["frames"]):
        assert (tmp_path / "nerf" / frame["file_path"]).is_file()
        matrix = np.array(frame["transform_matrix"])
        np.testing.assert_allclose(matrix[:3, 3], centers_world(posed.cam_from_world)[index], atol=1e-12)
        # By the OpenGL convention, written out: x right, y up, the camera looks along -z.
        local = (posed.points_world - matrix[:3, 3]) @ matrix[:3, :3]
        pixels = np.stack(
            [
                frame["cx"] + frame["fl_x"] * local[:, 0] / -local[:, 2],
                frame["cy"] - frame["fl_y"] * local[:, 1] / -local[:, 2],
            ],
            axis=1,
        )
        if index < 3:
            seen = posed.track_photo == index
            np.testing.assert_allclose(pixels[posed.track_point[seen]], posed.track_xy[seen], atol=1e-6)
        assert (frame["w"], frame["h"]) == SIZE
    assert result.n_files == 6 + 1 + 2


def test_reference_cameras_of_an_export_fit_the_run(run: Run, tmp_path: Path) -> None:
    """What export writes, evaluate reads: the alignment is the identity."""
    from quoin.tools.evaluate.reference_cameras import align_to_reference, read_cameras

    posed = posed_images.read_posed(run)
    # The six stand on one circle with names whose endings changed: matched without them where that is unique.
    for kind, path in (("colmap", "c/sparse/0"), ("nerfstudio", "n/transforms.json")):
        export_run(run, kind, tmp_path / kind[0], Reporter())
        found, errors, _ = align_to_reference(posed.names, posed.cam_from_world, read_cameras(tmp_path / path))
        assert found.scale == pytest.approx(1.0, abs=1e-9)
        assert errors.n_matched >= 3
        assert errors.rotation_max_deg < 1e-6


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_what_is_there_is_never_overwritten(run: Run, tmp_path: Path, format: str) -> None:
    out = tmp_path / (f"x.{format}" if format in ("ply", "glb", "obj") else "x")
    if out.suffix:
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").write_text("mine")
    with pytest.raises(QuoinError, match="already exists"):
        export_run(run, format, out, Reporter())
    assert (out if out.suffix else out / "mine").read_text() == "mine"


def test_an_empty_folder_is_filled(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    export_run(run, "nerfstudio", tmp_path / "x", Reporter())
    assert (tmp_path / "x" / "transforms.json").is_file()


def test_only_committed_stages_are_exported_and_nothing_is_left_behind(run: Run, tmp_path: Path) -> None:
    run.invalidate("fuse")
    with pytest.raises(QuoinError, match="'fuse' has not been completed"):
        export_run(run, "ply", tmp_path / "x.ply", Reporter())
    run.invalidate("pose")
    with pytest.raises(QuoinError, match="'pose' has not been completed"):
        export_run(run, "colmap", tmp_path / "x", Reporter())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "run"]


def test_a_failure_half_way_leaves_nothing(run: Run, tmp_path: Path) -> None:
    shutil.rmtree(run.path / "scene.zarr" / "photos" / "000004")
    with pytest.raises(QuoinError):
        export_run(run, "colmap", tmp_path / "x", Reporter())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photos", "run"]


def test_mistakes_get_a_sentence(run: Run, tmp_path: Path) -> None:
    with pytest.raises(QuoinError, match="Did you mean 'colmap'"):
        export_run(run, "colmpa", tmp_path / "x", Reporter())
    with pytest.raises(QuoinError, match=r"ends in \.obj"):
        export_run(run, "obj", tmp_path / "x.ply", Reporter())
    (run.path / "mesh.glb").unlink()
    with pytest.raises(QuoinError, match=r"cannot be read \(No such file.*--force fuse"):
        export_run(run, "glb", tmp_path / "x.glb", Reporter())


@given(st.lists(st.from_regex(r"[ab]{1,2}\.(jpg|png|JPG|heic)", fullmatch=True), unique=True, max_size=12))
def test_jpeg_names_are_unique_and_keep_order(names: list[str]) -> None:
    made = jpeg_names(names)
    assert len({m.lower() for m in made}) == len({n.lower() for n in names})
    assert all(m.lower().endswith(".jpg") and m[0] == n[0] for m, n in zip(made, names, strict=True))
