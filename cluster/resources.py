"""Resources of the workers on a cluster: how many there are, and what each reserves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.workers import Device


@dataclass(frozen=True)
class ResourceRequest:
    """``n_workers`` on ``device``, and what each reserves; memory is reserved for each by ``reserved_bytes``."""

    device: Device
    n_workers: int
    n_threads: int
    gpu_share: float  # of one GPU; 0 on CPU
    largest_node_bytes: int  # memory of the machine that has the most
    per_worker_bytes: int  # memory that all workers can have at the same time

    def required_bytes(self, memory_bytes: int) -> int:
        """Memory to reserve for a task: no more than the largest machine has, or Ray would wait forever."""
        return min(memory_bytes, self.largest_node_bytes)

    def reserved_bytes(self, first_bytes: int, others_bytes: Sequence[int]) -> int:
        """Memory of a worker started for a task of ``first_bytes``: enough for the others where all can have it."""
        return self.required_bytes(max(first_bytes, min(max(others_bytes, default=0), self.per_worker_bytes)))


def plan_resources(
    ray: Any, device: Device, n_tasks: int, n_workers: int | None, gpu_share: float, address: str | None
) -> ResourceRequest:
    """Resources of each worker for so many tasks, of those the cluster has; QuoinError where it lacks a GPU asked for.

    By default one worker per ``gpu_share`` of a GPU, or per four cores.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpu_nodes = [node for node in nodes if node.get("GPU")]
    if device == "cuda" and not gpu_nodes:
        raise QuoinError("The Ray cluster has no GPU", where=address, hint="use --device cpu")
    if gpu_nodes and device != "cpu":
        device, nodes = "cuda", gpu_nodes
        slots = [int(node["GPU"]) * int(1 / gpu_share + 1e-6) for node in nodes]
        total_slots = sum(slots)
    else:
        device, gpu_share = "cpu", 0.0
        nodes = [node for node in nodes if node.get("CPU", 0) >= 1]
        slots = [int(node["CPU"]) for node in nodes]
        total_slots = max(1, sum(slots) // 4)
    if not nodes:
        raise QuoinError("The Ray cluster has no cores to work with", where=address, hint="add machines to it")
    n = min(n_tasks, n_workers or total_slots)
    cores = [max(1, int(node.get("CPU", 1))) for node in nodes]
    memory = [int(node.get("memory", 0)) for node in nodes]
    per_node = -(-n // len(nodes))
    n_threads = max_threads_per_worker(n, cores, slots)
    return ResourceRequest(device, n, n_threads, gpu_share, max(memory), min(memory) // max(per_node, 1))


def max_threads_per_worker(n: int, cores: Sequence[int], slots: Sequence[int]) -> int:
    """Cores for each of ``n`` workers, the same for all, on machines with ``cores`` and ``slots`` for workers each.

    1 where they do not all fit at the same time.
    """
    for n_threads_each in range(max(cores), 1, -1):
        if sum(min(n_cores // n_threads_each, n_slots) for n_cores, n_slots in zip(cores, slots, strict=True)) >= n:
            return n_threads_each
    return 1
