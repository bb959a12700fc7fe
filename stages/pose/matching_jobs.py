"""What is done of a portion of the photos, or of their pairs, by whoever has it: on another machine, or here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.parallel import each
from quoin.pipeline.scene.photo_table import read_photo_rows
from quoin.pipeline.storage.cache import scratch
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.colmap import step_arguments
from quoin.stages.pose.colmap.database import FEATURES, MATCHES, copy_rows, gather_rows
from quoin.stages.pose.colmap.image_copies import write_copies
from quoin.stages.pose.colmap.sparse_model import Camera
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.hands import PhotosUnseen
from quoin.stages.pose.undistorted_images import Picture, Shown, written
from quoin.stages.pose.workspace import WORK, Photo, Workshop, ignore

Array = np.ndarray

AT_ONCE = 8  # files on the way from a run at a URL


def features_file(photo_id: int) -> str:
    """Name in the run of the file with the features of a photo."""
    return f"{WORK}/shared/features{photo_id:06d}.db"


class Work:
    """The steps, by name. Their working files are in a temporary folder; ``threads``: 0 takes every core."""

    def __init__(self, run: Run, config: PoseConfig, report: Reporter, threads: int = 0) -> None:
        self.run, self.config, self.report, self.threads = run, config, report, threads

    def features(self, photo_ids: list[int], cameras: list[Camera], camera_of: list[int]) -> None:
        """SIFT of photos, left in a file of each."""
        photos = self._photos(photo_ids)
        with self._shop() as shop:
            files = write_copies(photos, shop.images, shop.threads, ignore)
            job, _ = step_arguments.features(shop, self.config, photos, files, cameras, camera_of)
            shop.persistent("features", job)
            leave_features(self.run, shop.database, photo_ids)

    def matches(
        self, pairs: Int[Array, "m 2"], photo_ids: list[int], cameras: list[Camera], camera_of: list[int]
    ) -> bytes:
        """A database of the matches and the verified geometry of pairs of these photos."""
        files = [f"{photo_id:06d}.jpg" for photo_id in photo_ids]
        with self._shop() as shop:
            shop.colmap("filling", step_arguments.filling(photo_ids, files, cameras, camera_of))
            take_features(self.run, shop.database, photo_ids)
            shop.persistent("matching", step_arguments.matching(shop, dict(zip(photo_ids, files, strict=True)), pairs))
            found = shop.folder / "found.db"
            copy_rows(shop.database, found, MATCHES)
            return found.read_bytes()

    def pictures(self, pictures: list[Picture]) -> list[Shown]:
        """Undistorted photos, written into the store."""
        photos = self._photos([picture.photo_id for picture in pictures])
        with self._shop() as shop:
            return written(self.run, pictures, photos, shop.threads, ignore)

    def _photos(self, photo_ids: list[int]) -> list[Photo]:
        photos = read_photo_rows(self.run, photo_ids)
        for path in [photo[kind] for photo in photos for kind in ("path", "mask_path") if photo[kind]]:
            if not Path(path).is_file():
                raise PhotosUnseen(
                    "Workers do not see the photos",
                    where=path,
                    do="put them under the same path on all machines, or at a URL",
                )
        return photos

    @contextmanager
    def _shop(self) -> Iterator[Workshop]:
        with scratch(Path(tempfile.gettempdir())) as folder:
            yield Workshop(self.run, self.config, self.report, folder=folder, threads=self.threads)


def leave_features(run: Run, database: Path, photo_ids: Sequence[int]) -> None:
    """Write the files of these photos' features, from a database that has them."""

    def leave(i: int) -> None:
        with run.deposit(features_file(photo_ids[i])) as path:
            copy_rows(database, path, FEATURES, [photo_ids[i] + 1])

    each(leave, len(photo_ids), AT_ONCE, ignore)


def take_features(run: Run, database: Path, photo_ids: Sequence[int]) -> None:
    """Put these photos' features into a database, from the files that were left of them."""
    with ExitStack() as held:
        files = each(
            lambda i: held.enter_context(run.borrowed(features_file(photo_ids[i]))), len(photo_ids), AT_ONCE, ignore
        )
        gather_rows(files, database, FEATURES)
