"""Sensor depth as undistorted photos see it, and the scale it gives."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import pixel_grid, to_camera
from quoin.pipeline.scene.sensor_depth import DepthCamera, load_upright_depth, read_depth_camera
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.frame.sensor_scale import (
    DepthRatio,
    ScaleEstimate,
    depth_ratio,
    estimate_scale,
    matching_pyramid_level,
    remove_depth_edges,
    reproject_depth,
    scale_warnings,
    undistort_depth,
)
from quoin.stages.pose.undistortion import PinholeCamera, fit_pinhole
from tests.stages.pose.room import store_turned

BENT = Camera("SIMPLE_RADIAL", 400, 300, (380.0, 200.0, 150.0, -0.06))
NORMAL, OFFSET = np.array([0.3, -0.2, 1.0]), 2.0  # a plane n · x = d before the camera


def plane_depth(rays: np.ndarray) -> np.ndarray:
    """Depth of the plane along rays of depth 1."""
    return OFFSET / (rays @ NORMAL)


def rays_of(pinhole: PinholeCamera, level: int) -> np.ndarray:
    grid = pixel_grid(pinhole.width >> level, pinhole.height >> level) * 2**level
    ideal = (grid - pinhole.intrinsics[2:]) / pinhole.intrinsics[:2]
    return np.column_stack([ideal, np.ones(len(ideal))])


@pytest.mark.parametrize("width", [400, 200, 800])
def test_depth_is_undistorted_at_any_resolution(width: int) -> None:
    size = np.array([width, width * 3 // 4])
    distorted = pixel_grid(*size.tolist()) * 400 / width
    rays = np.column_stack([BENT.cam_from_img(distorted), np.ones(len(distorted))])
    depth = plane_depth(rays).reshape(size[::-1])
    pinhole = fit_pinhole(BENT, 400)
    level = matching_pyramid_level(float(pinhole.intrinsics[0]), 380.0 * width / 400)
    assert level == (1 if width == 200 else 0)
    found = undistort_depth(depth, BENT, pinhole, level)
    true = plane_depth(rays_of(pinhole, level)).reshape(found.shape)
    known = found > 0
    assert known.mean() > 0.98
    assert np.abs(found / true - 1)[known].max() < 0.5 * 0.36 * (400 / width + 1) / 380 * 4  # half a pixel aside


def test_what_the_photo_does_not_show_has_no_depth() -> None:
    wide = PinholeCamera(np.array([100.0, 100.0, 200.0, 150.0]), 400, 300)  # sees far beyond
    found = undistort_depth(np.ones((300, 400)), BENT, wide, 0)
    assert found[0, 0] == 0
    assert found[150, 200] == 1


def test_a_sensor_that_looks_from_aside_is_laid_over_the_photo() -> None:
    angle = np.radians(3.0)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    aside = DepthCamera(np.array([440.0, 440.0, 160.0, 120.0]), (320, 240), np.column_stack([turn, [0.05, 0.0, 0.01]]))
    pinhole = PinholeCamera(np.array([380.0, 380.0, 200.0, 150.0]), 400, 300)
    rays = np.column_stack([(pixel_grid(320, 240) - [160, 120]) / 440.0, np.ones(320 * 240)])
    back = turn.T @ NORMAL, OFFSET - NORMAL @ aside.photo_from_depth[:, 3]  # the plane in the sensor's frame
    depth = (back[1] / (rays @ (turn.T @ NORMAL))).reshape(240, 320)
    np.testing.assert_allclose(to_camera(aside.photo_from_depth, rays * depth.reshape(-1, 1)) @ NORMAL, OFFSET)
    found = reproject_depth(depth, aside, pinhole, 0)
    true = plane_depth(rays_of(pinhole, 0)).reshape(found.shape)
    known = found > 0
    assert known[60:240, 110:300].mean() > 0.99
    assert np.abs(found / true - 1)[known].max() < 0.004
    half = DepthCamera(aside.intrinsics * 2, (640, 480), aside.photo_from_depth)  # its maps came at half the size
    np.testing.assert_allclose(reproject_depth(depth, half, pinhole, 0), found)


def test_the_nearer_surface_hides_the_farther() -> None:
    aside = DepthCamera(np.array([100.0, 100.0, 5.0, 5.0]), (10, 10), np.eye(4)[:3])
    coarse = PinholeCamera(np.array([50.0, 50.0, 2.5, 2.5]), 5, 5)
    depth = np.full((10, 10), 3.0)
    depth[::2, ::2] = 1.0
    assert (reproject_depth(depth, aside, coarse, 0) == 1.0).all()


def test_depths_at_jumps_go_and_slopes_stay() -> None:
    depth = np.tile(np.linspace(1.0, 1.5, 40), (30, 1))
    np.testing.assert_array_equal(remove_depth_edges(depth, 300.0), depth)
    depth[:, 20:] += 1.0
    depth[10, 5] = 0.0
    found = remove_depth_edges(depth, 300.0)
    assert np.flatnonzero((found == 0).all(axis=0)).tolist() == [19, 20]
    assert (found == 0).sum() == 61


def test_scale_is_the_median_over_photos_whatever_a_few_say() -> None:
    rng = np.random.default_rng(0)
    ratios = []
    for photo in range(20):
        depth = np.full((60, 80), 0.0)
        xy = rng.uniform(0, [160, 120], (50, 2))
        z = rng.uniform(1, 3, 50)
        column, row = np.floor(xy / 2).astype(int).T
        depth[row, column] = 0.4 * z * (3.0 if photo < 3 else 1.0)
        found = depth_ratio(depth, 1, xy, z)
        assert found is not None
        ratios.append(found)
    scale_estimate = estimate_scale(ratios)
    assert scale_estimate is not None
    assert scale_estimate.m_per_sfm == pytest.approx(0.4, rel=0.02)
    assert scale_estimate.error < 0.01
    assert (scale_estimate.n_photos, scale_warnings(scale_estimate, 20, 1.0, "given cameras")) == (20, [])
    assert depth_ratio(np.zeros((60, 80)), 1, xy, z) is None
    assert estimate_scale([]) is None


def test_what_is_doubtful_is_said() -> None:
    fine = ScaleEstimate(1.0, 0.001, 10, 0.01)
    assert scale_warnings(fine, 10, 1.02, "given cameras") == []
    [off] = scale_warnings(fine, 10, 0.2, "given cameras")
    assert "a unit of the given cameras is 0.2 m" in off
    [apart] = scale_warnings(ScaleEstimate(1.0, 0.001, 10, 0.11), 10, 1.0, "GPS positions")
    assert "disagree by 11%" in apart
    assert scale_warnings(None, 0, 1.0, "given cameras") == []
    assert "none of 4 depth maps" in scale_warnings(None, 4, 1.0, "given cameras")[0]


def test_a_photo_in_the_wrong_place_is_disagreement() -> None:
    wild = [DepthRatio(value, 0.01, 30) for value in (0.5, 0.8, 1.0, 1.3, 1.9)]
    found = estimate_scale(wild)
    assert found is not None
    assert found.disagreement > 0.25


@pytest.mark.parametrize("orientation", range(1, 9))
def test_depth_is_turned_as_its_photo_is(tmp_path, orientation: int) -> None:
    upright = np.arange(1000, 1000 + 12 * 16).reshape(12, 16).astype(np.uint16)
    path = tmp_path / "a.png"
    stored = store_turned(upright, orientation) if orientation >= 5 else upright  # else shapes do not tell: upright
    Image.fromarray(np.ascontiguousarray(stored)).save(path)
    np.testing.assert_allclose(load_upright_depth(path, (16, 12), orientation, 0.001), upright / 1000.0)


def test_a_depth_camera_is_read(tmp_path) -> None:
    path = tmp_path / "camera.json"
    lens = {"fl_x": 585, "fl_y": 586, "cx": 320, "cy": 240, "w": 640, "h": 480}
    path.write_text(json.dumps(lens))
    np.testing.assert_array_equal(read_depth_camera(path).photo_from_depth, np.eye(4)[:3])
    path.write_text(json.dumps({**lens, "photo_from_depth": np.diag([1, 1, 2, 1]).tolist()}))
    with pytest.raises(QuoinError, match="depth camera file is incomplete or invalid"):
        read_depth_camera(path)
    with pytest.raises(QuoinError, match="Cannot read the depth camera"):
        read_depth_camera(tmp_path / "none.json")
