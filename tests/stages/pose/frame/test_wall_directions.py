"""Up and directions of walls from the lines of made-up rooms, turned anyhow, with noise and clutter."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from quoin.pipeline.geometry.similarity import Similarity
from quoin.pipeline.scene.manhattan import ManhattanFrame, read_manhattan_frame
from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.sparse_model import SparseModel
from quoin.stages.pose.frame.lines import Lines, find_segments, lines_from_segments
from quoin.stages.pose.frame.wall_directions import find_walls, gravity_from_walls, refine_gravity
from quoin.stages.pose.frame.world_frame import Gravity, gravity_from_cameras
from quoin.stages.pose.output import choose_frame, store_frame
from tests.stages.pose.wireframe import INTRINSICS, SIZE, box, cameras_inside, polygon, prism, seen, strewn

N = 40


def turn(rng: np.random.Generator) -> np.ndarray:
    q = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return q * np.sign(np.linalg.det(q))


def angle_deg(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))


def looked_at(room: np.ndarray, rng: np.random.Generator, tilt_deg: float = 3.0) -> tuple[Lines, Gravity, np.ndarray]:
    """Lines of a room in a frame turned anyhow, what the cameras say is up, and the turn."""
    poses, rotation = cameras_inside(N, rng, tilt_deg=tilt_deg), turn(rng)
    segments = [seen(room, pose, rng) if len(room) else strewn(100, rng) for pose in poses]
    turned = Similarity(1.0, rotation, np.zeros(3)).apply_to_poses(poses)
    lines = lines_from_segments(segments, np.tile(INTRINSICS, (N, 1)), turned[:, :, :3])
    return lines, gravity_from_cameras(turned), rotation


def solve(
    room: np.ndarray, rng: np.random.Generator, tilt_deg: float = 3.0
) -> tuple[ManhattanFrame, Gravity, np.ndarray]:
    """The frame of walls turned back into the room's own frame, gravity with it, and the turn."""
    lines, gravity, rotation = looked_at(room, rng, tilt_deg)
    upright = refine_gravity(lines, gravity)
    walls = find_walls(lines, upright)
    return walls.rotated(rotation.T), gravity_from_walls(upright, walls), rotation


def yaws_off_deg(found: ManhattanFrame, truth_deg: list[float]) -> float:
    """The farthest a wall direction is from the nearest true one, or a true one from the nearest found."""
    x = np.eye(3)[0] - found.up_world[0] * found.up_world
    y = np.cross(found.up_world, x)
    yaws_deg = np.degrees(np.arctan2(found.normals_world @ y, found.normals_world @ x))
    off = np.abs((yaws_deg[:, None] - np.array(truth_deg) + 90) % 180 - 90)
    return float(max(off.min(axis=0).max(), off.min(axis=1).max()))


def test_fifty_boxes_turned_anyhow() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        walls, gravity, rotation = solve(prism(box(rng), rng), rng, tilt_deg=rng.uniform(0, 8))
        assert walls.reason == "", seed
        assert len(walls.normals_world) == 2
        assert walls.confidence > 0.7
        assert angle_deg(walls.up_world, np.array([0.0, 0, 1])) < 0.5
        assert yaws_off_deg(walls, [0.0, 90.0]) < 0.5
        assert abs(walls.normals_world[0] @ walls.normals_world[1]) < 1e-9
        assert np.abs(walls.normals_world @ walls.up_world).max() < 1e-9
        assert angle_deg(gravity.up, rotation[:, 2]) < 0.5
        assert gravity.confidence > 0.9


@pytest.mark.parametrize("sides", [6, 8])
def test_rooms_with_walls_in_more_directions(sides: int) -> None:
    """Eight corners: walls 45 degrees apart, which yaw modulo 90 could not tell from a box."""
    for seed in range(2):
        rng = np.random.default_rng(seed)
        walls, _, _ = solve(prism(polygon(sides), rng, doors=2), rng)
        assert len(walls.normals_world) == sides // 2
        assert yaws_off_deg(walls, [360 * i / sides for i in range(sides // 2)]) < 0.5


def test_one_facade_has_one_direction() -> None:
    rng = np.random.default_rng(0)
    room = prism(box(rng), rng)
    facade = room[np.abs(room[:, 0, 1] - room[:, 1, 1]) < 1e-9]
    walls, _, _ = solve(facade, rng)
    assert yaws_off_deg(walls, [90.0]) < 0.5
    assert len(walls.normals_world) == 1


@pytest.mark.parametrize("kind", ["round", "round with doors", "strewn"])
def test_no_frame_where_there_is_none(kind: str) -> None:
    for seed in range(2):
        rng = np.random.default_rng(seed)
        sides, doors = (120, 0) if kind == "round" else (40, 1)
        room = np.zeros((0, 2, 3)) if kind == "strewn" else prism(polygon(sides), rng, doors=doors)
        walls, gravity, rotation = solve(room, rng)
        assert len(walls.normals_world) == 0
        assert walls.confidence < 0.5
        assert walls.summary().startswith("no main directions of walls found: ")
        if kind != "strewn":  # upright lines still tell up
            assert angle_deg(gravity.up, rotation[:, 2]) < 0.1


def test_upright_trunks_and_branches_tell_up_but_no_walls() -> None:
    """A wood: trunks lean by some degrees, branches go anywhere."""
    rng = np.random.default_rng(1)
    feet = np.column_stack([rng.uniform(-8, 8, (120, 2)), np.zeros(120)])
    feet = feet[np.linalg.norm(feet[:, :2], axis=1) > 2]
    trunks = np.stack([feet, feet + [0, 0, 5] + rng.normal(0, 0.15, feet.shape)], axis=1)
    start = feet[rng.integers(0, len(feet), 300)] + np.column_stack([np.zeros((300, 2)), rng.uniform(1, 5, 300)])
    branches = np.stack([start, start + rng.normal(0, 0.7, start.shape)], axis=1)
    walls, gravity, rotation = solve(np.concatenate([trunks, branches]), rng)
    assert len(walls.normals_world) == 0
    assert angle_deg(gravity.up, rotation[:, 2]) < 1.5


def test_without_up_there_is_no_frame() -> None:
    rng = np.random.default_rng(0)
    lines, gravity, _ = looked_at(prism(box(rng), rng), rng)
    unknown = refine_gravity(lines, Gravity(gravity.up, 0.1))
    assert unknown.gravity.confidence == 0.1
    assert "not known" in find_walls(lines, unknown).reason
    nothing = lines_from_segments([np.zeros((0, 2, 2))] * 3, np.tile(INTRINSICS, (3, 1)), np.tile(np.eye(3), (3, 1, 1)))
    assert "hardly any" in find_walls(nothing, refine_gravity(nothing, Gravity(np.array([0, 0, 1.0]), 1.0))).reason


def test_from_pictures_to_walls() -> None:
    """Doors and walls as filled shapes seen by cameras, found by the detector."""
    rng = np.random.default_rng(3)
    poses, rotation = cameras_inside(12, rng), turn(rng)
    room = prism(box(rng), rng, doors=4)
    segments = [find_segments(wires(room, pose, rng), np.ones(SIZE[::-1], bool)) for pose in poses]
    turned = Similarity(1.0, rotation, np.zeros(3)).apply_to_poses(poses)
    lines = lines_from_segments(segments, np.tile(INTRINSICS, (12, 1)), turned[:, :, :3])
    walls = find_walls(lines, refine_gravity(lines, gravity_from_cameras(turned))).rotated(rotation.T)
    assert yaws_off_deg(walls, [0.0, 90.0]) < 0.2
    assert angle_deg(walls.up_world, np.array([0.0, 0, 1])) < 0.2


def wires(room: np.ndarray, pose: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture of the lines, five pixels wide, drawn four times as large and averaged."""
    image = Image.new("L", tuple(4 * SIZE), 120)
    draw = ImageDraw.Draw(image)
    for ends in seen(room, pose, rng, noise_px=0.0, clutter=0.3):
        draw.line([tuple(4 * end) for end in ends], fill=int(rng.integers(0, 70)), width=20)
    gray = np.asarray(image.resize(tuple(SIZE), Image.Resampling.BOX), float) + rng.normal(0, 2, SIZE[::-1])
    return np.repeat(np.clip(gray, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("given", [False, True])
def test_the_stored_world_stands_upright_and_square(tmp_path: Path, given: bool) -> None:
    """Where the cameras are given, it is the given world, and the walls are turned in it."""
    rng = np.random.default_rng(5)
    poses, rotation = cameras_inside(N, rng, tilt_deg=6.0), turn(rng)
    room = prism(box(rng), rng)
    sfm = Similarity(1.0, rotation, np.zeros(3)).apply_to_poses(poses)
    lines = lines_from_segments([seen(room, p, rng) for p in poses], np.tile(INTRINSICS, (N, 1)), sfm[:, :, :3])
    photo = PhotoRow("a.jpg", "/a.jpg")
    camera = Camera("PINHOLE", *SIZE.tolist(), tuple(INTRINSICS))
    none = np.zeros(0, np.int64)
    model = SparseModel(
        np.arange(N), sfm, np.zeros(N, int), [camera], room[:, 0] @ rotation.T,
        np.zeros((len(room), 3), np.uint8), np.zeros(len(room) + 1, np.int64), none, np.zeros((0, 2)),
    )  # fmt: skip
    run = Run.create(tmp_path / "run", photos=tmp_path, settings={}, seed=0)
    frame = choose_frame([photo] * N, model, lines, None, run.seed, keep_frame=given)
    store_frame(run, frame, is_metric=False)
    world_from_sfm, gravity, geo, walls, _ = frame
    assert geo is None
    assert gravity.confidence > 0.9
    up, axes = (rotation[:, 2], rotation[:, :2].T) if given else (np.array([0.0, 0, 1]), np.eye(3)[:2])
    assert angle_deg(walls.up_world, up) < 0.5
    assert np.abs(np.abs(walls.normals_world @ axes.T).max(axis=1) - 1).max() < 1e-4
    assert (world_from_sfm.matrix() == np.eye(4)).all() == given
    stored = read_manhattan_frame(run)
    assert stored is not None
    assert np.array_equal(stored.normals_world, walls.normals_world)
    if not given:
        assert angle_deg(world_from_sfm.rotation @ rotation[:, 2], up) < 0.5
