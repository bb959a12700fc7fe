"""Chunks of a surface that fit into memory: groups of tiles, each with the tiles around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from quoin.stages.fuse.mesh import Mesh, used_vertices

Array = np.ndarray

HALO_TILES = 1  # around a chunk, that are read with it
HALO_VOXELS = 40.0  # around a chunk, that are processed with it: support spreads less far along the surface


@dataclass(frozen=True)
class Tile:
    """A cube of bricks whose surface is in the store: its tile coordinates, its bricks, its number of faces."""

    name: str
    place: tuple[int, int, int]
    bricks: Int[Array, "b 3"]
    n_faces: int


@dataclass(frozen=True)
class Chunk:
    """The ``own`` tiles of a chunk, and the ``halo`` tiles around them."""

    own: list[Tile]
    halo: list[Tile]


@dataclass(frozen=True)
class ChunkSurface:
    """Surface of a chunk and its halo; ``keys`` identify vertices across chunks, ``own`` are the faces of the chunk."""

    mesh: Mesh
    keys: Int[Array, "v"]
    own: Bool[Array, "f"]
    cut: Bool[Array, "v"]  # vertices where the surface goes on beyond the halo

    def within(self, reach_m: float) -> ChunkSurface:
        """The surface without faces farther than ``reach_m`` from the bounding box of the own faces."""
        at = self.mesh.vertices_world
        box = at[self.own_vertices()]
        near = ((at >= box.min(axis=0) - reach_m) & (at <= box.max(axis=0) + reach_m)).all(axis=1)
        keep = self.own | near[self.mesh.faces].all(axis=1)
        used = used_vertices(self.mesh.faces[keep], len(at))
        cut = self.cut.copy()
        cut[self.mesh.faces[~keep]] = True
        return ChunkSurface(self.mesh.submesh(keep), self.keys[used], self.own[keep], cut[used])

    def own_vertices(self) -> Int[Array, "k"]:
        """Indices of the vertices of the own faces."""
        return used_vertices(self.mesh.faces[self.own], len(self.keys))


def make_chunks(tiles: Sequence[Tile], max_faces: int) -> list[Chunk]:
    """Chunks of at most ``max_faces`` own faces (or a single tile), in lattice order."""
    parts = []
    for own in _halved(list(tiles), max_faces):
        places = np.array([tile.place for tile in own])
        low, high = places.min(axis=0) - HALO_TILES, places.max(axis=0) + HALO_TILES
        own_places = {tile.place for tile in own}
        halo = [tile for tile in tiles if tile.place not in own_places and _within(tile.place, low, high)]
        parts.append(Chunk(own, halo))
    return parts


def _within(place: tuple[int, int, int], low: Int[Array, "3"], high: Int[Array, "3"]) -> bool:
    return bool(np.all((low <= place) & (place <= high)))


def _halved(tiles: list[Tile], max_faces: int) -> list[list[Tile]]:
    """Groups of tiles, halved across the longest side at equal faces until each has at most ``max_faces``."""
    if len(tiles) < 2 or sum(tile.n_faces for tile in tiles) <= max_faces:
        return [tiles] if tiles else []
    places = np.array([tile.place for tile in tiles])
    axis = int(np.argmax(np.ptp(places, axis=0)))
    order = np.argsort(places[:, axis], kind="stable")
    along = places[order, axis]
    before = np.cumsum([tiles[i].n_faces for i in order])
    cuts = np.flatnonzero(np.diff(along)) + 1
    cut = cuts[np.argmin(np.abs(before[cuts - 1] - before[-1] / 2))]
    first, second = ([tiles[i] for i in sorted(half)] for half in (order[:cut], order[cut:]))
    return [*_halved(first, max_faces), *_halved(second, max_faces)]
