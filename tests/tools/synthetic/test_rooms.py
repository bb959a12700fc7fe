"""The generated rooms: closed, furnished, bare where they should be, and their truth tells what is what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world, look_at, pixel_grid, project, rays_world
from quoin.pipeline.imaging.labels import CEILING, FLOOR, OTHER, WALL
from quoin.tools.synthetic import lighting, rooms, shapes, trajectories
from quoin.tools.synthetic.config import ROOM_SETTINGS, SyntheticConfig, SyntheticTruth
from quoin.tools.synthetic.generate import generate_photos
from quoin.tools.synthetic.materials import SolidNoise
from quoin.tools.synthetic.photo_renderer import PhotoDevelopment, RadianceFunction, build_raycaster, render_photo
from quoin.tools.synthetic.rooms import FINISHES, Room

SIZE, INTRINSICS = (80, 60), np.array([57.8, 57.8, 40, 30])
NEUTRAL = PhotoDevelopment(np.ones(3))


@pytest.fixture(scope="module")
def made() -> Room:
    return rooms.build_room(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("room")
    generate_photos(path, SyntheticConfig(n_photos=6, width=96, height=72, **ROOM_SETTINGS), 0, Reporter())
    return path


def merged(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    out = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    out.merge_vertices(digits_vertex=6)
    return out


def normals_of(scene: Room) -> np.ndarray:
    return trimesh.Trimesh(scene.vertices, scene.faces, process=False).face_normals


def test_the_room_is_closed_and_as_large_as_its_plan() -> None:
    shell = merged(rooms.room_shell())
    assert shell.is_watertight
    assert shell.is_winding_consistent
    plan = 5.2 * 4.2 - (5.2 - 3.6) * (4.2 - 3.0)
    recesses = sum(np.prod(np.subtract(high, low)) for low, high in (rooms.WINDOW_BOX_M, rooms.DOOR_BOX_M))
    assert -shell.volume == pytest.approx(2.6 * plan + recesses, rel=1e-6)  # it faces inwards


@pytest.mark.parametrize(("sides", "first_deg"), [(8, 22.5), (72, 0.0)])
def test_a_prism_is_closed_and_faces_inwards(sides: int, first_deg: float) -> None:
    angle = np.radians(first_deg) + 2 * np.pi * np.arange(sides) / sides
    outline = 2.4 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    whole = merged(trimesh.util.concatenate(shapes.hollow_prism(outline, 2.6)))
    assert whole.is_watertight
    area = 0.5 * sides * 2.4**2 * np.sin(2 * np.pi / sides)
    assert -whole.volume == pytest.approx(2.6 * area, rel=1e-6)


def test_blocks_and_rounded_boxes_are_closed_and_of_their_size() -> None:
    block = merged(shapes.closed_box((0, 0, 0), (0.5, 0.3, 0.2)))
    assert block.is_watertight
    assert block.volume == pytest.approx(0.03, rel=1e-9)
    a, b, c, r = 0.5, 0.4, 0.3, 0.1
    soft = merged(shapes.rounded_box((0, 0, 0), (a, b, c), r))
    assert soft.is_watertight
    u, v, w = a - 2 * r, b - 2 * r, c - 2 * r
    exact = u * v * w + 2 * r * (u * v + v * w + w * u) + np.pi * r**2 * (u + v + w) + 4 / 3 * np.pi * r**3
    assert soft.volume == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("kind", [rooms.build_room, rooms.build_octagon_room, rooms.build_round_room])
def test_from_every_camera_every_ray_meets_the_front_of_something(kind) -> None:
    """A camera inside a piece of furniture would see its back; a hole in the room would let a ray out."""
    scene = kind(0)
    caster = build_raycaster(scene.vertices, scene.faces)
    backs = []
    for pose in trajectories.indoor_walk_cameras(scene, 40, 0):
        origin, directions = rays_world(pose, INTRINSICS, pixel_grid(*SIZE))
        rays = np.concatenate([np.broadcast_to(origin, directions.shape), directions], axis=1).astype(np.float32)
        cast = caster.cast_rays(rays)
        depth_m = cast["t_hit"].numpy()
        assert np.isfinite(depth_m).all()
        assert depth_m.min() > 0.3
        backs.append(((cast["primitive_normals"].numpy() * directions).sum(1) > 0).mean())
    assert np.max(backs) < 0.002  # a pixel at an edge where two solids touch


def test_cameras_walk_inside_at_hand_height_and_neighbours_see_the_same(made: Room) -> None:
    poses = trajectories.indoor_walk_cameras(made, 40, 0)
    centers = centers_world(poses)
    assert np.all((centers[:, 2] > 1.25) & (centers[:, 2] < 1.75))
    assert build_raycaster(made.vertices, made.faces).compute_distance(centers.astype(np.float32)).numpy().min() > 0.25
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    assert np.median(steps) < 0.4
    shared = []
    caster = build_raycaster(made.vertices, made.faces)
    for pose, following in zip(poses, np.roll(poses, -1, axis=0), strict=True):
        origin, directions = rays_world(pose, INTRINSICS, pixel_grid(*SIZE, step=4))
        rays = np.concatenate([np.broadcast_to(origin, directions.shape), directions], axis=1).astype(np.float32)
        points = origin + caster.cast_rays(rays)["t_hit"].numpy()[:, None] * directions
        pixels, depth = project(following, INTRINSICS, points)
        shared.append(((depth > 0) & np.all((pixels > 0) & (pixels < SIZE), axis=1)).mean())
    assert np.median(shared) > 0.6


@pytest.mark.parametrize("yaw_deg", [0.0, 27.0])
def test_labels_match_normals_and_places(yaw_deg: float) -> None:
    scene = rooms.build_room(0, yaw_deg)
    assert scene.label is not None
    normals, label = normals_of(scene), scene.label
    height = scene.vertices[scene.faces][:, :, 2]
    np.testing.assert_allclose(normals[label == FLOOR], [[0, 0, 1]] * (label == FLOOR).sum(), atol=1e-9)
    np.testing.assert_allclose(normals[label == CEILING], [[0, 0, -1]] * (label == CEILING).sum(), atol=1e-9)
    assert np.abs(height[label == FLOOR]).max() < 1e-9
    assert np.abs(height[label == CEILING] - 2.6).max() < 1e-9
    yaws = np.degrees(np.arctan2(normals[:, 1], normals[:, 0])) % 180
    assert scene.wall_yaws_deg == pytest.approx((yaw_deg, 90 + yaw_deg))
    off = np.abs((yaws[label == WALL, None] - np.array(scene.wall_yaws_deg) + 90) % 180 - 90).min(axis=1)
    assert off.max() < 1e-6
    assert np.abs(normals[label == WALL, 2]).max() < 1e-9
    areas = trimesh.Trimesh(scene.vertices, scene.faces, process=False).area_faces
    openings = 1.7 * 1.3 + 0.85 * 2.05
    assert areas[label == WALL].sum() == pytest.approx(2.6 * 2 * (5.2 + 4.2) - openings, rel=1e-6)
    assert (label == OTHER).sum() > 10_000


def test_the_octagon_has_walls_in_four_directions_and_the_cylinder_in_none() -> None:
    eight, around = rooms.build_octagon_room(0, 10.0), rooms.build_round_room(0)
    assert eight.wall_yaws_deg == pytest.approx((10, 55, 100, 145))
    normals = normals_of(eight)[eight.label == WALL]
    yaws = np.degrees(np.arctan2(normals[:, 1], normals[:, 0])) % 180
    assert set(np.round(yaws).astype(int)) == {10, 55, 100, 145}
    assert around.wall_yaws_deg == ()
    normals = normals_of(around)[around.label == WALL]
    assert len(np.unique(np.round(normals, 6), axis=0)) == 72


def test_the_same_seed_gives_the_same_room_and_photos(made: Room, folder: Path, tmp_path: Path) -> None:
    again, other = rooms.build_room(0), rooms.build_room(1)
    assert np.array_equal(again.vertices, made.vertices)
    assert np.array_equal(again.tint, made.tint)
    assert len(other.vertices) != len(made.vertices)
    generate_photos(tmp_path, SyntheticConfig(n_photos=6, width=96, height=72, **ROOM_SETTINGS), 0, Reporter())
    for path in sorted((folder / "photos").iterdir()):
        assert path.read_bytes() == (tmp_path / "photos" / path.name).read_bytes()
    for name in ("mesh.ply", "full.ply", "transforms.json"):
        assert (folder / "truth" / name).read_bytes() == (tmp_path / "truth" / name).read_bytes()


def test_the_truth_carries_the_labels_of_its_faces(folder: Path, made: Room) -> None:
    facts = SyntheticTruth.model_validate_json((folder / "truth" / "demo.json").read_text())
    assert facts.wall_yaws_deg == (0.0, 90.0)
    assert 7.0 < facts.diagonal_m < 7.5
    assert (facts.n_photos_with_people, facts.people_share) == (0, 0.0)
    assert facts.focal_px / 96 == pytest.approx(25 / 43.2666 * np.hypot(4, 3) / 4, rel=1e-6)
    full = trimesh.load(facts.full_mesh, process=False)
    assert len(full.faces) == len(made.faces)
    for path in (facts.mesh, facts.full_mesh):
        mesh = trimesh.load(path, process=False)
        label = mesh.metadata["_ply_raw"]["face"]["data"]["label"]
        assert np.all(mesh.face_normals[label == FLOOR, 2] > 0.999)
        assert np.all(mesh.triangles_center[label == CEILING, 2] > 2.59)
        assert np.abs(mesh.face_normals[label == WALL, 2]).max() < 1e-4
        assert {FLOOR, CEILING, WALL, OTHER} == set(label.tolist())


def views(scene: Room) -> RadianceFunction:
    return lighting.light_room(scene, SolidNoise(0))[1]


@pytest.fixture(scope="module")
def radiance_function(made: Room) -> RadianceFunction:
    return views(made)


def test_a_wall_has_nothing_on_it_but_its_shade(radiance_function: RadianceFunction) -> None:
    """Across 11 pixels, what is left of a wall after its slope is rounding; of the floor more."""
    intrinsics = np.array([577.8, 577.8, 60, 60])
    left = {}
    for name, target in (("wall", [2.6, 0.0, 1.9]), ("ceiling", [2.2, 2.6, 2.6]), ("floor", [1.3, 1.6, 0.0])):
        pose = look_at(np.array([2.0, 2.5, 1.5]), np.array(target))
        grey = render_photo(radiance_function, pose, intrinsics, (120, 120), NEUTRAL).astype(float).mean(axis=2)
        corners = [(i, j) for i in range(0, 99, 11) for j in range(0, 99, 11)]
        patches = np.stack([grey[i : i + 11, j : j + 11].ravel() for i, j in corners])
        y, x = np.mgrid[:11, :11]
        slope = np.stack([x.ravel(), y.ravel(), np.ones(121)], axis=1)
        rest = patches.T - slope @ np.linalg.lstsq(slope, patches.T, rcond=None)[0]
        left[name] = np.median(rest.std(axis=0))
    assert left["wall"] < 0.4
    assert left["ceiling"] < 0.4
    assert left["floor"] > 1


def test_a_wall_is_not_one_colour(made: Room) -> None:
    """The wall y = 4.2 is brighter near the window than far from it, and darker under the ceiling."""
    light = lighting.irradiance(made, build_raycaster(made.vertices, made.faces)).mean(axis=1)
    x, y, z = made.vertices.T
    on_wall = np.zeros(len(x), bool)
    on_wall[made.faces[made.label == WALL]] = True
    on_wall &= y > 4.2 - 1e-6
    near = on_wall & (x > 0.7) & (x < 1.2) & (np.abs(z - 2.1) < 0.2)
    far = on_wall & (x > 2.8) & (x < 3.3) & (np.abs(z - 2.1) < 0.2)
    edge = on_wall & (x > 2.8) & (x < 3.3) & (z > 2.59)
    assert light[near].mean() > 1.15 * light[far].mean()
    assert light[edge].mean() < 0.9 * light[far].mean()
    pane = np.unique(made.faces[made.material == FINISHES.index("pane")])
    assert light[pane].min() > 1.3


def test_what_is_seen_does_not_depend_on_where_from(made: Room, radiance_function: RadianceFunction) -> None:
    """A point gives the same light to two cameras; and a turned room, from turned cameras, the same picture."""
    target = np.array([2.2, 0.002, 1.5])
    seen = []
    for center in ([2.0, 2.5, 1.5], [3.6, 2.4, 1.4]):
        ahead = target - center
        direction = (ahead / np.linalg.norm(ahead)).astype(np.float32)[None]
        seen.append(radiance_function(np.array(center, np.float32), direction)[0])
    np.testing.assert_allclose(seen[0], seen[1], rtol=0.02)
    turned, back = rooms.build_room(0, 30.0), np.eye(4)
    back[:3, :3] = turned.world_from_room.T
    pose = trajectories.indoor_walk_cameras(made, 4, 0)[1]
    one, two = (
        render_photo(see, at, INTRINSICS, SIZE, NEUTRAL).astype(float)
        for see, at in ((radiance_function, pose), (views(turned), pose @ back))
    )
    assert np.median(np.abs(one - two)) <= 1


def test_the_truth_holds_nothing_behind_the_walls_or_below_the_floor(folder: Path) -> None:
    """What is seen of the room lies in its shell: solids stand on floor and walls, they are not sunk into them."""
    seen = trimesh.load(folder / "truth" / "mesh.ply", process=False)
    x, y, z = seen.triangles_center.T
    hair = 1e-5
    window = (y > 1.2 - hair) & (y < 2.9 + hair) & (z > 0.9 - hair) & (z < 2.2 + hair)
    door = (x > 4.05 - hair) & (x < 4.9 + hair) & (z < 2.05 + hair)
    assert z.min() > -hair
    assert z.max() < 2.6 + hair
    assert x[~window].min() > -hair
    assert y[~door].min() > -hair
    assert np.all((x < 3.6 + hair) | (y < 3.0 + hair))
