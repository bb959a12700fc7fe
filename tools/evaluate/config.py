"""Settings of an evaluation, and its results."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from quoin.pipeline.core.config import StageConfig, StageResult


class EvaluateConfig(StageConfig):
    """How a run is compared with a reference. Lengths are in the reference's unit (metres where it has one)."""

    distances_m: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Distances at which precision, recall and F are given; empty: 0.25, 0.5 and 1 % of the reference's diagonal."""
    n_samples: int = Field(400_000, ge=1_000, le=10_000_000)
    """Points drawn on each surface."""


class DistanceScore(StageResult):
    """Precision, recall and F = 2PR / (P + R), all in 0..1, at one distance."""

    distance_m: float
    distance_percent: float  # of the reference's diagonal
    precision: float
    recall: float
    f_score: float


class PoseErrors(StageResult):
    """Cameras against their reference, after the same similarity that aligns the mesh."""

    n_reference: int  # cameras in the reference
    n_matched: int  # of them found among the posed photos by name
    n_inliers: int  # of them the similarity was fitted to
    spread_m: float  # largest distance between two matched reference cameras
    center_median_m: float
    center_max_m: float
    center_median_percent: float  # of the spread, as the next
    center_max_percent: float
    rotation_median_deg: float | None  # None where the reference gives no rotations, as the next
    rotation_max_deg: float | None


class SurfaceScore(StageResult):
    """Two surfaces compared by the protocol of ``surface_scores.py``; None where no part of the first is judged."""

    diagonal_m: float  # of the reference's bounding box
    scores: list[DistanceScore]
    accuracy_mean_m: float | None  # distance from the reconstruction to the reference
    accuracy_median_m: float | None
    completeness_mean_m: float | None  # distance from the reference to the reconstruction
    completeness_median_m: float | None
    chamfer_m: float | None  # mean of accuracy_mean_m and completeness_mean_m
    normal_consistency: float | None  # 0..1; None where the reference is points
    cropped_share: float  # of the reconstruction's area: outside the reference's box, so not judged
    n_reconstruction: int  # points drawn on the reconstruction
    n_reference: int  # points drawn on the reference
    reference_spacing_m: float  # median distance of neighbouring reference points; 0 where the reference is a mesh


class ConfidenceBin(StageResult):
    """Vertices of one range of confidence, a quarter of all that are judged: how far they are from the reference."""

    low: float  # least and greatest confidence among them
    high: float
    n_vertices: int
    mean_m: float
    median_m: float
    precision: list[float]  # at each of the distances that the surface is scored at


class ConfidenceScore(StageResult):
    """Whether confidence tells right from wrong: ``surface_scores.py`` states the measures."""

    parts: list[ConfidenceBin]  # least confident first
    confident_share: float  # of the area: faces whose corners are above 0.5 in the mean
    confident: list[DistanceScore]  # of that part of the surface alone


class LabelScore(StageResult):
    """Recall and normal error of one kind of surface; ``surface_scores.py`` states the measures."""

    label: str  # other, floor, ceiling or wall
    share: float  # of the reference's area
    recall: list[float]  # at each of the distances that the surface is scored at
    normal_median_deg: float | None  # None where nothing is within the largest of them


class ViewScore(StageResult):
    """Errors of the rendering of one held-out photo; ``view_scores.py`` states the measures."""

    photo: str
    psnr_db: float
    psnr_corrected_db: float  # after an affine change of colours fitted to the photo
    ssim: float
    used_share: float  # of its pixels, what its mask leaves


class ViewsResult(StageResult):
    """Errors of all held-out photos, and their means."""

    psnr_db: float
    psnr_corrected_db: float
    ssim: float
    photos: list[ViewScore]


class EvaluateResult(StageResult):
    """The evaluation of one run."""

    truth: str  # path of the reference surface
    cameras: str  # path of the reference cameras
    scale: float  # truth_from_world, with the next two
    rotation: list[list[float]]
    translation: list[float]
    surface: SurfaceScore
    poses: PoseErrors
    confidence: ConfidenceScore | None = None  # where the mesh has a confidence
    labels: tuple[LabelScore, ...] = ()  # where the reference has labels of its faces
    views: ViewsResult | None = None  # where views were evaluated
