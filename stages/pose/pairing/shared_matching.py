"""Features and matches by several workers: their results are added to the stage's database; the driver does the rest.

Results do not depend on how photos and pairs are grouped into tasks; those already in the database are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Int

from quoin.pipeline.core.events import Advance
from quoin.pipeline.core.workers import NoWorkersError
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.database import MATCH_TABLES, copy_rows, existing_keys, pair_ids
from quoin.stages.pose.matching_jobs import export_features, extract_photo_features, import_features, match_photo_pairs
from quoin.stages.pose.workspace import PHOTOS_PER_TASK, WORKSPACE_PATH, Workspace

Array = np.ndarray

PAIRS_PER_TASK_RANGE = (50, 500)  # at least, so that fetching features costs less than matching them; at most
MAX_PHOTOS_PER_TASK = 256  # that the pairs of a task are of


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
