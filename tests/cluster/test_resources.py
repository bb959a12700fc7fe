"""How a cluster is shared, in numbers; and what is tried again when Ray takes a worker away."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from quoin.cluster.executor import Job
from quoin.cluster.failures import Fault
from quoin.cluster.ray_executor import Try, _Drive
from quoin.cluster.resources import most_threads, share_of
from quoin.pipeline.core.errors import OutOfMemory
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage.fencing import Attempt


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
    assert most_threads(n, cores, rooms) == threads


def test_every_block_has_its_gpu() -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 32e9}} for _ in range(2)]
    share = share_of(SimpleNamespace(nodes=lambda: nodes), "auto", 3, None, 1.0, None)
    assert (share.device, share.n_workers, share.n_threads) == ("cuda", 3, 4)


def again(fault: Fault, *, shrinks: bool, number: int = 1) -> Try | None:
    drive = object.__new__(_Drive)
    drive.retries, drive.report = 3, Reporter()
    return drive._again(Try(Job("fuse/look 1/2", print, shrinks=shrinks), Attempt(), number), fault)


def test_what_ray_kills_for_memory_is_tried_again_also_where_it_cannot_take_less() -> None:
    from ray.exceptions import OutOfMemoryError

    killed = Fault("memory", "Ray's memory monitor killed its worker", OutOfMemoryError("killed"))
    block, part = again(killed, shrinks=True), again(killed, shrinks=False)
    assert block is not None
    assert part is not None
    assert (block.attempt.smaller, part.attempt.smaller, part.number) == (1, 0, 2)
    assert again(killed, shrinks=False, number=4) is None
    own = Fault("memory", "Memory does not suffice", OutOfMemory("Memory does not suffice"))
    assert again(own, shrinks=False) is None, "the same again would end the same way"
