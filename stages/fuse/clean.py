"""Selection of the faces of a raw surface that photos confirm: by visibility, color agreement, and stereo depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from quoin.pipeline.geometry.mesh import face_components
from quoin.stages.fuse.mesh import Mesh
from quoin.stages.fuse.vertex_attributes import color_agreement_weight

Array = np.ndarray


@dataclass(frozen=True)
class CleanParams:
    """Tuned numbers of deciding which faces the photos confirm."""

    # rounds of averaging color agreement over neighboring vertices; n rounds reach about √n edges
    support_iterations: int = 30
    vote_iterations: int = 100  # rounds of averaging stereo votes
    visibility_iterations: int = 5  # rounds of averaging visibility
    min_visible_share: float = 0.5  # of the vertices around one, that some photo sees
    max_vertex_votes: int = 3  # that one vertex contributes
    no_depth_weight: float = 0.03  # vote of a photo without stereo depth whose colors agree; a stereo depth counts 1
    single_view_agreement: float = 0.5  # color agreement of a vertex that one photo sees
    min_typical_views: int = 4  # photos of the vertices whose disagreement counts as typical


CLEAN_PARAMS = CleanParams()


def typical_disagreement(views: Int[Array, "v"], disagreement: Float[Array, "v"]) -> float:
    """Median color disagreement (``vertex_colors``) of the vertices that many photos see, at least 1 of 255."""
    is_well_seen = views >= min(CLEAN_PARAMS.min_typical_views, int(views.max(initial=0)))
    return max(float(np.median(disagreement[is_well_seen])), 1.0) if is_well_seen.any() else 1.0


def color_agreement(views: Int[Array, "v"], disagreement: Float[Array, "v"], typical: float) -> Float[Array, "v"]:
    """How much the photos of each vertex agree on its color, 0..1.

    1 where they disagree no more than is ``typical`` in this collection (u), and a factor e^(-1/2) for every u beyond.
    """
    return np.where(views >= 2, color_agreement_weight(disagreement, typical), CLEAN_PARAMS.single_view_agreement)


def color_support(views: Int[Array, "v"], agreed: Float[Array, "v"], faces: Int[Array, "f 3"]) -> Float[Array, "v"]:
    """Number of photos that see the surface around each vertex and agree on its color, averaged along the surface.

    A surface in a wrong place gets a different color from every photo. Averaging keeps the support from changing
    abruptly between vertices.
    """
    return diffuse(views * agreed, faces, CLEAN_PARAMS.support_iterations)


def stereo_support(
    votes: Int[Array, "v"],
    no_depth: Int[Array, "v"],
    views: Int[Array, "v"],
    agreed: Float[Array, "v"],
    faces: Int[Array, "f 3"],
) -> Float[Array, "v"]:
    """Photos whose stereo depth confirms the surface around each vertex, minus those that see through it.

    A photo that sees the vertex but has no stereo depth there (``no_depth``) counts little, where colors agree. Votes
    are averaged farther along the surface than colors: chance matches make surfaces too, each confirmed by the one or
    two photos that made it, but in patches between which others see through; a surface that only two photos show
    between people is as weakly confirmed, but everywhere. Colors alone do not tell, since behind a crowd they also
    differ in the true place. The support is -inf where no photo sees (``views``) most of the vertices around: the back
    of a surface, which would otherwise take votes of its front around the rim.
    """
    params = CLEAN_PARAMS
    votes = np.minimum(votes, params.max_vertex_votes) + params.no_depth_weight * no_depth * agreed
    is_visible = diffuse(views > 0, faces, params.visibility_iterations) > params.min_visible_share
    return np.where(is_visible, diffuse(votes, faces, params.vote_iterations), -np.inf)


def mostly_sky(views: Int[Array, "v"], sky: Int[Array, "v"], faces: Int[Array, "f 3"]) -> Bool[Array, "f"]:
    """Faces in whose place more photos show sky than surface."""
    return sky[faces].sum(axis=1) > views[faces].sum(axis=1)


def diffuse(values: Shaped[Array, "v"], faces: Int[Array, "f 3"], iterations: int) -> Float[Array, "v"]:
    """Values averaged ``iterations`` times over each vertex and its neighbors along edges."""
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
    """Faces with a vertex of at least ``min_support``, and those of gaps between them that are below ``hole_diameter``.

    A gap that reaches a vertex where the mesh is ``cut`` has an unknown size, and is not kept.
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
    """Diagonal of the bounding box of every connected component, and the component of every face."""
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
