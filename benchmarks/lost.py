"""A machine of a Ray cluster is lost while a town trains on it: what that costs, and what becomes of the surface.

A real cluster of several raylets on this machine, a core each; one raylet is killed where every worker has left a
checkpoint; those that are left fuse the surface. The town is trained once undisturbed in one process, and once so.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from benchmarks import rivals
from benchmarks.measure import Measurement, Metrics, combine_measurements, read_json, run_quoin
from benchmarks.scale import LIGHT_SETTINGS

LOST_TOWN_QUARTERS, N_MACHINES = 16, 3
CHECKPOINT_MINUTES = 0.02  # short, as the trainings are


def measure_lost(out: Path, quarters: int = LOST_TOWN_QUARTERS) -> tuple[Measurement, Metrics]:
    """F of both at the demo's distances, the steps that were done twice, and what was told of the lost machine."""
    town, collection = out / "town" / "run", out / "town" / "collection"
    given = ("--scene", "town", "--quarters", str(quarters), "--engine", "direct", "--quiet")
    done = [run_quoin("demo", "--out", out / "town", *given, *LIGHT_SETTINGS)]
    numbers: Metrics = {
        "undisturbed": f_scores(town),
        "undisturbed_s": {stage: stage_seconds(town, stage) for stage in ("train", "fuse")},
    }
    broken = rivals.copy_run(town, out / "broken")
    numbers |= train_with_node_loss(broken)
    truth = collection / "truth"
    distances = [word for metres in ("0.1", "0.2", "0.5") for word in ("--distance", metres)]
    cameras = truth / "transforms.json"
    done.append(run_quoin("evaluate", broken, "--truth", truth / "mesh.ply", "--cameras", cameras, *distances))
    return combine_measurements("python -m benchmarks lost", done), {**numbers, "with_a_loss": f_scores(broken)}


def train_with_node_loss(run_folder: Path) -> Metrics:
    """Train all blocks anew on N_MACHINES raylets and kill one of them."""
    from tests.fixtures.ray_clusters import QUICK, STORE_BYTES

    os.environ.update(QUICK, RAY_worker_niceness="0")  # else workers wait for whatever else runs
    import ray
    from ray.cluster_utils import Cluster

    from quoin.cluster.ray_workers import RayWorkers
    from quoin.flows.pipeline import invalidate_from
    from quoin.flows.session import resume_run, run_settings
    from quoin.pipeline.core.events import Event, Reporter
    from quoin.stages.fuse.stage import FUSE
    from quoin.stages.train.stage import TRAIN

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=STORE_BYTES) for _ in range(N_MACHINES)]
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    step: dict[str, float] = {}
    at_loss: dict[str, float] = {}
    log_lines: list[tuple[str, str]] = []
    lost_at: list[float] = []

    def on_event(event: Event) -> None:
        name = event["name"]
        if event["kind"] == "advance" and name.count("/") == 1:
            step[name] = event["done"]
        elif event["kind"] == "log":
            log_lines.append((name, event["message"]))
        elif event["kind"] == "end":
            step.pop(name, None)
        saved = [n for n in step if (run_folder / "work/blocks" / n.split("/")[1] / "checkpoint.safetensors").exists()]
        if not lost_at and len(saved) == N_MACHINES:
            lost_at.append(time.monotonic())
            at_loss.update(step)
            for process in nodes[-1].all_processes["raylet"]:
                os.kill(process.process.pid, signal.SIGKILL)

    workers = RayWorkers("cpu", cluster.address, N_MACHINES)
    try:
        with resume_run(run_folder) as run:
            invalidate_from(run, "train")
            settings, began = run_settings(run), time.monotonic()
            train_config = settings.train.model_copy(update={"checkpoint_minutes": CHECKPOINT_MINUTES})
            result = TRAIN(run, train_config, Reporter(on_event), workers)
            trained = time.monotonic()
            FUSE(run, settings.fuse, Reporter(), workers)
            fused = time.monotonic()
    finally:
        ray.shutdown()
        cluster.shutdown()
    resumed_steps = {
        name: int(message.split("step ")[1].split()[0])
        for name, message in log_lines
        if message.startswith("going on from")
    }
    return {
        "machines": N_MACHINES,
        "blocks": len(result.blocks),
        "missing": result.failed_blocks,
        "train_with_a_loss_s": round(trained - began, 1),
        "fuse_by_who_is_left_s": round(fused - trained, 1),
        "lost_after_s": round(lost_at[0] - began, 1) if lost_at else None,
        "steps_when_it_was_lost": at_loss,
        "went_on_from_step": resumed_steps,
        "told": [
            f"{name}: {message}" for name, message in log_lines if "worker" in message or message.startswith("going on")
        ],
    }


def f_scores(run: Path) -> Metrics:
    """F by distance in metres."""
    surface = read_json(run / "evaluation.json").get("surface") or {}
    return {f"{score['distance_m']:g} m": round(score["f_score"], 4) for score in surface.get("scores", [])}


def stage_seconds(run: Path, stage: str) -> float:
    return round(read_json(run / "run.json")["manifests"][stage]["seconds"], 1)
