"""The region: holds the content, lets strays and far background go, survives degenerate clouds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.partition import region
from tests import synthetic


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
    return region.supported_points(
        **{**given_, **changes}, points_world=points, min_track=3, min_angle=0.03, max_depth=40.0
    )


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
    good = region.supported_points(
        np.full(n, 4), np.full(n, 0.5), np.full(n, 0.3), depths, both, min_track=3, min_angle=0.03, max_depth=1e9
    )
    low, high = box_of(both[good])
    clean_low, clean_high = box_of(points)
    # most strays are gone; the few that lie by chance among the content hardly stretch it
    np.testing.assert_allclose(low, clean_low, atol=0.5)
    np.testing.assert_allclose(high, clean_high, atol=0.5)
    assert good[:2000].mean() > 0.98


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
