"""New views of the synthetic lego: ``nerf-hash`` on its 100 training photos, scored on its 25 test photos.

All 125 photos with their poses make one collection, named so that every fifth is a test photo, which ``hold_out_every``
keeps away from everything but the pose stage (there it is given its pose, and helps to find points that are then hidden
again). Photos lie on white; the whole picture counts.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from benchmarks import rivals
from benchmarks.measure import (
    DATA,
    BenchmarkSkipped,
    Measurement,
    Metrics,
    combine_measurements,
    read_stage_results,
    run_quoin,
)
from quoin.pipeline.scene.blocks import read_held_out

Array = np.ndarray
LEGO_DATA = DATA / "nerf_synthetic_lego_400"
LEGO_METHOD = "nerf-hash"
TEST_PHOTO_EVERY = 5
MAX_DEPTH_VALUE = 8.0  # what 0 stands for in the depth maps


def measure_lego(out: Path, seconds: float) -> tuple[Measurement, Metrics]:
    """Train for so many seconds; PSNR and SSIM of the test photos, depth against their depth maps, a curve."""
    photos, run = out / "photos", out / "run"
    poses = copy_lego_photos(LEGO_DATA, photos, out / "transforms.json")
    # one exposure for all, so no appearance; no stereo, which this method does not use
    choices = ["priors.stereo_edge_px=0", "train.color.exposure=false", "train.color.appearance=0"]
    own = rivals.set_options(f"train.method={LEGO_METHOD}", f"partition.hold_out_every={TEST_PHOTO_EVERY}", *choices)
    done = [
        rivals.train_run(photos, run, [*own, "--poses", poses], seconds=seconds),
        run_quoin("evaluate", run, "--views"),
    ]
    numbers = {
        "seconds_of_training": seconds,
        **rivals.view_scores(run),
        **rivals.training_metrics(run),
        **read_stage_results(run),
    }
    if done[-1].exit_status == 0:
        numbers |= {"depth": depth_errors(run), "tile_psnr_db_by_seconds": psnr_curve(run)}
    return combine_measurements(f"python -m benchmarks lego --seconds {seconds:g}", done), numbers


def interleave_splits(test: list[str], train: list[str], every: int) -> list[str]:
    """A test photo, ``every`` - 1 training photos, a test photo ...; Skipped where the numbers do not allow it."""
    if len(train) != (every - 1) * len(test):
        raise BenchmarkSkipped(f"{len(train)} training photos and {len(test)} test photos are not {every - 1} to 1")
    rows = [[test[i], *train[(every - 1) * i : (every - 1) * (i + 1)]] for i in range(len(test))]
    return [name for row in rows for name in row]


def copy_lego_photos(source: Path, photos: Path, poses: Path) -> Path:
    """Copies of all photos in turns, as 000_test_r_0.png, 001_train_r_0.png ..., and all poses in one file."""
    splits = {kind: json.loads((source / f"transforms_{kind}.json").read_bytes()) for kind in ("test", "train")}
    frames = {frame["file_path"].removeprefix("./"): frame for kind in splits.values() for frame in kind["frames"]}
    test, train = ([name for name in frames if name.startswith(f"{kind}/")] for kind in ("test", "train"))
    photos.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(interleave_splits(test, train, TEST_PHOTO_EVERY)):
        renamed = f"{number:03d}_{name.replace('/', '_')}.png"
        shutil.copyfile(source / f"{name}.png", photos / renamed)
        frames[name] = {**frames[name], "file_path": renamed}
    poses.write_text(json.dumps({**splits["train"], "frames": list(frames.values())}), encoding="utf-8")
    return poses


def depth_map_distances(stored: UInt8[Array, "h w"]) -> Float[Array, "h w"]:
    """Distance from the camera along the ray, in scene units, of a depth map of the set: 8 (1 - v / 255).

    The set does not say so. Points of one test view, placed by it, fall on the object in the nearest other view for all
    but 0.1 % (depth along z: 1.5 %), and its depths there differ by 0.015 in the median, half a step of the 8 bits.
    """
    return MAX_DEPTH_VALUE * (1.0 - stored.astype(np.float64) / 255.0)


def depth_errors(path: Path) -> Metrics:
    """|rendered - true| depth along z in scene units, where the object covers a pixel wholly, over all test photos."""
    from PIL import Image

    from quoin.pipeline.geometry.cameras import pixel_grid, rays_world
    from quoin.pipeline.scene import posed_images
    from quoin.pipeline.storage.run import Run

    run = Run.open(path)
    posed, errors, n_inside = posed_images.read_posed(run), [], 0
    for index in read_held_out(run).tolist():
        kind, name = Path(posed.names[index]).stem.split("_", 2)[1:]
        if kind != "test":
            raise ValueError(f"{posed.names[index]} is held out, and is no test photo")
        depth = posed_images.read_rendering(run, index).depth_m
        height, width = depth.shape
        alpha = np.asarray(Image.open(LEGO_DATA / kind / f"{name}.png"))[:, :, 3]
        stored = np.asarray(Image.open(LEGO_DATA / kind / f"{name}_depth_0001.png"))[:, :, 0]
        pose = posed.cam_from_world[index]
        _, directions = rays_world(pose, posed.intrinsics[index], pixel_grid(width, height))
        true = depth_map_distances(stored) * (directions @ pose[2, :3]).reshape(height, width)
        inside = alpha == 255
        n_inside += int(inside.sum())
        errors.append(np.abs(depth - true)[inside & (depth > 0)])
    all_errors = np.concatenate(errors)
    return {
        "mean_abs_error": float(all_errors.mean()),
        "median_abs_error": float(np.median(all_errors)),
        "share_with_depth": len(all_errors) / n_inside,
        "step_of_truth": MAX_DEPTH_VALUE / 255.0,
    }


def psnr_curve(run: Path) -> list[tuple[float, float]]:
    """Seconds of training and PSNR (dB) on tiles of training photos that are kept out; not that of the test photos."""
    import pyarrow.parquet as pq

    tables = sorted((run / "tables").glob("train_*.parquet"))
    rows = [row for table in tables for row in pq.read_table(table).to_pylist()]
    return [(round(row["seconds"], 1), round(row["value"], 2)) for row in rows if row["name"] == "heldout_psnr_db"]
