"""Fusion steps on single chunks of the surface, run by workers; results go to scratch files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import TaskContext
from quoin.pipeline.geometry.lattice import Lattice
from quoin.pipeline.imaging.exposure import MAX_SHARED_POINTS
from quoin.pipeline.storage.run import Run
from quoin.stages.fuse.blend import BlockSdf
from quoin.stages.fuse.clean import color_agreement, color_support, mostly_sky, stereo_support, supported_faces
from quoin.stages.fuse.config import FuseConfig
from quoin.stages.fuse.marching_cubes import EdgeKeys
from quoin.stages.fuse.mesh import Mesh, used_vertices
from quoin.stages.fuse.mesh_chunks import (
    HALO_VOXELS,
    Chunk,
    ChunkComponents,
    ChunkSurface,
    ScratchStore,
    Tile,
    find_chunk_components,
)
from quoin.stages.fuse.observations import PhotoObserver, snap_to_planes
from quoin.stages.fuse.tiles import count_torn_edges, extract_tiles, read_block_sdfs, read_patch, to_mesh
from quoin.stages.fuse.vertex_attributes import ColorSamples, fill_missing_colors, vertex_colors, vertex_confidence
from quoin.stages.fuse.visibility import occlusion_of_chunks, occlusion_of_mesh, write_occlusion_maps

Array = np.ndarray

TOLERANCE_VOXELS = 1.5  # a vertex so little behind what a photo sees counts as seen


@dataclass(frozen=True)
class FuseState:
    """What steps on a chunk know of the whole surface; the driver learns more of it from step to step."""

    lattice: Lattice
    edge_keys: EdgeKeys | None = None
    n_chunks: int = 0
    part_faces: int = 0  # of the largest, without what lies around it
    middle_world: Float[Array, "3"] | None = None  # of the raw surface
    chunks_in_view: list[list[int]] | None = None  # of every view, the parts it shows
    gains: Float[Array, "p 3"] | None = None  # exposure of every photo
    typical: float = 1.0  # difference between the colours that photos give a vertex, of 255
    uses_stereo: bool = False  # whether stereo tells what is kept
    min_support: float = 0.0  # support that keeps a face
    max_hole_m: float = 0.0  # gaps below this stay closed

    @property
    def tolerance_m(self) -> float:
        return TOLERANCE_VOXELS * self.lattice.voxel_size_m

    def task_name(self, step: str, n: int) -> str:
        """Name of the progress of a step on chunk n."""
        return f"fuse/{step} {n + 1}/{self.n_chunks}" if self.n_chunks > 1 else f"fuse/{step}"


def steps_of_worker(run: Run, config: FuseConfig, state: FuseState) -> FuseSteps:
    """The steps in another process, where scratch files are kept with the run."""
    return FuseSteps(run, config, state, ScratchStore(run.storage))


ChunkStep = Callable[..., Any]  # a method of FuseSteps: step(steps, chunk number, *args)


def run_chunk_step(context: TaskContext, step: ChunkStep, steps: FuseSteps, n: int, *args: Any) -> Any:
    """The result of ``step`` on chunk n, for workers."""
    steps.report = context.report
    return step(steps, n, *args)


class ChunkExtent(NamedTuple):
    """Extent of a chunk's raw surface in the world, and number of its torn edges."""

    low_world: Float[Array, "3"]
    high_world: Float[Array, "3"]
    n_torn_edges: int


class FaceCounts(NamedTuple):
    """Numbers of a chunk's own faces: all, those seen as sky, those with too little support."""

    raw: int
    sky: int
    unsupported: int


class FuseSteps:
    """The steps, each on one chunk; a step uses what those before it left in ``scratch``, whichever worker did them.

    It pickles without what it has cached of the run, which is for the steps that are done in this process.
    """

    def __init__(self, run: Run, config: FuseConfig, state: FuseState, scratch: ScratchStore) -> None:
        self.run, self.config, self.state, self.scratch = run, config, state, scratch
        self.report = Reporter()  # of the worker
        self._block_sdfs: dict[str, BlockSdf] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return steps_of_worker, (self.run, self.config, self.state)

    @functools.cached_property
    def observer(self) -> PhotoObserver:
        assert self.state.middle_world is not None  # the raw surface is there
        return PhotoObserver(self.run, self.config, self.state.middle_world, self.state.lattice.voxel_size_m)

    def block_sdfs(self, bricks: Int[Array, "m 3"] | None = None) -> list[BlockSdf]:
        """SDFs of the trained blocks, ready to be blended; only those that reach ``bricks``, where given."""
        return read_block_sdfs(self.run, self.config.cache_bricks, bricks, self._block_sdfs)

    def march(self, _: int, bricks: Int[Array, "m 3"]) -> list[Tile]:
        """Write the raw surface in some bricks, whole tiles of them, to the store."""
        near, state = self.block_sdfs(bricks), self.state
        assert state.edge_keys is not None
        return extract_tiles(self.run, near, bricks, state.edge_keys, state.lattice.brick_size, self.report)

    def gather(self, n: int, chunk: Chunk) -> ChunkExtent:
        """Gather a chunk's raw surface and its halo from the tiles."""
        state = self.state
        assert state.edge_keys is not None
        patch = read_patch(self.run, [*chunk.own, *chunk.halo])
        bricks = np.concatenate([tile.bricks for tile in (*chunk.own, *chunk.halo)])
        n_torn_edges = count_torn_edges(patch, state.edge_keys, bricks, state.lattice.brick_size)
        n_own = sum(tile.n_faces for tile in chunk.own)
        mesh = to_mesh(patch, state.edge_keys, state.lattice)
        chunk_surface = ChunkSurface(
            mesh, patch.keys, np.arange(len(patch.faces)) < n_own, np.zeros(len(patch.keys), bool)
        )
        if chunk.halo:
            chunk_surface = chunk_surface.within(HALO_VOXELS * state.lattice.voxel_size_m)
        at = chunk_surface.mesh.vertices_world
        rest = {"keys": chunk_surface.keys, "own": chunk_surface.own, "cut": chunk_surface.cut}
        self.scratch.put(n, "raw", vertices=at, faces=chunk_surface.mesh.faces, **rest)
        return ChunkExtent(at.min(axis=0), at.max(axis=0), n_torn_edges)

    def hide(self, n: int) -> list[int]:
        """Write occlusion maps of the chunk, where there are several; returns the views that it is in."""
        if self.state.n_chunks == 1:
            return []
        return write_occlusion_maps(self._own_mesh(n), self.observer.views, self.run.scene, n)

    def observe(self, n: int) -> None:
        """Observe the chunk in all photos: which see a vertex, which confirm it, and in which colors."""
        chunk_surface, observer, state = self._raw_surface(n), self.observer, self.state
        normals = chunk_surface.mesh.vertex_normals()
        with self.report.task(state.task_name("look", n), len(observer.views), "photos") as advance:
            done = iter(range(1, len(observer.views) + 1))
            at = chunk_surface.mesh.vertices_world
            seen = observer.observe(at, normals, self._occlusion(n), state.tolerance_m, lambda: advance(next(done)))
        mesh = snap_to_planes(chunk_surface.mesh, seen.plane_votes, observer.planes, normals, state.tolerance_m)
        self.scratch.put(n, "flat", vertices=mesh.vertices_world)
        views, votes = seen.rays.views, {"votes": seen.votes, "silent": seen.no_depth}
        counted = {"views": views, "sky": seen.sky, "sure": np.maximum(views - seen.sky, 0)}
        self.scratch.put(n, "seen", angle=seen.rays.angles(), **counted, **votes)
        samples = seen.samples
        self.scratch.put(n, "samples", rgb=samples.rgb, photo=samples.photo, weight=samples.weight)

    def sample(self, n: int) -> tuple[Array, Array, Array]:
        """Colors of vertices in several photos, the photos, and which are valid; of several chunks a random subset."""
        samples = self._samples(n)
        some = np.arange(len(samples.weight))
        if self.state.n_chunks > 1:
            shared = np.flatnonzero((samples.weight > 0).sum(axis=1) >= 2)
            some = self._random_subset(n, shared)
        return samples.rgb[some], samples.photo[some], samples.weight[some] > 0

    def color(self, n: int) -> tuple[Int[Array, "k"], Float[Array, "k"]]:
        """Color the vertices; returns, of own ones, how many photos see each, and its color disagreement."""
        assert self.state.gains is not None  # sample comes first
        colors, color_disagreement = vertex_colors(self._samples(n), self.state.gains)
        self.scratch.put(n, "colour", colors=colors, color_disagreement=color_disagreement)
        own = self._raw_surface(n).own_vertices()
        if self.state.n_chunks > 1:
            own = self._random_subset(n, own)
        return self.scratch.get(n, "seen")["sure"][own], np.nan_to_num(color_disagreement)[own]

    def clean(self, n: int) -> FaceCounts:
        """Keep faces that photos confirm and do not see as sky; sky in one photo cancels the surface in another."""
        chunk_surface, seen, state = self.chunk_surface(n), self.scratch.get(n, "seen"), self.state
        faces, own, color_disagreement = (
            chunk_surface.mesh.faces,
            chunk_surface.own,
            self.scratch.get(n, "colour")["color_disagreement"],
        )
        agreed = color_agreement(seen["sure"], np.nan_to_num(color_disagreement), state.typical)
        if state.uses_stereo:
            found = stereo_support(seen["votes"], seen["silent"], seen["views"], agreed, faces)
        else:
            found = color_support(seen["sure"], agreed, faces)
        keep = supported_faces(chunk_surface.mesh, found, state.min_support, state.max_hole_m, chunk_surface.cut)
        in_sky = mostly_sky(seen["views"], seen["sky"], faces)
        self.scratch.put(n, "kept", keep=keep & ~in_sky)
        return FaceCounts(int(own.sum()), int((in_sky & own).sum()), int((~keep & ~in_sky & own).sum()))

    def connect(self, n: int) -> ChunkComponents:
        """Connected components of the kept faces."""
        chunk_surface = self.chunk_surface(n)
        of_face, found = find_chunk_components(chunk_surface, self.scratch.get(n, "kept")["keep"] & chunk_surface.own)
        self.scratch.put(n, "connected", of_face=of_face)
        return found

    def finish(self, n: int, large: Bool[Array, "p"]) -> tuple[int, int]:
        """Write own faces in ``large`` components, with all their values; returns how many, and how many not."""
        chunk_surface, keep = self.chunk_surface(n), self.scratch.get(n, "kept")["keep"]
        seen, color = self.scratch.get(n, "seen"), self.scratch.get(n, "colour")
        final = keep & chunk_surface.own
        stays = large[self.scratch.get(n, "connected")["of_face"]] if len(large) else np.zeros(0, bool)
        final[final] = stays
        color_disagreement = color["color_disagreement"]
        values = {
            "confidence": vertex_confidence(
                seen["sure"], seen["angle"], np.nan_to_num(color_disagreement), self.state.typical
            ),
            "views": seen["views"].astype(np.float32),
            "angle_deg": np.rad2deg(seen["angle"]),
        }
        whole = Mesh(chunk_surface.mesh.vertices_world, chunk_surface.mesh.faces, color["colors"], values)
        used = used_vertices(whole.faces[final], len(whole.vertices_world))
        around = final | (keep & ~chunk_surface.own)  # normals at the border are those of all that stays
        normals = Mesh(whole.vertices_world, whole.faces[around]).vertex_normals()[used]
        has_color = np.isfinite(color_disagreement)
        assert whole.colors is not None
        colors = fill_missing_colors(whole.colors[used], has_color[used], whole.vertices_world[used])
        mesh = whole.submesh(final)
        shared = np.zeros(len(chunk_surface.keys), bool)
        shared[chunk_surface.mesh.faces[~chunk_surface.own]] = True
        ends = {"keys": chunk_surface.keys[used], "shared": shared[used]}
        rest = {"faces": mesh.faces, "colors": colors, "normals": normals, **ends, **mesh.values}
        self.scratch.put(n, "done", vertices=mesh.vertices_world, **rest)
        return int(final.sum()), int((~stays).sum())

    def chunk_surface(self, n: int) -> ChunkSurface:
        """The chunk, with vertices on their planes."""
        raw = self._raw_surface(n)
        return replace(raw, mesh=replace(raw.mesh, vertices_world=self.scratch.get(n, "flat")["vertices"]))

    def _raw_surface(self, n: int) -> ChunkSurface:
        kept = self.scratch.get(n, "raw")
        return ChunkSurface(Mesh(kept["vertices"], kept["faces"]), kept["keys"], kept["own"], kept["cut"])

    def _own_mesh(self, n: int) -> tuple[Array, Array]:
        """The chunk's own raw faces, in the frame of the views."""
        chunk_surface = self._raw_surface(n)
        return self.observer.local(chunk_surface.mesh.vertices_world), chunk_surface.mesh.faces[chunk_surface.own]

    def _occlusion(self, n: int) -> Callable[[int], Float[Array, "h w"]]:
        if self.state.n_chunks == 1:
            return occlusion_of_mesh(self._own_mesh(n), self.observer.views)
        assert self.state.chunks_in_view is not None  # hide comes first
        return occlusion_of_chunks(self.observer.views, self.run.scene, self.state.chunks_in_view)

    def _samples(self, n: int) -> ColorSamples:
        kept = self.scratch.get(n, "samples")
        return ColorSamples(kept["rgb"], kept["photo"], kept["weight"])

    def _random_subset(self, n: int, among: Int[Array, "k"]) -> Int[Array, "s"]:
        """The chunk's share of MAX_SHARED_POINTS, drawn from ``among``."""
        rng = np.random.default_rng([self.run.seed, n])
        return rng.choice(among, min(len(among), MAX_SHARED_POINTS // self.state.n_chunks + 1), replace=False)
