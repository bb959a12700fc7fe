"""The fuse stage: the SDF bricks of all blocks in, one clean coloured mesh out, a part of it in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.imaging.exposure import photo_gains
from quoin.pipeline.scene.blocks import Partition, read_partition
from quoin.pipeline.scene.confidence import confident_faces
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.backend import Home
from quoin.pipeline.storage.run import Run, stage
from quoin.stages.fuse import tile_surface
from quoin.stages.fuse.blend import bricks_to_march
from quoin.stages.fuse.clean import usual_disagreement
from quoin.stages.fuse.components import united
from quoin.stages.fuse.config import VERSION, FuseConfig, FuseResult
from quoin.stages.fuse.mesh import Clustered, Mesh, decimate, edge_counts, face_areas, vertex_normals
from quoin.stages.fuse.mesh_chunks import parts_of
from quoin.stages.fuse.mesh_files import PlyWriter, replacing, write_glb
from quoin.stages.fuse.scratch import FOLDER, Place, Shelf
from quoin.stages.fuse.steps import Cleaned, Known, Work
from quoin.stages.fuse.vertex_index import Numbers

Array = np.ndarray

VALUES = ("confidence", "views", "angle_deg")
LIGHT_SHARE = 4  # times as many faces as the light mesh shall have are left of parts before it is decimated
WORTH_FACES = 500_000  # in a part that another pair of hands is given


@runtime_checkable
class Hands(Protocol):
    """Who does the steps of ``stages.fuse.steps``: of every part one thing before any does the next."""

    n: int  # parts that are worked on at the same time

    def each(self, known: Known, step: str, given: Sequence[tuple]) -> list[Any]:
        """What the step returns for part i, which is given ``given[i]`` besides its number."""
        ...


class OwnHands:
    """One part after the other, in this process."""

    n = 1

    def __init__(self, work: Work) -> None:
        self.work = work

    def each(self, known: Known, step: str, given: Sequence[tuple]) -> list[Any]:
        del known  # by the driver, whose work this is
        return [getattr(self.work, step)(n, *more) for n, more in enumerate(given)]


def fuse(run: Run, config: FuseConfig, report: Reporter, hands: Hands | None = None) -> FuseResult:
    """Blend, extract, clean, colour: surface/<tile> in the store, mesh.ply, mesh.glb. QuoinError where it is empty."""
    fusion = Fusion(run, config, report, hands)
    try:
        fusion.extract()
        fusion.look()
        fusion.colour()
        fusion.clean()
        fusion.choose()
        return fusion.write()
    finally:
        fusion.work.shelf.clear()


run = stage("fuse", needs=("train",), version=VERSION, result=FuseResult)(fuse)


def hole(partition: Partition, block_id: str) -> str:
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


class Fusion:
    """The steps of the stage; each goes through all parts, and leaves on the shelf what the next one needs."""

    def __init__(self, run: Run, config: FuseConfig, report: Reporter, hands: Hands | None) -> None:
        self.run, self.config, self.report = run, config, report
        self.partition, self.clock = read_partition(run), Clock()
        self.missing = list(run.require("train").result.get("missing", {}))
        self.work = Work(run, config, report, Known(self.partition.lattice), Shelf(None))
        self.hands = OwnHands(self.work) if hands is None else hands

    @property
    def known(self) -> Known:
        return self.work.known

    def each(self, step: str, given: Sequence[tuple] | None = None) -> list[Any]:
        """A step on all parts."""
        return self.hands.each(self.known, step, [()] * self.known.n_parts if given is None else given)

    def forget(self, *names: str) -> None:
        """What lies on the shelf and is not needed any more: only when a step is done, as it may be done again."""
        for n in range(self.known.n_parts):
            for name in names:
                self.work.shelf.drop(n, name)

    def learn(self, **facts: Any) -> None:
        """What the steps to come need to know."""
        self.work.known = replace(self.known, **facts)

    def extract(self) -> None:
        """The raw surface into the store, in parts."""
        with self.clock("blend"):
            sources, size = self.work.sources(), self.known.lattice.brick_size
            self.n_blocks = len(sources)
            bricks = bricks_to_march(sources)
            self.n_bricks = len(bricks)
            self._require_surface(len(bricks) > 0)
            self.learn(edge_keys=tile_surface.edge_keys_of(sources, size))
            arrays.delete(self.run.scene, "surface")
            self.run.scene.require_group("surface")
            shares = _shares(tile_surface.tiles(bricks), 4 * self.hands.n if self.hands.n > 1 else 1)
            found = self.each("march", [(np.concatenate(share),) for share in shares])
            tiles = [tile for share in found for tile in share]
            n_faces = sum(tile.n_faces for tile in tiles)
            most = self.config.part_faces
            if self.hands.n > 1:
                most = min(most, max(n_faces // (2 * self.hands.n), WORTH_FACES))
            parts = parts_of(tiles, most)
            self._require_surface(len(parts) > 0)
            self.run.remove(FOLDER)  # of an attempt that was killed, wherever it kept them
            self.work.shelf = Shelf(self._place(len(parts)))
            largest = max(sum(tile.n_faces for tile in part.own) for part in parts)
            self.learn(n_parts=len(parts), part_faces=largest)
            raw = self.each("gather", [(part,) for part in parts])
            self.low_m = np.min([part.low_world for part in raw], axis=0)
            self.high_m = np.max([part.high_world for part in raw], axis=0)
            self.torn = sum(part.torn for part in raw)
            if self.torn:
                told = f"{self.torn} open edges inside the known bricks: the blocks do not fit together"
                self.report.log("fuse", told, "warning")

    def _place(self, n_parts: int) -> Place | None:
        """Where the shelf stands: with the run, where others work on it."""
        if self.hands.n > 1:
            return self.run
        return Home(self.run.path) if n_parts > 1 else None

    def _require_surface(self, there: bool) -> None:
        if not there:
            raise QuoinError(
                f"There is no surface: no SDF sign change in any of {self.n_blocks} blocks",
                where=self.run.home,
                do="look at the training curves in the report; train longer, or check masks and poses",
            )

    def look(self) -> None:
        """Let all photos look at every part: who sees a vertex, confirms it, and in which colours."""
        with self.clock("look"):
            self.learn(middle_world=(self.low_m + self.high_m) / 2)
            self.run.scene.require_group("surface/hidden")
            shown_in: list[list[int]] = [[] for _ in self.work.watch.views]
            for n, shown in enumerate(self.each("hide")):
                for view in shown:
                    shown_in[view].append(n)
            self.learn(shown_in=shown_in)
            self.each("look")
            arrays.delete(self.run.scene, "surface/hidden")

    def colour(self) -> None:
        """Exposures of the photos, colours of the vertices, and how far photos agree on them."""
        with self.clock("colour"):
            rows = self.each("sample")
            rgb, photo, there = (np.concatenate(field) for field in zip(*rows, strict=True))
            n_photos = len(self.work.watch.posed)
            self.learn(gains=photo_gains(rgb, photo, there, n_photos, seed=self.run.seed))
            views, apart = (np.concatenate(field) for field in zip(*self.each("colour"), strict=True))
            self.learn(usual=usual_disagreement(views, apart))
            self.forget("samples")

    def clean(self) -> None:
        """What photos confirm and do not see as sky."""
        with self.clock("clean"):
            config, n_photos = self.config, len(self.work.watch.posed)
            by_stereo = self.work.watch.has_stereo
            least = config.min_confirmed if by_stereo else min(config.min_support, n_photos / 6)
            hole_m = config.hole_diameter * float(np.linalg.norm(self.high_m - self.low_m))
            self.learn(by_stereo=by_stereo, least=least, hole_m=hole_m)
            self.counts = Cleaned(*np.sum(self.each("clean"), axis=0).tolist())

    def choose(self) -> None:
        """Drop islands: pieces of the whole surface that are small."""
        with self.clock("pieces"):
            found = self.each("connect")
            if not any(len(part.area_m2) for part in found):
                raise QuoinError(
                    f"There is no surface that photos confirm, though the blocks hold {self.counts.raw:,} faces",
                    do="look at cameras and blocks in the report; lower fuse.min_confirmed (without stereo: "
                    "fuse.min_support)",
                )
            low = np.min([part.low_world.min(axis=0, initial=np.inf) for part in found], axis=0)
            high = np.max([part.high_world.max(axis=0, initial=-np.inf) for part in found], axis=0)
            whole = united(found)
            least_m = min(self.config.island_diameter * float(np.linalg.norm(high - low)), whole.diameter_m.max())
            large: Bool[Array, "w"] = whole.diameter_m >= least_m
            self.piece_areas = whole.area_m2[large]
            counted = np.array(self.each("finish", [(large[of_piece],) for of_piece in whole.of_piece]))
            self.n_faces, self.islands = counted.sum(axis=0).tolist()
            self.forget("raw", "flat", "seen", "colour", "kept", "connected")
            raw, sky, unsupported = self.counts
            self.report.log(
                "fuse",
                f"{raw:,} faces; {sky:,} dropped that photos see as sky, {unsupported:,} that too few photos confirm, "
                f"{self.islands:,} in small islands",
            )

    def write(self) -> FuseResult:
        """mesh.ply, whose header tells of holes, mesh.glb, and what is told of them."""
        shelf, n_parts, missing = self.work.shelf, self.known.n_parts, self.missing
        with self.clock("write"):
            numbers = Numbers()
            for n in range(n_parts):
                done = shelf.get(n, "done")
                index, new = numbers.take(done["keys"], done["shared"])
                shelf.put(n, "numbers", index=index, new=new)
            area = float(self.piece_areas.sum())
            coarse = Clustered(float(np.sqrt(area / (LIGHT_SHARE * self.config.glb_faces / 2))))
            confident, rims = 0.0, []
            holes = [hole(self.partition, block_id) for block_id in missing]
            with replacing(self.run.path / "mesh.ply") as handle:
                reach = float(max(np.abs(self.low_m).max(), np.abs(self.high_m).max()))
                edge_m = self.known.lattice.voxel_size_m / 2
                ply = PlyWriter(handle, numbers.count, self.n_faces, VALUES, edge_m, reach, holes)
                for n in range(n_parts):
                    done, number = shelf.get(n, "done"), shelf.get(n, "numbers")
                    values = {name: done[name] for name in VALUES}
                    mesh = Mesh(done["vertices"], done["faces"], done["colors"], values)
                    ply.vertices(mesh, done["normals"], number["new"])
                    areas = face_areas(mesh)
                    confident += float(areas[confident_faces(mesh.values["confidence"], mesh.faces)].sum())
                    ends, times = edge_counts(mesh.faces)
                    rims.append(np.sort(number["index"][ends[times == 1]], axis=1))
                    if n_parts > 1:
                        coarse.add(mesh, number["new"])
                for n in range(n_parts):
                    ply.faces(shelf.get(n, "numbers")["index"][shelf.get(n, "done")["faces"]])
            light = mesh if n_parts == 1 else coarse.mesh(VALUES)
            kept = {"confidence": light.values["confidence"]}
            light = decimate(Mesh(light.vertices_world, light.faces, light.colors, kept), self.config.glb_faces)
            write_glb(self.run.path / "mesh.glb", light, vertex_normals(light))
        _, times = np.unique(np.concatenate(rims), axis=0, return_counts=True)
        gains = self.known.gains
        assert gains is not None
        return FuseResult(
            n_vertices=numbers.count,
            n_faces=self.n_faces,
            n_components=len(self.piece_areas),
            n_boundary_edges=int((times == 1).sum()),
            n_torn_edges=self.torn,
            largest_component_share=float(self.piece_areas.max() / area),
            area_m2=area,
            n_blocks=self.n_blocks,
            missing_blocks=missing,
            n_bricks=self.n_bricks,
            n_raw_faces=self.counts.raw,
            dropped_sky_faces=self.counts.sky,
            dropped_unsupported_faces=self.counts.unsupported,
            dropped_island_faces=self.islands,
            min_support=self.known.least,
            disagreement=self.known.usual,
            confident_share=confident / area,
            glb_faces=len(light.faces),
            gain_range=(float(gains.min()), float(gains.max())),
            seconds=self.clock.seconds,
        )


def _shares(items: list[Array], n: int) -> list[list[Array]]:
    """Items in at most ``n`` stretches of about as many."""
    cuts = np.linspace(0, len(items), min(n, len(items)) + 1).round().astype(int)
    return [items[a:b] for a, b in pairwise(cuts)]
