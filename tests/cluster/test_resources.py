"""Resources of workers on a cluster, in numbers; and which tasks are tried again when Ray kills a worker."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from quoin.cluster.actor_pool import TaskAttempt
from quoin.cluster.failures import Failure
from quoin.cluster.ray_workers import _Scheduler
from quoin.cluster.resources import max_threads_per_worker, plan_resources
from quoin.pipeline.core.errors import OutOfMemory
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import Attempt, Task


@pytest.mark.parametrize(
    ("n", "cores", "rooms", "threads"),
    [
        (2, [4, 4], [4, 4], 4),
        (3, [8, 8], [2, 2], 4),  # five each would leave the third no place
        (5, [4, 64], [4, 1], 1),  # one that takes more than one core has no place beside three others
        (2, [4, 64], [4, 1], 4),
        (1, [4, 64], [1, 1], 64),
        (9, [2, 2], [2, 2], 1),  # more than there is room for
        (3, [16], [16], 5),
    ],
)
def test_as_many_cores_for_each_as_leave_all_a_place(n: int, cores: list, rooms: list, threads: int) -> None:
    assert max_threads_per_worker(n, cores, rooms) == threads


def test_every_block_has_its_gpu() -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 32e9}} for _ in range(2)]
    resources = plan_resources(SimpleNamespace(nodes=lambda: nodes), "auto", 3, None, 1.0, None)
    assert (resources.device, resources.n_workers, resources.n_threads) == ("cuda", 3, 4)


def again(fault: Failure, *, can_reduce_memory: bool, number: int = 1) -> TaskAttempt | None:
    drive = object.__new__(_Scheduler)
    drive.retries, drive.report = 3, Reporter()
    return drive._next_attempt(
        TaskAttempt(print, Task("fuse/observe 1/2", can_reduce_memory=can_reduce_memory), Attempt(), number), fault
    )


def test_what_ray_kills_for_memory_is_tried_again_also_where_it_cannot_take_less() -> None:
    from ray.exceptions import OutOfMemoryError

    killed = Failure("memory", "Ray's memory monitor killed its worker", OutOfMemoryError("killed"))
    block, part = again(killed, can_reduce_memory=True), again(killed, can_reduce_memory=False)
    assert block is not None
    assert part is not None
    assert (block.attempt.memory_level, part.attempt.memory_level, part.number) == (1, 0, 2)
    assert again(killed, can_reduce_memory=False, number=4) is None
    own = Failure("memory", "Memory does not suffice", OutOfMemory("Memory does not suffice"))
    assert again(own, can_reduce_memory=False) is None, "the same again would end the same way"
