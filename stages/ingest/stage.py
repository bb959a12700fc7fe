"""The ingest stage: every file of the photo folder becomes a row of the photo table, used or with its reason."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.imaging.io import PixelBudget
from quoin.pipeline.imaging.value_range import FULL_RANGE, ValueRange
from quoin.pipeline.scene.camera_files import given_cameras_path, read_given_masks
from quoin.pipeline.scene.photo_table import PhotoRow, write_photo_table
from quoin.pipeline.scene.sensor_depth import read_depth_camera
from quoin.pipeline.storage.run import Run
from quoin.pipeline.storage.stage import Stage, StageContext
from quoin.stages.ingest.clip_frames import describe_clip, extract_frames
from quoin.stages.ingest.config import IngestConfig, IngestResult
from quoin.stages.ingest.deep_photos import find_value_ranges
from quoin.stages.ingest.depth_files import assign_depth_maps
from quoin.stages.ingest.file_search import SourceFile
from quoin.stages.ingest.listing import Listing, list_sources
from quoin.stages.ingest.photo_file import InspectionLimits, PhotoInspection, inspect_photo
from quoin.stages.ingest.selection import (
    camera_groups,
    drop_blurred,
    drop_duplicates,
    drop_near_duplicates,
    drop_panoramas,
    exposure_offsets_ev,
)
from quoin.stages.ingest.summary import log_summary, summarize_photos, too_few_photos

MAX_THREADS = 16


def contents_hash(run: Run, config: IngestConfig) -> str:
    """Hash of the files in the photo folder, so that added photos are noticed; a missing folder counts as unchanged."""
    done = run.manifest("ingest")
    if done is not None and not all(path.exists() for path in (run.photos, *run.clips)):
        return str(run.result_value("ingest", "contents"))
    return _contents_hash(_list_files(run, config), config)


def _contents_hash(listing: Listing, config: IngestConfig) -> str:
    if not (config.depth and config.depth_camera):
        return listing.contents
    camera = read_depth_camera(Path(config.depth_camera))
    return digest([listing.contents, *(np.asarray(part).tolist() for part in vars(camera).values())])


def _list_files(run: Run, config: IngestConfig) -> Listing:
    given = given_cameras_path(run)
    masks = read_given_masks(given) if given else {}
    return list_sources(run.photos, run.clips, config.masks, run.path, config.depth, masks)


def ingest_photos(context: StageContext, config: IngestConfig) -> IngestResult:
    """Examine every file below ``run.photos`` and of ``run.clips``, take frames of clips, write tables/photos.parquet.

    Raises QuoinError where the folder gives fewer than two different photos, or where masks do not fit their photos;
    the table is written all the same.
    """
    run, report = context.run, context.report
    listing = _list_files(run, config)
    if config.depth_camera and not config.depth:
        raise QuoinError(
            "A depth camera is given, but no depth maps",
            where="ingest.depth_camera",
            hint="give the folder of depth maps with --depth",
        )
    if not listing.files:
        raise QuoinError("The photo folder is empty", where=run.photos, hint="put photos into it")
    files, clips = extract_frames(listing.files, run.path, config, report)
    value_ranges = find_value_ranges(files, _max_pixels(config), _n_threads(), report)
    inspections = _inspect_all(files, listing.mask_of, value_ranges, config, report)
    masks = _find_masks(files, inspections, listing.mask_of, config)
    rows = [
        replace(_row(file, facts, mask), value_range=value_ranges.get(file.name, FULL_RANGE))
        for file, facts, mask in zip(files, inspections, masks, strict=True)
    ]
    _drop_unusable(rows, inspections, files, config, report)
    depth_maps = assign_depth_maps(rows, listing.depth_of, config, report)
    _assign_ids(rows, inspections)
    write_photo_table(run, rows)

    _check_masks(files, listing, inspections)
    result = summarize_photos(rows, len(listing.files), clips, depth_maps, _contents_hash(listing, config))
    for clip in clips:
        report.log("ingest", describe_clip(clip), level="warning" if clip.cut_off or clip.is_interlaced else "info")
    if result.n_used < 2:
        raise too_few_photos(rows, result, run.photos)
    log_summary(rows, result, listing, report)
    return result


def _max_pixels(config: IngestConfig) -> int:
    return int(config.max_megapixels * 1e6)


def _n_threads() -> int:
    return min(MAX_THREADS, os.cpu_count() or 1)


def _inspect_all(
    files: list[SourceFile],
    mask_of: dict[str, Path],
    value_ranges: dict[str, ValueRange],
    config: IngestConfig,
    report: Reporter,
) -> list[PhotoInspection]:
    """The facts of every file, decoded once, several at a time in threads (decoders release the interpreter lock)."""
    budget = PixelBudget()
    limits = InspectionLimits(_max_pixels(config), config.min_side_px, config.min_contrast)

    def work(file: SourceFile) -> PhotoInspection:
        if file.rejection:
            return PhotoInspection(rejection=file.rejection)
        value_range = value_ranges.get(file.name, FULL_RANGE)
        return inspect_photo(file.path, mask_of.get(file.name), budget, limits, value_range)

    pool = ThreadPoolExecutor(_n_threads(), thread_name_prefix="ingest")
    out = []
    try:
        with report.task("ingest", total=len(files), unit="files") as advance:
            for inspections in pool.map(work, files):
                out.append(inspections)
                advance(len(out))
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C: finish only the files in progress
    return out


def _row(file: SourceFile, facts: PhotoInspection, mask: Path | None) -> PhotoRow:
    return PhotoRow(
        name=file.name,
        path=str(file.path),
        width=facts.width,
        height=facts.height,
        orientation=facts.orientation,
        focal_px=facts.exif.focal_px,
        camera=facts.exif.camera,
        latitude_deg=facts.exif.latitude_deg,
        longitude_deg=facts.exif.longitude_deg,
        altitude_m=facts.exif.altitude_m,
        taken_at=facts.exif.taken_at,
        mask_path=str(mask) if mask else "",
        border=facts.border,
        clip=file.clip,
        time_s=file.time_s,
        content_hash=facts.content_hash,
        file_hash=facts.file_hash,
        rejection=facts.rejection,
    )


def _find_masks(
    files: list[SourceFile], inspections: list[PhotoInspection], mask_of: dict[str, Path], config: IngestConfig
) -> list[Path | None]:
    """The file of each photo's mask: that of its name, else the photo itself where it is cut out."""
    use_alpha = config.masks != "none"
    return [
        mask_of.get(file.name) or (file.path if use_alpha and facts.is_cut_out else None)
        for file, facts in zip(files, inspections, strict=True)
    ]


def _drop_unusable(
    rows: list[PhotoRow],
    inspections: list[PhotoInspection],
    files: list[SourceFile],
    config: IngestConfig,
    report: Reporter,
) -> None:
    """Reject duplicates, panoramas, blurred photos and near duplicates."""
    signatures = [facts.signature for facts in inspections]
    drop_duplicates(rows)
    drop_panoramas(rows, config.max_aspect)
    drop_blurred(rows, signatures, config.min_sharpness)
    if config.near_duplicates == "drop":
        n_bytes = [file.n_bytes for file in files]
        offsets_ev = exposure_offsets_ev([facts.exif for facts in inspections])
        with report.task("ingest/compare", total=sum(row.used for row in rows), unit="photos") as advance:
            drop_near_duplicates(rows, signatures, offsets_ev, n_bytes, advance)


def _assign_ids(rows: list[PhotoRow], inspections: list[PhotoInspection]) -> None:
    """Give the used photos their ids and camera groups."""
    used = [i for i, row in enumerate(rows) if row.used]
    kinds, focals = [], []
    for i in used:
        row, exif = rows[i], inspections[i].exif
        by_lens = isnan(exif.focal_px)  # in millimetres then, which still tells zoom settings apart
        focals.append(exif.focal_mm if by_lens else exif.focal_px)
        kinds.append((os.path.dirname(row.name), row.width, row.height, exif.camera, by_lens))
    for photo_id, (i, group) in enumerate(zip(used, camera_groups(kinds, focals), strict=True)):
        rows[i] = replace(rows[i], photo_id=photo_id, group=group)


def _check_masks(files: list[SourceFile], listing: Listing, inspections: list[PhotoInspection]) -> None:
    """Raise QuoinError for a mask that cannot be used: without it the run would reconstruct what was to be left out."""
    failed = [(file, facts) for file, facts in zip(files, inspections, strict=True) if facts.mask_error]
    if failed:
        file, facts = failed[0]
        more = f" (and {len(failed) - 1} more of {len(listing.mask_of)} masks)" if len(failed) > 1 else ""
        raise QuoinError(
            f"The mask of {file.name!r} cannot be used: {facts.mask_error}{more}",
            where=listing.mask_of[file.name],
            hint="replace or remove such masks, or set ingest.masks=none",
        )


INGEST = Stage(
    name="ingest",
    needs=(),
    version=4,
    config=IngestConfig,
    result=IngestResult,
    run=ingest_photos,
    inputs=contents_hash,
)
