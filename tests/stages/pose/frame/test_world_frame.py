"""Gravity and GPS against made-up cameras with a known world."""

import numpy as np
import pytest

from quoin.pipeline.geometry.cameras import centers_world, look_at
from quoin.pipeline.geometry.similarity import Similarity
from quoin.stages.pose.frame.world_frame import (
    Georeference,
    Gravity,
    ecef_m,
    enu_m,
    georeference,
    gravity_aligned_frame,
    gravity_from_cameras,
    median_geodetic,
)

ORIGIN = np.array([48.77, 2.30, 80.0])


def turn(seed: int) -> np.ndarray:
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return q * np.sign(np.linalg.det(q))


def level_cameras(count: int = 20, seed: int = 0) -> np.ndarray:
    """Held level, looking about a scene from a ring, up and down by some degrees."""
    rng = np.random.default_rng(seed)
    angles = rng.uniform(0, 2 * np.pi, count)
    centers = np.stack([10 * np.cos(angles), 10 * np.sin(angles), rng.uniform(0, 4, count)], axis=1)
    return np.array([look_at(c, np.array([0, 0, rng.uniform(-1, 4)])) for c in centers])


def in_sfm(poses: np.ndarray, sfm_from_world: Similarity) -> np.ndarray:
    return sfm_from_world.apply_to_poses(poses)


def test_level_cameras_give_up() -> None:
    rotation = turn(1)
    gravity = gravity_from_cameras(in_sfm(level_cameras(), Similarity(0.3, rotation, np.ones(3))))
    assert np.degrees(np.arccos(gravity.up @ rotation[:, 2])) < 0.5
    assert gravity.confidence > 0.9


def test_photos_held_upright_without_saying_so_do_not_tip_the_world() -> None:
    poses = level_cameras()
    quarter = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    poses[:6] = quarter @ poses[:6]
    gravity = gravity_from_cameras(poses)
    assert np.degrees(np.arccos(gravity.up[2])) < 3


def test_a_row_of_photos_of_a_wall_still_has_an_up() -> None:
    poses = np.array([look_at(np.array([x, -8.0, 1.5]), np.array([x, 0.0, 2.0])) for x in np.linspace(0, 5, 9)])
    gravity = gravity_from_cameras(poses)
    assert np.degrees(np.arccos(gravity.up[2])) < 5
    assert gravity.confidence < 0.6


def test_turned_photos_among_a_few_that_all_look_one_way_do_not_lay_the_world_down() -> None:
    asides = [-0.06, 0.56, 0.04, 0.01, 0.06, -0.44, 0.03, -0.5, -0.03, -0.45]  # as in the set cyprus
    poses = np.array([look_at(np.zeros(3), np.array([x, np.sqrt(1 - x * x), -0.05])) for x in asides])
    poses[2] = np.diag([-1.0, -1, 1]) @ poses[2]
    poses[5] = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) @ poses[5]
    gravity = gravity_from_cameras(poses)
    assert np.degrees(np.arccos(gravity.up[2])) < 10
    assert gravity.confidence > 0.4


def test_looking_straight_down_up_is_behind() -> None:
    poses = []
    for i, x in enumerate(np.linspace(0, 50, 12)):
        heading = [1.0, 0, 0] if i % 2 else [0.2, -1.0, 0]
        poses.append(look_at(np.array([x, 0.0, 80.0]), np.array([x, 0.0, 0.0]), np.array(heading)))
    gravity = gravity_from_cameras(np.array(poses))
    assert np.degrees(np.arccos(gravity.up[2])) < 3
    assert gravity.confidence < 0.6


def test_level_frame_puts_the_scene_near_zero() -> None:
    poses = in_sfm(level_cameras(), Similarity(2.0, turn(2), np.array([500.0, -900, 40])))
    points = np.random.default_rng(0).normal([510, -880, 45], 2.0, (100, 3))
    world_from_sfm = gravity_aligned_frame(gravity_from_cameras(poses), poses, points, np.zeros((0, 3)))
    assert world_from_sfm.scale == 1.0
    assert np.abs(np.median(world_from_sfm.apply(points), axis=0)).max() < 1.0
    up = -world_from_sfm.apply_to_poses(poses)[:, 1, :3].mean(axis=0)
    assert up[2] > 0.9


def test_the_world_is_square_to_its_walls() -> None:
    """x is the axis of the walls nearest to the first camera's right, so that the picture stays as it is."""
    poses, points = level_cameras(), np.random.default_rng(0).normal(0, 2.0, (100, 3))
    walls = np.array([[np.cos(0.4), np.sin(0.4), 0.0]])
    for wall in (walls, -walls):
        world_from_sfm = gravity_aligned_frame(gravity_from_cameras(poses), poses, points, wall)
        assert np.abs(np.abs(world_from_sfm.rotation @ walls[0]).max() - 1) < 1e-3
        assert (world_from_sfm.rotation @ poses[0, 0, :3])[0] > np.sqrt(0.5) - 1e-3
        assert "walls" in world_from_sfm.provenance


def test_geodesy() -> None:
    assert np.allclose(ecef_m(np.array([[0.0, 0, 0]])), [[6378137.0, 0, 0]])
    assert np.allclose(ecef_m(np.array([[90.0, 0, 10]])), [[0, 0, 6356752.314 + 10]], atol=1e-2)
    # length of a degree at 48.77 north: 111,193 m of latitude, 73,470 m of longitude (from the ellipsoid's radii)
    east, north, up = enu_m(ORIGIN + [[0.001, 0.001, 5.0]], ORIGIN)[0]
    assert abs(north - 111.19) < 0.05
    assert abs(east - 73.47) < 0.05
    assert abs(up - 5.0) < 0.01


def gps(enu: np.ndarray) -> np.ndarray:
    """Geodetic positions of points some metres from the origin (to a centimetre)."""
    return ORIGIN + np.stack([enu[:, 1] / 111193.0, enu[:, 0] / 73470.0, enu[:, 2]], axis=1)


def fitted(poses: np.ndarray, noise_m: float, seed: int = 3) -> tuple[Georeference | str, Similarity]:
    sfm_from_world = Similarity(0.07, turn(seed), np.array([3.0, -1, 2]))
    sfm = in_sfm(poses, sfm_from_world)
    places = centers_world(poses) + np.random.default_rng(seed).normal(0, noise_m, (len(poses), 3))
    return georeference(centers_world(sfm), gps(places), gravity_from_cameras(sfm), 0), sfm_from_world


def test_places_on_both_sides_of_the_antimeridian_have_a_middle_between_them() -> None:
    places = np.array([[10.0, 179.9999, 5.0], [10.0, -179.9999, 7.0], [10.0, 179.9997, 6.0], [10.0, -179.9997, 6.0]])
    middle = median_geodetic(places)
    assert abs(middle[1] % 360 - 180) < 1e-6
    assert np.abs(enu_m(places, middle)[:, 0]).max() < 40


def test_gps_gives_metres_and_north() -> None:
    poses = level_cameras(30)
    geo, sfm_from_world = fitted(poses, 0.1)
    assert isinstance(geo, Georeference)
    assert abs(geo.world_from_sfm.scale * 0.07 - 1) < 0.02
    turned = geo.world_from_sfm.rotation @ sfm_from_world.rotation
    assert np.degrees(np.arccos((np.trace(turned) - 1) / 2)) < 2


def test_a_straight_line_takes_its_tilt_from_gravity() -> None:
    poses = np.array(
        [look_at(np.array([x, 0.0, 1.6]), np.array([x + 5 * np.cos(x), 20.0, 3.0])) for x in np.linspace(0, 60, 15)]
    )
    geo, sfm_from_world = fitted(poses, 0.3)
    assert isinstance(geo, Georeference)
    assert "tilt" in geo.world_from_sfm.provenance
    turned = geo.world_from_sfm.rotation @ sfm_from_world.rotation
    assert np.degrees(np.arccos((np.trace(turned) - 1) / 2)) < 4


def test_wild_gps_is_left_out_and_useless_gps_refused() -> None:
    poses = level_cameras(30)
    centers, places = centers_world(poses), centers_world(poses).copy()
    places[:4] += 300.0
    geo = georeference(centers, gps(places), gravity_from_cameras(poses), 0)
    assert isinstance(geo, Georeference)
    assert geo.n_inliers <= 26
    assert abs(geo.world_from_sfm.scale - 1) < 0.02
    noise = np.random.default_rng(0).normal(0, 40, places.shape)
    assert isinstance(georeference(centers, gps(centers + noise), Gravity(np.array([0, 0, 1.0]), 1.0), 0), str)
    few = np.full((30, 3), np.nan)
    few[:2] = gps(centers[:2])
    assert "2 registered photos" in str(georeference(centers, few, gravity_from_cameras(poses), 0))


@pytest.mark.parametrize("altitude", [np.nan, 0.0])
def test_missing_altitude_still_gives_a_map(altitude: float) -> None:
    poses = level_cameras(30)
    geodetic = gps(centers_world(poses))
    geodetic[:, 2] = altitude
    geo = georeference(centers_world(poses), geodetic, gravity_from_cameras(poses), 0)
    assert isinstance(geo, Georeference)
    assert abs(geo.world_from_sfm.scale - 1) < 0.1
