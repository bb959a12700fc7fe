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
from quoin.pipeline.geometry.planes import BEHIND_CELLS, PlaneSet, bounding, planes_along
from quoin.pipeline.imaging import labels
from quoin.pipeline.imaging.pyramid import at_level
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.plane_maps import Bare, write_bare, write_planes
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run
from quoin.stages.priors.planar.labeling import Known, layout, plane_fields
from quoin.stages.priors.stereo.consistency import agreement
from quoin.stages.priors.stereo.hypotheses import Planes
from quoin.stages.priors.stereo.normals import depth_normals
from quoin.stages.priors.stereo.views import View, level_within, ray_grid

Array = np.ndarray
EDGE_PX = 200  # of the photos that are laid out
CELL_SHARE = 0.008  # of the usual depth: planes are told apart from twice that on
N_PLANES = 24  # that a pixel may choose from
MIN_SUPPORT = 0.002  # share of the points in sight that makes a plane
POINTS_PER_PHOTO = 4000
DEPTH_STEP = 11  # one in so many depths tells what is usual
MIN_AGREEING = 1  # other photos whose plane is the same
ENOUGH, ENOUGH_WITHIN = 0.3, 0.15  # share of all pixels that planes must add; in a scene that ends at walls
FIRST = 8  # photos, spread over all, are laid out before the others
FAR = 1.5  # planes are not looked for beyond so many times the farthest known depth
UPRIGHT = 0.9  # cosine from which a plane counts as level, its sine as upright


class Surface(NamedTuple):
    """Points [n, 3] of a photo's depth map, in the world, and their unit normals; some of its depths."""

    points: Float[Array, "n 3"]
    normals: Float[Array, "n 3"]
    depths: Float[Array, "d"]


class BarePhotos:
    """Photos with depth maps, small, a few in memory at a time, and the planes of the scene.

    ``neighbours[i]`` are compared with photo i, those of them that are in ``todo``: photos that have a depth map.
    """

    def __init__(self, run: Run, neighbours: list[list[int]], todo: list[int], directions: Array, device: str) -> None:
        self.run, self.todo, self.device, self.up = run, todo, device, directions[0]
        there = set(todo)
        self.near = {i: [other for other in neighbours[i] if other in there] for i in todo}
        self.posed, self.gains = posed_images.read_posed(run), priors.read_exposures(run)
        self.known = functools.lru_cache(maxsize=64)(self._known)
        self.surface = functools.lru_cache(maxsize=64)(self._surface)
        found = [self.surface(i) for i in todo]
        points, normals, depths = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if len(depths) == 0:  # nothing is known of any photo: no plane either
            depths = np.ones(1)
        self.cell = CELL_SHARE * float(np.median(depths))
        self.farthest = FAR * float(np.percentile(depths, 99.5))
        least = MIN_SUPPORT * len(points) / len(todo) * (1 + len(neighbours[todo[0]]))
        self.planes = planes_along(directions, points, normals, np.ones(len(points)), self.cell, least)
        self.bounds = bounding(self.planes, points, self.cell)
        within = bool((np.abs(self.bounds.normal @ self.up) < 1.0 - UPRIGHT).any())
        self.enough = ENOUGH_WITHIN if within else ENOUGH

    def find(self, report: Reporter, seconds: dict[str, float]) -> tuple[int, float]:
        """Lay out every photo, and keep what others agree on; how many planes there are, and the share of pixels.

        Where that is little, nothing is kept: planes flatten what is only nearly flat, which stereo sees better. Less
        is enough in a scene that ends at walls: it is seen from within. Often what depth maps leave silent tells
        already, or the first few photos do, if others agreed with all that planes would add there.
        """
        began = time.monotonic()
        write_planes(self.run, self.planes.normal, self.planes.offset)
        first = [self.todo[i] for i in np.unique(np.linspace(0, len(self.todo) - 1, FIRST).round().astype(int))]
        with torch.no_grad(), report.task("priors/planes", 2 * len(self.todo), "photos") as advance:
            done = iter(range(1, 2 * len(self.todo) + 1))

            def each(work: Callable[[int], float], indices: list[int]) -> float:
                shares = []
                for index in indices:
                    shares.append(work(index))
                    advance(next(done))
                return float(np.mean(shares or [0.0]))

            share, enough = float(np.mean([self._silent(index)[0].mean() for index in self.todo])), False
            if share >= self.enough:
                share = each(self.lay_out, first)
            if share >= self.enough:
                each(self.lay_out, [index for index in self.todo if index not in first])
                share = each(self.believe, self.todo)
                enough = share >= self.enough
        found = f"{share:.0%} of the pixels" if enough else f"at most {share:.0%} of the pixels, left alone"
        report.log("priors", f"bare surfaces: {found}")
        for index in self.todo:
            if enough:
                self.add_labels(index)
            else:
                arrays.delete(self.run.scene, f"priors/{index:06d}/bare")
            arrays.delete(self.run.scene, f"priors/{index:06d}/layout")
        seconds["planes"] = time.monotonic() - began
        return len(self.planes.offset), share if enough else 0.0

    def in_sight(self, index: int) -> tuple[PlaneSet, Array]:
        """The planes that a photo and its neighbours know most points of, and their numbers."""
        planes, near = self.planes, [self.surface(i) for i in (index, *self.near[index])]
        points, normals, _ = (np.concatenate(parts) for parts in zip(*near, strict=True))
        on = np.abs(points @ planes.normal.T - planes.offset) < self.cell
        support = (on & (normals @ planes.normal.T > UPRIGHT)).sum(axis=0)
        order = np.argsort(-support, kind="stable")[:N_PLANES]
        order = order[support[order] > MIN_SUPPORT * len(points)]
        return PlaneSet(planes.normal[order], planes.offset[order], support[order].astype(np.float64)), order

    def lay_out(self, index: int) -> float:
        """Leave the plane of each pixel of a photo (w, a, b, its number; -1 where none); the share it would add."""
        if not priors.plane_passes(self.run, index, "layout"):
            mine, number = self.in_sight(index)
            known = self.known(index)
            others = [self.known(i) for i in self.near[index]]
            stacked = torch.zeros(4, *known.depth.shape, device=self.device)
            stacked[3] = -1
            if len(number):
                chosen, _ = layout(known, others, mine, self.farthest, self.bounds, BEHIND_CELLS * self.cell)
                w, a, b = plane_fields(mine, known.view)
                at, on = chosen.clamp(min=0), chosen >= 0
                fields = (w.gather(0, at[None])[0], a[at], b[at], torch.from_numpy(number).to(self.device)[at].float())
                stacked = torch.where(on, torch.stack(fields), stacked)
            self._leave(index, stacked)
        _, number, level = self._chosen(index)
        return float((self._added(index, number, level).number >= 0).mean())

    def believe(self, index: int) -> float:
        """Keep what others agree on where the depth map is silent; the share of pixels that is."""
        mine, number, level = self._chosen(index)
        near = self.near[index]
        views, theirs = [self.known(i).view for i in near], [self._chosen(i)[0] for i in near]
        count, _, through = agreement(self.known(index).view, mine, views, theirs)
        good = (mine.w > 0) & (count >= min(MIN_AGREEING, len(near))) & (through <= count)
        number = torch.where(good, number, -1)
        self._leave(index, torch.stack([*mine, number]))
        bare = self._added(index, number, level)
        write_bare(self.run, index, bare)
        return float((bare.number >= 0).mean())

    def _added(self, index: int, number: Tensor, level: int) -> Bare:
        """The planes by their numbers where a photo's depth map is silent."""
        silent, at = self._silent(index)
        return Bare(np.where(silent, at_level(number.long().cpu().numpy(), level, at, silent.shape), -1), at)

    def _silent(self, index: int) -> tuple[Bool[Array, "h w"], int]:
        """Where a photo is used and its depth map says nothing, no sky nor passer-by is known; its pyramid level."""
        stored = priors.read_depth(self.run, index)
        assert stored is not None  # todo
        depth, at = stored
        used = at_level(posed_images.read_mask(self.run, index), 0, at, depth.shape) > 127
        empty = np.isin(priors.read_labels_at(self.run, index, at, depth.shape), labels.EMPTY)
        return (depth == 0) & used & ~empty, at

    def _leave(self, index: int, layout: Tensor) -> None:
        level = level_within(self.posed.sizes[index], EDGE_PX)
        priors.write_planes(self.run, index, "layout", layout.cpu().numpy(), level, passes=1)

    def add_labels(self, index: int) -> None:
        """The kind of surface that pixels show, where no label is known yet; OTHER where only stereo has a depth."""
        _, number, level = self._chosen(index)
        shown = number.long().cpu().numpy()
        kind = np.where(shown >= 0, self._kinds()[np.maximum(shown, 0)], labels.UNKNOWN)
        kind = np.where((shown < 0) & (self.known(index).depth > 0).cpu().numpy(), labels.OTHER, kind)
        found = priors.read_labels(self.run, index)
        before, at = (np.full(kind.shape, labels.UNKNOWN, np.uint8), level) if found is None else found
        added = np.where(before == labels.UNKNOWN, at_level(kind, level, at, before.shape), before)
        priors.write_labels(self.run, index, added.astype(np.uint8), at)

    def _kinds(self) -> Array:
        """Label of each plane by the way it faces."""
        upward = self.planes.normal @ self.up
        level = np.where(upward > UPRIGHT, labels.FLOOR, labels.CEILING)
        return np.where(np.abs(upward) > UPRIGHT, level, labels.WALL)

    def _chosen(self, index: int) -> tuple[Planes, Tensor, int]:
        found = priors.read_planes(self.run, index, "layout")
        assert found is not None  # lay_out comes first
        w, a, b, number = torch.from_numpy(found[0]).to(self.device).unbind()
        return Planes(w, a, b), number, found[1]

    def _known(self, index: int) -> Known:
        level = level_within(self.posed.sizes[index], EDGE_PX)
        rgb = torch.from_numpy(posed_images.read_photo(self.run, index, level)).to(self.device).float() / 255.0
        if self.gains is not None:
            rgb = rgb / torch.tensor(self.gains[index], dtype=torch.float32, device=self.device)
        intrinsics = torch.tensor(self.posed.intrinsics[index] / 2**level, dtype=torch.float32, device=self.device)
        pose = torch.tensor(self.posed.cam_from_world[index], dtype=torch.float32, device=self.device)
        colour = rgb.permute(2, 0, 1)
        stored = priors.read_depth(self.run, index)
        assert stored is not None  # todo
        depth = middle_depth(stored[0], level - stored[1], colour.shape[1:])
        return Known(View(colour.mean(dim=0), intrinsics, pose), colour, torch.from_numpy(depth).to(self.device))

    def _surface(self, index: int) -> Surface:
        view, _, depth = self.known(index)
        camera = (ray_grid(view) * depth).permute(1, 2, 0).double().cpu().numpy()
        known = (depth > 0).cpu().numpy()
        normal, there = depth_normals(camera, known)
        pose = view.cam_from_world.double().cpu().numpy()
        step = max(1, int(there.sum()) // POINTS_PER_PHOTO)
        points, normals = (camera[there][::step] - pose[:, 3]) @ pose[:, :3], normal[there][::step] @ pose[:, :3]
        return Surface(points, normals, depth.cpu().numpy()[known][::DEPTH_STEP])


MOSTLY = 0.3  # share of a pixel that must be known


def middle_depth(depth: Float[Array, "h w"], halvings: int, shape: tuple[int, int]) -> Float[Array, "r c"]:
    """The median of what is known, in pixels 2 ** ``halvings`` times as large; 0 where that is little."""
    step, (rows, columns) = 2**halvings, shape
    padded = np.zeros((rows * step, columns * step), np.float32)
    h, w = min(depth.shape[0], rows * step), min(depth.shape[1], columns * step)
    padded[:h, :w] = depth[:h, :w]
    blocks = padded.reshape(rows, step, columns, step).transpose(0, 2, 1, 3).reshape(rows, columns, -1)
    ordered = np.sort(blocks, axis=2)
    known = (blocks > 0).sum(axis=2)
    at = step * step - known + known // 2  # zeros come first
    middle = np.take_along_axis(ordered, np.minimum(at, step * step - 1)[..., None], axis=2)[..., 0]
    return np.where(known >= MOSTLY * step * step, middle, 0.0).astype(np.float32)
