"""The initial SDF of a block from SfM points, depth maps and planes; and weights of the photos' tiles."""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import distance_transform_edt, maximum_filter
from scipy.spatial import cKDTree
from torch import Tensor

from quoin.fields.device import compile_function, mark_dynamic
from quoin.fields.sdf_grids import SparseSdf, map_chunks

Array = np.ndarray
TRUNCATION_CELLS = 3.0  # fine cells before and behind a surface within which a depth map gives the distance
FUSION_CHUNK_POINTS = 1 << 15  # positions fused together: what fits in a core's cache


def build_initial_sdf(
    volume: SparseSdf,
    points: Float[Array, "p 3"],
    viewer_direction: Float[Array, "p 3"],
    depth_maps: dict[int, DepthMap],
    plane_maps: dict[int, PlaneMap],
) -> SparseSdf:
    """The initial SDF, in ``volume``: fused depths and planes where they reach, else a thin skin behind the points.

    It is smoothed by a fine cell: depths are noisy from pixel to pixel, and training would fit the noise first.
    """
    spacing, low = float(volume.coarse_spacing), volume.low.double().numpy()
    shape = tuple(volume.shape.tolist())
    volume.values.copy_(torch.from_numpy(sdf_from_points(points, viewer_direction, low, spacing, shape)).view(-1))
    volume.refine(torch.from_numpy(cells_near_points(points, low, spacing, shape)))
    canonical_indices = volume.canonical_indices()
    is_canonical = canonical_indices == torch.arange(len(canonical_indices))  # the others are copies of these
    positions, truncation = volume.positions(), TRUNCATION_CELLS * float(volume.fine_spacing)
    near = torch.nonzero((volume.values < 2.0 * spacing) & is_canonical)[:, 0]
    skin = volume.values[near]
    fused, count = fuse_tsdf(positions[near], list(depth_maps.values()), list(plane_maps.values()), truncation)
    free = fused > 0.95 * truncation  # the surface is that far away, or farther
    fused = torch.where(free, skin.clamp(min=truncation), fused)
    volume.values[near] = torch.where(count > 0, fused, skin)
    volume.values = volume.values[canonical_indices]
    around = torch.cat([torch.eye(3), -torch.eye(3)]) * volume.fine_spacing
    rows = torch.nonzero((volume.values.abs() < spacing) & is_canonical)[:, 0]
    volume.mark_dynamic()
    read, total = compile_function(_read, "cpu"), 2.0 * volume.values[rows]
    for step in around:
        total += map_chunks(functools.partial(read, volume), positions[rows] + step, FUSION_CHUNK_POINTS)
    volume.values[rows] = total / (2.0 + len(around))
    volume.values = volume.values[canonical_indices]
    return volume


def _read(volume: SparseSdf, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
    return volume(points)


def sdf_from_points(
    points: Float[Array, "p 3"],
    viewer_direction: Float[Array, "p 3"],
    low: Float[Array, "3"],
    spacing: float,
    shape: tuple[int, ...],
) -> Float[Array, "x y z"]:
    """Signed distance of a thin solid skin behind points on the surface.

    ``viewer_direction``: unit vectors from the points to their observers, where it is outside. The skin is as thick as
    the points are sparse (1 to 3 cells); space farther behind is unknown and counts as free, so that it stays empty.
    """
    if len(points) == 0:
        return np.ones(shape, np.float32)
    tree = cKDTree(points)
    neighbour = tree.query(points, k=min(5, len(points)), workers=-1)[0].reshape(len(points), -1)
    skin = np.clip(0.75 * neighbour[:, -1] / spacing, 1.0, 3.0) * spacing
    occupied = np.zeros(shape, bool)
    cell = np.clip(np.round((points - low) / spacing).astype(int), 0, np.array(shape) - 1)
    occupied[tuple(cell.T)] = True
    distance = distance_transform_edt(~occupied).astype(np.float32) * spacing
    near = np.argwhere(distance < 4.0 * spacing + skin.max())
    exact, nearest = tree.query(near * spacing + low, workers=-1)
    outwards = ((near * spacing + low - points[nearest]) * viewer_direction[nearest]).sum(axis=1) >= 0
    behind = np.maximum(-exact, exact - 2.0 * skin[nearest])
    distance[tuple(near.T)] = np.where(outwards, exact, behind)
    return distance


class DepthMap(NamedTuple):
    """A depth map (0 = not known) with intrinsics at its own size and pose."""

    depth: Float[Array, "h w"]
    intrinsics: Float[Array, "4"]
    cam_from_local: Float[Array, "3 4"]


class PlaneMap(NamedTuple):
    """Plane index of each pixel (-1 = not known), and the planes n · x = offset, n towards the camera."""

    number: Int[Array, "h w"]
    planes: Float[Array, "k 4"]
    intrinsics: Float[Array, "4"]
    cam_from_local: Float[Array, "3 4"]


def fuse_tsdf(
    positions: Float[Tensor, "n 3"], depth_maps: list[DepthMap], plane_maps: list[PlaneMap], truncation: float
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Mean truncated signed distance, and the number of maps it comes from (Curless & Levoy 1996).

    Along the viewing rays for depth maps, to the plane itself for plane maps. A map does not count for positions
    farther than ``truncation`` behind its surface.
    """
    sum_and_count = torch.zeros(len(positions), 2, dtype=positions.dtype)
    depth_map_tsdf = compile_function(_depth_map_tsdf, "cpu")
    for depth, k, pose in depth_maps:
        surface = torch.from_numpy(np.ascontiguousarray(depth)).to(positions.dtype).view(-1)
        mark_dynamic(surface, 0)
        map_params = (*depth.shape, *k, truncation, *pose.ravel())
        params_tensor = torch.tensor([float(number) for number in map_params], dtype=positions.dtype)
        sum_and_count += map_chunks(
            functools.partial(depth_map_tsdf, surface, params_tensor), positions, FUSION_CHUNK_POINTS
        )
    plane_map_tsdf = compile_function(_plane_map_tsdf, "cpu")
    for number, planes, k, pose in plane_maps:
        params_tensor = torch.tensor([*number.shape, *k, truncation, *pose.ravel()], dtype=positions.dtype)
        plane_index, table = (
            torch.from_numpy(np.ascontiguousarray(number)).view(-1),
            torch.from_numpy(planes).to(positions),
        )
        mark_dynamic(plane_index, 0)
        sum_and_count += map_chunks(
            functools.partial(plane_map_tsdf, plane_index, table, params_tensor), positions, FUSION_CHUNK_POINTS
        )
    total, count = sum_and_count.unbind(1)
    return total / count.clamp(min=1.0), count


def _depth_map_tsdf(
    surface: Float[Tensor, "pixels"], map_params: Float[Tensor, "19"], positions: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 2"]:
    """Truncated distance of positions by one depth map, 0 where it gives none; and 1 where it gives one, else 0.

    ``map_params``: height, width, intrinsics [4], truncation, pose [12].
    """
    truncation = map_params[6]
    z, pixel, inside = _project_to_pixels(map_params, positions)
    depth = surface[pixel]
    is_valid = inside & (depth > 0) & (depth - z > -truncation)
    distance = torch.where(is_valid, torch.minimum(depth - z, truncation), 0.0)
    return torch.stack([distance, is_valid.to(distance.dtype)], dim=1)


def _plane_map_tsdf(
    number: Int[Tensor, "pixels"],
    planes: Float[Tensor, "k 4"],
    map_params: Float[Tensor, "19"],
    positions: Float[Tensor, "n 3"],
) -> Float[Tensor, "n 2"]:
    """Truncated distance of positions to the plane of their pixel, 0 without one; and 1 where there is one, else 0."""
    truncation = map_params[6]
    _, pixel, inside = _project_to_pixels(map_params, positions)
    plane_index = number[pixel].long()
    plane = planes[plane_index.clamp(min=0)]
    distance = (plane[:, :3] * positions).sum(dim=1) - plane[:, 3]
    is_valid = inside & (plane_index >= 0) & (distance > -truncation)
    truncated = torch.where(is_valid, torch.minimum(distance, truncation), 0.0)
    return torch.stack([truncated, is_valid.to(truncated.dtype)], dim=1)


def _project_to_pixels(
    map_params: Float[Tensor, "19"], positions: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "n"], Int[Tensor, "n"], Bool[Tensor, "n"]]:
    """Depth of positions in a map, the index of their pixel, and True where they fall into the map."""
    height, width, fx, fy, cx, cy = map_params[:6].unbind()
    matrix = map_params[7:].view(3, 4)
    x, y, z = (positions @ matrix[:, :3].T + matrix[:, 3]).unbind(1)
    ahead = z.clamp(min=1e-6)
    column, row = (x / ahead * fx + cx).floor(), (y / ahead * fy + cy).floor()
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return z, torch.where(inside, row * width + column, 0.0).long(), inside


def cells_near_points(
    points: Float[Array, "p 3"], low: Float[Array, "3"], spacing: float, shape: tuple[int, ...]
) -> Bool[Array, "cells"]:
    """True for cells of a grid (C order) that hold a point, or lie within a quarter of a cell of one."""
    size = np.array(shape) - 1
    near = np.zeros(size, bool)
    for offset in itertools.product((-0.25, 0.25), repeat=3):
        cell = np.clip(np.floor((points - low) / spacing + offset).astype(int), 0, size - 1)
        near[tuple(cell.T)] = True
    return near.ravel()


def voxel_downsample(points: Float[Array, "p 3"], cell: float, limit: int, rng: np.random.Generator) -> Int[Array, "q"]:
    """Indices of one random point per cell of a grid, at most ``limit`` of them."""
    order = rng.permutation(len(points))
    index = np.floor(points[order] / cell).astype(np.int64)
    index -= index.min(axis=0, initial=0)
    number = np.ravel_multi_index(tuple(index.T), tuple(index.max(axis=0, initial=0) + 1))
    first = np.unique(number, return_index=True)[1]
    return order[rng.permutation(first)[:limit]]


def has_neighbors(points: Float[Array, "p 3"], n: int, radius: float) -> Bool[Array, "p"]:
    """True for points with ``n`` others within ``radius``."""
    if len(points) <= n:
        return np.zeros(len(points), bool)
    distance = cKDTree(points).query(points, k=[n + 1], distance_upper_bound=radius, workers=-1)[0]
    return np.isfinite(distance[:, 0])


def tile_weights(
    sizes: Int[Array, "k 2"],
    tracks: list[tuple[Float[Array, "_ 2"], Array]],
    tile: int,
    background: float = 0.25,
) -> list[Float[Array, "_ _"]]:
    """Sampling weight of each tile of each photo, from the tracks in it.

    ``tracks[k]`` = pixel positions [m, 2] of photo k's tracks and their side [m]: 1 inside the block, -1 in front of
    it, 0 behind. Tiles with a track inside (or next to one) weigh 1, tiles with tracks in front only 0, others
    ``background``.
    """
    out = []
    for (width, height), (xy, side) in zip(sizes, tracks, strict=True):
        rows, columns = -(-int(height) // tile), -(-int(width) // tile)
        cell = np.clip((xy // tile).astype(int), 0, [columns - 1, rows - 1])
        inside = np.zeros((rows, columns))
        before = np.zeros((rows, columns))
        np.add.at(inside, (cell[side == 1, 1], cell[side == 1, 0]), 1)
        np.add.at(before, (cell[side == -1, 1], cell[side == -1, 0]), 1)
        near_inside = maximum_filter(inside, 5) > 0
        near_before = maximum_filter(before, 3) > 0
        out.append(np.where(near_inside, 1.0, np.where(near_before, 0.0, background)))
    return out
