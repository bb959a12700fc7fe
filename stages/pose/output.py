"""Outputs of the pose stage: world frame, posed photos, undistorted photos, tables, sparse/."""

from __future__ import annotations

import math
import shutil
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from quoin.pipeline.core.reasons import Reason, Rejection
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.geometry.similarity import Similarity
from quoin.pipeline.scene.manhattan import ManhattanFrame, write_manhattan_frame
from quoin.pipeline.scene.photo_table import PhotoRow, write_pose_rows
from quoin.pipeline.scene.posed_images import Posed, write_posed, write_transform
from quoin.pipeline.scene.sensor_depth import SensorScale, write_sensor_points, write_sensor_scale
from quoin.pipeline.scene.world import EarthOrigin, World, write_world
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.checks.registration import (
    REGISTRATION,
    describe_bad_intrinsics,
    photo_median_errors,
    residuals_px,
    why_unregistered,
)
from quoin.stages.pose.colmap.sparse_model import SparseModel
from quoin.stages.pose.config import ComponentSummary, PoseConfig, PoseResult
from quoin.stages.pose.frame.lines import Lines
from quoin.stages.pose.frame.sensor_scale import (
    SENSOR,
    ScaleEstimate,
    find_sensor_points,
    scale_warnings,
    write_sensor_depths,
)
from quoin.stages.pose.frame.wall_directions import find_walls, gravity_from_walls, refine_gravity
from quoin.stages.pose.frame.world_frame import (
    Georeference,
    Gravity,
    georeference,
    gravity_aligned_frame,
    gravity_from_cameras,
)
from quoin.stages.pose.sfm import has_focal
from quoin.stages.pose.undistortion import PinholeCamera, fit_pinhole, write_undistorted_photos
from quoin.stages.pose.workspace import Component, SfmResult, Workspace

Array = np.ndarray

# Ratio of the focal length found to that in EXIF, or its inverse, from which on EXIF is wrong.
MAX_EXIF_FOCAL_RATIO = 1.3


def write_outputs(workspace: Workspace, config: PoseConfig, photos: list[PhotoRow], result: SfmResult) -> PoseResult:
    """Write all outputs; returns the stage's result."""
    run, report = workspace.run, workspace.report
    used = result.components[0]
    model = used.filtered.model
    warnings = list(result.warnings)
    pinholes = [fit_pinhole(camera, config.photo_max_edge_px) for camera in model.cameras]
    lines = write_undistorted_photos(run, workspace, photos, model, pinholes)
    scale_estimate = write_sensor_depths(run, workspace, photos, model, pinholes)
    is_known = result.mapper == "known_poses"
    frame = choose_frame(photos, model, lines, scale_estimate, run.seed, keep_frame=is_known)
    world_from_sfm, gravity, geo, walls, frame_warnings = frame
    is_metric = geo is not None or (scale_estimate is not None and not is_known)
    store_frame(run, frame, is_metric)
    warnings += frame_warnings
    report.log("pose", walls.summary())
    write_sparse(run, workspace, photos, result, world_from_sfm)
    posed, errors = to_posed(photos, model, pinholes, world_from_sfm)
    write_posed(run, posed)
    n_depths = sum(bool(photos[i].depth_path) for i in model.photo_ids)
    source_of_scale = "given cameras" if is_known else "GPS"
    warnings += write_sensor(run, posed, n_depths, scale_estimate, world_from_sfm, source_of_scale)
    write_tables(run, photos, result, errors)
    warnings += camera_warnings(model) + exif_warnings(photos, model)
    missing = len(photos) - used.n_photos
    if missing:
        text = f"{missing} of {len(photos)} photos are not registered; tables/poses.parquet says why"
        report.log("pose", text, "warning")
    if len(result.components) > 1:
        text = (
            f"The photos fall into {len(result.components)} parts that do not connect "
            f"({', '.join(str(c.n_photos) for c in result.components)} photos); the largest is used"
        )
        report.log("pose", text, "warning")
    for text in warnings:
        report.log("pose", text, "warning")
    return PoseResult(
        n_photos=len(photos),
        n_registered=used.n_photos,
        n_components=len(result.components),
        components=[
            ComponentSummary(n_photos=c.n_photos, n_points=len(c.filtered.model.points_sfm)) for c in result.components
        ],
        n_points=len(posed.points_world),
        mean_reprojection_px=float(errors.mean()),
        median_reprojection_px=float(np.median(errors)),
        median_track_length=float(np.median(np.diff(model.track_offsets))),
        n_pairs=int((result.pairs[:, 3] > 0).sum()),
        n_masks=result.n_masks,
        mapper=result.mapper,
        n_refined_cameras=result.n_refined_cameras,
        is_georeferenced=geo is not None,
        gravity_confidence=gravity.confidence,
        n_depths=n_depths if scale_estimate else 0,
        is_metric=is_metric,
        n_wall_directions=len(walls.normals_world),
        wall_confidence=walls.confidence,
        warnings=warnings,
    )


def camera_warnings(model: SparseModel) -> list[str]:
    """Warnings about cameras with implausible intrinsics, and how many photos they concern."""
    uses = np.bincount(model.camera_index, minlength=len(model.cameras))
    problems = [(describe_bad_intrinsics(camera), count) for camera, count in zip(model.cameras, uses, strict=True)]
    implausible = [(problem, int(count)) for problem, count in problems if problem]
    if not implausible:
        return []
    return [f"The cameras of {sum(n for _, n in implausible)} photos are implausible, for example: {implausible[0][0]}"]


def exif_warnings(photos: list[PhotoRow], model: SparseModel) -> list[str]:
    """Warnings about focal lengths in EXIF that are far from the estimated ones, with an example."""
    rows = [
        (photos[i], model.cameras[c].mean_focal_px) for i, c in zip(model.photo_ids, model.camera_index, strict=True)
    ]
    mismatched = [
        (photo, estimated_px)
        for photo, estimated_px in rows
        if has_focal(photo) and not 1 / MAX_EXIF_FOCAL_RATIO < estimated_px / photo.focal_px < MAX_EXIF_FOCAL_RATIO
    ]
    if not mismatched:
        return []
    photo, estimated_px = mismatched[0]
    return [
        f"The focal length in EXIF is wrong for {len(mismatched)} photos (for example {photo.name}: "
        f"{photo.focal_px:.0f} px, found {estimated_px:.0f} px); the one found is used"
    ]


class WorldFrame(NamedTuple):
    """world_from_sfm and what it rests on: gravity (in the SfM frame), GPS where it is used, walls (in the world)."""

    world_from_sfm: Similarity
    gravity: Gravity
    georeference: Georeference | None
    walls: ManhattanFrame
    warnings: list[str]


def choose_frame(
    photos: list[PhotoRow],
    model: SparseModel,
    lines: Lines,
    scale_estimate: ScaleEstimate | None,
    seed: int,
    *,
    keep_frame: bool,
) -> WorldFrame:
    """World frame of the model: its own with ``keep_frame`` (known poses), else by GPS, else by gravity and walls.

    Only a frame by gravity is turned to the walls.
    """
    refined = refine_gravity(lines, gravity_from_cameras(model.cam_from_sfm))
    walls = find_walls(lines, refined)
    gravity = gravity_from_walls(refined, walls)
    used_georeference, warnings = None, []
    if keep_frame:
        world_from_sfm = Similarity.identity("world of the given cameras")
    else:
        places = np.array(
            [[photos[i].latitude_deg, photos[i].longitude_deg, photos[i].altitude_m] for i in model.photo_ids]
        )
        geo = georeference(centers_world(model.cam_from_sfm), places.astype(np.float64), gravity, seed)
        if isinstance(geo, str):
            if np.isfinite(places[:, 0]).any():
                warnings.append(f"No georeference: {geo}")
            scale = (
                (scale_estimate.m_per_sfm, f"metres by {scale_estimate}") if scale_estimate else (1.0, "scale of SfM")
            )
            world_from_sfm = gravity_aligned_frame(
                gravity, model.cam_from_sfm, model.points_sfm, walls.normals_world, *scale
            )
        else:
            world_from_sfm, used_georeference = geo.world_from_sfm, geo
    return WorldFrame(world_from_sfm, gravity, used_georeference, walls.rotated(world_from_sfm.rotation), warnings)


def store_frame(run: Run, frame: WorldFrame, is_metric: bool) -> None:
    """Write frame/ of the scene: world_from_sfm, what is known of the world, and the directions of walls."""
    world_from_sfm, gravity, geo, walls, _ = frame
    arrays.delete_node(run.scene, "frame")
    write_transform(run, "world_from_sfm", world_from_sfm)
    origin = None
    if geo:
        latitude_deg, longitude_deg, altitude_m = geo.origin.tolist()
        origin = EarthOrigin(latitude_deg, longitude_deg, altitude_m, geo.residual_m, geo.n_inliers)
    up_world = world_from_sfm.rotation @ gravity.up
    write_world(run, World("m" if is_metric else "units", up_world, gravity.confidence, origin))
    write_manhattan_frame(run, walls)


def write_sensor(
    run: Run, posed: Posed, n_depths: int, scale_estimate: ScaleEstimate | None, world_from_sfm: Similarity, source: str
) -> list[str]:
    """Keep what a metre of the sensor is in the world, and points of its depth; what is doubtful about both.

    ``source`` is where the scale of the world is from where it is not from the sensor itself. Where that is metres too,
    as near as points tell (they owe it errors of focal lengths), a metre is a metre.
    """
    arrays.delete_node(run.scene, "sensor")
    m_per_world = scale_estimate.m_per_sfm / world_from_sfm.scale if scale_estimate else 1.0
    if scale_estimate:
        is_same_scale = abs(m_per_world - 1) <= SENSOR.scale_tolerance
        write_sensor_scale(run, SensorScale(1.0 if is_same_scale else 1.0 / m_per_world, str(scale_estimate)))
        points = find_sensor_points(run, posed)
        if points is not None:
            write_sensor_points(run, points)
    return scale_warnings(scale_estimate, n_depths, m_per_world, source)


def to_posed(
    photos: list[PhotoRow], model: SparseModel, pinholes: list[PinholeCamera], world_from_sfm: Similarity
) -> tuple[Posed, Float[Array, "t"]]:
    """Posed photos in the world frame, tracks in undistorted pixels; and reprojection errors before undistortion."""
    xy = np.zeros_like(model.track_xy)
    inside = np.zeros(len(xy), bool)
    for camera, pinhole, rows_of_camera in zip(model.cameras, pinholes, model.observations_by_camera(), strict=True):
        xy[rows_of_camera] = pinhole.pixels(camera, model.track_xy[rows_of_camera])
        inside[rows_of_camera] = (
            (xy[rows_of_camera] > 0) & (xy[rows_of_camera] < [pinhole.width, pinhole.height])
        ).all(axis=1)
    errors = residuals_px(model)
    kept = model.survivors(inside)[1]
    kept_model, kept_errors = model.keep_observations(inside), errors[kept]
    counts = np.diff(kept_model.track_offsets)
    return (
        Posed(
            names=[photos[i].name for i in model.photo_ids],
            photo_ids=model.photo_ids,
            cam_from_world=world_from_sfm.apply_to_poses(model.cam_from_sfm),
            intrinsics=np.array([pinholes[c].intrinsics for c in model.camera_index]),
            sizes=np.array([[pinholes[c].width, pinholes[c].height] for c in model.camera_index], np.int64),
            points_world=world_from_sfm.apply(kept_model.points_sfm),
            point_errors_px=np.add.reduceat(kept_errors, kept_model.track_offsets[:-1]) / counts,
            point_colors=kept_model.point_colors,
            track_offsets=kept_model.track_offsets,
            track_photo=kept_model.track_photo,
            track_xy=xy[kept],
        ),
        errors,
    )


def write_tables(run: Run, photos: list[PhotoRow], result: SfmResult, errors: Float[Array, "t"]) -> None:
    """tables/poses.parquet and tables/pairs.parquet."""
    pairs = result.pairs
    columns = {name: pairs[:, i] for i, name in enumerate(("photo_a", "photo_b", "n_matches", "n_inliers"))}
    pq.write_table(pa.table(columns), run.table("pairs"))
    used = result.components[0]
    component_of = _component_of_photos(result.components)
    row = {int(i): k for k, i in enumerate(used.filtered.model.photo_ids)}
    medians, counts = photo_median_errors(used.filtered.model, errors), used.filtered.model.n_observations
    best, partners = _best_pairs(len(photos), pairs)
    rows = []
    for photo in photos:
        i = photo.photo_id
        component, k = component_of.get(i, -1), row.get(i)
        registered = k is not None
        if registered:
            why = None
        elif component > 0:
            why = why_in_other_component(result.components, component)
        elif i in used.filtered.dropped:
            why = used.filtered.dropped[i]
        elif result.mapper == "known_poses":
            why = Rejection(Reason.NO_GIVEN_POSE)
        else:
            of_partners = {component_of[p] for p in partners[i] if p in component_of}
            why = why_unregistered(result.n_features[i], best[i], bool(of_partners))
            if best[i] >= REGISTRATION.min_useful_inliers and of_partners and 0 not in of_partners:
                why = why_in_other_component(result.components, min(of_partners))
        camera = used.filtered.model.cameras[used.filtered.model.camera_index[k]] if k is not None else None
        rows.append(
            {
                "photo_id": i,
                "name": photo.name,
                "registered": registered,
                "component": component,
                "n_points": int(counts[k]) if k is not None else 0,
                "reprojection_px": float(medians[k]) if k is not None else math.nan,
                "focal_px": camera.mean_focal_px if camera else math.nan,
                "reason": why.reason.value if why else "",
                "detail": why.detail if why else "",
            }
        )
    write_pose_rows(run, rows)


def why_in_other_component(components: list[Component], number: int) -> Rejection:
    """Why a photo that goes with a component that is not in use is missing."""
    return Rejection(Reason.OTHER_COMPONENT, f"component {number}, of {components[number].n_photos} photos")


def _component_of_photos(components: list[Component]) -> dict[int, int]:
    """Component of every registered photo; a photo in two belongs to the larger."""
    component_of: dict[int, int] = {}
    for number, component in enumerate(components):
        for i in component.filtered.model.photo_ids:
            component_of.setdefault(int(i), number)
    return component_of


def _best_pairs(n: int, pairs: Array) -> tuple[list[int], list[list[int]]]:
    best = [0] * n
    partners: list[list[int]] = [[] for _ in range(n)]
    for a, b, _, inliers in pairs.tolist():
        if inliers > 0:
            for one, other in ((a, b), (b, a)):
                best[one] = max(best[one], inliers)
                partners[one].append(other)
    return best, partners


def write_sparse(
    run: Run, workspace: Workspace, photos: list[PhotoRow], result: SfmResult, world_from_sfm: Similarity
) -> None:
    """sparse/0 (in use, world frame), sparse/1 ... (other components, each in its own frame)."""
    shutil.rmtree(run.path / "sparse", ignore_errors=True)
    models = [
        {
            "path": component.path,
            "photo_ids": component.filtered.model.photo_ids.tolist(),
            "world_from_sfm": (world_from_sfm if number == 0 else Similarity.identity()).to_json(),
            "output": str(run.path / "sparse" / str(number)),
        }
        for number, component in enumerate(result.components)
    ]
    workspace.run_colmap("export_models", {"models": models, "names": [photo.name for photo in photos]})
