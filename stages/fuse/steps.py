"""What is done of each part of the surface by itself, by whoever has hands free; what it leaves lies on the shelf."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.lattice import Lattice
from quoin.pipeline.imaging.exposure import MAX_PLACES
from quoin.pipeline.storage.run import Run
from quoin.stages.fuse import tile_surface
from quoin.stages.fuse.blend import Source
from quoin.stages.fuse.clean import colour_agreement, confirmed, mostly_sky, support, supported_faces
from quoin.stages.fuse.colors import Samples, fill_unknown, vertex_colors
from quoin.stages.fuse.components import Found, find_pieces
from quoin.stages.fuse.config import FuseConfig
from quoin.stages.fuse.marching_cubes import EdgeKeys
from quoin.stages.fuse.mesh import Mesh, used_vertices, vertex_normals
from quoin.stages.fuse.mesh_chunks import REACH_VOXELS, Part, Piece, Tile
from quoin.stages.fuse.observations import Watch
from quoin.stages.fuse.occlusion import hidden_by_many, hidden_by_one, hide
from quoin.stages.fuse.plane_snapping import flattened
from quoin.stages.fuse.scratch import Shelf
from quoin.stages.fuse.tiles import extract_tiles, read_patch, read_sources
from quoin.stages.fuse.vertex_confidence import confidence

Array = np.ndarray

TOLERANCE_VOXELS = 1.5  # a vertex so little behind what a photo sees counts as seen


@dataclass(frozen=True)
class Known:
    """What the work on a part needs to know of the whole: the driver learns more of it from step to step."""

    lattice: Lattice
    edge_keys: EdgeKeys | None = None
    n_parts: int = 0
    part_faces: int = 0  # of the largest, without what lies around it
    middle_world: Float[Array, "3"] | None = None  # of the raw surface
    shown_in: list[list[int]] | None = None  # of every view, the parts it shows
    gains: Float[Array, "p 3"] | None = None  # exposure of every photo
    usual: float = 1.0  # difference between the colours that photos give a vertex, of 255
    by_stereo: bool = False  # whether stereo tells what is kept
    least: float = 0.0  # support that keeps a face
    hole_m: float = 0.0  # gaps below this stay closed

    @property
    def near_m(self) -> float:
        return TOLERANCE_VOXELS * self.lattice.voxel_size_m

    def told(self, step: str, n: int) -> str:
        """What progress calls a step on a part."""
        return f"fuse/{step} {n + 1}/{self.n_parts}" if self.n_parts > 1 else f"fuse/{step}"


class Raw(NamedTuple):
    """Extent of a part's raw surface in the world, and edges that tear it."""

    low_world: Float[Array, "3"]
    high_world: Float[Array, "3"]
    torn: int


class Cleaned(NamedTuple):
    """A part's own faces: all, those seen as sky, those that too little confirms."""

    raw: int
    sky: int
    unsupported: int


class Work:
    """The steps, each of one part. Steps build on those before them, done by this or another worker."""

    def __init__(self, run: Run, config: FuseConfig, report: Reporter, known: Known, shelf: Shelf) -> None:
        self.run, self.config, self.report, self.known, self.shelf = run, config, report, known, shelf
        self._sources: dict[str, Source] = {}

    @functools.cached_property
    def watch(self) -> Watch:
        assert self.known.middle_world is not None  # the raw surface is there
        return Watch(self.run, self.config, self.known.middle_world, self.known.lattice.voxel_size_m)

    def sources(self, bricks: Int[Array, "m 3"] | None = None) -> list[Source]:
        """The blocks that are there, ready to be blended; only those that reach one of the ``bricks``, where given."""
        return read_sources(self.run, self.config.cache_bricks, bricks, self._sources)

    def march(self, _: int, bricks: Int[Array, "m 3"]) -> list[Tile]:
        """The raw surface in some bricks, whole tiles of them, into the store."""
        near, known = self.sources(bricks), self.known
        assert known.edge_keys is not None
        return extract_tiles(self.run, near, bricks, known.edge_keys, known.lattice.brick_size, self.report)

    def gather(self, n: int, part: Part) -> Raw:
        """A part's raw surface with what lies around it, from the tiles."""
        known = self.known
        assert known.edge_keys is not None
        patch = read_patch(self.run, [*part.own, *part.around])
        bricks = np.concatenate([tile.bricks for tile in (*part.own, *part.around)])
        torn = tile_surface.torn_edges(patch, known.edge_keys, bricks, known.lattice.brick_size)
        n_own = sum(tile.n_faces for tile in part.own)
        mesh = tile_surface.to_mesh(patch, known.edge_keys, known.lattice)
        piece = Piece(mesh, patch.keys, np.arange(len(patch.faces)) < n_own, np.zeros(len(patch.keys), bool))
        if part.around:
            piece = piece.within(REACH_VOXELS * known.lattice.voxel_size_m)
        at = piece.mesh.vertices_world
        rest = {"keys": piece.keys, "own": piece.own, "cut": piece.cut}
        self.shelf.put(n, "raw", vertices=at, faces=piece.mesh.faces, **rest)
        return Raw(at.min(axis=0), at.max(axis=0), torn)

    def hide(self, n: int) -> list[int]:
        """What the part hides, where there are several, for every view that shows it; those views."""
        if self.known.n_parts == 1:
            return []
        return hide(self._own(n), self.watch.views, self.run.scene, n)

    def look(self, n: int) -> None:
        """Let all photos look at the part: who sees a vertex, confirms it, and in which colours."""
        piece, watch, known = self._raw(n), self.watch, self.known
        normals = vertex_normals(piece.mesh)
        with self.report.task(known.told("look", n), len(watch.views), "photos") as advance:
            done = iter(range(1, len(watch.views) + 1))
            at = piece.mesh.vertices_world
            seen = watch.look(at, normals, self._hidden(n), known.near_m, lambda: advance(next(done)))
        mesh = flattened(piece.mesh, seen.flat, watch.planes, normals, known.near_m)
        self.shelf.put(n, "flat", vertices=mesh.vertices_world)
        views, votes = seen.rays.views, {"votes": seen.votes, "silent": seen.silent}
        counted = {"views": views, "sky": seen.sky, "sure": np.maximum(views - seen.sky, 0)}
        self.shelf.put(n, "seen", angle=seen.rays.angles(), **counted, **votes)
        samples = seen.samples
        self.shelf.put(n, "samples", rgb=samples.rgb, photo=samples.photo, weight=samples.weight)

    def sample(self, n: int) -> tuple[Array, Array, Array]:
        """Colours of places that photos share, some where there are several parts; the photos; where there are any."""
        samples = self._samples(n)
        some = np.arange(len(samples.weight))
        if self.known.n_parts > 1:
            shared = np.flatnonzero((samples.weight > 0).sum(axis=1) >= 2)
            some = self._some(n, shared)
        return samples.rgb[some], samples.photo[some], samples.weight[some] > 0

    def colour(self, n: int) -> tuple[Int[Array, "k"], Float[Array, "k"]]:
        """Colours of the vertices; photos that see own ones (some, of several parts), and how far colours differ."""
        assert self.known.gains is not None  # sample comes first
        colors, apart = vertex_colors(self._samples(n), self.known.gains)
        self.shelf.put(n, "colour", colors=colors, apart=apart)
        own = self._raw(n).own_vertices()
        if self.known.n_parts > 1:
            own = self._some(n, own)
        return self.shelf.get(n, "seen")["sure"][own], np.nan_to_num(apart)[own]

    def clean(self, n: int) -> Cleaned:
        """What photos confirm and do not see as sky; a photo that sees sky takes one away that sees the surface."""
        piece, seen, known = self.piece(n), self.shelf.get(n, "seen"), self.known
        faces, own, apart = piece.mesh.faces, piece.own, self.shelf.get(n, "colour")["apart"]
        agreed = colour_agreement(seen["sure"], np.nan_to_num(apart), known.usual)
        if known.by_stereo:
            found = confirmed(seen["votes"], seen["silent"], seen["views"], agreed, faces)
        else:
            found = support(seen["sure"], agreed, faces)
        keep = supported_faces(piece.mesh, found, known.least, known.hole_m, piece.cut)
        in_sky = mostly_sky(seen["views"], seen["sky"], faces)
        self.shelf.put(n, "kept", keep=keep & ~in_sky)
        return Cleaned(int(own.sum()), int((in_sky & own).sum()), int((~keep & ~in_sky & own).sum()))

    def connect(self, n: int) -> Found:
        """Connected pieces of what is kept."""
        piece = self.piece(n)
        of_face, found = find_pieces(piece, self.shelf.get(n, "kept")["keep"] & piece.own)
        self.shelf.put(n, "connected", of_face=of_face)
        return found

    def finish(self, n: int, large: Bool[Array, "p"]) -> tuple[int, int]:
        """The own faces in ``large`` pieces, in colours, with values and normals; how many, and how many are not."""
        piece, keep = self.piece(n), self.shelf.get(n, "kept")["keep"]
        seen, colour = self.shelf.get(n, "seen"), self.shelf.get(n, "colour")
        final = keep & piece.own
        stays = large[self.shelf.get(n, "connected")["of_face"]] if len(large) else np.zeros(0, bool)
        final[final] = stays
        apart = colour["apart"]
        values = {
            "confidence": confidence(seen["sure"], seen["angle"], np.nan_to_num(apart), self.known.usual),
            "views": seen["views"].astype(np.float32),
            "angle_deg": np.rad2deg(seen["angle"]),
        }
        whole = Mesh(piece.mesh.vertices_world, piece.mesh.faces, colour["colors"], values)
        used = used_vertices(whole.faces[final], len(whole.vertices_world))
        around = final | (keep & ~piece.own)  # normals at the border are those of all that stays
        normals = vertex_normals(Mesh(whole.vertices_world, whole.faces[around]))[used]
        known = np.isfinite(apart)
        assert whole.colors is not None
        colors = fill_unknown(whole.colors[used], known[used], whole.vertices_world[used])
        mesh = whole.part(final)
        shared = np.zeros(len(piece.keys), bool)
        shared[piece.mesh.faces[~piece.own]] = True
        ends = {"keys": piece.keys[used], "shared": shared[used]}
        rest = {"faces": mesh.faces, "colors": colors, "normals": normals, **ends, **mesh.values}
        self.shelf.put(n, "done", vertices=mesh.vertices_world, **rest)
        return int(final.sum()), int((~stays).sum())

    def piece(self, n: int) -> Piece:
        """The part, with vertices on their planes."""
        raw = self._raw(n)
        return replace(raw, mesh=replace(raw.mesh, vertices_world=self.shelf.get(n, "flat")["vertices"]))

    def _raw(self, n: int) -> Piece:
        kept = self.shelf.get(n, "raw")
        return Piece(Mesh(kept["vertices"], kept["faces"]), kept["keys"], kept["own"], kept["cut"])

    def _own(self, n: int) -> tuple[Array, Array]:
        """The part's own raw faces, in the frame of the views."""
        piece = self._raw(n)
        return self.watch.local(piece.mesh.vertices_world), piece.mesh.faces[piece.own]

    def _hidden(self, n: int) -> Callable[[int], Float[Array, "h w"]]:
        if self.known.n_parts == 1:
            return hidden_by_one(self._own(n), self.watch.views)
        assert self.known.shown_in is not None  # hide comes first
        return hidden_by_many(self.watch.views, self.run.scene, self.known.shown_in)

    def _samples(self, n: int) -> Samples:
        kept = self.shelf.get(n, "samples")
        return Samples(kept["rgb"], kept["photo"], kept["weight"])

    def _some(self, n: int, among: Int[Array, "k"]) -> Int[Array, "s"]:
        """A part's fair share of MAX_PLACES, drawn from ``among``."""
        rng = np.random.default_rng([self.run.seed, n])
        return rng.choice(among, min(len(among), MAX_PLACES // self.known.n_parts + 1), replace=False)
