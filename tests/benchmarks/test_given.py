"""Cameras of photo sets, written for --poses and read again."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.given import split_projection, strecha_transforms, write_pose_transforms
from quoin.pipeline.scene.camera_files import read_given_cameras
from quoin.tools.evaluate.reference_cameras import read_cameras

CAMERA = np.array([[900.0, 0.0, 410.0], [0.0, 880.0, 290.0], [0.0, 0.0, 1.0]])
SIZES = {"a.jpg": (800, 600), "b.jpg": (800, 600), "c.jpg": (800, 600)}


def poses():
    turns = Rotation.random(3, random_state=0).as_matrix()
    return np.concatenate([turns, np.random.default_rng(0).normal(size=(3, 3, 1)) * 5], axis=2)


@pytest.mark.parametrize("factor", [1.0, -0.3, 250.0])
def test_a_projection_falls_apart_into_what_it_was_made_of(factor):
    for pose in poses():
        camera, found = split_projection(factor * CAMERA @ pose)
        np.testing.assert_allclose(camera, CAMERA, atol=1e-9)
        np.testing.assert_allclose(found, pose, atol=1e-9)


def test_what_is_written_is_what_the_pose_stage_reads(tmp_path):
    path = write_pose_transforms(tmp_path / "new" / "transforms.json", list(SIZES), np.stack([CAMERA] * 3), poses())
    for given, (name, size), pose in zip(read_given_cameras(path), SIZES.items(), poses(), strict=True):
        assert given.name == name
        np.testing.assert_allclose(given.cam_from_world, pose, atol=1e-9)
        assert given.intrinsics(*size) == ("PINHOLE", *size, (900.0, 880.0, 410.0, 290.0))


def test_camera_files_become_the_cameras_that_evaluation_reads_from_them(tmp_path):
    folder = tmp_path / "gt_dense_cameras"
    folder.mkdir()
    for name, pose in zip(SIZES, poses(), strict=True):
        rows = [*CAMERA, np.zeros(3), *pose[:, :3].T, -pose[:, :3].T @ pose[:, 3]]
        text = "\n".join(" ".join(f"{value:.15g}" for value in row) for row in rows)
        (folder / f"{name}.camera").write_text(f"{text}\n800 600\n")
    found, direct = read_cameras(strecha_transforms(tmp_path, tmp_path / "transforms.json")), read_cameras(folder)
    order = [found.names.index(name) for name in direct.names]
    assert found.rotations is not None
    assert direct.rotations is not None
    np.testing.assert_allclose(found.centers[order], direct.centers, atol=1e-9)
    np.testing.assert_allclose(found.rotations[order], direct.rotations, atol=1e-9)
