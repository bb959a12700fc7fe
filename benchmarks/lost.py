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
from benchmarks.measure import Measured, Numbers, quoin, read, together
from benchmarks.scale import LIGHT

QUARTERS, MACHINES = 16, 3
CHECKPOINT_MINUTES = 0.02  # short, as the trainings are


def case(out: Path, quarters: int = QUARTERS) -> tuple[Measured, Numbers]:
    """F of both at the demo's distances, the steps that were done twice, and what was told of the lost machine."""
    town, collection = out / "town" / "run", out / "town" / "collection"
    given = ("--scene", "town", "--quarters", str(quarters), "--engine", "direct", "--quiet")
    done = [quoin("demo", "--out", out / "town", *given, *LIGHT)]
    numbers: Numbers = {
        "undisturbed": scores(town),
        "undisturbed_s": {stage: seconds(town, stage) for stage in ("train", "fuse")},
    }
    broken = rivals.copied(town, out / "broken")
    numbers |= train_and_lose(broken)
    truth = collection / "truth"
    distances = [word for metres in ("0.1", "0.2", "0.5") for word in ("--distance", metres)]
    cameras = truth / "transforms.json"
    done.append(quoin("evaluate", broken, "--truth", truth / "mesh.ply", "--cameras", cameras, *distances))
    return together("python -m benchmarks lost", done), {**numbers, "with_a_loss": scores(broken)}


def train_and_lose(run_folder: Path) -> Numbers:
    """Train all blocks anew on MACHINES raylets and kill one of them."""
    from tests.raylets import QUICK, STORE_BYTES

    os.environ.update(QUICK, RAY_worker_niceness="0")  # else workers wait for whatever else runs
    import ray
    from ray.cluster_utils import Cluster

    from quoin.cluster.blocks import train_blocks
    from quoin.cluster.fusion import fuse_blocks
    from quoin.cluster.ray_executor import RayExecutor
    from quoin.flows.pipeline import redo_from
    from quoin.flows.session import resumed, settings_of
    from quoin.pipeline.core.events import Event, Reporter

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, num_gpus=0, object_store_memory=STORE_BYTES) for _ in range(MACHINES)]
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    step: dict[str, float] = {}
    at_loss: dict[str, float] = {}
    told: list[tuple[str, str]] = []
    lost_at: list[float] = []

    def hear(event: Event) -> None:
        name = event["name"]
        if event["kind"] == "advance" and name.count("/") == 1:
            step[name] = event["done"]
        elif event["kind"] == "log":
            told.append((name, event["message"]))
        elif event["kind"] == "end":
            step.pop(name, None)
        saved = [n for n in step if (run_folder / "work/blocks" / n.split("/")[1] / "checkpoint.safetensors").exists()]
        if not lost_at and len(saved) == MACHINES:
            lost_at.append(time.monotonic())
            at_loss.update(step)
            for process in nodes[-1].all_processes["raylet"]:
                os.kill(process.process.pid, signal.SIGKILL)

    executor = RayExecutor("cpu", cluster.address, MACHINES)
    try:
        with resumed(run_folder) as run:
            redo_from(run, "train")
            settings, began = settings_of(run), time.monotonic()
            often = settings.train.model_copy(update={"checkpoint_minutes": CHECKPOINT_MINUTES})
            result = train_blocks(run, often, executor, Reporter(hear))
            trained = time.monotonic()
            fuse_blocks(run, settings.fuse, executor, Reporter())
            fused = time.monotonic()
    finally:
        ray.shutdown()
        cluster.shutdown()
    went_on = {name: int(said.split("step ")[1].split()[0]) for name, said in told if said.startswith("going on from")}
    return {
        "machines": MACHINES,
        "blocks": len(result.blocks),
        "missing": result.missing,
        "train_with_a_loss_s": round(trained - began, 1),
        "fuse_by_who_is_left_s": round(fused - trained, 1),
        "lost_after_s": round(lost_at[0] - began, 1) if lost_at else None,
        "steps_when_it_was_lost": at_loss,
        "went_on_from_step": went_on,
        "told": [f"{name}: {said}" for name, said in told if "worker" in said or said.startswith("going on")],
    }


def scores(run: Path) -> Numbers:
    """F by distance in metres."""
    surface = read(run / "evaluation.json").get("surface") or {}
    return {f"{score['distance_m']:g} m": round(score["f"], 4) for score in surface.get("scores", [])}


def seconds(run: Path, stage: str) -> float:
    return round(read(run / "run.json")["manifests"][stage]["seconds"], 1)
