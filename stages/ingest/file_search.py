"""Which files a photo folder holds: every one of them, in natural name order, none outside it, each that cannot be a
photo with the reason.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp", ".heic", ".heif", ".avif"}
PHOTO_SUFFIXES |= {".bmp", ".ppm", ".pgm", ".jp2", ".j2k"}
RAW_SUFFIXES = {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw", ".x3f", ".raw"}
VIDEO_SUFFIXES = {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".3gp", ".mpg", ".mpeg", ".wmv"}
CLIP_REASON = "video"  # stands as the reason of a file that is to give frames
RUN_FOLDER_ENTRIES = {
    "run.json",
    "logs",
}  # in a folder: it is a run of quoin, whose pictures are none of the collection
SYSTEM_FILES = {
    "__MACOSX",
    "@eaDir",
    "Thumbs.db",
    "desktop.ini",
}  # what systems leave in folders, as hidden as dot files


@dataclass(frozen=True)
class SourceFile:
    """A file: ``name`` relative to the folder, with forward slashes; why it is no photo, "" where it may be one.

    Of a frame also the name of its ``clip`` and the time in it, in seconds.
    """

    name: str
    path: Path
    reason: str = ""
    n_bytes: int = 0
    clip: str = ""
    time_s: float = math.nan


def find_files(root: Path, excluded: Collection[Path] = ()) -> list[SourceFile]:
    """All files below ``root`` but hidden ones and those below ``excluded``, in natural order of their names."""
    return sorted(_walk(root.resolve(), set(excluded)), key=lambda file: natural_key(file.name))


def natural_key(name: str) -> tuple[object, ...]:
    """Sorts photo2 before photo10, folder by folder; the name itself decides between equals."""
    parts = [
        [(part.casefold(), 0) if i % 2 == 0 else ("", int(part)) for i, part in enumerate(re.split(r"(\d{1,18})", p))]
        for p in name.split("/")
    ]
    return (parts, name)


def suffix_of(name: str) -> str:
    """The last suffix, lower case, with its dot."""
    return os.path.splitext(name)[1].lower()


def _walk(root: Path, excluded: set[Path]) -> Iterator[SourceFile]:
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            yield _source_file(root, folder, reason=f"unreadable folder: {error.strerror}")
            continue
        if folder != root and RUN_FOLDER_ENTRIES.issubset(entry.name for entry in entries):
            continue
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith(".") or entry.name in SYSTEM_FILES or path in excluded:
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            else:
                yield _check_file(root, path)


def _check_file(root: Path, path: Path) -> SourceFile:
    try:
        if path.is_symlink():
            target = path.resolve(strict=True)
            if not target.is_relative_to(root):
                return _source_file(root, path, reason="link: it leaves the photo folder")
            if target.is_dir():
                return _source_file(root, path, reason="link: to a folder that is listed itself")
        status = path.stat()
    except (OSError, RuntimeError) as error:  # broken links and rings of links
        return _source_file(root, path, reason=f"unreadable: {getattr(error, 'strerror', None) or 'a ring of links'}")
    if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
        return _source_file(root, path, reason="not a photo: not a regular file")
    return _source_file(root, path, reason=_reject_reason(path.name), n_bytes=status.st_size)


def _reject_reason(name: str) -> str:
    suffix = suffix_of(name)
    if suffix in RAW_SUFFIXES:  # Pillow would take the thumbnail inside for the photo
        return "camera raw: save it as TIFF or JPEG"
    if suffix in VIDEO_SUFFIXES:
        return CLIP_REASON
    return ""


def _source_file(root: Path, path: Path, reason: str, n_bytes: int = 0) -> SourceFile:
    name = path.relative_to(root).as_posix()
    try:
        str(path).encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8 fit in no table
        readable = os.fsencode(path).decode(errors="backslashreplace")
        name = os.fsencode(name).decode(errors="backslashreplace")
        return SourceFile(name, Path(readable), "unreadable: its name is not valid UTF-8", n_bytes)
    return SourceFile(name, path, reason, n_bytes)
