"""Connected pieces of a surface that is known part by part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.stages.fuse.mesh import components, face_areas
from quoin.stages.fuse.mesh_chunks import Piece

Array = np.ndarray


@dataclass(frozen=True)
class Found:
    """Connected pieces of one part's own faces, and the vertices through which they may go on in other parts."""

    low_world: Float[Array, "p 3"]
    high_world: Float[Array, "p 3"]
    area_m2: Float[Array, "p"]
    border_key: Int[Array, "b"]
    border_piece: Int[Array, "b"]


def find_pieces(part: Piece, keep: Bool[Array, "f"]) -> tuple[Int[Array, "k"], Found]:
    """The piece of every face where ``keep``, which are the part's own, and those pieces."""
    faces = part.mesh.faces[keep]
    count, piece = components(faces, len(part.mesh.vertices_world))
    of_vertex = np.full(len(part.mesh.vertices_world), -1)
    of_vertex[faces] = piece[:, None]
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    used = np.flatnonzero(of_vertex >= 0)
    np.minimum.at(low, of_vertex[used], part.mesh.vertices_world[used])
    np.maximum.at(high, of_vertex[used], part.mesh.vertices_world[used])
    shared = np.zeros(len(of_vertex), bool)
    shared[part.mesh.faces[~part.own]] = True
    border = used[shared[used]]
    area = np.bincount(piece, face_areas(part.mesh)[keep], count).astype(np.float64)
    return piece, Found(low, high, area, part.keys[border], of_vertex[border])


@dataclass(frozen=True)
class Whole:
    """Pieces of the whole surface: for each part's pieces the number of the whole one, its extent and area."""

    of_piece: list[Int[Array, "_"]]
    diameter_m: Float[Array, "w"]
    area_m2: Float[Array, "w"]


def united(parts: list[Found]) -> Whole:
    """Pieces of several parts that share a vertex become one."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    starts = np.cumsum([0] + [len(found.area_m2) for found in parts])
    key = np.concatenate([found.border_key for found in parts])
    piece = np.concatenate([found.border_piece + start for found, start in zip(parts, starts[:-1], strict=True)])
    order = np.argsort(key, kind="stable")
    same = np.diff(key[order]) == 0
    links = np.ones(int(same.sum()), np.int8), (piece[order[:-1]][same], piece[order[1:]][same])
    count, number = connected_components(coo_array(links, shape=(starts[-1], starts[-1])), directed=False)
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(low, number, np.concatenate([found.low_world for found in parts]))
    np.maximum.at(high, number, np.concatenate([found.high_world for found in parts]))
    area = np.bincount(number, np.concatenate([found.area_m2 for found in parts]), count).astype(np.float64)
    return Whole(np.split(number, starts[1:-1]), np.linalg.norm(high - low, axis=1), area)
