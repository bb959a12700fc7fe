"""How many of the pairs that can be verified are found, of how few that are matched; and what thousands of photos cost.

    python -m benchmarks.pairs statue_of_liberty [--reference DATABASE] [--max-edge 1000] [--out FOLDER]
    python -m benchmarks.pairs simulate [--photos 500 5000 10000] [--out FOLDER]

The first matches all pairs of a real set (or reads them from a DATABASE of an earlier run of the same photos) and runs
the rounds of the pose stage with those verdicts. The second makes features of a long walk (benchmarks/walk.py), a
process for each number of photos, and small photos for ingest of up to 5,000. Prints Markdown.
"""

from __future__ import annotations

import argparse
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.measure import DATA, REPOSITORY
from benchmarks.walk import simulate_walk, write_noise_photos
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene.photo_table import PhotoRow, read_photo_table
from quoin.pipeline.storage.run import Run
from quoin.stages.ingest.config import IngestConfig
from quoin.stages.ingest.stage import INGEST
from quoin.stages.pose.colmap.database import DescriptorReader
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.pairing.matching import MAX_SIMILAR_PHOTOS, find_features, match_pairs
from quoin.stages.pose.pairing.pairs import (
    exhaustive_pairs,
    first_round_pairs,
    match_in_rounds,
    sequential_pairs,
    unique_pairs,
)
from quoin.stages.pose.pairing.retrieval import photo_similarity
from quoin.stages.pose.sfm import initial_cameras
from quoin.stages.pose.workspace import Workspace

INLIER_THRESHOLDS = (15, 20, 30, 100)
MAX_INGESTED_PHOTOS = 5000  # photos, at most
PAIR_ID_FACTOR = 2147483647  # COLMAP's id of a pair is the first image times this, plus the second


def read_reference(database: Path, count: int) -> np.ndarray:
    """Verified inliers [n, n] of all pairs."""
    inliers = np.zeros((count, count), int)
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        for pair, rows in connection.execute("SELECT pair_id, rows FROM two_view_geometries"):
            inliers[pair // PAIR_ID_FACTOR - 1, pair % PAIR_ID_FACTOR - 1] = rows
    return np.maximum(inliers, inliers.T)


def match_all(photos: list[PhotoRow], run: Run, max_edge_px: int) -> Path:
    """The database of a run with every pair of photos matched."""
    config = PoseConfig(max_edge_px=max_edge_px)
    workspace = Workspace(run, config, Reporter())
    find_features(workspace, config, photos, *initial_cameras(photos))
    match_pairs(workspace, exhaustive_pairs(len(photos)))
    return workspace.database


def measure_photo_set(name: str, out: Path, reference: Path | None, max_edge_px: int) -> None:
    """Rows of a table, one per round and one for likeness alone."""
    folder = DATA / name
    run = Run.create(
        out / name, photos=folder / "images" if (folder / "images").is_dir() else folder, settings={}, seed=0
    )
    INGEST(run, IngestConfig(), Reporter())
    photos = read_photo_table(run, used_only=True)
    database, count = reference or match_all(photos, run, max_edge_px), len(photos)
    inliers = read_reference(database, count)
    above = np.triu_indices(count, 1)
    reader, began = DescriptorReader(database), time.process_time()
    similarity = photo_similarity(reader, count, MAX_SIMILAR_PHOTOS, 0)
    seconds = time.process_time() - began

    def row(what: str, pairs: np.ndarray) -> None:
        proposed = np.zeros((count, count), bool)
        proposed[pairs[:, 0], pairs[:, 1]] = True
        hit = inliers[above][proposed[above]]
        recalls = [f"{(hit >= least).sum() / (inliers[above] >= least).sum():.3f}" for least in INLIER_THRESHOLDS]
        degree = np.bincount(pairs.ravel(), minlength=count).max()
        print(
            f"| {what} | {len(pairs)} | {len(pairs) / len(above[0]):.3f} | {' | '.join(recalls)} | {degree} |",
            flush=True,
        )

    print(f"{name}: {count} photos, likeness of all takes {seconds:.1f} s of CPU; verified pairs with at least")
    print(
        ", ".join(f"{n} inliers: {(inliers[above] >= n).sum()}" for n in INLIER_THRESHOLDS)
        + f", of {len(above[0])} pairs\n"
    )
    print(f"| after | pairs | share | {' | '.join(f'recall, {n}' for n in INLIER_THRESHOLDS)} | most of a photo |")
    print("|---|" + "---|" * (len(INLIER_THRESHOLDS) + 3))
    best = np.argsort(-similarity.toarray(), axis=1)[:, :20]
    row("20 most alike", unique_pairs(np.stack([np.repeat(np.arange(count), best.shape[1]), best.ravel()], axis=1)))
    matched: list[np.ndarray] = []

    def verify(pairs: np.ndarray, number: int) -> np.ndarray:
        matched.append(pairs)
        row(f"round {number}", np.concatenate(matched))
        return inliers[pairs[:, 0], pairs[:, 1]] > 0

    first = unique_pairs(np.concatenate([first_round_pairs(similarity), sequential_pairs(photos)]))
    match_in_rounds(similarity, first, 2 * PoseConfig().neighbors, verify)


def measure_simulation(count: int, out: Path) -> None:
    """A row: seconds of CPU of each part, peak memory of the process, pairs and recall."""
    out.mkdir(parents=True, exist_ok=True)
    walk = simulate_walk(count, out / "database.db")
    seconds: dict[str, float] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        began = time.process_time()
        yield
        seconds[part] = time.process_time() - began

    if count <= MAX_INGESTED_PHOTOS:
        run = Run.create(out / "run", photos=write_noise_photos(count, out / "photos"), settings={}, seed=0)
        with timed("ingest"):
            INGEST(run, IngestConfig(), Reporter())
    verifying = 0.0

    def verify(pairs: np.ndarray, number: int) -> np.ndarray:
        nonlocal verifying
        began = time.process_time()
        good = walk.verified(pairs)
        verifying += time.process_time() - began
        matched.append(pairs)
        return good

    matched: list[np.ndarray] = []
    reader = DescriptorReader(out / "database.db")
    with timed("likeness"):
        similarity = photo_similarity(reader, count, MAX_SIMILAR_PHOTOS, 0, threads=2)
    reader.close()
    with timed("rounds"):
        search_result = match_in_rounds(similarity, first_round_pairs(similarity), 2 * PoseConfig().neighbors, verify)
    seconds["rounds"] -= verifying
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    truth = {tuple(pair) for pair in walk.all_verified().tolist()}
    recall = len(truth & {tuple(pair) for pair in search_result.pairs.tolist()}) / len(truth)
    parts = " | ".join(f"{seconds.get(part, float('nan')):.1f}" for part in ("ingest", "likeness", "rounds"))
    cost = f"{1000 * sum(seconds.values()) / count:.1f}"
    most = np.bincount(search_result.pairs.ravel()).max()
    pairs = f"{len(search_result.pairs)} ({len(search_result.pairs) / count:.1f}, {most}) | {len(matched)}"
    print(
        f"| {count} | {parts} | {cost} | {before / 2**20:.2f} | {peak_gib:.2f} | {pairs} | {recall:.3f} |", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", help="a photo set, or simulate")
    parser.add_argument("--photos", type=int, nargs="+", default=[500, 5000, 10000])
    parser.add_argument("--reference", type=Path, help="database in which all pairs are matched")
    parser.add_argument("--max-edge", type=int, default=PoseConfig().max_edge_px, help="of photos, pixels")
    parser.add_argument("--out", type=Path, help="keep the work here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        out = args.out or Path(scratch)
        if args.what != "simulate":
            measure_photo_set(args.what, out, args.reference, args.max_edge)
        elif len(args.photos) == 1:
            measure_simulation(args.photos[0], out / f"walk{args.photos[0]}")
        else:
            print(
                "| photos | ingest, CPU s | likeness, CPU s | rounds, CPU s | ms a photo | GiB before | GiB at most |"
            )
            print("  pairs (a photo's share, its most) | rounds | recall |\n|" + "---|" * 10, flush=True)
            for count in args.photos:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.pairs",
                    "simulate",
                    "--photos",
                    str(count),
                    "--out",
                    str(out),
                ]
                subprocess.run(command, cwd=REPOSITORY, check=True)


if __name__ == "__main__":
    main()
