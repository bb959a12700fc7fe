"""The fuse stage: the SDF bricks of all blocks in, one clean coloured mesh out."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from pipeline import scene, store
from pipeline.errors import QuoinError
from pipeline.progress import Reporter
from pipeline.run import Run, stage
from stages.fuse import surface
from stages.fuse.blend import Source, bricks_to_march
from stages.fuse.clean import enough_views, large_pieces
from stages.fuse.colors import Samples, bilinear, fill_unknown, photo_gains, vertex_colors
from stages.fuse.config import FuseConfig, FuseResult
from stages.fuse.extract import EdgeKeys, Patch, weld
from stages.fuse.files import write_glb, write_ply
from stages.fuse.mesh import Mesh, components, decimate, edge_counts, face_areas, vertex_normals
from stages.fuse.visibility import Seen, View, cast_scenes, depth_map, make_view, seen

Array = np.ndarray


@stage("fuse", needs=("train",), version=1, result=FuseResult)
def run(run: Run, config: FuseConfig, report: Reporter) -> FuseResult:
    """Blend, extract, clean, colour: surface/<tile> in the store, mesh.ply, mesh.glb. QuoinError where it is empty."""
    clock = Clock()
    partition = scene.read_partition(run)
    lattice = partition.lattice
    with clock("blend"):
        sources = read_sources(run, partition, config.cache_bricks)
        bricks = bricks_to_march(sources)
        if len(bricks) == 0:
            raise QuoinError(
                f"There is no surface: no SDF sign change in any of {len(sources)} blocks",
                where=run.path,
                do="look at the training curves in the report; train longer, or check masks and poses",
            )
        edge_keys = surface.edge_keys_of(sources, lattice.brick_size)
        patch = extract_patch(run, sources, bricks, edge_keys, lattice.brick_size, report)
        torn = surface.torn_edges(patch, edge_keys, bricks, lattice.brick_size)
        if torn:
            report.log("fuse", f"{torn} open edges inside the known bricks: the blocks do not fit together", "warning")
        raw = surface.to_mesh(patch, edge_keys, lattice)
        del patch
    with clock("clean"):
        posed = scene.read_posed(run)
        eyes = Eyes(run, posed, lattice.voxel_size_m, config, report)
        min_views = min(config.min_views, max(1, len(posed) // 4)) if config.min_views else 0
        views = eyes.count(raw)
        was_seen = enough_views(raw.faces, views, min_views)
        if not was_seen.any():
            raise QuoinError(
                f"There is no surface that {min_views} photos see, though the blocks hold {len(raw.faces)} faces",
                where=run.path,
                do="look at cameras and blocks in the report; lower fuse.min_views",
            )
        mesh = raw.part(was_seen)
        extent = np.linalg.norm(np.ptp(mesh.vertices_world, axis=0))
        large = large_pieces(mesh, config.island_diameter * float(extent))
        mesh = mesh.part(large)
        report.log(
            "fuse",
            f"{len(raw.faces):,} faces; {int((~was_seen).sum()):,} dropped that fewer than {min_views} photos see, "
            f"{int((~large).sum()):,} in small islands",
        )
    with clock("colour"):
        normals = vertex_normals(mesh)
        samples = eyes.sample(mesh, normals)
        gains = photo_gains(samples, len(posed), seed=run.seed)
        colors, known = vertex_colors(samples, gains)
        mesh = Mesh(mesh.vertices_world, mesh.faces, fill_unknown(colors, known, mesh.vertices_world))
        del samples
    with clock("write"):
        write_ply(run.path / "mesh.ply", mesh, normals)
        light = decimate(mesh, config.glb_faces)
        write_glb(run.path / "mesh.glb", light, vertex_normals(light))
    with clock("measure"):
        areas = face_areas(mesh)
        n_components, piece = components(mesh.faces, len(mesh.vertices_world))
        return FuseResult(
            n_vertices=len(mesh.vertices_world),
            n_faces=len(mesh.faces),
            n_components=n_components,
            n_boundary_edges=int((edge_counts(mesh.faces)[1] == 1).sum()),
            n_torn_edges=torn,
            largest_component_share=float(np.bincount(piece, areas).max() / areas.sum()),
            area_m2=float(areas.sum()),
            n_blocks=len(sources),
            n_bricks=len(bricks),
            n_raw_faces=len(raw.faces),
            dropped_unseen_faces=int((~was_seen).sum()),
            dropped_island_faces=int((~large).sum()),
            min_views=min_views,
            glb_faces=len(light.faces),
            gain_range=(float(gains.min()), float(gains.max())),
            seconds=clock.seconds,
        )


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


def read_sources(run: Run, partition: scene.Partition, cache_bricks: int) -> list[Source]:
    """All blocks, ready to be blended; their bricks are read on demand, ``cache_bricks`` of them kept."""

    @functools.lru_cache(maxsize=cache_bricks)
    def read(block_id: str, row: int) -> Array:
        return scene.read_sdf_brick(run, block_id, row)

    alone = len(partition.blocks) == 1
    return [
        surface.make_source(
            b.core, b.halo_bricks, scene.read_brick_index(run, b.id), functools.partial(read, b.id), alone=alone
        )
        for b in partition.blocks
    ]


def extract_patch(
    run: Run, sources: list[Source], bricks: Array, edge_keys: EdgeKeys, size: int, report: Reporter
) -> Patch:
    """The raw surface: every tile is extracted and stored under surface/, then all are welded."""
    store.delete(run.scene, "surface")
    names = []
    with report.task("fuse/surface", len(bricks), "bricks") as advance:
        done = 0
        for tile in surface.tiles(bricks):
            patch = surface.march_tile(sources, tile, edge_keys, size, scene.SDF_CLIP_VOXELS)
            done += len(tile)
            advance(done)
            if len(patch.faces) == 0:
                continue
            name = "surface/" + "_".join(map(str, (tile[0] // surface.TILE_BRICKS).tolist()))
            for part in ("keys", "fractions", "faces"):
                store.write(run.scene, f"{name}/{part}", getattr(patch, part))
            names.append(name)
    return weld([Patch(*(store.read(run.scene, f"{n}/{p}") for p in ("keys", "fractions", "faces"))) for n in names])


class Eyes:
    """The posed photos looking at a mesh: how many see each vertex, and what colours they give it."""

    def __init__(self, run: Run, posed: scene.Posed, voxel_size_m: float, config: FuseConfig, report: Reporter) -> None:
        self.run, self.posed, self.voxel_size_m, self.config, self.report = run, posed, voxel_size_m, config, report

    def _look(self, mesh: Mesh, normals: Array, name: str) -> Iterator[tuple[int, View, Seen]]:
        middle = mesh.vertices_world.mean(axis=0)
        local = (mesh.vertices_world - middle).astype(np.float32)
        scenes = cast_scenes(local, mesh.faces, self.config.cast_faces)
        posed = self.posed
        with self.report.task(f"fuse/{name}", len(posed), "photos") as advance:
            for i in range(len(posed)):
                view = make_view(
                    posed.cam_from_world[i], posed.intrinsics[i], posed.sizes[i], self.config.depth_edge_px, middle
                )
                mask = scene.read_mask(self.run, i)
                found = seen(
                    view,
                    depth_map(scenes, view),
                    None if (mask > 127).all() else mask,
                    local,
                    normals,
                    tolerance=1.5 * self.voxel_size_m,
                    min_cosine=self.config.min_cosine,
                )
                advance(i + 1)
                yield i, view, found

    def count(self, mesh: Mesh) -> Array:
        """How many photos see each vertex [v]."""
        views = np.zeros(len(mesh.vertices_world), np.int32)
        for _, _, found in self._look(mesh, vertex_normals(mesh), "views"):
            views[found.vertex] += 1
        return views

    def sample(self, mesh: Mesh, normals: Array) -> Samples:
        """The best colour samples of each vertex: seen straight on and from near counts more."""
        samples = Samples.empty(len(mesh.vertices_world), self.config.color_samples)
        for i, _, found in self._look(mesh, normals, "colours"):
            if len(found.vertex) == 0:
                continue
            footprint = found.depth / self.posed.intrinsics[i, :2].mean()  # metres per level-0 pixel
            level = np.log2(self.voxel_size_m / max(float(np.median(footprint)), 1e-12))
            level = int(np.clip(np.floor(level + 0.25), 0, scene.PYRAMID_LEVELS - 1))
            rgb = bilinear(scene.read_photo(self.run, i, level), found.place)
            samples.add(i, found.vertex, rgb, (found.cosine / np.sqrt(footprint)).astype(np.float32))
        return samples
