"""What pose leaves behind: world frame, posed photos, undistorted pictures, tables, sparse/."""

from __future__ import annotations

import math
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.geometry.similarity import Similarity
from quoin.pipeline.scene.manhattan import WallFrame, write_walls
from quoin.pipeline.scene.posed_images import Posed, write_frame, write_posed
from quoin.pipeline.scene.sensor_depth import SensorScale, write_sensor_points, write_sensor_scale
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.checks.registration import FEW_INLIERS, camera_trouble, photo_medians, residuals_px, why_missing
from quoin.stages.pose.colmap.camera_models import focal_px
from quoin.stages.pose.colmap.sparse_model import SparseModel
from quoin.stages.pose.config import ComponentFacts, PoseConfig, PoseResult
from quoin.stages.pose.frame.lines import Lines
from quoin.stages.pose.frame.sensor_scale import WRONG_SCALE, Measured, find_points, scale_doubts, write_depths
from quoin.stages.pose.frame.wall_directions import find_walls, gravity_with, refine_up
from quoin.stages.pose.frame.world_frame import Georeference, Gravity, georeference, gravity_from_cameras, level_frame
from quoin.stages.pose.initial_cameras import known_focal
from quoin.stages.pose.undistorted_images import write_photos
from quoin.stages.pose.undistortion import Pinhole, pinhole_of
from quoin.stages.pose.workspace import Component, Found, Photo, Workshop

Array = np.ndarray

WRONG_FOCAL = 1.3  # ratio of the focal length found to that in EXIF, or its inverse, from which on EXIF is wrong


def write_outputs(shop: Workshop, config: PoseConfig, photos: list[Photo], found: Found) -> PoseResult:
    """Write everything of the component in use; returns the stage's result."""
    run, report = shop.run, shop.report
    used = found.components[0]
    model = used.gated.model
    warnings = list(found.warnings)
    pinholes = [pinhole_of(camera, config.photo_max_edge_px) for camera in model.cameras]
    lines = write_photos(run, shop, photos, model, pinholes)
    measured = write_depths(run, shop, photos, model, pinholes)
    frame = choose_frame(run, photos, model, lines, found.mapper == "given", warnings, measured)
    world_from_sfm, gravity, geo, walls = frame
    report.log("pose", walls.told())
    write_sparse(run, shop, photos, found, world_from_sfm)
    posed, errors = as_posed(photos, model, pinholes, world_from_sfm)
    write_posed(run, posed)
    n_depths = sum(bool(photos[i].get("depth_path")) for i in model.photo_ids)
    warnings += write_sensor(
        run, posed, n_depths, measured, world_from_sfm, "given cameras" if found.mapper == "given" else "GPS"
    )
    write_tables(run, photos, found, errors)
    warnings += camera_doubts(model) + exif_doubts(photos, model)
    missing = len(photos) - used.n_photos
    if missing:
        warnings.append(f"{missing} of {len(photos)} photos are not registered; tables/poses.parquet says why")
    if len(found.components) > 1:
        warnings.append(
            f"The photos fall into {len(found.components)} parts that do not connect "
            f"({', '.join(str(c.n_photos) for c in found.components)} photos); the largest is used"
        )
    for text in warnings:
        report.log("pose", text, "warning")
    return PoseResult(
        n_photos=len(photos),
        n_registered=used.n_photos,
        n_components=len(found.components),
        components=[
            ComponentFacts(n_photos=c.n_photos, n_points=len(c.gated.model.points_sfm)) for c in found.components
        ],
        n_points=len(posed.points_world),
        mean_reprojection_px=float(errors.mean()),
        median_reprojection_px=float(np.median(errors)),
        median_track_length=float(np.median(np.diff(model.track_offsets))),
        n_pairs=int((found.pairs[:, 3] > 0).sum()),
        n_masks=found.n_masks,
        mapper=found.mapper,
        refined_cameras=found.refined_cameras,
        georeferenced=geo is not None,
        gravity_confidence=gravity.confidence,
        n_depths=n_depths if measured else 0,
        metric=geo is not None or (measured is not None and found.mapper != "given"),
        wall_directions=len(walls.normals_world),
        wall_confidence=walls.confidence,
        warnings=warnings,
    )


def camera_doubts(model: SparseModel) -> list[str]:
    """What is implausible about the cameras in use, with how many photos it concerns."""
    uses = np.bincount(model.camera_index, minlength=len(model.cameras))
    troubles = [(camera_trouble(camera), count) for camera, count in zip(model.cameras, uses, strict=True)]
    strange = [(trouble, int(count)) for trouble, count in troubles if trouble]
    if not strange:
        return []
    return [f"The cameras of {sum(n for _, n in strange)} photos came out strange, for example: {strange[0][0]}"]


def exif_doubts(photos: list[Photo], model: SparseModel) -> list[str]:
    """How many focal lengths in EXIF are far from what the photos bear out, with an example."""
    rows = [(photos[i], focal_px(model.cameras[c])) for i, c in zip(model.photo_ids, model.camera_index, strict=True)]
    wrong = [
        (photo, found)
        for photo, found in rows
        if known_focal(photo) and not 1 / WRONG_FOCAL < found / photo["focal_px"] < WRONG_FOCAL
    ]
    if not wrong:
        return []
    photo, found = wrong[0]
    return [
        f"The focal length in EXIF is wrong for {len(wrong)} photos (for example {photo['name']}: "
        f"{photo['focal_px']:.0f} px, found {found:.0f} px); the one found is used"
    ]


def choose_frame(
    run: Run,
    photos: list[Photo],
    model: SparseModel,
    lines: Lines,
    given: bool,
    warnings: list[str],
    measured: Measured | None,
) -> tuple[Similarity, Gravity, Georeference | None, WallFrame]:
    """Find and store world_from_sfm and how walls stand in that world: as given, by GPS where it carries it, else by
    gravity. A world of given cameras or of GPS is not turned to the walls.
    """
    upright = refine_up(lines, gravity_from_cameras(model.cam_from_sfm))
    walls = find_walls(lines, upright)
    gravity = gravity_with(upright, walls)
    found = None
    if given:
        world_from_sfm = Similarity.identity("world of the given cameras")
    else:
        places = np.array(
            [[photos[i][k] for k in ("latitude_deg", "longitude_deg", "altitude_m")] for i in model.photo_ids]
        )
        geo = georeference(centers_world(model.cam_from_sfm), places.astype(np.float64), gravity, run.seed)
        if isinstance(geo, str):
            if np.isfinite(places[:, 0]).any():
                warnings.append(f"No georeference: {geo}")
            scale = (measured.m_per_sfm, f"metres by {measured}") if measured else (1.0, "scale of SfM")
            world_from_sfm = level_frame(gravity, model.cam_from_sfm, model.points_sfm, walls.normals_world, *scale)
        else:
            world_from_sfm, found = geo.world_from_sfm, geo
    walls = walls.turned(world_from_sfm.rotation)
    store_frame(run, world_from_sfm, gravity, found)
    write_walls(run, walls)
    return world_from_sfm, gravity, found, walls


def store_frame(run: Run, world_from_sfm: Similarity, gravity: Gravity, found: Georeference | None) -> None:
    """frame/ of the store: the hop, gravity with its confidence, and the ENU origin where GPS gave one."""
    arrays.delete(run.scene, "frame")
    write_frame(run, "world_from_sfm", world_from_sfm)
    attrs = run.scene["frame"].attrs
    attrs["gravity"] = {
        "up_world": (world_from_sfm.rotation @ gravity.up).tolist(),
        "confidence": gravity.confidence,
        "provenance": gravity.provenance,
    }
    if found:
        latitude, longitude, altitude = found.origin.tolist()
        attrs["enu_origin"] = {
            "latitude_deg": latitude,
            "longitude_deg": longitude,
            "altitude_m": altitude,
            "residual_m": found.residual_m,
            "n_photos": found.n_inliers,
            "provenance": "EXIF GPS",
        }


def write_sensor(
    run: Run, posed: Posed, n_depths: int, measured: Measured | None, world_from_sfm: Similarity, source: str
) -> list[str]:
    """Keep what a metre of the sensor is in the world, and points of its depth; what is doubtful about both.

    ``source`` is where the scale of the world is from where it is not from the sensor itself. Where that is metres too,
    as near as points tell (they owe it errors of focal lengths), a metre is a metre.
    """
    arrays.delete(run.scene, "sensor")
    m_per_world = measured.m_per_sfm / world_from_sfm.scale if measured else 1.0
    if measured:
        same = abs(m_per_world - 1) <= WRONG_SCALE
        write_sensor_scale(run, SensorScale(1.0 if same else 1.0 / m_per_world, str(measured)))
        points = find_points(run, posed)
        if points is not None:
            write_sensor_points(run, points)
    return scale_doubts(measured, n_depths, m_per_world, source)


def as_posed(
    photos: list[Photo], model: SparseModel, pinholes: list[Pinhole], world_from_sfm: Similarity
) -> tuple[Posed, Float[Array, "t"]]:
    """Posed photos in the world frame, tracks in undistorted pixels; and reprojection errors before undistortion."""
    xy = np.zeros_like(model.track_xy)
    inside = np.zeros(len(xy), bool)
    for camera, pinhole, mine in zip(model.cameras, pinholes, model.observations_by_camera(), strict=True):
        xy[mine] = pinhole.pixels(camera, model.track_xy[mine])
        inside[mine] = ((xy[mine] > 0) & (xy[mine] < [pinhole.width, pinhole.height])).all(axis=1)
    errors = residuals_px(model)
    kept = model.survivors(inside)[1]
    seen, errors_seen = model.keep_observations(inside), errors[kept]
    counts = np.diff(seen.track_offsets)
    return (
        Posed(
            names=[photos[i]["name"] for i in model.photo_ids],
            photo_ids=model.photo_ids,
            cam_from_world=world_from_sfm.apply_to_poses(model.cam_from_sfm),
            intrinsics=np.array([pinholes[c].intrinsics for c in model.camera_index]),
            sizes=np.array([[pinholes[c].width, pinholes[c].height] for c in model.camera_index], np.int64),
            points_world=world_from_sfm.apply(seen.points_sfm),
            point_errors_px=np.add.reduceat(errors_seen, seen.track_offsets[:-1]) / counts,
            point_colors=seen.point_colors,
            track_offsets=seen.track_offsets,
            track_photo=seen.track_photo,
            track_xy=xy[kept],
        ),
        errors,
    )


def write_tables(run: Run, photos: list[Photo], found: Found, errors: Float[Array, "t"]) -> None:
    """tables/poses.parquet and tables/pairs.parquet."""
    pairs = found.pairs
    columns = {name: pairs[:, i] for i, name in enumerate(("photo_a", "photo_b", "n_matches", "n_inliers"))}
    pq.write_table(pa.table(columns), run.table("pairs"))
    used = found.components[0]
    placed = _placed(found.components)
    row = {int(i): k for k, i in enumerate(used.gated.model.photo_ids)}
    medians, counts = photo_medians(used.gated.model, errors), used.gated.model.n_observations
    best, partners = _best_pairs(len(photos), pairs)
    rows = []
    for photo in photos:
        i = photo["photo_id"]
        component, k = placed.get(i, -1), row.get(i)
        registered = k is not None
        if registered:
            reason = ""
        elif component > 0:
            reason = another_group(found.components, component)
        elif i in used.gated.dropped:
            reason = f"dropped by the gate: {used.gated.dropped[i]}"
        elif found.mapper == "given":
            reason = "it has no given camera"
        else:
            of_partners = {placed[p] for p in partners[i] if p in placed}
            reason = why_missing(found.n_features[i], best[i], bool(of_partners))
            if best[i] >= FEW_INLIERS and of_partners and 0 not in of_partners:
                reason = another_group(found.components, min(of_partners))
        camera = used.gated.model.cameras[used.gated.model.camera_index[k]] if k is not None else None
        rows.append(
            {
                "photo_id": i,
                "name": photo["name"],
                "registered": registered,
                "component": component,
                "n_points": int(counts[k]) if k is not None else 0,
                "reprojection_px": float(medians[k]) if k is not None else math.nan,
                "focal_px": focal_px(camera) if camera else math.nan,
                "reason": reason,
            }
        )
    pq.write_table(pa.Table.from_pylist(rows, schema=POSE_SCHEMA), run.table("poses"))


POSE_SCHEMA = pa.schema(
    [
        ("photo_id", pa.int64()),
        ("name", pa.string()),
        ("registered", pa.bool_()),
        ("component", pa.int64()),  # -1 none, 0 the one in use
        ("n_points", pa.int64()),
        ("reprojection_px", pa.float64()),  # median
        ("focal_px", pa.float64()),  # of the upright photo
        ("reason", pa.string()),
    ]
)


def another_group(components: list[Component], number: int) -> str:
    """Why a photo that goes with a component that is not in use is missing."""
    return f"it belongs to another group of {components[number].n_photos} photos (component {number})"


def _placed(components: list[Component]) -> dict[int, int]:
    """Component of every registered photo; a photo in two belongs to the larger."""
    placed: dict[int, int] = {}
    for number, component in enumerate(components):
        for i in component.gated.model.photo_ids:
            placed.setdefault(int(i), number)
    return placed


def _best_pairs(n: int, pairs: Array) -> tuple[list[int], list[list[int]]]:
    best = [0] * n
    partners: list[list[int]] = [[] for _ in range(n)]
    for a, b, _, inliers in pairs.tolist():
        if inliers > 0:
            for one, other in ((a, b), (b, a)):
                best[one] = max(best[one], inliers)
                partners[one].append(other)
    return best, partners


def write_sparse(run: Run, shop: Workshop, photos: list[Photo], found: Found, world_from_sfm: Similarity) -> None:
    """sparse/0 (in use, world frame), sparse/1 ... (other components, each in its own frame)."""
    shutil.rmtree(run.path / "sparse", ignore_errors=True)
    models = [
        {
            "path": component.path,
            "photo_ids": component.gated.model.photo_ids.tolist(),
            "world_from_sfm": (world_from_sfm if number == 0 else Similarity.identity()).to_json(),
            "output": str(run.path / "sparse" / str(number)),
        }
        for number, component in enumerate(found.components)
    ]
    shop.colmap("finish", {"models": models, "names": [photo["name"] for photo in photos]})
