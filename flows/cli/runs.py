"""``quoin runs``: the runs below a folder with their state and size; removes scratch files of those that are done."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from quoin.flows.pipeline import STAGES
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.formatting import format_bytes, format_duration
from quoin.pipeline.storage.lock import lock_run
from quoin.pipeline.storage.run import RUN_FILE, Run

MAX_DEPTH = 3  # folders below the one given in which runs are looked for
SCRATCH_FOLDERS = ("work/ingest", "work/pose", "work/fuse")  # not work/blocks: checkpoints, for more steps


class RunSummary(NamedTuple):
    """A run as the list shows it; ``last_commit`` in epoch seconds."""

    path: Path
    state: str
    last_commit: float
    n_bytes: int
    n_scratch_bytes: int


def find_runs(folder: Path) -> Iterator[Path]:
    """Folders of runs in ``folder`` and below it, in order; nothing inside a run is looked at."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            if (path / RUN_FILE).is_file():
                yield path
            elif len(path.relative_to(folder).parts) < MAX_DEPTH:
                yield from find_runs(path)


def summarize_run(path: Path) -> RunSummary:
    """State and size of a run."""
    size, scratch = folder_bytes(path), sum(folder_bytes(path / name) for name in SCRATCH_FOLDERS)
    try:
        record = Run.open(path).record
    except QuoinError as error:
        return RunSummary(path, error.what, 0.0, size, scratch)
    missing = [stage.name for stage in STAGES if stage.name not in record.manifests]
    state = f"next: {missing[0]}" if missing else "done"
    commits = [manifest.committed_at for manifest in record.manifests.values()]
    return RunSummary(path, state, max(commits, default=record.created_at), size, scratch)


def folder_bytes(folder: Path) -> int:
    """Size of all files in a folder; links are not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def print_runs(folder: Path, *, clean: bool) -> None:
    """Print the runs below ``folder``; with ``clean`` remove the scratch files of those that are done."""
    paths = [folder] if (folder / RUN_FILE).is_file() else list(find_runs(folder))
    if not paths:
        raise QuoinError("There are no runs here", where=folder, hint="name a folder that holds runs, or a run")
    table = Table("run", "state", "last commit", "size", "of it scratch", box=box.SIMPLE_HEAD)
    for run in map(summarize_run, paths):
        scratch = run.n_scratch_bytes
        if clean and run.state == "done" and scratch:
            with lock_run(run.path):
                for name in SCRATCH_FOLDERS:
                    shutil.rmtree(run.path / name, ignore_errors=True)
            scratch = 0
        age = f"{format_duration(time.time() - run.last_commit)} ago" if run.last_commit else ""
        size = run.n_bytes - run.n_scratch_bytes + scratch
        table.add_row(str(run.path), run.state, age, format_bytes(size), format_bytes(scratch))
    Console(width=120).print(table)
