"""The fuse stage: the SDF bricks of all blocks in, one clean coloured mesh out."""

from __future__ import annotations

import functools
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from pipeline import labels, scene, store
from pipeline.bare import depth_of, read_bare, read_planes
from pipeline.confidence import confident_faces
from pipeline.errors import QuoinError
from pipeline.exposure import photo_gains
from pipeline.progress import Reporter
from pipeline.run import Run, stage
from stages.fuse import surface
from stages.fuse.blend import Source, bricks_to_march
from stages.fuse.clean import colour_agreement, confirmed, large_pieces, mostly_sky, support, supported_faces
from stages.fuse.colors import Samples, bilinear, fill_unknown, vertex_colors
from stages.fuse.config import FuseConfig, FuseResult
from stages.fuse.evidence import Rays, confidence, depth_votes, nearest, toward
from stages.fuse.extract import EdgeKeys, Patch, weld
from stages.fuse.files import write_glb, write_ply
from stages.fuse.flatten import PlaneVotes, flattened
from stages.fuse.mesh import Mesh, components, decimate, edge_counts, face_areas, vertex_normals
from stages.fuse.visibility import Seen, apart_from_sky, depth_maps, make_view, seen

Array = np.ndarray
Result = TypeVar("Result")

TOLERANCE_VOXELS = 1.5  # a vertex so little behind what a photo sees counts as seen


@stage("fuse", needs=("train",), version=3, result=FuseResult)
def run(run: Run, config: FuseConfig, report: Reporter) -> FuseResult:
    """Blend, extract, clean, colour: surface/<tile> in the store, mesh.ply, mesh.glb. QuoinError where it is empty."""
    clock = Clock()
    partition = scene.read_partition(run)
    lattice = partition.lattice
    with clock("blend"):
        missing = run.require("train").result.get("missing", {})
        there = [block for block in partition.blocks if block.id not in missing]
        sources = read_sources(run, replace(partition, blocks=there), config.cache_bricks)
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
    with clock("look"):
        posed = scene.read_posed(run)
        looked = look(run, posed, raw, lattice.voxel_size_m, config, report)
    with clock("flatten"):
        near = TOLERANCE_VOXELS * lattice.voxel_size_m
        raw = flattened(raw, looked.flat, read_planes(run), vertex_normals(raw), near)
    with clock("clean"):
        made = clean(raw, looked, len(posed), config, run.seed)
        mesh, n_raw_faces = made.mesh, len(raw.faces)
        del raw, looked
        report.log(
            "fuse",
            f"{n_raw_faces:,} faces; {made.n_sky:,} dropped that photos see as sky, "
            f"{made.n_unsupported:,} that too few photos confirm, "
            f"{made.n_islands:,} in small islands",
        )
    with clock("write"):
        holes = [hole(partition, block_id) for block_id in missing]
        write_ply(run.path / "mesh.ply", mesh, vertex_normals(mesh), comments=holes)
        light = decimate(replace(mesh, values={"confidence": mesh.values["confidence"]}), config.glb_faces)
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
            missing_blocks=list(missing),
            n_bricks=len(bricks),
            n_raw_faces=n_raw_faces,
            dropped_sky_faces=made.n_sky,
            dropped_unsupported_faces=made.n_unsupported,
            dropped_island_faces=made.n_islands,
            min_support=made.min_support,
            disagreement=made.disagreement,
            confident_share=float(areas[confident_faces(mesh.values["confidence"], mesh.faces)].sum() / areas.sum()),
            glb_faces=len(light.faces),
            gain_range=(float(made.gains.min()), float(made.gains.max())),
            seconds=clock.seconds,
        )


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


@dataclass(frozen=True)
class Looked:
    """What photos say of the vertices of a mesh."""

    rays: Rays  # of those that see a vertex
    sky: Array  # [v] photos that show sky in its place
    votes: Array | None  # [v] photos whose stereo confirms it, without those that see through it; None without stereo
    silent: Array  # [v] photos that see it, and whose stereo says nothing of it
    samples: Samples  # the best colours
    flat: PlaneVotes


def look(run: Run, posed: scene.Posed, mesh: Mesh, voxel_size_m: float, config: FuseConfig, report: Reporter) -> Looked:
    """Let every posed photo look at the mesh.

    A sample counts by how straight on and from how near it was taken. Photos held out do not look.
    """
    normals = vertex_normals(mesh)
    middle = mesh.vertices_world.mean(axis=0)
    local = (mesh.vertices_world - middle).astype(np.float32)
    edge_px, near = config.depth_edge_px, TOLERANCE_VOXELS * voxel_size_m
    photos = np.setdiff1d(np.arange(len(posed)), scene.read_held_out(run)).tolist()
    views = [make_view(posed.cam_from_world[i], posed.intrinsics[i], posed.sizes[i], edge_px, middle) for i in photos]
    planes = read_planes(run)
    depth_seen = depth_maps(local, mesh.faces, views, config.cast_faces)

    def one(view: int) -> tuple[Seen, Array, Array | None, tuple[Array, Array] | None, Array, Array]:
        i = photos[view]
        shown = scene.read_labels_whole(run, i, posed.sizes[i])
        mask = np.where(shown == labels.PASSING, 0, scene.read_mask(run, i))
        found = seen(
            views[view],
            depth_seen(view),
            None if (mask > 127).all() else mask,
            local,
            normals,
            tolerance=near,
            min_cosine=config.min_cosine,
        )
        found, against = apart_from_sky(found, shown)
        told, on_plane = None, None
        if (known := scene.read_depth(run, i)) is not None:
            told = depth_votes(found, known[0], near, scene.read_depth_sigma(run, i))
            if (bare := read_bare(run, i)) is not None:  # planes confirm, and see through nothing
                intrinsics = posed.intrinsics[i] / 2**bare.level
                depth = depth_of(bare.number, planes, posed.cam_from_world[i], intrinsics)
                there = (told == 0) & (depth_votes(found, depth, near) > 0)
                told[there] = 1
                on_plane = found.vertex[there], nearest(bare.number, found.place[there])
        footprint = found.depth / posed.intrinsics[i, :2].mean() / voxel_size_m  # voxels in a level-0 pixel
        finer = np.log2(1 / max(float(np.median(footprint)), 1e-6)) if len(footprint) else 0.0
        level = int(np.clip(np.floor(finer + 0.25), 0, scene.PYRAMID_LEVELS - 1))
        rgb = bilinear(scene.read_photo(run, i, level), found.place)
        return found, against, told, on_plane, rgb, (found.cosine / np.sqrt(footprint)).astype(np.float32)

    rays, any_told = Rays.none(len(local)), False
    sky, votes, silent = np.zeros((3, len(local)), np.int32)
    samples, flat = Samples.empty(len(local), config.color_samples), PlaneVotes.none(len(local))
    with report.task("fuse/look", len(photos), "photos") as advance:
        for done, (found, against, told, on_plane, rgb, weight) in enumerate(in_order(one, range(len(photos)))):
            rays.add(found.vertex, toward(views[done].center, local[found.vertex]))
            sky[against] += 1
            votes[against] -= 1
            if told is not None:
                votes[found.vertex] += told
                silent[found.vertex] += told == 0
                any_told = True
            if on_plane is not None:
                flat.add(*on_plane)
            samples.add(photos[done], found.vertex, rgb, weight)
            advance(done + 1)
    return Looked(rays, sky, votes if any_told else None, silent, samples, flat)


@dataclass(frozen=True)
class Cleaned:
    """The coloured surface that is kept, and what was not."""

    mesh: Mesh
    gains: Array
    n_sky: int
    n_unsupported: int
    n_islands: int
    min_support: float
    disagreement: float


def clean(raw: Mesh, looked: Looked, n_photos: int, config: FuseConfig, seed: int) -> Cleaned:
    """What photos confirm of the raw surface and do not see as sky, without small islands, in their colours.

    With the evidence for each vertex; a photo that sees sky in its place takes one away that sees it.
    """
    rays, sky, samples = looked.rays, looked.sky, looked.samples
    gains = photo_gains(samples.rgb, samples.photo, samples.weight > 0, n_photos, seed=seed)
    colors, apart = vertex_colors(samples, gains)
    views = np.maximum(rays.views - sky, 0)
    agreed, usual = colour_agreement(views, np.nan_to_num(apart))
    if looked.votes is None:
        found, least = support(views, agreed, raw.faces), min(config.min_support, n_photos / 6)
    else:
        found, least = confirmed(looked.votes, looked.silent, agreed, raw.faces), config.min_confirmed
    keep = supported_faces(raw, found, least, config.hole_diameter * diagonal(raw.vertices_world))
    in_sky = mostly_sky(rays.views, sky, raw.faces)
    n_sky, n_unsupported = int(in_sky.sum()), int((~keep & ~in_sky).sum())
    keep &= ~in_sky
    if not keep.any():
        raise QuoinError(
            f"There is no surface that photos confirm, though the blocks hold {len(raw.faces):,} faces",
            do="look at cameras and blocks in the report; lower fuse.min_confirmed (without stereo: fuse.min_support)",
        )
    part = raw.part(keep)
    keep[keep] = large_pieces(part, config.island_diameter * diagonal(part.vertices_world))
    angles = rays.angles()
    values = {
        "confidence": confidence(views, angles, np.nan_to_num(apart), usual),
        "views": rays.views.astype(np.float32),
        "angle_deg": np.rad2deg(angles),
    }
    mesh = Mesh(raw.vertices_world, raw.faces, colors, values).part(keep)
    known = np.isfinite(apart)[np.unique(raw.faces[keep])]
    assert mesh.colors is not None
    mesh = replace(mesh, colors=fill_unknown(mesh.colors, known, mesh.vertices_world))
    return Cleaned(mesh, gains, n_sky, n_unsupported, len(part.faces) - len(mesh.faces), least, usual)


def diagonal(points_world: Array) -> float:
    """Of the bounding box."""
    return float(np.linalg.norm(np.ptp(points_world, axis=0)))


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
