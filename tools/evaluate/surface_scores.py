"""Precision, recall and F-score of a surface against a reference, as in Tanks and Temples (Knapitsch et al. 2017).

1. Only what lies in the reference's bounding box is judged; the share of the reconstruction's area outside is reported.
   For precision at d the box is grown by d: ground that continues beyond the box does not count against the
   reconstruction, but a roof a little too high does. The reference should hold only what the cameras could see.
2. Points are drawn evenly by area on both surfaces (seeded). Bare reference points are first thinned to one per cube
   of half the smallest distance, so that dense regions do not weigh more.
3. Distances are exact. precision(d) = share of reconstruction points nearer than d to the reference surface;
   recall(d) = share of reference points nearer than d to the reconstruction; F(d) = 2 P R / (P + R). Accuracy (in the
   box grown by the smallest d) and completeness are the same distances, mean and median, not capped; Chamfer is the
   mean of their two means.
4. Normal consistency: mean |cos| between the normals of a point and of its nearest point, both ways averaged
   (Mescheder et al. 2019, eq. 7).
5. By confidence: the vertices in the box, grown by the smallest distance, are ordered by confidence and split into four
   bins of equal number; with a meaningful confidence the errors fall from bin to bin. The part of the surface whose
   confidence is above 0.5 is also scored alone: it should gain precision and lose little recall.
6. By label, where the reference labels its faces (floor, ceiling, walls, the rest): recall(d) of its points; the normal
   error is the angle between the normal there and that of the nearest point of the reconstruction, whichever way
   either is turned (0..90°), over the points that have one within the largest d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.imaging.labels import SURFACE_LABEL_NAMES
from quoin.pipeline.scene.mesh_formats import confident_faces
from quoin.tools.evaluate.config import ConfidenceBin, ConfidenceScore, DistanceScore, LabelScore, SurfaceScore
from quoin.tools.evaluate.reference_surface import (
    SurfaceGeometry,
    in_box,
    nearest_on_surface,
    point_spacing,
    voxel_downsample,
)

Array = np.ndarray

DEFAULT_DISTANCE_SHARES = (0.0025, 0.005, 0.01)  # of the diagonal, where no distances are given

N_CONFIDENCE_BINS = 4


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
