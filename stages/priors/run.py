"""Dense stereo depth of every posed photo, believed where other photos confirm it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import numpy as np
import torch

from pipeline import scene, store
from pipeline.cameras import centers_world, project
from pipeline.covisibility import seen_matrix, source_photos
from pipeline.progress import Reporter
from pipeline.run import Run, stage
from stages.priors.agree import agreement
from stages.priors.config import PriorsConfig, PriorsResult
from stages.priors.stereo import View, depth_map, propagated, ray_grid

COARSEST_EDGE_PX = 256
ROUNDS = 2  # of trying what the neighbours believe
NEIGHBOURS = 10  # photos whose depths are compared with a photo's own
RANGE_MARGIN = 1.3  # the sweep goes this factor beyond the nearest and farthest SfM point a photo knows of


@stage("priors", needs=("pose",), version=1, result=PriorsResult)
def run(run: Run, config: PriorsConfig, report: Reporter) -> PriorsResult:
    """Depth maps into the store; nothing where ``stereo_edge_px`` is 0.

    Each photo searches for itself; then, in rounds, each also tries what its neighbours have come to believe.
    """
    store.delete(run.scene, "priors")
    if config.stereo_edge_px == 0:
        return PriorsResult(n_depth_maps=0, believed_share=0.0, median_agreeing=0.0, edge_px=0, seconds={})
    photos = _Photos(run, config, "cuda" if torch.cuda.is_available() else "cpu")
    seconds: dict[str, float] = {}

    def each(name: str, work: Callable[[int], object]) -> None:
        began = time.monotonic()
        with report.task(f"priors/{name}", len(photos.todo), "photos") as advance:
            for done, index in enumerate(photos.todo):
                work(index)
                advance(done + 1)
        seconds[name] = seconds.get(name, 0.0) + time.monotonic() - began

    shares: list[tuple[float, float]] = []
    with torch.no_grad():
        each("search", photos.search)
        for _ in range(ROUNDS):
            each("agreement", photos.believe)
            each("propagation", photos.propagate)
        each("agreement", lambda index: shares.append(photos.believe(index)))
    for index in photos.todo:
        for kind in ("raw", "cost"):
            store.delete(run.scene, f"priors/{index:06d}/{kind}")
    return PriorsResult(
        n_depth_maps=len(shares),
        believed_share=float(np.mean([s for s, _ in shares])) if shares else 0.0,
        median_agreeing=float(np.median([m for _, m in shares])) if shares else 0.0,
        edge_px=config.stereo_edge_px,
        seconds=seconds,
    )


class _Photos:
    """The posed photos as stereo views, a few in memory at a time; their depth maps go through the store."""

    def __init__(self, run: Run, config: PriorsConfig, device: str) -> None:
        self.run, self.config, self.device = run, config, device
        self.posed = posed = scene.read_posed(run)
        self.seen = seen_matrix(len(posed), len(posed.points_world), posed.track_photo, posed.track_point)
        chosen = source_photos(centers_world(posed.cam_from_world), self.seen, posed.points_world, NEIGHBOURS)
        self.neighbours = [row[row >= 0].tolist() for row in chosen]
        self.finest = [_level(size, config.stereo_edge_px) for size in posed.sizes]
        self.range = [self._inverse_range(i) for i in range(len(posed))]
        self.todo = [i for i in range(len(posed)) if len(self.neighbours[i]) >= 2 and self.range[i] is not None]
        self.gray = functools.lru_cache(maxsize=64)(self._gray)
        self.up = torch.tensor([0.0, 0.0, 1.0], device=device)

    def view(self, index: int, level: int) -> View:
        k = torch.tensor(self.posed.intrinsics[index] / 2**level, dtype=torch.float32, device=self.device)
        pose = torch.tensor(self.posed.cam_from_world[index], dtype=torch.float32, device=self.device)
        return View(self.gray(index, level), k, pose)

    def sources(self, index: int, coarser: int = 0) -> list[View]:
        """The photos to compare with, ``coarser`` levels above their finest."""
        chosen = self.neighbours[index][: self.config.sources]
        return [self.view(s, min(self.finest[s] + coarser, scene.PYRAMID_LEVELS - 1)) for s in chosen]

    def search(self, index: int) -> None:
        """A photo's own depth map, over all depths its points allow."""
        levels = [
            (self.view(index, self.finest[index] + coarser), self.sources(index, coarser))
            for coarser in range(_level(self.posed.sizes[index], COARSEST_EDGE_PX) - self.finest[index], -1, -1)
        ]
        depth, cost = depth_map(levels, self._range(index), self.up, self.config.window_px)
        self._write(index, depth, cost)

    def propagate(self, index: int) -> None:
        """The depth map again, with what the neighbours believe as another start."""
        points = [self._points(s) for s in (index, *self.neighbours[index])]
        reference, depth, cost = (
            self.view(index, self.finest[index]),
            self._read(index, "raw"),
            self._read(index, "cost"),
        )
        depth, cost = propagated(
            reference, self.sources(index), torch.cat(points), depth, cost, self._range(index), self.config.window_px
        )
        self._write(index, depth, cost)

    def believe(self, index: int) -> tuple[float, float]:
        """Keep the depths that neighbours confirm; share of pixels kept and median number of confirmations."""
        mine, cost = self._read(index, "raw"), self._read(index, "cost")
        known = [s for s in self.neighbours[index] if s in self.todo]
        views = [self.view(s, self.finest[s]) for s in known]
        count, mean = agreement(
            self.view(index, self.finest[index]), mine, views, [self._read(s, "raw") for s in known]
        )
        step = 2 ** self.finest[index]
        mask = scene.read_mask(self.run, index)[::step, ::step][: mine.shape[0], : mine.shape[1]]
        good = (count >= min(self.config.min_agreeing, len(known))) & (cost < self.config.max_cost)
        good |= (count >= 1) & (cost < 0.5 * self.config.max_cost)  # what matches well needs one witness
        good &= torch.from_numpy(mask > 127).to(self.device)
        scene.write_depth(self.run, index, torch.where(good, mean, 0.0).cpu().numpy(), self.finest[index])
        return float(good.float().mean()), float(count[good].float().median()) if bool(good.any()) else 0.0

    def _points(self, index: int) -> torch.Tensor:
        """World points [n, 3] of the depths a photo believes."""
        if index not in self.todo:
            return torch.zeros(0, 3, device=self.device)
        view, depth = self.view(index, self.finest[index]), self._read(index, "depth").reshape(-1)
        camera = (ray_grid(view) * depth)[:, depth > 0]
        return (camera.T - view.cam_from_world[:, 3]) @ view.cam_from_world[:, :3]

    def _read(self, index: int, kind: str) -> torch.Tensor:
        found = scene.read_depth(self.run, index, kind)
        assert found is not None  # written in the round before
        return torch.from_numpy(found[0]).to(self.device)

    def _write(self, index: int, depth: torch.Tensor, cost: torch.Tensor) -> None:
        for kind, values in (("raw", depth), ("cost", cost)):
            scene.write_depth(self.run, index, values.cpu().numpy(), self.finest[index], kind)

    def _gray(self, index: int, level: int) -> torch.Tensor:
        weights = np.array([0.299, 0.587, 0.114], np.float32) / 255.0
        return torch.from_numpy(scene.read_photo(self.run, index, level).astype(np.float32) @ weights).to(self.device)

    def _range(self, index: int) -> tuple[float, float]:
        found = self.range[index]
        assert found is not None  # photos without a range are not in todo
        return found

    def _inverse_range(self, index: int) -> tuple[float, float] | None:
        """Inverse depths to sweep, from the points in the photo's frame that it or one of its neighbours sees."""
        posed, near = self.posed, self.neighbours[index]
        known = self.seen[index] | self.seen[near].any(axis=0)
        xy, depth = project(posed.cam_from_world[index], posed.intrinsics[index], posed.points_world[known])
        inside = (depth > 0) & np.all((xy >= 0) & (xy < posed.sizes[index]), axis=1)
        if inside.sum() < 8:
            return None
        nearest, farthest = np.percentile(depth[inside], [0.5, 99.5])
        return 1.0 / (farthest * RANGE_MARGIN), RANGE_MARGIN / nearest


def _level(size: np.ndarray, edge_px: int) -> int:
    """The first pyramid level whose long edge is at most ``edge_px``."""
    level = max(0, int(np.ceil(np.log2(max(int(size.max()), 1) / edge_px))))
    return min(level, scene.PYRAMID_LEVELS - 1)
