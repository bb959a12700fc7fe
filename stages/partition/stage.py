"""The partition stage: from posed photos and points to a region, a lattice, and blocks with their photos."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import Block, Partition, write_partition
from quoin.pipeline.scene.sensor_depth import add_sensor_points
from quoin.pipeline.scene.world import read_world
from quoin.pipeline.storage.stage import GIB, Stage, StageContext
from quoin.stages.partition import block_photos, block_split, region
from quoin.stages.partition.config import BlockPlan, PartitionConfig, PartitionResult

Array = np.ndarray

MIN_CORE_BRICKS = 2  # a narrower core would be all halo
MAX_SAMPLES = 1 << 18  # lattice samples along a side: what edges can be numbered for
MAX_OBSERVATIONS = 300_000  # looked at when the region is chosen


def partition_scene(context: StageContext, config: PartitionConfig) -> PartitionResult:
    """Choose region, voxel size and blocks; writes the partition to the store. QuoinError where there are no points."""
    run, report = context.run, context.report
    with report.task("partition", 1):
        posed = posed_images.read_posed(run)
        held_out = block_photos.select_held_out(posed.names, config.hold_out_every)
        observation_table = ObservationTable.from_posed(add_sensor_points(run, posed, held_out))
        supported, low, high = find_region(observation_table, config, run.seed)
        gsd_m = observation_table.gsd_m(supported)
        size = config.voxel_size_m or region.voxel_size(
            low, high, gsd_m, resolution=config.resolution, gsd_factor=config.gsd_factor
        )
        if float((high - low).max()) / size > MAX_SAMPLES:
            raise QuoinError(
                f"Voxels of {size:.3g} m are too small for a region of {float((high - low).max()):.4g} m",
                where="partition.voxel_size_m",
                hint=f"choose at least {float((high - low).max()) / MAX_SAMPLES:.3g}",
            )
        lattice, box = region.lattice_around(low, high, size, config.brick_size)
        max_memory_bytes = memory_cap_bytes(config, posed)
        planned = plan_blocks(observation_table, lattice, box, config, max_memory_bytes, run.seed, report)
        if not planned:
            raise QuoinError("No photo sees any block", where=run.location, hint="look at the poses in the report")
        partition = Partition(lattice, planned, *lattice.box_world(box), held_out)
        write_partition(run, partition)
        result = partition_result(partition, observation_table, gsd_m, int(supported.sum()))
    world = read_world(run)
    if result.held_out:
        report.log("partition", f"{len(result.held_out)} of {len(posed)} photos are held out")
    report.table("partition", [b.model_dump() for b in result.blocks])
    report.log(
        "partition",
        f"{result.n_blocks} block{'s' if result.n_blocks > 1 else ''} with voxels of {world.length(size)} "
        f"({world.length(gsd_m)} a pixel), {' × '.join(map(str, result.lattice_shape))} samples, "
        f"{result.covered_share:.1%} of the points inside",
    )
    return result


def memory_cap_bytes(config: PartitionConfig, posed: posed_images.Posed) -> int:
    """What a block may take; QuoinError where none can do with that."""
    least = block_split.min_memory_bytes(float(np.median(posed.sizes.prod(axis=1))), config.brick_size)
    if config.memory_gib is None:
        return max(int(0.6 * block_split.machine_memory_bytes()), least)
    cap = int(config.memory_gib * GIB)
    if cap < least:
        raise QuoinError(
            f"Training a block takes {least / GIB:.2f} GiB however small it is; {config.memory_gib:g} are allowed",
            where="partition.memory_gib",
            hint=f"allow {math.ceil(10 * least / GIB) / 10:.1f} or more with --memory",
        )
    return cap


@dataclass(frozen=True)
class ObservationTable:
    """Posed photos with what partitioning derives from every observation."""

    posed: posed_images.Posed
    point: Array  # [t] of every observation
    footprint_m: Array  # [t] size of a pixel at the point
    depth: Array  # [t]
    cell: Array  # [t] which part of its photo an observation lies in
    cell_photo: Array  # [c] the photo of every such part
    n_cells: Array  # [n] such parts of every photo

    @classmethod
    def from_posed(cls, posed: posed_images.Posed) -> ObservationTable:
        if len(posed.points_world) == 0 or len(posed.track_photo) == 0:
            raise QuoinError("The poses came without points", hint="give more overlapping photos, or poses with points")
        point = posed.track_point
        depth = region.observation_depths(posed.cam_from_world, posed.points_world, posed.track_photo, point)
        focal = posed.intrinsics[posed.track_photo, :2].mean(axis=1)
        cell, cell_photo = block_photos.photo_cells(posed.track_xy, posed.track_photo, posed.sizes)
        n_cells = np.bincount(cell_photo, minlength=len(posed))
        return cls(posed, point, np.maximum(depth, 0) / focal, depth, cell, cell_photo, n_cells)

    def observations(self, points: Array) -> Array:
        """Rows [o] of the observations of points (sorted) by photos that have them in front, point by point."""
        starts, lengths = self.posed.track_offsets[points], self.posed.track_lengths[points]
        ends = np.cumsum(lengths)
        rows = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - ends + lengths, lengths)
        return rows[self.depth[rows] > 0]

    def nearest_depths(self) -> Array:
        """Least depth of every point [p] over the photos that see it; 0 where none has it in front."""
        out = np.full(len(self.posed.points_world), np.inf)
        front = self.depth > 0
        np.minimum.at(out, self.point[front], self.depth[front])
        return np.where(np.isfinite(out), out, 0.0)

    def gsd_m(self, supported: Array) -> float:
        """Median size of a pixel on the surface."""
        good = supported[self.point] & (self.depth > 0)
        return float(np.median(self.footprint_m[good] if good.any() else self.footprint_m))


def find_region(observation_table: ObservationTable, config: PartitionConfig, seed: int) -> tuple[Array, Array, Array]:
    """Which points are supported [p], and the corners of the region."""
    posed = observation_table.posed
    depths = observation_table.nearest_depths()
    angles = region.triangulation_angles(
        posed.cam_from_world, posed.points_world, posed.track_photo, observation_table.point
    )
    supported = region.supported_points(
        region.PointStatistics(posed.points_world, posed.track_lengths, posed.point_errors_px, angles, depths),
        min_track=config.min_track,
        min_angle=np.deg2rad(config.min_angle_deg),
        max_depth=config.max_depth_factor
        * float(np.median(observation_table.depth[observation_table.depth > 0], axis=None))
        if (observation_table.depth > 0).any()
        else 0.0,
    )
    if not supported.any():
        raise QuoinError("No point lies in front of the cameras that see it", hint="check the poses")
    good = np.flatnonzero(supported[observation_table.point])
    if len(good) > MAX_OBSERVATIONS:
        good = np.random.default_rng(seed).choice(good, MAX_OBSERVATIONS, replace=False)
    cells, cell = np.unique(observation_table.cell[good], return_inverse=True)
    number = np.cumsum(supported) - 1
    low, high = region.region_box(
        posed.points_world[supported],
        number[observation_table.point[good]],
        cell,
        observation_table.cell_photo[cells],
        config.margin,
    )
    return supported, low, high


def plan_blocks(
    observation_table: ObservationTable,
    lattice: Lattice,
    box: BrickBox,
    config: PartitionConfig,
    cap_bytes: int,
    seed: int,
    report: Reporter,
) -> list[Block]:
    """Blocks within the memory cap, those that no photo sees left out."""
    posed = observation_table.posed
    brick = lattice.brick_of(posed.points_world)
    inside = box.contains(brick)
    brick_costs = block_split.estimate_brick_costs(brick[inside], posed.track_lengths[inside])
    points = block_split.PointsByBrick.from_point_bricks(brick)

    @functools.cache  # a core is made to see whether it fits, and again where it does
    def make_block(core: BrickBox) -> Block:
        outer = core.grow(config.halo_bricks)
        rows = observation_table.observations(points.within(outer))
        photo_index, photo = np.unique(posed.track_photo[rows], return_inverse=True)  # photos numbered among those near
        share = block_photos.visible_shares(
            observation_table.cell[rows],
            observation_table.cell_photo,
            observation_table.n_cells[photo_index],
            photo_index,
        )
        footprint_m = observation_table.footprint_m[rows]
        best = block_photos.select_photos(
            photo, observation_table.point[rows], footprint_m, share, max_photos=config.max_photos, seed=seed
        )
        n_bricks = block_split.surface_bricks(int(outer.contains(brick_costs.bricks).sum()))
        level = block_photos.pyramid_levels(
            photo, footprint_m, lattice.voxel_size_m, posed_images.PYRAMID_LEVELS - 1, len(photo_index)
        )[best]
        order = photo_index[best]
        pixels = int(n_pixels(posed, order, level).sum())
        return Block(
            "",
            core,
            config.halo_bricks,
            order,
            share[best],
            cost=brick_costs.cost_in(core),
            memory_bytes=block_split.block_memory_bytes(pixels, n_bricks, config.brick_size),
            notes={"n_points": len(points.within(core)), "n_bricks": n_bricks},
            photo_level=level,
        )

    cores = block_split.split_into_cores(
        box,
        brick_costs,
        lambda core: make_block(core).memory_bytes <= cap_bytes,
        min_blocks=config.min_blocks,
        side_limits=(MIN_CORE_BRICKS, max(2 * MIN_CORE_BRICKS, config.max_block_samples // config.brick_size)),
    )
    kept: list[Block] = []
    for core in cores:
        block = drop_photos_over_cap(make_block(core), posed, cap_bytes, config.brick_size, report)
        if len(block.photo_index) == 0:
            report.log("partition", f"no photo sees the block at bricks {core.low}..{core.high}: left out")
            continue
        kept.append(Block(**{**vars(block), "id": f"b{len(kept):03d}"}))
    if len(kept) < config.min_blocks:
        report.log("partition", f"{config.min_blocks} blocks were asked for, the region allows {len(kept)}", "warning")
    return kept


def drop_photos_over_cap(
    block: Block, posed: posed_images.Posed, cap_bytes: int, brick_size: int, report: Reporter
) -> Block:
    """The block with its least useful photos left out until it keeps the memory cap (it keeps two at least)."""
    bricks = block.notes["n_bricks"]
    pixels = np.cumsum(n_pixels(posed, block.photo_index, block.photo_level))
    memory = np.array([block_split.block_memory_bytes(int(p), bricks, brick_size) for p in pixels])
    if len(memory) == 0 or memory[-1] <= cap_bytes:
        return block
    n = max(2, int((memory <= cap_bytes).sum()))
    report.log(
        "partition",
        f"block at bricks {block.core.low}: {n} of {len(memory)} photos fit into {cap_bytes / GIB:.1f} GiB",
        "warning",
    )
    changed = {name: getattr(block, name)[:n] for name in ("photo_index", "photo_weight", "photo_level")}
    return Block(**{**vars(block), **changed, "memory_bytes": int(memory[:n][-1])})


def n_pixels(posed: posed_images.Posed, photo: Array, level: Array) -> Array:
    """Pixels of photos at levels of their pyramids."""
    return posed.sizes[photo].prod(axis=1) // 4**level


def partition_result(
    partition: Partition, observation_table: ObservationTable, gsd_m: float, n_supported: int
) -> PartitionResult:
    """The partition in numbers."""
    lattice, low, high = partition.lattice, partition.region_low_world, partition.region_high_world
    points = observation_table.posed.points_world
    inside = np.all((points >= low) & (points <= high), axis=1)
    listed = []
    for b in partition.blocks:
        core_low, core_high = lattice.box_world(b.core)
        listed.append(
            BlockPlan(
                id=b.id,
                core_low_world=tuple(core_low.tolist()),
                core_high_world=tuple(core_high.tolist()),
                n_photos=len(b.photo_index),
                n_points=b.notes["n_points"],
                cost=b.cost,
                memory_bytes=b.memory_bytes,
                n_bricks=b.notes["n_bricks"],
                pixels=int(n_pixels(observation_table.posed, b.photo_index, b.photo_level).sum()),
            )
        )
    return PartitionResult(
        n_blocks=len(partition.blocks),
        voxel_size_m=lattice.voxel_size_m,
        gsd_m=gsd_m,
        lattice_shape=tuple(np.rint((high - low) / lattice.voxel_size_m).astype(int).tolist()),
        region_low_world=tuple(low.tolist()),
        region_high_world=tuple(high.tolist()),
        n_points_supported=n_supported,
        covered_share=float(inside.mean()),
        held_out=tuple(observation_table.posed.names[i] for i in partition.held_out),
        n_photos=len(observation_table.posed),
        megapixels=float(observation_table.posed.sizes.prod(axis=1).sum()) / 1e6,
        long_edge_px=float(np.median(observation_table.posed.sizes.max(axis=1))),
        blocks=listed,
    )


PARTITION = Stage(
    name="partition",
    needs=("pose",),
    version=3,
    config=PartitionConfig,
    result=PartitionResult,
    run=partition_scene,
)
