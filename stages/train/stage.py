"""Train one block: gather what the store knows of it, train, leave its SDF bricks and its model in the store."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import OutOfMemory, QuoinError, first_line
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.lattice import Lattice
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import (
    SDF_CLIP_VOXELS,
    Block,
    SdfBricks,
    block_folder,
    read_block,
    read_whole_cost,
    write_model,
    write_sdf_bricks,
)
from quoin.pipeline.storage.fencing import CLAIM, Attempt
from quoin.pipeline.storage.retry import patiently
from quoin.pipeline.storage.run import Run, forget_peak_memory, peak_memory_bytes
from quoin.stages.train import checkpoint, refined_cameras, sdf_bricks, trained_block
from quoin.stages.train.batch_size import StepSize, out_of_memory, smaller
from quoin.stages.train.config import VERSION, BlockResult, TrainConfig
from quoin.stages.train.data.load import build_trainer
from quoin.stages.train.data.photo_set import BlockFrame
from quoin.stages.train.loop import MetricLog, train
from quoin.stages.train.preview import PREVIEWS, forget_after, keep
from quoin.stages.train.trainer import Trainer

ALONE = Attempt()


def choose_device(device: str) -> str:
    """``auto`` becomes cuda where there is one, else cpu."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise QuoinError("No CUDA device is available", where=device, do="use --device cpu, or see quoin doctor")
    return device


def train_block(
    run: Run,
    config: TrainConfig,
    report: Reporter,
    block_id: str,
    device: str = "auto",
    attempt: Attempt = ALONE,
) -> BlockResult:
    """Train block ``block_id``, from its checkpoint where there is one, and put its SDF bricks into the store.

    Asked to stop, it saves a checkpoint and raises Stopped. Raises OutOfMemory where ``attempt.smaller`` might help,
    and Superseded, with nothing more written, where another attempt has taken the block over.
    """
    try:
        return _train_block(run, config, report, block_id, device, attempt)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        reason = first_line(error)
    do = "close other programs, make blocks smaller (partition.memory_gib), or use --device cpu"
    raise OutOfMemory(f"Memory does not suffice for this block: {reason}", where=block_id, do=do)


def _train_block(
    run: Run, config: TrainConfig, report: Reporter, block_id: str, device: str, attempt: Attempt
) -> BlockResult:
    began = time.monotonic()
    device = choose_device(device)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    else:
        forget_peak_memory()
    torch.manual_seed(run.seed)
    name = f"train/{block_id}"
    report.place(name, torch.cuda.get_device_name() if device.startswith("cuda") else device)
    lattice, block = read_block(run, block_id)
    photo_level = np.minimum(block.photo_level + attempt.smaller, posed_images.PYRAMID_LEVELS - 1)
    block = replace(block, photo_level=photo_level)
    folder = block_folder(run, block_id)
    known = [run.require(stage).key for stage in ("partition", "priors")]
    key = digest([config.model_dump(), known, block_id, run.seed, VERSION])
    frame = BlockFrame.around(*lattice.box_world(block.outer))
    trainer = build_trainer(run, config, block, frame, device, report)
    trainer.warn = lambda message: report.log(name, message, "warning")
    most = smaller(trainer.size, attempt.smaller)
    trainer.size = most
    if config.budget_minutes is not None:
        all_cost = read_whole_cost(run)
        trainer.budget_s = 60.0 * config.budget_minutes * (block.cost / all_cost if all_cost > 0 else 1.0)
    log = MetricLog(run.table(f"train_{block_id}"))
    run.bring(f"tables/train_{block_id}.parquet")
    checkpoint.bring(run, folder)
    state = checkpoint.load(folder, key, trainer.warn)
    if state is not None:
        trainer.restore(state)
        began -= trainer.spent_s  # in earlier attempts
        trainer.size = StepSize(*map(min, trainer.size, most))
        log.keep_before(trainer.step)
        report.log(name, f"going on from step {trainer.step} of {config.steps}")
    elif (folder / checkpoint.NAME).exists():
        report.log(name, "the checkpoint is of other settings or inputs: starting from the beginning")
    forget_after(folder / PREVIEWS, trainer.step)

    def check() -> None:
        if attempt.id:
            run.bring((folder.relative_to(run.path) / CLAIM).as_posix())
        attempt.check(folder)

    def save(trainer: Trainer) -> None:
        def put() -> None:
            check()
            checkpoint.save(folder, trainer.state(), key)
            log.write()
            checkpoint.share(run, folder)
            run.share(f"tables/train_{block_id}.parquet")

        patiently(put, run.path, trainer.warn)

    per_step = train(
        trainer,
        config,
        report,
        name,
        log,
        save,
        show=lambda step, rgb: keep(folder / PREVIEWS, step, rgb),
        unit_m=frame.radius_m,
        voxel_m=lattice.voxel_size_m,
    )

    psnr = trainer.held_out_psnr()
    bricks, sdf = extract_bricks(trainer, lattice, block, frame, report, name)
    if len(bricks) == 0:
        report.log(name, "no surface found in this block: the SDF does not change sign", "warning")
    check()
    write_sdf_bricks(run, block_id, SdfBricks(bricks, sdf))
    trainer.refresh(near_only=True)
    write_model(run, block_id, *trained_block.to_keep(trainer.model, trainer.cache, config))
    table = run.table(f"cameras_{block_id}")
    if trainer.cameras is None:
        table.unlink(missing_ok=True)
    else:
        every = posed_images.read_posed(run).names
        names = [every[int(i)] for i in block.photo_index]
        refined_cameras.keep(
            table, refined_cameras.rows(trainer.cameras, frame, names, block.photo_level), report, name
        )
    log.write()
    run.hand_in(name)
    return BlockResult(
        block=block_id,
        steps=trainer.step,
        seconds=time.monotonic() - began,
        heldout_psnr_db=psnr,
        rays_per_s=None if per_step is None else trainer.size.rays / per_step,
        n_bricks=len(bricks),
        peak_memory_bytes=peak_memory_bytes() if device == "cpu" else int(torch.cuda.max_memory_allocated()),
        device=device,
        rays=trainer.size.rays,
        smaller=attempt.smaller,
        why_smaller=attempt.why_smaller,
    )


def extract_bricks(
    trainer: Trainer, lattice: Lattice, block: Block, frame: BlockFrame, report: Reporter, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """SDF bricks of the block's outer box, in voxels."""
    scale = frame.radius_m / lattice.voxel_size_m
    size, clip = lattice.brick_size, SDF_CLIP_VOXELS

    def sdf_voxels(index: np.ndarray) -> np.ndarray:
        local = frame.to_local(lattice.sample_world(index)).astype(np.float32)
        return trainer.sdf(torch.from_numpy(local).to(trainer.device)).cpu().numpy() * scale

    with report.task(f"{name}/extract", 1.0) as advance:
        if not trainer.config.surface.distance:
            return sdf_bricks.sample_level(sdf_voxels, block.outer, size, clip)
        return sdf_bricks.sample_bricks(sdf_voxels, block.outer.bricks(), size, clip, advance)
