"""Hashes of files, remembered while size and time of change stay: a photo may be replaced by one of the same size."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path

from quoin.pipeline.core.workers import thread_map
from quoin.pipeline.storage.layout import sha256_of

DIGESTS_PATH = "work/ingest/digests.json"  # in a run: [bytes, time of change in ns, SHA-256] by path
MAX_HASHING_THREADS = 16
# A file that was changed so short a time ago may change again within the same tick of the file system's clock.
MIN_AGE_S = 2.0

_Entries = dict[str, list[int | str]]


def file_digests(paths: Iterable[Path], run_folder: Path) -> dict[Path, str]:
    """SHA-256 of every file, "" where it cannot be read.

    A file whose size and time of change are those noted in the run's folder is not read again.
    """
    noted, current = _read_entries(run_folder / DIGESTS_PATH), {}
    files = list(dict.fromkeys(paths))

    def digest_entry(index: int) -> list[int | str]:
        path = files[index]
        try:
            status = path.stat()
            size_and_time = [status.st_size, status.st_mtime_ns]
            entry = noted.get(str(path))
            if entry is not None and entry[:2] == size_and_time:
                return entry
            return [*size_and_time, sha256_of(path)]
        except OSError:  # whoever reads the file reports it
            return [0, 0, ""]

    entries = thread_map(digest_entry, len(files), min(MAX_HASHING_THREADS, os.cpu_count() or 1), lambda done: None)
    newest_ns = time.time_ns() - int(MIN_AGE_S * 1e9)
    current = {str(path): entry for path, entry in zip(files, entries, strict=True) if 0 < int(entry[1]) < newest_ns}
    if current != noted and run_folder.is_dir():
        _write_entries(run_folder / DIGESTS_PATH, current)
    return {path: str(entry[2]) for path, entry in zip(files, entries, strict=True)}


def _read_entries(path: Path) -> _Entries:
    """What was noted; nothing where the note is gone or damaged."""
    with contextlib.suppress(OSError, ValueError):
        entries = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(entries, dict):
            return {name: entry for name, entry in entries.items() if isinstance(entry, list) and len(entry) == 3}
    return {}


def _write_entries(path: Path, entries: _Entries) -> None:
    with contextlib.suppress(OSError):  # a run that only may be read: the files are hashed again next time
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.partial")
        part.write_text(json.dumps(entries), encoding="utf-8")
        part.replace(path)
