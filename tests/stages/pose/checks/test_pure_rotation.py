"""Turning on the spot is told from moving, by homographies made by hand and by photos."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import look_at
from quoin.stages.pose.checks.pure_rotation import PURE_ROTATION, has_single_viewpoint, rotation_deviation
from quoin.stages.pose.stage import POSE
from tests.stages.pose.room import ingested, render, save
from tests.stages.pose.test_stage import CONFIG

SIZE = np.array([[400, 300], [400, 300]])


def homography(turn_deg: float, shift: np.ndarray, focal: float = 380.0) -> np.ndarray:
    """Of pixels, by a plane one unit before the first camera, for a second one turned and moved."""
    k = np.array([[focal, 0, 200], [0, focal, 150], [0, 0, 1]])
    rotation = Rotation.from_euler("yx", [turn_deg, turn_deg / 3], degrees=True).as_matrix()
    return 7.0 * k @ (rotation + np.outer(shift, [0.1, 0.0, 1.0])) @ np.linalg.inv(k)


@pytest.mark.parametrize("turn", [1.0, 10.0, 30.0])
@pytest.mark.parametrize("focal", [250.0, 380.0, 900.0])
def test_a_turn_is_a_turn_for_any_focal_length(turn: float, focal: float) -> None:
    assert rotation_deviation(homography(turn, np.zeros(3), focal), SIZE) < PURE_ROTATION.max_rotation_deviation / 3


@pytest.mark.parametrize("shift", [[0.3, 0, 0], [0, 0.3, 0.1], [0.2, 0.1, -0.2]])
def test_a_step_before_a_plane_is_no_turn(shift: list[float]) -> None:
    for turn in (0.0, 10.0, 25.0):
        assert rotation_deviation(homography(turn, np.array(shift)), SIZE) > PURE_ROTATION.max_rotation_deviation


def test_a_few_photos_decide_neither_way() -> None:
    a, b = np.triu_indices(10, 1)
    pairs = np.column_stack([a, b])
    assert has_single_viewpoint(pairs, np.full(45, True))
    assert has_single_viewpoint(pairs, b < 8) is False  # photos 8 and 9 moved, and 17 of 45 pairs are with them
    one_moved = b < 9
    assert has_single_viewpoint(pairs, one_moved)  # 9 of 45; one photo from elsewhere makes no model
    some_turns = b < 4
    assert not has_single_viewpoint(pairs, some_turns)
    assert not has_single_viewpoint(np.zeros((0, 2), np.int64), np.zeros(0, bool))


def test_photos_from_one_spot_are_refused_in_a_sentence(tmp_path) -> None:
    rows = []
    for index in range(6):
        target = np.array([0.7 + 0.25 * index, 1.6 - 0.25 * index, 0.6 + 0.2 * (index % 3)])
        path = tmp_path / f"{index}.jpg"
        save(path, render(look_at(np.array([2.8, 2.8, 1.5]), target)))
        rows.append({"path": str(path)})
    with pytest.raises(QuoinError, match="were taken from one spot") as caught:
        POSE(ingested(tmp_path / "run", rows), CONFIG, Reporter())
    assert "a step or more apart" in caught.value.hint
