"""Camera models against pycolmap's own."""

import numpy as np
import pycolmap
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.pose.colmap.camera_models import distort, is_within_valid_radius, mean_focal_px, undistort
from quoin.stages.pose.colmap.sparse_model import Camera

CAMERAS = [
    Camera("SIMPLE_PINHOLE", 640, 480, (500.0, 310.0, 250.0)),
    Camera("PINHOLE", 640, 480, (500.0, 510.0, 310.0, 250.0)),
    Camera("SIMPLE_RADIAL", 640, 480, (500.0, 310.0, 250.0, -0.12)),
    Camera("RADIAL", 640, 480, (500.0, 310.0, 250.0, 0.1, -0.03)),
    Camera("OPENCV", 640, 480, (500.0, 510.0, 310.0, 250.0, 0.1, -0.05, 0.003, -0.002)),
    Camera("FULL_OPENCV", 640, 480, (500.0, 510.0, 310.0, 250.0, 0.1, -0.05, 0.003, -0.002, 0.01, 0.02, -0.01, 0.003)),
    Camera("OPENCV_FISHEYE", 640, 480, (500.0, 510.0, 310.0, 250.0, 0.02, -0.01, 0.003, -0.001)),
    Camera("SIMPLE_RADIAL_FISHEYE", 640, 480, (500.0, 310.0, 250.0, 0.02)),
    Camera("RADIAL_FISHEYE", 640, 480, (500.0, 310.0, 250.0, 0.02, -0.01)),
]


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.model)
def test_pixels_are_those_of_colmap(camera: Camera) -> None:
    xy = np.random.default_rng(0).uniform(-0.6, 0.6, (50, 2))
    theirs = pycolmap.Camera(model=camera.model, width=640, height=480, params=camera.params)
    rays = np.column_stack([xy, np.ones(len(xy))])
    assert np.abs(distort(camera, xy) - theirs.img_from_cam(rays)).max() < 1e-9
    assert np.abs(undistort(camera, distort(camera, xy)) - xy).max() < 1e-9


@given(st.floats(-0.25, 0.25), st.floats(-0.05, 0.05))
def test_undistort_inverts_distort(k1: float, k2: float) -> None:
    camera = Camera("RADIAL", 640, 480, (600.0, 320.0, 240.0, k1, k2))
    corners = np.array([[-0.5, -0.4], [0.5, 0.4], [0.0, 0.0], [0.3, -0.4]])
    assert np.abs(undistort(camera, distort(camera, corners)) - corners).max() < 1e-8


def test_directions_beyond_the_fold_are_told() -> None:
    camera = Camera("SIMPLE_RADIAL", 640, 480, (500.0, 320.0, 240.0, -0.3))
    fold = (1 / (3 * 0.3)) ** 0.5  # where r (1 + k r^2) stops growing
    inside = is_within_valid_radius(camera, np.array([[0.98 * fold, 0.0], [1.05 * fold, 0.0], [1.5, 0.0]]))
    assert inside.tolist() == [True, False, False]


def test_unknown_model_is_refused() -> None:
    with pytest.raises(QuoinError, match="FOV"):
        mean_focal_px(Camera("FOV", 640, 480, (500.0, 510.0, 310.0, 250.0, 0.1)))
