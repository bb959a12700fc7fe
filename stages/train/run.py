"""Train one block: gather what the store knows of it, train, extract its SDF bricks into the store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline import scene
from pipeline.cameras import pixel_grid
from pipeline.config import digest
from pipeline.covisibility import seen_matrix, source_photos
from pipeline.errors import QuoinError
from pipeline.progress import Reporter
from pipeline.run import Run, peak_memory_bytes
from stages.train import checkpoint, extract, seed
from stages.train.config import VERSION, BlockResult, TrainConfig
from stages.train.model import BlockModel
from stages.train.photos import TILE, BlockFrame, PhotoSet
from stages.train.trainer import Evidence, Trainer, lines_of_sight
from stages.train.volume import Volume

N_SOURCES = 8


def choose_device(device: str) -> str:
    """``auto`` becomes cuda where there is one, else cpu."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise QuoinError("No CUDA device is available", where=device, do="use --device cpu, or see quoin doctor")
    return device


def train_block(run: Run, config: TrainConfig, report: Reporter, block_id: str, device: str = "auto") -> BlockResult:
    """Train block ``block_id``, from its checkpoint where there is one, and put its SDF bricks into the store."""
    began = time.monotonic()
    device = choose_device(device)
    torch.manual_seed(run.seed)
    name = f"train/{block_id}"
    partition = scene.read_partition(run)
    block = partition.block(block_id)
    folder = scene.block_folder(run, block_id)
    known = [run.require(stage).key for stage in ("partition", "priors")]
    key = digest([config.model_dump(), known, block_id, run.seed, VERSION])
    frame = BlockFrame.around(*partition.lattice.box_world(block.outer))
    trainer = build_trainer(run, config, block, frame, device)
    log = MetricLog(run.table(f"train_{block_id}"))
    state = checkpoint.load(folder, key)
    if state is not None:
        trainer.restore(state)
        log.keep_before(trainer.step)
        report.log(name, f"going on from step {trainer.step} of {config.steps}")
    seconds = train(trainer, config, report, name, log, lambda t: checkpoint.save(folder, t.state(), key))

    psnr = trainer.held_out_psnr()
    bricks, sdf = extract_bricks(trainer, partition.lattice, block, frame, report, name)
    if len(bricks) == 0:
        report.log(name, "no surface found in this block: the SDF does not change sign", "warning")
    scene.write_sdf_bricks(run, block_id, scene.SdfBricks(bricks, sdf))
    log.write()
    return BlockResult(
        block=block_id,
        steps=trainer.step,
        seconds=time.monotonic() - began,
        heldout_psnr_db=psnr,
        rays_per_s=config.rays / max(seconds, 1e-9),
        n_bricks=len(bricks),
        peak_memory_bytes=peak_memory_bytes() if device == "cpu" else int(torch.cuda.max_memory_allocated()),
        device=device,
    )


def build_trainer(run: Run, config: TrainConfig, block: scene.Block, frame: BlockFrame, device: str) -> Trainer:
    """Photos, cameras and SfM evidence of a block, and a model that starts from them."""
    posed = scene.read_posed(run)
    if len(block.photo_index) == 0:
        raise QuoinError("No photo sees this block", where=block.id, do="lower partition.min_blocks")
    torch.manual_seed(run.seed)
    index = np.asarray(block.photo_index)
    local_of = np.full(len(posed), -1)
    local_of[index] = np.arange(len(index))
    points = frame.to_local(posed.points_world)
    inside = np.all(np.abs(points) <= frame.half, axis=1)
    if not inside.any():
        raise QuoinError("No SfM point lies in this block", where=block.id, do="give more overlapping photos")
    keep = local_of[posed.track_photo] >= 0
    photo, point, xy = local_of[posed.track_photo][keep], posed.track_point[keep], posed.track_xy[keep]
    cameras = frame.camera_from_local(posed.cam_from_world[index])
    centres = -np.einsum("kji,kj->ki", cameras[:, :, :3], cameras[:, :, 3])

    known = gather_evidence(run, posed, block, frame, cameras, points, photo, point)
    evidence = Evidence(**{k: torch.tensor(v, dtype=torch.float32) for k, v in known.items() if k != "towards"})
    seen = seen_matrix(len(index), len(points), photo, point)
    observed = []
    for k in range(len(index)):
        mine = photo == k
        observed.append((xy[mine], _kind(points[point[mine]], centres[k], frame.half)))
    weights = seed.tile_weights(posed.sizes[index], observed, TILE)
    photos = PhotoSet(
        [scene.read_photo(run, int(i)) for i in index],
        [scene.read_mask(run, int(i)) for i in index],
        cameras,
        posed.intrinsics[index],
        weights,
        source_photos(centres, seen[:, inside], points[inside].astype(np.float32), N_SOURCES),
        held_out_share=config.held_out_share,
        seed=run.seed,
    )
    if len(photos.tiles) == 0:
        raise QuoinError("The masks leave nothing of this block to train on", where=block.id, do="check the masks")
    half = torch.tensor(frame.half, dtype=torch.float32)
    cache = Volume.over(half, config.volume_resolution)
    start = seed.seed_sdf(
        known["points"], known["towards"], -frame.half, float(cache.spacing), tuple(cache.values.shape)
    )
    cache.values.copy_(torch.from_numpy(start))
    model = BlockModel(
        Volume(cache.values.clone(), cache.low, float(cache.spacing)),
        len(index),
        n_levels=config.levels,
        coarsest=config.coarsest,
        finest=config.finest,
        log2_table=config.log2_table,
        sharpness=config.sharpness,
    )
    return Trainer(model, photos, evidence, cache, half, config, device, run.seed)


MAX_STEREO_POINTS = 400_000


def gather_evidence(
    run: Run,
    posed: scene.Posed,
    block: scene.Block,
    frame: BlockFrame,
    cameras: np.ndarray,
    points: np.ndarray,
    photo: np.ndarray,
    point: np.ndarray,
) -> dict[str, np.ndarray]:
    """The fields of Evidence and ``towards``, from SfM tracks (``photo``, ``point``) and from believed stereo depths.

    All in the block's frame. A track's point weighs by its length and reprojection error, a stereo point fully.
    """
    centres = -np.einsum("kji,kj->ki", cameras[:, :, :3], cameras[:, :, 3])
    inside = np.all(np.abs(points) <= frame.half, axis=1)
    error, length = posed.point_errors_px, posed.track_lengths
    weight = np.minimum(length, 6) / 6.0 / (1.0 + error**2)
    viewer = np.zeros_like(points)
    np.add.at(viewer, point, _unit(centres[photo] - points[point]))
    stereo, by = _stereo_points(run, block, frame, posed, cameras)
    sight_point = np.concatenate([point, len(points) + np.arange(len(stereo))])
    everything = np.concatenate([points, stereo])
    out = lines_of_sight(centres, everything, np.concatenate([photo, by]), sight_point, frame.half)
    out["points"] = np.concatenate([points[inside], stereo])
    out["weight"] = np.concatenate([weight[inside], np.ones(len(stereo))])
    out["towards"] = np.concatenate([_unit(viewer[inside]), _unit(centres[by] - stereo)])
    return out


def _stereo_points(
    run: Run, block: scene.Block, frame: BlockFrame, posed: scene.Posed, cameras: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Points of the block's depth maps inside its box, thinned to an even density, and the photo (0..K-1) of each."""
    rng = np.random.default_rng(run.seed)
    found, by = [], []
    for k, i in enumerate(block.photo_index):
        stored = scene.read_depth(run, int(i))
        if stored is None:
            continue
        depth, level = stored
        pixels = pixel_grid(depth.shape[1], depth.shape[0])[depth.ravel() > 0] * 2.0**level
        z = depth[depth > 0] / frame.radius_m
        intrinsics = posed.intrinsics[i]
        camera = np.concatenate([(pixels - intrinsics[2:]) / intrinsics[:2], np.ones((len(z), 1))], axis=1) * z[:, None]
        local = (camera - cameras[k, :, 3]) @ cameras[k, :, :3]
        local = local[np.all(np.abs(local) <= frame.half, axis=1)]
        local = local[seed.thin_out(local, 0.004, MAX_STEREO_POINTS, rng)]
        found.append(local)
        by.append(np.full(len(local), k))
    if not found:
        return np.zeros((0, 3)), np.zeros(0, int)
    points, photo = np.concatenate(found), np.concatenate(by)
    keep = seed.thin_out(points, 0.004, MAX_STEREO_POINTS, rng)
    return points[keep], photo[keep]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def _kind(points: np.ndarray, centre: np.ndarray, half: np.ndarray) -> np.ndarray:
    """1 for points inside the box, -1 for points between the camera and the box, 0 for the others."""
    inside = np.all(np.abs(points) <= half, axis=1)
    # a ray through the point that meets the box only beyond it
    reach = np.linalg.norm(points - centre, axis=1)
    enter = np.full(len(points), np.inf)
    direction = (points - centre) / np.maximum(reach, 1e-9)[:, None]
    safe = np.where(np.abs(direction) < 1e-9, 1e-9, direction)
    a, b = (-half - centre) / safe, (half - centre) / safe
    start, stop = np.minimum(a, b).max(axis=1), np.maximum(a, b).min(axis=1)
    meets = stop > np.maximum(start, 0.0)
    enter[meets] = start[meets]
    return np.where(inside, 1, np.where(meets & (reach < enter), -1, 0))


def train(trainer: Trainer, config: TrainConfig, report: Reporter, name: str, log: MetricLog, save) -> float:  # type: ignore[no-untyped-def]
    """Run the loop to the end; returns seconds per step (after the first steps, which compile)."""
    began = saved = time.monotonic()
    timed_from, timed_step = began, trainer.step
    with report.task(name, config.steps, "steps") as advance:
        while trainer.step < config.steps:
            values = trainer.advance()
            if trainer.step - timed_step == 20 and timed_from == began:
                timed_from, timed_step = time.monotonic(), trainer.step
            advance(trainer.step)
            if values is not None:
                report.metrics(name, trainer.step, values)
                log.add(trainer.step, time.monotonic() - began, values)
            if trainer.step % config.measure_every == 0:
                psnr = trainer.held_out_psnr()
                if psnr is not None:
                    report.metrics(name, trainer.step, {"heldout_psnr_db": psnr})
                    log.add(trainer.step, time.monotonic() - began, {"heldout_psnr_db": psnr})
            if time.monotonic() - saved > 60.0 * config.checkpoint_minutes:
                save(trainer)
                log.write()
                saved = time.monotonic()
    save(trainer)
    log.write()
    return (time.monotonic() - timed_from) / max(trainer.step - timed_step, 1)


def extract_bricks(trainer, lattice, block, frame, report, name):  # type: ignore[no-untyped-def]
    """SDF bricks of the block's outer box, in voxels."""
    scale = frame.radius_m / lattice.voxel_size_m

    @torch.no_grad()
    def sdf_voxels(index: np.ndarray) -> np.ndarray:
        local = frame.to_local(lattice.sample_world(index)).astype(np.float32)
        parts = torch.from_numpy(local).to(trainer.device).split(1 << 16)
        return torch.cat([trainer.model.surface.sdf(part) for part in parts]).cpu().numpy() * scale

    with report.task(f"{name}/extract", 1.0) as advance:
        return extract.sample_bricks(
            sdf_voxels, block.outer.bricks(), lattice.brick_size, scene.SDF_CLIP_VOXELS, advance
        )


class MetricLog:
    """tables/train_<block>.parquet: step, seconds, name, value; rewritten whole, for it is small."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def add(self, step: int, seconds: float, values: dict[str, float]) -> None:
        self.rows.extend({"step": step, "seconds": seconds, "name": k, "value": float(v)} for k, v in values.items())

    def keep_before(self, step: int) -> None:
        """Take over the rows of an earlier attempt up to ``step``."""
        if self.path.exists():
            self.rows = [row for row in pq.read_table(self.path).to_pylist() if row["step"] <= step]

    def write(self) -> None:
        pq.write_table(pa.Table.from_pylist(self.rows), self.path) if self.rows else None
