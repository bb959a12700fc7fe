"""Working in a run folder: made or opened, locked, its events kept in logs/events.jsonl."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

from cluster.executor import Device, Executor, InlineExecutor
from flows.lock import locked
from flows.settings import Settings
from pipeline.config import build
from pipeline.errors import QuoinError
from pipeline.progress import JsonLines, Reporter, Sink
from pipeline.run import RUN_FILE, Run, disk_error

ExecutorName = Literal["inline", "ray"]


@contextmanager
def started(photos: Path, out: Path, settings: Settings, seed: int, clips: Sequence[Path] = ()) -> Iterator[Run]:
    """A new run of ``photos`` and ``clips`` in ``out``, or the one there with these settings; locked meanwhile."""
    for path in (photos, *clips):
        if not os.path.exists(path):  # which, unlike Path.exists, is False for names no file can have
            raise QuoinError("There are no photos here", where=path, do="name a folder or a video that exists")
    with ExitStack() as lock:
        there = (out / RUN_FILE).exists()
        if there:  # locked before it is touched
            lock.enter_context(locked(out))
        run = Run.create(out, photos=photos, settings=settings.model_dump(mode="json"), seed=seed, clips=clips)
        if not there:
            lock.enter_context(locked(out))
        yield run


def folder_first(sources: Sequence[Path]) -> tuple[Path, list[Path]]:
    """The one folder among ``sources``, or else the first clip, and the clips besides; QuoinError for two folders."""
    folders = [path for path in sources if os.path.isdir(path)]
    if len(folders) > 1:
        raise QuoinError("There are two folders of photos", where=folders[1], do="put what belongs together into one")
    photos = folders[0] if folders else sources[0]
    return photos, [path for path in sources if path is not photos]


@contextmanager
def resumed(path: Path) -> Iterator[Run]:
    """The run at ``path``, locked meanwhile."""
    Run.open(path)  # a clear refusal comes before anything is written
    with locked(path):
        yield Run.open(path)


def settings_of(run: Run) -> Settings:
    """The settings a run was made with; QuoinError where this version of quoin does not know them all."""
    try:
        return build(Settings, run.record.settings)
    except QuoinError as error:
        raise QuoinError(
            f"This run was made by quoin {run.record.quoin}, whose settings were others: {error}",
            where=run.path,
            do="use that version, or the full quoin reconstruct command to go on with today's settings",
        ) from None


@contextmanager
def reporting(run: Run, *sinks: Sink) -> Iterator[Reporter]:
    """A reporter that shows events on ``sinks`` and appends them to logs/events.jsonl."""
    path = run.path / "logs" / "events.jsonl"
    try:
        path.parent.mkdir(exist_ok=True)
        stream = open(path, "a", encoding="utf-8")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise disk_error(error, path) from error
    try:
        yield Reporter(JsonLines(stream), *sinks)
    finally:
        with suppress(OSError):  # of a full disk: the run's own error says so
            stream.close()


def make_executor(kind: ExecutorName = "inline", device: Device = "auto", address: str | None = None) -> Executor:
    """The executor by name: ``inline``, or ``ray`` here or at ``address``."""
    if kind == "inline":
        return InlineExecutor(device)
    from cluster.ray_executor import RayExecutor

    return RayExecutor(device, address)
