"""Snapping of vertices to the planes of textureless surfaces that photos show there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from quoin.stages.fuse.mesh import Mesh

Array = np.ndarray

MIN_VOTE_LEAD = 2  # photos that show the plane, more than show others
MAX_SNAP_ANGLE_DEG = 45.0  # between the normals of plane and vertex: a trained surface ripples where it is flat


@dataclass
class PlaneVotes:
    """Majority plane of the photos of every vertex, and a lower bound of its lead over all others.

    Photos are added one at a time (Boyer and Moore 1981): a plane that more than half of them show is found.
    """

    plane_index: Int[Array, "v"]
    lead: Int[Array, "v"]

    @classmethod
    def empty(cls, n_vertices: int) -> PlaneVotes:
        return cls(np.full(n_vertices, -1, np.int32), np.zeros(n_vertices, np.int32))

    def add(self, vertex: Int[Array, "n"], plane_index: Int[Array, "n"]) -> None:
        """Add a photo: vertices, and the index of the plane it shows at each."""
        same = self.plane_index[vertex] == plane_index
        lead = self.lead[vertex] + np.where(same, 1, -1)
        self.plane_index[vertex] = np.where(lead < 0, plane_index, self.plane_index[vertex])
        self.lead[vertex] = np.abs(lead)


def snap_to_planes(
    mesh: Mesh, votes: PlaneVotes, planes_world: Float[Array, "k 4"], normals: Float[Array, "v 3"], tolerance_m: float
) -> Mesh:
    """The mesh with vertices moved along the normal onto the plane that their photos show.

    Only vertices within ``tolerance_m`` of the plane, and with a similar normal, are moved. Rows of ``planes_world``
    are (n, offset) with n · x = offset.
    """
    voted = np.flatnonzero(votes.lead >= MIN_VOTE_LEAD)
    plane = planes_world[votes.plane_index[voted]]
    signed_distance = np.einsum("ij,ij->i", mesh.vertices_world[voted], plane[:, :3]) - plane[:, 3]
    facing = np.einsum("ij,ij->i", normals[voted], plane[:, :3]) > np.cos(np.radians(MAX_SNAP_ANGLE_DEG))
    near = facing & (np.abs(signed_distance) < tolerance_m)
    vertices = mesh.vertices_world.copy()
    vertices[voted[near]] -= signed_distance[near, None] * plane[near, :3]
    return replace(mesh, vertices_world=vertices)
