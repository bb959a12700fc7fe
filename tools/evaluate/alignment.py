"""Alignment of a run to a reference by the camera centres of both, and the camera errors that remain."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import centers_world, rotation_angles_deg
from quoin.pipeline.geometry.similarity import Similarity, fit_similarity_robust
from quoin.tools.evaluate.config import PoseErrors
from quoin.tools.evaluate.reference_cameras import ReferenceCameras, match_camera_names

Array = np.ndarray
MIN_WIDTH_RATIO = 1e-3  # of the cameras' extent: nearer to a line, the rotation about it is not determined


def align_to_reference(
    names: list[str], cam_from_world: Float[Array, "n 3 4"], reference: ReferenceCameras, *, seed: int = 0
) -> tuple[Similarity, PoseErrors, list[dict[str, float | str | None]]]:
    """truth_from_world fitted robustly to the centres of cameras of equal name, the errors, and a row per such camera.

    The errors are over all matched cameras, including the outliers of the fit.
    """
    ours, theirs = match_camera_names(names, reference.names)
    if len(ours) < 3:
        raise QuoinError(
            f"Only {len(ours)} of the {len(names)} posed photos are among the {len(reference.names)} reference cameras",
            where=f"{names[0] if names else 'no photo'} / {reference.names[0]}",
            hint="give at least three reference cameras named like the photos",
        )
    centers, truth = centers_world(cam_from_world[ours]), reference.centers[theirs]
    length, width, _ = np.linalg.svd(truth - truth.mean(axis=0), compute_uv=False)
    if width < MIN_WIDTH_RATIO * length:
        raise QuoinError(
            "The matched reference cameras stand in a line, so the rotation about it is unknown",
            hint="give reference cameras that do not stand in a line",
        )
    truth_from_world, inliers = fit_similarity_robust(
        centers, truth, seed=seed, provenance="robust fit to reference camera centres"
    )
    errors = np.linalg.norm(truth_from_world.apply(centers) - truth, axis=1)
    rotation_errors_deg = None
    if reference.rotations is not None:
        cam_from_truth = truth_from_world.apply_to_poses(cam_from_world[ours])[:, :, :3]
        rotation_errors_deg = rotation_angles_deg(cam_from_truth, reference.rotations[theirs])
    spread = max(float(np.linalg.norm(truth - center, axis=1).max()) for center in truth)
    rows: list[dict[str, float | str | None]] = [
        {
            "name": names[i],
            "center_error_m": float(errors[row]),
            "rotation_error_deg": None if rotation_errors_deg is None else float(rotation_errors_deg[row]),
            "inlier": bool(inliers[row]),
        }
        for row, i in enumerate(ours)
    ]
    return truth_from_world, _summarize(len(reference.names), errors, rotation_errors_deg, inliers, spread), rows


def _summarize(
    n_reference: int, errors: Array, rotation_errors_deg: Array | None, inliers: Array, spread: float
) -> PoseErrors:
    median, worst = float(np.median(errors)), float(errors.max())
    return PoseErrors(
        n_reference=n_reference,
        n_matched=len(errors),
        n_inliers=int(inliers.sum()),
        spread_m=spread,
        center_median_m=median,
        center_max_m=worst,
        center_median_percent=100 * median / spread,
        center_max_percent=100 * worst / spread,
        rotation_median_deg=None if rotation_errors_deg is None else float(np.median(rotation_errors_deg)),
        rotation_max_deg=None if rotation_errors_deg is None else float(rotation_errors_deg.max()),
    )
