"""The region to reconstruct: the box of well-supported points, without outliers and distant background."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.geometry.cameras import centers_world, normalize
from quoin.pipeline.geometry.lattice import BrickBox, Lattice

Array = np.ndarray


@dataclass(frozen=True)
class RegionParams:
    """Tuned numbers of finding the region to reconstruct."""

    max_point_error_px: float = 4.0  # mean reprojection error of a supported point
    isolation_neighbors: int = 8  # the distance to the point's neighbor of this rank says how isolated it is
    max_isolation_ratio: float = 12.0  # of that distance over depth, to the median; more isolated is an outlier
    background_depth_ratio: float = 3.0  # of a background point's depth to the median depth
    background_uncertainty_ratio: float = 30.0  # of a background point's depth uncertainty to the median
    # shares of the points that a side may cut off; the first on all six sides makes 0.5 %
    trim_shares: tuple[float, ...] = (0.0008, 0.002, 0.004, 0.008, 0.015, 0.03)
    lost_cell_cost: float = 10.0  # losing 1 % of all photo cells is worth a diagonal shorter by 10 %
    max_lost_share: float = 0.03  # of all photo cells that may be left without a point inside
    max_lost_photo_share: float = 0.2  # of the cells of any single photo
    min_supported_points: int = 60  # with fewer, conditions are dropped, at last all


REGION_PARAMS = RegionParams()


def observation_depths(
    cam_from_world: Float[Array, "n 3 4"],
    points_world: Float[Array, "p 3"],
    track_photo: Int[Array, "t"],
    track_point: Int[Array, "t"],
) -> Float[Array, "t"]:
    """Depth of every observation along its camera's optical axis."""
    row = cam_from_world[track_photo, 2]
    return np.einsum("ij,ij->i", row[:, :3], points_world[track_point]) + row[:, 3]


def triangulation_angles(
    cam_from_world: Float[Array, "n 3 4"],
    points_world: Float[Array, "p 3"],
    track_photo: Int[Array, "t"],
    track_point: Int[Array, "t"],
) -> Float[Array, "p"]:
    """Triangulation angle of each point, radians: twice the largest angle between one of its rays and their mean."""
    rays = normalize(centers_world(cam_from_world)[track_photo] - points_world[track_point])
    total = np.stack([np.bincount(track_point, rays[:, a], len(points_world)) for a in range(3)], axis=1)
    mean = normalize(total)
    away = np.linalg.norm(np.cross(rays, mean[track_point]), axis=1)
    angle = np.arctan2(away, np.einsum("ij,ij->i", rays, mean[track_point]))
    widest = np.zeros(len(points_world))
    np.maximum.at(widest, track_point, angle)
    return 2 * widest


@dataclass(frozen=True)
class PointStatistics:
    """SfM points, and what tells how reliable each is."""

    points_world: Float[Array, "p 3"]
    lengths: Int[Array, "p"]  # photos that observe it
    errors_px: Float[Array, "p"]  # mean reprojection error
    angles: Float[Array, "p"]  # triangulation angle, radians
    depths: Float[Array, "p"]  # in the nearest camera; 0 where it is behind all


def supported_points(
    statistics: PointStatistics, *, min_track: int, min_angle: float, max_depth: float
) -> Bool[Array, "p"]:
    """Points that are reliable enough to tell where the surface is.

    Observed by at least ``min_track`` photos, with a small error, a triangulation angle of at least ``min_angle``
    (radians), a depth of at most ``max_depth``, not background, and not isolated: the distance to a close neighbor over
    the depth is compared with its median. If too few points remain, conditions are dropped, the last one first.
    """
    depths, points_world = statistics.depths, statistics.points_world
    finite = np.isfinite(points_world).all(axis=1) & (depths > 0)
    near, wide = depths <= max_depth, statistics.angles >= min_angle
    sharp = statistics.errors_px <= REGION_PARAMS.max_point_error_px
    often = statistics.lengths >= min_track
    foreground = ~is_background(depths, statistics.angles, finite & near & wide & sharp & often)
    checks = [finite, near, foreground, wide, sharp, often]
    for last in range(len(checks), 0, -1):
        good = np.all(checks[:last], axis=0)
        if good.sum() >= REGION_PARAMS.min_supported_points:
            break
    if good.sum() <= REGION_PARAMS.isolation_neighbors:
        return good if good.any() else finite
    isolation_ratio = neighbor_distances(points_world[good]) / depths[good]
    out = good.copy()
    out[good] = isolation_ratio <= REGION_PARAMS.max_isolation_ratio * np.median(isolation_ratio)
    return out


def is_background(
    depths: Float[Array, "p"], angles: Float[Array, "p"], well_seen: Bool[Array, "p"]
) -> Bool[Array, "p"]:
    """Points beyond the scene: much farther, and much less certain, than the median of the ``well_seen`` points.

    A point at depth d with triangulation angle a is known along its rays to within d / a times the angle of a pixel. A
    wing of the building that some photos come close to, or surround, is not background; the hill behind it is, however
    many photos show it, since the lattice cannot resolve it.
    """
    if not well_seen.any():
        return np.zeros(len(depths), bool)
    uncertain = depths / np.maximum(angles, 1e-6)
    return (depths > REGION_PARAMS.background_depth_ratio * np.median(depths[well_seen])) & (
        uncertain > REGION_PARAMS.background_uncertainty_ratio * np.median(uncertain[well_seen])
    )


def neighbor_distances(points: Float[Array, "n 3"]) -> Float[Array, "n"]:
    """Distance of each point to its neighbor of rank ``isolation_neighbors``."""
    from scipy.spatial import cKDTree

    k = min(REGION_PARAMS.isolation_neighbors, len(points) - 1)
    return cKDTree(points).query(points, k=k + 1)[0][:, -1]


def region_box(
    points_world: Float[Array, "p 3"],
    observed_point: Int[Array, "t"],
    observed_cell: Int[Array, "t"],
    cell_photo: Int[Array, "c"],
    margin: float,
) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
    """Low and high corner of the region, with a margin of ``margin`` times its longest side.

    Observation i is of point ``observed_point[i]`` in photo cell ``observed_cell[i]`` (0..c-1), a cell of photo
    ``cell_photo``. The box holds 99.5 % of the points. It becomes smaller where a thin tail of points stretches it: a
    side moves inwards while log(diagonal) + lost_cell_cost · (share of photo cells without a point inside) decreases,
    within the limits of RegionParams. A flat cloud, or a single point, gets a thickness.
    """
    cuts = np.quantile(points_world, REGION_PARAMS.trim_shares, axis=0, method="closest_observation")
    ends = np.quantile(points_world, [1 - t for t in REGION_PARAMS.trim_shares], axis=0, method="closest_observation")
    sides = np.stack([cuts, ends], axis=1).reshape(len(REGION_PARAMS.trim_shares), 6)  # trim, (low xyz, high xyz)
    at = points_world[observed_point]
    n_cells, of_photo = len(cell_photo), np.bincount(cell_photo)

    def cost(choice: Array) -> float:
        box = sides[choice, np.arange(6)]
        inside = np.all((at >= box[:3]) & (at <= box[3:]), axis=1)
        lost = np.bincount(observed_cell[inside], minlength=n_cells) == 0
        of_each = np.bincount(cell_photo[lost], minlength=len(of_photo))
        if choice.any() and (
            lost.mean() > REGION_PARAMS.max_lost_share
            or (of_each > REGION_PARAMS.max_lost_photo_share * of_photo).any()
        ):
            return np.inf
        return float(np.log(np.linalg.norm(box[3:] - box[:3]) + 1e-12) + REGION_PARAMS.lost_cell_cost * lost.mean())

    choice = np.zeros(6, int)
    best, before = cost(choice), np.inf
    while best < before:
        before = best
        for side, trim in product(range(6), range(len(REGION_PARAMS.trim_shares))):
            trial = choice.copy()
            trial[side] = trim
            if (trial_cost := cost(trial)) < best:
                choice, best = trial, trial_cost
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
    """The lattice, and the box of whole bricks around the region, centered on it; the first brick is at its low corner.

    The origin is a multiple of the voxel size, so that runs over the same region sample the same points.
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
