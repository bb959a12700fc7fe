"""Two surfaces compared, by the protocol of Tanks and Temples (Knapitsch et al. 2017), with exact distances.

1. Only what lies in the reference's bounding box is judged; the share of the reconstruction's area outside is told. For
   precision at d the box is grown by d: ground that goes on beyond the box is not held against the reconstruction, a
   roof a little too high is. The reference should hold only what the cameras could see.
2. Points are drawn evenly by area on both surfaces (seeded). Bare reference points are first thinned to one per cube
   of half the smallest distance, so that dense regions do not weigh more.
3. precision(d) = share of reconstruction points nearer than d to the reference surface; recall(d) = share of reference
   points nearer than d to the reconstruction; F(d) = 2 P R / (P + R). Accuracy (in the box grown by the smallest d)
   and completeness are the same distances, mean and median, not capped; Chamfer is the mean of their two means.
4. Normal consistency: mean |cos| between the normals of a point and of its nearest point, both ways averaged
   (Mescheder et al. 2019, eq. 7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float

from quoin.tools.evaluate.config import DistanceScore, SurfaceScore
from quoin.tools.evaluate.reference_surface import Surface, inside, nearest, spacing, thinned

Array = np.ndarray
SHARES = (0.0025, 0.005, 0.01)  # of the diagonal, where no distances are asked for


def score(
    reconstruction: Surface,
    reference: Surface,
    distances_m: Sequence[float] = (),
    *,
    n_samples: int = 400_000,
    seed: int = 0,
) -> SurfaceScore:
    """Compare two surfaces in one frame; ``distances_m`` defaults to SHARES of the reference's diagonal.

    The same seed gives the same numbers. A reconstruction with nothing in the reference's box scores 0.
    """
    rng = np.random.default_rng(seed)
    low, high = reference.bounds()
    diagonal = float(np.linalg.norm(high - low))
    distances = sorted(distances_m) or [share * diagonal for share in SHARES]

    gap = 0.0
    if reference.is_points:
        reference = Surface(thinned(reference.vertices, distances[0] / 2), reference.faces)
        gap = spacing(reference.vertices, rng)
    asked, asked_face = reference.sample(n_samples, rng)
    near = reconstruction.clipped(low - distances[-1], high + distances[-1])
    points, face = near.sample(n_samples, rng)

    accuracy = completeness = consistency = chamfer = None
    precisions = [0.0] * len(distances)
    if len(points):
        off, reference_normals = nearest(reference, points)
        judged = [inside(points, low - distance, high + distance) for distance in distances]
        precisions = [_share(off[kept] < distance) for kept, distance in zip(judged, distances, strict=True)]
        completeness, near_normals = nearest(near, asked)
        if judged[0].any():
            accuracy = off[judged[0]]
            chamfer = float(accuracy.mean() + completeness.mean()) / 2
            if reference_normals is not None and near_normals is not None:
                there = (near.face_normals(face) * reference_normals)[judged[0]]
                back = reference.face_normals(asked_face) * near_normals
                consistency = float(np.mean([np.abs(part.sum(axis=1)).mean() for part in (there, back)]))
    recalls = [0.0 if completeness is None else _share(completeness < distance) for distance in distances]
    whole = _extent(reconstruction)
    hair = 1e-6 * diagonal  # what lies on a side of the box is in it
    left = _extent(reconstruction.clipped(low - hair, high + hair))
    return SurfaceScore(
        diagonal_m=diagonal,
        scores=[_at(*numbers, diagonal) for numbers in zip(distances, precisions, recalls, strict=True)],
        accuracy_mean_m=_of(np.mean, accuracy),
        accuracy_median_m=_of(np.median, accuracy),
        completeness_mean_m=_of(np.mean, completeness),
        completeness_median_m=_of(np.median, completeness),
        chamfer_m=chamfer,
        normal_consistency=consistency,
        cropped_share=1.0 - left / whole if whole else 0.0,
        n_reconstruction=len(points),
        n_reference=len(asked),
        reference_spacing_m=gap,
    )


def _extent(surface: Surface) -> float:
    return float(len(surface.vertices)) if surface.is_points else float(surface.face_areas().sum())


def _share(hits: Bool[Array, "n"]) -> float:
    return float(hits.mean()) if len(hits) else 0.0


def _of(statistic: Callable[[Array], Array], distances: Float[Array, "n"] | None) -> float | None:
    return None if distances is None else float(statistic(distances))


def _at(distance: float, precision: float, recall: float, diagonal: float) -> DistanceScore:
    both = precision + recall
    return DistanceScore(
        distance_m=distance,
        distance_percent=100 * distance / diagonal,
        precision=precision,
        recall=recall,
        f=2 * precision * recall / both if both else 0.0,
    )
