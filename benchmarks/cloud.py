"""A small run in object storage beside the same run in a folder: what the storage costs, stage by stage.

The storage is moto's S3 server on this machine, in Python and in memory: about 10 ms a request and no network, so this
tells how many requests a run makes and what quoin itself does for them, not how fast anyone's storage is.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import DATA, BenchmarkSkipped, Measurement, Metrics, combine_measurements, run_quoin

CLOUD_PHOTOS = DATA / "sceaux_castle" / "images"
CLOUD_SETTINGS = (
    "pose.max_edge_px=800",
    "pose.max_features=1500",
    "priors.stereo_edge_px=0",
    "partition.resolution=128",
    "train.steps=40",
    "train.checkpoint_minutes=0.1",
)


def measure_cloud(out: Path) -> tuple[Measurement, Metrics]:
    """Seconds by stage in a folder and in the storage, what lies there, and an export by a machine with no cache."""
    for name in ("obstore", "moto"):
        if importlib.util.find_spec(name) is None:
            raise BenchmarkSkipped(f"{name} is not installed")
    from quoin.pipeline.storage.object_store import Bucket
    from quoin.pipeline.storage.run import Run
    from tests.fixtures.s3_server import environment, make_bucket, s3_server

    settings = [word for setting in CLOUD_SETTINGS for word in ("--set", setting)]
    arguments: tuple[str | Path, ...] = (
        "reconstruct",
        CLOUD_PHOTOS,
        "--preset",
        "draft",
        "--device",
        "cpu",
        *settings,
    )
    with s3_server() as address:
        url = make_bucket(address, "benchmark") + "/run"
        uncompiled = {"TORCHDYNAMO_DISABLE": "1"}  # else the first run would compile for both
        with environ({**environment(address), **uncompiled, "QUOIN_HOME": str(out / "home")}):
            done = [run_quoin(*arguments, "--out", out / "folder"), run_quoin(*arguments, "--out", url)]
            folder, stored_run = Run.open(out / "folder"), Run.open(url)
            objects = Bucket(url).list_objects()
            meshes = [run.file("mesh.ply").stat().st_size for run in (folder, stored_run)]
        with environ({**environment(address), "QUOIN_HOME": str(out / "elsewhere")}):
            exported = run_quoin("export", url, "--format", "ply", "--out", out / "exported.ply")
            photo = time_photo_access(out, url.replace("/run", "/photos"))
        numbers: dict[str, Any] = {
            "seconds_folder": done[0].seconds,
            "seconds_storage": done[1].seconds,
            "stages": {
                name: {"folder_s": round(manifest.seconds, 2), "storage_s": round(stored_run.require(name).seconds, 2)}
                for name, manifest in folder.record.manifests.items()
            },
            "objects": len(objects),
            "objects_bytes": sum(n_bytes for _, n_bytes, _ in objects),
            "mesh_bytes_folder_storage": meshes,
            "export_elsewhere_s": exported.seconds,
            "photo": photo,
        }
    return combine_measurements("python -m benchmarks cloud", [*done, exported]), numbers


def time_photo_access(out: Path, url: str, n_photos: int = 10) -> dict[str, float]:
    """Seconds to write and to read a photo of 800 x 600 with its pyramid, a folder and the storage taking turns.

    Medians, so that what else the machine does counts little.
    """
    from quoin.pipeline.core.config import StageResult
    from quoin.pipeline.scene import posed_images
    from quoin.pipeline.storage.run import Run

    rgb = np.random.default_rng(0).integers(0, 255, (600, 800, 3)).astype(np.uint8)
    levels, mask = (
        [rgb[:: 2**k, :: 2**k] for k in range(posed_images.PYRAMID_LEVELS)],
        np.full((600, 800), 255, np.uint8),
    )
    runs = {
        name: Run.create(place, photos=out, settings={}, seed=0)
        for name, place in (("folder", out / "photos"), ("storage", url))
    }
    times: dict[str, list[float]] = {}

    def timed(arguments: str, work: Callable[[], object]) -> None:
        began = time.monotonic()
        work()
        times.setdefault(arguments, []).append(time.monotonic() - began)

    for index in range(n_photos):
        for name, run in runs.items():
            timed(f"write_{name}_s", functools.partial(posed_images.write_photo, run, index, levels, mask))
    for run in runs.values():
        run.commit("pose", "key", StageResult(), 0.0)
    for index in range(n_photos):
        for again in ("", "_again"):
            for name, run in runs.items():
                timed(f"read{again}_{name}_s", functools.partial(posed_images.read_photo, run, index))
    return {arguments: round(float(np.median(values)), 4) for arguments, values in times.items()}


@contextmanager
def environ(values: dict[str, str]) -> Any:
    """Environment variables for what is done inside."""
    previous = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(previous)
