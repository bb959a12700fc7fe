"""A worker's task: loads one block, trains it, and writes its SDF bricks and model into the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from quoin.fields.checkpoint import pack_checkpoint, read_checkpoint
from quoin.fields.device import is_compiled, pick_device
from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import OutOfMemory
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import Attempt, Device, out_of_memory_reason
from quoin.pipeline.geometry.lattice import Lattice
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import (
    SDF_CLIP_VOXELS,
    Block,
    SdfBricks,
    block_folder,
    read_block,
    read_total_cost,
    write_block_model,
    write_sdf_bricks,
)
from quoin.pipeline.storage.disk import retry, write_atomic
from quoin.pipeline.storage.layout import DamagedError
from quoin.pipeline.storage.lock import FENCING_TOKEN_FILE, check_fence
from quoin.pipeline.storage.run import Run, peak_memory_bytes, reset_peak_memory
from quoin.stages.train import sdf_bricks, trained_block
from quoin.stages.train.camera_refinement import refined_camera_rows, write_refined_cameras
from quoin.stages.train.config import BlockResult, TrainConfig
from quoin.stages.train.data.load import build_trainer
from quoin.stages.train.data.photo_set import BlockFrame
from quoin.stages.train.loop import MetricLog, run_training
from quoin.stages.train.preview import PREVIEW_FOLDER, delete_previews_after, save_preview_image
from quoin.stages.train.stage import TRAIN
from quoin.stages.train.step import BatchSize, reduce_batch_size
from quoin.stages.train.trainer import Trainer

SINGLE_ATTEMPT = Attempt()
CHECKPOINT_FILE = "checkpoint.safetensors"
PREVIOUS_CHECKPOINT_FILE = "checkpoint-previous.safetensors"


def train_block(
    run: Run,
    config: TrainConfig,
    report: Reporter,
    block_id: str,
    device: Device = "auto",
    attempt: Attempt = SINGLE_ATTEMPT,
) -> BlockResult:
    """Train block ``block_id``, from its checkpoint where there is one, and write its SDF bricks and model to the run.

    On a request to stop it saves a checkpoint and raises WorkCancelled. Raises OutOfMemory where a higher
    ``attempt.memory_level`` might help, and SupersededError, with nothing more written, where a later attempt has taken
    the block over.
    """
    try:
        return _train_block(run, config, report, block_id, device, attempt)
    except (RuntimeError, MemoryError) as error:
        reason = out_of_memory_reason(error)
        if not reason:
            raise
    hint = "close other programs, make blocks smaller (partition.memory_gib), or use --device cpu"
    raise OutOfMemory(f"Out of memory in training this block: {reason}", where=block_id, hint=hint)


def _train_block(
    run: Run, config: TrainConfig, report: Reporter, block_id: str, device: Device, attempt: Attempt
) -> BlockResult:
    began = time.monotonic()
    device = pick_device(device)
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()
    else:
        reset_peak_memory()
    torch.manual_seed(run.seed)
    name = f"train/{block_id}"
    report.place(name, torch.cuda.get_device_name() if device.startswith("cuda") else device)
    lattice, block = read_block(run, block_id)
    photo_level = np.minimum(block.photo_level + attempt.memory_level, posed_images.PYRAMID_LEVELS - 1)
    block = replace(block, photo_level=photo_level)
    folder = block_folder(run, block_id)
    input_keys = [run.require(stage).key for stage in ("partition", "priors")]
    key = digest([config.model_dump(), input_keys, block_id, run.seed, TRAIN.version])
    frame = BlockFrame.from_bounds(*lattice.box_world(block.outer))
    trainer = build_trainer(run, config, block, frame, device, report)
    trainer.warn = lambda message: report.log(name, message, "warning")
    max_size = reduce_batch_size(trainer.batch_size, attempt.memory_level)
    trainer.batch_size = max_size
    if config.budget_minutes is not None:
        all_cost = read_total_cost(run)
        trainer.budget_s = 60.0 * config.budget_minutes * (block.cost / all_cost if all_cost > 0 else 1.0)
    log = MetricLog(run.table(f"train_{block_id}"))
    run.storage.download(f"tables/train_{block_id}.parquet")
    download_checkpoint(run, folder)
    state = load_checkpoint(folder, key, trainer.warn)
    if state is not None:
        trainer.load_state_dict(state)
        began -= trainer.elapsed_s  # in earlier attempts
        trainer.batch_size = BatchSize(*map(min, trainer.batch_size, max_size))
        try:
            log.load_until(trainer.step)
        except DamagedError as error:
            trainer.warn(f"the measurements of earlier steps are thrown away: {error.what}")
        report.log(name, f"resuming at step {trainer.step} of {config.steps}")
    elif (folder / CHECKPOINT_FILE).exists():
        report.log(name, "the checkpoint belongs to other settings or inputs: starting from the beginning")
    delete_previews_after(folder / PREVIEW_FOLDER, trainer.step)

    def check() -> None:
        if attempt.id:
            run.storage.download((folder.relative_to(run.path) / FENCING_TOKEN_FILE).as_posix())
        check_fence(folder, attempt.id)

    def save(trainer: Trainer) -> None:
        def write() -> None:
            check()
            save_checkpoint(folder, trainer.state_dict(), key)
            log.write()
            upload_checkpoint(run, folder)
            run.storage.upload(f"tables/train_{block_id}.parquet")

        retry(write, run.path, trainer.warn)

    per_step = run_training(
        trainer,
        config,
        report,
        name,
        log,
        save,
        save_preview=lambda step, rgb: save_preview_image(folder / PREVIEW_FOLDER, step, rgb),
        unit_m=frame.radius_m,
        voxel_m=lattice.voxel_size_m,
    )

    psnr = trainer.held_out_psnr()
    bricks, sdf = extract_sdf_bricks(trainer, lattice, block, frame, report, name)
    if len(bricks) == 0:
        report.log(name, "no surface found in this block: the SDF does not change sign", "warning")
    check()
    write_sdf_bricks(run, block_id, SdfBricks(bricks, sdf))
    trainer.refresh(near_only=True)
    write_block_model(run, block_id, *trained_block.export_state(trainer.model, trainer.cache, config))
    table = run.table(f"cameras_{block_id}")
    if trainer.camera_refinement is None:
        table.unlink(missing_ok=True)
    else:
        all_names = posed_images.read_posed(run).names
        names = [all_names[int(i)] for i in block.photo_index]
        write_refined_cameras(
            table,
            refined_camera_rows(trainer.camera_refinement, frame, names, block.photo_level),
            report,
            name,
        )
    log.write()
    run.storage.upload_outputs(name)
    return BlockResult(
        block=block_id,
        steps=trainer.step,
        seconds=time.monotonic() - began,
        heldout_psnr_db=psnr,
        rays_per_s=None if per_step is None else trainer.batch_size.rays / per_step,
        n_bricks=len(bricks),
        peak_memory_bytes=peak_memory_bytes() if device == "cpu" else int(torch.cuda.max_memory_allocated()),
        device=device,
        compiled=is_compiled(device),
        rays=trainer.batch_size.rays,
        memory_level=attempt.memory_level,
        memory_reason=attempt.memory_reason,
    )


def extract_sdf_bricks(
    trainer: Trainer, lattice: Lattice, block: Block, frame: BlockFrame, report: Reporter, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """SDF bricks of the block's outer box, in voxels."""
    scale = frame.radius_m / lattice.voxel_size_m
    size, clip = lattice.brick_size, SDF_CLIP_VOXELS

    def sdf_voxels(index: np.ndarray) -> np.ndarray:
        local = frame.to_local(lattice.sample_world(index)).astype(np.float32)
        return trainer.sdf(torch.from_numpy(local).to(trainer.device)).cpu().numpy() * scale

    with report.task(f"{name}/extract", 1.0) as advance:
        if not trainer.config.surface.is_distance:
            return sdf_bricks.sample_level_set(sdf_voxels, block.outer, size, clip)
        return sdf_bricks.sample_bricks(sdf_voxels, block.outer.bricks(), size, clip, advance)


# -- checkpoints -------------------------------------------------------------------------------------------------------


def save_checkpoint(folder: Path, state: dict[str, Tensor], key: str) -> None:
    """Replace the block's checkpoint atomically. ``key`` names configuration and inputs: training resumes from its own
    key only."""
    if (folder / CHECKPOINT_FILE).exists():
        (folder / CHECKPOINT_FILE).replace(folder / PREVIOUS_CHECKPOINT_FILE)
    write_atomic(folder / CHECKPOINT_FILE, pack_checkpoint(state, key))


def load_checkpoint(
    folder: Path, key: str, warn: Callable[[str], None] = lambda sentence: None
) -> dict[str, Tensor] | None:
    """State of the block's checkpoint of this ``key``, or of the one before where it is damaged; None without any.

    ``warn`` gets a sentence about damage. QuoinError where a file was not written by quoin.
    """
    for name in (CHECKPOINT_FILE, PREVIOUS_CHECKPOINT_FILE):
        path = folder / name
        if not path.exists():
            continue
        content = read_checkpoint(path)
        if isinstance(content, str):
            warn(f"the checkpoint is damaged ({content}): resuming from the one before it, or from the beginning")
            path.unlink()
            continue
        saved_key, state = content
        return state if saved_key == key else None
    return None


def upload_checkpoint(run: Run, folder: Path) -> None:
    """Copy the checkpoint to the run's storage, for another machine to resume from."""
    within = folder.relative_to(run.path)
    run.storage.upload(
        (within / CHECKPOINT_FILE).as_posix(), backup_name=(within / PREVIOUS_CHECKPOINT_FILE).as_posix()
    )


def download_checkpoint(run: Run, folder: Path) -> None:
    """Copy the checkpoint that another machine left from the run's storage."""
    for name in (CHECKPOINT_FILE, PREVIOUS_CHECKPOINT_FILE):
        run.storage.download((folder.relative_to(run.path) / name).as_posix())
