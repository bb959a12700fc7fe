"""The raw surface of all blocks into the store, a tile of bricks at a time, and out of it again."""

from __future__ import annotations

import functools

import numpy as np

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene.blocks import SDF_CLIP_VOXELS, read_brick_index, read_partition, read_sdf_brick
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.fuse import tile_surface
from quoin.stages.fuse.blend import Source
from quoin.stages.fuse.marching_cubes import EdgeKeys, Patch, weld
from quoin.stages.fuse.mesh_chunks import Tile

Array = np.ndarray
PARTS = ("keys", "fractions", "faces")  # of a patch


def read_sources(
    run: Run, cache_bricks: int, near: Array | None = None, made: dict[str, Source] | None = None
) -> list[Source]:
    """All blocks that were trained, ready to be blended; ``cache_bricks`` of their bricks are kept in memory.

    ``near`` [m, 3]: only those that reach one of these bricks. ``made`` holds those that are ready already, by name.
    """
    partition = read_partition(run)
    missing = run.require("train").result.get("missing", {})
    blocks = [block for block in partition.blocks if block.id not in missing]
    alone, made = len(blocks) == 1, {} if made is None else made

    @functools.lru_cache(maxsize=cache_bricks)
    def read(block_id: str, row: int) -> Array:
        return read_sdf_brick(run, block_id, row)

    found = []
    for block in blocks:
        outer = block.core.grow(block.halo_bricks)
        if near is not None and not np.all((near + 1 >= outer.low) & (near <= outer.high), axis=1).any():
            continue
        if block.id not in made:
            index, bricks = read_brick_index(run, block.id), functools.partial(read, block.id)
            made[block.id] = tile_surface.make_source(block.core, block.halo_bricks, index, bricks, alone=alone)
        found.append(made[block.id])
    return found


def extract_tiles(
    run: Run, sources: list[Source], bricks: Array, edge_keys: EdgeKeys, size: int, report: Reporter
) -> list[Tile]:
    """The raw surface: every tile is extracted and stored under surface/. Tiles without any are left out."""
    tiles = []
    with report.task("fuse/surface", len(bricks), "bricks") as advance:
        done = 0
        for tile in tile_surface.tiles(bricks):
            patch = tile_surface.march_tile(sources, tile, edge_keys, size, SDF_CLIP_VOXELS)
            done += len(tile)
            advance(done)
            if len(patch.faces) == 0:
                continue
            place = tuple((tile[0] // tile_surface.TILE_BRICKS).tolist())
            name = "surface/" + "_".join(map(str, place))
            for part in PARTS:
                arrays.write(run.scene, f"{name}/{part}", getattr(patch, part))
            tiles.append(Tile(name, place, tile, len(patch.faces)))
    return tiles


def read_patch(run: Run, tiles: list[Tile]) -> Patch:
    """The welded surface of some tiles; its faces are in the order of the tiles."""
    return weld(
        [Patch(*(arrays.read(run.scene, f"{t.name}/{p}") for p in ("keys", "fractions", "faces"))) for t in tiles]
    )
