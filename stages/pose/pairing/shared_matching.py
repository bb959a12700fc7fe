"""Features and matches by several workers: their results are added to the stage's database; the driver does the rest.

Results do not depend on how photos and pairs are grouped into tasks; those already in the database are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Int

from quoin.pipeline.core.events import Advance
from quoin.pipeline.core.parallel import thread_map
from quoin.pipeline.core.workers import NoWorkersError, TaskContext
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.database import (
    FEATURE_TABLES,
    MATCH_TABLES,
    copy_rows,
    existing_keys,
    merge_rows,
    pair_ids,
)
from quoin.stages.pose.colmap.image_copies import write_image_copies
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.workspace import (
    PHOTOS_PER_TASK,
    WORKSPACE_PATH,
    Workspace,
    extraction_arguments,
    image_import_arguments,
    matching_arguments,
    no_op,
    read_visible_photos,
    temporary_workspace,
)

Array = np.ndarray
SharedCameras = tuple[list[Camera], list[int]]  # each camera once, and which of them every photo has

PAIRS_PER_TASK_RANGE = (50, 500)  # at least, so that fetching features costs less than matching them; at most
MAX_PHOTOS_PER_TASK = 256  # that the pairs of a task are of
MAX_PARALLEL_TRANSFERS = 8  # files on the way from a run at a URL


def share_features(workspace: Workspace, job: dict[str, Any], cameras: list[Camera], advance: Advance) -> None:
    """Fill the database with the photos and cameras of ``job``, and with the features that workers find."""
    workspace.run_colmap("import_images", job)
    workspace.cameras = {photo["id"]: cameras[photo["camera"]] for photo in job["photos"]}
    done = {image_id - 1 for image_id in existing_keys(workspace.database, "descriptors")}
    todo = sorted(workspace.cameras.keys() - done)
    batches = [todo[start : start + PHOTOS_PER_TASK] for start in range(0, len(todo), PHOTOS_PER_TASK)]
    n_done = len(workspace.cameras) - len(todo)
    try:
        tasks = [(ids, workspace.cameras_of(ids)) for ids in batches]
        for ids, _ in workspace.map_tasks(extract_photo_features, tasks):
            import_features(workspace.run, workspace.database, ids)
            workspace.exported_photo_ids.update(ids)
            n_done += len(ids)
            advance(n_done)
    except NoWorkersError as error:
        workspace.log_local_fallback(error)


def share_matching(workspace: Workspace, pairs: Int[Array, "m 2"], advance: Advance) -> None:
    """Add to the database what workers find of the pairs."""
    done = existing_keys(workspace.database, "two_view_geometries")
    pairs = np.sort(pairs, axis=1)
    missing_pairs = pairs[[pair_id not in done for pair_id in pair_ids(pairs)]]
    parts = list(split_pairs(missing_pairs, workspace.n_workers))
    missing = sorted(
        set(np.unique(missing_pairs).tolist()) - workspace.exported_photo_ids
    )  # an earlier attempt removed them, or left none
    export_features(workspace.run, workspace.database, missing)
    workspace.exported_photo_ids.update(missing)
    photo_ids = [np.unique(part).tolist() for part in parts]
    tasks = [(part, ids, workspace.cameras_of(ids)) for part, ids in zip(parts, photo_ids, strict=True)]
    n_done = len(pairs) - len(missing_pairs)
    with TemporaryDirectory(dir=workspace.folder) as folder:
        database_path = Path(folder) / "found.db"
        for part, data in workspace.map_tasks(match_photo_pairs, tasks):
            database_path.write_bytes(data)
            copy_rows(database_path, workspace.database, MATCH_TABLES)
            n_done += len(part)
            advance(n_done)


def remove_exported_features(workspace: Workspace) -> None:
    """Remove the files of features, which the database has too, also those of attempts that were killed."""
    workspace.run.storage.remove(f"{WORKSPACE_PATH}/shared")
    workspace.exported_photo_ids.clear()


def split_pairs(pairs: Int[Array, "m 2"], n_workers: int) -> Iterator[Int[Array, "k 2"]]:
    """Groups of pairs for tasks, each of few photos."""
    max_pairs = int(np.clip(-(-len(pairs) // (2 * n_workers)), *PAIRS_PER_TASK_RANGE))
    order = np.lexsort((*pairs.T[::-1], pairs[:, 1] // PHOTOS_PER_TASK, pairs[:, 0] // PHOTOS_PER_TASK))
    part: list[int] = []
    photos: set[int] = set()
    for row in order.tolist():
        both = set(pairs[row].tolist())
        if len(part) == max_pairs or len(photos | both) > MAX_PHOTOS_PER_TASK:
            yield pairs[part]
            part, photos = [], set()
        part.append(row)
        photos |= both
    if part:
        yield pairs[part]


# -- tasks of workers --------------------------------------------------------------------------------------------------


def features_path(photo_id: int) -> str:
    """Name in the run of the file with the features of a photo."""
    return f"{WORKSPACE_PATH}/shared/features{photo_id:06d}.db"


def extract_photo_features(
    context: TaskContext, run: Run, config: PoseConfig, photo_ids: list[int], cameras: SharedCameras
) -> None:
    """SIFT features of photos, written to a file for each."""
    photos = read_visible_photos(run, photo_ids)
    with temporary_workspace(context, run, config) as workspace:
        files = write_image_copies(photos, workspace.images, workspace.threads, no_op)
        job, _ = extraction_arguments(workspace, config, photos, files, *cameras)
        workspace.run_colmap_with_retry("extract_features", job)
        export_features(run, workspace.database, photo_ids)


def match_photo_pairs(
    context: TaskContext,
    run: Run,
    config: PoseConfig,
    pairs: Int[Array, "m 2"],
    photo_ids: list[int],
    cameras: SharedCameras,
) -> bytes:
    """Content of a COLMAP database with the matches and the verified geometry of pairs of these photos."""
    files = [f"{photo_id:06d}.jpg" for photo_id in photo_ids]
    with temporary_workspace(context, run, config) as workspace:
        workspace.run_colmap("import_images", image_import_arguments(photo_ids, files, *cameras))
        import_features(run, workspace.database, photo_ids)
        workspace.run_colmap_with_retry(
            "match_images",
            matching_arguments(workspace, dict(zip(photo_ids, files, strict=True)), pairs),
        )
        database_path = workspace.folder / "found.db"
        copy_rows(workspace.database, database_path, MATCH_TABLES)
        return database_path.read_bytes()


def export_features(run: Run, database: Path, photo_ids: Sequence[int]) -> None:
    """Write a file with the features of each of these photos, from a database that has them."""

    def export(i: int) -> None:
        with run.storage.open_for_upload(features_path(photo_ids[i])) as path:
            copy_rows(database, path, FEATURE_TABLES, [photo_ids[i] + 1])

    thread_map(export, len(photo_ids), MAX_PARALLEL_TRANSFERS, no_op)


def import_features(run: Run, database: Path, photo_ids: Sequence[int]) -> None:
    """Add the features of these photos to a database, from the files of ``export_features``."""
    with ExitStack() as stack:
        files = thread_map(
            lambda i: stack.enter_context(run.storage.open_downloaded(features_path(photo_ids[i]))),
            len(photo_ids),
            MAX_PARALLEL_TRANSFERS,
            no_op,
        )
        merge_rows(files, database, FEATURE_TABLES)
