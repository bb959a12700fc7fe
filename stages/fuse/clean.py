"""What of a raw surface is kept: where photos see it and agree on its colour, in pieces of some size."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from quoin.pipeline.geometry.mesh import face_components
from quoin.stages.fuse.mesh import Mesh
from quoin.stages.fuse.vertex_confidence import color_agreement_weight

Array = np.ndarray

SUPPORT_ITERATIONS = (
    30  # agreement of colours is averaged over about as many vertices around as the square root of this
)
VOTE_ITERATIONS = 100  # and stereo's votes
VISIBILITY_ITERATIONS, MIN_VISIBLE_SHARE = 5, 0.5  # of the vertices nearest to one, that some photo sees
MAX_VERTEX_VOTES = 3  # votes; more for one vertex say no more of its neighbours
NO_DEPTH_WEIGHT = 0.03  # of a photo whose stereo confirms
SINGLE_VIEW_AGREEMENT = 0.5  # of a vertex that one photo sees
MIN_TYPICAL_VIEWS = 4  # vertices seen by so many photos tell what disagreement is usual


def typical_disagreement(views: Int[Array, "v"], disagreement: Float[Array, "v"]) -> float:
    """The median over vertices that many photos see, 1 (of 255) at least; ``disagreement`` as of ``vertex_colors``."""
    is_well_seen = views >= min(MIN_TYPICAL_VIEWS, int(views.max(initial=0)))
    return max(float(np.median(disagreement[is_well_seen])), 1.0) if is_well_seen.any() else 1.0


def color_agreement(views: Int[Array, "v"], disagreement: Float[Array, "v"], typical: float) -> Float[Array, "v"]:
    """How far the photos of each vertex agree on its colour, 0..1.

    They agree in full where they disagree no more than is ``typical`` in this collection (u), and e^(1/2) less for
    every u more.
    """
    return np.where(views >= 2, color_agreement_weight(disagreement, typical), SINGLE_VIEW_AGREEMENT)


def color_support(views: Int[Array, "v"], agreed: Float[Array, "v"], faces: Int[Array, "f 3"]) -> Float[Array, "v"]:
    """How many photos see and confirm the surface around each vertex: a surface in the wrong place takes other colours
    from every photo.

    The count is averaged along the surface, for support does not end from one vertex to the next.
    """
    return diffuse(views * agreed, faces, SUPPORT_ITERATIONS)


def stereo_support(
    votes: Int[Array, "v"],
    no_depth: Int[Array, "v"],
    views: Int[Array, "v"],
    agreed: Float[Array, "v"],
    faces: Int[Array, "f 3"],
) -> Float[Array, "v"]:
    """By how many more photos their stereo confirms the surface around each vertex than they see through it.

    A photo that sees it, and whose stereo is ``no_depth`` there, counts NO_DEPTH_WEIGHT where colours agree. It is
    averaged along the surface, farther than support is: chance matches make surfaces too, each confirmed by the one or
    two photos that made it, but in patches, and others see through what lies between; a surface that only two photos
    show between heads is as weakly confirmed, but all over. Colours alone cannot tell, for who looks at a crowd sees
    other colours in the true place too. -inf where nobody sees (``views``) most of what lies nearest: the back of a
    surface, which would take its front's votes around the rim.
    """
    vertex_support = diffuse(
        np.minimum(votes, MAX_VERTEX_VOTES) + NO_DEPTH_WEIGHT * no_depth * agreed, faces, VOTE_ITERATIONS
    )
    return np.where(diffuse(views > 0, faces, VISIBILITY_ITERATIONS) > MIN_VISIBLE_SHARE, vertex_support, -np.inf)


def mostly_sky(views: Int[Array, "v"], sky: Int[Array, "v"], faces: Int[Array, "f 3"]) -> Bool[Array, "f"]:
    """Faces in whose place more photos see sky than surface."""
    return sky[faces].sum(axis=1) > views[faces].sum(axis=1)


def diffuse(values: Shaped[Array, "v"], faces: Int[Array, "f 3"], iterations: int) -> Float[Array, "v"]:
    """Values averaged ``iterations`` times over each vertex and its neighbours along the edges."""
    from scipy.sparse import coo_array

    n = len(values)
    ends = faces[:, [0, 1, 2, 1, 2, 0]], faces[:, [1, 2, 0, 0, 1, 2]]  # both ways
    around = coo_array((np.ones(ends[0].size, np.float32), tuple(end.ravel() for end in ends)), shape=(n, n)).tocsr()
    share = 1.0 / (1.0 + around @ np.ones(n, np.float32))
    out = values.astype(np.float32)
    for _ in range(iterations):
        out = (out + around @ out) * share
    return out


def supported_faces(
    mesh: Mesh, vertex_support: Float[Array, "v"], min_support: float, hole_diameter: float, cut: Bool[Array, "v"]
) -> Bool[Array, "f"]:
    """Faces with a vertex of at least ``min_support`` support, and gaps smaller than ``hole_diameter`` between them.

    A gap that reaches a vertex where the mesh is ``cut`` may be of any size.
    """
    keep = vertex_support[mesh.faces].max(axis=1, initial=-np.inf) >= min_support
    rim = np.zeros(len(mesh.vertices_world), bool)
    rim[mesh.faces[keep]] = True
    gaps = np.flatnonzero(~keep)
    diameter, component = component_diameters(mesh.vertices_world, mesh.faces[gaps])
    if len(diameter) == 0:
        return keep
    touches = np.zeros(len(diameter), bool)
    touches[component[rim[mesh.faces[gaps]].any(axis=1)]] = True
    whole = np.ones(len(diameter), bool)
    whole[component[cut[mesh.faces[gaps]].any(axis=1)]] = False
    keep[gaps] = (touches & whole & (diameter < hole_diameter))[component]
    return keep


def component_diameters(
    vertices_world: Float[Array, "v 3"], faces: Int[Array, "f 3"]
) -> tuple[Float[Array, "p"], Int[Array, "f"]]:
    """Diagonal of the bounding box of every connected piece, and the piece of every face."""
    count, component = face_components(faces, len(vertices_world))
    if count == 0:
        return np.zeros(0), component
    of_vertex = np.full(len(vertices_world), count)
    of_vertex[faces] = component[:, None]
    order = np.argsort(of_vertex, kind="stable")
    ends = np.searchsorted(of_vertex[order], np.arange(count + 1))
    points = vertices_world[order[: ends[-1]]]
    extent = np.maximum.reduceat(points, ends[:-1]) - np.minimum.reduceat(points, ends[:-1])
    return np.linalg.norm(extent, axis=1), component
