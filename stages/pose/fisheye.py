"""Fisheye lenses without calibration: which cameras may have one, by what they came out as with a pinhole camera."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.pose.checks.disambiguation import format_names, map_with_disambiguation
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.mapping import is_better, mean_error_px, refine_component
from quoin.stages.pose.workspace import Component, SfmResult, Workspace

FISHEYE_MODEL = "SIMPLE_RADIAL_FISHEYE"
# Of the long edge: a view of 67 degrees. Lenses that see less are explained by SIMPLE_RADIAL, fisheye or not.
MAX_WIDE_FOCAL_RATIO = 0.75
MAX_WIDE_RADIAL_DISTORTION = -0.05  # k1 of SIMPLE_RADIAL; wide lenses that are no fisheyes have about 0


def fisheye_cameras(component: Component, cameras: list[Camera], camera_of: list[int]) -> list[Camera]:
    """``cameras``, as fisheyes those that came out wide and bent, or whose photos needed a wide camera each.

    ``component`` has the photos with the cameras that they were refined with; photo i is of ``cameras[camera_of[i]]``.
    """
    model = component.filtered.model
    rows_of: dict[int, list[int]] = {}
    for row, photo_id in enumerate(model.photo_ids.tolist()):
        rows_of.setdefault(camera_of[photo_id], []).append(row)
    changed = list(cameras)
    for number, rows in rows_of.items():
        used = {int(model.camera_index[row]) for row in rows}
        focal_px = float(np.median([model.cameras[index].mean_focal_px for index in used]))
        radial = float(np.median([model.cameras[index].params[3] for index in used]))
        camera = cameras[number]
        is_wide = focal_px < MAX_WIDE_FOCAL_RATIO * max(camera.width, camera.height)
        if is_wide and (len(used) > 1 or radial < MAX_WIDE_RADIAL_DISTORTION):
            start_px = camera.params[0] if camera.prior_focal else focal_px
            changed[number] = replace(
                camera, model=FISHEYE_MODEL, params=(start_px, *camera.params[1:]), prior_focal=True
            )
    return changed


def map_as_fisheye_if_better(
    workspace: Workspace,
    config: PoseConfig,
    names: list[str],
    result: SfmResult,
    initial_cameras: tuple[list[Camera], list[int]],
) -> SfmResult:
    """The result with fisheye cameras, where wide lenses that photos share are explained better by them.

    ``initial_cameras`` are those that mapping started from, and the index of every photo's camera.
    """
    cameras, camera_of = initial_cameras
    fisheyes = fisheye_cameras(result.components[0], cameras, camera_of)
    wide_ids = np.flatnonzero([fisheyes[n] != cameras[n] for n in camera_of])
    if not len(wide_ids) or not config.refine_intrinsics:
        return result
    wide_names = format_names(names, wide_ids)
    workspace.report.log("pose", f"{wide_names} may be taken by a fisheye lens; mapping them as such")
    fisheye_workspace = workspace.with_cameras(fisheyes, camera_of, "fisheye")
    try:
        fisheye_workspace.run_colmap("verify_matches", {})
        components, mapper = map_with_disambiguation(fisheye_workspace, config, result.pairs, names)
    except QuoinError:  # what was mapped before is left
        components, mapper = [], ""
    if components:
        warnings = components[0].warnings
        components[0], n_refined_cameras = refine_component(fisheye_workspace, config, components[0])
        if is_better(components, result.components):
            workspace.report.log("pose", f"A fisheye lens explains them better: {mean_error_px(components[0]):.2f} px")
            return replace(
                result, components=components, mapper=mapper, n_refined_cameras=n_refined_cameras, warnings=warnings
            )
    if len(result.components[0].filtered.model.cameras) <= len(cameras):
        return result
    text = (
        f"{wide_names}: the lens is wide, and no camera explains these photos together. "
        "If it is a fisheye, give its calibration with the poses (--poses)"
    )
    return replace(result, warnings=[*result.warnings, text])
