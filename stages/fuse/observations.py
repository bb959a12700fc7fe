"""What the photos say of the vertices of a mesh: who sees it, who confirms it, in which colours."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.geometry.frustum import in_view
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import read_held_out
from quoin.pipeline.scene.plane_maps import depth_of, read_bare, read_planes
from quoin.pipeline.storage.run import Run
from quoin.stages.fuse.colors import Samples, bilinear
from quoin.stages.fuse.config import FuseConfig
from quoin.stages.fuse.plane_snapping import PlaneVotes
from quoin.stages.fuse.vertex_confidence import Rays, depth_votes, nearest, toward
from quoin.stages.fuse.visibility import Seen, View, apart_from_sky, make_view, seen

Array = np.ndarray
Result = TypeVar("Result")


@dataclass(frozen=True)
class Looked:
    """What photos say of the vertices of a mesh."""

    rays: Rays  # of those that see a vertex
    sky: Int[Array, "v"]  # photos that show sky in its place
    votes: Int[Array, "v"]  # photos whose stereo confirms it, without those that see through it
    silent: Int[Array, "v"]  # photos that see it, and whose stereo says nothing of it
    samples: Samples  # the best colours
    flat: PlaneVotes

    @classmethod
    def nothing(cls, n_vertices: int, n_samples: int) -> Looked:
        sky, votes, silent = np.zeros((3, n_vertices), np.int32)
        samples = Samples.empty(n_vertices, n_samples)
        return cls(Rays.none(n_vertices), sky, votes, silent, samples, PlaneVotes.none(n_vertices))


class Watch:
    """The photos that look, all in one local frame about ``middle_world``; those held out do not look."""

    def __init__(self, run: Run, config: FuseConfig, middle_world: Float[Array, "3"], voxel_size_m: float) -> None:
        self.run, self.config, self.middle, self.voxel = run, config, middle_world, voxel_size_m
        self.posed, self.planes = posed_images.read_posed(run), read_planes(run)
        self.photos = np.setdiff1d(np.arange(len(self.posed)), read_held_out(run)).tolist()
        self.views = [self._view(i) for i in self.photos]
        self.has_stereo = any(priors.has_depth(run, i) for i in self.photos)

    def _view(self, i: int) -> View:
        posed = self.posed
        size, edge_px = posed.sizes[i], self.config.depth_edge_px
        return make_view(posed.cam_from_world[i], posed.intrinsics[i], size, edge_px, self.middle)

    def local(self, vertices_world: Float[Array, "v 3"]) -> Float[Array, "v 3"]:
        """Vertices in the frame of the views, float32."""
        return (vertices_world - self.middle).astype(np.float32)

    def look(
        self,
        vertices_world: Float[Array, "v 3"],
        normals: Float[Array, "v 3"],
        depth_seen: Callable[[int], Float[Array, "h w"]],
        near_m: float,
        advance: Callable[[], object],
    ) -> Looked:
        """Let every photo look that may see something; what ``depth_seen(view)`` has nearer hides what is behind.

        A sample counts by how straight on and from how near it was taken; ``advance`` is called after every photo.
        """
        local = self.local(vertices_world)
        out, may_see = Looked.nothing(len(local), self.config.color_samples), in_view(local)

        def one(number: int) -> _Look | None:
            view = self.views[number]
            near = may_see(view.cam_from_local, view.intrinsics, (view.width, view.height))
            return self._look(number, depth_seen(number), local, normals, near_m, near) if len(near) else None

        for number, found in enumerate(in_order(one, range(len(self.views)))):
            if found is not None:
                out.rays.add(found.seen.vertex, toward(self.views[number].center, local[found.seen.vertex]))
                out.sky[found.against] += 1
                out.votes[found.against] -= 1
                out.votes[found.seen.vertex] += found.told
                out.silent[found.seen.vertex] += found.silent
                out.flat.add(found.flat, found.plane)
                out.samples.add(self.photos[number], found.seen.vertex, found.rgb, found.weight)
            advance()
        return out

    def _look(
        self,
        number: int,
        depth_there: Float[Array, "h w"],
        local: Float[Array, "v 3"],
        normals: Float[Array, "v 3"],
        near_m: float,
        near: Int[Array, "n"],
    ) -> _Look:
        i, run, posed = self.photos[number], self.run, self.posed
        shown = priors.read_labels_whole(run, i, posed.sizes[i])
        mask = np.where(shown == labels.PASSING, 0, posed_images.read_mask(run, i))
        found = seen(
            self.views[number],
            depth_there,
            None if (mask > 127).all() else mask,
            local,
            normals,
            tolerance=near_m,
            min_cosine=self.config.min_cosine,
            near=near,
        )
        found, against = apart_from_sky(found, shown)
        told, silent = np.zeros((2, len(found.vertex)), np.int32)
        flat = plane = found.vertex[:0]
        if (known := priors.read_depth(run, i)) is not None:
            told = depth_votes(found, known[0], near_m, priors.read_depth_sigma(run, i))
            if (bare := read_bare(run, i)) is not None:  # planes confirm, and see through nothing
                intrinsics = posed.intrinsics[i] / 2**bare.level
                depth = depth_of(bare.number, self.planes, posed.cam_from_world[i], intrinsics)
                there = (told == 0) & (depth_votes(found, depth, near_m) > 0)
                told[there] = 1
                flat, plane = found.vertex[there], nearest(bare.number, found.place[there])
            silent = (told == 0).astype(np.int32)
        footprint = found.depth / posed.intrinsics[i, :2].mean() / self.voxel  # voxels in a level-0 pixel
        finer = np.log2(1 / max(float(np.median(footprint)), 1e-6)) if len(footprint) else 0.0
        level = int(np.clip(np.floor(finer + 0.25), 0, posed_images.PYRAMID_LEVELS - 1))
        rgb = bilinear(posed_images.read_photo(run, i, level), found.place)
        weight = (found.cosine / np.sqrt(footprint)).astype(np.float32)
        return _Look(found, against, told, silent, flat, plane, rgb, weight)


@dataclass(frozen=True)
class _Look:
    """One photo's look: what it sees, what it shows as sky; of what it sees stereo's vote, planes, colours, weights."""

    seen: Seen
    against: Array
    told: Array
    silent: Array
    flat: Array
    plane: Array
    rgb: Array
    weight: Array


def in_order(work: Callable[[int], Result], items: Iterable[int]) -> Iterator[Result]:
    """Results of ``work`` in the order of ``items``, computed by a few threads that run only a little ahead."""
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[Result]] = deque()
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
