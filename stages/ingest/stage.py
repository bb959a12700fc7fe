"""The ingest stage: every file of the photo folder becomes a row of the photo table, used or with its reason."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.reasons import Reason
from quoin.pipeline.imaging.memory_budget import PixelBudget
from quoin.pipeline.scene.photo_table import PhotoRow, write_photo_table
from quoin.pipeline.scene.sensor_depth import read_depth_camera
from quoin.pipeline.storage.run import Run, stage
from quoin.stages.ingest.camera_groups import camera_groups
from quoin.stages.ingest.clip_frames import describe_clip, extract_frames
from quoin.stages.ingest.config import ClipResult, IngestConfig, IngestResult
from quoin.stages.ingest.depth_files import DepthFileFacts, estimate_depth_unit, inspect_depth
from quoin.stages.ingest.file_search import SourceFile
from quoin.stages.ingest.listing import Listing, list_sources
from quoin.stages.ingest.photo_file import PhotoInspection, inspect_photo
from quoin.stages.ingest.selection import drop_blurred, drop_duplicates, drop_near_duplicates, drop_panoramas

MAX_THREADS = 16
UNREADABLE_REASONS = {Reason.UNREADABLE, Reason.UNREADABLE_FOLDER, Reason.TRUNCATED, Reason.TOO_LARGE}
EXPECTED_REASONS = {Reason.MASK, Reason.DEPTH_MAP, Reason.NOT_A_PHOTO}  # nothing to warn of

MAX_UNUSED_ROWS = 200  # of the live table; the report has all

FILMING_ADVICE = "walk slowly around the thing while you film, or take photos from several places"


def contents(run: Run, config: IngestConfig) -> str:
    """Hash of what lies in the photo folder: added photos are noticed; a folder that is gone counts as unchanged."""
    done = run.manifest("ingest")
    if done is not None and not all(path.exists() for path in (run.photos, *run.clips)):
        return str(done.result["contents"])
    return _contents_hash(_list_files(run, config), config)


def _contents_hash(listing: Listing, config: IngestConfig) -> str:
    if not (config.depth and config.depth_camera):
        return listing.contents
    camera = read_depth_camera(Path(config.depth_camera))
    return digest([listing.contents, *(np.asarray(part).tolist() for part in vars(camera).values())])


def _list_files(run: Run, config: IngestConfig) -> Listing:
    return list_sources(run.photos, run.clips, config.masks, run.path, config.depth)


@stage("ingest", needs=(), version=3, result=IngestResult, inputs=contents)
def run(run: Run, config: IngestConfig, report: Reporter) -> IngestResult:
    """Examine every file below ``run.photos`` and of ``run.clips``, take frames of clips, write tables/photos.parquet.

    Raises QuoinError where the folder gives fewer than two different photos, or where masks do not fit their photos;
    the table is written all the same.
    """
    listing = _list_files(run, config)
    if config.depth_camera and not config.depth:
        raise QuoinError("A depth camera is given, and no depth maps", where="ingest.depth_camera", hint="give --depth")
    if not listing.files:
        raise QuoinError("The photo folder is empty", where=run.photos, hint="put photos into it")
    files, clips = extract_frames(listing.files, run.path, config, report)
    inspections = _inspect_all(files, listing, config, report)
    rows = [_row(file, facts, listing.mask_of.get(file.name)) for file, facts in zip(files, inspections, strict=True)]
    _drop_unusable(rows, inspections, files, config, report)
    n_depths, unit_m = _assign_depth_maps(rows, listing, config, report)
    _assign_ids(rows, inspections)
    write_photo_table(run, rows)

    _check_masks(files, listing, inspections)
    result = _result(rows, listing, _contents_hash(listing, config), clips, n_depths, unit_m)
    for clip in clips:
        report.log("ingest", describe_clip(clip), level="warning" if clip.cut_off else "info")
    if result.n_used < 2:
        raise _too_few_photos(rows, result, run.photos)
    _log_summary(rows, result, listing, report)
    return result


def _inspect_all(
    files: list[SourceFile], listing: Listing, config: IngestConfig, report: Reporter
) -> list[PhotoInspection]:
    """Every file decoded once, several at a time (the decoders let go of the interpreter)."""

    budget = PixelBudget()

    def work(file: SourceFile) -> PhotoInspection:
        if file.rejection:
            return PhotoInspection(rejection=file.rejection)
        return inspect_photo(
            file.path,
            listing.mask_of.get(file.name),
            budget,
            max_pixels=int(config.max_megapixels * 1e6),
            min_side_px=config.min_side_px,
            min_contrast=config.min_contrast,
        )

    pool = ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="ingest")
    out = []
    try:
        with report.task("ingest", total=len(files), unit="files") as advance:
            for inspections in pool.map(work, files):
                out.append(inspections)
                advance(len(out))
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C: end with the files in hand
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
        rejection=facts.rejection,
    )


def _drop_unusable(
    rows: list[PhotoRow],
    inspections: list[PhotoInspection],
    files: list[SourceFile],
    config: IngestConfig,
    report: Reporter,
) -> None:
    """Leave out what is there twice and what is no photo of one view."""
    signatures = [facts.signature for facts in inspections]
    drop_duplicates(rows)
    drop_panoramas(rows, config.max_aspect)
    drop_blurred(rows, signatures, config.min_sharpness)
    if config.near_duplicates == "drop":
        n_bytes = [file.n_bytes for file in files]
        with report.task("ingest/compare", total=sum(row.used for row in rows), unit="photos") as advance:
            drop_near_duplicates(rows, signatures, n_bytes, advance)


def _assign_depth_maps(
    rows: list[PhotoRow], listing: Listing, config: IngestConfig, report: Reporter
) -> tuple[int, float | None]:
    """Give the used photos their depth maps; how many have one, and metres per unit of the files."""
    with_map = [row for row in rows if row.used and row.name in listing.depth_of]
    if not with_map:
        return 0, None

    def work(row: PhotoRow) -> DepthFileFacts:
        size, path = (row.width, row.height), listing.depth_of[row.name]
        if config.depth_camera and row.orientation != 1:
            return DepthFileFacts(reason="of a turned photo, whose depth camera looks another way")
        return inspect_depth(path, size, row.orientation, has_own_camera=config.depth_camera is not None)

    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1), thread_name_prefix="ingest") as pool:
        facts = list(pool.map(work, with_map))
    failed = [(row, fact.reason) for row, fact in zip(with_map, facts, strict=True) if fact.reason]
    good = [fact for fact in facts if not fact.reason]
    for row, reason in failed[:1]:
        if not good:
            raise QuoinError(
                f"None of the {len(failed)} depth maps can be used; that of {row.name!r} is {reason}",
                where=listing.depth_of[row.name],
                hint="give 16-bit PNG in millimetres or floating-point TIFF in metres, of the photos' shape",
            )
        report.log(
            "ingest",
            f"{len(failed)} of {len(facts)} depth maps are left out; that of {row.name!r} is {reason}",
            level="warning",
        )
    unit_m, why = (config.depth_unit_m, "as set") if config.depth_unit_m else estimate_depth_unit(good)
    camera = str(Path(config.depth_camera).resolve()) if config.depth_camera else ""
    usable = {row.name for row, fact in zip(with_map, facts, strict=True) if not fact.reason}
    for i, row in enumerate(rows):
        if row.name in usable:
            path = str(listing.depth_of[row.name])
            rows[i] = replace(row, depth_path=path, depth_unit_m=unit_m, depth_camera=camera)
    middle = float(np.median([fact.median for fact in good])) * unit_m
    report.log("ingest", f"depth unit {unit_m:g} m ({why}): depths about {middle:.2f} m; else set ingest.depth_unit_m")
    return len(good), unit_m


def _assign_ids(rows: list[PhotoRow], inspections: list[PhotoInspection]) -> None:
    """Give the used photos their ids and camera groups."""
    used = [i for i, row in enumerate(rows) if row.used]
    kinds, focals = [], []
    for i in used:
        row, exif = rows[i], inspections[i].exif
        by_lens = isnan(exif.focal_px)  # in millimetres then: still tells the ends of a zoom apart
        focals.append(exif.focal_mm if by_lens else exif.focal_px)
        kinds.append((os.path.dirname(row.name), row.width, row.height, exif.camera, by_lens))
    for photo_id, (i, group) in enumerate(zip(used, camera_groups(kinds, focals), strict=True)):
        rows[i] = replace(rows[i], photo_id=photo_id, group=group)


def _check_masks(files: list[SourceFile], listing: Listing, inspections: list[PhotoInspection]) -> None:
    """A mask that cannot be followed stops the run: reconstructing what was to be left out helps nobody."""
    failed = [(file, facts) for file, facts in zip(files, inspections, strict=True) if facts.mask_error]
    if failed:
        file, facts = failed[0]
        more = f", and so with {len(failed) - 1} more of {len(listing.mask_of)} masks" if len(failed) > 1 else ""
        raise QuoinError(
            f"The mask of {file.name!r} cannot be used: {facts.mask_error}{more}",
            where=listing.mask_of[file.name],
            hint="replace or remove such masks, or set ingest.masks=none",
        )


def _result(
    rows: list[PhotoRow], listing: Listing, contents: str, clips: list[ClipResult], n_depths: int, unit_m: float | None
) -> IngestResult:
    used = [row for row in rows if row.used]
    reasons = Counter(row.rejection.reason for row in rows if row.rejection)
    return IngestResult(
        n_files=len(listing.files),
        n_used=len(used),
        n_frames=sum(bool(row.clip) for row in used),
        n_duplicates=reasons[Reason.DUPLICATE],
        n_near_duplicates=reasons[Reason.NEAR_DUPLICATE],
        n_unreadable=sum(reasons[reason] for reason in UNREADABLE_REASONS),
        n_masks=sum(bool(row.mask_path) for row in used),
        n_depths=n_depths,
        depth_unit_m=unit_m,
        n_borders=sum(any(row.border) for row in used),
        n_with_focal=sum(not isnan(row.focal_px) for row in used),
        n_with_gps=sum(not isnan(row.latitude_deg) for row in used),
        n_groups=len({row.group for row in used}),
        megapixels=round(sum(row.width * row.height for row in used) / 1e6, 3),
        max_side_px=max((max(row.width, row.height) for row in used), default=0),
        clips=clips,
        reasons=dict(reasons.most_common()),
        contents=contents,
    )


def _format_reasons(reasons: dict[Reason, int]) -> str:
    return ", ".join(f"{count} {reason.text}" for reason, count in reasons.items())


def _too_few_photos(rows: list[PhotoRow], result: IngestResult, where: Path) -> QuoinError:
    files = "1 file" if result.n_files == 1 else f"{result.n_files} files"
    if where.is_file() and not result.clips:
        return QuoinError(f"This video gives no frame ({rows[0].rejection})", where=where, hint=FILMING_ADVICE)
    if result.clips and result.n_frames == result.n_used:
        gave = " and ".join(describe_clip(clip) for clip in result.clips[:3])
        return QuoinError(f"The videos give too few different frames: {gave}", where=where, hint=FILMING_ADVICE)
    if result.n_used == 1 and result.reasons and result.reasons.keys() <= {Reason.DUPLICATE, Reason.NEAR_DUPLICATE}:
        return QuoinError(f"All {files} show the same picture", where=where, hint="take photos from several places")
    have = "is no photo" if result.n_used == 0 else "is 1 photo"
    why = f" ({_format_reasons(result.reasons)})" if result.reasons else ""
    return QuoinError(
        f"Among {files} there {have} to use{why}, and a surface needs at least 2",
        where=where,
        hint="give a folder of photos that show one scene from several places",
    )


def _log_summary(rows: list[PhotoRow], result: IngestResult, listing: Listing, report: Reporter) -> None:
    files = "1 file" if result.n_files == 1 else f"{result.n_files} files"
    frames = f" ({result.n_frames} are frames of videos)" if result.n_frames else ""
    report.log(
        "ingest",
        f"{result.n_used} photos of {files}{frames}, {result.megapixels:.0f} megapixels, "
        f"cameras {result.n_groups}, with focal length {result.n_with_focal}, with GPS {result.n_with_gps}, "
        f"with mask {result.n_masks}, with depth {result.n_depths}, with a frame that is ignored {result.n_borders}",
    )
    unexpected = {reason: count for reason, count in result.reasons.items() if reason not in EXPECTED_REASONS}
    if unexpected:
        report.log("ingest", f"files not used: {_format_reasons(unexpected)}; the report says which", level="warning")
        rejected = [(row.name, row.rejection) for row in rows if row.rejection and row.rejection.reason in unexpected]
        unused = [{"file": name, "reason": str(rejection)} for name, rejection in rejected]
        report.table("ingest", unused[:MAX_UNUSED_ROWS])
    if listing.unused_masks:
        first = listing.unused_masks[0]
        report.log(
            "ingest", f"{len(listing.unused_masks)} masks belong to no photo, such as {first!r}", level="warning"
        )
    if listing.unused_depths:
        first = listing.unused_depths[0]
        report.log(
            "ingest", f"{len(listing.unused_depths)} depth maps belong to no photo, such as {first!r}", level="warning"
        )
