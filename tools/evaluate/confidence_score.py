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

from quoin.pipeline.scene.confidence import confident_faces
from quoin.tools.evaluate.config import ConfidencePart, ConfidenceScore, SurfaceScore
from quoin.tools.evaluate.reference_surface import Surface, inside, nearest
from quoin.tools.evaluate.score import score

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
    low, high = reference.bounds()
    low, high = low - distances[0], high + distances[0]
    judged = np.flatnonzero(inside(mesh.vertices, low, high))
    if len(judged) < PARTS:
        return None
    judged = judged[np.argsort(confidence[judged], kind="stable")]
    ends = np.linspace(0, len(judged), PARTS + 1).astype(int)
    quarters = [judged[a:b] for a, b in pairwise(ends)]
    asked = [rows[:: -(-len(rows) // n_samples)] for rows in quarters]  # of many vertices every k-th is compared
    off = nearest(reference, mesh.vertices[np.concatenate(asked)])[0]
    apart = np.split(off, np.cumsum([len(rows) for rows in asked])[:-1])
    parts = [_part(confidence[rows], errors, distances) for rows, errors in zip(quarters, apart, strict=True)]
    sure = confident_faces(confidence, mesh.faces)
    areas = mesh.face_areas()
    part = Surface(mesh.vertices if sure.any() else mesh.vertices[:0], mesh.faces[sure])
    found = score(part, reference, distances, n_samples=n_samples, seed=seed)
    return ConfidenceScore(parts=parts, confident_share=float(areas[sure].sum() / areas.sum()), confident=found.scores)


def _part(confidence: Float[Array, "n"], off: Float[Array, "m"], distances: list[float]) -> ConfidencePart:
    """Vertices of about one confidence, in the order of it, and how far those are off that were compared."""
    return ConfidencePart(
        low=float(confidence[0]),
        high=float(confidence[-1]),
        n_vertices=len(confidence),
        mean_m=float(off.mean()),
        median_m=float(np.median(off)),
        precision=[float((off < distance).mean()) for distance in distances],
    )
