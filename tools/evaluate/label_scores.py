"""How well floor, ceiling, walls and the rest come out, each alone, where the reference tells them apart.

Points are drawn evenly by area on the reference (seeded), as in ``score.py``. Of each label: recall(d) is the share of
its points nearer than d to the reconstruction; the normal error is the angle between the normal there and that of the
nearest point of the reconstruction, whichever way either is turned (0..90°), over the points that have one within the
largest d.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.imaging.labels import KIND_NAMES
from quoin.tools.evaluate.config import LabelScore
from quoin.tools.evaluate.reference_surface import Surface, nearest

Array = np.ndarray


def normal_errors_deg(normals: Float[Array, "n 3"], truth: Float[Array, "n 3"]) -> Float[Array, "n"]:
    """Angles 0..90° between unit normals, whichever way they are turned; by the sine, which is exact for small ones."""
    sine = np.linalg.norm(np.cross(normals, truth), axis=1)
    return np.degrees(np.arctan2(sine, np.abs((normals * truth).sum(axis=1))))


def score_labels(
    reconstruction: Surface,
    reference: Surface,
    labels: Int[Array, "f"],
    distances_m: Sequence[float],
    *,
    n_samples: int = 400_000,
    seed: int = 0,
) -> tuple[LabelScore, ...]:
    """A score for each label (KIND_NAMES) among ``labels`` of the reference's faces; both surfaces in one frame.

    Faces without area, and a reconstruction of bare points, tell no normals.
    """
    points, face = reference.sample(n_samples, np.random.default_rng(seed))
    normals, areas = reference.face_normals(face), reference.face_areas()
    off = np.full(len(points), np.inf)
    errors = np.full(len(points), np.nan)
    if len(reconstruction.vertices):
        off, near = nearest(reconstruction, points)
        if near is not None:
            known = np.linalg.norm(near, axis=1) > 0.5
            errors = np.where(known, normal_errors_deg(near, normals), np.nan)
    scores = []
    for label, name in KIND_NAMES.items():
        mine = labels[face] == label
        if not mine.any():
            continue
        judged = errors[mine & (off < max(distances_m))]
        judged = judged[np.isfinite(judged)]
        scores.append(
            LabelScore(
                label=name,
                share=float(areas[labels == label].sum() / areas.sum()),
                recall=[float((off[mine] < distance).mean()) for distance in distances_m],
                normal_median_deg=float(np.median(judged)) if len(judged) else None,
            )
        )
    return tuple(scores)
