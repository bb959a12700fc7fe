"""The fuse stage: from the SDF bricks of all blocks to one clean, colored mesh, a chunk of it in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import InlineWorkers, Task, Workers, map_all
from quoin.pipeline.imaging.exposure import photo_gains
from quoin.pipeline.scene.blocks import Partition, read_partition
from quoin.pipeline.scene.mesh_formats import confident_faces
from quoin.pipeline.scene.world import GEOREFERENCE_FILE, read_world
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.backend import LocalStorage
from quoin.pipeline.storage.run import Run
from quoin.pipeline.storage.stage import PROCESS_BYTES, Cost, Stage, StageContext, Workload, surface_faces
from quoin.stages.fuse.blend import bricks_to_march
from quoin.stages.fuse.clean import typical_disagreement
from quoin.stages.fuse.config import FuseConfig, FuseResult
from quoin.stages.fuse.mesh import (
    Mesh,
    PlyWriter,
    VertexClustering,
    decimate,
    edge_counts,
    open_atomic,
    ply_coordinate_type,
    write_glb,
)
from quoin.stages.fuse.mesh_chunks import SCRATCH_FOLDER, ScratchStore, VertexIndex, make_chunks, merge_components
from quoin.stages.fuse.steps import ChunkStep, FaceCounts, FuseState, FuseSteps, run_chunk_step
from quoin.stages.fuse.tiles import group_into_tiles, make_edge_keys

Array = np.ndarray

VERTEX_ATTRIBUTES = ("confidence", "views", "angle_deg")
LIGHT_MESH_FACTOR = 4  # times as many faces as the light mesh shall have are left of chunks before it is decimated
MIN_CHUNK_FACES = 500_000  # in a chunk that is given to another worker
WORKER_BASE_BYTES = 1 << 30  # memory of a worker beside its chunk

# On two cores, from a finished demo (40 photos of 0.48 megapixels, 2 blocks).
BRICKS_PER_S = 140.0  # read, blended, extracted
OBSERVE_SECONDS_PER_PHOTO_MFACE = 0.075  # one photo observing a million faces
CLEAN_SECONDS_PER_MFACE = 2.2  # cleaning and writing a million faces
SERIAL_SHARE = 0.1  # of the time, that the driver takes whatever the workers: joining and writing
MESH_BYTES_PER_FACE = 27  # in mesh.ply: half a vertex and a face
SURFACE_BYTES_PER_FACE = 18  # of the surface in the store
GLB_BYTES = 12 << 20
CAST_BYTES_PER_FACE = 420  # of a chunk: working arrays and ray-casting scene
CHUNK_BYTES_PER_FACE = 110  # on disk while there are several chunks


def fuse_blocks(context: StageContext, config: FuseConfig) -> FuseResult:
    """Blend, extract, clean, color: surface/<tile> in the store, mesh.ply, mesh.glb. QuoinError where it is empty.

    By GPS also georeference.json, where on Earth the mesh lies.

    Several workers share the chunks of the surface; where there is one, this process does them.
    """
    with context.workers.session() as n_workers:
        workers: Workers = context.workers if n_workers > 1 else InlineWorkers()
        fusion = Fusion(context.run, config, context.report, workers, n_workers)
        try:
            fusion.extract()
            fusion.observe()
            fusion.color()
            fusion.clean()
            fusion.drop_islands()
            return fusion.write()
        finally:
            fusion.steps.scratch.clear()


def describe_hole(partition: Partition, block_id: str) -> str:
    """Text for the hole of a missing block: the corners of its core, which the halos of its neighbors reach into."""
    low, high = (
        " ".join(f"{x:.6g}" for x in end) for end in partition.lattice.box_world(partition.block(block_id).core)
    )
    return f"hole: block {block_id} is missing, from {low} to {high}"


class StageTimer:
    """Measures seconds of the parts of the stage."""

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
    """The passes of the stage: each does a step on all chunks, and leaves what the next one needs in scratch files."""

    def __init__(self, run: Run, config: FuseConfig, report: Reporter, workers: Workers, n_workers: int) -> None:
        self.run, self.config, self.report = run, config, report
        self.workers, self.n_workers = workers, n_workers
        self.partition, self.timer = read_partition(run), StageTimer()
        self.missing = list(run.require("train").result.get("failed_blocks", {}))
        self.steps = FuseSteps(run, config, FuseState(self.partition.lattice), ScratchStore(None))

    @property
    def state(self) -> FuseState:
        return self.steps.state

    def map_step(self, step: ChunkStep, args_per_chunk: Sequence[tuple] | None = None) -> list[Any]:
        """Results of a step of ``FuseSteps`` on all chunks; before the chunks are known, once for each of the args."""
        args_per_chunk = [()] * self.state.n_chunks if args_per_chunk is None else args_per_chunk
        tasks = [
            Task(
                f"fuse/{step.__name__} {n + 1}/{len(args_per_chunk)}",
                (step, self.steps, n, *args),
                memory_bytes=WORKER_BASE_BYTES + CAST_BYTES_PER_FACE * self.state.part_faces,
            )
            for n, args in enumerate(args_per_chunk)
        ]
        return map_all(self.workers, run_chunk_step, tasks, self.report)

    def drop_scratch(self, *names: str) -> None:
        """Remove scratch files that are no longer needed; only after a step, because its tasks may be started again."""
        for n in range(self.state.n_chunks):
            for name in names:
                self.steps.scratch.drop(n, name)

    def update_state(self, **facts: Any) -> None:
        """Set what the following steps know of the whole surface."""
        self.steps.state = replace(self.state, **facts)

    def extract(self) -> None:
        """Extract the raw surface into the store and gather it in chunks."""
        with self.timer("blend"):
            block_sdfs, size = self.steps.block_sdfs(), self.state.lattice.brick_size
            self.n_blocks = len(block_sdfs)
            bricks = bricks_to_march(block_sdfs)
            self.n_bricks = len(bricks)
            self._require_surface(len(bricks) > 0)
            self.update_state(edge_keys=make_edge_keys(block_sdfs, size))
            arrays.delete_node(self.run.scene, "surface")
            self.run.scene.require_group("surface")
            shares = _split_evenly(group_into_tiles(bricks), 4 * self.n_workers if self.n_workers > 1 else 1)
            found = self.map_step(FuseSteps.march, [(np.concatenate(share),) for share in shares])
            tiles = [tile for share in found for tile in share]
            n_faces = sum(tile.n_faces for tile in tiles)
            max_faces = self.config.part_faces
            if self.n_workers > 1:
                max_faces = min(max_faces, max(n_faces // (2 * self.n_workers), MIN_CHUNK_FACES))
            chunks = make_chunks(tiles, max_faces)
            self._require_surface(len(chunks) > 0)
            self.run.storage.remove(SCRATCH_FOLDER)  # of an attempt that was killed, wherever it kept them
            self.steps.scratch = ScratchStore(self._scratch_storage(len(chunks)))
            largest = max(sum(tile.n_faces for tile in part.own) for part in chunks)
            self.update_state(n_chunks=len(chunks), part_faces=largest)
            raw = self.map_step(FuseSteps.gather, [(part,) for part in chunks])
            self.low_m = np.min([part.low_world for part in raw], axis=0)
            self.high_m = np.max([part.high_world for part in raw], axis=0)
            self.n_torn_edges = sum(part.n_torn_edges for part in raw)
            if self.n_torn_edges:
                message = f"{self.n_torn_edges} open edges inside the known bricks: the blocks do not fit together"
                self.report.log("fuse", message, "warning")

    def _scratch_storage(self, n_chunks: int) -> LocalStorage | None:
        """Storage of scratch files: the run's, where workers share it; None where one chunk fits in memory."""
        if self.n_workers > 1:
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
        """Observe every chunk in all photos: which see a vertex, which confirm it, and in which colors."""
        with self.timer("look"):
            self.update_state(middle_world=(self.low_m + self.high_m) / 2)
            self.run.scene.require_group("surface/hidden")
            chunks_in_view: list[list[int]] = [[] for _ in self.steps.observer.views]
            for n, shown in enumerate(self.map_step(FuseSteps.hide)):
                for view in shown:
                    chunks_in_view[view].append(n)
            self.update_state(chunks_in_view=chunks_in_view)
            self.map_step(FuseSteps.observe)
            arrays.delete_node(self.run.scene, "surface/hidden")

    def color(self) -> None:
        """Estimate exposures of the photos, colors of the vertices, and how far photos disagree on them."""
        with self.timer("colour"):
            rows = self.map_step(FuseSteps.sample)
            rgb, photo, is_sample = (np.concatenate(field) for field in zip(*rows, strict=True))
            n_photos = len(self.steps.observer.posed)
            self.update_state(gains=photo_gains(rgb, photo, is_sample, n_photos, seed=self.run.seed))
            views, color_disagreement = (
                np.concatenate(field) for field in zip(*self.map_step(FuseSteps.color), strict=True)
            )
            self.update_state(typical=typical_disagreement(views, color_disagreement))
            self.drop_scratch("samples")

    def clean(self) -> None:
        """Keep what photos confirm and do not see as sky."""
        with self.timer("clean"):
            config, n_photos = self.config, len(self.steps.observer.posed)
            uses_stereo = self.steps.observer.has_stereo
            min_support = config.min_confirmed if uses_stereo else min(config.min_support, n_photos / 6)
            max_hole_m = config.hole_diameter * float(np.linalg.norm(self.high_m - self.low_m))
            self.update_state(uses_stereo=uses_stereo, min_support=min_support, max_hole_m=max_hole_m)
            self.counts = FaceCounts(*np.sum(self.map_step(FuseSteps.clean), axis=0).tolist())

    def drop_islands(self) -> None:
        """Drop small connected components of the whole surface."""
        with self.timer("pieces"):
            found = self.map_step(FuseSteps.connect)
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
                    FuseSteps.finish, [(large[component_of_chunk],) for component_of_chunk in whole.component_of_chunk]
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
        """Write mesh.ply, whose header tells unit, up and holes, and mesh.glb; returns the result of the stage."""
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
            world = read_world(self.run)
            holes = [describe_hole(self.partition, block_id) for block_id in missing]
            georeference = self.run.path / GEOREFERENCE_FILE
            georeference.unlink(missing_ok=True)
            if world.origin is not None:
                with open_atomic(georeference) as handle:
                    handle.write(world.origin.as_json().encode())
            with open_atomic(self.run.path / "mesh.ply") as handle:
                reach = float(max(np.abs(self.low_m).max(), np.abs(self.high_m).max()))
                edge_m = self.state.lattice.voxel_size_m / 2
                ply = PlyWriter(
                    handle,
                    vertex_index.count,
                    self.n_faces,
                    VERTEX_ATTRIBUTES,
                    ply_coordinate_type(edge_m, reach),
                    [str(world), *holes],
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
    """``items`` in at most ``n`` consecutive groups of about equal size."""
    cuts = np.linspace(0, len(items), min(n, len(items)) + 1).round().astype(int)
    return [items[a:b] for a, b in pairwise(cuts)]


def estimate_fuse_cost(workload: Workload, config: FuseConfig) -> Cost:
    """Cost of fusing the surface bricks of all blocks, chunk by chunk."""
    faces, n_bricks = workload.n_faces, workload.n_bricks
    # a photo observes the faces of the blocks that it shows, not of all blocks
    observations = min(
        sum(surface_faces(block.n_bricks, workload.brick_size) * block.n_photos for block in workload.blocks),
        faces * workload.n_photos,
    )
    seconds = (
        n_bricks / BRICKS_PER_S
        + OBSERVE_SECONDS_PER_PHOTO_MFACE * observations / 1e6
        + CLEAN_SECONDS_PER_MFACE * faces / 1e6
    )
    chunk_bytes = CHUNK_BYTES_PER_FACE if faces > config.part_faces else 0
    return Cost(
        seconds=seconds * (SERIAL_SHARE + (1 - SERIAL_SHARE) / workload.n_workers),
        memory_bytes=PROCESS_BYTES // 2 + min(faces, config.part_faces) * CAST_BYTES_PER_FACE,
        disk_bytes=faces * (MESH_BYTES_PER_FACE + SURFACE_BYTES_PER_FACE + chunk_bytes) + GLB_BYTES,
        note=f"about {n_bricks:,} bricks, {faces / 1e6:,.1f} M faces",
    )


FUSE = Stage(
    name="fuse",
    needs=("train",),
    version=6,
    config=FuseConfig,
    result=FuseResult,
    run=fuse_blocks,
    estimate=estimate_fuse_cost,
)
