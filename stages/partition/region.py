"""The part of the world to reconstruct: where well-supported points are, strays and far background left out."""

from __future__ import annotations

from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.geometry.rays import normalize

Array = np.ndarray

MAX_POINT_ERROR_PX = 4.0  # a point with a larger mean reprojection error supports nothing
ISOLATION_NEIGHBORS = 8
MAX_ISOLATION_RATIO = (
    12.0  # a point this many times further from its neighbours than usual, for its distance, is a stray
)
BACKGROUND_DEPTH_RATIO, BACKGROUND_UNCERTAINTY_RATIO = (
    3.0,
    30.0,
)  # background is so many times further than the median point, and so many times less certain
TRIM_SHARES = (
    0.0008,
    0.002,
    0.004,
    0.008,
    0.015,
    0.03,
)  # shares of the points a side may cut off; the first: 0.5 % in all
LOST_CELL_COST = 10.0  # one per cent of all pictures is worth a region smaller by a tenth
MAX_LOST_SHARE = 0.03  # share of all picture cells that may be left without a point inside
MAX_LOST_PHOTO_SHARE = 0.2  # and of those of any one photo
MIN_SUPPORTED_POINTS = 60  # with fewer supported points than this, all points are taken


def observation_depths(
    cam_from_world: Float[Array, "n 3 4"],
    points_world: Float[Array, "p 3"],
    track_photo: Int[Array, "t"],
    track_point: Int[Array, "t"],
) -> Float[Array, "t"]:
    """Depth of every observation along its camera's axis."""
    row = cam_from_world[track_photo, 2]
    return np.einsum("ij,ij->i", row[:, :3], points_world[track_point]) + row[:, 3]


def triangulation_angles(
    cam_from_world: Float[Array, "n 3 4"],
    points_world: Float[Array, "p 3"],
    track_photo: Int[Array, "t"],
    track_point: Int[Array, "t"],
) -> Float[Array, "p"]:
    """Angle (radians) under which each point is seen: twice the widest deviation of a ray from the mean direction."""
    rays = normalize(centers_world(cam_from_world)[track_photo] - points_world[track_point])
    total = np.stack([np.bincount(track_point, rays[:, a], len(points_world)) for a in range(3)], axis=1)
    mean = normalize(total)
    away = np.linalg.norm(np.cross(rays, mean[track_point]), axis=1)
    angle = np.arctan2(away, np.einsum("ij,ij->i", rays, mean[track_point]))
    widest = np.zeros(len(points_world))
    np.maximum.at(widest, track_point, angle)
    return 2 * widest


def supported_points(
    lengths: Int[Array, "p"],
    errors_px: Float[Array, "p"],
    angles: Float[Array, "p"],
    depths: Float[Array, "p"],
    points_world: Float[Array, "p 3"],
    *,
    min_track: int,
    min_angle: float,
    max_depth: float,
) -> Bool[Array, "p"]:
    """Points that say something about the surface.

    Seen often enough (``lengths`` photos), sharply enough (``errors_px``), under a wide enough angle (radians), from
    near enough (``depths``: that of the nearest camera), no ``is_background``, and not alone: the distance to the
    ISOLATION_NEIGHBORS-th next point, divided by the depth, is not MAX_ISOLATION_RATIO times the median. Where too few
    points would stay, conditions are dropped, the last one first.
    """
    finite = np.isfinite(points_world).all(axis=1) & (depths > 0)
    near, wide, sharp, often = (
        depths <= max_depth,
        angles >= min_angle,
        errors_px <= MAX_POINT_ERROR_PX,
        lengths >= min_track,
    )
    here = ~is_background(depths, angles, finite & near & wide & sharp & often)
    checks = [finite, near, here, wide, sharp, often]
    for last in range(len(checks), 0, -1):
        good = np.all(checks[:last], axis=0)
        if good.sum() >= MIN_SUPPORTED_POINTS:
            break
    if good.sum() <= ISOLATION_NEIGHBORS:
        return good if good.any() else finite
    isolation_ratio = neighbor_distances(points_world[good]) / depths[good]
    out = good.copy()
    out[good] = isolation_ratio <= MAX_ISOLATION_RATIO * np.median(isolation_ratio)
    return out


def is_background(
    depths: Float[Array, "p"], angles: Float[Array, "p"], well_seen: Bool[Array, "p"]
) -> Bool[Array, "p"]:
    """Points beyond the scene: BACKGROUND_DEPTH_RATIO times further than the median of the ``well_seen``, and
    BACKGROUND_UNCERTAINTY_RATIO times less certain.

    A point at depth d that is seen under the angle a is known along its rays to d / a times the angle of a pixel. A
    wing of the building that some photos come near to, or see from all around, is no background; the hill behind it
    is, however many photos show it: on the scene's lattice it has nothing to say.
    """
    if not well_seen.any():
        return np.zeros(len(depths), bool)
    uncertain = depths / np.maximum(angles, 1e-6)
    return (depths > BACKGROUND_DEPTH_RATIO * np.median(depths[well_seen])) & (
        uncertain > BACKGROUND_UNCERTAINTY_RATIO * np.median(uncertain[well_seen])
    )


def neighbor_distances(points: Float[Array, "n 3"]) -> Float[Array, "n"]:
    """Distance of each point to its ISOLATION_NEIGHBORS-th nearest other point."""
    from scipy.spatial import cKDTree

    k = min(ISOLATION_NEIGHBORS, len(points) - 1)
    return cKDTree(points).query(points, k=k + 1)[0][:, -1]


def region_box(
    points_world: Float[Array, "p 3"],
    observed_point: Int[Array, "t"],
    observed_cell: Int[Array, "t"],
    cell_photo: Int[Array, "c"],
    margin: float,
) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
    """Low and high corner of the region, with ``margin`` (share of its longest side) to spare.

    ``observed_point``, ``observed_cell``: the point and the picture cell (0..c-1, of photo ``cell_photo``) of
    observations. The box holds 99.5 % of the points, unless a thin tail of them stretches it: content outside the
    region costs the photos that show it, so a side moves inwards only where log(diagonal) + LOST_CELL_COST * (share of
    picture cells left without a point inside) falls, and within the limits below. A flat or single-point cloud gets a
    thickness.
    """
    cuts = np.quantile(points_world, TRIM_SHARES, axis=0, method="closest_observation")
    ends = np.quantile(points_world, [1 - t for t in TRIM_SHARES], axis=0, method="closest_observation")
    sides = np.stack([cuts, ends], axis=1).reshape(len(TRIM_SHARES), 6)  # trim, (low xyz, high xyz)
    at = points_world[observed_point]
    n_cells, of_photo = len(cell_photo), np.bincount(cell_photo)

    def cost(choice: Array) -> float:
        box = sides[choice, np.arange(6)]
        inside = np.all((at >= box[:3]) & (at <= box[3:]), axis=1)
        lost = np.bincount(observed_cell[inside], minlength=n_cells) == 0
        of_each = np.bincount(cell_photo[lost], minlength=len(of_photo))
        if choice.any() and (lost.mean() > MAX_LOST_SHARE or (of_each > MAX_LOST_PHOTO_SHARE * of_photo).any()):
            return np.inf
        return float(np.log(np.linalg.norm(box[3:] - box[:3]) + 1e-12) + LOST_CELL_COST * lost.mean())

    choice = np.zeros(6, int)
    best, before = cost(choice), np.inf
    while best < before:
        before = best
        for side, trim in product(range(6), range(len(TRIM_SHARES))):
            trial = choice.copy()
            trial[side] = trim
            if (found := cost(trial)) < best:
                choice, best = trial, found
    box = sides[choice, np.arange(6)]
    low, high = box[:3], box[3:]
    longest = float((high - low).max())
    if longest == 0:
        longest = max(1e-3, 1e-3 * float(np.abs(low).max()))
    pad = max(margin, 0.01) * longest
    return low - pad, high + pad


def lattice_around(
    low_world: Float[Array, "3"], high_world: Float[Array, "3"], voxel_size_m: float, brick_size: int
) -> tuple[Lattice, BrickBox]:
    """The lattice whose first brick begins at the box of whole bricks around the region, that box in its middle.

    Origins are multiples of the voxel size, so that runs over the same region sample the same points.
    """
    side = high_world - low_world
    bricks = np.maximum(np.ceil(side / (voxel_size_m * brick_size) - 1e-6), 1).astype(int)
    spare = bricks * brick_size * voxel_size_m - side
    origin = np.round((low_world - spare / 2) / voxel_size_m) * voxel_size_m
    nx, ny, nz = bricks.tolist()
    return Lattice(tuple(origin.tolist()), voxel_size_m, brick_size), BrickBox((0, 0, 0), (nx, ny, nz))


def voxel_size(
    low_world: Float[Array, "3"], high_world: Float[Array, "3"], gsd_m: float, *, resolution: int, gsd_factor: float
) -> float:
    """Voxel size for ``resolution`` samples along the longest side, but no finer than ``gsd_factor`` pixels."""
    return max(float((high_world - low_world).max()) / resolution, gsd_factor * gsd_m)
