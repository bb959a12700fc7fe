"""Poses from the photos alone: features, pairs, mapping, gate."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from pipeline.config import digest
from pipeline.errors import QuoinError
from pipeline.progress import Reporter
from pipeline.run import Run
from stages.pose.child import ChildDied, run_child
from stages.pose.config import PoseConfig
from stages.pose.gate import Gated, gate, photo_medians, residuals_px
from stages.pose.model import read_model
from stages.pose.pairs import exhaustive
from stages.pose.start import starting_cameras
from stages.pose.working import write_copies, write_masks

Array = np.ndarray
Photo = dict[str, Any]


@dataclass(frozen=True)
class Component:
    """A gated component and the folder of its COLMAP model."""

    path: str
    gated: Gated

    @property
    def n_photos(self) -> int:
        return len(self.gated.model.photo_ids)


@dataclass(frozen=True)
class Found:
    """What estimation found: components, largest first, and what is known of every photo and pair."""

    components: list[Component]
    mapper: str
    n_features: list[int]
    pairs: Int[Array, "m 4"]  # photo a, photo b, matches, inliers
    n_masks: int
    warnings: list[str] = field(default_factory=list)


class Workshop:
    """The stage's working folder and how COLMAP is run in it."""

    def __init__(self, run: Run, config: PoseConfig, report: Reporter) -> None:
        self.folder = run.path / "work" / "pose"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.report, self.seed = report, run.seed
        self.threads = config.threads or os.cpu_count() or 1

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def masks(self) -> Path:
        return self.folder / "masks"

    @property
    def database(self) -> Path:
        return self.folder / "database.db"

    def colmap(
        self, step: str, job: dict[str, Any], on_line: Callable[[str], None] = lambda line: None
    ) -> dict[str, Any]:
        """Run a step with what every step needs."""
        base = {"database": str(self.database), "images": str(self.images), "seed": self.seed, "threads": self.threads}
        return run_child(step, {**base, **job}, self.folder, on_line)

    def persistent(
        self, step: str, job: dict[str, Any], on_line: Callable[[str], None] = lambda line: None
    ) -> dict[str, Any]:
        """The same for a step that keeps what it has done: where the process dies, once more with one thread."""
        try:
            return self.colmap(step, job, on_line)
        except ChildDied as died:
            self.report.log("pose", f"{died.what}; once more with one thread", "warning")
            return self.colmap(step, {**job, "threads": 1}, on_line)


def estimate(run: Run, config: PoseConfig, report: Reporter, photos: list[Photo]) -> Found:
    """Poses of ``photos``; QuoinError with what to do where nothing can be posed."""
    shop = Workshop(run, config, report)
    _forget_other_inputs(shop, config, photos)
    n_features, n_masks = find_features(shop, config, photos)
    pairs = match(shop, config, photos)
    if not (pairs[:, 3] > 0).any():
        raise QuoinError(
            "No two photos overlap: none of the pairs shows the same things",
            where=run.photos,
            do="take photos that overlap by half or more, with texture in them",
        )
    components, mapper = map_photos(shop, config, photos)
    if not components:
        raise QuoinError(
            f"No model could be made: {int((pairs[:, 3] > 0).sum())} pairs of photos match, but too weakly",
            where=run.photos,
            do="take more photos, from more places, that overlap by half or more",
        )
    return Found(components, mapper, n_features, pairs, n_masks)


def _forget_other_inputs(shop: Workshop, config: PoseConfig, photos: list[Photo]) -> None:
    """Remove what another attempt left, unless it was of the same photos and cameras: then its features are kept."""
    facts = [[p["content_hash"], p["group"], p["focal_px"], p["mask_path"], _stamp(p["mask_path"])] for p in photos]
    key = digest([facts, config.max_edge_px, config.max_features, shop.seed])
    note = shop.folder / "inputs"
    if not note.exists() or note.read_text() != key:
        shutil.rmtree(shop.folder)
        shop.folder.mkdir(parents=True)
        note.write_text(key)


def _stamp(path: str) -> float:
    return Path(path).stat().st_mtime if path and Path(path).exists() else 0.0


def find_features(shop: Workshop, config: PoseConfig, photos: list[Photo]) -> tuple[list[int], int]:
    """SIFT of every photo: number of keypoints per photo, and how many masks were used."""
    total = len(photos)
    with shop.report.task("pose/copies", total, "photos") as advance:
        files = write_copies(photos, shop.images, shop.threads, advance)
    n_masks = write_masks(photos, files, shop.masks, shop.threads)
    cameras, camera_of = starting_cameras(photos)
    job = {
        "cameras": [[c.model, c.width, c.height, list(c.params), c.prior_focal] for c in cameras],
        "photos": [{"id": p["photo_id"], "file": f, "camera": c} for p, f, c in zip(photos, files, camera_of, strict=True)],
        "masks": str(shop.masks) if n_masks else "",
        "max_edge_px": config.max_edge_px,
        "max_features": config.max_features,
    }
    with shop.report.task("pose/features", total, "photos") as advance:
        result = shop.persistent("features", job, _counter(r"Processed file \[(\d+)/", advance))
        advance(total)
    return result["n_features"], n_masks


def match(shop: Workshop, config: PoseConfig, photos: list[Photo]) -> Int[Array, "m 4"]:
    """Matched pairs: photo a, photo b, matches, verified inliers."""
    pairs = exhaustive(len(photos))
    return match_pairs(shop, photos, pairs)


def match_pairs(shop: Workshop, photos: list[Photo], pairs: Int[Array, "m 2"]) -> Int[Array, "m 4"]:
    """Match the given pairs of photos."""
    files = {int(path.stem): path.name for path in shop.images.iterdir()}
    listing = shop.folder / "pairs.txt"
    listing.write_text("".join(f"{files[a]} {files[b]}\n" for a, b in pairs.tolist()))
    block = int(np.clip(len(pairs) // 40, 50, 1225))
    with shop.report.task("pose/matching", len(pairs), "pairs") as advance:
        job = {"pairs_file": str(listing), "block_size": block}
        count = _counter(r"Processing block \[(\d+)/", lambda done: advance(min((done - 1) * block, len(pairs))))
        result = shop.persistent("matching", job, count)
        advance(len(pairs))
    return np.array(result["pairs"], np.int64).reshape(-1, 4)


def map_photos(shop: Workshop, config: PoseConfig, photos: list[Photo]) -> tuple[list[Component], str]:
    """Gated components, largest first, and the mapper that made them."""
    components = _map(shop, "global", config, len(photos))
    return components, "global"


def _map(shop: Workshop, mapper: str, config: PoseConfig, total: int) -> list[Component]:
    output = shop.folder / mapper
    shutil.rmtree(output, ignore_errors=True)
    with shop.report.task(f"pose/mapping {mapper}", total, "photos") as advance:
        progress = _mapping_progress(mapper, total, advance)
        paths = shop.colmap("mapping", {"mapper": mapper, "output": str(output)}, progress)["components"]
        advance(total)
    gated = [Component(path, gate(read_model(Path(path) / "model.npz"), config.min_points)) for path in paths]
    return sorted((c for c in gated if c.n_photos >= 2), key=lambda c: -c.n_photos)


# the global mapper works on all photos at once: its phases and the share of its time gone when each begins
_PHASES = {
    "Running rotation averaging": 0.02,
    "Running global positioning": 0.05,
    "Running iterative bundle adjustment": 0.35,
    "Running iterative retriangulation": 0.8,
    "Extracting colors": 0.97,
}


def _mapping_progress(mapper: str, total: int, advance: Callable[[float], None]) -> Callable[[str], None]:
    if mapper == "incremental":
        return _counter(r"num_reg_frames=(\d+)", advance)

    def on_line(line: str) -> None:
        for phase, share in _PHASES.items():
            if phase in line:
                advance(share * total)

    return on_line


def _counter(pattern: str, advance: Callable[[float], None]) -> Callable[[str], None]:
    compiled = re.compile(pattern)

    def on_line(line: str) -> None:
        if found := compiled.search(line):
            advance(float(found.group(1)))

    return on_line


def quality(component: Component) -> tuple[int, float]:
    """Photos, and minus the mean over photos of the median reprojection error: larger is better."""
    model = component.gated.model
    errors = photo_medians(model, residuals_px(model))
    return component.n_photos, -float(np.nanmean(errors)) if len(errors) else -math.inf
