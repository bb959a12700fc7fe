"""Structure from motion: features, pairs, mapping with its checks, refinement."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.checks.disambiguation import map_with_disambiguation
from quoin.stages.pose.checks.pure_rotation import find_pure_rotations, has_single_viewpoint
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.fisheye import map_as_fisheye_if_better
from quoin.stages.pose.mapping import is_better, mean_error_px, refine_component
from quoin.stages.pose.pairing.matching import find_features, find_pairs
from quoin.stages.pose.pairing.pairs import gps_positions_m
from quoin.stages.pose.workspace import Component, SfmResult, Workspace

Array = np.ndarray

# Times the long edge: a phone's or a kit lens's view of about 45 degrees, COLMAP's own default.
DEFAULT_FOCAL_FACTOR = 1.2
OVERLAP_ADVICE = "take photos that overlap by half or more, of something with texture that stands still"
# Of all photos; fewer registered with a shared camera: perhaps it is not one camera.
MIN_SHARED_CAMERA_REGISTERED_SHARE = 0.7
MAX_SHARED_CAMERA_ERROR_PX = 1.5  # of a photo 1600 pixels wide, mean over photos; a larger one likewise


def estimate_poses(workspace: Workspace, config: PoseConfig, photos: list[PhotoRow]) -> SfmResult:
    """Poses of ``photos`` by structure from motion; QuoinError where no poses can be found."""
    run = workspace.run
    workspace.clear_if_changed(
        [feature_inputs(photos), config.max_edge_px, config.max_features, config.known_poses, workspace.seed]
    )
    cameras, camera_of = initial_cameras(photos)
    n_unknown_focal = sum(not has_focal(photo) for photo in photos)
    if n_unknown_focal:
        workspace.report.log(
            "pose", f"{n_unknown_focal} of {len(photos)} photos have no focal length in EXIF; it is estimated"
        )
    with workspace.share_photos():
        n_features, n_masks = find_features(workspace, config, photos, cameras, camera_of)
        pairs = find_pairs(workspace, config, photos, gps_positions_m(photos))
    if not (pairs[:, 3] > 0).any():
        raise no_overlap_error(run, n_features)
    if has_single_viewpoint(*find_pure_rotations(workspace.database)):
        raise QuoinError(
            "The photos were taken from one spot: the camera turned but did not move, so no distances can be found",
            where=run.photos,
            hint="take photos from many places around the thing, a step or more apart, that overlap by half or more",
        )
    names = [photo.name for photo in photos]
    components, mapper = map_with_disambiguation(workspace, config, pairs, names)
    components, mapper = _separate_cameras_if_better(workspace, config, photos, pairs, components, mapper)
    if not components:
        n_matching = int((pairs[:, 3] > 0).sum())
        raise QuoinError(
            f"The photos overlap too little for a model: {n_matching} pairs match, but too weakly or from one place",
            where=run.photos,
            hint=OVERLAP_ADVICE,
        )
    warnings = components[0].warnings
    components[0], n_refined_cameras = refine_component(workspace, config, components[0])
    result = SfmResult(components, mapper, n_features, pairs, n_masks, n_refined_cameras, warnings)
    return map_as_fisheye_if_better(workspace, config, names, result, (cameras, camera_of))


def feature_inputs(photos: list[PhotoRow]) -> list[Any]:
    """Values of the photos on which features and matches depend."""
    return [[p.content_hash, p.group, p.focal_px, p.mask_path, _modified_s(p.mask_path), p.border] for p in photos]


def _modified_s(path: str) -> float:
    return Path(path).stat().st_mtime if path and Path(path).exists() else 0.0


def no_overlap_error(run: Run, n_features: list[int]) -> QuoinError:
    """The error where no pair of photos matches."""
    n_textureless = sum(count < 100 for count in n_features)
    detail = f"; {n_textureless} of {len(n_features)} show hardly any texture" if n_textureless else ""
    return QuoinError(
        f"No two photos overlap: none show the same things{detail}", where=run.photos, hint=OVERLAP_ADVICE
    )


def _separate_cameras_if_better(
    workspace: Workspace,
    config: PoseConfig,
    photos: list[PhotoRow],
    pairs: Int[Array, "m 4"],
    components: list[Component],
    mapper: str,
) -> tuple[list[Component], str]:
    """Components with a camera for each photo without EXIF, where one shared camera explains them badly."""
    shared, _ = initial_cameras(photos)
    cameras, camera_of = initial_cameras(photos, share=False)
    if len(cameras) == len(shared) or all(has_shared_camera(photo) for photo in photos):
        return components, mapper
    if components:
        width = max(max(c.width, c.height) for c in components[0].filtered.model.cameras)
        is_good = mean_error_px(components[0]) <= MAX_SHARED_CAMERA_ERROR_PX * max(1.0, width / 1600)
        if is_good and components[0].n_photos >= MIN_SHARED_CAMERA_REGISTERED_SHARE * len(photos):
            return components, mapper
    workspace.report.log("pose", "One shared camera explains the photos badly; mapping with one for each photo")
    names = [photo.name for photo in photos]
    separate, separate_mapper = map_with_disambiguation(
        workspace.with_cameras(cameras, camera_of, "own_cameras"), config, pairs, names
    )
    return (separate, separate_mapper) if is_better(separate, components) else (components, mapper)


# -- initial cameras ---------------------------------------------------------------------------------------------------


def initial_cameras(photos: list[PhotoRow], *, share: bool = True) -> tuple[list[Camera], list[int]]:
    """Cameras that the mapper starts from, and the index of every photo's camera.

    Photos of a group and size share one; with ``share`` false those without a focal length in EXIF each get their own,
    but for frames of a clip, which one camera took.
    """
    keys = [
        (
            photo.group,
            photo.width,
            photo.height,
            -1 if share or has_shared_camera(photo) else photo.photo_id,
        )
        for photo in photos
    ]
    order = sorted(set(keys))
    cameras = []
    for key in order:
        focals = [p.focal_px for p, k in zip(photos, keys, strict=True) if k == key and has_focal(p)]
        width, height = key[1], key[2]
        focal = float(np.median(focals)) if focals else DEFAULT_FOCAL_FACTOR * max(width, height)
        cameras.append(Camera("SIMPLE_RADIAL", width, height, (focal, width / 2, height / 2, 0.0), bool(focals)))
    return cameras, [order.index(key) for key in keys]


def has_shared_camera(photo: PhotoRow) -> bool:
    """Whether a photo is known to be of one camera with the others of its group."""
    return has_focal(photo) or bool(photo.clip)


def has_focal(photo: PhotoRow) -> bool:
    """Whether EXIF gave a usable focal length."""
    return not math.isnan(photo.focal_px) and photo.focal_px > 0
