"""Working in a run folder: made or opened, locked, its events kept in logs/events.jsonl."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

from quoin.cluster.executor import Device, Executor, InlineExecutor, pick_device
from quoin.flows.settings import Settings
from quoin.pipeline.core.config import build
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import JsonLines, Reporter, Sink
from quoin.pipeline.storage.atomic import disk_error
from quoin.pipeline.storage.lock import locked
from quoin.pipeline.storage.object_store import Bucket, is_away, url_of
from quoin.pipeline.storage.run import Run

Place = Path | str  # a path, or a URL
EVENTS = "logs/events.jsonl"
ExecutorName = Literal["inline", "ray"]


@contextmanager
def started(photos: Place, out: Place, settings: Settings, seed: int, clips: Sequence[Place] = ()) -> Iterator[Run]:
    """A new run of ``photos`` and ``clips`` in ``out``, or the one there with these settings; locked meanwhile."""
    for source in (photos, *clips):
        if not _exists(source):
            raise QuoinError("There are no photos here", where=source, do="name a folder or a video that exists")
    with ExitStack() as lock:
        there = Run.exists(out)
        if there:  # locked before it is touched
            lock.enter_context(locked(out))
        run = Run.create(out, photos=photos, settings=settings.model_dump(mode="json"), seed=seed, clips=clips)
        if not there:
            lock.enter_context(locked(out))
        with _kept(run):
            yield run


@contextmanager
def _kept(run: Run) -> Iterator[None]:
    """Inside, work is done on ``run``; what it wrote beside the stages (logs, an evaluation) is then brought home."""
    began = time.time() - 1.0  # clocks of file systems are coarse
    run.catch_up(EVENTS)  # another machine may have gone on with it
    try:
        yield
    except BaseException as error:  # an interrupt too, and it goes on: what was written until then belongs home
        if not is_away(error):
            with suppress(QuoinError):  # what stopped the run matters more
                run.put_beside(began)
        raise
    else:
        run.put_beside(began)


def _exists(source: Place) -> bool:
    url = url_of(source)
    if url is None:
        return os.path.exists(source)  # which, unlike Path.exists, is False for names no file can have
    above, _, name = url.rpartition("/")
    return _is_folder(source) or (url.count("/") > 2 and Bucket(above).facts(name) is not None)


def _is_folder(source: Place) -> bool:
    url = url_of(source)
    return os.path.isdir(source) if url is None else not Bucket(url).is_empty()


def folder_first(sources: Sequence[Place]) -> tuple[Place, list[Place]]:
    """The one folder among ``sources``, or else the first clip, and the clips besides; QuoinError for two folders."""
    folders = [source for source in sources if _is_folder(source)]
    if len(folders) > 1:
        raise QuoinError("There are two folders of photos", where=folders[1], do="put what belongs together into one")
    photos = folders[0] if folders else sources[0]
    return photos, [path for path in sources if path is not photos]


@contextmanager
def resumed(place: Place) -> Iterator[Run]:
    """The run at ``place``, locked meanwhile."""
    Run.open(place)  # a clear refusal comes before anything is written
    with locked(place):
        run = Run.open(place)
        with _kept(run):
            yield run


def settings_of(run: Run) -> Settings:
    """The settings a run was made with; QuoinError where this version of quoin does not know them all."""
    try:
        return build(Settings, run.record.settings)
    except QuoinError as error:
        raise QuoinError(
            f"This run was made by quoin {run.record.quoin}, whose settings were others: {error}",
            where=run.home,
            do="use that version, or the full quoin reconstruct command to go on with today's settings",
        ) from None


@contextmanager
def reporting(run: Run, *sinks: Sink) -> Iterator[Reporter]:
    """A reporter that shows events on ``sinks`` and appends them to logs/events.jsonl."""
    path = run.path / EVENTS
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


def check_place(kind: ExecutorName, device: Device, address: str | None) -> None:
    """QuoinError where a run could not work in this place: told now, and not when the poses are known."""
    if kind == "inline":
        if address is not None:
            raise QuoinError("An address is one of a Ray cluster", where=address, do="add --executor ray")
        if device == "cuda":  # else torch is loaded where it is needed
            pick_device(device)
    elif address is not None:
        from quoin.cluster.connection import check_address

        check_address(address)


def make_executor(
    kind: ExecutorName = "inline", device: Device = "auto", address: str | None = None, gpu_share: float = 1.0
) -> Executor:
    """The executor by name: ``inline``, or ``ray`` here or at ``address``, whose actors take a share of a GPU."""
    if kind == "inline":
        return InlineExecutor(device)
    from quoin.cluster.ray_executor import RayExecutor

    return RayExecutor(device, address, gpu_share=gpu_share)
