"""Filter of registered photos: which poses and cameras are believable, and why the other photos are missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from quoin.pipeline.core.reasons import Reason, Rejection
from quoin.pipeline.geometry.cameras import centers_world
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.sparse_model import SparseModel

Array = np.ndarray


@dataclass(frozen=True)
class RegistrationParams:
    """Limits of believable poses and cameras, and of photos that can be registered at all."""

    max_center_distance_factor: float = 100.0  # of a camera center from the middle, in sizes of the scene
    max_photo_error_px: float = 8.0  # median reprojection error of a photo, pixels; a good pose has under 2
    focal_ratio_range: tuple[float, float] = (0.3, 5.0)  # per long edge: fisheyes are below, telescopes above
    max_radial_distortion: float = 0.6  # |k1| of a lens that photos of buildings or objects are taken with
    min_useful_features: int = 100  # SIFT features with fewer of which a photo hardly matches any other
    min_useful_inliers: int = 30  # verified matches of a pair that registers a photo (COLMAP: abs_pose_min_num_inliers)


REGISTRATION = RegistrationParams()


@dataclass(frozen=True)
class FilteredModel:
    """The model without the photos that failed, and why each of those was dropped, by photo id."""

    model: SparseModel
    dropped: dict[int, Rejection]


def residuals_px(model: SparseModel) -> Float[Array, "t"]:
    """Reprojection error of every observation in pixels of the photo; inf for a point behind the camera."""
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
    """The model without photos of few points, outlying centers, large errors or impossible cameras, until all pass."""
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
        elif medians[k] > REGISTRATION.max_photo_error_px:
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
    return distance > REGISTRATION.max_center_distance_factor * max(size, 1e-12)


def describe_bad_intrinsics(camera: Camera) -> str:
    """Text that says what is implausible about a camera's intrinsics; "" for nothing."""
    ratio = camera.mean_focal_px / max(camera.width, camera.height)
    if not REGISTRATION.focal_ratio_range[0] <= ratio <= REGISTRATION.focal_ratio_range[1]:
        return f"its focal length is {ratio:.2f} times the photo's long edge"
    if camera.model in ("SIMPLE_RADIAL", "RADIAL", "OPENCV"):
        k1 = camera.params[{"SIMPLE_RADIAL": 3, "RADIAL": 3, "OPENCV": 4}[camera.model]]
        if abs(k1) > REGISTRATION.max_radial_distortion:
            return f"its radial distortion is {k1:.2f}"
    return ""


def why_unregistered(n_features: int, best_inliers: int, partner_registered: bool) -> Rejection:
    """Why a photo that no mapper registered is missing, from its features and its best verified pair."""
    if n_features < REGISTRATION.min_useful_features:
        return Rejection(Reason.FEW_FEATURES, f"{n_features}; blurred, dark, masked or without texture")
    if best_inliers == 0:
        return Rejection(Reason.NO_MATCHES, "no verified pair")
    if best_inliers < REGISTRATION.min_useful_inliers:
        return Rejection(Reason.FEW_MATCHES, f"its best pair has {best_inliers}")
    if not partner_registered:
        return Rejection(Reason.MATCHES_UNREGISTERED)
    return Rejection(Reason.NOT_REGISTERED, f"its best pair has {best_inliers} matches")
