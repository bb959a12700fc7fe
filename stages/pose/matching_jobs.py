"""Steps of the pose stage on some of the photos, or of their pairs, as workers do them in temporary folders."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int

from quoin.pipeline.core.parallel import thread_map
from quoin.pipeline.core.workers import NoWorkersError, TaskContext
from quoin.pipeline.scene.photo_table import PhotoRow, read_photo_rows
from quoin.pipeline.storage.cache import scratch_folder
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.database import FEATURE_TABLES, MATCH_TABLES, copy_rows, merge_rows
from quoin.stages.pose.colmap.image_copies import write_image_copies
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.undistorted_images import ImageSegments, UndistortedImage, write_undistorted_batch
from quoin.stages.pose.workspace import (
    WORKSPACE_PATH,
    Workspace,
    extraction_arguments,
    image_import_arguments,
    matching_arguments,
    no_op,
)

Array = np.ndarray

MAX_PARALLEL_TRANSFERS = 8  # files on the way from a run at a URL


SharedCameras = tuple[list[Camera], list[int]]  # each camera once, and which of them every photo has


class PhotosNotVisibleError(NoWorkersError):
    """A worker cannot read photos that the driver can."""


def features_path(photo_id: int) -> str:
    """Name in the run of the file with the features of a photo."""
    return f"{WORKSPACE_PATH}/shared/features{photo_id:06d}.db"


def extract_photo_features(
    context: TaskContext, run: Run, config: PoseConfig, photo_ids: list[int], cameras: SharedCameras
) -> None:
    """SIFT features of photos, written to a file for each."""
    photos = read_visible_photos(run, photo_ids)
    with _temporary_workspace(context, run, config) as workspace:
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
    with _temporary_workspace(context, run, config) as workspace:
        workspace.run_colmap("import_images", image_import_arguments(photo_ids, files, *cameras))
        import_features(run, workspace.database, photo_ids)
        workspace.run_colmap_with_retry(
            "match_images",
            matching_arguments(workspace, dict(zip(photo_ids, files, strict=True)), pairs),
        )
        database_path = workspace.folder / "found.db"
        copy_rows(workspace.database, database_path, MATCH_TABLES)
        return database_path.read_bytes()


def undistort_photos(
    context: TaskContext, run: Run, config: PoseConfig, images: list[UndistortedImage]
) -> list[ImageSegments]:
    """Undistorted photos, written to the store; returns the straight segments that they show."""
    photos = read_visible_photos(run, [image.photo_id for image in images])
    with _temporary_workspace(context, run, config) as workspace:
        return write_undistorted_batch(run, images, photos, workspace.threads, no_op)


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
def _temporary_workspace(context: TaskContext, run: Run, config: PoseConfig) -> Iterator[Workspace]:
    with scratch_folder(Path(tempfile.gettempdir())) as folder:
        threads = int(os.environ.get("OMP_NUM_THREADS") or 0)  # what the worker has reserved
        yield Workspace(run, config, context.report, folder=folder, threads=threads)


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
