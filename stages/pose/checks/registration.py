"""The gate: which registered photos are really registered, and why the others are missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from quoin.pipeline.core.reasons import Reason, Rejection
from quoin.pipeline.geometry.cameras import centers_world
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.sparse_model import SparseModel

Array = np.ndarray

MAX_CENTER_DISTANCE_FACTOR = 100.0  # centres farther out than this many times the scene's size are no poses
MAX_PHOTO_ERROR_PX = 8.0  # median over a photo's observations; a good pose has under 2
FOCAL_RATIO_RANGE = (0.3, 5.0)  # of the long edge: wider is a fisheye, longer a telescope
MAX_RADIAL_DISTORTION = 0.6  # |k1| of a lens that a photo of buildings or objects is taken with


@dataclass(frozen=True)
class FilteredModel:
    """The model without the photos that failed, and why each of those was dropped, by photo id."""

    model: SparseModel
    dropped: dict[int, Rejection]


def residuals_px(model: SparseModel) -> Float[Array, "t"]:
    """Distance between every observation and its point's projection, in pixels of the photo; inf behind the camera."""
    points = model.points_sfm[model.track_point]
    poses = model.cam_from_sfm[model.track_photo]
    cam = np.einsum("tij,tj->ti", poses[:, :, :3], points) + poses[:, :, 3]
    error = np.full(len(cam), np.inf)
    is_in_front = cam[:, 2] > 1e-9
    for camera, rows in zip(model.cameras, model.observations_by_camera(), strict=True):
        in_front_rows = rows[is_in_front[rows]]
        projected_xy = camera.img_from_cam(cam[in_front_rows, :2] / cam[in_front_rows, 2:])
        error[in_front_rows] = np.linalg.norm(projected_xy - model.track_xy[in_front_rows], axis=1)
    return error


def photo_median_errors(model: SparseModel, errors: Float[Array, "t"]) -> Float[Array, "k"]:
    """Median reprojection error per photo; NaN where it observes nothing."""
    order = np.argsort(model.track_photo, kind="stable")
    parts = np.split(errors[order], np.cumsum(model.n_observations)[:-1])
    return np.array([np.median(part) if len(part) else np.nan for part in parts])


def filter_photos(model: SparseModel, min_points: int) -> FilteredModel:
    """Drop photos with few points, wild centres, large errors or impossible cameras, until all that are left pass."""
    dropped: dict[int, Rejection] = {}
    while len(model.photo_ids):
        rejections = _rejections(model, min_points)
        if not any(rejections):
            break
        dropped.update({int(i): why for i, why in zip(model.photo_ids, rejections, strict=True) if why})
        model = model.keep_photos(np.array([why is None for why in rejections]))
    return FilteredModel(model, dropped)


def _rejections(model: SparseModel, min_points: int) -> list[Rejection | None]:
    """Why each photo is to be dropped; None where it passes."""
    counts = model.n_observations
    medians = photo_median_errors(model, residuals_px(model))
    is_outlying = _is_outlying(model)
    uses = np.bincount(model.camera_index, minlength=len(model.cameras))
    has_bad_camera = [
        uses[i] == 1 and not model.cameras[i].prior_focal and bool(describe_bad_intrinsics(c))
        for i, c in enumerate(model.cameras)
    ]
    rejections: list[Rejection | None] = []
    for k, count in enumerate(counts):
        if count < min_points:
            rejections.append(Rejection(Reason.FEW_POINTS, f"{count} points"))
        elif is_outlying[k]:
            rejections.append(Rejection(Reason.FAR_OUTSIDE))
        elif medians[k] > MAX_PHOTO_ERROR_PX:
            rejections.append(Rejection(Reason.LARGE_ERROR, f"{medians[k]:.0f} pixels"))
        elif has_bad_camera[model.camera_index[k]] and count < 10 * min_points:
            trouble = describe_bad_intrinsics(model.cameras[model.camera_index[k]])
            rejections.append(Rejection(Reason.BAD_INTRINSICS, trouble))
        else:
            rejections.append(None)
    return rejections


def _is_outlying(model: SparseModel) -> Bool[Array, "k"]:
    centers = centers_world(model.cam_from_sfm)
    middle = np.median(centers, axis=0)
    distance = np.linalg.norm(centers - middle, axis=1)
    points = np.linalg.norm(model.points_sfm - middle, axis=1)
    size = max(float(np.median(distance)), float(np.median(points)) if len(points) else 0.0)
    return distance > MAX_CENTER_DISTANCE_FACTOR * max(size, 1e-12)


def describe_bad_intrinsics(camera: Camera) -> str:
    """What is implausible about a camera's intrinsics, or ""."""
    ratio = camera.mean_focal_px / max(camera.width, camera.height)
    if not FOCAL_RATIO_RANGE[0] <= ratio <= FOCAL_RATIO_RANGE[1]:
        return f"its focal length is {ratio:.2f} times the photo's long edge"
    if camera.model in ("SIMPLE_RADIAL", "RADIAL", "OPENCV"):
        k1 = camera.params[{"SIMPLE_RADIAL": 3, "RADIAL": 3, "OPENCV": 4}[camera.model]]
        if abs(k1) > MAX_RADIAL_DISTORTION:
            return f"its radial distortion is {k1:.2f}"
    return ""


MIN_USEFUL_FEATURES = 100
MIN_USEFUL_INLIERS = 30


def why_unregistered(n_features: int, best_inliers: int, partner_registered: bool) -> Rejection:
    """Why a photo that no mapper registered is missing, from its features and its best verified pair."""
    if n_features < MIN_USEFUL_FEATURES:
        return Rejection(Reason.FEW_FEATURES, f"{n_features}; blurred, dark, masked or without texture")
    if best_inliers == 0:
        return Rejection(Reason.NO_MATCHES, "no verified pair")
    if best_inliers < MIN_USEFUL_INLIERS:
        return Rejection(Reason.FEW_MATCHES, f"its best pair has {best_inliers}")
    if not partner_registered:
        return Rejection(Reason.MATCHES_UNREGISTERED)
    return Rejection(Reason.NOT_REGISTERED, f"its best pair has {best_inliers} matches")
