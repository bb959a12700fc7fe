"""What of a raw surface is kept: where photos see it and agree on its colour, in pieces of some size."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from stages.fuse.evidence import agreement
from stages.fuse.mesh import Mesh, components

Array = np.ndarray

SPREAD_ROUNDS = 30  # support is averaged over about as many vertices around as the square root of this
SILENT = 0.1  # of a photo whose stereo confirms
UNKNOWN_AGREEMENT = 0.5  # of a vertex that one photo sees
WELL_SEEN = 4  # vertices seen by so many photos tell what disagreement is usual


def usual_disagreement(views: Int[Array, "v"], disagreement: Float[Array, "v"]) -> float:
    """The median over vertices that many photos see, 1 (of 255) at least; ``disagreement`` as of ``vertex_colors``."""
    well = views >= min(WELL_SEEN, int(views.max(initial=0)))
    return max(float(np.median(disagreement[well])), 1.0) if well.any() else 1.0


def colour_agreement(views: Int[Array, "v"], disagreement: Float[Array, "v"], usual: float) -> Float[Array, "v"]:
    """How far the photos of each vertex agree on its colour, 0..1.

    They agree in full where they disagree no more than is ``usual`` in this collection (u), and e^(1/2) less for every
    u more.
    """
    return np.where(views >= 2, agreement(disagreement, usual), UNKNOWN_AGREEMENT)


def support(views: Int[Array, "v"], agreed: Float[Array, "v"], faces: Int[Array, "f 3"]) -> Float[Array, "v"]:
    """How many photos see and confirm the surface around each vertex: a surface in the wrong place takes other colours
    from every photo.

    The count is averaged along the surface, for support does not end from one vertex to the next.
    """
    return diffuse(views * agreed, faces, SPREAD_ROUNDS)


def confirmed(
    votes: Int[Array, "v"], silent: Int[Array, "v"], agreed: Float[Array, "v"], faces: Int[Array, "f 3"]
) -> Float[Array, "v"]:
    """By how many more photos their stereo confirms the surface around each vertex than they see through it.

    A photo that sees it, and whose stereo is ``silent`` there, counts SILENT where colours agree. It is averaged along
    the surface as support is. Chance matches make surfaces too, each of them confirmed by the one or two photos that
    made it; colours alone cannot tell, for who looks at a crowd sees other colours in the true place too.
    """
    return diffuse(votes + SILENT * silent * agreed, faces, SPREAD_ROUNDS)


def mostly_sky(views: Int[Array, "v"], sky: Int[Array, "v"], faces: Int[Array, "f 3"]) -> Bool[Array, "f"]:
    """Faces in whose place more photos see sky than surface."""
    return sky[faces].sum(axis=1) > views[faces].sum(axis=1)


def diffuse(values: Float[Array, "v"], faces: Int[Array, "f 3"], rounds: int) -> Float[Array, "v"]:
    """Values averaged ``rounds`` times over each vertex and its neighbours along the edges."""
    from scipy.sparse import coo_array

    n = len(values)
    rows = np.concatenate([faces[:, 0], faces[:, 1], faces[:, 2]])
    cols = np.concatenate([faces[:, 1], faces[:, 2], faces[:, 0]])
    weight = np.ones(len(rows), np.float32)
    along = coo_array((weight, (rows, cols)), shape=(n, n)).tocsr()
    back = along.T.tocsr()
    share = (1.0 / (1.0 + along @ np.ones(n, np.float32) + back @ np.ones(n, np.float32))).astype(np.float32)
    out = values.astype(np.float32)
    for _ in range(rounds):
        out = (out + along @ out + back @ out) * share
    return out


def supported_faces(
    mesh: Mesh, found: Float[Array, "v"], least: float, hole_diameter: float, cut: Bool[Array, "v"]
) -> Bool[Array, "f"]:
    """Faces with a vertex of at least ``least`` support, and gaps smaller than ``hole_diameter`` between them.

    A gap that reaches a vertex where the mesh is ``cut`` may be of any size.
    """
    keep = found[mesh.faces].max(axis=1, initial=-np.inf) >= least
    rim = np.zeros(len(mesh.vertices_world), bool)
    rim[mesh.faces[keep]] = True
    gaps = np.flatnonzero(~keep)
    diameter, piece = piece_diameters(mesh.vertices_world, mesh.faces[gaps])
    if len(diameter) == 0:
        return keep
    touches = np.zeros(len(diameter), bool)
    touches[piece[rim[mesh.faces[gaps]].any(axis=1)]] = True
    whole = np.ones(len(diameter), bool)
    whole[piece[cut[mesh.faces[gaps]].any(axis=1)]] = False
    keep[gaps] = (touches & whole & (diameter < hole_diameter))[piece]
    return keep


def piece_diameters(
    vertices_world: Float[Array, "v 3"], faces: Int[Array, "f 3"]
) -> tuple[Float[Array, "p"], Int[Array, "f"]]:
    """Diagonal of the bounding box of every connected piece, and the piece of every face."""
    count, piece = components(faces, len(vertices_world))
    if count == 0:
        return np.zeros(0), piece
    of_vertex = np.full(len(vertices_world), count)
    of_vertex[faces] = piece[:, None]
    order = np.argsort(of_vertex, kind="stable")
    ends = np.searchsorted(of_vertex[order], np.arange(count + 1))
    points = vertices_world[order[: ends[-1]]]
    extent = np.maximum.reduceat(points, ends[:-1]) - np.minimum.reduceat(points, ends[:-1])
    return np.linalg.norm(extent, axis=1), piece
