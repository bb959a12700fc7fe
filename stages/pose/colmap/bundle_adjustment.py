"""Last bundle adjustment, in the COLMAP process: robust, and with as many intrinsics as the photos determine.

Mappers leave the principal point at the center and keep some wrong observations. For a camera with enough photos, the
principal point is estimated from every second photo and from the others: a shift on which both halves agree is real.
Photos that are only assumed to share a camera are adjusted with one camera each: where that explains them clearly
better, they do not share one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float

from quoin.pipeline.geometry.similarity import robust_sigma
from quoin.stages.pose.checks.registration import residuals_px
from quoin.stages.pose.colmap import reconstruction
from quoin.stages.pose.colmap.reconstruction import keep_photos_only
from quoin.stages.pose.colmap.sparse_model import SparseModel

Array = np.ndarray


@dataclass(frozen=True)
class RefinementParams:
    """Limits of the last bundle adjustment, and what frees or splits a camera in it."""

    max_error_px: float = 4.0  # reprojection error of an observation (COLMAP: filter_max_reproj_error)
    min_triangulation_angle_deg: float = 1.5  # of a point (COLMAP: filter_min_tri_angle)
    min_principal_point_photos: int = 8  # photos of a camera, from which on its principal point is tried
    max_photos_per_half: int = 40  # photos of a camera in each half that tries its principal point
    max_principal_point_shift: float = 0.03  # of the long edge
    max_half_disagreement: float = 0.4  # difference between the shifts in both halves, per mean shift
    function_tolerance: float = 1e-5  # relative change of the cost in a step, at which the solver stops
    trial_iterations: int = 30  # iterations of a trial, enough to tell which cameras the photos support
    max_split_error_ratio: float = 0.85  # mean squared error with a camera for each photo, per error with a shared one
    min_focal_spread: float = 0.01  # relative spread of focal lengths, from which on photos do not share a lens


REFINEMENT = RefinementParams()


@dataclass(frozen=True)
class PrincipalPointShift:
    """Shift of a principal point from the center in pixels, estimated from each half of a camera's photos."""

    first_half: Float[Array, "2"]
    second_half: Float[Array, "2"]

    def is_consistent(self, long_edge: int) -> bool:
        """Whether the halves agree (within ``max_half_disagreement``) on a shift that is small beside the photo."""
        mean = (self.first_half + self.second_half) / 2
        size = float(np.linalg.norm(mean))
        return (
            float(np.linalg.norm(self.first_half - self.second_half)) < REFINEMENT.max_half_disagreement * size
            and size < REFINEMENT.max_principal_point_shift * long_edge
        )


def filter_points(component: pycolmap.Reconstruction) -> None:
    """Remove observations with large errors, and points with small triangulation angles."""
    pycolmap.ObservationManager(component).filter_all_points3D(
        REFINEMENT.max_error_px, REFINEMENT.min_triangulation_angle_deg
    )


def adjust_bundle(
    component: pycolmap.Reconstruction, threads: int, free_cameras: set[int], iterations: int = 100
) -> None:
    """Bundle adjustment with a Cauchy loss at twice the median error, then ``filter_points``.

    With ``free_cameras`` the principal points of those move, and the intrinsics of all others stay as they are.
    """
    options = pycolmap.BundleAdjustmentOptions(refine_principal_point=bool(free_cameras))
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = max(0.2, 2.0 * _median_error(component))
    options.ceres.solver_options.num_threads = threads
    options.ceres.solver_options.max_num_iterations = iterations
    options.ceres.solver_options.function_tolerance = REFINEMENT.function_tolerance
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in component.reg_image_ids():
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    if free_cameras:
        for camera_id in component.cameras:
            if camera_id not in free_cameras:
                config.set_constant_cam_intrinsics(camera_id)
    pycolmap.create_default_bundle_adjuster(options, config, component).solve()
    filter_points(component)


def allow_errors(options: pycolmap.IncrementalPipelineOptions, max_error_px: float, focal_px: float) -> None:
    """Have points triangulated with reprojection errors up to ``max_error_px`` at this focal length."""
    angle_deg = math.degrees(math.atan(max_error_px / focal_px))
    triangulation = options.triangulation
    for name in ("create_max_angle_error", "continue_max_angle_error", "re_max_angle_error"):
        setattr(triangulation, name, max(getattr(triangulation, name), angle_deg))
    triangulation.merge_max_reproj_error = triangulation.complete_max_reproj_error = max_error_px
    options.mapper.filter_max_reproj_error = max_error_px


def adjust_poses(
    component: pycolmap.Reconstruction, threads: int, max_error_px: float, constant_photo_ids: set[int]
) -> None:
    """Bundle adjustment of the other poses and points with a Cauchy loss at a quarter of ``max_error_px``.

    Cameras stay.
    """
    options = pycolmap.BundleAdjustmentOptions(refine_focal_length=False, refine_extra_params=False)
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = max_error_px / 4
    options.ceres.solver_options.num_threads = threads
    options.ceres.solver_options.function_tolerance = REFINEMENT.function_tolerance
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in component.reg_image_ids():
        config.add_image(image_id)
        if image_id - 1 in constant_photo_ids:
            config.set_constant_rig_from_world_pose(component.image(image_id).frame_id)
    if not constant_photo_ids:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, component).solve()


def find_wrongly_shared_cameras(component: pycolmap.Reconstruction, threads: int) -> set[int]:
    """Ids of cameras whose photos a camera for each explains clearly better, with different focal lengths."""
    before = reconstruction.to_sparse_model(component)
    uses: dict[int, list[int]] = {}
    for image_id in sorted(component.reg_image_ids()):
        uses.setdefault(component.image(image_id).camera_id, []).append(image_id)
    shared = {camera_id for camera_id, image_ids in uses.items() if len(image_ids) >= 3}
    if not shared:
        return set()
    split = reconstruction.split_shared_cameras(component, shared)
    adjust_bundle(split, threads, set(), REFINEMENT.trial_iterations)
    after = reconstruction.to_sparse_model(split)
    errors = [_squared_errors(model) for model in (before, after)]
    row_of = [{photo: row for row, photo in enumerate(model.photo_ids.tolist())} for model in (before, after)]
    wrongly_shared = set()
    for camera_id in shared:
        rows = [[rows_by_photo[i - 1] for i in uses[camera_id]] for rows_by_photo in row_of]
        mean = [
            float(np.mean(np.concatenate([error[k] for k in row]))) for error, row in zip(errors, rows, strict=True)
        ]
        focal = np.array([after.cameras[after.camera_index[k]].mean_focal_px for k in rows[1]])
        spread = robust_sigma(focal / np.median(focal) - 1)
        if mean[1] < REFINEMENT.max_split_error_ratio * mean[0] and spread > REFINEMENT.min_focal_spread:
            wrongly_shared.add(camera_id)
    return wrongly_shared


def _squared_errors(model: SparseModel) -> list[Float[Array, "_"]]:
    """Squared reprojection errors of every photo, clipped at ``max_error_px``."""
    squared = np.minimum(residuals_px(model), REFINEMENT.max_error_px) ** 2
    order = np.argsort(model.track_photo, kind="stable")
    return np.split(squared[order], np.cumsum(model.n_observations)[:-1])


def _median_error(component: pycolmap.Reconstruction) -> float:
    component.update_point_3d_errors()
    errors = [point.error for point in component.points3D.values()]
    return float(np.median(errors)) if errors else 1.0


def find_principal_point_shifts(
    path: Path, photo_ids: list[int], excluded_cameras: set[int], threads: int
) -> dict[int, PrincipalPointShift]:
    """Shift of the principal point by camera id, for cameras with enough photos."""
    whole = pycolmap.Reconstruction(path)
    by_camera: dict[int, list[int]] = {}
    for photo in sorted(photo_ids):
        by_camera.setdefault(whole.image(photo + 1).camera_id, []).append(photo)
    shifts = {}
    for camera_id, photos in by_camera.items():
        if len(photos) < REFINEMENT.min_principal_point_photos or camera_id in excluded_cameras:
            continue
        photos = photos[: 2 * REFINEMENT.max_photos_per_half]
        halves = [_principal_point_shift(path, photos[start::2], camera_id, threads) for start in (0, 1)]
        if halves[0] is not None and halves[1] is not None:
            shifts[camera_id] = PrincipalPointShift(halves[0], halves[1])
    return shifts


def _principal_point_shift(path: Path, photos: list[int], camera_id: int, threads: int) -> Float[Array, "2"] | None:
    part = pycolmap.Reconstruction(path)
    keep_photos_only(part, set(photos))
    filter_points(part)
    if part.num_reg_images() < 3 or part.compute_num_observations() < 30 * part.num_reg_images():
        return None
    adjust_bundle(part, threads, {camera_id}, REFINEMENT.trial_iterations)
    camera = part.camera(camera_id)
    return np.array([camera.principal_point_x - camera.width / 2, camera.principal_point_y - camera.height / 2])
