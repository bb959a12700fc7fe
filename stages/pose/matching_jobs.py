"""What is done of a portion of the photos, or of their pairs, by whoever has it: on another machine, or here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.parallel import thread_map
from quoin.pipeline.scene.photo_table import PhotoRow, read_photo_rows
from quoin.pipeline.storage.cache import scratch_folder
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.colmap.camera import Camera
from quoin.stages.pose.colmap.database import FEATURE_TABLES, MATCH_TABLES, copy_rows, merge_rows
from quoin.stages.pose.colmap.image_copies import write_image_copies
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.hands import PhotosNotVisibleError
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


def features_path(photo_id: int) -> str:
    """Name in the run of the file with the features of a photo."""
    return f"{WORKSPACE_PATH}/shared/features{photo_id:06d}.db"


class PoseSteps:
    """The steps, by name. Their working files are in a temporary folder; ``threads``: 0 takes every core."""

    def __init__(self, run: Run, config: PoseConfig, report: Reporter, threads: int = 0) -> None:
        self.run, self.config, self.report, self.threads = run, config, report, threads

    def extract_features(self, photo_ids: list[int], cameras: list[Camera], camera_of: list[int]) -> None:
        """SIFT of photos, left in a file of each."""
        photos = self._photos(photo_ids)
        with self._shop() as workspace:
            files = write_image_copies(photos, workspace.images, workspace.threads, no_op)
            job, _ = extraction_arguments(workspace, self.config, photos, files, cameras, camera_of)
            workspace.run_colmap_with_retry("extract_features", job)
            export_features(self.run, workspace.database, photo_ids)

    def match_pairs(
        self, pairs: Int[Array, "m 2"], photo_ids: list[int], cameras: list[Camera], camera_of: list[int]
    ) -> bytes:
        """A database of the matches and the verified geometry of pairs of these photos."""
        files = [f"{photo_id:06d}.jpg" for photo_id in photo_ids]
        with self._shop() as workspace:
            workspace.run_colmap("import_images", image_import_arguments(photo_ids, files, cameras, camera_of))
            import_features(self.run, workspace.database, photo_ids)
            workspace.run_colmap_with_retry(
                "match_images",
                matching_arguments(workspace, dict(zip(photo_ids, files, strict=True)), pairs),
            )
            database_path = workspace.folder / "found.db"
            copy_rows(workspace.database, database_path, MATCH_TABLES)
            return database_path.read_bytes()

    def undistort_photos(self, images: list[UndistortedImage]) -> list[ImageSegments]:
        """Undistorted photos, written into the store."""
        photos = self._photos([image.photo_id for image in images])
        with self._shop() as workspace:
            return write_undistorted_batch(self.run, images, photos, workspace.threads, no_op)

    def _photos(self, photo_ids: list[int]) -> list[PhotoRow]:
        photos = read_photo_rows(self.run, photo_ids)
        for path in [path for photo in photos for path in (photo.path, photo.mask_path) if path]:
            if not Path(path).is_file():
                raise PhotosNotVisibleError(
                    "Workers do not see the photos",
                    where=path,
                    hint="put them under the same path on all machines, or at a URL",
                )
        return photos

    @contextmanager
    def _shop(self) -> Iterator[Workspace]:
        with scratch_folder(Path(tempfile.gettempdir())) as folder:
            yield Workspace(self.run, self.config, self.report, folder=folder, threads=self.threads)


def export_features(run: Run, database: Path, photo_ids: Sequence[int]) -> None:
    """Write the files of these photos' features, from a database that has them."""

    def export(i: int) -> None:
        with run.storage.open_for_upload(features_path(photo_ids[i])) as path:
            copy_rows(database, path, FEATURE_TABLES, [photo_ids[i] + 1])

    thread_map(export, len(photo_ids), MAX_PARALLEL_TRANSFERS, no_op)


def import_features(run: Run, database: Path, photo_ids: Sequence[int]) -> None:
    """Put these photos' features into a database, from the files that were left of them."""
    with ExitStack() as stack:
        files = thread_map(
            lambda i: stack.enter_context(run.storage.open_downloaded(features_path(photo_ids[i]))),
            len(photo_ids),
            MAX_PARALLEL_TRANSFERS,
            no_op,
        )
        merge_rows(files, database, FEATURE_TABLES)
