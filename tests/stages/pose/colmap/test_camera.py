"""Projection by pycolmap against the formulas of OpenCV's models, written out and typed in numpy before."""

import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.pose.colmap.camera import Camera

# a camera of each model, and the pixel at which our own formulas (version 7 of this stage) saw direction (0.4, -0.3)
CAMERAS = {
    Camera("SIMPLE_PINHOLE", 640, 480, (500.0, 310.0, 250.0)): (510.0, 100.0),
    Camera("PINHOLE", 640, 480, (500.0, 510.0, 310.0, 250.0)): (510.0, 97.0),
    Camera("SIMPLE_RADIAL", 640, 480, (500.0, 310.0, 250.0, -0.12)): (504.0, 104.5),
    Camera("RADIAL", 640, 480, (500.0, 310.0, 250.0, 0.1, -0.03)): (514.625, 96.53125),
    Camera("OPENCV", 640, 480, (500.0, 510.0, 310.0, 250.0, 0.1, -0.05, 0.003, -0.002)): (513.445, 94.555825),
    Camera(
        "FULL_OPENCV", 640, 480, (500.0, 510.0, 310.0, 250.0, 0.1, -0.05, 0.003, -0.002, 0.01, 0.02, -0.01, 0.003)
    ): (512.5763702689669, 95.22032674424031),
    Camera("OPENCV_FISHEYE", 640, 480, (500.0, 510.0, 310.0, 250.0, 0.02, -0.01, 0.003, -0.001)): (
        496.1758301361216,
        107.57548994586699,
    ),
    Camera("SIMPLE_RADIAL_FISHEYE", 640, 480, (500.0, 310.0, 250.0, 0.02)): (496.25640289389287, 110.30769782958035),
    Camera("RADIAL_FISHEYE", 640, 480, (500.0, 310.0, 250.0, 0.02, -0.01)): (496.1706990869093, 110.37197568481804),
}
STRONG_BARREL = Camera("SIMPLE_RADIAL", 640, 480, (500.0, 320.0, 240.0, -0.3))


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.model)
def test_pixels_are_those_of_our_former_formulas(camera: Camera) -> None:
    assert np.abs(camera.img_from_cam(np.array([[0.4, -0.3]])) - CAMERAS[camera]).max() < 1e-9
    directions = np.random.default_rng(0).uniform(-0.6, 0.6, (50, 2))
    assert np.abs(camera.cam_from_img(camera.img_from_cam(directions)) - directions).max() < 1e-9


@given(st.floats(-0.25, 0.25), st.floats(-0.05, 0.05))
def test_directions_come_back(k1: float, k2: float) -> None:
    camera = Camera("RADIAL", 640, 480, (600.0, 320.0, 240.0, k1, k2))
    corners = np.array([[-0.5, -0.4], [0.5, 0.4], [0.0, 0.0], [0.3, -0.4]])
    r2 = (corners**2).sum(axis=1, keepdims=True)
    pixels = 600.0 * corners * (1 + k1 * r2 + k2 * r2**2) + [320.0, 240.0]
    assert np.abs(camera.img_from_cam(corners) - pixels).max() < 1e-9
    assert np.abs(camera.cam_from_img(pixels) - corners).max() < 1e-8


def test_focal_lengths_and_principal_point() -> None:
    for camera in CAMERAS:
        fx, fy, cx, cy = camera.pinhole_params
        n_focal = 1 if "SIMPLE" in camera.model or camera.model.startswith("RADIAL") else 2
        assert (fx, fy) == (camera.params[0], camera.params[n_focal - 1])
        assert (cx, cy) == camera.params[n_focal : n_focal + 2]
        assert camera.mean_focal_px == (fx + fy) / 2


def test_directions_beyond_the_fold() -> None:
    fold = (1 / (3 * 0.3)) ** 0.5  # where r (1 + k r^2) stops growing
    inside = STRONG_BARREL.is_within_valid_radius(np.array([[0.98 * fold, 0.0], [1.05 * fold, 0.0], [1.5, 0.0]]))
    assert inside.tolist() == [True, False, False]
    beyond = 320.0 + 500.0 * fold * (1 - 0.3 * fold**2) * 1.01  # a pixel that no direction is seen at
    assert np.isnan(STRONG_BARREL.cam_from_img(np.array([[beyond, 240.0]]))).all()


def test_models_without_a_focal_length_and_wrong_parameters_are_refused() -> None:
    for name in ("EQUIRECTANGULAR", "HOUSEMADE"):
        with pytest.raises(QuoinError, match=f"Camera model {name} is not supported"):
            _ = Camera(name, 640, 480, (640.0, 480.0)).mean_focal_px
    with pytest.raises(QuoinError, match="The camera has 2 parameters; PINHOLE has fx, fy, cx, cy"):
        _ = Camera("PINHOLE", 640, 480, (640.0, 480.0)).mean_focal_px


def test_sigterm_is_still_ours_after_pycolmap_is_loaded() -> None:
    program = (
        "import os, signal\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('stopped in good order'))\n"
        "from quoin.stages.pose.colmap import load_pycolmap\n"
        "load_pycolmap()\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "stopped in good order\n"), f"{done.stderr} {signal.SIGTERM!r}"
