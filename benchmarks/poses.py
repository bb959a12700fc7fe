"""Poses of real photo sets: how many photos are registered, how precisely, and how long it takes.

    python -m benchmarks.poses DATA [SET ...] [--mapper global] [--no-refine] [--out FOLDER]

DATA holds the sets (one folder each, photos in it or in its ``images``). Prints a Markdown table, one row per set as it
is done. Sets by Strecha et al. (2008) have measured cameras: centre errors are after a robust similarity, as a share of
the largest distance between two cameras, rotation errors in degrees; both medians.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.geometry.similarity import fit_similarity_robust
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.photo_table import read_photo_table
from quoin.pipeline.storage.run import Run
from quoin.stages.ingest.config import IngestConfig
from quoin.stages.ingest.stage import INGEST
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.stage import POSE

PHOTO_SETS = [
    "strecha_fountain_p11",
    "strecha_castle_p30",
    "sceaux_castle",
    "bundler_et",
    "statue_of_liberty",
    "sacre_coeur",
    "kitchen",
    "cyprus",
    "fox",
    "monstree",
    "opensfm_lund",
    "brighton_beach",
]
TABLE_COLUMNS = (
    "set",
    "photos",
    "registered",
    "parts",
    "mapper",
    "points",
    "error px (mean)",
    "centre error",
    "rotation error",
    "seconds",
    "CPU seconds",
)


def cpu_seconds() -> float:
    """Of this process and of those it started and that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def read_strecha_cameras(folder: Path) -> dict[str, np.ndarray]:
    """cam_from_world [3, 4] by photo name, from .camera files: K, a row of zeros, R camera-to-world, centre, size."""
    out = {}
    for path in folder.glob("*.camera"):
        rows = [[float(word) for word in line.split()] for line in path.read_text().splitlines() if line.strip()]
        rotation = np.array(rows[4:7]).T
        out[path.name.removesuffix(".camera")] = np.column_stack([rotation, -rotation @ np.array(rows[7])])
    return out


def pose_errors(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Median centre error as a share of the spread of the cameras, median rotation error in degrees."""
    centers, true_centers = centers_world(found), centers_world(truth)
    fit, _ = fit_similarity_robust(centers, true_centers)
    spread = np.linalg.norm(true_centers[:, None] - true_centers[None], axis=2).max()
    relative_rotations = np.einsum("nij,nkj->nik", fit.apply_to_poses(found)[:, :, :3], truth[:, :, :3])
    angle = np.degrees(np.arccos(np.clip((np.trace(relative_rotations, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    return float(np.median(np.linalg.norm(fit.apply(centers) - true_centers, axis=1)) / spread), float(np.median(angle))


def measure_poses(photos: Path, out: Path, config: PoseConfig, truth: dict[str, np.ndarray]) -> list[str]:
    """One row of the table."""
    run = Run.create(out, photos=photos, settings={}, seed=0)
    INGEST(run, IngestConfig(), Reporter())
    began, cpu = time.monotonic(), cpu_seconds()
    try:
        result = POSE(run, config, Reporter())
    except QuoinError as error:
        used = len(read_photo_table(run, used_only=True))
        return [str(used), error.what, *[""] * 6, f"{time.monotonic() - began:.0f}", f"{cpu_seconds() - cpu:.0f}"]
    seconds, cpu = time.monotonic() - began, cpu_seconds() - cpu
    center_error = rotation = ""
    if truth:
        posed = posed_images.read_posed(run)
        true_poses = np.array([truth[Path(name).name] for name in posed.names])
        share, angle = pose_errors(posed.cam_from_world, true_poses)
        center_error, rotation = f"{100 * share:.3f} %", f"{angle:.3f}°"
    return [
        str(result.n_photos),
        str(result.n_registered),
        " + ".join(str(part.n_photos) for part in result.components),
        result.mapper + (", principal point" if result.n_refined_cameras else ""),
        str(result.n_points),
        f"{result.mean_reprojection_px:.2f}",
        center_error,
        rotation,
        f"{seconds:.0f}",
        f"{cpu:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="*", default=PHOTO_SETS)
    parser.add_argument("--mapper", default="auto", choices=["auto", "global", "incremental"])
    parser.add_argument("--no-refine", action="store_true", help="leave principal points at the centre")
    parser.add_argument("--exhaustive-max-photos", type=int, default=300, help="above, pairs come from retrieval")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    options = parser.parse_args()
    config = PoseConfig(
        mapper=options.mapper,
        refine_intrinsics=not options.no_refine,
        exhaustive_max_photos=options.exhaustive_max_photos,
    )
    print("| " + " | ".join(TABLE_COLUMNS) + " |\n|" + "---|" * len(TABLE_COLUMNS), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.sets:
            folder = options.data / name
            photos = folder / "images" if (folder / "images").is_dir() else folder
            row = measure_poses(
                photos, (options.out or Path(scratch)) / name, config, read_strecha_cameras(folder / "gt_dense_cameras")
            )
            print("| " + " | ".join([name, *row]) + " |", flush=True)


if __name__ == "__main__":
    main()
