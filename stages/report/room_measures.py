"""Measurements of rooms: heights, areas, walls, their flatness and the angles of corners.

All of it is measured on the surface, at points drawn evenly over it. Floors face up, ceilings down; walls face
the directions that the scene's lines gave (``pipeline.scene.manhattan``) and reach the ceiling,
which wardrobes rarely do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from quoin.pipeline.geometry.planes import detect_planes
from quoin.stages.report.facts import IndoorFacts, PlaneFacts, RoomFacts

Array = np.ndarray
UP = np.array([0.0, 0.0, 1.0])
CELL_HEIGHT_SHARE = 0.02  # of the height: 5 cm in a room of 2.5 m
SAMPLES_PER_CELL = 8  # points drawn on a square cell of surface
MAX_SURFACE_SAMPLES = 3_000_000
MIN_CAMERA_SHARE = 0.8  # of the cameras stand between floor and ceiling
MIN_CEILING_SHARE = 0.25  # of the floor's area that a ceiling has at least
DOOR_TOP_SHARE = 0.85  # of the height: above it walls have no openings, so that rooms are separate there
MAX_WALL_SHARE = 0.97
MIN_ROOM_SIDE_SHARE = 0.4  # of the height: less is a niche
MIN_FLOOR_SHARE = 0.3  # of a room in which no camera stands
MIN_WALL_AREA_SHARE = 0.15  # of the square of the height
MAX_CORNER_GAP_CELLS = 4.0  # within which two walls meet
MIN_FACING_COSINE = np.cos(np.radians(20.0))  # least cosine with a direction of what faces it


@dataclass(frozen=True)
class SurfaceSamples:
    """Points drawn evenly over a surface in the world frame, z up, and the unit normals there; the area of each."""

    points: Float[Array, "n 3"]
    normals: Float[Array, "n 3"]
    area_m2: float


@dataclass(frozen=True)
class StoreyLevels:
    """Heights of floor and ceiling, and the cell size of all measurements, in the world frame."""

    floor: float
    ceiling: float

    @property
    def height(self) -> float:
        return self.ceiling - self.floor

    @property
    def cell(self) -> float:
        return CELL_HEIGHT_SHARE * self.height


@dataclass(frozen=True)
class WallSegment:
    """A wall from above: its two ends, the fitted normal, and its facts."""

    ends_world: Float[Array, "2 2"]
    normal: Float[Array, "3"]
    facts: PlaneFacts


@dataclass(frozen=True)
class FloorPlan:
    """Measurements of a storey: facts for the page; walls and furniture for the drawing."""

    facts: IndoorFacts
    walls: list[WallSegment]
    axes: Float[Array, "2 3"]  # horizontal, orthogonal: to the right and up on the page
    furniture_world: Float[Array, "m 3"]  # points between knee and head


def measure_storey(
    vertices_world: Float[Array, "v 3"],
    faces: Int[Array, "f 3"],
    centers_world: Float[Array, "k 3"],
    wall_normals_world: Float[Array, "d 3"],
) -> FloorPlan | None:
    """Measure the storey that the cameras stand in; None where no floor and ceiling enclose them.

    ``wall_normals_world``: level unit vectors that walls face, either way, the strongest first.
    """
    eye = float(np.median(centers_world[:, 2]))
    levels = _floor_and_ceiling(vertices_world, faces, centers_world)
    if levels is None or not levels.floor < eye < levels.ceiling:
        return None
    sample = sample_surface(vertices_world, faces, levels.cell)
    walls = _walls(sample, wall_normals_world, levels)
    right = wall_normals_world[0] * (np.sign(wall_normals_world[0] @ [1.0, 0.7, 0.0]) or 1.0)
    axes = np.stack([right, np.cross(UP, right)])
    rooms = _rooms(sample, axes, centers_world, walls, levels)
    heights = (("floor", levels.floor), ("ceiling", levels.ceiling))
    planes = [_level_plane(sample, name, z, levels.cell) for name, z in heights]
    angles = _corner_angles_deg(walls, levels.cell)
    above_floor = (sample.points[:, 2] - levels.floor) / levels.height
    facts = IndoorFacts(
        height_m=levels.height,
        area_m2=sum(room.area_m2 for room in rooms),
        rooms=rooms,
        planes=[*planes, *(wall.facts for wall in walls)],
        n_corners=len(angles),
        corner_error_deg=float(np.median(np.abs(angles - 90.0))) if len(angles) else None,
        corner_error_max_deg=float(np.abs(angles - 90.0).max()) if len(angles) else None,
    )
    return FloorPlan(facts, walls, axes, sample.points[(above_floor > 0.15) & (above_floor < 0.6)])


def sample_surface(vertices_world: Float[Array, "v 3"], faces: Int[Array, "f 3"], cell: float) -> SurfaceSamples:
    """SAMPLES_PER_CELL points for every square cell of surface, by area; always the same ones."""
    a, b, c = (vertices_world[faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    twice = np.linalg.norm(cross, axis=1)
    ends = np.cumsum(twice / 2)
    n = int(np.clip(SAMPLES_PER_CELL * ends[-1] / cell**2, 1, MAX_SURFACE_SAMPLES))
    rng = np.random.default_rng(0)
    face = np.searchsorted(ends, (np.arange(n) + rng.random(n)) * (ends[-1] / n)).clip(max=len(faces) - 1)
    u, v = rng.random((2, n, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    points = a[face] + u * (b - a)[face] + v * (c - a)[face]
    return SurfaceSamples(points, cross[face] / np.maximum(twice[face], 1e-30)[:, None], float(ends[-1] / n))


def _floor_and_ceiling(
    vertices_world: Float[Array, "v 3"], faces: Int[Array, "f 3"], centers_world: Float[Array, "k 3"]
) -> StoreyLevels | None:
    """Floor and ceiling: the largest level areas below most cameras facing up, and above them facing down."""
    if not len(faces):
        return None
    low, high = np.percentile(vertices_world[:, 2], [0.5, 99.5])
    if high <= low:
        return None
    cell = CELL_HEIGHT_SHARE * float(high - low)
    sample = sample_surface(vertices_world, faces, 2 * cell)
    weight = np.full(len(sample.points), sample.area_m2)
    planes_found = detect_planes(np.stack([UP, -UP]), sample.points, sample.normals, weight, cell, 1e-9)
    z = planes_found.offset * planes_found.normal[:, 2]
    faces_up = planes_found.normal[:, 2] > 0
    below = (centers_world[:, 2, None] > z).mean(axis=0)
    floors, ceilings = (
        np.flatnonzero(faces_up & (below >= MIN_CAMERA_SHARE)),
        np.flatnonzero(~faces_up & (below <= 1 - MIN_CAMERA_SHARE)),
    )
    if not len(floors) or not len(ceilings):
        return None
    floor, ceiling = (is_inlier[np.argmax(planes_found.support[is_inlier])] for is_inlier in (floors, ceilings))
    if planes_found.support[ceiling] < MIN_CEILING_SHARE * planes_found.support[floor]:
        return None
    return StoreyLevels(float(z[floor]), float(z[ceiling]))


def _level_plane(sample: SurfaceSamples, name: str, z: float, cell: float) -> PlaneFacts:
    facing = sample.normals[:, 2] * (1 if name == "floor" else -1) > MIN_FACING_COSINE
    is_inlier = facing & (np.abs(sample.points[:, 2] - z) < cell)
    normal, residual_m = fit_plane(sample.points[is_inlier])
    tilt = np.degrees(np.arccos(min(1.0, abs(float(normal[2])))))
    return PlaneFacts(
        what=name,
        area_m2=float(is_inlier.sum() * sample.area_m2),
        residual_m=residual_m,
        tilt_deg=float(tilt),
        length_m=None,
    )


def fit_plane(points: Float[Array, "n 3"]) -> tuple[Float[Array, "3"], float]:
    """The normal of the plane through points by least squares, and the median distance of the points from it."""
    if len(points) < 3:
        return UP, 0.0
    center = points.mean(axis=0)
    normal = np.linalg.eigh((points - center).T @ (points - center))[1][:, 0]
    return normal, float(np.median(np.abs((points - center) @ normal)))


def _walls(sample: SurfaceSamples, normals_world: Float[Array, "d 3"], levels: StoreyLevels) -> list[WallSegment]:
    """Vertical planes that face one of the directions, either way, and reach the ceiling."""
    height, cell = levels.height, levels.cell
    share = (sample.points[:, 2] - levels.floor) / height
    storey = (share > 0.02) & (share < 0.98)
    points, normals, share = sample.points[storey], sample.normals[storey], share[storey]
    high = share > 0.7
    weight = np.full(high.sum(), sample.area_m2)
    directions = np.concatenate([normals_world, -normals_world])
    planes_found = detect_planes(
        directions, points[high], normals[high], weight, cell, 0.3 * MIN_WALL_AREA_SHARE * height**2
    )
    walls = []
    for direction, offset in zip(planes_found.normal, planes_found.offset, strict=True):
        is_inlier = (np.abs(points @ direction - offset) < cell) & (normals @ direction > MIN_FACING_COSINE)
        area = float(is_inlier.sum() * sample.area_m2)
        if area < MIN_WALL_AREA_SHARE * height**2:
            continue
        normal, residual_m = fit_plane(points[is_inlier])
        along = np.cross(UP, direction)
        reach = points[is_inlier & high] @ along
        ends = np.percentile(reach, [0.5, 99.5])
        facts = PlaneFacts(
            what="wall",
            area_m2=area,
            residual_m=residual_m,
            tilt_deg=float(np.degrees(np.arcsin(min(1.0, abs(float(normal[2])))))),
            length_m=float(ends[1] - ends[0]),
        )
        ends_world = offset * direction[:2] + ends[:, None] * along[:2]
        walls.append(WallSegment(ends_world, normal * np.sign(normal @ direction), facts))
    return sorted(walls, key=lambda wall: -wall.facts.area_m2)


def _corner_angles_deg(walls: list[WallSegment], cell: float) -> Float[Array, "c"]:
    """Angles in degrees between the fitted walls, of all pairs that meet at nearly a right angle."""
    angles = []
    for i, first_wall in enumerate(walls):
        for second_wall in walls[:i]:
            gap = min(
                _segment_distance(first_wall.ends_world, second_wall.ends_world),
                _segment_distance(second_wall.ends_world, first_wall.ends_world),
            )
            level = [wall.normal[:2] / np.linalg.norm(wall.normal[:2]) for wall in (first_wall, second_wall)]
            angle = float(np.degrees(np.arccos(np.clip(level[0] @ level[1], -1, 1))))
            if gap < MAX_CORNER_GAP_CELLS * cell and abs(angle - 90) < 20:
                angles.append(angle)
    return np.array(angles)


def _segment_distance(points: Float[Array, "n 2"], ends: Float[Array, "2 2"]) -> float:
    """The smallest distance of points from the segment between two ends."""
    along = ends[1] - ends[0]
    share = ((points - ends[0]) @ along / max(along @ along, 1e-12)).clip(0, 1)
    return float(np.linalg.norm(ends[0] + share[:, None] * along - points, axis=1).min())


def _rooms(
    sample: SurfaceSamples,
    axes: Float[Array, "2 3"],
    centers_world: Float[Array, "k 3"],
    walls: list[WallSegment],
    levels: StoreyLevels,
) -> list[RoomFacts]:
    """Areas that walls above door height separate and that have a floor or a camera, the largest first."""
    floor, ceiling, cell = levels.floor, levels.ceiling, levels.cell
    z, level = sample.points[:, 2], sample.points @ axes.T
    share = (z - floor) / (ceiling - floor)
    flat = np.abs(sample.normals[:, 2]) > MIN_FACING_COSINE
    upright = np.abs(sample.normals[:, 2]) < np.sqrt(1 - MIN_FACING_COSINE**2)
    low = level.min(axis=0) - 2 * cell
    size = np.ceil((level.max(axis=0) + 2 * cell - low) / cell).astype(int)
    below, above, is_wall = (
        _occupied_cells(level[is_inlier], low, size, cell)
        for is_inlier in (
            flat & (np.abs(z - floor) < cell),
            flat & (np.abs(z - ceiling) < cell),
            upright & (share > DOOR_TOP_SHARE) & (share < MAX_WALL_SHARE),
        )
    )
    interior = ndimage.binary_closing(np.pad(below | above | is_wall, 3), iterations=3)[3:-3, 3:-3]
    interior = ndimage.binary_fill_holes(interior)  # areas between walls that no photo shows
    places, _ = ndimage.label(interior & ~is_wall)
    camera_cells = np.floor((centers_world @ axes.T - low) / cell).astype(int).clip(0, size - 1)
    below[camera_cells[:, 0], camera_cells[:, 1]] = True
    rooms = []
    for number in 1 + np.flatnonzero(np.bincount(places.ravel())[1:] >= (MIN_ROOM_SIDE_SHARE / CELL_HEIGHT_SHARE) ** 2):
        place = places == number
        if not below[place].any() or (
            below[place].mean() < MIN_FLOOR_SHARE and not place[camera_cells[:, 0], camera_cells[:, 1]].any()
        ):
            continue
        place = ndimage.binary_dilation(place, iterations=2, mask=interior)  # adds the cells that walls covered
        spans = [_span(place.sum(axis=1 - k)) for k in range(2)]
        box = low + cell * np.array(spans).T
        length, width = np.sort(np.ptp(_snap_to_walls(box, axes, walls, 4 * cell), axis=0))[::-1]
        filled = place[slice(*spans[0]), slice(*spans[1])].mean()
        middle = low + cell * (np.argwhere(place).mean(axis=0) + 0.5)
        room = RoomFacts(
            area_m2=float(filled * length * width),
            length_m=float(length),
            width_m=float(width),
            center_world=(middle @ axes)[:2].tolist(),
        )
        rooms.append(room)
    return sorted(rooms, key=lambda room: -room.area_m2)


def _span(profile: Int[Array, "n"]) -> tuple[int, int]:
    """First and one past the last cell where a room is at least a fifth as wide as at its widest."""
    wide = np.flatnonzero(profile >= 0.2 * profile.max())
    return int(wide[0]), int(wide[-1]) + 1


def _occupied_cells(
    level: Float[Array, "n 2"], low: Float[Array, "2"], size: Int[Array, "2"], cell: float
) -> Bool[Array, "x y"]:
    """Mask of the cells with at least a quarter of the points of a full horizontal cell."""
    index = np.floor((level - low) / cell).astype(int)
    index = index[((index >= 0) & (index < size)).all(axis=1)]
    count = np.bincount(index[:, 0] * size[1] + index[:, 1], minlength=size[0] * size[1])
    return count.reshape(size) >= SAMPLES_PER_CELL / 4


def _snap_to_walls(
    box: Float[Array, "2 2"], axes: Float[Array, "2 3"], walls: list[WallSegment], max_distance: float
) -> Float[Array, "2 2"]:
    """The box [low and high, axis], its sides at walls that face into it within ``max_distance``, where there are
    such."""
    out = box.copy()
    for k, axis in enumerate(axes):
        for side, inwards in enumerate((axis, -axis)):
            facing = [wall for wall in walls if wall.normal @ inwards > np.cos(np.radians(10.0))]
            at = np.array([float(wall.ends_world.mean(axis=0) @ axis[:2]) for wall in facing])
            if len(at) and np.abs(at - box[side, k]).min() < max_distance:
                out[side, k] = at[np.abs(at - box[side, k]).argmin()]
    return out
