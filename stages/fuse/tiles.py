"""Tiles of bricks: from the SDF bricks of all blocks to the raw surface in the store, a tile at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.scene.blocks import SDF_CLIP_VOXELS, read_brick_index, read_partition, read_sdf_brick
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.fuse.blend import BlockSdf, absent_signs, blend_brick, touching_boxes
from quoin.stages.fuse.marching_cubes import EdgeKeys, Patch, marching_cubes, positions_voxels, weld
from quoin.stages.fuse.mesh import Mesh, edge_counts
from quoin.stages.fuse.mesh_chunks import Tile

Array = np.ndarray

PATCH_ARRAYS = ("keys", "fractions", "faces")  # of a patch
TILE_BRICKS = 4  # along each side of a tile, whose surface is extracted and stored at once


def read_block_sdfs(
    run: Run, cache_bricks: int, near_bricks: Array | None = None, cache: dict[str, BlockSdf] | None = None
) -> list[BlockSdf]:
    """The trained blocks, to be blended; ``cache_bricks`` of their bricks are cached in memory.

    Args:
        near_bricks: [m, 3], return only blocks that touch one of these bricks.
        cache: blocks read before by id; new ones are added.
    """
    partition = read_partition(run)
    missing = run.require("train").result.get("failed_blocks", {})
    blocks = [block for block in partition.blocks if block.id not in missing]
    is_single_block, cache = len(blocks) == 1, {} if cache is None else cache

    @functools.lru_cache(maxsize=cache_bricks)
    def read(block_id: str, row: int) -> Array:
        return read_sdf_brick(run, block_id, row)

    block_sdfs = []
    for block in blocks:
        outer = block.core.grow(block.halo_bricks)
        if (
            near_bricks is not None
            and not np.all((near_bricks + 1 >= outer.low) & (near_bricks <= outer.high), axis=1).any()
        ):
            continue
        if block.id not in cache:
            index, bricks = read_brick_index(run, block.id), functools.partial(read, block.id)
            cache[block.id] = make_block_sdf(
                block.core, block.halo_bricks, index, bricks, is_single_block=is_single_block
            )
        block_sdfs.append(cache[block.id])
    return block_sdfs


def extract_tiles(
    run: Run, block_sdfs: list[BlockSdf], bricks: Array, edge_keys: EdgeKeys, size: int, report: Reporter
) -> list[Tile]:
    """Extract the raw surface, store it under surface/ by tile, and return the tiles that have any."""
    tiles = []
    with report.task("fuse/surface", len(bricks), "bricks") as advance:
        done = 0
        for tile in group_into_tiles(bricks):
            patch = march_tile(block_sdfs, tile, edge_keys, size, SDF_CLIP_VOXELS)
            done += len(tile)
            advance(done)
            if len(patch.faces) == 0:
                continue
            place = tuple((tile[0] // TILE_BRICKS).tolist())
            name = "surface/" + "_".join(map(str, place))
            for part in PATCH_ARRAYS:
                arrays.write_array(run.scene, f"{name}/{part}", getattr(patch, part))
            tiles.append(Tile(name, place, tile, len(patch.faces)))
    return tiles


def read_patch(run: Run, tiles: list[Tile]) -> Patch:
    """The welded surface of some tiles, read from the store; faces are in the order of the tiles."""
    return weld(
        [Patch(*(arrays.read_array(run.scene, f"{tile.name}/{part}") for part in PATCH_ARRAYS)) for tile in tiles]
    )


# -- blend and march in memory -----------------------------------------------------------------------------------------


def make_block_sdf(
    core: BrickBox,
    halo_bricks: int,
    bricks: Int[Array, "m 3"],
    read: Callable[[int], Array],
    *,
    is_single_block: bool,
) -> BlockSdf:
    """A block to be blended; the only block of a run (``is_single_block``) needs no signs of absent bricks."""
    outer = core.grow(halo_bricks)
    sign = np.zeros(outer.shape, np.int8) if is_single_block else absent_signs(outer, bricks, read)
    rows = {(int(a), int(b), int(c)): row for row, (a, b, c) in enumerate(bricks)}
    return BlockSdf(core, halo_bricks, rows, read, sign)


def make_edge_keys(block_sdfs: list[BlockSdf], size: int) -> EdgeKeys:
    """Keys of all lattice edges in the outer boxes of the blocks."""
    lows = np.array([s.outer.low for s in block_sdfs]).min(axis=0) * size
    highs = np.array([s.outer.high for s in block_sdfs]).max(axis=0) * size
    return EdgeKeys(tuple(lows.tolist()), tuple((highs - lows + 1).tolist()))


def group_into_tiles(bricks: Int[Array, "m 3"]) -> list[Int[Array, "k 3"]]:
    """Bricks grouped by the tile they lie in, tiles and bricks in lattice order."""
    tile = bricks // TILE_BRICKS
    order = np.lexsort((*bricks.T[::-1], *tile.T[::-1]))
    bricks, tile = bricks[order], tile[order]
    cuts = np.flatnonzero(np.any(np.diff(tile, axis=0) != 0, axis=1)) + 1
    return np.split(bricks, cuts) if len(bricks) else []


def march_tile(
    block_sdfs: list[BlockSdf], bricks: Int[Array, "m 3"], edge_keys: EdgeKeys, size: int, clip_voxels: float
) -> Patch:
    """The blended surface in some bricks, welded."""
    lows = np.array([s.outer.low for s in block_sdfs])
    highs = np.array([s.outer.high for s in block_sdfs])
    patches = []
    for row in bricks:
        brick = (int(row[0]), int(row[1]), int(row[2]))
        near = [block_sdfs[i] for i in touching_boxes(lows, highs, brick)]
        patches.append(marching_cubes(blend_brick(near, brick, size, clip_voxels), row * size, edge_keys))
    return weld(patches)


def to_mesh(patch: Patch, edge_keys: EdgeKeys, lattice: Lattice) -> Mesh:
    """The patch as a mesh in the world frame."""
    at = positions_voxels(patch, edge_keys)
    index = np.int32 if len(at) < 2**31 else np.int64
    return Mesh(np.array(lattice.origin_world) + lattice.voxel_size_m * at, patch.faces.astype(index))


def count_torn_edges(patch: Patch, edge_keys: EdgeKeys, bricks: Int[Array, "m 3"], size: int) -> int:
    """Number of boundary edges that are not on the rim of ``bricks``; 0 unless welding failed.

    A surface may only end on the rim: a face of one of the bricks beyond which there is no brick.
    """
    ends, count = edge_counts(patch.faces)
    ends = ends[count == 1]
    if len(ends) == 0:
        return 0
    start, axis = edge_keys.decode(patch.keys[ends].ravel())
    start, axis = start.reshape(-1, 2, 3), axis.reshape(-1, 2)
    brick = np.floor(positions_voxels(patch, edge_keys)[ends].mean(axis=1) / size).astype(np.int64)
    on_rim = np.zeros(len(ends), bool)
    for d in range(3):
        in_plane = (start[:, 0, d] == start[:, 1, d]) & np.all(axis != d, axis=1) & (start[:, 0, d] % size == 0)
        above, below = brick.copy(), brick.copy()
        above[:, d] = start[:, 0, d] // size
        below[:, d] = above[:, d] - 1
        on_rim |= in_plane & (_contains(above, bricks) != _contains(below, bricks))
    return int((~on_rim).sum())


def _contains(bricks: Int[Array, "n 3"], among: Int[Array, "m 3"]) -> Bool[Array, "n"]:
    """Which of ``bricks`` are in ``among``."""
    low = among.min(axis=0) - 1
    shape = tuple((among.max(axis=0) - low + 2).tolist())
    codes = [np.ravel_multi_index(tuple((b - low).T), shape, mode="clip") for b in (bricks, among)]
    return np.isin(*codes)
