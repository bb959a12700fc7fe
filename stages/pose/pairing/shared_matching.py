"""Features and matches by many hands: what they leave goes into the stage's database, where what is missing is done.

What is found does not depend on how it is portioned, and a photo or a pair that the database has is not handed out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Int

from quoin.pipeline.core.events import Advance
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.database import MATCH_TABLES, copy_rows, existing_keys, pair_ids
from quoin.stages.pose.hands import PHOTOS_PER_TASK, NoWorkersError, Task, Workers
from quoin.stages.pose.matching_jobs import export_features, import_features
from quoin.stages.pose.workspace import WORKSPACE_PATH, Workspace

Array = np.ndarray

PAIRS_PER_TASK_RANGE = (
    50,
    500,
)  # of a portion: at least, so that fetching features costs less than matching them; at most
MAX_PHOTOS_PER_TASK = 256  # that the pairs of a portion are of


def find_features_on_workers(
    workspace: Workspace, workers: Workers, job: dict[str, Any], cameras: list[Camera], advance: Advance
) -> None:
    """Fill the database with the photos and cameras of ``job``, and with the features that the hands find."""
    workspace.run_colmap("import_images", job)
    workspace.cameras = {photo["id"]: cameras[photo["camera"]] for photo in job["photos"]}
    done = {image_id - 1 for image_id in existing_keys(workspace.database, "descriptors")}
    todo = sorted(workspace.cameras.keys() - done)
    batches = [todo[start : start + PHOTOS_PER_TASK] for start in range(0, len(todo), PHOTOS_PER_TASK)]
    n_done = len(workspace.cameras) - len(todo)
    try:
        for index, _ in workers.map(
            "extract_features", [Task((ids, *workspace.cameras_of(ids)), len(ids)) for ids in batches]
        ):
            import_features(workspace.run, workspace.database, batches[index])
            workspace.exported_photo_ids.update(batches[index])
            n_done += len(batches[index])
            advance(n_done)
    except NoWorkersError as error:
        workspace.log_local_fallback(error)


def match_pairs_on_workers(workspace: Workspace, workers: Workers, pairs: Int[Array, "m 2"], advance: Advance) -> None:
    """Put into the database what the hands find of the pairs."""
    done = existing_keys(workspace.database, "two_view_geometries")
    pairs = np.sort(pairs, axis=1)
    missing_pairs = pairs[[pair_id not in done for pair_id in pair_ids(pairs)]]
    parts = list(split_pairs(missing_pairs, workers.n_workers))
    missing = sorted(
        set(np.unique(missing_pairs).tolist()) - workspace.exported_photo_ids
    )  # an earlier attempt removed them, or left none
    export_features(workspace.run, workspace.database, missing)
    workspace.exported_photo_ids.update(missing)
    tasks = []
    for part in parts:
        ids = np.unique(part).tolist()
        tasks.append(Task((part, ids, *workspace.cameras_of(ids)), len(part)))
    n_done = len(pairs) - len(missing_pairs)
    with TemporaryDirectory(dir=workspace.folder) as folder:
        database_path = Path(folder) / "found.db"
        for index, data in workers.map("match_pairs", tasks):
            database_path.write_bytes(data)
            copy_rows(database_path, workspace.database, MATCH_TABLES)
            n_done += len(parts[index])
            advance(n_done)


def remove_exported_features(workspace: Workspace) -> None:
    """Remove the files of features, which the database has too, also those of an attempt that was killed."""
    workspace.run.storage.remove(f"{WORKSPACE_PATH}/shared")
    workspace.exported_photo_ids.clear()


def split_pairs(pairs: Int[Array, "m 2"], n_workers: int) -> Iterator[Int[Array, "k 2"]]:
    """Portions of pairs, each of few photos."""
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
