"""Which photos are compared with which."""

import numpy as np

from pipeline.cameras import look_at
from pipeline.covisibility import seen_matrix, source_photos


def test_source_photos_show_the_same_points_under_a_useful_angle():
    angles = np.radians([0, 1, 15, 90, -15])
    centres = np.stack([3 * np.cos(angles), 3 * np.sin(angles), np.zeros(5)], axis=1)
    poses = np.stack([look_at(c, np.zeros(3)) for c in centres])
    poses[4] = look_at(centres[4], 2 * centres[4])  # looks away
    points = np.random.default_rng(0).normal(0, 0.1, (50, 3))
    photo, point = np.repeat(np.arange(4), 50), np.tile(np.arange(50), 4)
    intrinsics, sizes = np.tile([100.0, 100, 50, 50], (5, 1)), np.full((5, 2), 100)
    sources = source_photos(poses, intrinsics, sizes, seen_matrix(5, 50, photo, point), points, 3)
    assert sources[0, 0] == 2  # not the twin photo, not the one at a right angle
    assert 3 not in sources[0]
    assert 4 not in sources[0]


def test_a_photo_that_was_not_matched_may_still_be_compared():
    angles = np.radians([0, 15])
    poses = np.stack([look_at(np.array([3 * np.cos(a), 3 * np.sin(a), 0.0]), np.zeros(3)) for a in angles])
    points = np.random.default_rng(0).normal(0, 0.1, (50, 3))
    seen = seen_matrix(2, 50, np.zeros(50, int), np.arange(50))
    sources = source_photos(poses, np.tile([100.0, 100, 50, 50], (2, 1)), np.full((2, 2), 100), seen, points, 2)
    assert sources[0].tolist() == [1, -1]
