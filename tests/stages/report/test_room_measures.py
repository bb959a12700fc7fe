"""Rooms of known size: what the report measures of them."""

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from quoin.stages.report import maps
from quoin.stages.report.room_measures import fit_plane, measure_storey

HEIGHT_M, DOOR_M, THICK_M = 2.6, 2.0, 0.15


def inside_out(low, high):
    """The inner sides of a box."""
    box = trimesh.creation.box(bounds=[low, high])
    box.invert()
    return box


def flat(noise_m=0.0, seed=0):
    """Two rooms, 5 × 4 m and 3 × 4 m, joined by a door of 0.9 × 2 m, with a table and a wardrobe; as a fine mesh."""
    left, right = inside_out([0, 0, 0], [5, 4, HEIGHT_M]), inside_out([5 + THICK_M, 0, 0], [8 + THICK_M, 4, HEIGHT_M])
    passage = inside_out([5, 1, 0], [5 + THICK_M, 1.9, DOOR_M])
    table = trimesh.creation.box(bounds=[[1, 1, 0.7], [2.6, 2.2, 0.75]])
    wardrobe = trimesh.creation.box(bounds=[[6, 3.4, 0.0], [7.5, 4.0, 2.0]])
    mesh = trimesh.util.concatenate([left, right, passage, table, wardrobe]).subdivide_to_size(0.08)
    middle = mesh.triangles_center
    opening = (middle[:, 1] > 1) & (middle[:, 1] < 1.9) & (middle[:, 2] < DOOR_M)
    doorway = opening & (np.abs(mesh.face_normals[:, 0]) > 0.9) & (middle[:, 0] > 4.9) & (middle[:, 0] < 5.3)
    mesh.update_faces(~doorway)
    mesh.vertices += np.random.default_rng(seed).normal(0, noise_m, mesh.vertices.shape)
    return mesh


CAMERAS = np.array([[1.0, 1.0, 1.5], [4.0, 3.0, 1.6], [2.5, 2.0, 1.4], [6.5, 2.0, 1.5], [7.5, 1.0, 1.6]])
WALLS = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@pytest.mark.parametrize("turn_deg", [0.0, 17.0, -63.0])
def test_two_rooms_have_their_heights_sides_and_areas_however_they_are_turned(turn_deg):
    mesh, turn = flat(noise_m=0.004), Rotation.from_euler("z", turn_deg, degrees=True).as_matrix()
    plan = measure_storey(mesh.vertices @ turn.T, np.asarray(mesh.faces), CAMERAS @ turn.T, WALLS @ turn.T)
    assert plan is not None
    facts = plan.facts
    assert facts.height_m == pytest.approx(HEIGHT_M, abs=0.01)
    sides = [(room.length_m, room.width_m) for room in facts.rooms]
    assert sides == [pytest.approx((5, 4), abs=0.04), pytest.approx((4, 3), abs=0.04)]
    assert [room.area_m2 for room in facts.rooms] == pytest.approx([20, 12], rel=0.03)
    assert (turn.T @ [*facts.rooms[0].center_world, 0])[:2] == pytest.approx([2.5, 2.0], abs=0.1)
    walls = [plane for plane in facts.planes if plane.what == "wall"]
    assert sorted(wall.length_m for wall in walls) == pytest.approx([4, 4, 4, 4, 8.15, 8.15], abs=0.15)
    assert facts.n_corners == 8
    assert facts.corner_error_deg < 0.3
    assert all(plane.tilt_deg < 0.3 and plane.residual_m < 0.006 for plane in facts.planes)


def test_a_leaning_wall_and_a_corner_that_is_not_square_are_told():
    mesh = inside_out([0, 0, 0], [5, 4, HEIGHT_M]).subdivide_to_size(0.1)
    v = mesh.vertices
    v[:, 0] += np.tan(np.radians(2.0)) * v[:, 2] * (v[:, 0] / 5)  # the wall x = 5 leans outwards by 2°
    v[:, 1] += np.tan(np.radians(3.0)) * v[:, 0] * (v[:, 1] / 4)  # the wall y = 4 is askew by 3°
    plan = measure_storey(v, np.asarray(mesh.faces), CAMERAS[:3], WALLS)
    tilts = sorted(plane.tilt_deg for plane in plan.facts.planes if plane.what == "wall")
    assert tilts[-1] == pytest.approx(2.0, abs=0.3)
    assert tilts[-2] < 0.3
    assert plan.facts.corner_error_max_deg == pytest.approx(3.0, abs=0.5)


def test_what_no_photo_saw_between_walls_is_part_of_the_room():
    mesh = flat()
    middle = mesh.triangles_center
    unseen = (np.linalg.norm(middle[:, :2] - [2.5, 2.0], axis=1) < 1.2) & ((middle[:, 2] > 2.5) | (middle[:, 2] < 0.1))
    mesh.update_faces(~unseen)
    plan = measure_storey(mesh.vertices, np.asarray(mesh.faces), CAMERAS, WALLS)
    assert plan.facts.rooms[0].area_m2 == pytest.approx(20, rel=0.03)


def test_a_house_from_outside_has_no_rooms():
    house = trimesh.creation.box(bounds=[[-3, -3, 0], [3, 3, 5]]).subdivide_to_size(0.2)
    ground = trimesh.creation.box(bounds=[[-15, -15, -0.2], [15, 15, 0]]).subdivide_to_size(0.5)
    both = trimesh.util.concatenate([house, ground])
    ring = np.radians(np.arange(0, 360, 30))
    cameras = np.column_stack([10 * np.cos(ring), 10 * np.sin(ring), np.full(12, 1.7)])
    assert measure_storey(both.vertices, np.asarray(both.faces), cameras, WALLS) is None
    assert measure_storey(np.zeros((0, 3)), np.zeros((0, 3), int), cameras, WALLS) is None


def test_the_plan_shows_walls_and_areas():
    mesh = flat()
    svg = maps.draw_floor_plan(measure_storey(mesh.vertices, np.asarray(mesh.faces), CAMERAS, WALLS), "m")
    assert svg.count('class="wall"') == 6
    assert " m²" in svg


def test_a_plane_is_fitted_to_points():
    rng = np.random.default_rng(0)
    normal = np.array([1.0, 2.0, 2.0]) / 3
    across = np.cross(normal, [0, 0, 1])
    points = rng.uniform(-1, 1, (500, 2)) @ np.stack([across, np.cross(normal, across)]) + 0.01 * np.outer(
        rng.choice([-1, 1], 500), normal
    )
    found, off = fit_plane(points)
    assert abs(found @ normal) == pytest.approx(1.0, abs=1e-3)
    assert off == pytest.approx(0.01, rel=0.1)
