"""The gate on a made-up model with one fault at a time."""

from dataclasses import replace

import numpy as np
import pytest

from quoin.pipeline.geometry.cameras import to_camera
from quoin.stages.pose.checks.registration import (
    describe_bad_intrinsics,
    filter_photos,
    photo_median_errors,
    residuals_px,
    why_unregistered,
)
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.sparse_model import SparseModel, read_sparse_model, write_sparse_model
from quoin.stages.pose.mapping import is_better
from quoin.stages.pose.workspace import Component
from tests.stages.pose.room import CAMERA, cameras_around


@pytest.fixture
def model() -> SparseModel:
    """Six photos that all see the same 60 points, without error."""
    points = np.random.default_rng(0).uniform(0, 1.5, (60, 3))
    poses = cameras_around(6)
    pixels = []
    for pose in poses:
        cam = to_camera(pose, points)
        pixels.append(CAMERA.img_from_cam(cam[:, :2] / cam[:, 2:]))
    return SparseModel(
        photo_ids=np.arange(6) + 10,
        cam_from_sfm=poses,
        camera_index=np.zeros(6, np.int64),
        cameras=[CAMERA],
        points_sfm=points,
        point_colors=np.zeros((60, 3), np.uint8),
        track_offsets=np.arange(61) * 6,
        track_photo=np.tile(np.arange(6), 60),
        track_xy=np.stack(pixels, axis=1).reshape(-1, 2),
    )


def moved(model: SparseModel, row: int, by: float) -> SparseModel:
    """The camera of one photo moved along its own axis, points where they were: its pixels no longer fit."""
    poses = model.cam_from_sfm.copy()
    poses[row, 0, 3] += by
    return replace(model, cam_from_sfm=poses)


def test_a_good_model_passes(model: SparseModel) -> None:
    assert residuals_px(model).max() < 1e-9
    assert filter_photos(model, 15).dropped == {}


def test_residuals_are_pixels(model: SparseModel) -> None:
    shifted = replace(model, track_xy=model.track_xy + [3.0, 4.0])
    assert np.allclose(photo_median_errors(shifted, residuals_px(shifted)), 5.0)


def test_a_photo_with_few_points_is_dropped(model: SparseModel) -> None:
    few = model.keep_observations((model.track_photo != 2) | (model.track_point < 14))
    filtered = filter_photos(few, 15)
    assert list(filtered.dropped) == [12]
    assert "14 points" in str(filtered.dropped[12])
    assert 12 not in filtered.model.photo_ids


def test_a_photo_without_any_point_is_dropped(model: SparseModel) -> None:
    filtered = filter_photos(model.keep_observations(model.track_photo != 0), 15)
    assert list(filtered.dropped) == [10]
    assert filtered.model.track_photo.max() == 4
    assert residuals_px(filtered.model).max() < 1e-9


def test_a_wild_centre_is_dropped(model: SparseModel) -> None:
    poses = model.cam_from_sfm.copy()
    poses[3, :, 3] += [0, 0, 37_000]  # far behind everything, and pixels as if it were right there
    wild = replace(model, cam_from_sfm=poses)
    filtered = filter_photos(wild, 15)
    assert list(filtered.dropped) == [13]
    assert "far outside" in str(filtered.dropped[13])


def test_a_wrong_pose_is_dropped(model: SparseModel) -> None:
    filtered = filter_photos(moved(model, 4, 0.5), 15)
    assert list(filtered.dropped) == [14]
    assert "pixels" in str(filtered.dropped[14])


def test_nothing_good_leaves_nothing(model: SparseModel) -> None:
    filtered = filter_photos(model, 1000)
    assert len(filtered.model.photo_ids) == 0
    assert len(filtered.dropped) == 6


@pytest.mark.parametrize(
    ("params", "trouble"),
    [((100.0, 200, 150, 0.0), "focal"), ((9000.0, 200, 150, 0.0), "focal"), ((380.0, 200, 150, 0.9), "distortion")],
)
def test_impossible_intrinsics_are_told(params: tuple, trouble: str) -> None:
    assert trouble in describe_bad_intrinsics(Camera("SIMPLE_RADIAL", 400, 300, params))
    assert describe_bad_intrinsics(CAMERA) == ""


def test_reasons_for_missing_photos() -> None:
    assert "few features: 7" in str(why_unregistered(7, 0, False))
    assert "no verified pair" in str(why_unregistered(4000, 0, False))
    assert "few matches" in str(why_unregistered(4000, 18, True))
    assert "not registered either" in str(why_unregistered(4000, 90, False))
    assert "could not register" in str(why_unregistered(4000, 90, True))


def test_models_survive_the_disk(model: SparseModel, tmp_path) -> None:
    write_sparse_model(tmp_path / "m.npz", model)
    again = read_sparse_model(tmp_path / "m.npz")
    assert again.cameras == model.cameras
    assert np.array_equal(again.track_xy, model.track_xy)
    assert np.array_equal(again.photo_ids, model.photo_ids)


def test_the_larger_of_two_large_components_is_better_though_it_fits_worse(model: SparseModel) -> None:
    def of(n_photos: int, error_px: float) -> list[Component]:
        copies = replace(
            model,
            photo_ids=np.arange(n_photos),
            cam_from_sfm=np.repeat(model.cam_from_sfm[:1], n_photos, axis=0),
            camera_index=np.zeros(n_photos, np.int64),
            track_offsets=np.arange(61) * n_photos,
            track_photo=np.tile(np.arange(n_photos), 60),
            track_xy=np.tile(model.track_xy[model.track_photo == 0][:, None], (1, n_photos, 1)).reshape(-1, 2)
            + [error_px, 0],
        )
        return [Component("", filter_photos(copies, 15))]

    assert is_better(of(126, 0.8), of(107, 0.7))
    assert not is_better(of(107, 0.7), of(126, 0.8))
    assert is_better(of(107, 0.7), of(106, 0.8))
    assert not is_better(of(106, 0.8), of(107, 0.7))
