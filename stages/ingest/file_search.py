"""Search of a photo folder: every file in natural name order, and why it cannot be a photo, by its name and type."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from quoin.pipeline.core.reasons import Reason, Rejection

PHOTO_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".tif", ".tiff", ".webp", ".heic", ".heif", ".avif"}
PHOTO_SUFFIXES |= {".bmp", ".ppm", ".pgm", ".jp2", ".j2k"}
# Of all makers that LibRaw reads. A raw under another name is known by what it holds (photo_file.is_camera_raw).
RAW_SUFFIXES = {".3fr", ".ari", ".arq", ".arw", ".bay", ".braw", ".cap", ".cr2", ".cr3", ".crw", ".cs1", ".dc2", ".dcr"}
RAW_SUFFIXES |= {".dcs", ".dng", ".drf", ".eip", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kc2", ".kdc", ".mdc", ".mef"}
RAW_SUFFIXES |= {".mos", ".mrw", ".nef", ".nrw", ".obm", ".ori", ".orf", ".pef", ".ptx", ".pxn", ".qtk", ".r3d", ".raf"}
RAW_SUFFIXES |= {".raw", ".rdc", ".rw2", ".rwl", ".rwz", ".sr2", ".srf", ".srw", ".sti", ".x3f"}
VIDEO_SUFFIXES = {".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".3gp", ".mpg", ".mpeg", ".wmv"}
CAMERA_RAW = Rejection(Reason.RAW, "save it as TIFF or JPEG")
RUN_FOLDER_ENTRIES = {"run.json", "logs"}  # a folder with both is a run of quoin; its pictures are not photos
SYSTEM_FILES = {"__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini"}  # written by systems; skipped like dot files


@dataclass(frozen=True)
class SourceFile:
    """A file: ``name`` relative to the folder, with forward slashes; its rejection, None where it may be a photo.

    A frame also has the name of its ``clip`` and its time in seconds. A clip is a file rejected as VIDEO until its
    frames replace it.
    """

    name: str
    path: Path
    rejection: Rejection | None = None
    n_bytes: int = 0
    clip: str = ""
    time_s: float = math.nan

    @property
    def is_clip(self) -> bool:
        return self.rejection is not None and self.rejection.reason is Reason.VIDEO


def find_files(root: Path, excluded: Collection[Path] = ()) -> list[SourceFile]:
    """All files below ``root`` but hidden ones and those below ``excluded``, in natural order of names."""
    return sorted(_walk(root.resolve(), set(excluded)), key=lambda file: natural_key(file.name))


def natural_key(name: str) -> tuple[object, ...]:
    """Sort key that puts photo2 before photo10, folder by folder; the name itself decides between equals."""
    parts = [
        [(part.casefold(), 0) if i % 2 == 0 else ("", int(part)) for i, part in enumerate(re.split(r"(\d{1,18})", p))]
        for p in name.split("/")
    ]
    return (parts, name)


def suffix_of(name: str) -> str:
    """The last suffix with its dot, in lower case."""
    return os.path.splitext(name)[1].lower()


def _walk(root: Path, excluded: set[Path]) -> Iterator[SourceFile]:
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            yield _source_file(root, folder, Rejection(Reason.UNREADABLE_FOLDER, error.strerror or ""))
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
                return _source_file(root, path, Rejection(Reason.LINK, "it leaves the photo folder"))
            if target.is_dir():
                return _source_file(root, path, Rejection(Reason.LINK, "to a folder that is listed itself"))
        status = path.stat()
    except (OSError, RuntimeError) as error:  # broken links and rings of links
        detail = getattr(error, "strerror", None) or "a ring of links"
        return _source_file(root, path, Rejection(Reason.UNREADABLE, detail))
    if not stat.S_ISREG(status.st_mode):  # a pipe would block for ever
        return _source_file(root, path, Rejection(Reason.NOT_A_PHOTO, "not a regular file"))
    return _source_file(root, path, _rejection_of_suffix(suffix_of(path.name)), n_bytes=status.st_size)


def _rejection_of_suffix(suffix: str) -> Rejection | None:
    if suffix in RAW_SUFFIXES:  # Pillow would take the thumbnail inside for the photo
        return CAMERA_RAW
    if suffix in VIDEO_SUFFIXES:
        return Rejection(Reason.VIDEO)
    return None


def _source_file(root: Path, path: Path, rejection: Rejection | None, n_bytes: int = 0) -> SourceFile:
    name = path.relative_to(root).as_posix()
    try:
        str(path).encode()
    except UnicodeEncodeError:  # a table holds only UTF-8
        readable = os.fsencode(path).decode(errors="backslashreplace")
        name = os.fsencode(name).decode(errors="backslashreplace")
        return SourceFile(name, Path(readable), Rejection(Reason.UNREADABLE, "its name is not valid UTF-8"), n_bytes)
    return SourceFile(name, path, rejection, n_bytes)
