"""Depth maps of the used photos: which can be used, and in which unit they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.stages.ingest.config import IngestConfig
from quoin.stages.ingest.depth_files import DepthFileFacts, estimate_depth_unit, inspect_depth

MAX_DEPTH_THREADS = 16


@dataclass(frozen=True)
class DepthMapSummary:
    """How many photos have a depth map, and metres per unit of the files; None where no photo has one."""

    n_depths: int = 0
    unit_m: float | None = None


def assign_depth_maps(
    rows: list[PhotoRow], depth_of: Mapping[str, Path], config: IngestConfig, report: Reporter
) -> DepthMapSummary:
    """Put the depth map of each used photo (``depth_of`` by name) into its row, where the file can be used.

    Raises QuoinError where none can be used.
    """
    with_map = [row for row in rows if row.used and row.name in depth_of]
    if not with_map:
        return DepthMapSummary()
    facts = _inspect_depth_files(with_map, depth_of, config)
    usable = [fact for fact in facts.values() if not fact.reason]
    _report_failures(facts, depth_of, report)
    unit_m, why = (config.depth_unit_m, "as set") if config.depth_unit_m else estimate_depth_unit(usable)
    camera = str(Path(config.depth_camera).resolve()) if config.depth_camera else ""
    for i, row in enumerate(rows):
        if row.name in facts and not facts[row.name].reason:
            rows[i] = replace(row, depth_path=str(depth_of[row.name]), depth_unit_m=unit_m, depth_camera=camera)
    median_m = float(np.median([fact.median for fact in usable])) * unit_m
    report.log(
        "ingest",
        f"depth maps: unit {unit_m:g} m ({why}), so the median depth is {median_m:.2f} m; "
        "if that is wrong, set ingest.depth_unit_m",
    )
    return DepthMapSummary(len(usable), unit_m)


def _inspect_depth_files(
    rows: list[PhotoRow], depth_of: Mapping[str, Path], config: IngestConfig
) -> dict[str, DepthFileFacts]:
    """The facts of each photo's depth map, by the photo's name."""

    def inspect(row: PhotoRow) -> DepthFileFacts:
        if config.depth_camera and row.orientation != 1:
            return DepthFileFacts(reason="of a rotated photo, which the depth camera does not follow")
        size = row.width, row.height
        has_own_camera = config.depth_camera is not None
        return inspect_depth(depth_of[row.name], size, row.orientation, has_own_camera=has_own_camera)

    with ThreadPoolExecutor(min(MAX_DEPTH_THREADS, os.cpu_count() or 1), thread_name_prefix="ingest") as pool:
        return dict(zip([row.name for row in rows], pool.map(inspect, rows), strict=True))


def _report_failures(facts: Mapping[str, DepthFileFacts], depth_of: Mapping[str, Path], report: Reporter) -> None:
    """Warn of depth maps that cannot be used; raise QuoinError where none can."""
    failed = {name: fact.reason for name, fact in facts.items() if fact.reason}
    if not failed:
        return
    name, reason = next(iter(failed.items()))
    if len(failed) == len(facts):
        raise QuoinError(
            f"None of the {len(failed)} depth maps can be used; that of {name!r} is {reason}",
            where=depth_of[name],
            hint="give 16-bit PNG in millimetres or floating-point TIFF in metres, of the photos' shape",
        )
    text = f"{len(failed)} of {len(facts)} depth maps are left out; that of {name!r} is {reason}"
    report.log("ingest", text, level="warning")
