"""Reading of trained blocks, and extraction and reading of the raw surface in tiles of bricks."""

from __future__ import annotations

import functools

import numpy as np

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene.blocks import SDF_CLIP_VOXELS, read_brick_index, read_partition, read_sdf_brick
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.fuse import tile_surface
from quoin.stages.fuse.blend import BlockSdf
from quoin.stages.fuse.marching_cubes import EdgeKeys, Patch, weld
from quoin.stages.fuse.mesh_chunks import Tile

Array = np.ndarray
PATCH_ARRAYS = ("keys", "fractions", "faces")  # of a patch


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
            cache[block.id] = tile_surface.make_block_sdf(
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
        for tile in tile_surface.group_into_tiles(bricks):
            patch = tile_surface.march_tile(block_sdfs, tile, edge_keys, size, SDF_CLIP_VOXELS)
            done += len(tile)
            advance(done)
            if len(patch.faces) == 0:
                continue
            place = tuple((tile[0] // tile_surface.TILE_BRICKS).tolist())
            name = "surface/" + "_".join(map(str, place))
            for part in PATCH_ARRAYS:
                arrays.write_array(run.scene, f"{name}/{part}", getattr(patch, part))
            tiles.append(Tile(name, place, tile, len(patch.faces)))
    return tiles


def read_patch(run: Run, tiles: list[Tile]) -> Patch:
    """The welded surface of some tiles, read from the store; faces are in the order of the tiles."""
    return weld(
        [Patch(*(arrays.read_array(run.scene, f"{t.name}/{p}") for p in ("keys", "fractions", "faces"))) for t in tiles]
    )
