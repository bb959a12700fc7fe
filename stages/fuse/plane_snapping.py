"""Vertices of bare walls, floors and ceilings onto the planes that photos show there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from quoin.stages.fuse.mesh import Mesh

Array = np.ndarray

MIN_VOTE_LEAD = 2  # more that show this plane than any other
MAX_SNAP_ANGLE_DEG = 45.0  # between the plane's normal and the vertex's: training ripples what is flat


@dataclass
class PlaneVotes:
    """For every vertex the plane that most of its photos show, and by how many more they are than the others, at least.

    Photos come one at a time (majority vote of Boyer and Moore, 1981): what more than half of them show is found.
    """

    plane_index: Int[Array, "v"]
    lead: Int[Array, "v"]

    @classmethod
    def empty(cls, n_vertices: int) -> PlaneVotes:
        return cls(np.full(n_vertices, -1, np.int32), np.zeros(n_vertices, np.int32))

    def add(self, vertex: Int[Array, "n"], plane_index: Int[Array, "n"]) -> None:
        """One photo more: vertices and the number of the plane it shows in the place of each."""
        same = self.plane_index[vertex] == plane_index
        lead = self.lead[vertex] + np.where(same, 1, -1)
        self.plane_index[vertex] = np.where(lead < 0, plane_index, self.plane_index[vertex])
        self.lead[vertex] = np.abs(lead)


def snap_to_planes(
    mesh: Mesh, votes: PlaneVotes, planes_world: Float[Array, "k 4"], normals: Float[Array, "v 3"], tolerance_m: float
) -> Mesh:
    """Vertices within ``tolerance_m`` of the plane that their photos show, and facing it, moved onto it along its
    normal.

    ``planes_world``: rows n, offset (n · x = offset). No vertex moves farther than ``tolerance_m``.
    """
    voted = np.flatnonzero(votes.lead >= MIN_VOTE_LEAD)
    plane = planes_world[votes.plane_index[voted]]
    signed_distance = np.einsum("ij,ij->i", mesh.vertices_world[voted], plane[:, :3]) - plane[:, 3]
    facing = np.einsum("ij,ij->i", normals[voted], plane[:, :3]) > np.cos(np.radians(MAX_SNAP_ANGLE_DEG))
    near = facing & (np.abs(signed_distance) < tolerance_m)
    vertices = mesh.vertices_world.copy()
    vertices[voted[near]] -= signed_distance[near, None] * plane[near, :3]
    return replace(mesh, vertices_world=vertices)
