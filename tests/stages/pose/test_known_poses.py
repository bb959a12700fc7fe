"""Cameras that the user gives, brought to the photos at hand."""

from pathlib import Path

import numpy as np
import pytest

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.imaging.io import apply_orientation
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.given_camera import GivenCamera, GivenIntrinsics, turned_upright
from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.known_poses import are_stored_by_shape, scale_to_photo
from quoin.stages.pose.stage import POSE
from tests.fixtures.camera_files import write_colmap_text
from tests.stages.pose.room import CAMERA, cameras_around, ingested, render, save

MODELS = [
    ("SIMPLE_RADIAL", (380.0, 210.0, 140.0, 0.1)),
    ("PINHOLE", (380.0, 350.0, 210.0, 140.0)),
    ("OPENCV", (380.0, 350.0, 210.0, 140.0, 0.1, -0.02, 0.01, -0.03)),
    ("FULL_OPENCV", (380.0, 350.0, 210.0, 140.0, 0.1, -0.02, 0.01, -0.03, 0.01, 0.02, 0.0, 0.0)),
    ("OPENCV_FISHEYE", (380.0, 350.0, 210.0, 140.0, 0.1, -0.02, 0.01, -0.03)),
]


def test_cameras_follow_a_resized_photo() -> None:
    camera = Camera("OPENCV", 4000, 3000, (3800.0, 3900.0, 2010.0, 1490.0, 0.1, 0.0, 0.0, 0.0))
    small = scale_to_photo(camera, "a.jpg", 400, 300)
    assert small.params == (380.0, 390.0, 201.0, 149.0, 0.1, 0.0, 0.0, 0.0)
    radial = scale_to_photo(Camera("SIMPLE_RADIAL", 4000, 3000, (3800.0, 2000.0, 1500.0, 0.1)), "a.jpg", 400, 300)
    assert radial.params == (380.0, 200.0, 150.0, 0.1)
    with pytest.raises(QuoinError, match="turned upright"):
        scale_to_photo(camera, "a.jpg", 300, 400)
    with pytest.raises(QuoinError, match="4000 x 3000"):
        scale_to_photo(camera, "a.jpg", 400, 400)


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize(("model", "params"), MODELS)
def test_a_turned_camera_sees_points_where_the_turned_photo_shows_them(
    orientation: int, model: str, params: tuple[float, ...]
) -> None:
    """A pixel of the stored photo, by the point that it shows, and where EXIF's turn takes it."""
    stored, pose = GivenIntrinsics(model, 400, 300, params), cameras_around(3)[1]
    turned = turned_upright(stored, pose, orientation)
    assert turned is not None
    upright, upright_pose = turned
    for x, y in [(30, 40), (350, 200), (200, 150)]:
        image = np.zeros((300, 400), np.uint8)
        image[y, x] = 1
        row, column = np.argwhere(apply_orientation(image, orientation))[0]
        assert (upright.height, upright.width) == apply_orientation(image, orientation).shape
        direction = Camera(*stored).cam_from_img(np.array([[x + 0.5, y + 0.5]]))[0]
        world = np.linalg.solve(pose[:, :3], 5 * np.append(direction, 1) - pose[:, 3])
        cam = upright_pose[:, :3] @ world + upright_pose[:, 3]
        pixel = Camera(*upright).img_from_cam(cam[None, :2] / cam[2])[0]
        np.testing.assert_allclose(pixel, [column + 0.5, row + 0.5], atol=1e-6)


def test_what_cannot_be_turned() -> None:
    assert turned_upright(GivenIntrinsics("PINHOLE", 4, 3, (5.0, 5.0, 2.0, 1.5)), np.eye(3, 4), 2) is None
    prism = GivenIntrinsics("THIN_PRISM_FISHEYE", 4, 3, (5.0,) * 12)
    assert turned_upright(prism, np.eye(3, 4), 3) is None


def test_the_shape_of_photos_tells_whether_their_cameras_are_turned() -> None:
    def told(orientation: int, width: int, height: int, camera: object) -> bool | None:
        photo = PhotoRow("a.jpg", "a.jpg", photo_id=0, width=width, height=height, orientation=orientation)
        return are_stored_by_shape({0: GivenCamera("a", np.eye(3, 4), camera, "x")}, [photo])  # type: ignore[arg-type]

    wide = GivenIntrinsics("SIMPLE_PINHOLE", 800, 600, (700.0, 400.0, 300.0))
    assert told(1, 400, 300, wide) is False
    assert told(6, 300, 400, wide) is True
    assert told(6, 400, 300, wide) is False
    assert told(8, 300, 400, {"w": 800, "h": 600}) is True
    assert told(8, 300, 400, {"cx": 300, "cy": 400}) is False
    assert told(8, 300, 400, {"fl_x": 300}) is None
    assert told(6, 400, 400, wide) is None
    assert told(3, 400, 300, wide) is None
    assert told(2, 400, 300, wide) is False


HALF, QUARTER = (1, 3, 1, 3, 1, 1), (1, 6, 3, 8, 1, 1)


@pytest.mark.parametrize(
    ("orientations", "is_stored"),
    [
        (HALF, True),
        pytest.param(HALF, False, marks=pytest.mark.slow),
        pytest.param(QUARTER, True, marks=pytest.mark.slow),
        pytest.param(QUARTER, False, marks=pytest.mark.slow),
    ],
)
def test_cameras_of_stored_pixels_follow_the_turn(tmp_path: Path, orientations: tuple, is_stored: bool) -> None:
    """As COLMAP before version 4 makes them, which does not look at EXIF; or of the upright photos, as version 4."""
    truth, rows, poses, lines = cameras_around(6), [], [], []
    (tmp_path / "photos").mkdir()
    for index, (orientation, pose) in enumerate(zip(orientations, truth, strict=True)):
        path = tmp_path / "photos" / f"{index}.jpg"
        save(path, render(pose), orientation)
        rows.append({"path": str(path), "orientation": orientation})
        stored = {1: 1, 3: 3, 6: 8, 8: 6}[orientation] if is_stored else 1
        camera, given = turned_upright(GivenIntrinsics(*as_given(CAMERA)), pose, stored) or (as_given(CAMERA), pose)
        poses.append(given)
        params = " ".join(map(repr, camera[3]))
        lines.append(f"{index + 1} {camera[0]} {camera[1]} {camera[2]} {params}\n")
    names = [f"{index}.jpg" for index in range(6)]
    folder = write_colmap_text(tmp_path / "given", names, np.array(poses))
    (folder / "cameras.txt").write_text("".join(lines))
    images = (folder / "images.txt").read_text().splitlines()
    for index, name in enumerate(names):
        row = next(i for i, line in enumerate(images) if line.endswith(f" 1 {name}"))
        images[row] = images[row].removesuffix(f" 1 {name}") + f" {index + 1} {name}"
    (folder / "images.txt").write_text("\n".join(images) + "\n")
    config = PoseConfig(max_edge_px=400, max_features=600, threads=1, known_poses=str(folder))
    run, logs = ingested(tmp_path / "run", rows), []
    result = POSE(run, config, Reporter(lambda event: logs.append(str(event.get("message")))))
    found = posed_images.read_posed(run)
    np.testing.assert_allclose(found.cam_from_world, truth, atol=1e-9)
    assert result.median_reprojection_px < 0.6
    assert result.warnings == []
    n_observations = np.bincount(found.track_photo, minlength=6)
    assert n_observations.min() > 0.4 * n_observations.max()
    is_logged = any("turned with them" in message for message in logs)
    assert is_logged == (is_stored and 6 not in orientations)


def as_given(camera: Camera) -> tuple:
    return camera.model, camera.width, camera.height, camera.params
