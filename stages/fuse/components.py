"""Connected components of a surface that is processed in chunks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.geometry.mesh import connected_components, face_components
from quoin.stages.fuse.mesh_chunks import ChunkSurface

Array = np.ndarray


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
