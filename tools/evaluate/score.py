"""Two surfaces compared, by the protocol of Tanks and Temples (Knapitsch et al. 2017), with exact distances.

1. Only what lies in the reference's bounding box is judged; the share of the reconstruction's area outside is reported.
   For precision at d the box is grown by d: ground that continues beyond the box does not count against the
   reconstruction, but a roof a little too high does. The reference should hold only what the cameras could see.
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
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.tools.evaluate.config import DistanceScore, SurfaceScore
from quoin.tools.evaluate.reference_surface import (
    SurfaceGeometry,
    in_box,
    nearest_on_surface,
    point_spacing,
    voxel_downsample,
)

Array = np.ndarray
DEFAULT_DISTANCE_SHARES = (0.0025, 0.005, 0.01)  # of the diagonal, where no distances are given


class SampledSurface(NamedTuple):
    """A surface, points drawn on it, and the face of each point."""

    surface: SurfaceGeometry
    points: Float[Array, "n 3"]
    faces: Int[Array, "n"]


@dataclass(frozen=True)
class _SampleDistances:
    """Distances of points drawn on one surface to the other; empty or None where no part of it is judged."""

    precisions: list[float]  # at each distance
    accuracy: Float[Array, "n"] | None = None  # from the reconstruction, in the box grown by the smallest distance
    completeness: Float[Array, "m"] | None = None  # from the reference
    normal_consistency: float | None = None

    def recall(self, distance: float) -> float:
        """Share of the reference points nearer than ``distance`` to the reconstruction."""
        return 0.0 if self.completeness is None else _share(self.completeness < distance)

    def chamfer(self) -> float | None:
        """Mean of the mean accuracy and the mean completeness."""
        if self.accuracy is None or self.completeness is None:
            return None
        return float(self.accuracy.mean() + self.completeness.mean()) / 2


def score_surface(
    reconstruction: SurfaceGeometry,
    reference: SurfaceGeometry,
    distances_m: Sequence[float] = (),
    *,
    n_samples: int = 400_000,
    seed: int = 0,
) -> SurfaceScore:
    """Compare two surfaces in one frame, at ``distances_m`` or DEFAULT_DISTANCE_SHARES of the reference's diagonal.

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
    true_sample = SampledSurface(reference, *reference.sample(n_samples, rng))
    cropped = reconstruction.clipped(low - distances[-1], high + distances[-1])
    sample = SampledSurface(cropped, *cropped.sample(n_samples, rng))
    judged = [in_box(sample.points, low - distance, high + distance) for distance in distances]
    measured = _measure_samples(sample, true_sample, judged, distances)

    total_area = _area_or_count(reconstruction)
    margin = 1e-6 * diagonal  # what lies on a side of the box is in it
    area_in_box = _area_or_count(reconstruction.clipped(low - margin, high + margin))
    return SurfaceScore(
        diagonal_m=diagonal,
        scores=[
            _distance_score(distance, precision, measured.recall(distance), diagonal)
            for distance, precision in zip(distances, measured.precisions, strict=True)
        ],
        accuracy_mean_m=_statistic(np.mean, measured.accuracy),
        accuracy_median_m=_statistic(np.median, measured.accuracy),
        completeness_mean_m=_statistic(np.mean, measured.completeness),
        completeness_median_m=_statistic(np.median, measured.completeness),
        chamfer_m=measured.chamfer(),
        normal_consistency=measured.normal_consistency,
        cropped_share=1.0 - area_in_box / total_area if total_area else 0.0,
        n_reconstruction=len(sample.points),
        n_reference=len(true_sample.points),
        reference_spacing_m=reference_spacing,
    )


def _measure_samples(
    reconstruction: SampledSurface,
    reference: SampledSurface,
    judged: list[Bool[Array, "n"]],
    distances: Sequence[float],
) -> _SampleDistances:
    """Distances between two surfaces at their samples; ``judged``: which of the first's count at each distance."""
    surface, points, faces = reconstruction
    true_surface, true_points, true_faces = reference
    if not len(points):
        return _SampleDistances([0.0] * len(distances))
    distances_to_reference, reference_normals = nearest_on_surface(true_surface, points)
    completeness, reconstruction_normals = nearest_on_surface(surface, true_points)
    precisions = [
        _share(distances_to_reference[counted] < distance) for counted, distance in zip(judged, distances, strict=True)
    ]
    if not judged[0].any():
        return _SampleDistances(precisions, completeness=completeness)
    consistency = None
    if reference_normals is not None and reconstruction_normals is not None:
        forward_dots = (surface.face_normals(faces) * reference_normals)[judged[0]]
        backward_dots = true_surface.face_normals(true_faces) * reconstruction_normals
        consistency = float(np.mean([np.abs(dots.sum(axis=1)).mean() for dots in (forward_dots, backward_dots)]))
    return _SampleDistances(precisions, distances_to_reference[judged[0]], completeness, consistency)


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
        f_score=2 * precision * recall / total if total else 0.0,
    )
