"""Chunks of a surface that fit into memory: groups of tiles with the tiles around them, and what joins chunks again.

Vertices (``VertexIndex``) and connected components (``merge_components``) are those of the whole surface; arrays of a
chunk lie in a ``ScratchStore`` between the steps of fusion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.geometry.mesh import connected_components, face_components
from quoin.pipeline.storage.arrays import read_npz
from quoin.pipeline.storage.backend import LocalStorage
from quoin.stages.fuse.mesh import Mesh, used_vertices

Array = np.ndarray

HALO_TILES = 1  # around a chunk, that are read with it
HALO_VOXELS = 40.0  # around a chunk, that are processed with it: support spreads less far along the surface
SCRATCH_FOLDER = "work/fuse"


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


# -- components across chunks ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChunkComponents:
    """Components of the own faces of a chunk, and the border vertices through which they may go on in other chunks."""

    low_world: Float[Array, "p 3"]
    high_world: Float[Array, "p 3"]
    area_m2: Float[Array, "p"]
    border_key: Int[Array, "b"]
    border_component: Int[Array, "b"]


def find_chunk_components(chunk: ChunkSurface, keep: Bool[Array, "f"]) -> tuple[Int[Array, "k"], ChunkComponents]:
    """The component of every face where ``keep`` (own faces of the chunk), and these components."""
    faces = chunk.mesh.faces[keep]
    count, piece = face_components(faces, len(chunk.mesh.vertices_world))
    of_vertex = np.full(len(chunk.mesh.vertices_world), -1)
    of_vertex[faces] = piece[:, None]
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    used = np.flatnonzero(of_vertex >= 0)
    np.minimum.at(low, of_vertex[used], chunk.mesh.vertices_world[used])
    np.maximum.at(high, of_vertex[used], chunk.mesh.vertices_world[used])
    shared = np.zeros(len(of_vertex), bool)
    shared[chunk.mesh.faces[~chunk.own]] = True
    border = used[shared[used]]
    area = np.bincount(piece, chunk.mesh.face_areas()[keep], count).astype(np.float64)
    return piece, ChunkComponents(low, high, area, chunk.keys[border], of_vertex[border])


@dataclass(frozen=True)
class MergedComponents:
    """Components of the whole surface: the number of each chunk component's, and their diameters and areas."""

    component_of_chunk: list[Int[Array, "_"]]
    diameter_m: Float[Array, "w"]
    area_m2: Float[Array, "w"]


def merge_components(parts: list[ChunkComponents]) -> MergedComponents:
    """Components of all chunks, merged where they share a vertex."""
    starts = np.cumsum([0] + [len(components.area_m2) for components in parts])
    key = np.concatenate([components.border_key for components in parts])
    piece = np.concatenate(
        [components.border_component + start for components, start in zip(parts, starts[:-1], strict=True)]
    )
    order = np.argsort(key, kind="stable")
    same = np.diff(key[order]) == 0
    count, number = connected_components(piece[order[:-1]][same], piece[order[1:]][same], int(starts[-1]))
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(low, number, np.concatenate([components.low_world for components in parts]))
    np.maximum.at(high, number, np.concatenate([components.high_world for components in parts]))
    area = np.bincount(number, np.concatenate([components.area_m2 for components in parts]), count).astype(np.float64)
    return MergedComponents(np.split(number, starts[1:-1]), np.linalg.norm(high - low, axis=1), area)


# -- vertices across chunks --------------------------------------------------------------------------------------------


class VertexIndex:
    """Indices of the vertices of all chunks: consecutive within a chunk; shared vertices belong to the first chunk."""

    def __init__(self) -> None:
        self.count = 0
        self._keys, self._index = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def assign(self, keys: Int[Array, "k"], shared: Bool[Array, "k"]) -> tuple[Int[Array, "k"], Bool[Array, "k"]]:
        """Indices of a chunk's vertices, and which are new; ``shared``: vertices that other chunks may have too."""
        at = np.searchsorted(self._keys, keys).clip(max=max(len(self._keys) - 1, 0))
        is_known = self._keys[at] == keys if len(self._keys) else np.zeros(len(keys), bool)
        index = np.empty(len(keys), np.int64)
        if len(self._keys):
            index[is_known] = self._index[at[is_known]]
        index[~is_known] = self.count + np.arange(int((~is_known).sum()))
        self.count += int((~is_known).sum())
        fresh = shared & ~is_known
        keys, where = np.concatenate([self._keys, keys[fresh]]), np.concatenate([self._index, index[fresh]])
        order = np.argsort(keys)
        self._keys, self._index = keys[order], where[order]
        return index, ~is_known


# -- arrays of chunks between steps ------------------------------------------------------------------------------------


class ScratchStore:
    """Named arrays of chunks, in ``files``, or in memory if that is None."""

    def __init__(self, files: LocalStorage | None) -> None:
        self._files, self._in_memory = files, dict[str, dict[str, Array]]()

    def put(self, chunk: int, name: str, **arrays: Array) -> None:
        """Store arrays of a chunk under a name, replacing earlier ones."""
        if self._files is None:
            self._in_memory[_name(chunk, name)] = arrays
        else:
            with self._files.open_for_upload(_name(chunk, name)) as path, open(path, "wb") as file:
                np.savez(file, allow_pickle=False, **arrays)

    def get(self, chunk: int, name: str) -> dict[str, Array]:
        """Return the arrays stored under a name."""
        if self._files is None:
            return self._in_memory[_name(chunk, name)]
        with self._files.open_downloaded(_name(chunk, name)) as path:
            return read_npz(path, _name(chunk, name))

    def drop(self, chunk: int, name: str) -> None:
        """Delete the arrays stored under a name."""
        if self._files is None:
            self._in_memory.pop(_name(chunk, name), None)
        else:
            self._files.remove(_name(chunk, name))

    def clear(self) -> None:
        """Delete all arrays."""
        self._in_memory.clear()
        if self._files is not None:
            self._files.remove(SCRATCH_FOLDER)


def _name(chunk: int, name: str) -> str:
    return f"{SCRATCH_FOLDER}/{chunk:05d}-{name}.npz"
