"""Depth in textureless regions: walls, floors and ceilings as planes of the scene that several photos agree on."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.planes import BEHIND_MARGIN_CELLS, PlaneSet, bounding_planes, detect_planes
from quoin.pipeline.imaging import labels
from quoin.pipeline.imaging.filters import resample_to_level
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.priors import PlaneIndexMap, write_plane_index, write_scene_planes
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.priors.plane_labeling import PlanarView, plane_fields, solve_labeling
from quoin.stages.priors.stereo.consistency import geometric_consistency
from quoin.stages.priors.stereo.hypotheses import PlaneHypotheses
from quoin.stages.priors.stereo.views import StereoView, level_for_edge_px, ray_grid

Array = np.ndarray
MAX_BEND_RATIO = 0.05  # of the distance: second difference of neighboring points on one surface


@dataclass(frozen=True)
class PlanarParams:
    """Tuned numbers of finding planes in textureless regions."""

    edge_px: int = 200  # longest edge of the photos that are labeled
    cell_share: float = 0.008  # of the median depth: two planes are distinct from twice that apart
    max_candidate_planes: int = 24  # that a pixel may choose from
    min_plane_support_share: float = 0.002  # of the points in view, on a plane
    points_per_photo: int = 4000  # of its depth map, that planes are looked for in
    depth_stride: int = 11  # every so many depths enter the median depth
    min_consistent_views: int = 1  # other photos that have the same plane
    min_added_share: float = 0.3  # of all pixels, that planes must add to be kept
    min_added_share_indoors: float = 0.15  # the same, in a scene bounded by walls
    n_probe_photos: int = 8  # spread over all, labeled first: where they gain too little, the others are left out
    max_depth_factor: float = 1.5  # of the farthest stereo depth, beyond which no plane is looked for
    min_upright_cos: float = 0.9  # between normals of the same orientation; with the vertical: a level plane
    min_valid_share: float = 0.3  # of the depths in a larger pixel, for it to have one


PLANAR_PARAMS = PlanarParams()


class SurfacePoints(NamedTuple):
    """World points of a photo's depth map with unit normals, and a sample of its depths."""

    points: Float[Array, "n 3"]
    normals: Float[Array, "n 3"]
    depths: Float[Array, "d"]


class PlanarRegionStereo:
    """Planes of the scene, and the labeling of photos with them, at small size, a few photos in memory at a time.

    ``depth_photos`` have a depth map; photo i is compared with those of ``neighbors[i]`` that have one, too.
    """

    def __init__(
        self, run: Run, neighbors: list[list[int]], depth_photos: list[int], directions: Array, device: str
    ) -> None:
        self.run, self.depth_photos, self.device, self.up = run, depth_photos, device, directions[0]
        has_depth = set(depth_photos)
        self.neighbors = {i: [neighbor for neighbor in neighbors[i] if neighbor in has_depth] for i in depth_photos}
        self.posed, self.gains = posed_images.read_posed(run), priors.read_exposures(run)
        self.planar_view = functools.lru_cache(maxsize=64)(self._planar_view)
        self.surface_points = functools.lru_cache(maxsize=64)(self._surface_points)
        parts_of_photos = [self.surface_points(i) for i in depth_photos]
        points, normals, depths = (np.concatenate(parts) for parts in zip(*parts_of_photos, strict=True))
        if len(depths) == 0:  # no photo has a depth, so there will be no plane
            depths = np.ones(1)
        self.cell_size = PLANAR_PARAMS.cell_share * float(np.median(depths))
        self.max_depth = PLANAR_PARAMS.max_depth_factor * float(np.percentile(depths, 99.5))
        points_in_view = len(points) / len(depth_photos) * (1 + len(neighbors[depth_photos[0]]))
        min_support = PLANAR_PARAMS.min_plane_support_share * points_in_view
        self.planes = detect_planes(directions, points, normals, np.ones(len(points)), self.cell_size, min_support)
        self.bounds = bounding_planes(self.planes, points, self.cell_size)
        is_indoors = bool((np.abs(self.bounds.normal @ self.up) < 1.0 - PLANAR_PARAMS.min_upright_cos).any())
        self.min_added_share = PLANAR_PARAMS.min_added_share_indoors if is_indoors else PLANAR_PARAMS.min_added_share

    def label_all(self, report: Reporter, seconds: dict[str, float]) -> tuple[int, float]:
        """Label all photos, and keep the planes that other photos confirm; number of planes, share of pixels they add.

        If they add too little, none is kept: planes flatten surfaces that are only nearly flat, which stereo measures
        better. A scene bounded by walls, seen from within, needs less. The work stops early where the pixels without
        depth, or the labels of a few probe photos, are too few even if all of them were confirmed.
        """
        began = time.monotonic()
        write_scene_planes(self.run, self.planes.normal, self.planes.offset)
        probes = [
            self.depth_photos[i]
            for i in np.unique(
                np.linspace(0, len(self.depth_photos) - 1, PLANAR_PARAMS.n_probe_photos).round().astype(int)
            )
        ]
        with torch.no_grad(), report.task("priors/planes", 2 * len(self.depth_photos), "photos") as advance:
            done = iter(range(1, 2 * len(self.depth_photos) + 1))

            def run_each(work: Callable[[int], float], indices: list[int]) -> float:
                shares = []
                for index in indices:
                    shares.append(work(index))
                    advance(next(done))
                return float(np.mean(shares or [0.0]))

            share, is_accepted = float(np.mean([self._no_depth(index)[0].mean() for index in self.depth_photos])), False
            if share >= self.min_added_share:
                share = run_each(self.label_planes, probes)
            if share >= self.min_added_share:
                run_each(self.label_planes, [index for index in self.depth_photos if index not in probes])
                share = run_each(self.filter_consistent, self.depth_photos)
                is_accepted = share >= self.min_added_share
        outcome = (
            f"{share:.0%} of the pixels" if is_accepted else f"at most {share:.0%} of the pixels: too few, none kept"
        )
        report.log("priors", f"planes of textureless surfaces add {outcome}")
        for index in self.depth_photos:
            if is_accepted:
                self.add_labels(index)
            else:
                arrays.delete_node(self.run.scene, f"priors/{index:06d}/plane_index")
            arrays.delete_node(self.run.scene, f"priors/{index:06d}/labeling")
        seconds["planes"] = time.monotonic() - began
        return len(self.planes.offset), share if is_accepted else 0.0

    def visible_planes(self, index: int) -> tuple[PlaneSet, Array]:
        """The planes with most points in a photo and its neighbors, and their indices."""
        planes, neighbors = self.planes, [self.surface_points(i) for i in (index, *self.neighbors[index])]
        points, normals, _ = (np.concatenate(parts) for parts in zip(*neighbors, strict=True))
        on = np.abs(points @ planes.normal.T - planes.offset) < self.cell_size
        support = (on & (normals @ planes.normal.T > PLANAR_PARAMS.min_upright_cos)).sum(axis=0)
        order = np.argsort(-support, kind="stable")[: PLANAR_PARAMS.max_candidate_planes]
        order = order[support[order] > PLANAR_PARAMS.min_plane_support_share * len(points)]
        return PlaneSet(planes.normal[order], planes.offset[order], support[order].astype(np.float64)), order

    def label_planes(self, index: int) -> float:
        """Write each pixel's plane (w, a, b, index; -1: none); the share of a photo's pixels that planes would add."""
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
        """Keep the planes that other photos confirm; the share of pixels that they add to the depth map."""
        planes, number, level = self._read_labeling(index)
        neighbors = self.neighbors[index]
        views, source_planes = (
            [self.planar_view(i).view for i in neighbors],
            [self._read_labeling(i)[0] for i in neighbors],
        )
        count, _, violations = geometric_consistency(self.planar_view(index).view, planes, views, source_planes)
        good = (
            (planes.w > 0) & (count >= min(PLANAR_PARAMS.min_consistent_views, len(neighbors))) & (violations <= count)
        )
        number = torch.where(good, number, -1)
        self._write_labeling(index, torch.stack([*planes, number]))
        added = self._added_planes(index, number, level)
        write_plane_index(self.run, index, added)
        return float((added.plane_index >= 0).mean())

    def _added_planes(self, index: int, number: Tensor, level: int) -> PlaneIndexMap:
        """Plane indices where a photo's depth map has no depth."""
        no_depth, at = self._no_depth(index)
        return PlaneIndexMap(
            np.where(no_depth, resample_to_level(number.long().cpu().numpy(), level, at, no_depth.shape), -1), at
        )

    def _no_depth(self, index: int) -> tuple[Bool[Array, "h w"], int]:
        """Used pixels without depth that are labeled neither sky nor transient; and the depth map's pyramid level."""
        stored = priors.read_depth(self.run, index)
        assert stored is not None  # it is one of depth_photos
        depth, at = stored
        used = resample_to_level(posed_images.read_mask(self.run, index), 0, at, depth.shape) > 127
        empty = np.isin(priors.read_labels_at_level(self.run, index, at, depth.shape), labels.NON_SURFACE_LABELS)
        return (depth == 0) & used & ~empty, at

    def _write_labeling(self, index: int, labeling: Tensor) -> None:
        level = level_for_edge_px(self.posed.sizes[index], PLANAR_PARAMS.edge_px)
        priors.write_hypotheses(self.run, index, "labeling", labeling.cpu().numpy(), level, n_passes=1)

    def add_labels(self, index: int) -> None:
        """Label unlabeled pixels FLOOR, CEILING or WALL by their plane; OTHER where only stereo has a depth."""
        _, number, level = self._read_labeling(index)
        plane_index = number.long().cpu().numpy()
        kind = np.where(plane_index >= 0, self._labels_of_planes()[np.maximum(plane_index, 0)], labels.UNKNOWN)
        kind = np.where((plane_index < 0) & (self.planar_view(index).depth > 0).cpu().numpy(), labels.OTHER, kind)
        stored = priors.read_labels(self.run, index)
        before, at = (np.full(kind.shape, labels.UNKNOWN, np.uint8), level) if stored is None else stored
        added = np.where(before == labels.UNKNOWN, resample_to_level(kind, level, at, before.shape), before)
        priors.write_labels(self.run, index, added.astype(np.uint8), at)

    def _labels_of_planes(self) -> Array:
        """Label of each plane by its orientation."""
        upward = self.planes.normal @ self.up
        level = np.where(upward > PLANAR_PARAMS.min_upright_cos, labels.FLOOR, labels.CEILING)
        return np.where(np.abs(upward) > PLANAR_PARAMS.min_upright_cos, level, labels.WALL)

    def _read_labeling(self, index: int) -> tuple[PlaneHypotheses, Tensor, int]:
        stored = priors.read_hypotheses(self.run, index, "labeling")
        assert stored is not None  # label_planes comes first
        w, a, b, number = torch.from_numpy(stored[0]).to(self.device).unbind()
        return PlaneHypotheses(w, a, b), number, stored[1]

    def _planar_view(self, index: int) -> PlanarView:
        level = level_for_edge_px(self.posed.sizes[index], PLANAR_PARAMS.edge_px)
        rgb = torch.from_numpy(posed_images.read_photo(self.run, index, level)).to(self.device).float() / 255.0
        if self.gains is not None:
            rgb = rgb / torch.tensor(self.gains[index], dtype=torch.float32, device=self.device)
        intrinsics = torch.tensor(self.posed.intrinsics[index] / 2**level, dtype=torch.float32, device=self.device)
        pose = torch.tensor(self.posed.cam_from_world[index], dtype=torch.float32, device=self.device)
        color = rgb.permute(2, 0, 1)
        stored = priors.read_depth(self.run, index)
        assert stored is not None  # it is one of depth_photos
        depth = downsample_depth(stored[0], level - stored[1], color.shape[1:])
        return PlanarView(
            StereoView(color.mean(dim=0), intrinsics, pose), color, torch.from_numpy(depth).to(self.device)
        )

    def _surface_points(self, index: int) -> SurfacePoints:
        view, _, depth = self.planar_view(index)
        camera = (ray_grid(view) * depth).permute(1, 2, 0).double().cpu().numpy()
        is_valid = (depth > 0).cpu().numpy()
        normal, has_normal = depth_normals(camera, is_valid)
        pose = view.cam_from_world.double().cpu().numpy()
        step = max(1, int(has_normal.sum()) // PLANAR_PARAMS.points_per_photo)
        points, normals = (
            (camera[has_normal][::step] - pose[:, 3]) @ pose[:, :3],
            normal[has_normal][::step] @ pose[:, :3],
        )
        return SurfacePoints(points, normals, depth.cpu().numpy()[is_valid][:: PLANAR_PARAMS.depth_stride])


def downsample_depth(depth: Float[Array, "h w"], levels: int, shape: tuple[int, int]) -> Float[Array, "r c"]:
    """Median of the depths (> 0) in pixels 2 ** ``levels`` times as large; 0 where too few have one."""
    step, (rows, columns) = 2**levels, shape
    padded = np.zeros((rows * step, columns * step), np.float32)
    h, w = min(depth.shape[0], rows * step), min(depth.shape[1], columns * step)
    padded[:h, :w] = depth[:h, :w]
    blocks = padded.reshape(rows, step, columns, step).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    ordered = np.sort(blocks, axis=2)
    is_valid = (blocks > 0).sum(axis=2)
    at = step * step - is_valid + is_valid // 2  # zeros come first
    middle = np.take_along_axis(ordered, np.minimum(at, step * step - 1)[..., None], axis=2)[..., 0]
    return np.where(is_valid >= PLANAR_PARAMS.min_valid_share * step * step, middle, 0.0).astype(np.float32)


def depth_normals(points: Float[Array, "h w 3"], is_valid: Array) -> tuple[Float[Array, "h w 3"], Array]:
    """Unit normals by central differences, towards the camera at the origin, and which pixels have one.

    A pixel has a normal if its four neighbors are valid, and bend from a straight line by less than MAX_BEND_RATIO of
    its distance.
    """
    out = np.zeros_like(points)
    right, left = points[1:-1, 2:], points[1:-1, :-2]
    below, above = points[2:, 1:-1], points[:-2, 1:-1]
    middle = points[1:-1, 1:-1]
    normal = np.cross(right - left, below - above)
    length = np.linalg.norm(normal, axis=-1)
    has_normal = (
        is_valid[1:-1, 1:-1]
        & is_valid[1:-1, 2:]
        & is_valid[1:-1, :-2]
        & is_valid[2:, 1:-1]
        & is_valid[:-2, 1:-1]
        & (length > 0)
    )
    bend = np.maximum(
        np.linalg.norm(right + left - 2 * middle, axis=-1), np.linalg.norm(below + above - 2 * middle, axis=-1)
    )
    has_normal &= bend < MAX_BEND_RATIO * np.linalg.norm(middle, axis=-1)
    normal = normal / np.maximum(length, 1e-12)[..., None]
    normal *= -np.sign((normal * middle).sum(axis=-1, keepdims=True))
    out[1:-1, 1:-1] = normal
    inside = np.zeros(is_valid.shape, bool)
    inside[1:-1, 1:-1] = has_normal
    return out, inside
