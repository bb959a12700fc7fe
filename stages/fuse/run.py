"""The fuse stage: the SDF bricks of all blocks in, one clean coloured mesh out, a part of it in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from pipeline import scene, store
from pipeline.confidence import confident_faces
from pipeline.errors import QuoinError
from pipeline.exposure import MAX_PLACES, photo_gains
from pipeline.lattice import Lattice
from pipeline.progress import Reporter
from pipeline.run import Run, stage
from stages.fuse import surface
from stages.fuse.blend import Source, bricks_to_march
from stages.fuse.clean import (
    colour_agreement,
    confirmed,
    mostly_sky,
    support,
    supported_faces,
    usual_disagreement,
)
from stages.fuse.colors import Samples, fill_unknown, vertex_colors
from stages.fuse.config import FuseConfig, FuseResult
from stages.fuse.evidence import confidence
from stages.fuse.files import PlyWriter, replacing, write_glb
from stages.fuse.flatten import flattened
from stages.fuse.hidden import hidden_by_many, hidden_by_one
from stages.fuse.look import Watch
from stages.fuse.mesh import Clustered, Mesh, decimate, edge_counts, face_areas, used_vertices, vertex_normals
from stages.fuse.numbers import Numbers, compact
from stages.fuse.parts import REACH_VOXELS, Part, Piece, parts_of
from stages.fuse.pieces import find_pieces, united
from stages.fuse.shelf import Shelf
from stages.fuse.tiles import extract_tiles, read_patch, read_sources

Array = np.ndarray

TOLERANCE_VOXELS = 1.5  # a vertex so little behind what a photo sees counts as seen
VALUES = ("confidence", "views", "angle_deg")
LIGHT_SHARE = 4  # times as many faces as the light mesh shall have are left of parts before it is decimated


@stage("fuse", needs=("train",), version=5, result=FuseResult)
def run(run: Run, config: FuseConfig, report: Reporter) -> FuseResult:
    """Blend, extract, clean, colour: surface/<tile> in the store, mesh.ply, mesh.glb. QuoinError where it is empty."""
    partition = scene.read_partition(run)
    missing = list(run.require("train").result.get("missing", {}))
    there = [block for block in partition.blocks if block.id not in missing]
    sources = read_sources(run, replace(partition, blocks=there), config.cache_bricks)
    fusion = Fusion(run, config, report, sources, partition.lattice)
    try:
        fusion.extract()
        fusion.look()
        fusion.colour()
        fusion.clean()
        fusion.choose()
        return fusion.write(missing, [hole(partition, block_id) for block_id in missing])
    finally:
        fusion.shelf.clear()


def hole(partition: scene.Partition, block_id: str) -> str:
    """Where a missing block leaves a hole: its core, which its neighbours' halos reach into."""
    low, high = (
        " ".join(f"{x:.6g}" for x in end) for end in partition.lattice.box_world(partition.block(block_id).core)
    )
    return f"hole: block {block_id} is missing, from {low} to {high}"


class Clock:
    """Seconds by part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = round(time.monotonic() - began, 3)


class Counts(NamedTuple):
    """Faces by what became of them."""

    raw: int
    sky: int
    unsupported: int
    islands: int


class Fusion:
    """The steps of the stage; each goes through all parts, and leaves on the shelf what the next one needs."""

    def __init__(self, run: Run, config: FuseConfig, report: Reporter, sources: list[Source], lattice: Lattice) -> None:
        self.run, self.config, self.report, self.lattice, self.sources = run, config, report, lattice, sources
        self.clock = Clock()
        self.shelf = Shelf(None)

    def extract(self) -> None:
        """The raw surface into the store, in parts."""
        with self.clock("blend"):
            self.bricks = bricks_to_march(self.sources)
            self._require_surface(len(self.bricks) > 0)
            self.edge_keys = surface.edge_keys_of(self.sources, self.lattice.brick_size)
            size = self.lattice.brick_size
            tiles = extract_tiles(self.run, self.sources, self.bricks, self.edge_keys, size, self.report)
            self.parts = parts_of(tiles, self.config.part_faces)
            self._require_surface(len(self.parts) > 0)
            self.near_m = TOLERANCE_VOXELS * self.lattice.voxel_size_m
            self.low_m, self.high_m = np.full(3, np.inf), np.full(3, -np.inf)  # of the raw surface
        if len(self.parts) > 1:
            self.shelf = Shelf(self.run.path / "work" / "fuse")

    def _require_surface(self, there: bool) -> None:
        if not there:
            raise QuoinError(
                f"There is no surface: no SDF sign change in any of {len(self.sources)} blocks",
                where=self.run.home,
                do="look at the training curves in the report; train longer, or check masks and poses",
            )

    def look(self) -> None:
        """Let all photos look at every part: who sees a vertex, confirms it, and in which colours."""
        with self.clock("look"):
            self.torn = 0
            for n, part in enumerate(self.parts):
                piece = self._extracted(part)
                self.low_m = np.minimum(self.low_m, piece.mesh.vertices_world.min(axis=0))
                self.high_m = np.maximum(self.high_m, piece.mesh.vertices_world.max(axis=0))
                self._shelve(n, piece)
            if self.torn:
                told = f"{self.torn} open edges inside the known bricks: the blocks do not fit together"
                self.report.log("fuse", told, "warning")
            middle = (self.low_m + self.high_m) / 2
            self.watch = watch = Watch(self.run, self.config, middle, self.lattice.voxel_size_m)
            with self.report.task("fuse/look", len(self.parts) * len(watch.views), "photos") as advance:
                done = iter(range(1, len(self.parts) * len(watch.views) + 1))
                hidden = self._hidden(watch)
                for n in range(len(self.parts)):
                    piece = self._piece(n)
                    normals = vertex_normals(piece.mesh)
                    seen = watch.look(
                        piece.mesh.vertices_world, normals, hidden, self.near_m, lambda: advance(next(done))
                    )
                    mesh = flattened(piece.mesh, seen.flat, watch.planes, normals, self.near_m)
                    self._shelve(n, replace(piece, mesh=mesh))
                    views, votes = seen.rays.views, {"votes": seen.votes, "silent": seen.silent}
                    counted = {"views": views, "sky": seen.sky, "sure": np.maximum(views - seen.sky, 0)}
                    self.shelf.put(n, "seen", angle=seen.rays.angles(), **counted, **votes)
                    samples = seen.samples
                    self.shelf.put(n, "samples", rgb=samples.rgb, photo=samples.photo, weight=samples.weight)
            store.delete(self.run.scene, "surface/hidden")

    def colour(self) -> None:
        """Exposures of the photos, colours of the vertices, and how far photos agree on them."""
        with self.clock("colour"):
            rng, rows = np.random.default_rng(self.run.seed), []
            for n in range(len(self.parts)):
                samples = self._samples(n)
                some = np.arange(len(samples.weight))
                if len(self.parts) > 1:
                    shared = np.flatnonzero((samples.weight > 0).sum(axis=1) >= 2)
                    some = rng.choice(shared, min(len(shared), MAX_PLACES // len(self.parts) + 1), replace=False)
                rows.append((samples.rgb[some], samples.photo[some], samples.weight[some] > 0))
            rgb, photo, there = (np.concatenate(field) for field in zip(*rows, strict=True))
            self.gains = photo_gains(rgb, photo, there, len(self.watch.posed), seed=self.run.seed)
            views, apart = [], []
            for n in range(len(self.parts)):
                colors, differ = vertex_colors(self._samples(n), self.gains)
                self.shelf.put(n, "colour", colors=colors, apart=differ)
                seen = self.shelf.get(n, "seen")
                own = self._piece(n).own_vertices()
                self.shelf.drop(n, "samples")
                views.append(seen["sure"][own])
                apart.append(np.nan_to_num(differ)[own])
            self.usual = usual_disagreement(np.concatenate(views), np.concatenate(apart))

    def clean(self) -> None:
        """What photos confirm and do not see as sky; a photo that sees sky takes one away that sees the surface."""
        with self.clock("clean"):
            config, hole_m = self.config, self.config.hole_diameter * float(np.linalg.norm(self.high_m - self.low_m))
            by_stereo, n_photos = self.watch.has_stereo, len(self.watch.posed)
            self.least = config.min_confirmed if by_stereo else min(config.min_support, n_photos / 6)
            raw = n_sky = unsupported = 0
            for n in range(len(self.parts)):
                piece, seen = self._piece(n), self.shelf.get(n, "seen")
                faces, own, apart = piece.mesh.faces, piece.own, self.shelf.get(n, "colour")["apart"]
                agreed = colour_agreement(seen["sure"], np.nan_to_num(apart), self.usual)
                if by_stereo:
                    found = confirmed(seen["votes"], seen["silent"], seen["views"], agreed, faces)
                else:
                    found = support(seen["sure"], agreed, faces)
                keep = supported_faces(piece.mesh, found, self.least, hole_m, piece.cut)
                in_sky = mostly_sky(seen["views"], seen["sky"], faces)
                raw, n_sky = raw + int(own.sum()), n_sky + int((in_sky & own).sum())
                unsupported += int((~keep & ~in_sky & own).sum())
                self.shelf.put(n, "kept", keep=keep & ~in_sky, own=own)
            self.counts = Counts(raw, n_sky, unsupported, 0)

    def choose(self) -> None:
        """Drop islands: pieces of the whole surface that are small."""
        with self.clock("pieces"):
            found, low, high = [], np.full(3, np.inf), np.full(3, -np.inf)
            for n in range(len(self.parts)):
                piece = self._piece(n)
                found.append(find_pieces(piece, self.shelf.get(n, "kept")["keep"] & piece.own))
                low = np.minimum(low, found[-1].low_world.min(axis=0, initial=np.inf))
                high = np.maximum(high, found[-1].high_world.max(axis=0, initial=-np.inf))
            if not any(len(part.area_m2) for part in found):
                raise QuoinError(
                    f"There is no surface that photos confirm, though the blocks hold {self.counts.raw:,} faces",
                    do="look at cameras and blocks in the report; lower fuse.min_confirmed (without stereo: "
                    "fuse.min_support)",
                )
            whole = united(found)
            least_m = min(self.config.island_diameter * float(np.linalg.norm(high - low)), whole.diameter_m.max())
            large = whole.diameter_m >= least_m
            self.piece_areas = whole.area_m2[large]
            islands = 0
            for n, (part, of_piece) in enumerate(zip(found, whole.of_piece, strict=True)):
                kept = self.shelf.get(n, "kept")
                keep, own = kept["keep"], kept["own"]
                stays = large[of_piece][part.of_face] if len(of_piece) else np.zeros(0, bool)
                final = keep & own
                final[final] = stays
                islands += int((~stays).sum())
                self.shelf.put(n, "final", own=final, all=final | (keep & ~own))
            self.counts = self.counts._replace(islands=islands)
            raw, sky, unsupported, islands = self.counts
            self.report.log(
                "fuse",
                f"{raw:,} faces; {sky:,} dropped that photos see as sky, {unsupported:,} that too few photos confirm, "
                f"{islands:,} in small islands",
            )

    def write(self, missing: list[str], holes: list[str]) -> FuseResult:
        """mesh.ply, whose header tells of ``holes``, mesh.glb, and what is told of them."""
        with self.clock("write"):
            numbers, n_faces = Numbers(), 0
            for n in range(len(self.parts)):
                piece, final = self._piece(n), self.shelf.get(n, "final")["own"]
                index, new = numbers.take(piece, final)
                self.shelf.put(n, "numbers", index=index, new=new)
                self.shelf.put(n, "faces", faces=index[compact(piece.mesh.faces[final])])
                n_faces += int(final.sum())
            area = float(self.piece_areas.sum())
            cell_m = np.sqrt(area / (LIGHT_SHARE * self.config.glb_faces / 2))
            coarse, confident, rims = Clustered(float(cell_m)), 0.0, []
            with replacing(self.run.path / "mesh.ply") as handle:
                reach = float(max(np.abs(self.low_m).max(), np.abs(self.high_m).max()))
                edge_m = self.lattice.voxel_size_m / 2
                ply = PlyWriter(handle, numbers.count, n_faces, VALUES, edge_m, reach, holes)
                for n in range(len(self.parts)):
                    mesh, normals = self._coloured(n)
                    number = self.shelf.get(n, "numbers")
                    new = number["new"]
                    ply.vertices(mesh, normals, new)
                    areas = face_areas(mesh)
                    confident += float(areas[confident_faces(mesh.values["confidence"], mesh.faces)].sum())
                    ends, times = edge_counts(mesh.faces)
                    rims.append(np.sort(number["index"][ends[times == 1]], axis=1))
                    if len(self.parts) > 1:
                        coarse.add(mesh, new)
                for n in range(len(self.parts)):
                    ply.faces(self.shelf.get(n, "faces")["faces"])
            light = mesh if len(self.parts) == 1 else coarse.mesh(VALUES)
            kept = {"confidence": light.values["confidence"]}
            light = decimate(Mesh(light.vertices_world, light.faces, light.colors, kept), self.config.glb_faces)
            write_glb(self.run.path / "mesh.glb", light, vertex_normals(light))
        _, times = np.unique(np.concatenate(rims), axis=0, return_counts=True)
        return FuseResult(
            n_vertices=numbers.count,
            n_faces=n_faces,
            n_components=len(self.piece_areas),
            n_boundary_edges=int((times == 1).sum()),
            n_torn_edges=self.torn,
            largest_component_share=float(self.piece_areas.max() / area),
            area_m2=area,
            n_blocks=len(self.sources),
            missing_blocks=missing,
            n_bricks=len(self.bricks),
            n_raw_faces=self.counts.raw,
            dropped_sky_faces=self.counts.sky,
            dropped_unsupported_faces=self.counts.unsupported,
            dropped_island_faces=self.counts.islands,
            min_support=self.least,
            disagreement=self.usual,
            confident_share=confident / area,
            glb_faces=len(light.faces),
            gain_range=(float(self.gains.min()), float(self.gains.max())),
            seconds=self.clock.seconds,
        )

    def _extracted(self, part: Part) -> Piece:
        """A part's raw surface in the world; counts what is torn."""
        patch, size = read_patch(self.run, [*part.own, *part.around]), self.lattice.brick_size
        bricks = np.concatenate([tile.bricks for tile in (*part.own, *part.around)])
        self.torn += surface.torn_edges(patch, self.edge_keys, bricks, size)
        n_own = sum(tile.n_faces for tile in part.own)
        mesh = surface.to_mesh(patch, self.edge_keys, self.lattice)
        whole = Piece(mesh, patch.keys, np.arange(len(patch.faces)) < n_own, np.zeros(len(patch.keys), bool))
        return whole.within(REACH_VOXELS * self.lattice.voxel_size_m) if part.around else whole

    def _hidden(self, watch: Watch):
        def local(n: int) -> tuple[Array, Array]:
            piece = self._piece(n)
            return watch.local(piece.mesh.vertices_world), piece.mesh.faces[piece.own]

        if len(self.parts) == 1:
            return hidden_by_one(local(0), watch.views)
        meshes = (local(n) for n in range(len(self.parts)))
        return hidden_by_many(meshes, watch.views, self.run.scene, "surface/hidden", lambda: None)

    def _shelve(self, n: int, piece: Piece) -> None:
        mesh = piece.mesh
        rest = {"keys": piece.keys, "own": piece.own, "cut": piece.cut}
        self.shelf.put(n, "mesh", vertices=mesh.vertices_world, faces=mesh.faces, **rest)

    def _piece(self, n: int) -> Piece:
        kept = self.shelf.get(n, "mesh")
        return Piece(Mesh(kept["vertices"], kept["faces"]), kept["keys"], kept["own"], kept["cut"])

    def _samples(self, n: int) -> Samples:
        kept = self.shelf.get(n, "samples")
        return Samples(kept["rgb"], kept["photo"], kept["weight"])

    def _coloured(self, n: int) -> tuple[Mesh, Array]:
        """The part's own faces that stay, in colours, with values, and the normals of its vertices."""
        piece, final = self._piece(n), self.shelf.get(n, "final")
        seen, colour = self.shelf.get(n, "seen"), self.shelf.get(n, "colour")
        apart = colour["apart"]
        values = {
            "confidence": confidence(seen["sure"], seen["angle"], np.nan_to_num(apart), self.usual),
            "views": seen["views"].astype(np.float32),
            "angle_deg": np.rad2deg(seen["angle"]),
        }
        whole = Mesh(piece.mesh.vertices_world, piece.mesh.faces, colour["colors"], values)
        used = used_vertices(whole.faces[final["own"]], len(whole.vertices_world))
        normals = vertex_normals(Mesh(whole.vertices_world, whole.faces[final["all"]]))
        known = np.isfinite(apart)
        assert whole.colors is not None
        colors = fill_unknown(whole.colors[used], known[used], whole.vertices_world[used])
        own = whole.part(final["own"])
        return Mesh(own.vertices_world, own.faces, colors, own.values), normals[used]
