"""Collection of the report's facts from the committed results of earlier stages; missing parts stay None."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Num

from quoin.pipeline.core.reasons import Rejection
from quoin.pipeline.scene.blocks import Partition
from quoin.pipeline.scene.manhattan import read_manhattan_frame
from quoin.pipeline.scene.photo_table import PhotoRow, read_photo_table, read_pose_rows
from quoin.pipeline.scene.posed_images import Posed, read_transform
from quoin.pipeline.scene.world import read_world
from quoin.pipeline.storage.run import Manifest, Run
from quoin.pipeline.storage.tables import METRIC_SCHEMA, read_table
from quoin.stages.report.chart import Curve, thin_curve
from quoin.stages.report.facts import (
    BlockFacts,
    ClipFacts,
    Headline,
    Histogram,
    PhotoFacts,
    PhotoState,
    PoseFacts,
    StageFacts,
)

Array = np.ndarray


def finite_or_none(value: Any) -> float | None:
    """``value`` as a float where it is a finite number, else None."""
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def int_or_none(value: Any) -> int | None:
    """``value`` as an integer where it is a finite number, else None."""
    number = finite_or_none(value)
    return None if number is None else int(number)


def collect_photos(run: Run) -> list[PhotoFacts]:
    """One entry per file of the photo folder, with its camera pose where it has one."""
    if run.manifest("ingest") is None:
        return []
    if run.manifest("pose") is None:
        return [_photo_facts(row, None, state="used" if row.used else "not used") for row in read_photo_table(run)]
    pose_rows = {pose_row["photo_id"]: pose_row for pose_row in read_pose_rows(run)}
    facts = []
    for row in read_photo_table(run):
        pose_row = pose_rows.get(row.photo_id) if row.used else None
        state: PhotoState = "not placed" if row.used else "not used"
        if pose_row and pose_row["registered"]:
            state = "placed"
        facts.append(_photo_facts(row, pose_row, state))
    return facts


def _photo_facts(row: PhotoRow, pose_row: dict[str, Any] | None, state: PhotoState) -> PhotoFacts:
    """Facts of one file from its row of the photo table and its row of the poses, if it has any."""
    facts = PhotoFacts(
        name=row.name,
        state=state,
        component=None,
        n_points=None,
        reprojection_px=None,
        focal_px=finite_or_none(row.focal_px) or None,
        width=row.width or None,
        height=row.height or None,
        has_mask=bool(row.mask_path),
        rejection=row.rejection,
        clip=row.clip,
        time_s=finite_or_none(row.time_s),
    )
    if pose_row is None:
        return facts
    measured = {
        "component": pose_row["component"] if pose_row["component"] >= 0 else None,
        "n_points": int_or_none(pose_row["n_points"]),
        "reprojection_px": finite_or_none(pose_row["reprojection_px"]) if pose_row["registered"] else None,
        "focal_px": finite_or_none(pose_row["focal_px"]) or None,
        "rejection": row.rejection or Rejection.from_columns(pose_row["reason"], pose_row["detail"]),
    }
    return facts.model_copy(update=measured)


def collect_clips(run: Run, files: Sequence[PhotoFacts]) -> list[ClipFacts]:
    """Facts of every video that gave frames, with how many of them have a pose."""
    is_posed = run.manifest("pose") is not None
    out = []
    for clip in getattr(run.manifest("ingest"), "result", {}).get("clips", []):
        frames = sorted((p for p in files if p.clip == clip["name"] and p.state != "not used"), key=_time)
        placed, unplaced = (
            sum(p.state == state for p in frames) if is_posed else None for state in ("placed", "not placed")
        )
        out.append(ClipFacts(**clip, n_placed=placed, n_unplaced=unplaced, unplaced_s=_unplaced(frames)))
    return out


def _unplaced(frames: Sequence[PhotoFacts]) -> list[tuple[float, float]]:
    """Time spans of consecutive frames without a pose."""
    runs = itertools.groupby(frames, key=lambda p: p.state == "not placed")
    lost = [[_time(p) for p in frames_in_row] for missing, frames_in_row in runs if missing]
    return [(times[0], times[-1]) for times in lost]


def _time(frame: PhotoFacts) -> float:
    return frame.time_s or 0.0


def build_histogram(values: Num[Array, "n"], *, n_bins: int = 30, whole_numbers: bool = False) -> Histogram | None:
    """A histogram up to the 99th percentile, with the number of values beyond; None where no value is finite."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    top = float(np.percentile(values, 99))
    if whole_numbers:
        first, top = math.floor(values.min()), max(math.ceil(top), math.floor(values.min()) + 1)
        edges = np.arange(first, top + 2, max(1, math.ceil((top + 1 - first) / n_bins))) - 0.5
    else:
        low = 0.0 if values.min() >= 0 and values.min() < 0.5 * max(top, 1e-12) else float(values.min())
        if top - low <= 1e-9 * max(abs(top), 1.0):  # all values are equal: one bar in the middle
            low, top = top - 0.05 * max(abs(top), 1.0), top + 0.05 * max(abs(top), 1.0)
            n_bins += 1 - n_bins % 2
        edges = np.linspace(low, top, n_bins + 1)
    counts, _ = np.histogram(values, edges)
    return Histogram(
        edges=edges.tolist(),
        counts=counts.tolist(),
        n_beyond=int(len(values) - counts.sum()),
        median=float(np.median(values)),
        mean=float(values.mean()),
    )


def collect_pose(run: Run, posed: Posed) -> PoseFacts:
    """Reprojection errors, tracks and world frame of the posed photos."""
    result = run.require("pose").result
    world = read_transform(run, "world_from_sfm")
    walls = read_manhattan_frame(run)
    table = read_pose_rows(run)
    groups = Counter(r["component"] for r in table if r["component"] >= 0)
    bulk = np.percentile(posed.points_world, [1, 99], axis=0) if len(posed.points_world) else np.zeros((2, 3))
    return PoseFacts(
        reprojection_px=build_histogram(posed.point_errors_px),
        track_length=build_histogram(posed.track_lengths, whole_numbers=True),
        focal_px=build_histogram(posed.intrinsics[:, 0]),
        n_observations=len(posed.track_photo),
        components=[c["n_photos"] for c in result.get("components", [])] or [n for _, n in sorted(groups.items())],
        world_frame=world.provenance if world else "structure from motion (arbitrary origin, axes and scale)",
        walls=walls.summary() if walls else "main directions of walls were not estimated",
        unit=read_world(run).unit,
        extent=(bulk[1] - bulk[0]).tolist(),
    )


def collect_blocks(run: Run, partition: Partition | None) -> list[BlockFacts]:
    """Plan and training measurements of every block."""
    out = []
    train = run.manifest("train")
    missing = train.result.get("failed_blocks", {}) if train else {}
    for block in partition.blocks if partition else []:
        done = run.manifest(f"train/{block.id}")
        got = done.result if done else {}
        low, high = partition.lattice.box_world(block.core)  # type: ignore[union-attr]
        out.append(
            BlockFacts(
                id=block.id,
                low_world=low.tolist(),
                high_world=high.tolist(),
                halo_m=block.halo_bricks * partition.lattice.brick_size_m,  # type: ignore[union-attr]
                n_photos=len(block.photo_index),
                planned_memory_bytes=block.memory_bytes or None,
                steps=int_or_none(got.get("steps")),
                seconds=finite_or_none(got.get("seconds", done.seconds if done else None)),
                rays_per_s=finite_or_none(got.get("rays_per_s")),
                heldout_psnr_db=finite_or_none(got.get("heldout_psnr_db")),
                peak_memory_bytes=int_or_none(got.get("peak_memory_bytes")) or None,
                n_bricks=int_or_none(got.get("n_bricks")),
                device=got.get("device"),
                compiled=got.get("compiled"),
                failed=missing.get(block.id, ""),
                memory_reason=got.get("memory_reason", ""),
            )
        )
    return out


def select_blocks(blocks: Sequence[BlockFacts], max_blocks: int) -> list[BlockFacts]:
    """At most ``max_blocks``, in their order: those that failed, then those of the lowest held-out PSNR."""
    lowest = sorted(blocks, key=lambda b: (not b.failed, np.inf if b.heldout_psnr_db is None else b.heldout_psnr_db))
    chosen = {b.id for b in lowest[:max_blocks]}
    return [b for b in blocks if b.id in chosen]


def collect_curves(run: Run, block_ids: Iterable[str]) -> dict[str, list[Curve]]:
    """Training metrics over the steps, by name; one curve per block."""
    out: dict[str, list[Curve]] = {}
    for block_id in block_ids:
        if not run.file(f"tables/train_{block_id}.parquet").exists():
            continue
        table = read_table(run, f"train_{block_id}", METRIC_SCHEMA)
        names = np.array(table["name"].to_pylist())
        step, value = table["step"].to_numpy().astype(float), table["value"].to_numpy().astype(float)
        for name in sorted(set(names.tolist())):
            curve = thin_curve(block_id, step[names == name], value[names == name])
            if curve.step:
                out.setdefault(name, []).append(curve)
    return out


def collect_stages(run: Run) -> list[StageFacts]:
    """All committed stages in the order they ended; training of single blocks is in the facts of the blocks."""
    order: list[tuple[str, Manifest]] = sorted(run.record.manifests.items(), key=lambda item: item[1].committed_at)
    return [
        StageFacts(
            name=name,
            seconds=m.seconds,
            peak_memory_bytes=_peak(run, name) or None,
            numbers=_numbers(m.result),
        )
        for name, m in order
        if "/" not in name and name != "report"
    ]


def _peak(run: Run, stage: str) -> int:
    """Peak memory of a stage and of its blocks, each of which counts from its own start."""
    return max(m.peak_memory_bytes for name, m in run.record.manifests.items() if name.partition("/")[0] == stage)


def _numbers(result: dict[str, Any]) -> dict[str, Any]:
    """Numbers and short texts of a result; the seconds of a stage's parts become one number each."""
    parts = result.get("seconds")
    seconds = {f"{part}_seconds": value for part, value in parts.items()} if isinstance(parts, dict) else {}
    return {k: v for k, v in result.items() if _is_number_like(v)} | seconds


def _is_number_like(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return 0 < len(value) <= 4 and all(isinstance(v, (int, float)) for v in value)
    if isinstance(value, str):
        return (
            0 < len(value) <= 40 and "/" not in value and not re.fullmatch("[0-9a-f]{12,}", value)
        )  # a hash says nothing
    return isinstance(value, (bool, int, float))


def collect_headline(run: Run, files: list[PhotoFacts], blocks: list[BlockFacts]) -> Headline:
    """The numbers of the first row, from manifests and tables."""
    states = Counter(p.state for p in files)
    pose_result = getattr(run.manifest("pose"), "result", {})
    fuse_result = getattr(run.manifest("fuse"), "result", {})
    n_posed = int_or_none(pose_result.get("n_registered"))
    scores = [block.heldout_psnr_db for block in blocks if block.heldout_psnr_db is not None]
    memory = [part.peak_memory_bytes or 0 for part in collect_stages(run)] + [b.peak_memory_bytes or 0 for b in blocks]
    return Headline(
        n_photos_found=len(files) or None,
        n_photos_used=len(files) - states["not used"] if files else None,
        n_photos_posed=states["placed"] if files and run.manifest("pose") else n_posed,
        n_points=int_or_none(pose_result.get("n_points")),
        n_vertices=int_or_none(fuse_result.get("n_vertices")),
        n_faces=int_or_none(fuse_result.get("n_faces")),
        heldout_psnr_db=float(np.mean(scores)) if scores else None,
        heldout_psnr_min_db=min(scores, default=None),
        total_seconds=_total_seconds(run),
        peak_memory_bytes=max(memory, default=0) or None,
    )


def _total_seconds(run: Run) -> float:
    """Sum over stages; a resumed stage took at least as long as the longest of its blocks."""
    longest: dict[str, float] = {}
    for name, manifest in run.record.manifests.items():
        stage = name.split("/")[0]
        longest[stage] = max(longest.get(stage, 0.0), manifest.seconds if stage != "report" else 0.0)
    return sum(longest.values())
