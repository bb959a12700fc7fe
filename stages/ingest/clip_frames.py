"""Clips among the files: each gives the frames worth taking, as files of their own, or the reason why it gives none.

Frames lie in ``frames/<clip>/000123.jpg`` of the run, numbered as in the clip. What was seen in a clip is kept in
``work/ingest``, so that a run that was stopped, or one with other settings, does not look through it again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.formatting import spans
from quoin.stages.ingest.clip_decoder import Header, cut_off, look_through, read_header, write_frames
from quoin.stages.ingest.config import ClipFacts, IngestConfig
from quoin.stages.ingest.file_search import CLIP, PHOTO_SUFFIXES, Found, suffix_of
from quoin.stages.ingest.keyframes import Choice, Seen, choose, step_for

LOOK = 1  # version of what is seen in a clip and of how its frames are written
LIVE_S = 4.0  # phones add a film of that length, at most, to a photo
Advance = Callable[[float], None]


@dataclass(frozen=True)
class Looked:
    """A clip that was looked through: ``n_frames`` can be decoded, the last of them at ``last_s`` seconds."""

    file: Found
    key: str
    header: Header
    seen: Seen
    n_frames: int
    last_s: float


def take_frames(
    files: Sequence[Found], folder: Path, config: IngestConfig, report: Reporter
) -> tuple[list[Found], list[ClipFacts]]:
    """``files`` with every clip replaced by its frames, or by itself with a reason; and the facts of those with frames.

    ``folder`` is the run's.
    """
    clips = [file for file in files if file.reason == CLIP]
    if not clips:
        return list(files), []
    looked, reasons = _look_through_all(clips, _stems(files), folder / "work" / "ingest", report)
    step = step_for([clip.seen for clip in looked], config.max_frames)
    choices = [choose(clip.seen, step, config.min_sharpness) for clip in looked]
    taken = _write_all(looked, choices, folder / "frames", report)
    facts = [_facts(*clip) for clip in zip(looked, choices, taken, strict=True)]
    found = {clip.file.name: frames for clip, frames in zip(looked, taken, strict=True)}
    reasons |= {name: "blurred: nothing in this video is sharp" for name, frames in found.items() if not frames}
    out: list[Found] = []
    for file in files:
        frames = found.get(file.name, []) if file.reason == CLIP else []
        reason = reasons.get(file.name, file.reason) if file.reason == CLIP else file.reason
        out += frames or [replace(file, reason=reason)]
    return out, [clip for clip in facts if clip.n_taken]


def told(clip: ClipFacts) -> str:
    """What a clip gave, in a line."""
    rate = f", {clip.frames_per_s:.3g} a second" if clip.frames_per_s else ""
    text = f"{clip.name}: {clip.n_taken} of {clip.n_frames} frames taken ({clip.seconds:.1f} s{rate})"
    parts = [
        f"blurred, none taken: {spans(clip.blurred_s)}" if clip.blurred_s else "",
        f"still, one taken: {spans(clip.still_s)}" if clip.still_s else "",
        clip.cut_off,
    ]
    return "; ".join(part for part in [text, *parts] if part)


def _stems(files: Sequence[Found]) -> dict[str, str]:
    """Photos by their path without the suffix, in lower case."""
    photos = [file.name for file in files if not file.reason and suffix_of(file.name) in PHOTO_SUFFIXES]
    return {name[: -len(suffix_of(name))].casefold(): name for name in photos}


def _look_through_all(
    clips: Sequence[Found], photo_of: dict[str, str], work: Path, report: Reporter
) -> tuple[list[Looked], dict[str, str]]:
    """Every clip that can be decoded, and the reasons of the others by name."""
    reasons: dict[str, str] = {}
    headers: dict[str, Header] = {}
    for file in clips:
        photo = photo_of.get(file.name[: -len(suffix_of(file.name))].casefold())
        try:
            headers[file.name] = header = read_header(file.path)
            if photo and suffix_of(file.name) == ".mov" and header.length_s <= LIVE_S:
                reasons[file.name] = f"live photo: its photo {photo} is used"
        except QuoinError as error:
            reasons[file.name] = error.what
    looked = []
    left = [file for file in clips if file.name not in reasons]
    with report.task("ingest/clips", sum(headers[file.name].n_frames for file in left), "frames") as advance:
        before = 0
        for file in left:
            header = headers[file.name]
            try:
                looked.append(_look(file, header, work, _after(before, advance)))
            except QuoinError as error:
                reasons[file.name] = error.what
            before += header.n_frames
            advance(before)
    return looked, reasons


def _after(before: int, advance: Advance) -> Advance:
    """Advances from ``before`` on."""
    return lambda done: advance(before + done)


def _look(file: Found, header: Header, work: Path, advance: Advance) -> Looked:
    """What is seen in a clip, from an earlier look where there was one."""
    status = file.path.stat()
    key = digest([file.name, status.st_size, status.st_mtime_ns, LOOK])
    path = work / f"{key}.npz"
    if path.exists():
        with np.load(path) as kept:
            seen = Seen(kept["number"], kept["time_s"], kept["motion"], kept["sharpness"])
            return Looked(file, key, header, seen, int(kept["n_frames"]), float(kept["last_s"]))
    seen, n_frames, last_s = look_through(file.path, advance)
    work.mkdir(parents=True, exist_ok=True)
    part = work / f"{key}.partial.npz"
    np.savez(part, **vars(seen), n_frames=n_frames, last_s=last_s)
    part.replace(path)
    return Looked(file, key, header, seen, n_frames, last_s)


def _write_all(
    looked: Sequence[Looked], choices: Sequence[Choice], folder: Path, report: Reporter
) -> list[list[Found]]:
    """The chosen frames of every clip as files; those that are there stay, others of earlier choices go."""
    out = []
    with report.task("ingest/frames", sum(len(choice.taken) for choice in choices), "frames") as advance:
        before = 0
        for clip, choice in zip(looked, choices, strict=True):
            own = folder / PurePosixPath(clip.file.name)
            _keep_only(own, clip.key)
            numbers = clip.seen.number[choice.taken].tolist()
            targets = {number: own / f"{number:06d}.jpg" for number in numbers}
            for stale in set(own.glob("*")) - set(targets.values()) - {own / NOTE}:
                stale.unlink()
            missing = {number: target for number, target in targets.items() if not target.exists()}
            if missing:
                there = before + len(targets) - len(missing)
                write_frames(clip.file.path, missing, _after(there, advance))
            before += len(targets)
            advance(before)
            times = zip(targets.values(), clip.seen.time_s[choice.taken].tolist(), strict=True)
            out.append([_found(clip.file, path, time_s) for path, time_s in times if path.exists()])
    return out


NOTE = "clip"


def _keep_only(folder: Path, key: str) -> None:
    """Empty the folder unless its frames are of the clip with this key."""
    note = folder / NOTE
    if not note.exists() or note.read_text() != key:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        note.write_text(key)


def _found(clip: Found, path: Path, time_s: float) -> Found:
    return Found(f"{clip.name}/{path.name}", path, "", path.stat().st_size, clip.name, time_s)


def _facts(clip: Looked, choice: Choice, frames: Sequence[Found]) -> ClipFacts:
    return ClipFacts(
        name=clip.file.name,
        seconds=round(clip.last_s, 3),
        frames_per_s=round(clip.header.frames_per_s, 3),
        n_frames=clip.n_frames,
        n_taken=len(frames),
        blurred_s=choice.blurred_s,
        still_s=choice.still_s,
        cut_off=cut_off(clip.n_frames, clip.last_s, clip.header),
    )
