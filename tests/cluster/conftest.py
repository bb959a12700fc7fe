"""One Ray cluster of several nodes for all tests of this folder: a raylet each, on loopback."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fixtures.ray_clusters import QUICK, STORE_BYTES


@pytest.fixture(scope="session")
def nodes() -> Iterator[Any]:
    """A ``ray.cluster_utils.Cluster`` to which this process is connected: a head, and a node of two cores."""
    os.environ.update(QUICK)
    import ray
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=2, num_gpus=0, object_store_memory=STORE_BYTES)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture
def room(nodes: Any) -> Iterator[Any]:
    """An actor that takes all room of ``nodes``, so that work goes to those that a test adds, until it is killed."""
    import ray

    class Idler:  # in here, so that it travels by value
        def there(self) -> bool:
            return True

    idler = ray.remote(num_cpus=2)(Idler).remote()
    ray.get(idler.there.remote())
    yield idler
    ray.kill(idler)


@pytest.fixture
def node(nodes: Any) -> Iterator[Callable[..., Any]]:
    """``node(num_cpus=1)`` adds one to ``nodes``, for this test only: its end waits until Ray has noticed."""
    import ray

    def alive() -> int:
        return sum(one["Alive"] for one in ray.nodes())

    added, before = [], alive()

    def add(**resources: Any) -> Any:
        added.append(nodes.add_node(object_store_memory=STORE_BYTES, **resources))
        return added[-1]

    yield add
    for one in added:
        if one in nodes.worker_nodes:
            nodes.remove_node(one, allow_graceful=False)
    deadline = time.monotonic() + 60.0
    while alive() > before and time.monotonic() < deadline:
        time.sleep(0.2)
