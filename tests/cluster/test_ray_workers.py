"""Tasks on the actors of a Ray cluster: results, events, errors, what is reserved, and every way to lose a worker.

Steps are closures, so that they are pickled by value: a worker does not know the tests.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from quoin.cluster.connection import connect_ray
from quoin.cluster.ray_workers import RayWorkers
from quoin.cluster.resources import plan_resources
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Event, Reporter
from quoin.pipeline.core.workers import Outcome, Step, Task, TaskContext
from quoin.pipeline.storage.lock import check_fence, fence

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # processes that start one after the other, on a machine that may have better to do
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]
MIB = 1 << 20


def step_of_tasks() -> Step:
    """A step, pickled by value, that does the work that a task is given."""

    def call(context: TaskContext, work: Callable[[TaskContext], Any]) -> Any:
        return work(context)

    return call


def finish(workers: RayWorkers, tasks: Sequence[Task]) -> tuple[dict[str, Outcome], list[Event]]:
    events: list[Event] = []
    return {o.task.name: o for o in workers.map(step_of_tasks(), tasks, Reporter(events.append))}, events


def told(events: list[Event], name: str) -> list[str]:
    return [e["message"] for e in events if e["name"] == name and e["kind"] == "log"]


@pytest.fixture
def here(nodes: Any) -> RayWorkers:
    """Two workers on the cluster."""
    return RayWorkers("cpu", nodes.address, workers=2, retries=1)


def test_what_jobs_return_tell_and_refuse(here: RayWorkers) -> None:
    def well(context):
        with context.report.task("well", 2) as advance:
            time.sleep(0.3)
            advance(2)
        return [
            context.device,
            os.environ["OMP_NUM_THREADS"],
            os.environ["CUDA_VISIBLE_DEVICES"],
            context.attempt.memory_level,
        ]

    def refuses(context):
        raise QuoinError("Too dark", where="b3", hint="take other photos")

    outcomes, events = finish(here, [Task("well", (well,)), Task("refuses", (refuses,))])
    assert outcomes["well"].result == ["cpu", "1", "", 0]
    assert [e["kind"] for e in events if e["name"] == "well"] == ["start", "advance", "end"]
    refusal = outcomes["refuses"].error
    assert isinstance(refusal, QuoinError)
    assert refusal.hint == "take other photos"
    assert any("Traceback" in note or "Too dark" in note for note in refusal.__notes__), "the remote traceback is kept"


def test_an_actor_does_many_jobs_the_longest_first(here: RayWorkers) -> None:
    def whoami(context):
        time.sleep(0.1)
        return os.getpid(), time.time()

    outcomes, _ = finish(here, [Task(f"j{i}", (whoami,)) for i in range(12)])
    assert len({o.result[0] for o in outcomes.values()}) <= 2
    ended = [outcomes[f"j{i}"].result[1] for i in range(12)]
    assert all(later - earlier > -0.3 for earlier, later in zip(ended, ended[2:], strict=False)), "in the given order"


def test_in_a_session_workers_stay_for_the_next_jobs(here: RayWorkers) -> None:
    def whoami(context):
        context.report.log("who", str(os.getpid()))
        time.sleep(0.5)
        return os.getpid()

    def pids(count: int) -> set[int]:
        outcomes, events = finish(here, [Task(f"j{i}", (whoami,)) for i in range(count)])
        assert sorted(told(events, "who")) == sorted(str(o.result) for o in outcomes.values()), (
            "heard by its own report"
        )
        return {o.result for o in outcomes.values()}

    with here.session() as n_workers:
        assert n_workers == 2
        first = pids(4)
        assert pids(4) == first
        alone = pids(1)  # one job has all cores, which the others must leave
        assert not alone & first
        last = pids(2)
    assert not pids(2) & (first | alone | last), "they have gone with the session"


def test_a_job_goes_where_its_memory_is_reserved(nodes: Any, node: Callable[..., Any]) -> None:
    node(num_cpus=2, num_gpus=2, memory=300 * MIB)

    def reserved(context):
        import ray

        time.sleep(0.2)
        return ray.get_runtime_context().get_assigned_resources().get("memory", 0)

    needs = {"first": 10, "small": 20, "large": 200, "middle": 90, "other": 90, "tiny": 10, "too large": 10**9}
    tasks = [Task(name, (reserved,), mib * MIB) for name, mib in needs.items()]
    outcomes, _ = finish(RayWorkers("auto", nodes.address, workers=2), tasks)  # only that node has GPUs, as it says
    assert all(outcomes[name].result >= min(mib, 300) * MIB for name, mib in needs.items())
    assert outcomes["first"].result == 150 * MIB, "as much as both can have at once: most jobs fit then"


def test_workers_share_a_gpu_by_parts(nodes: Any, node: Callable[..., Any]) -> None:
    node(num_cpus=1, num_gpus=1)

    with connect_ray(nodes.address) as ray:  # a pretended GPU, so no job is run: it would look for CUDA
        share = plan_resources(ray, "auto", 5, None, 0.5, None)
    assert (share.device, share.n_workers, share.gpu_share) == ("cuda", 2, 0.5)


def test_a_worker_that_is_killed_is_replaced_and_given_up_in_the_end(here: RayWorkers, tmp_path: Path) -> None:
    def dies_once(context):
        if not (tmp_path / "mark").exists():
            (tmp_path / "mark").touch()
            context.report.log("dies_once", "first life")
            time.sleep(5.0)  # until its word has come home, on a busy machine too
            os.kill(os.getpid(), signal.SIGKILL)
        return "second life", context.attempt.id

    def dies_always(context):
        with open(tmp_path / "lives", "a") as file:
            file.write(".")
        os._exit(1)

    claimed: list[str] = []
    tasks = [Task("dies_once", (dies_once,), fence=claimed.append), Task("dies_always", (dies_always,))]
    outcomes, events = finish(here, tasks)
    assert outcomes["dies_once"].result == ("second life", claimed[1])
    assert len(set(claimed)) == 2
    first, again = told(events, "dies_once")
    assert first == "first life"
    assert "starting again" in again
    assert (tmp_path / "lives").read_text() == "..", "one try and one retry"
    assert "lost 2 times" in str(outcomes["dies_always"].error)


def test_what_lacks_memory_is_tried_again_with_less(nodes: Any) -> None:
    def host(context):
        return (
            (context.attempt.memory_level, context.attempt.memory_reason)
            if context.attempt.memory_level
            else bytearray(1 << 62)
        )

    def gpu(context):
        if context.attempt.memory_level < 1:
            import torch

            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 90 GiB")
        return context.attempt.memory_level, context.attempt.memory_reason

    def silent(context):
        if not context.attempt.memory_level:
            os.kill(os.getpid(), signal.SIGKILL)
        return context.attempt.memory_level, context.attempt.memory_reason

    tasks = [Task(work.__name__, (work,), can_reduce_memory=True) for work in (host, gpu, silent)]
    outcomes, events = finish(RayWorkers("cpu", nodes.address, workers=2, retries=3), tasks)
    assert outcomes["host"].result == (1, "MemoryError")
    assert outcomes["gpu"].result == (1, "CUDA out of memory. Tried to allocate 90 GiB")
    smaller, why = outcomes["silent"].result
    assert smaller == 1
    assert "died 2 times for no reason given" in why
    assert [message.partition(":")[0] for message in told(events, "host")] == ["out of memory, trying again with less"]


def test_a_worker_that_gets_sigterm_saves_and_the_job_goes_on_elsewhere(here: RayWorkers, tmp_path: Path) -> None:
    def steps(context):
        from quoin.pipeline.core import cancellation

        at = int((tmp_path / "saved").read_text()) if (tmp_path / "saved").exists() else 0
        for step in range(at, 40):
            if step == 20 and not at:
                os.kill(os.getpid(), signal.SIGTERM)
            if cancellation.requested():
                (tmp_path / "saved").write_text(str(step))
                cancellation.check()
            time.sleep(0.1)
        return at

    outcomes, events = finish(here, [Task("steps", (steps,))])
    assert 20 <= outcomes["steps"].result < 25
    assert told(events, "steps") == ["its worker got SIGTERM, resuming elsewhere"]


def test_a_straggler_is_told_while_others_have_nothing_to_do(here: RayWorkers) -> None:
    def work(seconds):
        return lambda context: time.sleep(seconds)

    seconds = {"slow": 12.0, "a": 0.5, "b": 0.5, "c": 0.5}
    _, events = finish(here, [Task(name, (work(s),), cost=1.0) for name, s in seconds.items()])
    (said,) = told(events, "slow")
    assert "was expected of its size, and a worker has nothing to do" in said
    assert not told(events, "a")


def test_a_lost_node_its_job_goes_on_elsewhere_and_its_orphan_is_fenced(
    nodes: Any, room: Any, node: Callable[..., Any], tmp_path: Path
) -> None:
    import ray

    doomed = node(num_cpus=2, num_gpus=0)

    def work(context):
        with open(tmp_path / "pids", "a") as file:
            file.write(f"{os.getpid()}\n")
        until = time.time() + (60 if not (tmp_path / "lost").exists() else 0.2)
        while time.time() < until:
            time.sleep(0.1)
            try:
                check_fence(tmp_path, context.attempt.id)
            except QuoinError:
                (tmp_path / "fenced").write_text(context.attempt.id)
                raise
        return context.attempt.id

    events: list[Event] = []
    task = Task("work", (work,), fence=lambda attempt_id: fence(tmp_path, attempt_id))

    def fate() -> None:
        """Once the job runs: the raylet is killed, its worker left, and there is room elsewhere."""
        while not (tmp_path / "pids").exists():
            time.sleep(0.1)
        (tmp_path / "lost").touch()
        os.kill(doomed.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        ray.kill(room)

    thread = threading.Thread(target=fate)
    thread.start()
    (outcome,) = RayWorkers("cpu", nodes.address, workers=1).map(step_of_tasks(), [task], Reporter(events.append))
    thread.join()
    assert outcome.result == (tmp_path / "fencing_token").read_text()
    assert told(events, "work") == ["its worker was lost, starting again: its machine does not answer"]
    orphan, _ = map(int, (tmp_path / "pids").read_text().split())
    deadline = time.time() + 20
    while not (tmp_path / "fenced").exists() and _alive(orphan) and time.time() < deadline:
        time.sleep(0.1)
    assert not _alive(orphan) or (tmp_path / "fenced").read_text() != outcome.result


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_versions_that_differ_are_refused_before_any_work(here: RayWorkers, monkeypatch: Any) -> None:
    from quoin.cluster import actor_pool

    monkeypatch.setattr(actor_pool, "package_versions", lambda: {"quoin": "0.0.0", "Python": "3.11", "torch": "2.13"})
    with pytest.raises(QuoinError, match=r"A worker has quoin .*, this process has 0.0.0.*same quoin"):
        list(here.map(step_of_tasks(), [Task("never", (lambda context: None,))], Reporter()))


def test_a_gpu_is_asked_for_where_there_is_none(here: RayWorkers) -> None:
    here.device = "cuda"
    with pytest.raises(QuoinError, match="has no GPU"):
        list(here.map(step_of_tasks(), [Task("never", (lambda context: None,))], Reporter()))


def test_a_worker_that_cannot_start_is_told_by_its_last_line() -> None:
    from quoin.cluster.actor_pool import actor_start_error

    error = RuntimeError("in its creation task\n\x1b[36mray::Worker\x1b[39m\nModuleNotFoundError: No module y\n")
    assert str(actor_start_error(error)).startswith("No Ray worker can start: ModuleNotFoundError: No module y.")


def test_an_unknown_cluster_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # whatever other tests have connected to
    with pytest.raises(QuoinError, match="Ray cannot be reached"):
        list(
            RayWorkers("cpu", address="127.0.0.1:1").map(
                step_of_tasks(), [Task("x", (lambda context: None,))], Reporter()
            )
        )
