"""How a cluster is shared among workers: how many, and what each reserves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quoin.cluster.executor import Device
from quoin.pipeline.core.errors import QuoinError


@dataclass(frozen=True)
class Share:
    """``n_workers`` on ``device``, each with so much; memory is reserved worker by worker, by ``reservation``."""

    device: str
    n_workers: int
    n_threads: int
    gpu_share: float  # of one GPU; 0 on CPU
    largest_bytes: int  # memory of the machine that has most
    even_bytes: int  # that every worker can have at the same time

    def needs(self, memory_bytes: int) -> int:
        """What a job must be given: more than the largest machine has would be waited for for ever."""
        return min(memory_bytes, self.largest_bytes)

    def reservation(self, first_bytes: int, others_bytes: Sequence[int]) -> int:
        """Memory of a worker hired for a job of ``first_bytes``: enough for the others too, where all can have that."""
        return self.needs(max(first_bytes, min(max(others_bytes, default=0), self.even_bytes)))


def share_of(
    ray: Any, device: Device, n_jobs: int, n_workers: int | None, gpu_share: float, address: str | None
) -> Share:
    """The share of each worker for so many jobs, from what the cluster has; QuoinError where it lacks a GPU asked for.

    By default one worker per ``gpu_share`` of a GPU, or per four cores.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    on_gpus = [node for node in nodes if node.get("GPU")]
    if device == "cuda" and not on_gpus:
        raise QuoinError("The Ray cluster has no GPU", where=address, do="use --device cpu")
    if on_gpus and device != "cpu":
        device, nodes = "cuda", on_gpus
        rooms = [int(node["GPU"]) * int(1 / gpu_share + 1e-6) for node in nodes]
        places = sum(rooms)
    else:
        device, gpu_share = "cpu", 0.0
        nodes = [node for node in nodes if node.get("CPU", 0) >= 1]
        rooms = [int(node["CPU"]) for node in nodes]
        places = max(1, sum(rooms) // 4)
    if not nodes:
        raise QuoinError("The Ray cluster has no cores to work with", where=address, do="add machines to it")
    n = min(n_jobs, n_workers or places)
    cores = [max(1, int(node.get("CPU", 1))) for node in nodes]
    memory = [int(node.get("memory", 0)) for node in nodes]
    per_node = -(-n // len(nodes))
    n_threads = most_threads(n, cores, rooms)
    return Share(device, n, n_threads, gpu_share, max(memory), min(memory) // max(per_node, 1))


def most_threads(n: int, cores: Sequence[int], rooms: Sequence[int]) -> int:
    """Cores that each of ``n`` workers can have, the same for all, on machines with so many cores and room for so many.

    One where there is no room for all of them at the same time.
    """
    for each in range(max(cores), 1, -1):
        if sum(min(has // each, room) for has, room in zip(cores, rooms, strict=True)) >= n:
            return each
    return 1
