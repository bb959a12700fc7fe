"""Errors of a mesh's vertices by their confidence: whether the confidence tells right from wrong.

The vertices in the reference's bounding box, grown by the smallest distance, are ordered by confidence and split into
four bins of equal number; with a meaningful confidence the errors fall from bin to bin. The part of the surface whose
confidence is above 0.5 is also scored alone, as ``score.py`` scores all of it: it should gain precision and lose little
recall.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float

from quoin.pipeline.scene.mesh_formats import confident_faces
from quoin.tools.evaluate.config import ConfidenceBin, ConfidenceScore, SurfaceScore
from quoin.tools.evaluate.reference_surface import SurfaceGeometry, in_box, nearest_on_surface
from quoin.tools.evaluate.score import score_surface

Array = np.ndarray
N_CONFIDENCE_BINS = 4


def score_confidence(
    mesh: SurfaceGeometry,
    confidence: Float[Array, "v"],
    reference: SurfaceGeometry,
    surface_score: SurfaceScore,
    *,
    n_samples: int = 400_000,
    seed: int = 0,
) -> ConfidenceScore | None:
    """Score ``mesh`` by its ``confidence``, in the frame of ``reference``, at the distances of ``surface_score``.

    None where fewer than N_CONFIDENCE_BINS vertices lie in the reference's box.
    """
    distances = [s.distance_m for s in surface_score.scores]
    low, high = reference.bounds()
    low, high = low - distances[0], high + distances[0]
    judged = np.flatnonzero(in_box(mesh.vertices, low, high))
    if len(judged) < N_CONFIDENCE_BINS:
        return None
    judged = judged[np.argsort(confidence[judged], kind="stable")]
    ends = np.linspace(0, len(judged), N_CONFIDENCE_BINS + 1).astype(int)
    quarters = [judged[a:b] for a, b in pairwise(ends)]
    sampled = [rows[:: -(-len(rows) // n_samples)] for rows in quarters]  # every k-th where there are many
    errors_m = nearest_on_surface(reference, mesh.vertices[np.concatenate(sampled)])[0]
    errors_by_bin = np.split(errors_m, np.cumsum([len(rows) for rows in sampled])[:-1])
    parts = [
        _score_bin(confidence[rows], errors, distances) for rows, errors in zip(quarters, errors_by_bin, strict=True)
    ]
    is_confident = confident_faces(confidence, mesh.faces)
    areas = mesh.face_areas()
    part = SurfaceGeometry(mesh.vertices if is_confident.any() else mesh.vertices[:0], mesh.faces[is_confident])
    confident_score = score_surface(part, reference, distances, n_samples=n_samples, seed=seed)
    return ConfidenceScore(
        parts=parts, confident_share=float(areas[is_confident].sum() / areas.sum()), confident=confident_score.scores
    )


def _score_bin(confidence: Float[Array, "n"], errors_m: Float[Array, "m"], distances: list[float]) -> ConfidenceBin:
    """One bin: ``confidence`` of its vertices in ascending order, and the errors of those that were compared."""
    return ConfidenceBin(
        low=float(confidence[0]),
        high=float(confidence[-1]),
        n_vertices=len(confidence),
        mean_m=float(errors_m.mean()),
        median_m=float(np.median(errors_m)),
        precision=[float((errors_m < distance).mean()) for distance in distances],
    )
