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
from quoin.pipeline.storage.backend import LocalStorage
from quoin.pipeline.storage.run import Run, stage
from quoin.stages.fuse import tile_surface
from quoin.stages.fuse.blend import bricks_to_march
from quoin.stages.fuse.clean import typical_disagreement
from quoin.stages.fuse.components import merge_components
from quoin.stages.fuse.config import VERSION, FuseConfig, FuseResult
from quoin.stages.fuse.mesh import Mesh, VertexClustering, decimate, edge_counts
from quoin.stages.fuse.mesh_chunks import make_chunks
from quoin.stages.fuse.mesh_files import PlyWriter, open_atomic, ply_coordinate_type, write_glb
from quoin.stages.fuse.scratch import SCRATCH_FOLDER, ScratchStore
from quoin.stages.fuse.steps import FaceCounts, FuseState, FuseSteps
from quoin.stages.fuse.vertex_index import VertexIndex

Array = np.ndarray

VERTEX_ATTRIBUTES = ("confidence", "views", "angle_deg")
LIGHT_MESH_FACTOR = 4  # times as many faces as the light mesh shall have are left of parts before it is decimated
MIN_CHUNK_FACES = 500_000  # in a part that another pair of hands is given


@runtime_checkable
class FuseWorkers(Protocol):
    """Who does the steps of ``stages.fuse.steps``: of every part one thing before any does the next."""

    n: int  # parts that are worked on at the same time

    def map_step(self, state: FuseState, step: str, args_per_chunk: Sequence[tuple]) -> list[Any]:
        """What the step returns for part i, which is given ``args_per_chunk[i]`` besides its number."""
        ...


class InlineFuseWorkers:
    """One part after the other, in this process."""

    n = 1

    def __init__(self, steps: FuseSteps) -> None:
        self.steps = steps

    def map_step(self, state: FuseState, step: str, args_per_chunk: Sequence[tuple]) -> list[Any]:
        del state  # by the driver, whose work this is
        return [getattr(self.steps, step)(n, *task_args) for n, task_args in enumerate(args_per_chunk)]


def fuse(run: Run, config: FuseConfig, report: Reporter, workers: FuseWorkers | None = None) -> FuseResult:
    """Blend, extract, clean, colour: surface/<tile> in the store, mesh.ply, mesh.glb. QuoinError where it is empty."""
    fusion = Fusion(run, config, report, workers)
    try:
        fusion.extract()
        fusion.observe()
        fusion.color()
        fusion.clean()
        fusion.drop_islands()
        return fusion.write()
    finally:
        fusion.steps.scratch.clear()


run = stage("fuse", needs=("train",), version=VERSION, result=FuseResult)(fuse)


def describe_hole(partition: Partition, block_id: str) -> str:
    """Where a missing block leaves a hole: its core, which its neighbours' halos reach into."""
    low, high = (
        " ".join(f"{x:.6g}" for x in end) for end in partition.lattice.box_world(partition.block(block_id).core)
    )
    return f"hole: block {block_id} is missing, from {low} to {high}"


class StageTimer:
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

    def __init__(self, run: Run, config: FuseConfig, report: Reporter, workers: FuseWorkers | None) -> None:
        self.run, self.config, self.report = run, config, report
        self.partition, self.timer = read_partition(run), StageTimer()
        self.missing = list(run.require("train").result.get("failed_blocks", {}))
        self.steps = FuseSteps(run, config, report, FuseState(self.partition.lattice), ScratchStore(None))
        self.workers = InlineFuseWorkers(self.steps) if workers is None else workers

    @property
    def state(self) -> FuseState:
        return self.steps.state

    def map_step(self, step: str, args_per_chunk: Sequence[tuple] | None = None) -> list[Any]:
        """A step on all parts."""
        return self.workers.map_step(
            self.state, step, [()] * self.state.n_chunks if args_per_chunk is None else args_per_chunk
        )

    def drop_scratch(self, *names: str) -> None:
        """What lies on the shelf and is not needed any more: only when a step is done, as it may be done again."""
        for n in range(self.state.n_chunks):
            for name in names:
                self.steps.scratch.drop(n, name)

    def update_state(self, **facts: Any) -> None:
        """What the steps to come need to know."""
        self.steps.state = replace(self.state, **facts)

    def extract(self) -> None:
        """The raw surface into the store, in parts."""
        with self.timer("blend"):
            block_sdfs, size = self.steps.block_sdfs(), self.state.lattice.brick_size
            self.n_blocks = len(block_sdfs)
            bricks = bricks_to_march(block_sdfs)
            self.n_bricks = len(bricks)
            self._require_surface(len(bricks) > 0)
            self.update_state(edge_keys=tile_surface.make_edge_keys(block_sdfs, size))
            arrays.delete_node(self.run.scene, "surface")
            self.run.scene.require_group("surface")
            shares = _split_evenly(
                tile_surface.group_into_tiles(bricks), 4 * self.workers.n if self.workers.n > 1 else 1
            )
            found = self.map_step("march", [(np.concatenate(share),) for share in shares])
            tiles = [tile for share in found for tile in share]
            n_faces = sum(tile.n_faces for tile in tiles)
            max_faces = self.config.part_faces
            if self.workers.n > 1:
                max_faces = min(max_faces, max(n_faces // (2 * self.workers.n), MIN_CHUNK_FACES))
            chunks = make_chunks(tiles, max_faces)
            self._require_surface(len(chunks) > 0)
            self.run.storage.remove(SCRATCH_FOLDER)  # of an attempt that was killed, wherever it kept them
            self.steps.scratch = ScratchStore(self._scratch_storage(len(chunks)))
            largest = max(sum(tile.n_faces for tile in part.own) for part in chunks)
            self.update_state(n_chunks=len(chunks), part_faces=largest)
            raw = self.map_step("gather", [(part,) for part in chunks])
            self.low_m = np.min([part.low_world for part in raw], axis=0)
            self.high_m = np.max([part.high_world for part in raw], axis=0)
            self.n_torn_edges = sum(part.n_torn_edges for part in raw)
            if self.n_torn_edges:
                message = f"{self.n_torn_edges} open edges inside the known bricks: the blocks do not fit together"
                self.report.log("fuse", message, "warning")

    def _scratch_storage(self, n_chunks: int) -> LocalStorage | None:
        """Storage of scratch files: the run's, where workers share it; None where one chunk fits in memory."""
        if self.workers.n > 1:
            return self.run.storage
        return LocalStorage(self.run.path) if n_chunks > 1 else None

    def _require_surface(self, has_surface: bool) -> None:
        if not has_surface:
            raise QuoinError(
                f"There is no surface: no SDF sign change in any of {self.n_blocks} blocks",
                where=self.run.location,
                hint="look at the training curves in the report; train longer, or check masks and poses",
            )

    def observe(self) -> None:
        """Let all photos look at every part: who sees a vertex, confirms it, and in which colours."""
        with self.timer("look"):
            self.update_state(middle_world=(self.low_m + self.high_m) / 2)
            self.run.scene.require_group("surface/hidden")
            chunks_in_view: list[list[int]] = [[] for _ in self.steps.observer.views]
            for n, shown in enumerate(self.map_step("hide")):
                for view in shown:
                    chunks_in_view[view].append(n)
            self.update_state(chunks_in_view=chunks_in_view)
            self.map_step("observe")
            arrays.delete_node(self.run.scene, "surface/hidden")

    def color(self) -> None:
        """Exposures of the photos, colours of the vertices, and how far photos agree on them."""
        with self.timer("colour"):
            rows = self.map_step("sample")
            rgb, photo, is_sample = (np.concatenate(field) for field in zip(*rows, strict=True))
            n_photos = len(self.steps.observer.posed)
            self.update_state(gains=photo_gains(rgb, photo, is_sample, n_photos, seed=self.run.seed))
            views, color_disagreement = (np.concatenate(field) for field in zip(*self.map_step("color"), strict=True))
            self.update_state(typical=typical_disagreement(views, color_disagreement))
            self.drop_scratch("samples")

    def clean(self) -> None:
        """What photos confirm and do not see as sky."""
        with self.timer("clean"):
            config, n_photos = self.config, len(self.steps.observer.posed)
            uses_stereo = self.steps.observer.has_stereo
            min_support = config.min_confirmed if uses_stereo else min(config.min_support, n_photos / 6)
            max_hole_m = config.hole_diameter * float(np.linalg.norm(self.high_m - self.low_m))
            self.update_state(uses_stereo=uses_stereo, min_support=min_support, max_hole_m=max_hole_m)
            self.counts = FaceCounts(*np.sum(self.map_step("clean"), axis=0).tolist())

    def drop_islands(self) -> None:
        """Drop islands: pieces of the whole surface that are small."""
        with self.timer("pieces"):
            found = self.map_step("connect")
            if not any(len(part.area_m2) for part in found):
                raise QuoinError(
                    f"There is no surface that photos confirm, though the blocks hold {self.counts.raw:,} faces",
                    hint="look at cameras and blocks in the report; lower fuse.min_confirmed (without stereo: "
                    "fuse.min_support)",
                )
            low = np.min([part.low_world.min(axis=0, initial=np.inf) for part in found], axis=0)
            high = np.max([part.high_world.max(axis=0, initial=-np.inf) for part in found], axis=0)
            whole = merge_components(found)
            min_diameter_m = min(
                self.config.island_diameter * float(np.linalg.norm(high - low)), whole.diameter_m.max()
            )
            large: Bool[Array, "w"] = whole.diameter_m >= min_diameter_m
            self.component_areas_m2 = whole.area_m2[large]
            counted = np.array(
                self.map_step(
                    "finish", [(large[component_of_chunk],) for component_of_chunk in whole.component_of_chunk]
                )
            )
            self.n_faces, self.n_island_faces = counted.sum(axis=0).tolist()
            self.drop_scratch("raw", "flat", "seen", "colour", "kept", "connected")
            raw, sky, unsupported = self.counts
            self.report.log(
                "fuse",
                f"{raw:,} faces; {sky:,} dropped that photos see as sky, {unsupported:,} that too few photos confirm, "
                f"{self.n_island_faces:,} in small islands",
            )

    def write(self) -> FuseResult:
        """mesh.ply, whose header tells of holes, mesh.glb, and what is told of them."""
        scratch, n_chunks, missing = self.steps.scratch, self.state.n_chunks, self.missing
        with self.timer("write"):
            vertex_index = VertexIndex()
            for n in range(n_chunks):
                done = scratch.get(n, "done")
                index, new = vertex_index.assign(done["keys"], done["shared"])
                scratch.put(n, "numbers", index=index, new=new)
            area = float(self.component_areas_m2.sum())
            coarse = VertexClustering(float(np.sqrt(area / (LIGHT_MESH_FACTOR * self.config.glb_faces / 2))))
            confident_area_m2, rims = 0.0, []
            holes = [describe_hole(self.partition, block_id) for block_id in missing]
            with open_atomic(self.run.path / "mesh.ply") as handle:
                reach = float(max(np.abs(self.low_m).max(), np.abs(self.high_m).max()))
                edge_m = self.state.lattice.voxel_size_m / 2
                ply = PlyWriter(
                    handle,
                    vertex_index.count,
                    self.n_faces,
                    VERTEX_ATTRIBUTES,
                    ply_coordinate_type(edge_m, reach),
                    holes,
                )
                for n in range(n_chunks):
                    done, number = scratch.get(n, "done"), scratch.get(n, "numbers")
                    values = {name: done[name] for name in VERTEX_ATTRIBUTES}
                    mesh = Mesh(done["vertices"], done["faces"], done["colors"], values)
                    ply.vertices(mesh, done["normals"], number["new"])
                    areas = mesh.face_areas()
                    confident_area_m2 += float(areas[confident_faces(mesh.values["confidence"], mesh.faces)].sum())
                    ends, times = edge_counts(mesh.faces)
                    rims.append(np.sort(number["index"][ends[times == 1]], axis=1))
                    if n_chunks > 1:
                        coarse.add(mesh, number["new"])
                for n in range(n_chunks):
                    ply.faces(scratch.get(n, "numbers")["index"][scratch.get(n, "done")["faces"]])
            light = mesh if n_chunks == 1 else coarse.mesh(VERTEX_ATTRIBUTES)
            kept = {"confidence": light.values["confidence"]}
            light = decimate(Mesh(light.vertices_world, light.faces, light.colors, kept), self.config.glb_faces)
            write_glb(self.run.path / "mesh.glb", light, light.vertex_normals())
        _, times = np.unique(np.concatenate(rims), axis=0, return_counts=True)
        gains = self.state.gains
        assert gains is not None
        return FuseResult(
            n_vertices=vertex_index.count,
            n_faces=self.n_faces,
            n_components=len(self.component_areas_m2),
            n_boundary_edges=int((times == 1).sum()),
            n_torn_edges=self.n_torn_edges,
            largest_component_share=float(self.component_areas_m2.max() / area),
            area_m2=area,
            n_blocks=self.n_blocks,
            missing_blocks=missing,
            n_bricks=self.n_bricks,
            n_raw_faces=self.counts.raw,
            dropped_sky_faces=self.counts.sky,
            dropped_unsupported_faces=self.counts.unsupported,
            dropped_island_faces=self.n_island_faces,
            min_support=self.state.min_support,
            disagreement=self.state.typical,
            confident_share=confident_area_m2 / area,
            glb_faces=len(light.faces),
            gain_range=(float(gains.min()), float(gains.max())),
            seconds=self.timer.seconds,
        )


def _split_evenly(items: list[Array], n: int) -> list[list[Array]]:
    """Items in at most ``n`` stretches of about as many."""
    cuts = np.linspace(0, len(items), min(n, len(items)) + 1).round().astype(int)
    return [items[a:b] for a, b in pairwise(cuts)]
