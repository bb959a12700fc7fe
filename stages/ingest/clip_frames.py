"""Keyframes of the clips among the files, written as files of their own; or why a clip gives none.

Frames lie in ``frames/<clip>/000123.jpg`` of the run, numbered as in the clip. Measurements of a clip are kept in
``work/ingest``, so that a run that was stopped, or has other settings now, need not decode it again.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath

import numpy as np

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.events import Advance, Reporter
from quoin.pipeline.core.formatting import timespans
from quoin.pipeline.core.reasons import Reason, RejectedFileError, Rejection
from quoin.pipeline.storage.arrays import read_npz
from quoin.stages.ingest.clip_decoder import (
    ClipHeader,
    ClipScan,
    describe_truncation,
    read_clip_header,
    scan_clip,
    write_frames,
)
from quoin.stages.ingest.config import ClipResult, IngestConfig
from quoin.stages.ingest.file_search import PHOTO_SUFFIXES, SourceFile, suffix_of
from quoin.stages.ingest.keyframes import FrameSamples, KeyframeChoice, choose_keyframes, fit_keyframe_step

SAMPLE_NAMES = tuple(field.name for field in fields(FrameSamples))
SCAN_VERSION = 2  # of the measurements of a clip, and of how its frames are written
BLURRED_CLIP = Rejection(Reason.BLURRED, "nothing in this video is sharp")
INTERLACED_ADVICE = "interlaced: one field of each frame is used, with half the lines; film in progressive mode"
MAX_LIVE_PHOTO_S = 4.0  # length of the film that phones add to a photo, at most


@dataclass(frozen=True)
class ScannedClip:
    """A clip with the ``key`` of its contents, its header, and measurements of its frames."""

    file: SourceFile
    key: str
    header: ClipHeader
    scan: ClipScan


def extract_frames(
    files: Sequence[SourceFile], run_folder: Path, config: IngestConfig, report: Reporter
) -> tuple[list[SourceFile], list[ClipResult]]:
    """``files`` with each clip replaced by its frames, or rejected if it gives none; a result per clip with frames."""
    clips = [file for file in files if file.is_clip]
    if not clips:
        return list(files), []
    scanned, rejections = _scan_clips(clips, _photos_by_stem(files), run_folder / "work" / "ingest", report)
    step = fit_keyframe_step([clip.scan.samples for clip in scanned], config.max_frames)
    choices = [choose_keyframes(clip.scan.samples, step, config.min_sharpness) for clip in scanned]
    frames, write_rejections = _write_all_frames(scanned, choices, run_folder / "frames", report)
    rejections |= write_rejections
    sources = {clip.name: [replace(clip, rejection=rejections.get(clip.name, BLURRED_CLIP))] for clip in clips}
    sources |= {clip.file.name: taken for clip, taken in zip(scanned, frames, strict=True) if taken}
    results = [_clip_result(*outcome) for outcome in zip(scanned, choices, frames, strict=True)]
    sources_in_order = itertools.chain.from_iterable(sources[f.name] if f.is_clip else [f] for f in files)
    return list(sources_in_order), [result for result in results if result.n_taken]


def describe_clip(clip: ClipResult) -> str:
    """One line of text about the frames taken of a clip."""
    rate = f", {clip.frames_per_s:.3g} a second" if clip.frames_per_s else ""
    text = f"{clip.name}: {clip.n_taken} of {clip.n_frames} frames taken ({clip.duration_s:.1f} s{rate})"
    parts = [
        f"blurred, no frame taken: {timespans(clip.blurred_s)}" if clip.blurred_s else "",
        f"still, one frame taken: {timespans(clip.still_s)}" if clip.still_s else "",
        clip.cut_off,
        INTERLACED_ADVICE if clip.is_interlaced else "",
    ]
    return "; ".join(part for part in [text, *parts] if part)


def _photos_by_stem(files: Sequence[SourceFile]) -> dict[str, str]:
    """Names of photos by their path without suffix, in lower case."""
    photos = [file.name for file in files if not file.rejection and suffix_of(file.name) in PHOTO_SUFFIXES]
    return {name[: -len(suffix_of(name))].casefold(): name for name in photos}


def _scan_clips(
    clips: Sequence[SourceFile], photo_by_stem: dict[str, str], work: Path, report: Reporter
) -> tuple[list[ScannedClip], dict[str, Rejection]]:
    """Every clip that can be decoded, and why the others give no frames, by name."""
    rejections: dict[str, Rejection] = {}
    headers: dict[str, ClipHeader] = {}
    for file in clips:
        photo = photo_by_stem.get(file.name[: -len(suffix_of(file.name))].casefold())
        try:
            headers[file.name] = header = read_clip_header(file.path)
            if photo and suffix_of(file.name) == ".mov" and header.length_s <= MAX_LIVE_PHOTO_S:
                rejections[file.name] = Rejection(Reason.LIVE_PHOTO, f"its photo {photo} is used")
        except RejectedFileError as error:
            rejections[file.name] = error.rejection
    scanned = []
    pending = [file for file in clips if file.name not in rejections]
    with report.task("ingest/clips", sum(headers[file.name].n_frames for file in pending), "frames") as advance:
        before = 0
        for file in pending:
            header = headers[file.name]
            try:
                scanned.append(_scan_cached(file, header, work, _offset_progress(before, advance)))
            except RejectedFileError as error:
                rejections[file.name] = error.rejection
            before += header.n_frames
            advance(before)
    return scanned, rejections


def _offset_progress(before: int, advance: Advance) -> Advance:
    """A callback that adds ``before`` to the progress."""
    return lambda done: advance(before + done)


def _scan_cached(file: SourceFile, header: ClipHeader, work: Path, advance: Advance) -> ScannedClip:
    """Measure the frames of a clip, or read the measurements of an earlier run."""
    status = file.path.stat()
    key = digest([file.name, status.st_size, status.st_mtime_ns, SCAN_VERSION])
    path = work / f"{key}.npz"
    if path.exists():
        saved = read_npz(path, f"work/ingest/{path.name}", (*SAMPLE_NAMES, "n_frames", "last_s", "is_interlaced"))
        samples = FrameSamples(*(saved[name] for name in SAMPLE_NAMES))
        n_frames, last_s, is_interlaced = (saved[name].item() for name in ("n_frames", "last_s", "is_interlaced"))
        return ScannedClip(file, key, header, ClipScan(samples, n_frames, last_s, is_interlaced))
    scan = scan_clip(file.path, advance)
    work.mkdir(parents=True, exist_ok=True)
    part = work / f"{key}.partial.npz"
    values = {name: value for name, value in vars(scan).items() if name != "samples"}
    np.savez(part, **vars(scan.samples), **values)
    part.replace(path)
    return ScannedClip(file, key, header, scan)


def _write_all_frames(
    scanned: Sequence[ScannedClip], choices: Sequence[KeyframeChoice], folder: Path, report: Reporter
) -> tuple[list[list[SourceFile]], dict[str, Rejection]]:
    """The chosen frames of every clip, and why clips give none, by name.

    Frames that are not there yet are written, those of earlier choices deleted.
    """
    out, rejections = [], {}
    with report.task("ingest/frames", sum(len(choice.selected) for choice in choices), "frames") as advance:
        before = 0
        for clip, choice in zip(scanned, choices, strict=True):
            clip_folder = folder / PurePosixPath(clip.file.name)
            _clear_unless_current(clip_folder, clip.key)
            numbers = clip.scan.samples.number[choice.selected].tolist()
            targets = {number: clip_folder / f"{number:06d}.jpg" for number in numbers}
            for stale in set(clip_folder.glob("*")) - set(targets.values()) - {clip_folder / KEY_FILE}:
                stale.unlink()
            missing = {number: target for number, target in targets.items() if not _is_written(target)}
            if missing:
                n_written = before + len(targets) - len(missing)
                try:
                    write_frames(clip.file.path, missing, _offset_progress(n_written, advance))
                except RejectedFileError as error:
                    rejections[clip.file.name] = error.rejection
            before += len(targets)
            advance(before)
            times = zip(targets.values(), clip.scan.samples.time_s[choice.selected].tolist(), strict=True)
            out.append([_frame_file(clip.file, path, time_s) for path, time_s in times if path.exists()])
    return out, rejections


def _is_written(path: Path) -> bool:
    """Whether a frame is there; a power cut may leave an empty file."""
    return path.exists() and path.stat().st_size > 0


KEY_FILE = "clip"


def _clear_unless_current(folder: Path, key: str) -> None:
    """Empty the folder of a clip's frames unless they are of the file with this key."""
    note = folder / KEY_FILE
    if not note.exists() or note.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note.write_text(key)


def _frame_file(clip: SourceFile, path: Path, time_s: float) -> SourceFile:
    return SourceFile(f"{clip.name}/{path.name}", path, None, path.stat().st_size, clip.name, time_s)


def _clip_result(clip: ScannedClip, choice: KeyframeChoice, frames: Sequence[SourceFile]) -> ClipResult:
    return ClipResult(
        name=clip.file.name,
        duration_s=round(clip.scan.last_s, 3),
        frames_per_s=round(clip.header.frames_per_s, 3),
        n_frames=clip.scan.n_frames,
        n_taken=len(frames),
        blurred_s=choice.blurred_s,
        still_s=choice.still_s,
        cut_off=describe_truncation(clip.scan.n_frames, clip.scan.last_s, clip.header),
        is_interlaced=clip.scan.is_interlaced,
    )
