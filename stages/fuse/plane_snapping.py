"""Vertices of bare walls, floors and ceilings onto the planes that photos show there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from quoin.stages.fuse.mesh import Mesh

Array = np.ndarray

MIN_PHOTOS = 2  # more that show this plane than any other
FACING_DEG = 45.0  # between the plane's normal and the vertex's: training ripples what is flat


@dataclass
class PlaneVotes:
    """For every vertex the plane that most of its photos show, and by how many more they are than the others, at least.

    Photos come one at a time (majority vote of Boyer and Moore, 1981): what more than half of them show is found.
    """

    number: Int[Array, "v"]
    ahead: Int[Array, "v"]

    @classmethod
    def none(cls, n_vertices: int) -> PlaneVotes:
        return cls(np.full(n_vertices, -1, np.int32), np.zeros(n_vertices, np.int32))

    def add(self, vertex: Int[Array, "n"], number: Int[Array, "n"]) -> None:
        """One photo more: vertices and the number of the plane it shows in the place of each."""
        same = self.number[vertex] == number
        ahead = self.ahead[vertex] + np.where(same, 1, -1)
        self.number[vertex] = np.where(ahead < 0, number, self.number[vertex])
        self.ahead[vertex] = np.abs(ahead)


def flattened(
    mesh: Mesh, votes: PlaneVotes, planes_world: Float[Array, "k 4"], normals: Float[Array, "v 3"], near_m: float
) -> Mesh:
    """Vertices within ``near_m`` of the plane that their photos show, and facing it, moved onto it along its normal.

    ``planes_world``: rows n, offset (n · x = offset). No vertex moves farther than ``near_m``.
    """
    shown = np.flatnonzero(votes.ahead >= MIN_PHOTOS)
    plane = planes_world[votes.number[shown]]
    off = np.einsum("ij,ij->i", mesh.vertices_world[shown], plane[:, :3]) - plane[:, 3]
    facing = np.einsum("ij,ij->i", normals[shown], plane[:, :3]) > np.cos(np.radians(FACING_DEG))
    near = facing & (np.abs(off) < near_m)
    vertices = mesh.vertices_world.copy()
    vertices[shown[near]] -= off[near, None] * plane[near, :3]
    return replace(mesh, vertices_world=vertices)
