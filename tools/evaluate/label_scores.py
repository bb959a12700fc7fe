"""Recall and normal error of floor, ceiling, walls and the rest, each alone, where the reference labels its faces.

Points are drawn evenly by area on the reference (seeded), as in ``score.py``. Of each label: recall(d) is the share of
its points nearer than d to the reconstruction; the normal error is the angle between the normal there and that of the
nearest point of the reconstruction, whichever way either is turned (0..90°), over the points that have one within the
largest d.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.imaging.labels import SURFACE_LABEL_NAMES
from quoin.tools.evaluate.config import LabelScore
from quoin.tools.evaluate.reference_surface import SurfaceGeometry, nearest_on_surface

Array = np.ndarray


def normal_errors_deg(normals: Float[Array, "n 3"], truth: Float[Array, "n 3"]) -> Float[Array, "n"]:
    """Angles 0..90° between unit normals of either sign; computed by the sine, which is exact for small angles."""
    sine = np.linalg.norm(np.cross(normals, truth), axis=1)
    return np.degrees(np.arctan2(sine, np.abs((normals * truth).sum(axis=1))))


def score_labels(
    reconstruction: SurfaceGeometry,
    reference: SurfaceGeometry,
    labels: Int[Array, "f"],
    distances_m: Sequence[float],
    *,
    n_samples: int = 400_000,
    seed: int = 0,
) -> tuple[LabelScore, ...]:
    """A score for each label (SURFACE_LABEL_NAMES) that the reference's faces have; both surfaces are in one frame.

    Faces without area, and a reconstruction of bare points, have no normals to compare.
    """
    points, face = reference.sample(n_samples, np.random.default_rng(seed))
    normals, areas = reference.face_normals(face), reference.face_areas()
    distances = np.full(len(points), np.inf)
    errors = np.full(len(points), np.nan)
    if len(reconstruction.vertices):
        distances, nearest_normals = nearest_on_surface(reconstruction, points)
        if nearest_normals is not None:
            has_normal = np.linalg.norm(nearest_normals, axis=1) > 0.5
            errors = np.where(has_normal, normal_errors_deg(nearest_normals, normals), np.nan)
    scores = []
    for label, name in SURFACE_LABEL_NAMES.items():
        is_label = labels[face] == label
        if not is_label.any():
            continue
        judged = errors[is_label & (distances < max(distances_m))]
        judged = judged[np.isfinite(judged)]
        scores.append(
            LabelScore(
                label=name,
                share=float(areas[labels == label].sum() / areas.sum()),
                recall=[float((distances[is_label] < distance).mean()) for distance in distances_m],
                normal_median_deg=float(np.median(judged)) if len(judged) else None,
            )
        )
    return tuple(scores)
