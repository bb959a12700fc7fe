"""Which photos are compared with which."""

import numpy as np

from quoin.pipeline.geometry.cameras import look_at
from quoin.pipeline.geometry.covisibility import covisible_photos, observation_matrix, observed_points, source_photos


def test_source_photos_show_the_same_points_under_a_useful_angle():
    angles = np.radians([0, 1, 15, 90, -15])
    centres = np.stack([3 * np.cos(angles), 3 * np.sin(angles), np.zeros(5)], axis=1)
    poses = np.stack([look_at(c, np.zeros(3)) for c in centres])
    poses[4] = look_at(centres[4], 2 * centres[4])  # looks away
    points = np.random.default_rng(0).normal(0, 0.1, (50, 3))
    photo, point = np.repeat(np.arange(4), 50), np.tile(np.arange(50), 4)
    intrinsics, sizes = np.tile([100.0, 100, 50, 50], (5, 1)), np.full((5, 2), 100)
    sources = source_photos(poses, intrinsics, sizes, observation_matrix(5, 50, photo, point), points, 3)
    assert sources[0, 0] == 2  # not the twin photo, not the one at a right angle
    assert 3 not in sources[0]
    assert 4 not in sources[0]


def test_a_photo_that_was_not_matched_may_still_be_compared():
    angles = np.radians([0, 15])
    poses = np.stack([look_at(np.array([3 * np.cos(a), 3 * np.sin(a), 0.0]), np.zeros(3)) for a in angles])
    points = np.random.default_rng(0).normal(0, 0.1, (50, 3))
    seen = observation_matrix(2, 50, np.zeros(50, int), np.arange(50))
    sources = source_photos(poses, np.tile([100.0, 100, 50, 50], (2, 1)), np.full((2, 2), 100), seen, points, 2)
    assert sources[0].tolist() == [1, -1]


def test_points_of_photos_are_those_that_any_of_them_sees():
    seen = observation_matrix(3, 6, np.array([0, 0, 1, 2, 0]), np.array([5, 1, 2, 3, 1]))
    assert observed_points(seen, [0]).tolist() == [1, 5]
    assert observed_points(seen, [1, 0]).tolist() == [1, 2, 5]
    assert observed_points(seen, []).tolist() == []


def test_candidates_of_a_long_walk_are_the_neighbours_and_theirs():
    """Photo i sees points i and i + 1: it shares one with each neighbour, and a neighbour with the next but one."""
    n = 50
    seen = observation_matrix(n, n + 1, np.repeat(np.arange(n), 2), (np.arange(n)[:, None] + [0, 1]).ravel())
    near = covisible_photos(seen, max_photos=4)
    assert near[20].tolist() == [18, 19, 21, 22]
    assert near[0].tolist() == [1, 2]
    assert covisible_photos(seen, max_photos=2)[20].tolist() == [19, 21]
    assert covisible_photos(seen, max_photos=n - 1)[20].tolist() == [i for i in range(n) if i != 20]


def test_sources_among_candidates_are_those_among_all(monkeypatch):
    """On a strip of photos that overlap with few others, looking at candidates only finds the same sources."""
    n, rng = 60, np.random.default_rng(0)
    centres = np.column_stack([np.arange(n) * 1.0, rng.normal(0, 0.2, n), np.full(n, 10.0)])
    poses = np.stack([look_at(c, c - [0, 0, 10], np.array([0.0, 1, 0])) for c in centres])
    points = np.column_stack([rng.uniform(-3, n + 3, 4000), rng.uniform(-3, 3, 4000), rng.normal(0, 0.2, 4000)])
    photo, point = np.nonzero(np.abs(points[None, :, 0] - centres[:, None, 0]) < 4)
    seen = observation_matrix(n, len(points), photo, point)
    given = poses, np.tile([100.0, 100, 50, 50], (n, 1)), np.full((n, 2), 100), seen, points, 6
    everything = source_photos(*given)
    monkeypatch.setattr(
        "quoin.pipeline.geometry.covisibility.covisible_photos", lambda seen: covisible_photos(seen, max_photos=24)
    )
    np.testing.assert_array_equal(source_photos(*given), everything)
