"""Given cameras: names, formats, and every way they can be wrong."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import project
from quoin.stages.pose.camera_files import find_colmap_model, match_names, read_transforms, scale_to_photo
from quoin.stages.pose.colmap.camera import Camera
from tests.stages.pose.room import cameras_around

SIZES = {"a.jpg": (400, 300), "b.jpg": (400, 300)}


def gl_from(cam_from_world: np.ndarray) -> list:
    """transform_matrix of a pose: camera to world, y up, looking along -z."""
    rotation, center = cam_from_world[:, :3].T, -cam_from_world[:, :3].T @ cam_from_world[:, 3]
    out = np.eye(4)
    out[:3, :3], out[:3, 3] = rotation * [1, -1, -1], center
    return out.tolist()


def write(path: Path, **changes) -> Path:
    poses = cameras_around(2)
    data = {
        "fl_x": 380.0,
        "k1": -0.06,
        "w": 400,
        "h": 300,
        "frames": [
            {"file_path": "./images/a.jpg", "transform_matrix": gl_from(poses[0])},
            {"file_path": "b", "transform_matrix": gl_from(poses[1])},
        ],
        **changes,
    }
    path.write_text(json.dumps(data))
    return path


def test_transforms_give_the_cameras_they_came_from(tmp_path: Path) -> None:
    given = read_transforms(write(tmp_path / "transforms.json"), SIZES)
    assert [g.name for g in given] == ["./images/a.jpg", "b"]
    assert np.allclose([g.cam_from_world for g in given], cameras_around(2), atol=1e-12)
    assert given[0].camera == Camera("OPENCV", 400, 300, (380.0, 380.0, 200.0, 150.0, -0.06, 0.0, 0.0, 0.0), True)


def test_an_opengl_camera_sees_what_is_before_it(tmp_path: Path) -> None:
    """The NeRF convention by hand: at (0, 0, 5) with no turn it looks down at the origin, y of the world is up in the
    photo.
    """
    matrix = np.eye(4)
    matrix[2, 3] = 5
    frames = [{"file_path": "a", "transform_matrix": matrix.tolist()}]
    given = read_transforms(write(tmp_path / "t.json", frames=frames, k1=0), SIZES)[0]
    pixels, depth = project(
        given.cam_from_world, given.camera.pinhole_params, np.array([[0.0, 0, 0], [0, 1, 0], [1, 0, 0]])
    )
    assert np.allclose(depth, 5)
    assert np.allclose(pixels, [[200, 150], [200, 150 - 76], [276, 150]])


def test_camera_angle_and_per_frame_intrinsics(tmp_path: Path) -> None:
    frames = [
        {"file_path": "a", "transform_matrix": np.eye(4).tolist()},
        {"file_path": "b", "transform_matrix": np.eye(4)[:3].tolist(), "fl_x": 500.0, "cx": 190.0},
    ]
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"camera_angle_x": math.pi / 2, "frames": frames}))
    one, two = read_transforms(path, SIZES)
    assert one.camera.model == "PINHOLE"
    assert one.camera.params == pytest.approx((200.0, 200.0, 200.0, 150.0))
    assert two.camera.params == (500.0, 500.0, 190.0, 150.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": []}, "no list of frames"),
        ({"frames": [{"transform_matrix": []}]}, "no file_path"),
        ({"frames": [{"file_path": "a", "transform_matrix": [[1, 2], [3, 4]]}]}, "not a 4 x 4 matrix"),
        ({"frames": [{"file_path": "a", "transform_matrix": (2 * np.ones((4, 4))).tolist()}]}, "no rotation"),
        ({"frames": [{"file_path": "a", "transform_matrix": np.diag([1, 1, -1, 1]).tolist()}]}, "no rotation"),
        ({"frames": [{"file_path": "a", "transform_matrix": None}]}, "not a 4 x 4 matrix"),
        ({"fl_x": "wide"}, "fl_x is not a number"),
        ({"fl_x": -3.0}, "must be positive"),
        ({"camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR"),
    ],
)
def test_what_can_be_wrong_in_a_transforms_file(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(QuoinError, match=message):
        read_transforms(write(tmp_path / "t.json", **changes), SIZES)


def test_broken_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text("{frames: ")
    with pytest.raises(QuoinError, match="not valid JSON"):
        read_transforms(tmp_path / "t.json", SIZES)
    with pytest.raises(QuoinError, match="Cannot read"):
        read_transforms(tmp_path / "none.json", SIZES)
    path = write(tmp_path / "focal.json")
    data = json.loads(path.read_text())
    del data["fl_x"]
    path.write_text(json.dumps(data))
    with pytest.raises(QuoinError, match="neither fl_x nor camera_angle_x"):
        read_transforms(path, SIZES)


def test_names_match_from_the_end() -> None:
    photos = ["left/0001.jpg", "right/0001.jpg", "right/0002.jpg"]
    assert match_names(["../x/left/0001.jpg", "0002", "0003"], photos) == {0: 0, 1: 2}
    with pytest.raises(QuoinError, match="fits 2 photos"):
        match_names(["0001.jpg"], photos)
    with pytest.raises(QuoinError, match="the same photo"):
        match_names(["0002.jpg", "right/0002.jpg"], photos)


def test_the_pose_of_a_photo_that_is_left_out_is_nobody_else_s() -> None:
    used, others = ["right/0001.jpg", "right/0002.jpg"], ["left/0001.jpg", "small/0002.jpg"]
    assert match_names(["left/0001.jpg", "right/0002.jpg"], used, others) == {1: 1}
    assert match_names(["left/0001.jpg", "right/0001.jpg"], used, others) == {1: 0}
    assert match_names(["0001.jpg", "images/0002"], used, others) == {0: 0, 1: 1}, "of two that fit, the one there is"


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


def test_a_colmap_model_is_found_where_people_keep_it(tmp_path: Path) -> None:
    inner = tmp_path / "sparse" / "0"
    inner.mkdir(parents=True)
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        (inner / name).touch()
    assert find_colmap_model(tmp_path) == find_colmap_model(inner) == find_colmap_model(tmp_path / "sparse") == inner
    (inner / "images.bin").unlink()
    with pytest.raises(QuoinError, match="lacks images"):
        find_colmap_model(tmp_path)
    with pytest.raises(QuoinError, match="no cameras here"):
        find_colmap_model(tmp_path / "elsewhere")
