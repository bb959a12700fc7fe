"""A run on real photos, killed in every stage: it goes on, redoes nothing committed, and ends with the same mesh."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import trimesh

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT.parent / "shared" / "data" / "sceaux_castle" / "images"
STAGES = ("ingest", "pose", "partition", "priors", "train", "fuse", "report")
SMALL = ("priors.stereo_edge_px=256", "train.steps=60", "train.checkpoint_minutes=0.05", "partition.resolution=160")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no photos in {PHOTOS}"),
]


def start(run: Path) -> subprocess.Popen[str]:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "quoin.flows.cli.app",
            "reconstruct",
            PHOTOS,
            "--out",
            run,
            "--json",
            "--device",
            "cpu",
            *settings,
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_in(stage: str, run: Path, after_s: float = 0.0) -> None:
    """Start or go on, and kill everything so many seconds after ``stage`` has made its first progress."""
    with start(run) as process:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["name"].split("/")[0] == stage and event["kind"] in ("advance", "start"):
                break
        time.sleep(after_s)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode in (-signal.SIGKILL, 0)  # 0: it was done before


def manifests(run: Path) -> dict[str, str]:
    return {name: json.dumps(m) for name, m in json.loads((run / "run.json").read_text())["manifests"].items()}


def finish(run: Path) -> trimesh.Trimesh:
    process = start(run)
    process.communicate()
    assert process.returncode == 0
    assert set(STAGES) <= set(manifests(run))
    return trimesh.load(run / "mesh.ply", process=False)


def test_killed_in_every_stage(tmp_path: Path) -> None:
    whole = finish(tmp_path / "whole")
    run, before = tmp_path / "killed", dict[str, str]()
    for stage in STAGES:
        kill_in(stage, run)
        after = manifests(run)
        assert stage not in after
        assert before.items() <= after.items()
        before = after
    mended = finish(run)
    assert before.items() <= manifests(run).items()
    check_same_surface(whole, mended)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    """Three moments in every stage, wherever it stands by then."""
    whole, rng = finish(tmp_path / "whole"), random.Random(0)
    took_s = {name: json.loads(m)["seconds"] for name, m in manifests(tmp_path / "whole").items()}
    run, before, n_kills = tmp_path / "killed", dict[str, str](), 0
    for stage in STAGES:
        for _ in range(3):
            if stage not in before:
                kill_in(stage, run, rng.uniform(0, 0.8 * took_s[stage]))
                n_kills += 1
                after = manifests(run) if (run / "run.json").exists() else {}
                assert before.items() <= after.items()
                before = after
    assert n_kills >= 2 * len(STAGES)
    mended = finish(run)
    assert before.items() <= manifests(run).items()
    check_same_surface(whole, mended)


def check_same_surface(whole: trimesh.Trimesh, mended: trimesh.Trimesh) -> None:
    size = np.linalg.norm(whole.extents)
    for one, other in ((whole, mended), (mended, whole)):
        off = distances(one.vertices[:: max(1, len(one.vertices) // 5000)], other)
        assert np.quantile(off, 0.99) < 0.005 * size


def distances(points: np.ndarray, mesh: trimesh.Trimesh) -> np.ndarray:
    import open3d

    surface = open3d.t.geometry.RaycastingScene()
    surface.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    return surface.compute_distance(np.asarray(points, np.float32)).numpy()
