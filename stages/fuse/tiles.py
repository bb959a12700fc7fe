"""The raw surface of all blocks into the store, a tile of bricks at a time, and out of it again."""

from __future__ import annotations

import functools

import numpy as np

from pipeline import scene, store
from pipeline.progress import Reporter
from pipeline.run import Run
from stages.fuse import surface
from stages.fuse.blend import Source
from stages.fuse.extract import EdgeKeys, Patch, weld
from stages.fuse.parts import Tile

Array = np.ndarray
PARTS = ("keys", "fractions", "faces")  # of a patch


def read_sources(run: Run, partition: scene.Partition, cache_bricks: int) -> list[Source]:
    """All blocks, ready to be blended; their bricks are read on demand, ``cache_bricks`` of them kept."""

    @functools.lru_cache(maxsize=cache_bricks)
    def read(block_id: str, row: int) -> Array:
        return scene.read_sdf_brick(run, block_id, row)

    alone = len(partition.blocks) == 1
    return [
        surface.make_source(
            b.core, b.halo_bricks, scene.read_brick_index(run, b.id), functools.partial(read, b.id), alone=alone
        )
        for b in partition.blocks
    ]


def extract_tiles(
    run: Run, sources: list[Source], bricks: Array, edge_keys: EdgeKeys, size: int, report: Reporter
) -> list[Tile]:
    """The raw surface: every tile is extracted and stored under surface/. Tiles without any are left out."""
    store.delete(run.scene, "surface")
    tiles = []
    with report.task("fuse/surface", len(bricks), "bricks") as advance:
        done = 0
        for tile in surface.tiles(bricks):
            patch = surface.march_tile(sources, tile, edge_keys, size, scene.SDF_CLIP_VOXELS)
            done += len(tile)
            advance(done)
            if len(patch.faces) == 0:
                continue
            place = tuple((tile[0] // surface.TILE_BRICKS).tolist())
            name = "surface/" + "_".join(map(str, place))
            for part in PARTS:
                store.write(run.scene, f"{name}/{part}", getattr(patch, part))
            tiles.append(Tile(name, place, tile, len(patch.faces)))
    return tiles


def read_patch(run: Run, tiles: list[Tile]) -> Patch:
    """The welded surface of some tiles; its faces are in the order of the tiles."""
    return weld(
        [Patch(*(store.read(run.scene, f"{t.name}/{p}") for p in ("keys", "fractions", "faces"))) for t in tiles]
    )
