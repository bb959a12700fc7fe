"""How well the photos know each vertex: how many see it, under which widest angle, and whether they agree on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.geometry.rays import normalize
from quoin.pipeline.imaging.filters import sample_nearest
from quoin.stages.fuse.visibility import VisibleVertices

Array = np.ndarray

STEREO_ERROR_SHARE = 0.006  # of the depth
SENSOR_SIGMAS = 2.0  # by which a sensor's depth may be off
HALF_CONFIDENCE_SINE = (
    0.5  # sin(angle / 2) · √views at which geometry gives half of the confidence: two photos 41 degrees apart
)


@dataclass
class ViewDirections:
    """For every vertex how many photos see it, and of their directions the two (unit vectors) that lie widest apart.

    Photos come one at a time. A new direction takes the place of the nearer of the two where it widens the angle: what
    remains is never wider than the widest pair of all, and in practice hardly narrower.
    """

    views: Int[Array, "v"]
    first: Float[Array, "v 3"]
    second: Float[Array, "v 3"]

    @classmethod
    def empty(cls, n_vertices: int) -> ViewDirections:
        empty = np.zeros((n_vertices, 3), np.float32)
        return cls(np.zeros(n_vertices, np.int32), empty, empty.copy())

    def add(self, vertex: Int[Array, "n"], direction: Float[Array, "n 3"]) -> None:
        """One photo more: the vertices it sees, and from each the unit vector towards it."""
        new = self.views[vertex] == 0
        self.first[vertex[new]] = self.second[vertex[new]] = direction[new]
        self.views[vertex] += 1
        a, b = self.first[vertex], self.second[vertex]
        between, to_a, to_b = (np.einsum("ij,ij->i", *pair) for pair in ((a, b), (a, direction), (b, direction)))
        wider = np.minimum(to_a, to_b) < between  # cosines: less is wider
        keep_a = wider & (to_a <= to_b)
        keep_b = wider & ~keep_a
        self.second[vertex[keep_a]] = direction[keep_a]
        self.first[vertex[keep_b]] = direction[keep_b]

    def angles(self) -> Float[Array, "v"]:
        """Radians between the two directions; 0 where fewer than two photos see the vertex."""
        chord = np.linalg.norm(self.first - self.second, axis=1)
        return 2 * np.arcsin(np.minimum(chord / 2, 1.0))


def depth_votes(
    visible: VisibleVertices, depth_map: Float[Array, "h w"], tolerance: float, sigma_per_unit: float | None = None
) -> Int[Array, "n"]:
    """What a photo's own depth map (0 = not known) says of vertices that it sees: 1 yes, -1 no, 0 nothing.

    Yes where it has the surface within its error of the vertex's depth, or ``tolerance``; no where it sees through, to
    what lies farther. Nearer depths say nothing: something stands before the vertex. Stereo's error at depth z is
    STEREO_ERROR_SHARE · z, that of a sensor SENSOR_SIGMAS · ``sigma_per_unit`` · z².
    """
    photo_depth = sample_nearest(depth_map, visible.uv)
    beyond = photo_depth - visible.depth
    share = STEREO_ERROR_SHARE if sigma_per_unit is None else SENSOR_SIGMAS * sigma_per_unit * visible.depth
    allowed = np.maximum(share * visible.depth, tolerance)
    return np.where(photo_depth == 0, 0, (np.abs(beyond) <= allowed).astype(np.int32) - (beyond > allowed))


def directions_to(center: Float[Array, "3"], vertices: Float[Array, "n 3"]) -> Float[Array, "n 3"]:
    """Unit vectors from ``vertices`` to a camera's ``center``, float32, both in one frame."""
    return normalize((center - vertices).astype(np.float32))


def color_agreement_weight(disagreement: Float[Array, "v"], typical: float) -> Float[Array, "v"]:
    """1 where the photos' colours differ no more than is usual (u), e^(1/2) less for every u more."""
    return np.exp(-np.maximum(disagreement - typical, 0) / (2 * typical))


def vertex_confidence(
    views: Int[Array, "v"], angles: Float[Array, "v"], disagreement: Float[Array, "v"], typical: float
) -> Float[Array, "v"]:
    """How far a vertex may be believed, 0..1: t² / (t² + SURE²) · agreement, t = sin(angle / 2) · √views.

    A point seen by two rays at an angle θ is known along their bisector to σ / (√2 sin(θ / 2)), σ across the rays (the
    least-squares intersection), and n photos in such a fan are √(n / 2) times better: t² is the inverse of the depth's
    variance. ``angles`` in radians, ``disagreement`` and ``typical`` (u) of colours, of 255: see
    ``colors.vertex_colors`` and ``clean.colour_agreement``. One photo gives 0.
    """
    information = np.sin(angles / 2) ** 2 * views
    geometric = information / (information + HALF_CONFIDENCE_SINE**2)
    return (geometric * color_agreement_weight(disagreement, typical)).astype(np.float32)
