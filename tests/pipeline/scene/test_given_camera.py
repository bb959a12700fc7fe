"""Intrinsics that people give: models, the size that they are for, and numbers that no camera has."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.given_camera import COLMAP_MODELS, GivenCamera, GivenIntrinsics


def intrinsics(width: int = 480, height: int = 360, **fields: Any) -> GivenIntrinsics:
    return GivenCamera("a.jpg", np.eye(3, 4), fields, "t.json").intrinsics(width, height)


def test_models_are_colmap_s() -> None:
    pycolmap = pytest.importorskip("pycolmap")
    assert set(COLMAP_MODELS) == set(pycolmap.CameraModelId.__members__) - {"INVALID"}
    for name, model in COLMAP_MODELS.items():
        camera = pycolmap.Camera.create_from_model_name(1, name, 100.0, 100, 80)
        assert int(pycolmap.CameraModelId.__members__[name]) == model.number
        assert len(camera.params) == model.n_params
        assert list(camera.focal_length_idxs()) == list(range(model.n_focals))
        if model.n_focals:
            assert list(camera.principal_point_idxs()) == [model.n_focals, model.n_focals + 1]


def test_a_camera_angle_is_for_any_size() -> None:
    found = intrinsics(400, 300, camera_angle_x=math.pi / 2)
    assert found.model == "PINHOLE"
    assert found.params == pytest.approx((200.0, 200.0, 200.0, 150.0))
    assert intrinsics(400, 300, camera_angle_x=1.0, fl_x=500.0, cx=190.0).params == (500.0, 500.0, 190.0, 150.0)


@pytest.mark.parametrize(
    ("center", "size"),
    [
        ((240.0, 180.0), (480, 360)),
        ((228.0, 171.0), (480, 360)),  # a principal point beside the middle
        ((480.0, 360.0), (960, 720)),  # numbers of photos twice as large
        ((476.0, 366.0), (960, 720)),
        ((120.0, 90.0), (240, 180)),
        ((79.0, 61.0), (160, 120)),
        ((360.0, 270.0), (720, 540)),  # one and a half times as large
    ],
)
def test_twice_the_principal_point_is_the_size_where_none_is_given(
    center: tuple[float, float], size: tuple[int, int]
) -> None:
    found = intrinsics(fl_x=840.0, cx=center[0], cy=center[1])
    assert (found.width, found.height) == size
    assert found.params == (840.0, 840.0, *center)


@pytest.mark.parametrize("center", [(180.0, 240.0), (600.0, 180.0), (0.0, 0.0), (-240.0, -180.0), (345.0, 240.0)])
def test_a_principal_point_that_tells_no_size_is_refused(center: tuple[float, float]) -> None:
    with pytest.raises(QuoinError, match=r"does not say for which size.*w and h"):
        intrinsics(fl_x=840.0, cx=center[0], cy=center[1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "neither fl_x nor camera_angle_x"),
        ({"fl_x": "wide"}, "fl_x is not a number"),
        ({"fl_x": True}, "fl_x is not a number"),
        ({"fl_x": math.nan}, "fl_x is not a number"),
        ({"fl_x": 500, "w": 10**400, "h": 480}, "w is not a number"),
        ({"fl_x": 500, "w": -640, "h": 480}, "-640 x 480 pixels, which no photo has"),
        ({"fl_x": 500, "w": 1e300, "h": 480}, "more than a billion x 480"),
        ({"fl_x": -3.0}, "must be positive"),
        ({"fl_x": 1e300}, "focal length of 1e"),
        ({"fl_x": 500, "fl_y": 1e-300}, "focal length"),
        ({"camera_angle_x": 0}, "camera_angle_x"),
        ({"camera_angle_x": -1}, "camera_angle_x"),
        ({"camera_angle_x": 3.2}, "camera_angle_x"),
        ({"fl_x": 500, "w": 640, "h": 480, "cx": 1e9}, "principal point"),
        ({"fl_x": 500, "k1": 1e300}, "distortion"),
        ({"fl_x": 500, "camera_model": "EQUIRECTANGULAR"}, "EQUIRECTANGULAR"),
    ],
)
def test_numbers_that_no_camera_has(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(QuoinError, match=message):
        intrinsics(**fields)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (GivenIntrinsics("EQUIRECTANGULAR", 800, 400, (800.0, 400.0)), "not supported"),
        (GivenIntrinsics("NO_SUCH_MODEL", 800, 400, (800.0, 400.0)), "not supported"),
        (GivenIntrinsics("PINHOLE", 800, 400, (800.0, 400.0, 200.0)), "has 3 parameters; PINHOLE has 4"),
        (GivenIntrinsics("SIMPLE_RADIAL", 800, 400, (800.0, 400.0, math.nan, 0.0)), "principal point"),
    ],
)
def test_models_that_cannot_be_used(given: GivenIntrinsics, message: str) -> None:
    with pytest.raises(QuoinError, match=message):
        GivenCamera("a.jpg", np.eye(3, 4), given, "images.txt").intrinsics(800, 400)
