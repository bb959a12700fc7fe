"""COLMAP models as programs write them, and as broken copies leave them."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.colmap_model import read_colmap_cameras
from quoin.pipeline.scene.given_camera import GivenIntrinsics
from tests.fixtures.camera_files import PINHOLE, write_colmap_binary, write_colmap_text
from tests.fixtures.synthetic import ring_of_cameras

POSES = ring_of_cameras(4, 4.0, 1.0)
NAMES = ["East side/photo (1).jpg", "west/photo (2).jpg", "3.jpg", "Südtor 12 4.jpg"]  # the end of one could be points
WRITERS = [write_colmap_text, write_colmap_binary]


@pytest.mark.parametrize("write", WRITERS)
def test_names_poses_and_cameras_are_those_that_were_written(tmp_path: Path, write: Any) -> None:
    camera = GivenIntrinsics("OPENCV", 400, 300, (380.0, 381.0, 200.5, 150.25, -0.1, 0.01, 1e-4, -1e-4))
    cameras = read_colmap_cameras(write(tmp_path, NAMES, POSES, camera))
    assert [found.name for found in cameras] == NAMES
    np.testing.assert_allclose([found.cam_from_world for found in cameras], POSES, atol=1e-12)
    assert {found.intrinsics(800, 600) for found in cameras} == {camera}


@pytest.mark.parametrize("is_text", [True, False])
def test_what_colmap_writes_is_read(tmp_path: Path, is_text: bool) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(camera_id=3, model="RADIAL", width=100, height=80, params=[90, 50, 40, 0.1, -0.2])
    model.add_camera_with_trivial_rig(camera)
    for number, (name, pose) in enumerate(zip(NAMES, POSES, strict=True), start=1):
        image = pycolmap.Image(name=name, camera_id=3, image_id=number)
        image.points2D = pycolmap.Point2DList([pycolmap.Point2D(np.array([1.0, 2.0]))] * number)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
    (model.write_text if is_text else model.write_binary)(str(tmp_path))
    by_name = {found.name: found for found in read_colmap_cameras(tmp_path)}
    assert set(by_name) == set(NAMES)
    np.testing.assert_allclose([by_name[name].cam_from_world for name in NAMES], POSES, atol=1e-12)
    assert by_name[NAMES[0]].intrinsics(1, 1) == ("RADIAL", 100, 80, (90, 50, 40, 0.1, -0.2))


def test_a_text_model_with_a_byte_order_mark(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16", "cp1252"):
        folder = write_colmap_text(tmp_path / encoding, NAMES, POSES, encoding=encoding)
        assert [camera.name for camera in read_colmap_cameras(folder)] == NAMES


def test_a_model_that_lacks_a_file_is_refused_and_text_stands_in_for_binary(tmp_path: Path) -> None:
    write_colmap_binary(tmp_path, NAMES, POSES)
    (tmp_path / "images.bin").unlink()
    with pytest.raises(QuoinError, match="lacks images"):
        read_colmap_cameras(tmp_path)
    write_colmap_text(tmp_path, NAMES[:2], POSES[:2])
    assert len(read_colmap_cameras(tmp_path)) == 2


@pytest.mark.parametrize("table", ["cameras", "images", "points3D"])
@pytest.mark.parametrize(
    "content", [b"", b"\0" * 7, struct.pack("<Q", 10**18), struct.pack("<Q", 3) + b"\0" * 60, b"\xff" * 4000]
)
def test_a_binary_file_that_is_empty_or_lies_is_named(tmp_path: Path, table: str, content: bytes) -> None:
    write_colmap_binary(tmp_path, NAMES, POSES)
    (tmp_path / f"{table}.bin").write_bytes(content)
    with pytest.raises(QuoinError, match=rf"damaged.*{table}\.bin|{table}\.bin.*damaged"):
        read_colmap_cameras(tmp_path)


@pytest.mark.parametrize(
    ("table", "text", "message"),
    [
        ("images", "", "no photos"),
        ("images", "1 1 0 0 0 0 0 0 1\n\n", "line 1 is no photo"),
        ("images", "1 nan 0 0 0 0 0 0 1 a.jpg\n\n", "the pose of 'a.jpg' is none"),
        ("images", "1 0 0 0 0 0 0 0 1 a.jpg\n\n", "the pose of 'a.jpg' is none"),
        ("images", "1 1 0 0 0 1e300 0 0 1 a.jpg\n\n", "the pose of 'a.jpg' is none"),
        ("images", "1 1 0 0 0 0 0 0 7 a.jpg\n\n", "camera 7, which the model lacks"),
        ("images", "1 1 0 0 0 0 0 0 1 a.jpg\n2 1 0 0 0 0 0 0 1 b c d.jpg\n", "line 2 does not hold the points"),
        ("cameras", "1 PINHOLE 400\n", "line 1 is no camera"),
        ("cameras", "1 PINHOLE 400 wide 1 2 3\n", "line 1 is no camera"),
        ("cameras", f"1 PINHOLE {'9' * 5000} 300 1 2 3 4\n", "line 1 is no camera"),
    ],
)
def test_what_can_be_wrong_in_a_text_model(tmp_path: Path, table: str, text: str, message: str) -> None:
    write_colmap_text(tmp_path, NAMES, POSES)
    (tmp_path / f"{table}.txt").write_text(text)
    with pytest.raises(QuoinError, match=message):
        read_colmap_cameras(tmp_path)


def check_models(folder: Path, write: Any, examples: int) -> None:
    """Models with some bytes changed, taken out or put in are cameras of finite numbers, or a QuoinError."""

    @settings(max_examples=examples, deadline=None)
    @given(st.data())
    def damaged(data: st.DataObject) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        write(folder, NAMES, POSES, PINHOLE)
        for path in data.draw(st.sets(st.sampled_from(sorted(folder.iterdir())), min_size=1)):
            content = bytearray(path.read_bytes())
            at, length = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 40))
            content[at : at + length] = data.draw(st.binary(max_size=12))
            path.write_bytes(content)
        try:
            cameras = read_colmap_cameras(folder)
            assert np.isfinite([camera.cam_from_world for camera in cameras]).all()
            params = [camera.intrinsics(400, 300).params for camera in cameras]
        except QuoinError:
            return
        assert all(np.isfinite(values).all() for values in params)

    damaged()


@pytest.mark.parametrize("write", WRITERS)
def test_any_damage_ends_in_cameras_or_one_sentence(tmp_path: Path, write: Any) -> None:
    check_models(tmp_path / "model", write, 100)


@pytest.mark.slow
@pytest.mark.parametrize("write", WRITERS)
def test_much_damage_ends_in_cameras_or_one_sentence(tmp_path: Path, write: Any) -> None:
    check_models(tmp_path / "model", write, 2000)
