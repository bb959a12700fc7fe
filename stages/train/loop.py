"""A block's training from start to end: steps, and beside them what a person and a restart need."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from quoin.pipeline.core import cancellation
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage.atomic import aside
from quoin.stages.train.config import HashEncoding, NeusRenderer, TrainConfig
from quoin.stages.train.convergence import IN_A_ROW, LAST_STRETCH, LOOK, Movement
from quoin.stages.train.preview import preview
from quoin.stages.train.trainer import READ_EVERY, Trainer

WARM_UP = 20  # steps that are not timed: the first ones compile
PREVIEW_SHARE = 0.02  # of the time between two previews that one may take
FOR_PEOPLE = ("samples_per_ray", "seconds_left")  # told, but no curve of the training


def train(
    trainer: Trainer,
    config: TrainConfig,
    report: Reporter,
    name: str,
    log: MetricLog,
    save: Callable[[Trainer], None],
    *,
    show: Callable[[int, np.ndarray], Path],
    unit_m: float,
    voxel_m: float,
) -> float | None:
    """Run the loop to the end; returns seconds per step, without the first ones, where there were others.

    Stopped where it is asked to stop.

    ``save(trainer)`` keeps what it can go on from, ``show(step, rgb)`` a preview.
    ``unit_m``: metres in the block's unit; ``voxel_m`` of the lattice.
    """
    began = saved = shown = timed_from = time.monotonic()
    timed_step, spent_s, looked = trainer.step, trainer.spent_s, -1
    warm_at = trainer.step + WARM_UP
    movement = Movement(voxel_m / unit_m)

    def per_step() -> float:
        return (time.monotonic() - timed_from) / max(trainer.step - timed_step, 1)

    def show_preview() -> None:
        n_rays = PREVIEW_SHARE * 60.0 * config.preview_minutes * trainer.size.rays / max(per_step(), 1e-9)
        rgb = preview(trainer, n_rays)
        path = show(trainer.step, rgb)
        report.picture(name, rgb, f"{name}, step {trainer.step}: photo, rendering, normals")
        report.log(name, f"step {trainer.step}: preview in {path}")

    with cancellation.by_signals(), report.task(name, config.steps, "steps") as advance:
        while trainer.share < 1.0:
            if cancellation.asked():
                save(trainer)
                report.log(name, f"asked to stop: saved at step {trainer.step}")
                raise cancellation.Stopped
            values = trainer.advance() or {}
            now = time.monotonic()
            trainer.spent_s = spent_s + now - began
            if trainer.step == warm_at and timed_step < warm_at:
                timed_from, timed_step = now, trainer.step
            share = trainer.share
            advance(share * config.steps)
            if trainer.step % config.measure_every == 0:
                values |= measure(trainer, unit_m)
            if int(share / LOOK) > looked:
                looked = int(share / LOOK)
                moved = movement.look(trainer.cache, trainer.sdf, config.settle if share > schedules_end(config) else 0)
                values |= {} if moved is None else {"moved_voxels": moved}
                if movement.still >= IN_A_ROW and share < LAST_STRETCH:
                    report.log(name, f"the surface moves no more at step {trainer.step}: on to the last stretch")
                    trainer.hurry_to(LAST_STRETCH)
                    looked = int(trainer.share / LOOK)
            if values:
                log.add(trainer.step, now - began, {k: v for k, v in values.items() if k not in FOR_PEOPLE})
                if trainer.step % READ_EVERY == 0 and timed_step >= warm_at:
                    values["seconds_left"] = trainer.seconds_left(per_step())
                report.metrics(name, trainer.step, values)
            if config.preview_minutes and now - shown > 60.0 * config.preview_minutes:
                show_preview()
                shown = time.monotonic()
            if now - saved > 60.0 * config.checkpoint_minutes:
                save(trainer)
                saved = time.monotonic()
    seconds = per_step() if timed_step >= warm_at and trainer.step > timed_step else None
    save(trainer)
    if config.preview_minutes:
        show_preview()
    return seconds


def measure(trainer: Trainer, unit_m: float) -> dict[str, float]:
    """PSNR on held-out pixels, and how far the surface is from the SfM points; what cannot be measured is left out."""
    psnr, error = trainer.held_out_psnr(), trainer.sfm_error()
    found = {"heldout_psnr_db": psnr, "sfm_error_m": None if error is None else error * unit_m}
    return {name: value for name, value in found.items() if value is not None}


def schedules_end(config: TrainConfig) -> float:
    """Share of the training before which nobody asks whether the surface moves: half, or the end of the schedules."""
    levels = config.encoding.coarse_to_fine if isinstance(config.encoding, HashEncoding) else 0.0
    anneal = config.renderer.anneal if isinstance(config.renderer, NeusRenderer) else 0.0
    return max(0.5, levels, anneal, config.losses.patch_after)


class MetricLog:
    """tables/train_<block>.parquet: step, seconds, name, value; rewritten whole, for it is small."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def add(self, step: int, seconds: float, values: dict[str, float]) -> None:
        self.rows.extend({"step": step, "seconds": seconds, "name": k, "value": float(v)} for k, v in values.items())

    def keep_before(self, step: int) -> None:
        """Take over the rows of an earlier attempt up to ``step``; curves that cannot be read stop no training."""
        with suppress(OSError, pa.ArrowInvalid):
            self.rows = [row for row in pq.read_table(self.path).to_pylist() if row["step"] <= step]

    def write(self) -> None:
        if self.rows:
            with aside(self.path) as part:
                pq.write_table(pa.Table.from_pylist(self.rows), part)
