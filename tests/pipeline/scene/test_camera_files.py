"""Files of given cameras: formats, encodings, places, and every way they can be wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import project
from quoin.pipeline.scene.camera_files import find_colmap_model, hash_camera_files, read_given_cameras, read_text
from tests.fixtures.camera_files import transforms, write_colmap_binary, write_colmap_text, write_transforms
from tests.fixtures.synthetic import ring_of_cameras

NAMES = ["./images/a.jpg", "b"]
POSES = ring_of_cameras(2, 4.0, 1.0)
HEAD = {"fl_x": 380.0, "k1": -0.06, "w": 400, "h": 300}


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**transforms(NAMES, POSES, **HEAD), **changes}))
    return path


def test_transforms_give_the_cameras_they_came_from(tmp_path: Path) -> None:
    cameras = read_given_cameras(write(tmp_path / "transforms.json"))
    assert [camera.name for camera in cameras] == NAMES
    np.testing.assert_allclose([camera.cam_from_world for camera in cameras], POSES, atol=1e-12)
    expected = ("OPENCV", 400, 300, (380.0, 380.0, 200.0, 150.0, -0.06, 0.0, 0.0, 0.0))
    assert cameras[0].intrinsics(400, 300) == expected


def test_an_opengl_camera_sees_what_is_before_it(tmp_path: Path) -> None:
    """The NeRF convention by hand: at (0, 0, 5) with no turn it looks down at the origin, y of the world is up in the
    photo.
    """
    matrix = np.eye(4)
    matrix[2, 3] = 5
    frames = [{"file_path": "a", "transform_matrix": matrix.tolist()}]
    camera = read_given_cameras(write(tmp_path / "t.json", frames=frames, k1=0))[0]
    intrinsics = np.array(camera.intrinsics(400, 300).params)
    pixels, depth = project(camera.cam_from_world, intrinsics, np.array([[0.0, 0, 0], [0, 1, 0], [1, 0, 0]]))
    np.testing.assert_allclose(depth, 5)
    np.testing.assert_allclose(pixels, [[200, 150], [200, 150 - 76], [276, 150]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": []}, "no list of frames"),
        ({"frames": {"a": 1}}, "no list of frames"),
        ({"frames": [{"transform_matrix": []}]}, "no file_path"),
        ({"frames": [7]}, "no file_path"),
        ({"frames": [{"file_path": "a" * 5000}]}, "no file_path"),
        ({"frames": [{"file_path": "a", "transform_matrix": [[1, 2], [3, 4]]}]}, "not a 4 x 4 matrix"),
        ({"frames": [{"file_path": "a", "transform_matrix": (2 * np.ones((4, 4))).tolist()}]}, "no rotation"),
        ({"frames": [{"file_path": "a", "transform_matrix": np.diag([1, 1, -1, 1]).tolist()}]}, "no rotation"),
        ({"frames": [{"file_path": "a", "transform_matrix": np.zeros((4, 4)).tolist()}]}, "no rotation"),
        ({"frames": [{"file_path": "a", "transform_matrix": None}]}, "not a 4 x 4 matrix"),
        ({"frames": [{"file_path": "a", "transform_matrix": [[math.nan] * 4] * 4}]}, "not a 4 x 4 matrix"),
        ({"frames": [{"file_path": "a", "transform_matrix": [[1e300] * 4] * 4}]}, "too large"),
        ({"frames": [{"file_path": "a", "transform_matrix": [[10**400] * 4] * 4}]}, "not a 4 x 4 matrix"),
    ],
)
def test_what_can_be_wrong_in_a_transforms_file(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(QuoinError, match=message):
        read_given_cameras(write(tmp_path / "t.json", **changes))


@pytest.mark.parametrize(
    "text", ["{frames: ", "", "[" * 100_000, '{"frames": ' * 5_000, '{"w": ' + "9" * 5000 + "}", "\0\1\2\3", "7"]
)
def test_what_is_no_transforms_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(QuoinError, match=r"not valid JSON|no list of frames"):
        read_given_cameras(tmp_path / "t.json")


def test_files_that_are_missing_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(QuoinError, match="do not exist"):
        read_given_cameras(tmp_path / "none.json")
    with (tmp_path / "huge.json").open("wb") as handle:
        handle.truncate(100 << 30)  # a sparse file
    with pytest.raises(QuoinError, match="102400 MB"):
        read_given_cameras(tmp_path / "huge.json")
    with pytest.raises(QuoinError, match="no file of cameras"):
        read_text(Path("/dev/null"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_text_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    content = json.dumps(transforms(["Südtor.jpg", "b"], POSES, **HEAD), ensure_ascii=False)
    (tmp_path / "t.json").write_bytes(content.encode(encoding))
    assert [camera.name for camera in read_given_cameras(tmp_path / "t.json")] == ["Südtor.jpg", "b"]


@pytest.mark.parametrize("write_model", [write_colmap_text, write_colmap_binary])
def test_cameras_are_found_where_people_keep_them(tmp_path: Path, write_model: Any) -> None:
    inner = write_model(tmp_path / "sparse" / "0", NAMES, POSES)
    assert find_colmap_model(tmp_path) == find_colmap_model(inner) == find_colmap_model(tmp_path / "sparse") == inner
    for path in (tmp_path, tmp_path / "sparse", inner, *inner.iterdir()):
        assert [camera.name for camera in read_given_cameras(path)] == NAMES
    write_transforms(tmp_path / "transforms.json", ["c"], POSES[:1])
    assert [camera.name for camera in read_given_cameras(tmp_path)] == ["c"]
    with pytest.raises(QuoinError, match="no cameras here"):
        find_colmap_model(tmp_path / "elsewhere")


def test_a_changed_file_changes_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text("1")
    before = hash_camera_files(str(path))
    path.write_text("22")
    assert hash_camera_files(str(path)) != before
    assert hash_camera_files(None) == ""
    model = tmp_path / "sparse" / "0" / "cameras.bin"
    model.parent.mkdir(parents=True)
    before = hash_camera_files(str(tmp_path))
    model.write_text("cameras")
    assert hash_camera_files(str(tmp_path)) != before
    before = hash_camera_files(str(model))
    (model.parent / "images.bin").write_text("images")
    assert hash_camera_files(str(model)) != before
    before = hash_camera_files(str(tmp_path))
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "run.json").write_text("changes with every commit")
    assert hash_camera_files(str(tmp_path)) == before


# -- anything at all ---------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.floats(), st.integers(), st.sampled_from([10**400, -1, 0, 1e300, -1e-300, 1e12, 640, 480, 500.0]), st.none()
)
JSON = st.recursive(
    NUMBERS | st.booleans() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=4), max_leaves=5
)
MATRICES = st.one_of(
    st.just(np.eye(4).tolist()), st.lists(st.lists(NUMBERS, min_size=4, max_size=4), min_size=4, max_size=4), JSON
)
KEYS = ["w", "h", "fl_x", "fl_y", "cx", "cy", "camera_angle_x", "k1", "k3", "p1", "camera_model", "is_fisheye"]
FIELDS = st.dictionaries(st.sampled_from(KEYS), NUMBERS | JSON, max_size=6)
FRAMES = st.builds(
    lambda fields, name, matrix: {**fields, "file_path": name, "transform_matrix": matrix, "mask_path": name},
    FIELDS,
    st.just("a.jpg") | JSON,
    MATRICES,
)
FILES = st.builds(lambda fields, frames: {**fields, "frames": frames}, FIELDS, st.lists(FRAMES, max_size=3) | JSON)


def read_or_refuse(path: Path, content: bytes) -> None:
    """Read it as far as the pose stage does: cameras of finite numbers, or a QuoinError."""
    path.write_bytes(content)
    try:
        for camera in read_given_cameras(path):
            assert np.isfinite(camera.cam_from_world).all()
            np.testing.assert_allclose(np.linalg.det(camera.cam_from_world[:, :3]), 1, atol=1e-6)
            intrinsics = camera.intrinsics(480, 360)
            assert np.isfinite(intrinsics.params).all()
            assert 0 < intrinsics.width <= 10**6
            assert intrinsics.params[0] > 0
    except QuoinError:
        return


def check_transforms(path: Path, examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(FILES)
    def values(content: dict) -> None:
        read_or_refuse(path, json.dumps(content).encode())

    @settings(max_examples=examples, deadline=None)
    @given(st.data())
    def bytes_(data: st.DataObject) -> None:
        valid = bytearray(json.dumps(transforms(NAMES, POSES, **HEAD)).encode())
        for _ in range(data.draw(st.integers(1, 4))):
            at, length = data.draw(st.integers(0, len(valid))), data.draw(st.integers(0, 60))
            valid[at : at + length] = data.draw(st.binary(max_size=5))
        read_or_refuse(path, bytes(valid))

    values()
    bytes_()


def test_any_transforms_file_is_cameras_or_one_sentence(tmp_path: Path) -> None:
    check_transforms(tmp_path / "t.json", 100)


@pytest.mark.slow
def test_many_transforms_files_are_cameras_or_one_sentence(tmp_path: Path) -> None:
    check_transforms(tmp_path / "t.json", 2000)
