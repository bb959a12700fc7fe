"""The gate: which registered photos are really registered, and why the others are missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from quoin.pipeline.geometry.cameras import centers_world
from quoin.stages.pose.colmap.camera_models import distort, focal_px
from quoin.stages.pose.colmap.sparse_model import Camera, SparseModel

Array = np.ndarray

WILD_FACTOR = 100.0  # centres farther out than this many times the scene's size are no poses
MAX_PHOTO_ERROR_PX = 8.0  # median over a photo's observations; a good pose has under 2
FOCAL_RANGE = (0.3, 5.0)  # of the long edge: wider is a fisheye, longer a telescope
MAX_RADIAL = 0.6  # |k1| of a lens that a photo of buildings or objects is taken with


@dataclass(frozen=True)
class Gated:
    """The model without the photos that failed, and the reason by photo id of each that did."""

    model: SparseModel
    dropped: dict[int, str]


def residuals_px(model: SparseModel) -> Float[Array, "t"]:
    """Distance between every observation and its point's projection, in pixels of the photo; inf behind the camera."""
    points = model.points_sfm[model.track_point]
    poses = model.cam_from_sfm[model.track_photo]
    cam = np.einsum("tij,tj->ti", poses[:, :, :3], points) + poses[:, :, 3]
    error = np.full(len(cam), np.inf)
    front = cam[:, 2] > 1e-9
    for camera, rows in zip(model.cameras, model.observations_by_camera(), strict=True):
        mine = rows[front[rows]]
        seen = distort(camera, cam[mine, :2] / cam[mine, 2:])
        error[mine] = np.linalg.norm(seen - model.track_xy[mine], axis=1)
    return error


def photo_medians(model: SparseModel, errors: Float[Array, "t"]) -> Float[Array, "k"]:
    """Median reprojection error per photo; NaN where it observes nothing."""
    order = np.argsort(model.track_photo, kind="stable")
    parts = np.split(errors[order], np.cumsum(model.n_observations)[:-1])
    return np.array([np.median(part) if len(part) else np.nan for part in parts])


def gate(model: SparseModel, min_points: int) -> Gated:
    """Drop photos with few points, wild centres, large errors or impossible cameras, until all that are left pass."""
    dropped: dict[int, str] = {}
    while len(model.photo_ids):
        reasons = _judge(model, min_points)
        if not any(reasons):
            break
        dropped.update({int(i): reason for i, reason in zip(model.photo_ids, reasons, strict=True) if reason})
        model = model.keep_photos(np.array([not reason for reason in reasons]))
    return Gated(model, dropped)


def _judge(model: SparseModel, min_points: int) -> list[str]:
    counts = model.n_observations
    medians = photo_medians(model, residuals_px(model))
    wild = _wild(model)
    uses = np.bincount(model.camera_index, minlength=len(model.cameras))
    broken = [
        uses[i] == 1 and not model.cameras[i].prior_focal and bool(camera_trouble(c))
        for i, c in enumerate(model.cameras)
    ]
    reasons = []
    for k, count in enumerate(counts):
        if count < min_points:
            reasons.append(f"its pose rests on {count} points only")
        elif wild[k]:
            reasons.append("its pose lies far outside the scene")
        elif medians[k] > MAX_PHOTO_ERROR_PX:
            reasons.append(f"its points are off by {medians[k]:.0f} pixels")
        elif broken[model.camera_index[k]] and count < 10 * min_points:
            reasons.append(f"its camera came out impossible: {camera_trouble(model.cameras[model.camera_index[k]])}")
        else:
            reasons.append("")
    return reasons


def _wild(model: SparseModel) -> Bool[Array, "k"]:
    centers = centers_world(model.cam_from_sfm)
    middle = np.median(centers, axis=0)
    distance = np.linalg.norm(centers - middle, axis=1)
    points = np.linalg.norm(model.points_sfm - middle, axis=1)
    size = max(float(np.median(distance)), float(np.median(points)) if len(points) else 0.0)
    return distance > WILD_FACTOR * max(size, 1e-12)


def camera_trouble(camera: Camera) -> str:
    """What is implausible about a camera's intrinsics, or ""."""
    ratio = focal_px(camera) / max(camera.width, camera.height)
    if not FOCAL_RANGE[0] <= ratio <= FOCAL_RANGE[1]:
        return f"its focal length is {ratio:.2f} times the photo's long edge"
    if camera.model in ("SIMPLE_RADIAL", "RADIAL", "OPENCV"):
        k1 = camera.params[{"SIMPLE_RADIAL": 3, "RADIAL": 3, "OPENCV": 4}[camera.model]]
        if abs(k1) > MAX_RADIAL:
            return f"its radial distortion is {k1:.2f}"
    return ""


FEW_FEATURES = 100
FEW_INLIERS = 30


def why_missing(n_features: int, best_inliers: int, partner_registered: bool) -> str:
    """Why a photo that no mapper registered is missing, from its features and its best verified pair."""
    if n_features < FEW_FEATURES:
        return f"few features ({n_features}): blurred, dark, masked or without texture"
    if best_inliers == 0:
        return "no other photo shows the same things (no verified pair)"
    if best_inliers < FEW_INLIERS:
        return f"few matches (its best pair has {best_inliers})"
    if not partner_registered:
        return "it matches only photos that are not registered either"
    return f"the mapper could not place it (its best pair has {best_inliers} matches)"
