"""Dense stereo depth of every posed photo, believed where other photos confirm it."""

from __future__ import annotations

import functools
import time

import numpy as np
import torch

from pipeline import scene, store
from pipeline.cameras import centers_world, project
from pipeline.covisibility import seen_matrix, source_photos
from pipeline.progress import Reporter
from pipeline.run import Run, stage
from stages.priors.agree import agreement
from stages.priors.config import PriorsConfig, PriorsResult
from stages.priors.stereo import View, depth_map

COARSEST_EDGE_PX = 256
RANGE_MARGIN = 1.3  # the sweep goes this factor beyond the nearest and farthest SfM point a photo knows of


@stage("priors", needs=("pose",), version=1, result=PriorsResult)
def run(run: Run, config: PriorsConfig, report: Reporter) -> PriorsResult:
    """Depth maps into the store; nothing where ``stereo_edge_px`` is 0."""
    store.delete(run.scene, "priors")
    if config.stereo_edge_px == 0:
        return PriorsResult(n_depth_maps=0, believed_share=0.0, median_agreeing=0.0, edge_px=0, seconds={})
    posed = scene.read_posed(run)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    seen = seen_matrix(len(posed), len(posed.points_world), posed.track_photo, posed.track_point)
    chosen = source_photos(centers_world(posed.cam_from_world), seen, posed.points_world, config.sources + 2)
    sources = [row[row >= 0] for row in chosen]
    low, high = np.percentile(posed.points_world[:, 2], [0.5, 99.5])
    heights = float(low), float(high)
    up = torch.tensor([0.0, 0.0, 1.0], device=device)
    seconds = {}

    @functools.lru_cache(maxsize=64)
    def gray(index: int, level: int) -> torch.Tensor:
        return _gray(scene.read_photo(run, index, level), device)

    def view(index: int, level: int) -> View:
        k = torch.tensor(posed.intrinsics[index] / 2**level, dtype=torch.float32, device=device)
        pose = torch.tensor(posed.cam_from_world[index], dtype=torch.float32, device=device)
        return View(gray(index, level), k, pose)

    began = time.monotonic()
    todo = [i for i in range(len(posed)) if len(sources[i]) >= 2]
    finest = {i: _level(posed.sizes[i], config.stereo_edge_px) for i in range(len(posed))}
    with report.task("priors/stereo", len(todo), "photos") as advance:
        for done, i in enumerate(todo):
            depth_range = _inverse_range(posed, seen, i, sources[i])
            if depth_range is not None:
                use = sources[i][: config.sources]
                levels = []
                for up_by in range(_level(posed.sizes[i], COARSEST_EDGE_PX) - finest[i], -1, -1):
                    pick = [view(int(s), min(finest[int(s)] + up_by, scene.PYRAMID_LEVELS - 1)) for s in use]
                    levels.append((view(i, finest[i] + up_by), pick))
                depth, cost = depth_map(levels, depth_range, up, heights, config.window_px)
                depth = torch.where(cost < config.max_cost, depth, torch.zeros_like(depth))
                scene.write_depth(run, i, depth.cpu().numpy(), finest[i], kind="raw")
            advance(done + 1)
    seconds["stereo"] = time.monotonic() - began

    began = time.monotonic()

    @functools.lru_cache(maxsize=64)
    def raw(index: int) -> torch.Tensor | None:
        found = scene.read_depth(run, index, kind="raw")
        return None if found is None else torch.from_numpy(found[0]).to(device)

    shares, counts, maps = [], [], 0
    with report.task("priors/agreement", len(todo), "photos") as advance:
        for done, i in enumerate(todo):
            mine = raw(i)
            others = [(view(int(s), finest[int(s)]), raw(int(s))) for s in sources[i]]
            others = [(v, d) for v, d in others if d is not None]
            if mine is not None and others:
                agree, depth = agreement(view(i, finest[i]), mine, [v for v, _ in others], [d for _, d in others])
                mask = scene.read_mask(run, i)[:: 2 ** finest[i], :: 2 ** finest[i]][: mine.shape[0], : mine.shape[1]]
                good = (agree >= min(config.min_agreeing, len(others))) & (mine > 0)
                good &= torch.from_numpy(mask > 127).to(device)
                scene.write_depth(run, i, torch.where(good, depth, torch.zeros_like(depth)).cpu().numpy(), finest[i])
                shares.append(float(good.float().mean()))
                counts.append(float(agree[good].float().median()) if bool(good.any()) else 0.0)
                maps += 1
            advance(done + 1)
    seconds["agreement"] = time.monotonic() - began
    return PriorsResult(
        n_depth_maps=maps,
        believed_share=float(np.mean(shares)) if shares else 0.0,
        median_agreeing=float(np.median(counts)) if counts else 0.0,
        edge_px=config.stereo_edge_px,
        seconds=seconds,
    )


def _level(size: np.ndarray, edge_px: int) -> int:
    """The first pyramid level whose long edge is at most ``edge_px``."""
    level = max(0, int(np.ceil(np.log2(max(int(size.max()), 1) / edge_px))))
    return min(level, scene.PYRAMID_LEVELS - 1)


def _gray(rgb: np.ndarray, device: str) -> torch.Tensor:
    weights = np.array([0.299, 0.587, 0.114], np.float32) / 255.0
    return torch.from_numpy(rgb.astype(np.float32) @ weights).to(device)


def _inverse_range(posed: scene.Posed, seen: np.ndarray, index: int, sources: np.ndarray) -> tuple[float, float] | None:
    """Inverse depths to sweep, from the points that the photo or one of its sources sees inside its frame."""
    known = seen[index] | seen[sources].any(axis=0)
    xy, depth = project(posed.cam_from_world[index], posed.intrinsics[index], posed.points_world[known])
    inside = (depth > 0) & np.all((xy >= 0) & (xy < posed.sizes[index]), axis=1)
    if inside.sum() < 8:
        return None
    near, far = np.percentile(depth[inside], [0.5, 99.5])
    return 1.0 / (far * RANGE_MARGIN), RANGE_MARGIN / near
