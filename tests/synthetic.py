"""Scenes with a known truth: analytic signed distances, cameras on rings, photos of a sphere, runs that hold them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from quoin.pipeline.core.config import StageResult
from quoin.pipeline.geometry.cameras import centers_world, look_at, pixel_grid, project, rays_world
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import SDF_CLIP_VOXELS, Block, Partition, SdfBricks, write_partition, write_sdf_bricks
from quoin.pipeline.storage.run import Run

Array = np.ndarray
Sdf = Callable[[Array], Array]


class Done(StageResult):
    """The result of a stage that a test pretends has been done."""


def make_run(folder: Path, *done: str, url: str | None = None) -> Run:
    """A new run in ``folder`` (its photos there, it at ``url`` where given) with the named stages committed."""
    photos = folder / "photos"
    photos.mkdir(parents=True)
    run = Run.create(url or folder / "run", photos=photos, settings={}, seed=0)
    for name in done:
        commit(run, name)
    return run


def commit(run: Run, stage: str) -> None:
    """Pretend that ``stage`` has been done."""
    run.commit(stage, f"key of {stage}", Done(), 0.0)


# -- signed distances, metres, positive outside ----------------------------------------------------------------------


def sphere(radius_m: float, center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Sdf:
    return lambda p: np.linalg.norm(p - np.array(center), axis=-1) - radius_m


def plane(height_m: float = 0.0) -> Sdf:
    """The ground below ``height_m`` is inside."""
    return lambda p: p[..., 2] - height_m


def torus(major_m: float, minor_m: float) -> Sdf:
    return lambda p: np.hypot(np.hypot(p[..., 0], p[..., 1]) - major_m, p[..., 2]) - minor_m


def boxes(*boxes_m: tuple[tuple[float, float, float], tuple[float, float, float]]) -> Sdf:
    """Union of axis-aligned boxes (center, half size)."""

    def distance(p: Array) -> Array:
        each = []
        for center, half in boxes_m:
            q = np.abs(p - np.array(center)) - np.array(half)
            each.append(np.linalg.norm(np.maximum(q, 0), axis=-1) + np.minimum(q.max(axis=-1), 0))
        return np.min(each, axis=0)

    return distance


# -- blocks ----------------------------------------------------------------------------------------------------------


def split_box(box: BrickBox, n: int, halo_bricks: int = 1) -> list[Block]:
    """``n`` blocks (1, 2 or 4) that tile ``box``, halved along x and then y."""
    cores = [box]
    for axis in range(int(np.log2(n))):
        halves = []
        for core in cores:
            middle = (core.low[axis] + core.high[axis]) // 2
            low, high = list(core.low), list(core.high)
            low[axis] = high[axis] = middle
            halves += [BrickBox(core.low, tuple(high)), BrickBox(tuple(low), core.high)]
        cores = halves
    photos, weights = np.arange(1), np.ones(1)
    return [Block(f"b{i:03d}", core, halo_bricks, photos, weights) for i, core in enumerate(cores)]


def brick_samples(lattice: Lattice, brick: np.ndarray) -> np.ndarray:
    """Sample indices [B+1, B+1, B+1, 3] of a brick."""
    axes = [np.arange(lattice.brick_size + 1) + int(b) * lattice.brick_size for b in brick]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def sdf_bricks(lattice: Lattice, block: Block, sdf: Sdf) -> SdfBricks:
    """What training would leave: the bricks of the block's outer box that the surface passes through."""
    kept, values = [], []
    for brick in block.outer.bricks():
        samples = sdf(lattice.sample_world(brick_samples(lattice, brick))) / lattice.voxel_size_m
        if samples.min() <= 0 <= samples.max():
            kept.append(brick)
            values.append(np.clip(samples, -SDF_CLIP_VOXELS, SDF_CLIP_VOXELS).astype(np.float16))
    side = lattice.brick_size + 1
    empty = np.zeros((0, side, side, side), np.float16)
    return SdfBricks(np.array(kept, np.int64).reshape(-1, 3), np.stack(values) if values else empty)


def wavy(sdf: Sdf, amplitude_m: float, length_m: float, seed: int) -> Sdf:
    """``sdf`` with a smooth error, another for every seed: what separately trained blocks disagree by."""
    rng = np.random.default_rng(seed)
    direction, phase = rng.normal(size=(3, 3)), rng.uniform(0, 2 * np.pi, 3)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True) * length_m / (2 * np.pi)
    return lambda p: sdf(p) + amplitude_m * np.sin(p @ direction.T + phase).mean(axis=-1)


def write_blocks(run: Run, lattice: Lattice, blocks: list[Block], sdfs: list[Sdf]) -> Partition:
    """A partition and trained blocks in the store, both committed."""
    lows, highs = zip(*(lattice.box_world(b.core) for b in blocks), strict=True)
    partition = Partition(lattice, blocks, np.min(lows, axis=0), np.max(highs, axis=0))
    write_partition(run, partition)
    commit(run, "partition")
    for block, sdf in zip(blocks, sdfs, strict=True):
        write_sdf_bricks(run, block.id, sdf_bricks(lattice, block, sdf))
    commit(run, "train")
    return partition


# -- cameras, points, photos -----------------------------------------------------------------------------------------


def sphere_points(n: int, radius_m: float = 1.0, seed: int = 0) -> Array:
    """Points [n, 3] spread evenly over a sphere at random."""
    points = np.random.default_rng(seed).normal(size=(n, 3))
    return points * radius_m / np.linalg.norm(points, axis=1, keepdims=True)


def ring_of_cameras(
    n: int, distance_m: float, height_m: float = 0.0, target: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Array:
    """cam_from_world [n, 3, 4] of cameras on a circle that look at ``target``."""
    angles = np.arange(n) * 2 * np.pi / n
    centers = np.stack([distance_m * np.cos(angles), distance_m * np.sin(angles), np.full(n, height_m)], axis=1)
    return np.stack([look_at(center + np.array(target), np.array(target)) for center in centers])


def posed_points(
    cam_from_world: Array,
    points_world: Array,
    visible: Callable[[Array, Array], Array],
    *,
    size: tuple[int, int] = (160, 120),
    focal_px: float = 150.0,
) -> posed_images.Posed:
    """Cameras and the points they see: ``visible(center, points)`` -> bool [p] says what the surface does not hide.

    Points that fewer than two cameras see are left out.
    """
    intrinsics = np.tile([focal_px, focal_px, size[0] / 2, size[1] / 2], (len(cam_from_world), 1))
    centers = centers_world(cam_from_world)
    photo, point, xy = [], [], []
    for i, pose in enumerate(cam_from_world):
        pixel, depth = project(pose, intrinsics[i], points_world)
        good = (depth > 0) & np.all((pixel >= 0) & (pixel < np.array(size)), axis=1) & visible(centers[i], points_world)
        photo.append(np.full(good.sum(), i))
        point.append(np.flatnonzero(good))
        xy.append(pixel[good])
    order = np.argsort(np.concatenate(point), kind="stable")
    photo, point, xy = np.concatenate(photo)[order], np.concatenate(point)[order], np.concatenate(xy)[order]
    length = np.bincount(point, minlength=len(points_world))
    kept = length >= 2
    observed = kept[point]
    return posed_images.Posed(
        names=[f"{i:03d}.png" for i in range(len(cam_from_world))],
        photo_ids=np.arange(len(cam_from_world)),
        cam_from_world=cam_from_world,
        intrinsics=intrinsics,
        sizes=np.tile(size, (len(cam_from_world), 1)),
        points_world=points_world[kept],
        point_errors_px=np.full(kept.sum(), 0.4),
        point_colors=np.full((kept.sum(), 3), 128, np.uint8),
        track_offsets=np.concatenate([[0], np.cumsum(length[kept])]),
        track_photo=photo[observed],
        track_xy=xy[observed],
    )


def faces_camera(center: Array, points: Array) -> Array:
    """Which points of a sphere about the origin face a camera at ``center``."""
    return np.einsum("ij,ij->i", points, center - points) > 0


def sphere_photo(posed: posed_images.Posed, index: int, radius_m: float, color_of: Callable[[Array], Array]) -> Array:
    """Photo uint8 [H, W, 3] of a sphere about the origin with colours ``color_of(points)`` in [0, 255]; grey sky."""
    width, height = (int(v) for v in posed.sizes[index])
    origin, directions = rays_world(posed.cam_from_world[index], posed.intrinsics[index], pixel_grid(width, height))
    along = directions @ origin
    root = along**2 - (origin @ origin - radius_m**2)
    rgb = np.full((width * height, 3), 90.0)
    hit = root > 0
    reach = -along[hit] - np.sqrt(root[hit])
    rgb[hit] = color_of(origin + reach[:, None] * directions[hit])
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8).reshape(height, width, 3)


def sphere_depth(
    posed: posed_images.Posed, index: int, radius_m: float, center: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Array:
    """Depth map [H, W] along the camera's axis of a sphere in photo ``index``; 0 beside it."""
    width, height = (int(v) for v in posed.sizes[index])
    pose = posed.cam_from_world[index]
    origin, directions = rays_world(pose, posed.intrinsics[index], pixel_grid(width, height))
    away = origin - np.array(center)
    along = directions @ away
    root = along**2 - (away @ away - radius_m**2)
    reach = np.where(root > 0, -along - np.sqrt(np.maximum(root, 0)), 0.0)
    return (reach * (directions @ pose[2, :3])).reshape(height, width).astype(np.float32)


def pyramid(rgb: Array) -> list[Array]:
    """All levels of a photo by 2 × 2 means."""
    levels = [rgb]
    for _ in range(posed_images.PYRAMID_LEVELS - 1):
        h, w = (s // 2 * 2 for s in levels[-1].shape[:2])
        mean = levels[-1][:h, :w].reshape(h // 2, 2, w // 2, 2, 3).mean(axis=(1, 3))
        levels.append(np.rint(mean).astype(np.uint8))
    return levels
