"""Working folder of the pose stage, and calls of COLMAP's steps in it."""

from __future__ import annotations

import copy
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Advance, Reporter
from quoin.pipeline.core.workers import InlineWorkers, NoWorkersError, Step, Task, TaskContext, Workers
from quoin.pipeline.scene.photo_table import PhotoRow, read_photo_rows
from quoin.pipeline.storage.cache import scratch_folder
from quoin.pipeline.storage.layout import damaged_file_error
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.checks.registration import FilteredModel
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.database import find_damage
from quoin.stages.pose.colmap.image_copies import write_masks
from quoin.stages.pose.colmap.subprocess_call import LogLineCallback, SubprocessDiedError, run_in_subprocess
from quoin.stages.pose.config import PoseConfig

Array = np.ndarray

WORKSPACE_PATH = "work/pose"  # in a run
MAX_LOCAL_PHOTOS = 32  # up to which workers gain nothing
PHOTOS_PER_TASK = 16
WORKER_MEMORY_BYTES = 2 << 30  # SIFT of a large photo, or the descriptors of a task's pairs


@dataclass(frozen=True)
class Component:
    """A filtered component, and the folder of its COLMAP model."""

    path: str
    filtered: FilteredModel
    warnings: list[str] = field(default_factory=list)  # for the user, about how it was found

    @property
    def n_photos(self) -> int:
        return len(self.filtered.model.photo_ids)


@dataclass(frozen=True)
class SfmResult:
    """Result of SfM: components, largest first, and the features and matches of every photo and pair."""

    components: list[Component]
    mapper: str
    n_features: list[int]
    pairs: Int[Array, "m 4"]  # photo a, photo b, matches, inliers
    n_masks: int
    n_refined_cameras: int = 0
    warnings: list[str] = field(default_factory=list)


def no_op(value: object) -> None:
    pass


class Workspace:
    """Working folder of one SfM run (by default ``work/pose`` in the run), its database, seed, threads and workers."""

    def __init__(
        self,
        run: Run,
        config: PoseConfig,
        report: Reporter,
        workers: Workers | None = None,
        *,
        folder: Path | None = None,
        threads: int = 0,
    ) -> None:
        self.folder = folder or run.path / WORKSPACE_PATH
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run, self.config, self.report, self.seed = run, config, report, run.seed
        self.workers: Workers = workers or InlineWorkers()
        self.n_workers = 1  # more inside of ``share_photos``
        self.threads = config.threads or threads or os.cpu_count() or 1
        self.database = self.folder / "database.db"
        self.cameras: dict[int, Camera] = {}  # by photo id, where workers share in matching
        self.exported_photo_ids: set[int] = set()  # photos whose features are in a file for workers

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def masks(self) -> Path:
        return self.folder / "masks"

    def cameras_of(self, photo_ids: list[int]) -> tuple[list[Camera], list[int]]:
        """Cameras of some photos, each once, and the index of every photo's camera."""
        cameras = list(dict.fromkeys(self.cameras[photo_id] for photo_id in photo_ids))
        number = {camera: n for n, camera in enumerate(cameras)}
        return cameras, [number[self.cameras[photo_id]] for photo_id in photo_ids]

    @contextmanager
    def share_photos(self) -> Iterator[None]:
        """Inside, ``n_workers`` workers are ready for photos and pairs; 1: this process does them by itself.

        Workers are not kept outside: mapping may take hours, others may use the machines, and the cluster may end.
        NoWorkersError where the workers cannot be started.
        """
        with ExitStack() as session:
            try:
                self.n_workers = session.enter_context(self.workers.session())
            except QuoinError as error:
                raise NoWorkersError(error.what, where=error.where, hint=error.hint) from error
            if self.n_workers == 1:
                self.workers = InlineWorkers()
                session.close()
            try:
                yield
            finally:
                self.n_workers = 1

    def map_tasks(self, step: Step, tasks: Sequence[tuple[Any, ...]]) -> Iterator[tuple[Any, Any]]:
        """As tasks end, the photos or pairs of each, and what ``step(context, run, config, *task)`` returned.

        They are the first element of the task. Raises the first error.
        """
        named = [
            Task(
                f"pose/{step.__name__} {n + 1}/{len(tasks)}",
                (self.run, self.config, *task),
                memory_bytes=WORKER_MEMORY_BYTES,
                cost=len(task[0]),
            )
            for n, task in enumerate(tasks)
        ]
        for outcome in self.workers.map(step, named, self.report):
            yield outcome.task.args[2], outcome.value()

    def log_local_fallback(self, error: NoWorkersError) -> None:
        """Log why this process does the work of the workers."""
        self.report.log("pose", f"{error} Meanwhile this process does their part", "warning")

    def with_cameras(
        self, cameras: list[Camera], camera_of: list[int], name: str, photo_ids: list[int] | None = None
    ) -> Workspace:
        """A workspace with a copy of the database, called ``name``, in which photo i has ``cameras[camera_of[i]]``.

        With ``photo_ids`` it is photo ``photo_ids[i]``.
        """
        copied = copy.copy(self)
        copied.database = self.folder / f"{name}.db"
        shutil.copyfile(self.database, copied.database)
        pairs = list(zip(photo_ids or range(len(camera_of)), camera_of, strict=True))
        copied.run_colmap("set_cameras", {"cameras": [c.as_json() for c in cameras], "camera_of": pairs})
        return copied

    def without_pairs(self, pairs: Int[Array, "c 2"], name: str) -> Workspace:
        """A workspace with a copy of the database, called ``name``, without the verified matches of these pairs."""
        copied = copy.copy(self)
        copied.database = self.folder / f"{name}.db"
        shutil.copyfile(self.database, copied.database)
        copied.run_colmap("delete_pairs", {"pairs": pairs.tolist()})
        return copied

    def clear_if_changed(self, inputs: Any) -> None:
        """Empty the folder unless it was filled for the same ``inputs``, whose features and matches are then kept.

        DamagedError where their database cannot be read.
        """
        key, key_file = digest(inputs), self.folder / "inputs"
        if not key_file.exists() or key_file.read_text() != key:
            shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True)
            key_file.write_text(key)
        elif self.database.exists() and (damage := find_damage(self.database)):
            raise damaged_file_error(f"{WORKSPACE_PATH}/{self.database.name}", f"COLMAP's database: {damage}")

    def run_colmap(self, step: str, job: dict[str, Any], on_log_line: LogLineCallback = no_op) -> dict[str, Any]:
        """Result of a step of ``stages.pose.colmap.process`` on ``job``, to which the workspace adds its own values."""
        base = {"database": str(self.database), "images": str(self.images), "seed": self.seed, "threads": self.threads}
        return run_in_subprocess(step, {**base, **job}, self.folder, on_log_line)

    def run_colmap_with_retry(
        self, step: str, job: dict[str, Any], on_log_line: LogLineCallback = no_op
    ) -> dict[str, Any]:
        """As ``run_colmap``, for a step that keeps what it has done: if the process dies, again with one thread."""
        try:
            return self.run_colmap(step, job, on_log_line)
        except SubprocessDiedError as error:
            self.report.log("pose", f"{error.what}; trying again with one thread", "warning")
            return self.run_colmap(step, {**job, "threads": 1}, on_log_line)


def progress_from_log(pattern: str, advance: Advance) -> LogLineCallback:
    """Callback that gives ``advance`` the number that ``pattern`` finds in a line of the log."""
    compiled = re.compile(pattern)

    def on_log_line(line: str) -> None:
        if found := compiled.search(line):
            advance(float(found.group(1)))

    return on_log_line


def image_import_arguments(
    photo_ids: list[int], files: list[str], cameras: list[Camera], camera_of: list[int]
) -> dict[str, Any]:
    """Arguments of ``import_images``: photos, their files, and their cameras."""
    rows = zip(photo_ids, files, camera_of, strict=True)
    return {
        "cameras": [camera.as_json() for camera in cameras],
        "photos": [{"id": photo_id, "file": file, "camera": camera} for photo_id, file, camera in rows],
    }


def extraction_arguments(
    workspace: Workspace,
    config: PoseConfig,
    photos: list[PhotoRow],
    files: list[str],
    cameras: list[Camera],
    camera_of: list[int],
) -> tuple[dict[str, Any], int]:
    """Arguments of ``extract_features``, whose masks are written; and how many photos have a mask."""
    n_masks = write_masks(photos, files, workspace.masks, workspace.threads)
    job = {
        **image_import_arguments([photo.photo_id for photo in photos], files, cameras, camera_of),
        "masks": str(workspace.masks) if n_masks else "",
        "max_edge_px": config.max_edge_px,
        "max_features": config.max_features,
    }
    return job, n_masks


def matching_arguments(workspace: Workspace, files: dict[int, str], pairs: Int[Array, "m 2"]) -> dict[str, Any]:
    """Arguments of ``match_images``: the pairs are listed in a file, by the names of their files."""
    listing = workspace.folder / "pairs.txt"
    listing.write_text("".join(f"{files[a]} {files[b]}\n" for a, b in pairs.tolist()))
    return {"pairs_file": str(listing), "block_size": int(np.clip(len(pairs) // 40, 50, 1225))}


# -- tasks of workers --------------------------------------------------------------------------------------------------


class PhotosNotVisibleError(NoWorkersError):
    """A worker cannot read photos that the driver can."""


def read_visible_photos(run: Run, photo_ids: list[int]) -> list[PhotoRow]:
    """Rows of photos; PhotosNotVisibleError where this machine does not see the files."""
    photos = read_photo_rows(run, photo_ids)
    for path in [path for photo in photos for path in (photo.path, photo.mask_path) if path]:
        if not Path(path).is_file():
            raise PhotosNotVisibleError(
                "Workers do not see the photos",
                where=path,
                hint="put them under the same path on all machines, or at a URL",
            )
    return photos


@contextmanager
def temporary_workspace(context: TaskContext, run: Run, config: PoseConfig) -> Iterator[Workspace]:
    """A workspace of a task, in a temporary folder."""
    with scratch_folder(Path(tempfile.gettempdir())) as folder:
        threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # what the worker has reserved
        yield Workspace(run, config, context.report, folder=folder, threads=threads)
