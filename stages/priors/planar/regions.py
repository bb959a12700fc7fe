"""Depth where nothing can be matched: bare walls, floors and ceilings, as planes of the scene that photos agree on."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.planes import BEHIND_MARGIN_CELLS, PlaneSet, bounding_planes, detect_planes
from quoin.pipeline.imaging import labels
from quoin.pipeline.imaging.pyramid import resample_to_level
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.plane_maps import PlaneIndexMap, write_plane_index, write_scene_planes
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.priors.planar.labeling import PlanarView, plane_fields, solve_labeling
from quoin.stages.priors.stereo.consistency import geometric_consistency
from quoin.stages.priors.stereo.hypotheses import PlaneHypotheses
from quoin.stages.priors.stereo.normals import depth_normals
from quoin.stages.priors.stereo.views import StereoView, level_for_edge_px, ray_grid

Array = np.ndarray
PLANAR_EDGE_PX = 200  # of the photos that are laid out
PLANE_CELL_SHARE = 0.008  # of the usual depth: planes are told apart from twice that on
MAX_CANDIDATE_PLANES = 24  # that a pixel may choose from
MIN_PLANE_SUPPORT_SHARE = 0.002  # share of the points in sight that makes a plane
POINTS_PER_PHOTO = 4000
DEPTH_STRIDE = 11  # one in so many depths tells what is usual
MIN_CONSISTENT_VIEWS = 1  # other photos whose plane is the same
MIN_ADDED_SHARE, MIN_ADDED_SHARE_INDOORS = (
    0.3,
    0.15,
)  # share of all pixels that planes must add; in a scene that ends at walls
N_PROBE_PHOTOS = 8  # photos, spread over all, are laid out before the others
MAX_DEPTH_FACTOR = 1.5  # planes are not looked for beyond so many times the farthest known depth
MIN_UPRIGHT_COS = 0.9  # cosine from which a plane counts as level, its sine as upright


class SurfacePoints(NamedTuple):
    """Points [n, 3] of a photo's depth map, in the world, and their unit normals; some of its depths."""

    points: Float[Array, "n 3"]
    normals: Float[Array, "n 3"]
    depths: Float[Array, "d"]


class PlanarRegionStereo:
    """Photos with depth maps, small, a few in memory at a time, and the planes of the scene.

    ``neighbors[i]`` are compared with photo i, those of them that are in ``depth_photos``: photos that have a depth
    map.
    """

    def __init__(
        self, run: Run, neighbors: list[list[int]], depth_photos: list[int], directions: Array, device: str
    ) -> None:
        self.run, self.depth_photos, self.device, self.up = run, depth_photos, device, directions[0]
        there = set(depth_photos)
        self.neighbors = {i: [other for other in neighbors[i] if other in there] for i in depth_photos}
        self.posed, self.gains = posed_images.read_posed(run), priors.read_exposures(run)
        self.planar_view = functools.lru_cache(maxsize=64)(self._planar_view)
        self.surface_points = functools.lru_cache(maxsize=64)(self._surface_points)
        found = [self.surface_points(i) for i in depth_photos]
        points, normals, depths = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if len(depths) == 0:  # nothing is known of any photo: no plane either
            depths = np.ones(1)
        self.cell_size = PLANE_CELL_SHARE * float(np.median(depths))
        self.max_depth = MAX_DEPTH_FACTOR * float(np.percentile(depths, 99.5))
        least = MIN_PLANE_SUPPORT_SHARE * len(points) / len(depth_photos) * (1 + len(neighbors[depth_photos[0]]))
        self.planes = detect_planes(directions, points, normals, np.ones(len(points)), self.cell_size, least)
        self.bounds = bounding_planes(self.planes, points, self.cell_size)
        is_indoors = bool((np.abs(self.bounds.normal @ self.up) < 1.0 - MIN_UPRIGHT_COS).any())
        self.min_added_share = MIN_ADDED_SHARE_INDOORS if is_indoors else MIN_ADDED_SHARE

    def label_all(self, report: Reporter, seconds: dict[str, float]) -> tuple[int, float]:
        """Lay out every photo, and keep what others agree on; how many planes there are, and the share of pixels.

        Where that is little, nothing is kept: planes flatten what is only nearly flat, which stereo sees better. Less
        is enough in a scene that ends at walls: it is seen from within. Often what depth maps leave silent tells
        already, or the first few photos do, if others agreed with all that planes would add there.
        """
        began = time.monotonic()
        write_scene_planes(self.run, self.planes.normal, self.planes.offset)
        first = [
            self.depth_photos[i]
            for i in np.unique(np.linspace(0, len(self.depth_photos) - 1, N_PROBE_PHOTOS).round().astype(int))
        ]
        with torch.no_grad(), report.task("priors/planes", 2 * len(self.depth_photos), "photos") as advance:
            done = iter(range(1, 2 * len(self.depth_photos) + 1))

            def each(work: Callable[[int], float], indices: list[int]) -> float:
                shares = []
                for index in indices:
                    shares.append(work(index))
                    advance(next(done))
                return float(np.mean(shares or [0.0]))

            share, is_accepted = float(np.mean([self._no_depth(index)[0].mean() for index in self.depth_photos])), False
            if share >= self.min_added_share:
                share = each(self.label_planes, first)
            if share >= self.min_added_share:
                each(self.label_planes, [index for index in self.depth_photos if index not in first])
                share = each(self.filter_consistent, self.depth_photos)
                is_accepted = share >= self.min_added_share
        found = f"{share:.0%} of the pixels" if is_accepted else f"at most {share:.0%} of the pixels, left alone"
        report.log("priors", f"bare surfaces: {found}")
        for index in self.depth_photos:
            if is_accepted:
                self.add_labels(index)
            else:
                arrays.delete_node(self.run.scene, f"priors/{index:06d}/plane_index")
            arrays.delete_node(self.run.scene, f"priors/{index:06d}/labeling")
        seconds["planes"] = time.monotonic() - began
        return len(self.planes.offset), share if is_accepted else 0.0

    def visible_planes(self, index: int) -> tuple[PlaneSet, Array]:
        """The planes that a photo and its neighbours know most points of, and their numbers."""
        planes, neighbors = self.planes, [self.surface_points(i) for i in (index, *self.neighbors[index])]
        points, normals, _ = (np.concatenate(parts) for parts in zip(*neighbors, strict=True))
        on = np.abs(points @ planes.normal.T - planes.offset) < self.cell_size
        support = (on & (normals @ planes.normal.T > MIN_UPRIGHT_COS)).sum(axis=0)
        order = np.argsort(-support, kind="stable")[:MAX_CANDIDATE_PLANES]
        order = order[support[order] > MIN_PLANE_SUPPORT_SHARE * len(points)]
        return PlaneSet(planes.normal[order], planes.offset[order], support[order].astype(np.float64)), order

    def label_planes(self, index: int) -> float:
        """Leave the plane of each pixel of a photo (w, a, b, its number; -1 where none); the share it would add."""
        if not priors.count_hypothesis_passes(self.run, index, "labeling"):
            planes, number = self.visible_planes(index)
            planar_view = self.planar_view(index)
            sources = [self.planar_view(i) for i in self.neighbors[index]]
            stacked = torch.zeros(4, *planar_view.depth.shape, device=self.device)
            stacked[3] = -1
            if len(number):
                chosen, _ = solve_labeling(
                    planar_view, sources, planes, self.max_depth, self.bounds, BEHIND_MARGIN_CELLS * self.cell_size
                )
                w, a, b = plane_fields(planes, planar_view.view)
                at, on = chosen.clamp(min=0), chosen >= 0
                fields = (w.gather(0, at[None])[0], a[at], b[at], torch.from_numpy(number).to(self.device)[at].float())
                stacked = torch.where(on, torch.stack(fields), stacked)
            self._write_labeling(index, stacked)
        _, number, level = self._read_labeling(index)
        return float((self._added_planes(index, number, level).plane_index >= 0).mean())

    def filter_consistent(self, index: int) -> float:
        """Keep what others agree on where the depth map is silent; the share of pixels that is."""
        planes, number, level = self._read_labeling(index)
        neighbors = self.neighbors[index]
        views, source_planes = (
            [self.planar_view(i).view for i in neighbors],
            [self._read_labeling(i)[0] for i in neighbors],
        )
        count, _, violations = geometric_consistency(self.planar_view(index).view, planes, views, source_planes)
        good = (planes.w > 0) & (count >= min(MIN_CONSISTENT_VIEWS, len(neighbors))) & (violations <= count)
        number = torch.where(good, number, -1)
        self._write_labeling(index, torch.stack([*planes, number]))
        bare = self._added_planes(index, number, level)
        write_plane_index(self.run, index, bare)
        return float((bare.plane_index >= 0).mean())

    def _added_planes(self, index: int, number: Tensor, level: int) -> PlaneIndexMap:
        """The planes by their numbers where a photo's depth map is silent."""
        no_depth, at = self._no_depth(index)
        return PlaneIndexMap(
            np.where(no_depth, resample_to_level(number.long().cpu().numpy(), level, at, no_depth.shape), -1), at
        )

    def _no_depth(self, index: int) -> tuple[Bool[Array, "h w"], int]:
        """Where a photo is used and its depth map says nothing, no sky nor passer-by is known; its pyramid level."""
        stored = priors.read_depth(self.run, index)
        assert stored is not None  # todo
        depth, at = stored
        used = resample_to_level(posed_images.read_mask(self.run, index), 0, at, depth.shape) > 127
        empty = np.isin(priors.read_labels_at_level(self.run, index, at, depth.shape), labels.NON_SURFACE_LABELS)
        return (depth == 0) & used & ~empty, at

    def _write_labeling(self, index: int, labeling: Tensor) -> None:
        level = level_for_edge_px(self.posed.sizes[index], PLANAR_EDGE_PX)
        priors.write_hypotheses(self.run, index, "labeling", labeling.cpu().numpy(), level, n_passes=1)

    def add_labels(self, index: int) -> None:
        """The kind of surface that pixels show, where no label is known yet; OTHER where only stereo has a depth."""
        _, number, level = self._read_labeling(index)
        shown = number.long().cpu().numpy()
        kind = np.where(shown >= 0, self._labels_of_planes()[np.maximum(shown, 0)], labels.UNKNOWN)
        kind = np.where((shown < 0) & (self.planar_view(index).depth > 0).cpu().numpy(), labels.OTHER, kind)
        found = priors.read_labels(self.run, index)
        before, at = (np.full(kind.shape, labels.UNKNOWN, np.uint8), level) if found is None else found
        added = np.where(before == labels.UNKNOWN, resample_to_level(kind, level, at, before.shape), before)
        priors.write_labels(self.run, index, added.astype(np.uint8), at)

    def _labels_of_planes(self) -> Array:
        """Label of each plane by the way it faces."""
        upward = self.planes.normal @ self.up
        level = np.where(upward > MIN_UPRIGHT_COS, labels.FLOOR, labels.CEILING)
        return np.where(np.abs(upward) > MIN_UPRIGHT_COS, level, labels.WALL)

    def _read_labeling(self, index: int) -> tuple[PlaneHypotheses, Tensor, int]:
        found = priors.read_hypotheses(self.run, index, "labeling")
        assert found is not None  # label_planes comes first
        w, a, b, number = torch.from_numpy(found[0]).to(self.device).unbind()
        return PlaneHypotheses(w, a, b), number, found[1]

    def _planar_view(self, index: int) -> PlanarView:
        level = level_for_edge_px(self.posed.sizes[index], PLANAR_EDGE_PX)
        rgb = torch.from_numpy(posed_images.read_photo(self.run, index, level)).to(self.device).float() / 255.0
        if self.gains is not None:
            rgb = rgb / torch.tensor(self.gains[index], dtype=torch.float32, device=self.device)
        intrinsics = torch.tensor(self.posed.intrinsics[index] / 2**level, dtype=torch.float32, device=self.device)
        pose = torch.tensor(self.posed.cam_from_world[index], dtype=torch.float32, device=self.device)
        color = rgb.permute(2, 0, 1)
        stored = priors.read_depth(self.run, index)
        assert stored is not None  # todo
        depth = downsample_depth(stored[0], level - stored[1], color.shape[1:])
        return PlanarView(
            StereoView(color.mean(dim=0), intrinsics, pose), color, torch.from_numpy(depth).to(self.device)
        )

    def _surface_points(self, index: int) -> SurfacePoints:
        view, _, depth = self.planar_view(index)
        camera = (ray_grid(view) * depth).permute(1, 2, 0).double().cpu().numpy()
        is_valid = (depth > 0).cpu().numpy()
        normal, there = depth_normals(camera, is_valid)
        pose = view.cam_from_world.double().cpu().numpy()
        step = max(1, int(there.sum()) // POINTS_PER_PHOTO)
        points, normals = (camera[there][::step] - pose[:, 3]) @ pose[:, :3], normal[there][::step] @ pose[:, :3]
        return SurfacePoints(points, normals, depth.cpu().numpy()[is_valid][::DEPTH_STRIDE])


MIN_VALID_SHARE = 0.3  # share of a pixel that must be known


def downsample_depth(depth: Float[Array, "h w"], levels: int, shape: tuple[int, int]) -> Float[Array, "r c"]:
    """The median of what is known, in pixels 2 ** ``levels`` times as large; 0 where that is little."""
    step, (rows, columns) = 2**levels, shape
    padded = np.zeros((rows * step, columns * step), np.float32)
    h, w = min(depth.shape[0], rows * step), min(depth.shape[1], columns * step)
    padded[:h, :w] = depth[:h, :w]
    blocks = padded.reshape(rows, step, columns, step).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    ordered = np.sort(blocks, axis=2)
    is_valid = (blocks > 0).sum(axis=2)
    at = step * step - is_valid + is_valid // 2  # zeros come first
    middle = np.take_along_axis(ordered, np.minimum(at, step * step - 1)[..., None], axis=2)[..., 0]
    return np.where(is_valid >= MIN_VALID_SHARE * step * step, middle, 0.0).astype(np.float32)
