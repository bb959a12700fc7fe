"""Cameras that the user gives, brought to the photos at hand."""

import pytest

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.known_poses import scale_to_photo


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
