"""Features of photos, and verified matches of pairs of them; by several workers where there are more than one.

Workers' results are added to the stage's database; the driver does the rest. Results do not depend on how photos and
pairs are grouped into tasks; those already in the database are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.core.events import Advance
from quoin.pipeline.core.workers import NoWorkersError, TaskContext, thread_map
from quoin.pipeline.scene.photo_table import PhotoRow
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.database import (
    FEATURE_TABLES,
    MATCH_TABLES,
    DescriptorReader,
    copy_rows,
    existing_keys,
    merge_rows,
    pair_ids,
)
from quoin.stages.pose.colmap.image_copies import write_image_copies
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.pairing.pairs import (
    exhaustive_pairs,
    first_round_pairs,
    match_in_rounds,
    nearest_pairs,
    sequential_pairs,
    unique_pairs,
)
from quoin.stages.pose.pairing.retrieval import photo_similarity
from quoin.stages.pose.workspace import (
    PHOTOS_PER_TASK,
    WORKSPACE_PATH,
    Workspace,
    extraction_arguments,
    image_import_arguments,
    matching_arguments,
    no_op,
    progress_from_log,
    read_visible_photos,
    temporary_workspace,
)

Array = np.ndarray
SharedCameras = tuple[list[Camera], list[int]]  # each camera once, and which of them every photo has

# Frames of clips up to which every pair is matched: most of a walk shows nothing of its beginning.
MAX_EXHAUSTIVE_FRAMES = 60
MAX_SIMILAR_PHOTOS = 100  # photos most like a photo that are remembered
PAIRS_PER_TASK_RANGE = (50, 500)  # at least, so that fetching features costs less than matching them; at most
MAX_PHOTOS_PER_TASK = 256  # that the pairs of a task are of
MAX_PARALLEL_TRANSFERS = 8  # files on the way from a run at a URL


def find_features(
    workspace: Workspace, config: PoseConfig, photos: list[PhotoRow], cameras: list[Camera], camera_of: list[int]
) -> tuple[list[int], int]:
    """Find SIFT features of every photo; returns the number of keypoints per photo, and how many photos have a mask."""
    with workspace.report.task("pose/copies", len(photos), "photos") as advance:
        files = write_image_copies(photos, workspace.images, workspace.threads, advance)
    job, n_masks = extraction_arguments(workspace, config, photos, files, cameras, camera_of)
    masked = sum(bool(photo.mask_path) for photo in photos)
    if 0 < masked < len(photos):
        workspace.report.log("pose", f"Masks for {masked} of {len(photos)} photos; the others are used whole")
    with workspace.report.task("pose/features", len(photos), "photos") as advance:
        on_log_line = progress_from_log(r"Processed file \[(\d+)/", advance)
        if workspace.n_workers > 1:
            share_features(workspace, job, cameras, advance)
            on_log_line = no_op
        result = workspace.run_colmap_with_retry("extract_features", job, on_log_line)
        advance(len(photos))
    return result["n_features"], n_masks


def find_pairs(
    workspace: Workspace, config: PoseConfig, photos: list[PhotoRow], positions: Float[Array, "n d"]
) -> Int[Array, "k 4"]:
    """Table of matched pairs: photo a, photo b, matches, verified inliers.

    A small collection is matched exhaustively. In a large one, or one with many frames of clips, the first round has
    neighbors by ``positions``, by similarity, by name and by time; verified pairs propose the next rounds. Similarity
    also finds where a walk comes back to its beginning.
    """
    count, ids = len(photos), np.array([photo.photo_id for photo in photos])
    n_frames = sum(bool(photo.clip) for photo in photos)
    if count <= config.exhaustive_max_photos and n_frames <= MAX_EXHAUSTIVE_FRAMES:
        return match_pairs(workspace, ids[exhaustive_pairs(count)])
    reader = DescriptorReader(workspace.database)
    try:
        with workspace.report.task("pose/retrieval", count, "photos") as advance:
            similarity = photo_similarity(
                lambda i: reader(int(ids[i])), count, MAX_SIMILAR_PHOTOS, workspace.seed, workspace.threads, advance
            )
    finally:
        reader.close()
    pair_table = np.zeros((0, 4), np.int64)

    def verify(pairs: Int[Array, "m 2"], number: int) -> Bool[Array, "m"]:
        nonlocal pair_table
        pair_table = match_pairs(workspace, ids[pairs], f"pose/matching round {number}")
        verified_pairs = {(a, b) for a, b, _, inliers in pair_table.tolist() if inliers}
        return np.array([pair in verified_pairs for pair in map(tuple, ids[pairs].tolist())], bool)

    first = [nearest_pairs(positions, config.neighbors), first_round_pairs(similarity), sequential_pairs(photos)]
    tried_pairs = match_in_rounds(similarity, unique_pairs(np.concatenate(first)), 2 * config.neighbors, verify)
    n_pairs, n_verified = count * (count - 1) // 2, int(tried_pairs.verified.sum())
    text = f"{len(tried_pairs.pairs)} of {n_pairs} pairs were matched, {n_verified} verified"
    workspace.report.log("pose", text)
    return pair_table


def match_pairs(workspace: Workspace, pairs: Int[Array, "m 2"], task: str = "pose/matching") -> Int[Array, "k 4"]:
    """Match pairs of photos; returns the table of all pairs with matches so far, also those of earlier calls."""
    files = {int(path.stem): path.name for path in workspace.images.iterdir()}
    job = matching_arguments(workspace, files, pairs)
    block = job["block_size"]
    with workspace.report.task(task, len(pairs), "pairs") as advance:
        on_log_line = progress_from_log(
            r"Processing block \[(\d+)/", lambda number: advance(min((number - 1) * block, len(pairs)))
        )
        if workspace.n_workers > 1:
            share_matching(workspace, pairs, advance)
            on_log_line = no_op
        result = workspace.run_colmap_with_retry("match_images", job, on_log_line)
        advance(len(pairs))
    return np.array(result["pairs"], np.int64).reshape(-1, 4)


# -- several workers ---------------------------------------------------------------------------------------------------


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
