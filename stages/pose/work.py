"""What is done of a portion of the photos, or of their pairs, by whoever has it: on another machine, or here."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int

from pipeline.node import scratch
from pipeline.photo_table import read_photo_rows
from pipeline.progress import Reporter
from pipeline.run import Run
from stages.pose import jobs
from stages.pose.config import PoseConfig
from stages.pose.hands import PhotosUnseen
from stages.pose.model import Camera
from stages.pose.parallel import each
from stages.pose.pictures import Picture, Shown
from stages.pose.tables import FEATURES, MATCHES, copy_rows
from stages.pose.working import write_copies
from stages.pose.workshop import WORK, Photo, Workshop

Array = np.ndarray


def features_file(number: int) -> str:
    """Name in the run of the file with the features of a portion of the photos."""
    return f"{WORK}/shared/features{number:06d}.db"


class Work:
    """The steps, by name. Their working files are in a temporary folder; ``threads``: 0 takes every core."""

    def __init__(self, run: Run, config: PoseConfig, report: Reporter, threads: int = 0) -> None:
        self.run, self.config, self.report, self.threads = run, config, report, threads

    def features(self, number: int, photo_ids: list[int], cameras: list[Camera], camera_of: list[int]) -> None:
        """SIFT of the photos of a portion, left in its file."""
        photos = self._photos(photo_ids)
        with self._shop() as shop:
            files = write_copies(photos, shop.images, shop.threads, lambda done: None)
            job, _ = jobs.features(shop, self.config, photos, files, cameras, camera_of)
            shop.persistent("features", job)
            leave_features(self.run, shop.database, number, photo_ids)

    def matches(
        self, pairs: Int[Array, "m 2"], portions: dict[int, list[int]], cameras: list[Camera], camera_of: list[int]
    ) -> bytes:
        """A database of the matches and the verified geometry of pairs, whose photos are given by portion."""
        photo_ids = [photo_id for ids in portions.values() for photo_id in ids]
        files = [f"{photo_id:06d}.jpg" for photo_id in photo_ids]
        with self._shop() as shop:
            shop.colmap("filling", jobs.filling(photo_ids, files, cameras, camera_of))
            for number, ids in portions.items():
                with self.run.borrowed(features_file(number)) as source:
                    copy_rows(source, shop.database, FEATURES, [photo_id + 1 for photo_id in ids])
            shop.persistent("matching", jobs.matching(shop, dict(zip(photo_ids, files, strict=True)), pairs))
            found = shop.folder / "found.db"
            copy_rows(shop.database, found, MATCHES)
            return found.read_bytes()

    def pictures(self, pictures: list[Picture]) -> list[Shown]:
        """Undistorted photos, written into the store."""
        photos = self._photos([picture.photo_id for picture in pictures])
        with self._shop() as shop:
            return each(
                lambda i: pictures[i].write(self.run, photos[i]), len(pictures), shop.threads, lambda done: None
            )

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


def leave_features(run: Run, database: Path, number: int, photo_ids: list[int]) -> None:
    """Write the file of a portion's features."""
    with run.deposit(features_file(number)) as path:
        copy_rows(database, path, FEATURES, [photo_id + 1 for photo_id in photo_ids])
