"""Matches lie on the epipolar lines of right poses, and which photos contradict the others is found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from quoin.stages.pose.checks.epipolar import PairShares, epipolar_distances_px

FOCAL = 500.0


def scene(n: int = 200) -> tuple[np.ndarray, list[np.ndarray]]:
    """Two poses that see points, and the directions in which they see them."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (n, 3)) + [0, 0, 6]
    turned = Rotation.from_euler("y", 10, degrees=True).as_matrix()
    poses = np.stack([np.eye(4)[:3], np.column_stack([turned, [1, 0, 0]])])
    return poses, [directions(pose, points) for pose in poses]


def directions(pose: np.ndarray, points: np.ndarray) -> np.ndarray:
    seen = points @ pose[:, :3].T + pose[:, 3]
    return seen[:, :2] / seen[:, 2:]


def distances(poses: np.ndarray, xy: list[np.ndarray]) -> np.ndarray:
    return epipolar_distances_px(poses, xy, np.array([FOCAL, FOCAL]), 1e-9)


def test_matches_lie_on_the_lines_of_their_poses():
    assert distances(*scene()).max() < 1e-9


def test_a_match_that_is_off_across_its_line_is_off_by_as_many_pixels():
    poses, xy = scene()
    poses[1] = np.eye(4)[:3]
    poses[1, 0, 3] = -1.0  # moved along x: lines are rows
    first = xy[0]
    second = first + [0.1, 6.0 / FOCAL]
    np.testing.assert_allclose(distances(poses, [first, second]), 6.0, rtol=1e-9)


@pytest.mark.parametrize(("turn_deg", "share"), [(0.05, 1.0), (2.0, 0.3)])
def test_a_camera_that_is_turned_leaves_the_lines(turn_deg, share):
    poses, xy = scene()
    poses[1, :, :] = Rotation.from_euler("x", turn_deg, degrees=True).as_matrix() @ poses[1]
    assert ((distances(poses, xy) <= 4).mean() >= share) == (share == 1.0)


def test_of_two_photos_from_one_place_the_direction_counts():
    poses, xy = scene()
    poses[1, :, 3] = 0
    turned = np.column_stack([xy[0], np.ones(len(xy[0]))]) @ poses[1, :, :3].T
    xy[1] = turned[:, :2] / turned[:, 2:]
    assert distances(poses, xy).max() < 1e-9
    xy[1] = xy[1] + 3 / FOCAL
    np.testing.assert_allclose(distances(poses, xy), 3 * np.sqrt(2))


def pairs(n: int, wrong: set[int], missing: frozenset = frozenset()) -> PairShares:
    rows = [(a, b) for a in range(n) for b in range(a + 1, n) if (a, b) not in missing]
    shares = [0.03 if {a, b} & wrong else 0.99 for a, b in rows]
    return PairShares(np.array(rows), np.array(shares), n)


@pytest.mark.parametrize("wrong", [set(), {3}, {1, 4, 7}, {0, 9}])
def test_photos_that_contradict_the_others_are_found_and_no_other(wrong):
    found = pairs(10, wrong).wrong_photos()
    assert set(np.flatnonzero(found)) == wrong


def test_a_photo_that_matches_wrong_ones_only_is_not_called_wrong():
    few = pairs(10, {1}, frozenset((0, b) for b in range(2, 10)))
    assert np.flatnonzero(few.wrong_photos()).tolist() == [1]
    assert np.isnan(few.of_photos(few.wrong_photos())[0])


def test_where_all_contradict_each_other_most_are_wrong():
    everything = PairShares(pairs(6, set()).rows, np.full(15, 0.1), 6)
    assert everything.wrong_photos().sum() >= 4
