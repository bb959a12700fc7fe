"""Fisheye lenses without calibration: found by what pinhole cameras came out as, and mapped as fisheyes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world, look_at
from quoin.pipeline.geometry.similarity import fit_similarity
from quoin.pipeline.scene.posed_images import read_posed
from quoin.stages.pose.checks.registration import FilteredModel
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.fisheye import FISHEYE_MODEL, fisheye_cameras
from quoin.stages.pose.stage import POSE
from quoin.stages.pose.workspace import Component
from tests.stages.pose.checks.test_ambiguity import model_of
from tests.stages.pose.room import ingested, render, save

FISHEYE = Camera(FISHEYE_MODEL, 400, 300, (170.0, 200.0, 150.0, 0.0))  # 169 degrees from corner to corner


def component_with(focals_px: list[float], radial: float = -0.1) -> Component:
    """Four photos, with as many cameras as focal lengths."""
    model = model_of([[0]] * 4)
    cameras = [Camera("SIMPLE_RADIAL", 400, 300, (f, 200.0, 150.0, radial)) for f in focals_px]
    index = np.arange(4) % len(cameras)
    values = {**vars(model), "photo_ids": np.arange(4), "cameras": cameras, "camera_index": index}
    return Component("", FilteredModel(type(model)(**values), {}))


@pytest.mark.parametrize(
    ("focals_px", "radial", "is_fisheye"),
    [
        ([190.0, 200.0, 210.0, 220.0], 0.0, True),  # wide, and one camera a photo
        ([200.0], -0.1, True),  # wide, and bent
        ([200.0], 0.0, False),  # wide: a phone's second lens
        ([390.0, 400.0, 410.0, 500.0], -0.1, False),  # a zoom
        ([400.0], -0.1, False),
    ],
)
def test_wide_and_bent_lenses_may_be_fisheyes(focals_px, radial, is_fisheye):
    for prior in (False, True):
        shared = Camera("SIMPLE_RADIAL", 400, 300, (300.0, 200.0, 150.0, 0.0), prior)
        (camera,) = fisheye_cameras(component_with(focals_px, radial), [shared], [0, 0, 0, 0])
        if not is_fisheye:
            assert camera == shared
            continue
        assert (camera.model, camera.prior_focal) == (FISHEYE_MODEL, True)
        assert camera.params == (300.0 if prior else np.median(focals_px), 200.0, 150.0, 0.0)


@pytest.mark.slow
def test_fisheye_photos_without_calibration_get_one_fisheye_camera(tmp_path: Path) -> None:
    """A camera each, and centers off by per cents, is what they got."""
    angles = np.radians(np.linspace(12, 78, 12))
    heights = 0.9 + 0.5 * (np.arange(12) % 3)
    places = np.stack([2.0 * np.cos(angles), 2.0 * np.sin(angles), heights], axis=1)
    truth = np.array([look_at(place, np.array([0.4, 0.4, 0.5])) for place in places])
    rows = []
    for index, pose in enumerate(truth):
        path = tmp_path / f"{index}.jpg"
        save(path, render(pose, FISHEYE))
        rows.append({"path": str(path), "focal_px": float("nan")})
    run = ingested(tmp_path / "run", rows)
    result = POSE(run, PoseConfig(max_edge_px=400, max_features=800, threads=1), Reporter())
    assert result.n_registered == 12
    (camera,) = pycolmap.Reconstruction(run.path / "sparse/0").cameras.values()
    assert camera.model_name == FISHEYE_MODEL
    assert camera.mean_focal_length() == pytest.approx(170, rel=0.005)
    posed = read_posed(run)
    found = centers_world(posed.cam_from_world)
    spread = np.sqrt(np.square(places - places.mean(axis=0)).sum(axis=1).mean())
    error = np.linalg.norm(fit_similarity(found, places).apply(found) - places, axis=1)
    assert np.median(error) <= 0.002 * spread
