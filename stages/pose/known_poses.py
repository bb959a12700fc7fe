"""Structure from known poses: the user's cameras are kept, and points and tracks are triangulated."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.reasons import Reason, Rejection
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.geometry.similarity import fit_similarity_robust
from quoin.pipeline.scene.camera_files import read_given_cameras
from quoin.pipeline.scene.given_camera import UPRIGHT_FROM_STORED, GivenCamera, turned_upright
from quoin.pipeline.scene.photo_names import match_names
from quoin.pipeline.scene.photo_table import PhotoRow, read_photo_names
from quoin.stages.pose.checks.epipolar import EPIPOLAR, PairShares, epipolar_shares
from quoin.stages.pose.checks.registration import FilteredModel, residuals_px
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.sparse_model import read_sparse_model
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.pairing.matching import find_features, find_pairs
from quoin.stages.pose.sfm import feature_inputs, no_overlap_error
from quoin.stages.pose.workspace import Component, SfmResult, Workspace

Array = np.ndarray

MAX_GIVEN_ERROR = 0.02  # reprojection error from which refinement starts, per focal length: about a degree
MIN_REFINED_GAIN = 0.05  # in the median share of matches that the refined poses explain; with less, poses are as given
MIN_CONSTANT_POSES = 3  # that are exact, from which on they stay while the others are refined
# Refined poses that went further than a tracker errs explain wrong cameras.
MAX_REFINED_SHIFT = 0.05  # of the extent of the camera centers
MAX_REFINED_TURN_DEG = 3.0
MIN_ASPECT_DIFFERENCE = 0.02  # of a photo's aspect from 1, from which on its shape tells whether it is turned


def triangulate_known_poses(workspace: Workspace, config: PoseConfig, photos: list[PhotoRow]) -> SfmResult:
    """Points triangulated from the poses and cameras in ``config.known_poses``, which are kept to the last digit."""
    known_poses = read_given_cameras(Path(str(config.known_poses)))
    names = [photo.name for photo in photos]
    unused_names = sorted(set(read_photo_names(workspace.run)) - set(names))
    matched = match_names([pose.name for pose in known_poses], names, unused_names)
    if len(matched) < 2:
        raise QuoinError(
            f"{len(matched)} of the {len(photos)} photos have a given camera; the names do not match, for example "
            f"{known_poses[0].name!r}",
            where=config.known_poses,
            hint=f"name the photos as in their folder, for example {names[0]!r}",
        )
    known_pose_of = {photo: known_poses[row] for row, photo in matched.items()}
    kept_photos = [photo for photo in photos if photo.photo_id in known_pose_of]
    given = _upright_poses(known_pose_of, kept_photos, is_stored=bool(are_stored_by_shape(known_pose_of, kept_photos)))
    cameras, camera_of = _distinct(given.cameras)
    workspace.clear_if_changed(
        [
            feature_inputs(kept_photos),
            config.max_edge_px,
            config.max_features,
            [c.as_json() for c in cameras],
            workspace.seed,
        ]
    )
    with workspace.share_photos():
        features, n_masks = find_features(workspace, config, kept_photos, cameras, camera_of)
        pairs = find_pairs(workspace, config, kept_photos, centers_world(given.cam_from_world))
    if not (pairs[:, 3] > 0).any():
        raise no_overlap_error(workspace.run, features)
    if are_stored_by_shape(known_pose_of, kept_photos) is None:
        workspace, given = _turn_if_better(workspace, known_pose_of, kept_photos, given)
    checked = check_poses(workspace, config, given, [photo.name for photo in kept_photos])
    component = _triangulate(workspace, checked, config)
    warnings = [*checked.warnings, *_pose_warnings(component, len(photos) - len(kept_photos))]
    n_features = np.zeros(len(photos), int)
    n_features[given.photo_ids] = features
    return SfmResult([component], "known_poses", n_features.tolist(), pairs, n_masks, 0, warnings)


def _distinct(cameras: list[Camera]) -> tuple[list[Camera], list[int]]:
    """Each different camera once, and the index of every photo's camera."""
    distinct = list(dict.fromkeys(cameras))
    number = {camera: n for n, camera in enumerate(distinct)}
    return distinct, [number[camera] for camera in cameras]


def _upright_poses(known_pose_of: dict[int, GivenCamera], photos: list[PhotoRow], *, is_stored: bool) -> KnownPoses:
    """Pose and camera of each photo; with ``is_stored`` the file gives them for the pixels before EXIF turns them."""
    poses, cameras = [], []
    for photo in photos:
        given = known_pose_of[photo.photo_id]
        size = (photo.width, photo.height) if not is_stored or photo.orientation < 5 else (photo.height, photo.width)
        intrinsics, pose = given.intrinsics(*size), given.cam_from_world
        if is_stored:
            intrinsics, pose = turned_upright(intrinsics, pose, photo.orientation) or (intrinsics, pose)
        camera = scale_to_photo(Camera(*intrinsics, prior_focal=True), photo.name, photo.width, photo.height)
        _ = camera.pinhole_params  # raises for a model that cannot be undistorted
        poses.append(pose)
        cameras.append(camera)
    return KnownPoses(np.array([photo.photo_id for photo in photos]), np.array(poses), cameras)


def are_stored_by_shape(known_pose_of: dict[int, GivenCamera], photos: list[PhotoRow]) -> bool | None:
    """Whether the file gives cameras for the pixels before EXIF turns them, by the shape of photos turned by a quarter.

    None where there are none that tell it, but photos that EXIF turns.
    """
    turned = [photo for photo in photos if photo.orientation in UPRIGHT_FROM_STORED]
    for photo in turned:
        aspect, upright = known_pose_of[photo.photo_id].aspect, photo.width / photo.height
        if photo.orientation > 4 and aspect is not None and abs(upright - 1) > MIN_ASPECT_DIFFERENCE:
            return abs(math.log(aspect * upright)) < abs(math.log(aspect / upright))
    return None if turned else False


def _turn_if_better(
    workspace: Workspace, known_pose_of: dict[int, GivenCamera], photos: list[PhotoRow], given: KnownPoses
) -> tuple[Workspace, KnownPoses]:
    """The poses turned as EXIF turns the photos, where that explains their matches and ``given`` does not."""
    turned = _upright_poses(known_pose_of, photos, is_stored=True)
    is_turned = np.array([photo.orientation in UPRIGHT_FROM_STORED for photo in photos])
    medians = []
    for poses in (given, turned):
        pairs = poses.shares(workspace.database)
        counted = is_turned[pairs.rows].any(axis=1)
        medians.append(float(np.median(pairs.shares[counted])) if counted.any() else 0.0)
    if medians[1] <= max(medians[0], EPIPOLAR.max_wrong_share):
        return workspace, given
    workspace.report.log(
        "pose",
        f"The given cameras are for the pixels as stored: those of {is_turned.sum()} photos that EXIF turns are turned "
        "with them",
    )
    if turned.cameras != given.cameras:
        workspace = workspace.with_cameras(*_distinct(turned.cameras), "turned_cameras", turned.photo_ids.tolist())
    return workspace, turned


def scale_to_photo(camera: Camera, name: str, width: int, height: int) -> Camera:
    """The camera in pixels of the photo at hand, which may be a resized copy; QuoinError where its shape differs."""
    if (camera.width, camera.height) == (width, height):
        return camera
    sx, sy = width / camera.width, height / camera.height
    if abs(sx / sy - 1) > 0.01:
        is_turned = abs(width / camera.height / (height / camera.width) - 1) <= 0.01
        raise QuoinError(
            f"The given camera is for {camera.width} x {camera.height} pixels, the photo has {width} x {height}"
            + (" (turned upright by its EXIF)" if is_turned else ""),
            where=name,
            hint="give cameras of the upright photos" if is_turned else "give cameras of these photos",
        )
    return replace(camera.rescaled(width, height), prior_focal=True)


# -- are they right? ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KnownPoses:
    """Given poses of photos, with the camera of each; those that are ``dropped`` are not used."""

    photo_ids: Int[Array, "k"]
    cam_from_world: Float[Array, "k 3 4"]
    cameras: list[Camera]
    dropped: dict[int, Rejection] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def shares(self, database: Path) -> PairShares:
        """Share of the verified matches of each pair that the poses explain."""
        return epipolar_shares(database, self.cam_from_world, self.cameras, self.photo_ids)

    def as_json(self) -> dict[int, list[list[float]]]:
        """Poses in use, by photo id."""
        rows = zip(self.photo_ids.tolist(), self.cam_from_world.tolist(), strict=True)
        return {photo: pose for photo, pose in rows if photo not in self.dropped}


def check_poses(workspace: Workspace, config: PoseConfig, given: KnownPoses, names: list[str]) -> KnownPoses:
    """The poses to use: as given where the matches agree with them, else refined, without those that are wrong.

    QuoinError where most of the poses contradict what the photos show.
    """
    pairs = given.shares(workspace.database)
    used, warnings = given, []
    if not len(pairs.shares):
        return given
    is_exact = ~(pairs.of_photos() < EPIPOLAR.min_exact_share)  # also a photo without pairs: nothing contradicts it
    if config.refine_known_poses and not is_exact.all():
        refined = refine_known_poses(workspace, given, is_exact)
        changes = np.array(pose_changes(given, refined))  # shifts and turns
        is_changed = ~is_exact & (changes > 0).any(axis=0)
        shift, turn_deg = np.median(changes[:, is_changed], axis=1) if is_changed.any() else (np.inf, np.inf)
        refined_pairs = refined.shares(workspace.database)
        before, after = (np.nanmedian(p.of_photos()[~is_exact]) for p in (pairs, refined_pairs))
        is_better = np.median(refined_pairs.shares) >= EPIPOLAR.min_exact_share and after > before + MIN_REFINED_GAIN
        if is_better and shift <= MAX_REFINED_SHIFT and turn_deg <= MAX_REFINED_TURN_DEG:
            used, pairs = refined, refined_pairs
            warnings = [
                f"{is_changed.sum()} given poses did not fit the photos exactly, and were refined: by {shift:.2%} of "
                f"the cameras' extent and {turn_deg:.2f}° in the median "
                "(--set pose.refine_known_poses=false keeps them)"
            ]
    is_wrong = pairs.wrong_photos()
    shares = pairs.of_photos(is_wrong)
    if 2 * is_wrong.sum() > len(shares):
        raise QuoinError(
            f"The given cameras contradict the photos: most verified matches of {is_wrong.sum()} of {len(shares)} "
            f"photos lie more than {EPIPOLAR.max_distance_px:.0f} pixels from their epipolar lines",
            where=config.known_poses,
            hint="check names, focal length, the size of the photos that it is for, and which way axes point; or leave "
            "--poses away, and the poses are estimated"
            + ("" if config.refine_known_poses else ", or try --set pose.refine_known_poses=true"),
        )
    if is_wrong.any():
        named = ", ".join(names[row] for row in np.flatnonzero(is_wrong)[:5]) + (", …" if is_wrong.sum() > 5 else "")
        warnings.append(
            f"{is_wrong.sum()} given cameras contradict what their photos show, which are not used: {named} "
            "(turned by EXIF, or names swapped?)"
        )
    is_inexact = ~is_wrong & (shares < EPIPOLAR.min_exact_share)  # not of a photo without pairs: NaN
    if is_inexact.any():
        advice = "" if config.refine_known_poses else "; --set pose.refine_known_poses=true corrects them"
        warnings.append(
            f"The given cameras of {is_inexact.sum()} photos are not exact: more than "
            f"{1 - EPIPOLAR.min_exact_share:.0%} of the verified matches miss their epipolar lines{advice}"
        )
    dropped = {
        int(given.photo_ids[row]): Rejection(Reason.WRONG_GIVEN_POSE, f"{shares[row]:.0%} of its matches agree")
        for row in np.flatnonzero(is_wrong)
    }
    return replace(used, dropped=dropped, warnings=warnings)


def refine_known_poses(workspace: Workspace, given: KnownPoses, is_exact: Bool[Array, "k"]) -> KnownPoses:
    """Poses after bundle adjustment from the given ones, in the same frame; cameras stay, and poses that are exact.

    A pose that went further than a tracker errs is as given.
    """
    focal = float(np.median([camera.mean_focal_px for camera in given.cameras]))
    largest_px = max(EPIPOLAR.max_distance_px, MAX_GIVEN_ERROR * focal)
    is_constant = is_exact if is_exact.sum() >= MIN_CONSTANT_POSES else np.zeros_like(is_exact)
    with workspace.report.task("pose/refining the given poses", 1):
        output = workspace.folder / "refined_poses"
        output.mkdir(exist_ok=True)
        job = {
            "poses": given.as_json(),
            "constant": given.photo_ids[is_constant].tolist(),
            "max_errors_px": np.geomspace(largest_px, EPIPOLAR.max_distance_px, 3).tolist(),
            "output": str(output),
        }
        result = workspace.run_colmap("refine_poses", job)["poses"]
    poses = np.array([result[str(photo)] for photo in given.photo_ids])
    if not is_constant.any():
        given_from_refined, _ = fit_similarity_robust(
            centers_world(poses), centers_world(given.cam_from_world), seed=workspace.seed
        )
        poses = given_from_refined.apply_to_poses(poses)
    shift, turn_deg = pose_changes(given, replace(given, cam_from_world=poses))
    is_kept = is_constant | ((shift > MAX_REFINED_SHIFT) | (turn_deg > MAX_REFINED_TURN_DEG)) & is_constant.any()
    return replace(given, cam_from_world=np.where(is_kept[:, None, None], given.cam_from_world, poses))


def pose_changes(given: KnownPoses, refined: KnownPoses) -> tuple[Float[Array, "k"], Float[Array, "k"]]:
    """Shift of each camera center, per extent of all of them, and its turn in degrees."""
    before, after = centers_world(given.cam_from_world), centers_world(refined.cam_from_world)
    extent = max(float(np.ptp(before, axis=0).max()), 1e-300)
    traces = np.einsum("kij,kij->k", given.cam_from_world[:, :, :3], refined.cam_from_world[:, :, :3])
    turn_deg = np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))
    return np.linalg.norm(after - before, axis=1) / extent, turn_deg


def _triangulate(workspace: Workspace, given: KnownPoses, config: PoseConfig) -> Component:
    poses = given.as_json()
    with workspace.report.task("pose/triangulating", 1):
        job = {"poses": poses, "output": str(workspace.folder / "triangulated")}
        path = workspace.run_colmap("triangulate", job)["component"]
    model = read_sparse_model(Path(path) / "model.npz")
    if len(model.points_sfm) < config.min_points:
        raise QuoinError(
            f"The given cameras do not explain the photos: they agree on {len(model.points_sfm)} points only",
            where=config.known_poses,
            hint="check that they belong to these photos, and which way their axes point",
        )
    # the user's poses: those of COLMAP were rounded on the way through quaternions
    exact = replace(model, cam_from_sfm=np.array([poses[i] for i in model.photo_ids]))
    return Component(path, FilteredModel(exact, given.dropped))


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
