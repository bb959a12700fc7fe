"""The region: holds the content, lets strays and far background go, survives degenerate clouds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quoin.pipeline.scene import posed_images
from quoin.stages.partition import region
from quoin.stages.partition.config import PartitionConfig
from quoin.stages.partition.stage import ObservationTable, find_region
from tests.fixtures import synthetic


def box_of(points: np.ndarray, margin: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """The region of points each of which four photos see, every one in a picture cell of its own."""
    n = len(points)
    seen = np.tile(np.arange(n), 4)
    return region.region_box(points, seen, np.arange(4 * n), np.repeat(np.arange(4), n), margin)


def test_angles_and_depths_of_a_point_between_two_cameras() -> None:
    poses = np.stack([synthetic.look_at(np.array(c, float), np.zeros(3)) for c in ([3, 0, 0], [0, 3, 0], [0, 0.3, 3])])
    point = np.zeros((1, 3))
    photo, of = np.array([0, 1]), np.array([0, 0])
    assert np.rad2deg(region.triangulation_angles(poses, point, photo, of))[0] == pytest.approx(90)
    np.testing.assert_allclose(region.observation_depths(poses, point, photo, of), 3.0)
    alone = region.triangulation_angles(poses, point, np.array([2]), np.array([0]))
    assert alone[0] == pytest.approx(0, abs=1e-6)


def supported(points: np.ndarray, **changes: np.ndarray) -> np.ndarray:
    n = len(points)
    given_ = {
        "lengths": np.full(n, 4),
        "errors_px": np.full(n, 0.5),
        "angles": np.full(n, 0.3),
        "depths": np.full(n, 5.0),
    }
    statistics = region.PointStatistics(points, **{**given_, **changes})
    return region.supported_points(statistics, min_track=3, min_angle=0.03, max_depth=40.0)


def test_each_condition_rejects_what_it_should() -> None:
    points = synthetic.sphere_points(400)
    lengths, errors, angles, depths = np.full(400, 4), np.full(400, 0.5), np.full(400, 0.3), np.full(400, 5.0)
    lengths[0], errors[1], angles[2], depths[3], depths[4] = 2, 9.0, 0.001, 400.0, 0.0
    points[5] = [7.0, 7.0, 7.0]
    points[6] = np.nan
    good = supported(points, lengths=lengths, errors_px=errors, angles=angles, depths=depths)
    assert not good[:7].any()
    assert good[7:].all()


def test_conditions_give_way_where_too_little_would_stay() -> None:
    points = synthetic.sphere_points(100)
    assert supported(points, lengths=np.full(100, 2)).mean() > 0.9
    assert supported(points, lengths=np.full(100, 2), angles=np.zeros(100)).mean() > 0.9
    assert supported(points[:3], lengths=np.full(3, 2)).all()
    assert not supported(points, depths=np.zeros(100)).any()


@given(st.integers(0, 1000), st.floats(10, 1e4))
def test_strays_do_not_move_the_region(seed: int, far: float) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (2000, 3)) * [3, 2, 1]
    strays = rng.normal(size=(20, 3)) * far
    both = np.concatenate([points, strays])
    depths = np.concatenate([np.full(2000, 6.0), 6.0 + np.linalg.norm(strays, axis=1)])
    n = len(both)
    statistics = region.PointStatistics(both, np.full(n, 4), np.full(n, 0.5), np.full(n, 0.3), depths)
    good = region.supported_points(statistics, min_track=3, min_angle=0.03, max_depth=1e9)
    low, high = box_of(both[good])
    clean_low, clean_high = box_of(points)
    # most strays are gone; the few that lie by chance among the content hardly stretch it
    np.testing.assert_allclose(low, clean_low, atol=0.5)
    np.testing.assert_allclose(high, clean_high, atol=0.5)
    assert good[:2000].mean() > 0.98


def ball_before_a_background(seed: int, ring: bool, reach: float) -> posed_images.Posed:
    """A ball of radius 1 in photos from 4 away; 30 % of the points ``reach`` away, on a hill or all around the horizon,
    seen by many photos; 5 % strays a hundred times as far as the cameras."""
    rng = np.random.default_rng(seed)
    cameras = np.concatenate([synthetic.ring_of_cameras(12, 4.0, h) for h in (-1.0, 0.5, 2.0)])
    ball = synthetic.sphere_points(1300, 1.0, seed)
    around = rng.uniform(0, 2 * np.pi, 600) if ring else rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.12, 600)
    far = reach * np.stack([np.cos(around), np.sin(around), rng.uniform(-0.1, 0.3, 600)], axis=1)
    far *= rng.uniform(1, 1.3, (600, 1))
    strays = rng.normal(size=(100, 3))
    strays *= 400 / np.linalg.norm(strays, axis=1, keepdims=True)

    def visible(center: np.ndarray, points: np.ndarray) -> np.ndarray:
        return synthetic.faces_camera(center, points) | (np.linalg.norm(points, axis=1) > 2)

    return synthetic.posed_points(cameras, np.concatenate([ball, far, strays]), visible, focal_px=80.0)


@settings(max_examples=12)
@given(st.integers(0, 1000), st.booleans(), st.sampled_from([40.0, 60.0]))
def test_neither_strays_nor_a_background_that_many_photos_see_move_the_region_off_the_object(seed, ring, reach) -> None:
    posed = ball_before_a_background(seed, ring, reach)
    distance = np.linalg.norm(posed.points_world, axis=1)
    far = (distance > 2) & (distance < 200)
    assert far.mean() == pytest.approx(0.3, abs=0.02)
    assert (distance > 200).mean() > 0.03
    assert posed.track_lengths[far].mean() > 4
    _, low, high = find_region(ObservationTable.from_posed(posed), PartitionConfig(), 0)
    assert (low <= -0.98).all()
    assert (high >= 0.98).all()
    assert (high - low).max() < 3.0


def test_what_some_photos_come_near_or_see_from_all_around_is_no_background() -> None:
    depths, angles = np.full(1000, 5.0), np.full(1000, 1.0)
    well = np.ones(1000, bool)
    depths[:100], angles[:100] = 50.0, 0.05  # a hill
    depths[100:200], angles[100:200] = 50.0, 0.9  # what only the drone saw, from all around
    angles[200:300] = 0.02  # the end of a path, from near by
    found = region.is_background(depths, angles, well)
    assert found[:100].all()
    assert not found[100:].any()
    assert not region.is_background(depths, angles, np.zeros(1000, bool)).any()


@given(st.integers(0, 1000))
def test_the_region_holds_nearly_all_of_an_even_cloud(seed: int) -> None:
    points = np.random.default_rng(seed).uniform(-1, 1, (3000, 3)) * [5, 3, 2]
    low, high = box_of(points)
    assert np.all((points >= low) & (points <= high), axis=1).mean() >= 0.995
    assert ((high - low) <= 2 * np.array([5, 3, 2]) + 2 * 0.05 * 10.1).all()


def test_a_thin_far_tail_does_not_stretch_the_region_but_a_wing_of_the_building_does() -> None:
    rng = np.random.default_rng(0)
    house = rng.uniform(-1, 1, (5000, 3)) * [5, 5, 3]
    tail = rng.uniform(-1, 1, (60, 3)) + np.array([40, 0, 0])
    _, high = box_of(np.concatenate([house, tail]))
    assert high[0] < 6.5
    wing = rng.uniform(-1, 1, (800, 3)) * [2, 2, 2] + np.array([40, 0, 0])
    _, high = box_of(np.concatenate([house, wing]))
    assert high[0] > 41.5


def test_a_tail_that_is_all_a_photo_shows_stays() -> None:
    rng = np.random.default_rng(0)
    house, tail = rng.uniform(-5, 5, (5000, 3)), rng.uniform(-1, 1, (60, 3)) + np.array([40, 0, 0])
    points = np.concatenate([house, tail])
    seen_by = np.concatenate([np.repeat(np.arange(5), 1000), np.full(60, 5)])  # the last photo sees nothing else
    _, high = region.region_box(points, np.arange(5060), np.arange(5060), seen_by, 0.05)
    assert high[0] > 40


@pytest.mark.parametrize("shape", ["point", "line", "plane"])
def test_degenerate_clouds_get_a_region_with_a_thickness(shape: str) -> None:
    points = (
        np.random.default_rng(0).uniform(-1, 1, (50, 3)) * {"point": 0.0, "line": [3, 0, 0], "plane": [3, 2, 0]}[shape]
    )
    low, high = box_of(points + np.array([7.0, 8.0, 9.0]))
    assert (high - low > 0).all()
    _, box = region.lattice_around(low, high, (high - low).max() / 64, 16)
    assert box.count >= 1


@given(
    st.tuples(*[st.floats(-1e4, 1e4)] * 3),
    st.tuples(*[st.floats(0.5, 100.0)] * 3),
    st.integers(33, 700),
    st.sampled_from([8, 16, 32]),
)
def test_the_lattice_covers_the_region_and_no_more(low, side, resolution: int, brick: int) -> None:
    low_world = np.array(low)
    high_world = low_world + np.array(side)
    size = region.voxel_size(low_world, high_world, 0.0, resolution=resolution, gsd_factor=1.0)
    lattice, box = region.lattice_around(low_world, high_world, size, brick)
    box_low, box_high = lattice.box_world(box)
    assert (box_low <= low_world + 0.51 * size).all()
    assert (box_high >= high_world - 0.51 * size).all()
    assert ((box_high - box_low) - (high_world - low_world) < (brick + 1) * size).all()
    assert max(box.shape) == -(-resolution // brick)
    np.testing.assert_allclose(
        np.array(lattice.origin_world) / size, np.rint(np.array(lattice.origin_world) / size), atol=1e-3
    )


def test_voxels_are_no_finer_than_the_photos() -> None:
    low, high = np.zeros(3), np.array([10.0, 4, 3])
    assert region.voxel_size(low, high, 0.001, resolution=500, gsd_factor=2.0) == pytest.approx(0.02)
    assert region.voxel_size(low, high, 0.05, resolution=500, gsd_factor=2.0) == pytest.approx(0.1)
