"""Whether a mesh knows where it is right: errors of its vertices by the confidence it claims for them.

Judged are the vertices in the reference's bounding box grown by the smallest distance. Ordered by confidence, they fall
into four parts of equal number; a confidence that means something has errors that fall from part to part. And the part
of the surface whose confidence is above 0.5 is scored alone, as ``score.py`` scores all of it: it should gain precision
and lose little recall.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float

from pipeline.confidence import confident_faces
from stages.evaluate.config import ConfidencePart, ConfidenceScore, SurfaceScore
from stages.evaluate.score import score
from stages.evaluate.surface import Nearest, Surface, inside

Array = np.ndarray
PARTS = 4


def score_confidence(
    mesh: Surface,
    confidence: Float[Array, "v"],
    reference: Surface,
    scored: SurfaceScore,
    *,
    n_samples: int = 400_000,
    seed: int = 0,
) -> ConfidenceScore | None:
    """``mesh`` with its ``confidence``, in the frame of ``reference``, at the distances it was ``scored`` at.

    None where fewer than PARTS vertices lie in the reference's box.
    """
    distances = [s.distance_m for s in scored.scores]
    corners = reference.vertices if reference.is_points else reference.vertices[np.unique(reference.faces)]
    low, high = corners.min(axis=0) - distances[0], corners.max(axis=0) + distances[0]
    judged = np.flatnonzero(inside(mesh.vertices, low, high))
    if len(judged) < PARTS:
        return None
    judged = judged[np.argsort(confidence[judged], kind="stable")]
    off, _ = Nearest(reference)(mesh.vertices[judged])
    ends = np.linspace(0, len(judged), PARTS + 1).astype(int)
    parts = [_part(confidence[judged[a:b]], off[a:b], distances) for a, b in pairwise(ends)]
    sure = confident_faces(confidence, mesh.faces)
    areas = mesh.face_areas()
    part = Surface(mesh.vertices if sure.any() else mesh.vertices[:0], mesh.faces[sure])
    found = score(part, reference, distances, n_samples=n_samples, seed=seed)
    return ConfidenceScore(parts=parts, confident_share=float(areas[sure].sum() / areas.sum()), confident=found.scores)


def _part(confidence: Float[Array, "n"], off: Float[Array, "n"], distances: list[float]) -> ConfidencePart:
    return ConfidencePart(
        low=float(confidence.min()),
        high=float(confidence.max()),
        n_vertices=len(off),
        mean_m=float(off.mean()),
        median_m=float(np.median(off)),
        precision=[float((off < distance).mean()) for distance in distances],
    )
