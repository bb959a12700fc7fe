"""The training loop of a block: steps, metrics, previews, checkpoints, and when to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from quoin.fields.sdf_grids import DenseSdf
from quoin.pipeline.core import cancellation
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage.disk import atomic_path
from quoin.pipeline.storage.tables import METRIC_SCHEMA, read_parquet
from quoin.stages.train.config import TrainConfig
from quoin.stages.train.preview import render_preview
from quoin.stages.train.trainer import LOG_INTERVAL_STEPS, Trainer

N_UNTIMED_STEPS = 20  # steps at the start that are not timed: the first ones compile
MAX_PREVIEW_SHARE = 0.02  # share of the time between two previews that rendering one may take
UNLOGGED_METRICS = ("samples_per_ray", "seconds_left")  # reported, but not kept in the table

# Convergence: drift of the network's SDF at samples near the surface between two checks.
CHECK_INTERVAL_SHARE = 0.025  # share of the training between two checks
MIN_STABLE_CHECKS = 3  # checks in a row below the threshold
FINAL_PHASE_START = 0.9  # share of the schedules to skip to after convergence: small rates even out the noise of steps
N_CANDIDATES, MAX_CHECK_POINTS = 1 << 20, 1 << 13

SdfFunction = Callable[[Tensor], Tensor]


def run_training(
    trainer: Trainer,
    config: TrainConfig,
    report: Reporter,
    name: str,
    log: MetricLog,
    save: Callable[[Trainer], None],
    *,
    save_preview: Callable[[int, np.ndarray], Path],
    unit_m: float,
    voxel_m: float,
) -> float | None:
    """Run the loop to the end. Returns seconds per step without the first ones, None where there were no others.

    WorkCancelled, after a checkpoint, if cancellation is requested. ``save(trainer)`` writes a checkpoint,
    ``save_preview(step, rgb)`` a preview. ``unit_m``: meters in the block's unit; ``voxel_m``: of the lattice.
    """
    began = saved = previewed = timed_from = time.monotonic()
    timed_step, elapsed_s, last_check = trainer.step, trainer.elapsed_s, -1
    warm_at = trainer.step + N_UNTIMED_STEPS
    surface_drift = SurfaceDrift(voxel_m / unit_m)

    def per_step() -> float:
        return (time.monotonic() - timed_from) / max(trainer.step - timed_step, 1)

    def show_preview() -> None:
        n_rays = MAX_PREVIEW_SHARE * 60.0 * config.preview_minutes * trainer.batch_size.rays / max(per_step(), 1e-9)
        rgb = render_preview(trainer, n_rays)
        path = save_preview(trainer.step, rgb)
        report.picture(name, rgb, f"{name}, step {trainer.step}: photo, rendering, normals")
        report.log(name, f"step {trainer.step}: preview in {path}")

    with cancellation.request_on_signals(), report.task(name, config.steps, "steps") as advance:
        while trainer.progress < 1.0:
            if cancellation.requested():
                save(trainer)
                report.log(name, f"cancelled: saved a checkpoint at step {trainer.step}")
                raise cancellation.WorkCancelled
            values = trainer.train_step() or {}
            now = time.monotonic()
            trainer.elapsed_s = elapsed_s + now - began
            if trainer.step == warm_at and timed_step < warm_at:
                timed_from, timed_step = now, trainer.step
            progress = trainer.progress
            advance(progress * config.steps)
            if trainer.step % config.measure_every == 0:
                values |= evaluate_training(trainer, unit_m)
            if int(progress / CHECK_INTERVAL_SHARE) > last_check:
                last_check = int(progress / CHECK_INTERVAL_SHARE)
                drift = surface_drift.update(
                    trainer.cache, trainer.sdf, config.convergence if progress > schedule_end_share(config) else 0
                )
                values |= {} if drift is None else {"drift_voxels": drift}
                if surface_drift.n_stable >= MIN_STABLE_CHECKS and progress < FINAL_PHASE_START:
                    report.log(
                        name,
                        f"the surface has converged at step {trainer.step}: skipping to the last tenth",
                    )
                    trainer.skip_to(FINAL_PHASE_START)
                    last_check = int(trainer.progress / CHECK_INTERVAL_SHARE)
            if values:
                log.add(trainer.step, now - began, {k: v for k, v in values.items() if k not in UNLOGGED_METRICS})
                if trainer.step % LOG_INTERVAL_STEPS == 0 and timed_step >= warm_at:
                    values["seconds_left"] = trainer.seconds_left(per_step())
                report.metrics(name, trainer.step, values)
            if config.preview_minutes and now - previewed > 60.0 * config.preview_minutes:
                show_preview()
                previewed = time.monotonic()
            if now - saved > 60.0 * config.checkpoint_minutes:
                save(trainer)
                saved = time.monotonic()
    seconds = per_step() if timed_step >= warm_at and trainer.step > timed_step else None
    save(trainer)
    if config.preview_minutes:
        show_preview()
    return seconds


def evaluate_training(trainer: Trainer, unit_m: float) -> dict[str, float]:
    """PSNR on held-out pixels and median distance of SfM points to the surface in m, as far as they can be measured."""
    psnr, error = trainer.held_out_psnr(), trainer.sfm_error()
    measured = {"heldout_psnr_db": psnr, "sfm_error_m": None if error is None else error * unit_m}
    return {name: value for name, value in measured.items() if value is not None}


def schedule_end_share(config: TrainConfig) -> float:
    """Share of the training before which convergence is not checked: half, or the end of the schedules."""
    anneal = config.renderer.anneal_share or 0.0
    return max(0.5, config.encoding.schedule_share, anneal, config.losses.photoconsistency_start)


class MetricLog:
    """The table of a block's metrics: step, seconds, name, value. It is small, and rewritten whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []

    def add(self, step: int, seconds: float, values: dict[str, float]) -> None:
        """Add a row for each value."""
        self.rows.extend({"step": step, "seconds": seconds, "name": k, "value": float(v)} for k, v in values.items())

    def load_until(self, step: int) -> None:
        """Load the rows of an earlier attempt up to ``step``; DamagedError where its table cannot be read."""
        if self.path.exists():
            table = read_parquet(self.path, f"tables/{self.path.name}", METRIC_SCHEMA)
            self.rows = [row for row in table.to_pylist() if row["step"] <= step]

    def write(self) -> None:
        """Write the table."""
        if self.rows:
            with atomic_path(self.path) as part:
                pq.write_table(pa.Table.from_pylist(self.rows, schema=METRIC_SCHEMA), part)


# -- convergence -------------------------------------------------------------------------------------------------------


def sample_near_surface(volume: DenseSdf, generator: torch.Generator) -> Float[Tensor, "n 3"]:
    """Positions of up to MAX_CHECK_POINTS random samples of the volume within one spacing of the surface."""
    values = volume.values.view(-1)
    candidates = torch.randint(len(values), (N_CANDIDATES,), generator=generator).to(values.device)
    near = candidates[values[candidates].abs() < volume.spacing][:MAX_CHECK_POINTS]
    _, ny, nz = volume.values.shape
    cell = torch.stack([near // (ny * nz), near // nz % ny, near % nz], dim=1)
    return cell * volume.spacing + volume.low


class SurfaceDrift:
    """Compares the SDF with that of the check before; ``voxel_size`` is the lattice's, in the volume's unit."""

    def __init__(self, voxel_size: float) -> None:
        self.voxel_size, self.n_stable = voxel_size, 0
        self._generator = torch.Generator().manual_seed(0)  # its own, so that checks change nothing
        self._points: Tensor | None = None
        self._previous_sdf: Tensor | None = None

    def update(self, volume: DenseSdf, sdf: SdfFunction, threshold: float) -> float | None:
        """95th percentile of |Δsdf| in voxels since the last check, or None; counts checks below threshold."""
        drift = None
        if self._points is not None and self._previous_sdf is not None and len(self._points):
            change = (sdf(self._points) - self._previous_sdf).abs()
            drift = float(torch.quantile(change, 0.95)) / self.voxel_size
            self.n_stable = self.n_stable + 1 if drift < threshold else 0
        self._points = sample_near_surface(volume, self._generator)
        self._previous_sdf = sdf(self._points)
        return drift
