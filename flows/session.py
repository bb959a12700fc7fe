"""A session on a run: opened and locked, its events written to logs/events.jsonl, its workers made."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

from quoin.fields.device import pick_device
from quoin.flows.settings import Settings
from quoin.pipeline.core.config import validate_config
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import JsonLinesSink, Reporter, Sink
from quoin.pipeline.core.workers import Device, InlineWorkers, Workers
from quoin.pipeline.storage.disk import disk_error
from quoin.pipeline.storage.lock import lock_run
from quoin.pipeline.storage.object_store import Bucket, is_storage_unavailable, storage_url
from quoin.pipeline.storage.run import Run
from quoin.stages.ingest.file_search import PHOTO_SUFFIXES

Location = Path | str  # a path, or a URL
EVENTS_FILE = "logs/events.jsonl"
ExecutorName = Literal["inline", "ray"]


@contextmanager
def start_run(
    photos: Location, out: Location, settings: Settings, seed: int, clips: Sequence[Location] = ()
) -> Iterator[Run]:
    """A new run of ``photos`` and ``clips`` in ``out``, or the existing one with these settings; locked inside.

    A new run that ends without a commit, and without work to go on from, leaves nothing behind.
    """
    for source in (photos, *clips):
        if not _exists(source):
            raise QuoinError("There are no photos here", where=source, hint="name a folder or a video that exists")
        if Path(source).suffix.lower() in PHOTO_SUFFIXES and os.path.isfile(source):
            hint = f"name its folder, {str(Path(source).absolute().parent)!r}, where its neighbors are"
            raise QuoinError("This is one photo; a surface needs several", where=source, hint=hint)
    with ExitStack() as lock:
        exists = Run.exists(out)
        if exists:  # locked before it is touched
            lock.enter_context(lock_run(out))
        run = Run.create(out, photos=photos, settings=settings.model_dump(mode="json"), seed=seed, clips=clips)
        if not exists:
            lock.enter_context(lock_run(out))
        try:
            with _upload_sidecars(run):
                yield run
        except BaseException:
            if not exists:
                run.discard_if_empty()
            raise


@contextmanager
def _upload_sidecars(run: Run) -> Iterator[None]:
    """At the end, upload what was written beside the stages (logs, an evaluation) to where the run lives."""
    began = time.time() - 1.0  # clocks of file systems are coarse
    run.storage.download(EVENTS_FILE, keep_longer=True)  # another machine may have gone on with it
    try:
        yield
    except BaseException as error:  # an interrupt, too: what was written until then is uploaded
        if not is_storage_unavailable(error):
            with suppress(QuoinError):  # what stopped the run matters more
                run.storage.upload_sidecars(began)
        raise
    else:
        run.storage.upload_sidecars(began)


def _exists(source: Location) -> bool:
    url = storage_url(source)
    if url is None:
        return os.path.exists(source)  # which, unlike Path.exists, is False for names no file can have
    above, _, name = url.rpartition("/")
    return _is_folder(source) or (url.count("/") > 2 and Bucket(above).head(name) is not None)


def _is_folder(source: Location) -> bool:
    url = storage_url(source)
    return os.path.isdir(source) if url is None else not Bucket(url).is_empty()


def split_sources(sources: Sequence[Location]) -> tuple[Location, list[Location]]:
    """The folder among ``sources``, or else the first clip, and the other clips; QuoinError for two folders."""
    folders = [source for source in sources if _is_folder(source)]
    if len(folders) > 1:
        raise QuoinError("There are two folders of photos", where=folders[1], hint="put the photos into one folder")
    photos = folders[0] if folders else sources[0]
    return photos, [path for path in sources if path is not photos]


@contextmanager
def resume_run(location: Location) -> Iterator[Run]:
    """The run at ``location``, locked inside."""
    Run.open(location)  # a clear refusal comes before anything is written
    with lock_run(location):
        run = Run.open(location)
        with _upload_sidecars(run):
            yield run


def run_settings(run: Run) -> Settings:
    """The settings of a run; QuoinError where this version of quoin does not know them all."""
    try:
        return validate_config(Settings, run.record.settings)
    except QuoinError as error:
        raise QuoinError(
            f"This run was made by quoin {run.record.quoin}, which had other settings: {error}",
            where=run.location,
            hint="use that version, or the full quoin reconstruct command to resume with the settings of this version",
        ) from None


@contextmanager
def open_reporter(run: Run, *sinks: Sink) -> Iterator[Reporter]:
    """A reporter that passes events to ``sinks`` and appends them to logs/events.jsonl."""
    path = run.path / EVENTS_FILE
    try:
        path.parent.mkdir(exist_ok=True)
        stream = open(path, "a", encoding="utf-8")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise disk_error(error, path) from error
    try:
        yield Reporter(JsonLinesSink(stream), *sinks)
    finally:
        with suppress(OSError):  # of a full disk: the run's own error says so
            stream.close()


def check_executor(kind: ExecutorName, device: Device, address: str | None) -> None:
    """QuoinError where workers of this kind cannot be had: raised before any work, not in the middle of the run."""
    if kind == "inline":
        if address is not None:
            raise QuoinError("--address is for Ray clusters only", where=address, hint="add --executor ray")
        if device == "cuda":  # else torch is loaded where it is needed
            pick_device(device)
    elif address is not None:
        from quoin.cluster.connection import check_address

        check_address(address)


def make_workers(
    kind: ExecutorName = "inline", device: Device = "auto", address: str | None = None, gpu_share: float = 1.0
) -> Workers:
    """The workers of a run: ``inline``, this process; ``ray``, actors here or at ``address``, on shares of GPUs."""
    if kind == "inline":
        return InlineWorkers(device)
    from quoin.cluster.ray_workers import RayWorkers

    return RayWorkers(device, address, gpu_share=gpu_share)
