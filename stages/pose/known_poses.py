"""Structure from known poses: the user's cameras are kept, and points and tracks are triangulated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.reasons import Reason
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.scene.photo_table import PhotoRow, read_photo_table
from quoin.stages.pose.camera_files import (
    TRANSFORMS_JSON,
    KnownPose,
    find_colmap_model,
    match_names,
    read_transforms,
    scale_to_photo,
)
from quoin.stages.pose.checks.registration import FilteredModel, residuals_px
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.sparse_model import read_sparse_model
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.pairing.matching import find_features, find_pairs
from quoin.stages.pose.sfm import feature_inputs, no_overlap_error
from quoin.stages.pose.workspace import Component, SfmResult, Workspace

Array = np.ndarray


def triangulate_known_poses(workspace: Workspace, config: PoseConfig, photos: list[PhotoRow]) -> SfmResult:
    """Points triangulated from the poses and cameras in ``config.known_poses``, which are kept to the last digit."""
    unused_names = unused_photo_names(workspace)
    known_poses = read_known_poses(workspace, Path(str(config.known_poses)), photos, unused_names)
    names = [photo.name for photo in photos]
    matched = match_names([pose.name for pose in known_poses], names, unused_names)
    if len(matched) < 2:
        example = f", for example {known_poses[0].name!r}" if known_poses else ""
        raise QuoinError(
            f"{len(matched)} of the {len(photos)} photos have a given camera; the names do not match{example}",
            where=config.known_poses,
            hint=f"name the photos as in their folder, for example {names[0]!r}",
        )
    known_pose_of = {photo: known_poses[row] for row, photo in matched.items()}
    kept_photos = [photo for photo in photos if photo.photo_id in known_pose_of]
    cameras, camera_of = _cameras(known_pose_of, kept_photos)
    workspace.clear_if_changed(
        [
            feature_inputs(kept_photos),
            config.max_edge_px,
            config.max_features,
            [c.as_json() for c in cameras],
            workspace.seed,
        ]
    )
    poses = np.array([known_pose_of[photo.photo_id].cam_from_world for photo in kept_photos])
    with workspace.share_photos():
        features, n_masks = find_features(workspace, config, kept_photos, cameras, camera_of)
        pairs = find_pairs(workspace, config, kept_photos, centers_world(poses))
    if not (pairs[:, 3] > 0).any():
        raise no_overlap_error(workspace.run, features)
    ids = np.array([photo.photo_id for photo in kept_photos])
    component = _triangulate(workspace, dict(zip(ids.tolist(), poses, strict=True)), config)
    warnings = _pose_warnings(component, len(photos) - len(kept_photos))
    n_features = np.zeros(len(photos), int)
    n_features[ids] = features
    return SfmResult([component], "known_poses", n_features.tolist(), pairs, n_masks, 0, warnings)


def unused_photo_names(workspace: Workspace) -> list[str]:
    """Names of photos that ingest left out; masks and depth maps are no photos."""
    rows = read_photo_table(workspace.run)
    return [row.name for row in rows if row.rejection and row.rejection.reason not in (Reason.MASK, Reason.DEPTH_MAP)]


def read_known_poses(
    workspace: Workspace, path: Path, photos: list[PhotoRow], unused_names: list[str]
) -> list[KnownPose]:
    """All poses in a transforms.json or a COLMAP model; ``unused_names`` are those of photos that are left out."""
    if not path.exists():
        raise QuoinError(
            "The given cameras do not exist", where=path, hint="name a COLMAP model folder or a transforms.json"
        )
    if path.is_dir() and (path / TRANSFORMS_JSON).is_file():
        path = path / TRANSFORMS_JSON
    if path.is_file():
        return read_transforms(path, {photo.name: (photo.width, photo.height) for photo in photos}, unused_names)
    folder = find_colmap_model(path)
    result = workspace.run_colmap(
        "import_model", {"path": str(folder), "output": str(workspace.folder / "known_poses")}
    )
    model = read_sparse_model(Path(result["component"]) / "model.npz")
    return [
        KnownPose(name, pose, model.cameras[camera])
        for name, pose, camera in zip(result["names"], model.cam_from_sfm, model.camera_index, strict=True)
    ]


def _cameras(known_pose_of: dict[int, KnownPose], kept_photos: list[PhotoRow]) -> tuple[list[Camera], list[int]]:
    """Each different camera once, and the index of every photo's camera."""
    cameras: list[Camera] = []
    camera_of = []
    for photo in kept_photos:
        camera = scale_to_photo(known_pose_of[photo.photo_id].camera, photo.name, photo.width, photo.height)
        _ = camera.pinhole_params  # raises for a model that cannot be undistorted
        if camera not in cameras:
            cameras.append(camera)
        camera_of.append(cameras.index(camera))
    return cameras, camera_of


def _triangulate(workspace: Workspace, poses: dict[int, Array], config: PoseConfig) -> Component:
    with workspace.report.task("pose/triangulating", 1):
        job = {
            "poses": {i: pose.tolist() for i, pose in poses.items()},
            "output": str(workspace.folder / "triangulated"),
        }
        path = workspace.run_colmap("triangulate", job)["component"]
    model = read_sparse_model(Path(path) / "model.npz")
    if len(model.points_sfm) < config.min_points:
        raise QuoinError(
            f"The given cameras do not explain the photos: they agree on {len(model.points_sfm)} points only",
            where=config.known_poses,
            hint="check that they belong to these photos, and which way their axes point",
        )
    # the user's poses: those of COLMAP were rounded on the way through quaternions
    return Component(
        path, FilteredModel(replace(model, cam_from_sfm=np.array([poses[i] for i in model.photo_ids])), {})
    )


def _pose_warnings(component: Component, n_without_camera: int) -> list[str]:
    model = component.filtered.model
    out = []
    if n_without_camera:
        out.append(f"{n_without_camera} photos have no given camera and are not used")
    n_without_points = int((model.n_observations == 0).sum())
    if n_without_points:
        out.append(f"{n_without_points} given poses see no point: their photos may not fit them")
    error = float(np.median(residuals_px(model)))
    if error > 2.0:
        out.append(f"Given poses fit the photos badly: points are off by {error:.1f} pixels (median)")
    return out
