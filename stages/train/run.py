"""Train one block: gather what the store knows of it, train, extract its SDF bricks into the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline import scene
from pipeline.config import digest
from pipeline.errors import QuoinError
from pipeline.lattice import Lattice
from pipeline.progress import Reporter
from pipeline.run import Run, peak_memory_bytes
from stages.train import checkpoint, extract
from stages.train.config import VERSION, BlockResult, TrainConfig
from stages.train.gather import build_trainer
from stages.train.photos import BlockFrame
from stages.train.trainer import Trainer


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
    if config.budget_minutes is not None:
        all_cost = sum(b.cost for b in partition.blocks)
        trainer.budget_s = 60.0 * config.budget_minutes * (block.cost / all_cost if all_cost > 0 else 1.0)
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


def train(
    trainer: Trainer,
    config: TrainConfig,
    report: Reporter,
    name: str,
    log: MetricLog,
    save: Callable[[Trainer], None],
) -> float:
    """Run the loop to the end; returns seconds per step (after the first steps, which compile)."""
    began = saved = time.monotonic()
    timed_from, timed_step, spent_s = began, trainer.step, trainer.spent_s
    with report.task(name, config.steps, "steps") as advance:
        while trainer.share < 1.0:
            values = trainer.advance()
            trainer.spent_s = spent_s + time.monotonic() - began
            if trainer.step - timed_step == 20 and timed_from == began:
                timed_from, timed_step = time.monotonic(), trainer.step
            advance(trainer.share * config.steps)
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


def extract_bricks(
    trainer: Trainer, lattice: Lattice, block: scene.Block, frame: BlockFrame, report: Reporter, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """SDF bricks of the block's outer box, in voxels."""
    scale = frame.radius_m / lattice.voxel_size_m
    size, clip = lattice.brick_size, scene.SDF_CLIP_VOXELS

    def sdf_voxels(index: np.ndarray) -> np.ndarray:
        local = frame.to_local(lattice.sample_world(index)).astype(np.float32)
        return trainer.sdf(torch.from_numpy(local).to(trainer.device)).cpu().numpy() * scale

    with report.task(f"{name}/extract", 1.0) as advance:
        if not trainer.config.surface.distance:
            return extract.sample_level(sdf_voxels, block.outer, size, clip)
        return extract.sample_bricks(sdf_voxels, block.outer.bricks(), size, clip, advance)


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
