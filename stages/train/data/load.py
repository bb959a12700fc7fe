"""Loads a block's photos, cameras, points and depth maps from the store to the device, and makes a trainer of them."""

from __future__ import annotations

import numpy as np
import torch

from quoin.fields.model import build_model
from quoin.fields.sdf_grids import DenseSdf, SparseSdf
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world, intersect_ray_box, normalize, pixel_grid, project, unproject
from quoin.pipeline.geometry.covisibility import observation_matrix, source_photos
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import Block, read_held_out
from quoin.pipeline.scene.manhattan import read_trusted_frame
from quoin.pipeline.scene.sensor_depth import add_sensor_points
from quoin.pipeline.storage.run import Run
from quoin.stages.train.camera_refinement import CameraRefinement
from quoin.stages.train.config import TrainConfig
from quoin.stages.train.data.initial_sdf import (
    DepthMap,
    PlaneMap,
    build_initial_sdf,
    has_neighbors,
    tile_weights,
    voxel_downsample,
)
from quoin.stages.train.data.photo_set import TILE_SIZE_PX, BlockFrame, PhotoSet
from quoin.stages.train.data.supervision import SfmSupervision, free_space_rays
from quoin.stages.train.step import BlockData
from quoin.stages.train.trainer import Trainer

N_SOURCE_PHOTOS = 8
MAX_STEREO_POINTS = 400_000
MIN_POINT_EXTENT = 1e-6  # in the block's unit: points within less lie in one spot
NO_REPORTER = Reporter()
STEREO_CELL_SIZE = 0.004  # one stereo point per cell of this size, in the block's unit
MIN_NEIGHBORS = 16  # stereo points with fewer others around are outliers
NEIGHBOR_RADIUS_CELLS = 6.0  # of STEREO_CELL_SIZE: the distance that counts as around


def build_trainer(
    run: Run,
    config: TrainConfig,
    block: Block,
    frame: BlockFrame,
    device: str,
    report: Reporter = NO_REPORTER,
) -> Trainer:
    """A trainer of a block: its photos, cameras and SfM supervision, and a model that starts from them."""
    held_out, by_sfm = read_held_out(run), posed_images.read_posed(run)
    n_sfm = len(
        posed_images.without_photos(by_sfm, held_out).points_world
    )  # these come first, points of a depth sensor follow
    posed = add_sensor_points(run, by_sfm, held_out)
    if len(block.photo_index) == 0:
        raise QuoinError("No photo sees this block", where=block.id, hint="lower partition.min_blocks")
    torch.manual_seed(run.seed)
    index = np.asarray(block.photo_index)
    local_of = np.full(len(posed), -1)
    local_of[index] = np.arange(len(index))
    points = frame.to_local(posed.points_world)
    inside = np.all(np.abs(points) <= frame.half_extent, axis=1)
    if not inside.any():
        raise QuoinError("No SfM point lies in this block", where=block.id, hint="give more overlapping photos")
    if np.ptp(points[inside], axis=0).max() < MIN_POINT_EXTENT:
        raise QuoinError("All SfM points of this block lie in one spot", where=block.id, hint="look at the poses")
    keep = local_of[posed.track_photo] >= 0
    photo, point = local_of[posed.track_photo][keep], posed.track_point[keep]
    images = [
        posed_images.read_photo(run, int(i), int(level)) for i, level in zip(index, block.photo_level, strict=True)
    ]
    sizes = np.array([picture.shape[1::-1] for picture in images])
    scale = 0.5**block.photo_level
    intrinsics, xy = posed.intrinsics[index] * scale[:, None], posed.track_xy[keep] * scale[photo][:, None]
    cameras = frame.to_cam_from_local(posed.cam_from_world[index])
    centers = centers_world(cameras)

    maps = _depth_maps(run, block, frame, posed, cameras)
    planes_of_photos = _plane_maps(run, block, frame, posed, cameras)
    sfm = point < n_sfm
    samples = build_supervision(
        posed, frame, cameras, points[:n_sfm], photo[sfm], point[sfm], maps, planes_of_photos, run.seed
    )
    if len(samples["ray_depth"]) == 0:
        raise QuoinError("No photo of this block sees a point of it", where=block.id, hint="look at the poses")
    supervision = SfmSupervision(
        **{k: torch.tensor(v, dtype=torch.float32) for k, v in samples.items() if k != "viewer_direction"}
    )
    is_observed = observation_matrix(len(index), len(points), photo, point)
    tracks = []
    for k in range(len(index)):
        in_photo = photo == k
        tracks.append((xy[in_photo], _point_side(points[point[in_photo]], centers[k], frame.half_extent)))
    weights = tile_weights(sizes, tracks, TILE_SIZE_PX)
    label_maps = [priors.read_full_size_labels(run, int(i), posed.sizes[i]) for i in index]
    masks = [
        np.where(s == labels.TRANSIENT, 0, posed_images.read_mask(run, int(i)))
        for i, s in zip(index, label_maps, strict=True)
    ]
    label_maps, masks = (_at_levels(maps, block.photo_level, sizes) for maps in (label_maps, masks))
    covisibility_args = (cameras, intrinsics, sizes, is_observed[:, inside], points[inside], N_SOURCE_PHOTOS)
    sources = source_photos(*covisibility_args)
    masked = np.flatnonzero([not mask.any() for mask in masks])
    sources[np.isin(sources, masked)] = -1
    photos = PhotoSet(
        images,
        masks,
        cameras,
        intrinsics,
        weights,
        sources,
        held_out_share=config.held_out_share,
        seed=run.seed,
        labels=label_maps,
    )
    if 0 < len(masked) < len(index):
        names = ", ".join(posed.names[int(i)] for i in index[masked])
        report.log(
            f"train/{block.id}", f"photos left out of the training, as their masks cover them: {names}", "warning"
        )
    if len(photos.tiles) == 0:
        raise QuoinError("The masks cover all that photos show of this block", where=block.id, hint="check the masks")
    half_extent = torch.tensor(frame.half_extent, dtype=torch.float32)
    initial_sdf = SparseSdf.over_box(half_extent, config.sdf_cache.resolution // 2)
    initial_sdf = build_initial_sdf(initial_sdf, samples["points"], samples["viewer_direction"], maps, planes_of_photos)
    cache = DenseSdf.over_box(half_extent, config.sdf_cache.resolution)
    cache.refresh(initial_sdf)
    walls = read_trusted_frame(run) if planes_of_photos and config.losses.manhattan > 0 else None
    directions = None if walls is None else (walls.up_world, walls.normals_world)
    model = build_model(config, initial_sdf, len(index), directions)
    exposures = priors.read_exposures(run)
    if exposures is not None and config.color.exposure:
        model.appearance.log_exposure.copy_(torch.from_numpy(np.log(exposures[index])))
    camera_refinement = None
    if config.lr.cameras > 0:
        camera_refinement = CameraRefinement(cameras, intrinsics, _median_depths(cameras, points, photo, point))
    data = BlockData(photos, supervision, cache, half_extent, camera_refinement)
    trainer = Trainer(model, data, config, device, run.seed)
    if config.sampler.uses_cache_only and config.surface.init != "sfm":
        trainer.refresh(near_only=False)  # the cache holds the initial SDF, which is not this field
    return trainer


def build_supervision(
    posed: posed_images.Posed,
    frame: BlockFrame,
    cameras: np.ndarray,
    points: np.ndarray,
    photo: np.ndarray,
    point: np.ndarray,
    maps: dict[int, DepthMap],
    planes_of_photos: dict[int, PlaneMap],
    random_seed: int,
) -> dict[str, np.ndarray]:
    """Fields of SfmSupervision and ``viewer_direction``, from SfM tracks (``photo``, ``point``), depths and planes.

    All in the block's frame; ``points`` are the first of ``posed``, those of SfM. A point of a track is weighted by its
    length and reprojection error; points of depth maps and planes weigh 1.
    """
    centers = centers_world(cameras)
    inside = np.all(np.abs(points) <= frame.half_extent, axis=1)
    error, length = posed.point_errors_px[: len(points)], posed.track_lengths[: len(points)]
    weight = np.minimum(length, 6) / 6.0 / (1.0 + error**2)
    view_sum = np.zeros_like(points)
    np.add.at(view_sum, point, normalize(centers[photo] - points[point], 1e-9))
    stereo, by = _stereo_points(maps, frame.half_extent, np.random.default_rng(random_seed))
    bare_maps = {
        k: DepthMap(priors.depth_from_planes(number, planes, pose, lens), lens, pose)
        for k, (number, planes, lens, pose) in planes_of_photos.items()
    }
    walls, walls_by = _stereo_points(bare_maps, frame.half_extent, np.random.default_rng(random_seed))
    normals = _normals_at(walls, walls_by, planes_of_photos)
    stereo, by = np.concatenate([stereo, walls]), np.concatenate([by, walls_by])
    sight_point = np.concatenate([point, len(points) + np.arange(len(stereo))])
    everything = np.concatenate([points, stereo])
    out = free_space_rays(centers, everything, np.concatenate([photo, by]), sight_point, frame.half_extent)
    out["points"] = np.concatenate([points[inside], stereo])
    out["weight"] = np.concatenate([weight[inside], np.ones(len(stereo))])
    out["normal"] = np.concatenate([np.zeros((len(out["points"]) - len(normals), 3)), normals])
    out["sfm"] = np.concatenate([np.ones(inside.sum()), np.zeros(len(stereo))])
    out["viewer_direction"] = np.concatenate([normalize(view_sum[inside], 1e-9), normalize(centers[by] - stereo, 1e-9)])
    return out


def _depth_maps(
    run: Run, block: Block, frame: BlockFrame, posed: posed_images.Posed, cameras: np.ndarray
) -> dict[int, DepthMap]:
    """Depth maps of the block's photos (by 0..K-1), in the block's unit."""
    maps = {}
    for k, i in enumerate(block.photo_index):
        stored = priors.read_depth(run, int(i))
        if stored is not None:
            depth, level = stored
            maps[k] = DepthMap(depth / frame.radius_m, posed.intrinsics[i] / 2**level, cameras[k])
    return maps


def _plane_maps(
    run: Run, block: Block, frame: BlockFrame, posed: posed_images.Posed, cameras: np.ndarray
) -> dict[int, PlaneMap]:
    """Planes of textureless surfaces in the block's photos (by 0..K-1), in the block's frame and unit."""
    planes = priors.read_scene_planes(run)
    local = planes.copy()
    local[:, 3] = (planes[:, 3] - planes[:, :3] @ frame.center_world) / frame.radius_m
    maps = {}
    for k, i in enumerate(block.photo_index):
        plane_map = priors.read_plane_index(run, int(i))
        if plane_map is not None:
            maps[k] = PlaneMap(plane_map.plane_index, local, posed.intrinsics[i] / 2**plane_map.level, cameras[k])
    return maps


def _stereo_points(
    maps: dict[int, DepthMap], half_extent: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points of the depth maps inside the box, thinned to one a cell, and the photo (0..K-1) of each."""
    point_sets, by = [np.zeros((0, 3))], [np.zeros(0, np.int64)]
    for k, (depth, intrinsics, pose) in maps.items():
        pixels = pixel_grid(depth.shape[1], depth.shape[0])[depth.ravel() > 0]
        local = (unproject(intrinsics, pixels, depth[depth > 0].astype(np.float64)) - pose[:, 3]) @ pose[:, :3]
        local = local[np.all(np.abs(local) <= half_extent, axis=1)]
        local = local[voxel_downsample(local, STEREO_CELL_SIZE, MAX_STEREO_POINTS, rng)]
        point_sets.append(local)
        by.append(np.full(len(local), k))
    points, photo = np.concatenate(point_sets), np.concatenate(by)
    keep = voxel_downsample(points, STEREO_CELL_SIZE, MAX_STEREO_POINTS, rng)
    points, photo = points[keep], photo[keep]
    keep = has_neighbors(points, MIN_NEIGHBORS, NEIGHBOR_RADIUS_CELLS * STEREO_CELL_SIZE)
    return points[keep], photo[keep]


def _normals_at(points: np.ndarray, by: np.ndarray, planes_of_photos: dict[int, PlaneMap]) -> np.ndarray:
    """Unit normals [n, 3] of the planes that points come from, by the pixel of each in photo ``by``."""
    normals = np.zeros_like(points)
    for k, (number, planes, intrinsics, pose) in planes_of_photos.items():
        in_photo = by == k
        xy, _ = project(pose, intrinsics, points[in_photo])
        column, row = np.floor(xy).astype(np.int64).clip(0, np.array(number.shape[::-1]) - 1).T
        normals[in_photo] = planes[number[row, column], :3]
    return normals


def _at_levels(maps: list[np.ndarray], level: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    """Whole-photo maps [h, w] at levels of the photos' pyramids, which are of ``sizes`` (width, height) there."""
    wanted = zip(maps, level, sizes, strict=True)
    return [whole[:: 2**at, :: 2**at][:height, :width] for whole, at, (width, height) in wanted]


def _median_depths(cameras: np.ndarray, points: np.ndarray, photo: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Median depth [K] of the points in each photo; the distance to the block's center where there are none."""
    depth = np.einsum("ti,ti->t", cameras[photo, 2, :3], points[point]) + cameras[photo, 2, 3]
    depths = [depth[(photo == k) & (depth > 0)] for k in range(len(cameras))]
    return np.array([np.median(d) if len(d) else np.linalg.norm(cameras[k, :, 3]) for k, d in enumerate(depths)])


def _point_side(points: np.ndarray, center: np.ndarray, half_extent: np.ndarray) -> np.ndarray:
    """1 for points inside the box, -1 for points between the camera and the box, 0 for the others."""
    inside = np.all(np.abs(points) <= half_extent, axis=1)
    near, far = intersect_ray_box(center, normalize(points - center, 1e-9), -half_extent, half_extent)
    is_before_box = (far > near) & (np.linalg.norm(points - center, axis=1) < near)
    return np.where(inside, 1, np.where(is_before_box, -1, 0))
