"""The stage's working folder, and how COLMAP is run in it."""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage.run import Run
from quoin.stages.pose.checks.registration import Gated
from quoin.stages.pose.colmap.sparse_model import Camera
from quoin.stages.pose.colmap.subprocess_call import ChildDied, run_child
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.hands import Alone, Hands

Array = np.ndarray
Photo = dict[str, Any]
OnLine = Callable[[str], None]

WORK = "work/pose"  # in a run


@dataclass(frozen=True)
class Component:
    """A gated component and the folder of its COLMAP model."""

    path: str
    gated: Gated
    doubts: list[str] = field(default_factory=list)  # what a person should know of how it came about

    @property
    def n_photos(self) -> int:
        return len(self.gated.model.photo_ids)


@dataclass(frozen=True)
class Found:
    """What this stage found: components, largest first, and what is known of every photo and pair."""

    components: list[Component]
    mapper: str
    n_features: list[int]
    pairs: Int[Array, "m 4"]  # photo a, photo b, matches, inliers
    n_masks: int
    refined_cameras: int = 0
    warnings: list[str] = field(default_factory=list)


def ignore(told: object) -> None:
    pass


class Workshop:
    """Working folder (``run/work/pose``, unless another is given), seed, threads, progress, and who else works."""

    def __init__(
        self,
        run: Run,
        config: PoseConfig,
        report: Reporter,
        hands: Hands | None = None,
        *,
        folder: Path | None = None,
        threads: int = 0,
    ) -> None:
        self.folder = folder or run.path / WORK
        self.folder.mkdir(parents=True, exist_ok=True)
        self.run, self.report, self.seed, self.hands = run, report, run.seed, hands
        self.threads = config.threads or threads or os.cpu_count() or 1
        self.database = self.folder / "database.db"
        self.cameras: dict[int, Camera] = {}  # of every photo, by its id, where hands share in it
        self.shared: set[int] = set()  # photos whose features lie in a file

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def masks(self) -> Path:
        return self.folder / "masks"

    def cameras_of(self, photo_ids: list[int]) -> tuple[list[Camera], list[int]]:
        """The cameras of some photos, each once, and which of them every photo has."""
        cameras = list(dict.fromkeys(self.cameras[photo_id] for photo_id in photo_ids))
        number = {camera: n for n, camera in enumerate(cameras)}
        return cameras, [number[self.cameras[photo_id]] for photo_id in photo_ids]

    def go_on_alone(self, error: Alone) -> None:
        """Tell why the next is done here."""
        self.report.log("pose", f"{error} Meanwhile this process does their part", "warning")

    def with_own_cameras(self, cameras: list[Camera], camera_of: list[int]) -> Workshop:
        """A workshop on a copy of the database in which photo i uses ``cameras[camera_of[i]]``."""
        other = copy.copy(self)
        other.database = self.folder / "own_cameras.db"
        shutil.copyfile(self.database, other.database)
        other.colmap("recasting", {"cameras": [c.as_json() for c in cameras], "camera_of": camera_of})
        return other

    def without_pairs(self, pairs: Int[Array, "c 2"], name: str) -> Workshop:
        """A workshop on a copy of the database, called ``name``, in which these pairs of photos have no matches."""
        other = copy.copy(self)
        other.database = self.folder / f"{name}.db"
        shutil.copyfile(self.database, other.database)
        other.colmap("forgetting", {"pairs": pairs.tolist()})
        return other

    def keep_only(self, inputs: Any) -> None:
        """Empty the folder unless it holds work on the same ``inputs`` (then its features and matches are kept)."""
        key, note = digest(inputs), self.folder / "inputs"
        if not note.exists() or note.read_text() != key:
            shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True)
            note.write_text(key)

    def colmap(self, step: str, job: dict[str, Any], on_line: OnLine = ignore) -> dict[str, Any]:
        """Result of a step of ``stages.pose.colmap.process``, given what every step needs and ``job``."""
        base = {"database": str(self.database), "images": str(self.images), "seed": self.seed, "threads": self.threads}
        return run_child(step, {**base, **job}, self.folder, on_line)

    def persistent(self, step: str, job: dict[str, Any], on_line: OnLine = ignore) -> dict[str, Any]:
        """The same for a step that keeps what it has done: where the process dies, once more with one thread."""
        try:
            return self.colmap(step, job, on_line)
        except ChildDied as died:
            self.report.log("pose", f"{died.what}; once more with one thread", "warning")
            return self.colmap(step, {**job, "threads": 1}, on_line)


def counter(pattern: str, advance: Callable[[float], None]) -> OnLine:
    """Calls ``advance`` with the number that ``pattern`` finds in a line of the log."""
    compiled = re.compile(pattern)

    def on_line(line: str) -> None:
        if found := compiled.search(line):
            advance(float(found.group(1)))

    return on_line
