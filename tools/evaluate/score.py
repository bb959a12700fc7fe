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
from quoin.tools.evaluate.reference_surface import (
    SurfaceGeometry,
    in_box,
    nearest_on_surface,
    point_spacing,
    voxel_downsample,
)

Array = np.ndarray
DEFAULT_DISTANCE_SHARES = (0.0025, 0.005, 0.01)  # of the diagonal, where no distances are asked for


def score_surface(
    reconstruction: SurfaceGeometry,
    reference: SurfaceGeometry,
    distances_m: Sequence[float] = (),
    *,
    n_samples: int = 400_000,
    seed: int = 0,
) -> SurfaceScore:
    """Compare two surfaces in one frame; ``distances_m`` defaults to DEFAULT_DISTANCE_SHARES of the reference's
    diagonal.

    The same seed gives the same numbers. A reconstruction with nothing in the reference's box scores 0.
    """
    rng = np.random.default_rng(seed)
    low, high = reference.bounds()
    diagonal = float(np.linalg.norm(high - low))
    distances = sorted(distances_m) or [share * diagonal for share in DEFAULT_DISTANCE_SHARES]

    reference_spacing = 0.0
    if reference.is_points:
        reference = SurfaceGeometry(voxel_downsample(reference.vertices, distances[0] / 2), reference.faces)
        reference_spacing = point_spacing(reference.vertices, rng)
    reference_points, reference_faces = reference.sample(n_samples, rng)
    cropped = reconstruction.clipped(low - distances[-1], high + distances[-1])
    points, face = cropped.sample(n_samples, rng)

    accuracy = completeness = consistency = chamfer = None
    precisions = [0.0] * len(distances)
    if len(points):
        distances_to_reference, reference_normals = nearest_on_surface(reference, points)
        judged = [in_box(points, low - distance, high + distance) for distance in distances]
        precisions = [
            _share(distances_to_reference[kept] < distance) for kept, distance in zip(judged, distances, strict=True)
        ]
        completeness, reconstruction_normals = nearest_on_surface(cropped, reference_points)
        if judged[0].any():
            accuracy = distances_to_reference[judged[0]]
            chamfer = float(accuracy.mean() + completeness.mean()) / 2
            if reference_normals is not None and reconstruction_normals is not None:
                forward_dots = (cropped.face_normals(face) * reference_normals)[judged[0]]
                backward_dots = reference.face_normals(reference_faces) * reconstruction_normals
                consistency = float(
                    np.mean([np.abs(part.sum(axis=1)).mean() for part in (forward_dots, backward_dots)])
                )
    recalls = [0.0 if completeness is None else _share(completeness < distance) for distance in distances]
    total_area = _area_or_count(reconstruction)
    margin = 1e-6 * diagonal  # what lies on a side of the box is in it
    area_in_box = _area_or_count(reconstruction.clipped(low - margin, high + margin))
    return SurfaceScore(
        diagonal_m=diagonal,
        scores=[_distance_score(*numbers, diagonal) for numbers in zip(distances, precisions, recalls, strict=True)],
        accuracy_mean_m=_statistic(np.mean, accuracy),
        accuracy_median_m=_statistic(np.median, accuracy),
        completeness_mean_m=_statistic(np.mean, completeness),
        completeness_median_m=_statistic(np.median, completeness),
        chamfer_m=chamfer,
        normal_consistency=consistency,
        cropped_share=1.0 - area_in_box / total_area if total_area else 0.0,
        n_reconstruction=len(points),
        n_reference=len(reference_points),
        reference_spacing_m=reference_spacing,
    )


def _area_or_count(surface: SurfaceGeometry) -> float:
    return float(len(surface.vertices)) if surface.is_points else float(surface.face_areas().sum())


def _share(hits: Bool[Array, "n"]) -> float:
    return float(hits.mean()) if len(hits) else 0.0


def _statistic(statistic: Callable[[Array], Array], distances: Float[Array, "n"] | None) -> float | None:
    return None if distances is None else float(statistic(distances))


def _distance_score(distance: float, precision: float, recall: float, diagonal: float) -> DistanceScore:
    total = precision + recall
    return DistanceScore(
        distance_m=distance,
        distance_percent=100 * distance / diagonal,
        precision=precision,
        recall=recall,
        f=2 * precision * recall / total if total else 0.0,
    )
