"""Sensor depth of the undistorted photos, and the scale of the SfM frame by it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.core.workers import thread_map
from quoin.pipeline.geometry.cameras import is_in_image, pixel_grid, project, to_camera, unproject
from quoin.pipeline.geometry.similarity import robust_sigma
from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.pipeline.scene.posed_images import PYRAMID_LEVELS, Posed
from quoin.pipeline.scene.sensor_depth import (
    SIGMA_PER_M,
    DepthCamera,
    SensorDepth,
    SensorPoints,
    load_upright_depth,
    read_depth_camera,
    read_sensor_depth,
    write_sensor_depth,
)
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.sparse_model import SparseModel
from quoin.stages.pose.undistortion import PinholeCamera
from quoin.stages.pose.workspace import Workspace

Array = np.ndarray


@dataclass(frozen=True)
class SensorParams:
    """How sensor depth is compared with SfM points and other depth maps."""

    max_slope: float = 5.7  # tangent of the angle between normal and ray, 80 degrees
    min_scale_points: int = 8  # SfM points on a depth map, from which on it tells the scale
    max_sensor_points: int = 50_000  # points kept of all depth maps
    max_sensor_points_per_photo: int = 400  # points kept of one depth map
    same_point_depth_tolerance: float = 0.03  # of the depth, up to which two photos measured one point
    scale_tolerance: float = 0.03  # relative difference of two scales, up to which nothing is reported
    depth_tolerance: float = 0.05  # median relative difference between depth maps and points, likewise


SENSOR = SensorParams()


def remove_depth_edges(depth_m: Float[Array, "h w"], focal_px: float) -> Float[Array, "h w"]:
    """Depth map without the pixels on either side of a jump that noise and the steepest surface do not explain.

    Sensors mix near and far there, and where surfaces are seen at a grazing angle.
    """
    bad = np.zeros(depth_m.shape, bool)
    for slice_a, slice_b in (
        ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
    ):
        a, b = depth_m[slice_a], depth_m[slice_b]
        nearer = np.minimum(a, b)
        jump = (nearer > 0) & (
            np.abs(a - b) > SENSOR.max_slope * nearer / focal_px + 3 * np.sqrt(2) * SIGMA_PER_M * nearer**2
        )
        bad[slice_a] |= jump
        bad[slice_b] |= jump
    return np.where(bad, 0.0, depth_m)


def matching_pyramid_level(pinhole_focal_px: float, depth_focal_px: float) -> int:
    """The first pyramid level whose pixels are no finer than the sensor's."""
    finer = np.log2(max(pinhole_focal_px / depth_focal_px, 1e-9)) - 0.1  # up to 7 % finer counts as equal
    return int(np.clip(np.ceil(finer), 0, PYRAMID_LEVELS - 1))


def undistort_depth(
    depth_m: Float[Array, "h w"], camera: Camera, pinhole: PinholeCamera, level: int
) -> Float[Array, "h2 w2"]:
    """The depth map of the photo's own ``camera``, at any resolution, for the undistorted photo at ``level``.

    Nearest pixels, so that depths on two sides of an edge are not mixed.
    """
    width, height = pinhole.width >> level, pinhole.height >> level
    ideal = (pixel_grid(width, height) * 2**level - pinhole.intrinsics[2:]) / pinhole.intrinsics[:2]
    size = np.array(depth_m.shape[::-1])
    at = np.floor(camera.img_from_cam(ideal) / (camera.width, camera.height) * size).astype(np.int64)
    inside = np.all((at >= 0) & (at < size), axis=1) & camera.is_within_valid_radius(ideal)
    column, row = np.clip(at, 0, size - 1).T
    return np.where(inside, depth_m[row, column], 0.0).reshape(height, width)


def reproject_depth(
    depth_m: Float[Array, "h w"], camera: DepthCamera, pinhole: PinholeCamera, level: int
) -> Float[Array, "h2 w2"]:
    """The depth map of a camera that looks from elsewhere, as the undistorted photo sees it at ``level``.

    Each depth falls into one pixel, the nearest wins.
    """
    width, height = pinhole.width >> level, pinhole.height >> level
    k = camera.intrinsics * np.tile(np.divide(depth_m.shape[::-1], camera.size), 2)
    has_depth = depth_m.ravel() > 0
    points = unproject(k, pixel_grid(*depth_m.shape[::-1])[has_depth], depth_m.ravel()[has_depth])
    xy, depth = project(camera.photo_from_depth, pinhole.intrinsics / 2**level, points)
    inside = is_in_image(xy, depth, (width, height))
    column, row = np.floor(xy[inside]).astype(np.int64).T
    nearest = np.full(height * width, np.inf)
    np.minimum.at(nearest, row * width + column, depth[inside])
    return np.where(np.isfinite(nearest), nearest, 0.0).reshape(height, width)


class DepthRatio(NamedTuple):
    """Sensor depth over the depth of SfM points in one photo: median, relative deviation (median), number of points."""

    median: float
    deviation: float
    n_points: int


def depth_ratio(
    depth_m: Float[Array, "h w"], level: int, xy: Float[Array, "n 2"], depth_sfm: Float[Array, "n"]
) -> DepthRatio | None:
    """Compare at undistorted pixels ``xy`` of level 0; None where fewer than SENSOR.min_scale_points have a depth."""
    size = np.array(depth_m.shape[::-1])
    at = np.floor(np.nan_to_num(xy, nan=-1.0) / 2**level).astype(np.int64)
    inside = is_in_image(at, depth_sfm, size)
    column, row = at[inside].T
    sampled_depth = depth_m[row, column]
    ratio = sampled_depth[sampled_depth > 0] / depth_sfm[inside][sampled_depth > 0]
    if len(ratio) < SENSOR.min_scale_points:
        return None
    middle = float(np.median(ratio))
    return DepthRatio(middle, float(np.median(np.abs(ratio / middle - 1))), len(ratio))


@dataclass(frozen=True)
class ScaleEstimate:
    """What the sensor says of scale: metres per unit of SfM, its relative standard error, from how many photos; and by
    how much depths differ from those of points besides (share, median).
    """

    m_per_sfm: float
    error: float
    n_photos: int
    disagreement: float

    def __str__(self) -> str:
        return f"sensor depth in {self.n_photos} photos, ± {self.error:.2%}"


def estimate_scale(ratios: list[DepthRatio]) -> ScaleEstimate | None:
    """Median over photos of their medians: a photo with wrong depth, or in a wrong place, moves it little."""
    if not ratios:
        return None
    medians = np.array([ratio.median for ratio in ratios])
    scale = float(np.median(medians))
    error = robust_sigma(medians / scale - 1) / np.sqrt(len(medians))
    off = float(np.median([max(abs(r.median / scale - 1), r.deviation) for r in ratios]))
    return ScaleEstimate(scale, error, len(ratios), off)


def write_sensor_depths(
    run: Run, workspace: Workspace, photos: list[PhotoRow], model: SparseModel, pinholes: list[PinholeCamera]
) -> ScaleEstimate | None:
    """Sensor depth of the posed photos into the store, in metres; None where nothing tells the scale of the poses."""
    rows = [k for k, i in enumerate(model.photo_ids) if photos[i].depth_path]
    if not rows:
        return None

    def write(number: int) -> DepthRatio | None:
        k = rows[number]
        photo, camera = photos[model.photo_ids[k]], model.cameras[model.camera_index[k]]
        pinhole = pinholes[model.camera_index[k]]
        depth_m, level = _undistorted_depth(photo, camera, pinhole)
        write_sensor_depth(run, k, depth_m, level)
        in_photo = model.track_photo == k
        points = to_camera(model.cam_from_sfm[k], model.points_sfm[model.track_point[in_photo]])
        return depth_ratio(depth_m, level, pinhole.pixels(camera, model.track_xy[in_photo]), points[:, 2])

    with workspace.report.task("pose/depth", len(rows), "photos") as advance:
        return estimate_scale([r for r in thread_map(write, len(rows), workspace.threads, advance) if r is not None])


def _undistorted_depth(photo: PhotoRow, camera: Camera, pinhole: PinholeCamera) -> tuple[Float[Array, "h w"], int]:
    """Sensor depth (metres) of the undistorted photo, and its pyramid level."""
    size, has_own_camera = (photo.width, photo.height), bool(photo.depth_camera)
    depth_m = load_upright_depth(
        Path(photo.depth_path), size, photo.orientation, photo.depth_unit_m, has_own_camera=has_own_camera
    )
    if has_own_camera:
        depth_camera = read_depth_camera(Path(photo.depth_camera))
        focal_px = float(depth_camera.intrinsics[0]) * depth_m.shape[1] / depth_camera.size[0]
        level = matching_pyramid_level(float(pinhole.intrinsics[0]), focal_px)
        return reproject_depth(remove_depth_edges(depth_m, focal_px), depth_camera, pinhole, level), level
    focal_px = float(camera.pinhole_params[0]) * depth_m.shape[1] / camera.width
    level = matching_pyramid_level(float(pinhole.intrinsics[0]), focal_px)
    return undistort_depth(remove_depth_edges(depth_m, focal_px), camera, pinhole, level), level


def scale_warnings(scale_estimate: ScaleEstimate | None, n_maps: int, m_per_world: float, source: str) -> list[str]:
    """What a person should know of how sensor depth and poses go together; ``m_per_world`` is 1 where all is well.

    ``source`` says where the world's scale is from.
    """
    if scale_estimate is None:
        if n_maps == 0:
            return []
        return [f"Sensor depth is not used: none of {n_maps} depth maps shows {SENSOR.min_scale_points} SfM points"]
    out = []
    if abs(m_per_world - 1) > SENSOR.scale_tolerance:
        out.append(
            f"By sensor depth a unit of the {source} is {m_per_world:.4g} m, not 1 m: the {source} are kept and depths "
            "are brought to them; if the depth maps' unit is wrong, set ingest.depth_unit_m"
        )
    if scale_estimate.disagreement > SENSOR.depth_tolerance:
        out.append(
            f"Sensor depth and photos disagree by {scale_estimate.disagreement:.0%} (median at points): "
            "was it taken with a camera of its own (ingest.depth_camera)? Are the poses right?"
        )
    return out


def find_sensor_points(run: Run, posed: Posed) -> SensorPoints | None:
    """Points of the stored sensor depth that two photos or more measured; None where there are none."""

    def maps() -> Iterator[tuple[int, SensorDepth]]:  # read anew each time: all at once take too much memory
        for k in range(len(posed)):
            if (sensor_depth := read_sensor_depth(run, k)) is not None:
                yield k, sensor_depth

    n_maps = sum(1 for _ in maps())
    if n_maps == 0:
        return None
    points_per_photo = int(np.clip(SENSOR.max_sensor_points // n_maps, 1, SENSOR.max_sensor_points_per_photo))
    parts, measured_in = [], []
    for k, sensor_depth in maps():
        height, width = sensor_depth.depth.shape
        pixel_indices = np.flatnonzero(sensor_depth.depth)
        pixel_indices = pixel_indices[:: max(1, len(pixel_indices) // points_per_photo)]
        depth, pose = sensor_depth.depth.ravel()[pixel_indices].astype(np.float64), posed.cam_from_world[k]
        camera = unproject(posed.intrinsics[k] / 2**sensor_depth.level, pixel_grid(width, height)[pixel_indices], depth)
        measured_in.append(np.full(len(pixel_indices), k))
        parts.append((camera - pose[:, 3]) @ pose[:, :3])
    points = np.concatenate(parts)
    photo, point, xy = [], [], []
    for k, sensor_depth in maps():
        pixel, depth = project(posed.cam_from_world[k], posed.intrinsics[k], points)
        visible = _visible_points(sensor_depth.depth, pixel / 2**sensor_depth.level, depth)
        photo.append(np.full(len(visible), k))
        point.append(visible)
        xy.append(pixel[visible])
    observations = np.concatenate(photo), np.concatenate(point), np.concatenate(xy)
    return _tracks(points, np.concatenate(measured_in), *observations)


def _visible_points(
    depth_map: Float[Array, "h w"], pixel: Float[Array, "p 2"], depth: Float[Array, "p"]
) -> Int[Array, "_"]:
    """Indices of the points that a depth map has where they fall into it."""
    front = np.flatnonzero(is_in_image(pixel, depth, depth_map.shape[::-1]))
    column, row = np.floor(pixel[front]).astype(np.int64).T
    return front[np.abs(depth_map[row, column] - depth[front]) < SENSOR.same_point_depth_tolerance * depth[front]]


def _tracks(
    points: Float[Array, "p 3"],
    measured_in: Int[Array, "p"],
    photo: Int[Array, "t"],
    point: Int[Array, "t"],
    xy: Float[Array, "t 2"],
) -> SensorPoints | None:
    """Observations as tracks; points of one observation are left out."""
    length = np.bincount(point, minlength=len(points))
    kept = length >= 2
    order = np.argsort(point, kind="stable")
    order = order[kept[point[order]]]
    if not kept.any():
        return None
    offsets = np.concatenate([[0], np.cumsum(length[kept])])
    return SensorPoints(points[kept], measured_in[kept], offsets, photo[order], xy[order])
