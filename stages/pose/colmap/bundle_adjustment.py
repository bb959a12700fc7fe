"""A last bundle adjustment inside the COLMAP process: robust, and with as much of each camera as the photos determine.

Mappers leave the principal point at the centre and keep some wrong observations. Where a camera took enough photos, its
principal point is tried free on every second photo and on the others: when both halves find the same shift, it is real.
And photos that were only taken to share a camera are tried with one each: when that explains them clearly better, they
do not share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float

from quoin.pipeline.geometry.robust import robust_sigma
from quoin.stages.pose.checks.registration import residuals_px
from quoin.stages.pose.colmap import reconstruction
from quoin.stages.pose.colmap.reconstruction import keep_photos_only
from quoin.stages.pose.colmap.sparse_model import SparseModel

Array = np.ndarray

MAX_ERROR_PX = 4.0  # observations farther off are no observations
MIN_TRIANGULATION_ANGLE_DEG = 1.5  # points seen under a smaller angle have no depth
MIN_PRINCIPAL_POINT_PHOTOS = 8  # of one camera, to try its principal point
MAX_PHOTOS_PER_HALF = 40  # of a camera looked at in each half
MAX_PRINCIPAL_POINT_SHIFT = 0.03  # of the long edge, by which a principal point may move
FUNCTION_TOLERANCE = 1e-5  # relative change of the cost in a step from which on steps gain nothing
TRIAL_ITERATIONS = 30  # enough to tell which cameras the photos bear out
MAX_SPLIT_ERROR_RATIO = 0.85  # of the squared error that photos with cameras of their own must get below
MIN_FOCAL_SPREAD = 0.01  # spread of their focal lengths, relative, from which on they are not one lens
MAX_HALF_DISAGREEMENT = 0.4  # of the shift, by which the two halves may differ


@dataclass(frozen=True)
class PrincipalPointShift:
    """A principal point's shift from the centre in pixels, as each half of a camera's photos and all of them see it."""

    first_half: Float[Array, "2"]
    second_half: Float[Array, "2"]

    def is_consistent(self, long_edge: int) -> bool:
        """The halves differ by less than MAX_HALF_DISAGREEMENT of what they found, and it is small beside the photo."""
        mean = (self.first_half + self.second_half) / 2
        size = float(np.linalg.norm(mean))
        return (
            float(np.linalg.norm(self.first_half - self.second_half)) < MAX_HALF_DISAGREEMENT * size
            and size < MAX_PRINCIPAL_POINT_SHIFT * long_edge
        )


def filter_points(component: pycolmap.Reconstruction) -> None:
    """Remove observations that do not fit, and points without depth."""
    pycolmap.ObservationManager(component).filter_all_points3D(MAX_ERROR_PX, MIN_TRIANGULATION_ANGLE_DEG)


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
    options.ceres.solver_options.function_tolerance = FUNCTION_TOLERANCE
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


def find_wrongly_shared_cameras(component: pycolmap.Reconstruction, threads: int) -> set[int]:
    """Cameras whose photos are explained clearly better, and with other focal lengths, by a camera for each."""
    before = reconstruction.to_sparse_model(component)
    uses: dict[int, list[int]] = {}
    for image_id in sorted(component.reg_image_ids()):
        uses.setdefault(component.image(image_id).camera_id, []).append(image_id)
    shared = {camera_id for camera_id, image_ids in uses.items() if len(image_ids) >= 3}
    if not shared:
        return set()
    split = reconstruction.split_shared_cameras(component, shared)
    adjust_bundle(split, threads, set(), TRIAL_ITERATIONS)
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
        if mean[1] < MAX_SPLIT_ERROR_RATIO * mean[0] and spread > MIN_FOCAL_SPREAD:
            wrongly_shared.add(camera_id)
    return wrongly_shared


def _squared_errors(model: SparseModel) -> list[Float[Array, "_"]]:
    """Squared reprojection errors of every photo, none above MAX_ERROR_PX."""
    squared = np.minimum(residuals_px(model), MAX_ERROR_PX) ** 2
    order = np.argsort(model.track_photo, kind="stable")
    return np.split(squared[order], np.cumsum(model.n_observations)[:-1])


def _median_error(component: pycolmap.Reconstruction) -> float:
    component.update_point_3d_errors()
    errors = [point.error for point in component.points3D.values()]
    return float(np.median(errors)) if errors else 1.0


def find_principal_point_shifts(
    path: Path, photo_ids: list[int], excluded_cameras: set[int], threads: int
) -> dict[int, PrincipalPointShift]:
    """By camera id, the principal point's shift in both halves of its photos, for cameras with enough of them."""
    whole = pycolmap.Reconstruction(path)
    by_camera: dict[int, list[int]] = {}
    for photo in sorted(photo_ids):
        by_camera.setdefault(whole.image(photo + 1).camera_id, []).append(photo)
    shifts = {}
    for camera_id, photos in by_camera.items():
        if len(photos) < MIN_PRINCIPAL_POINT_PHOTOS or camera_id in excluded_cameras:
            continue
        photos = photos[: 2 * MAX_PHOTOS_PER_HALF]
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
    adjust_bundle(part, threads, {camera_id}, TRIAL_ITERATIONS)
    camera = part.camera(camera_id)
    return np.array([camera.principal_point_x - camera.width / 2, camera.principal_point_y - camera.height / 2])
