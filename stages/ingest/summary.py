"""The result of ingest in numbers, its log lines, and the error where there are too few photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from pathlib import Path

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.reasons import Reason
from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.stages.ingest.clip_frames import describe_clip
from quoin.stages.ingest.config import ClipResult, IngestResult
from quoin.stages.ingest.depth_files import DepthMapSummary
from quoin.stages.ingest.listing import Listing

UNREADABLE_REASONS = {Reason.UNREADABLE, Reason.UNREADABLE_FOLDER, Reason.TRUNCATED, Reason.TOO_LARGE}
EXPECTED_REASONS = {Reason.MASK, Reason.DEPTH_MAP, Reason.NOT_A_PHOTO}  # no cause for a warning
MAX_UNUSED_ROWS = 200  # of the live table; the report lists all
FILMING_ADVICE = "walk slowly around the object while you film, or take photos from several places"


def summarize_photos(
    rows: Sequence[PhotoRow],
    n_files: int,
    clips: list[ClipResult],
    depth_maps: DepthMapSummary,
    contents: str,
) -> IngestResult:
    """The counts of the photo table; ``contents`` is the hash of the files."""
    used = [row for row in rows if row.used]
    reasons = Counter(row.rejection.reason for row in rows if row.rejection)
    return IngestResult(
        n_files=n_files,
        n_used=len(used),
        n_frames=_count(row.clip for row in used),
        n_duplicates=reasons[Reason.DUPLICATE],
        n_near_duplicates=reasons[Reason.NEAR_DUPLICATE],
        n_unreadable=sum(reasons[reason] for reason in UNREADABLE_REASONS),
        n_masks=_count(row.mask_path for row in used),
        n_depths=depth_maps.n_depths,
        depth_unit_m=depth_maps.unit_m,
        n_borders=_count(any(row.border) for row in used),
        n_with_focal=_count(not isnan(row.focal_px) for row in used),
        n_with_gps=_count(not isnan(row.latitude_deg) for row in used),
        n_groups=len({row.group for row in used}),
        megapixels=round(sum(row.width * row.height for row in used) / 1e6, 3),
        max_side_px=max((max(row.width, row.height) for row in used), default=0),
        clips=clips,
        reasons=dict(reasons.most_common()),
        contents=contents,
    )


def _count(values: Iterable[object]) -> int:
    """How many of the values are true."""
    return sum(map(bool, values))


def too_few_photos(rows: Sequence[PhotoRow], result: IngestResult, source: Path) -> QuoinError:
    """The error for fewer than two photos in ``source``, by what was found instead."""
    files = _format_files(result.n_files)
    if source.is_file() and not result.clips:
        return QuoinError(
            f"No frame of this video can be used ({rows[0].rejection})", where=source, hint=FILMING_ADVICE
        )
    if result.clips and result.n_frames == result.n_used:
        frames = " and ".join(describe_clip(clip) for clip in result.clips[:3])
        return QuoinError(f"The videos give too few different frames: {frames}", where=source, hint=FILMING_ADVICE)
    if result.n_used == 1 and result.reasons and set(result.reasons) <= {Reason.DUPLICATE, Reason.NEAR_DUPLICATE}:
        return QuoinError(f"All {files} show the same picture", where=source, hint="take photos from several places")
    photos = "no photo" if result.n_used == 0 else "only 1 photo"
    reasons = f" ({_format_reasons(result.reasons)})" if result.reasons else ""
    is_mostly_raw = 2 * result.reasons.get(Reason.RAW, 0) > result.n_files
    return QuoinError(
        f"Of {files}, {photos} can be used{reasons}, and a surface needs at least 2",
        where=source,
        hint="save the camera raws as TIFF or JPEG, and give the folder of those"
        if is_mostly_raw
        else "give a folder of photos that show one scene from several places",
    )


def log_summary(rows: Sequence[PhotoRow], result: IngestResult, listing: Listing, report: Reporter) -> None:
    """Log the counts of ``result``, and warn of files, masks and depth maps that are not used."""
    frames = f" ({result.n_frames} of them frames of videos)" if result.n_frames else ""
    report.log(
        "ingest",
        f"{result.n_used} photos from {_format_files(result.n_files)}{frames}, {result.megapixels:.0f} megapixels; "
        f"camera groups: {result.n_groups}, with focal length: {result.n_with_focal}, with GPS: {result.n_with_gps}, "
        f"with mask: {result.n_masks}, with depth map: {result.n_depths}, with a border to ignore: {result.n_borders}",
    )
    unexpected = {reason: count for reason, count in result.reasons.items() if reason not in EXPECTED_REASONS}
    if unexpected:
        text = f"files not used: {_format_reasons(unexpected)}; the report lists them"
        report.log("ingest", text, level="warning")
        rejected = [(row.name, row.rejection) for row in rows if row.rejection and row.rejection.reason in unexpected]
        unused = [{"file": name, "reason": str(rejection)} for name, rejection in rejected]
        report.table("ingest", unused[:MAX_UNUSED_ROWS])
    for kind, names in (("masks", listing.unused_masks), ("depth maps", listing.unused_depths)):
        if names:
            report.log("ingest", f"{len(names)} {kind} belong to no photo, such as {names[0]!r}", level="warning")


def _format_files(n_files: int) -> str:
    return "1 file" if n_files == 1 else f"{n_files} files"


def _format_reasons(reasons: Mapping[Reason, int]) -> str:
    return ", ".join(f"{count} {reason.text}" for reason, count in reasons.items())
