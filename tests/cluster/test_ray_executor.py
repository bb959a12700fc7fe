"""Jobs on Ray actors of this machine: results, events, errors, and workers that die."""

from __future__ import annotations

import os
import signal
import time

import pytest

from cluster.executor import Job
from pipeline.errors import QuoinError
from pipeline.progress import Reporter

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # six processes one after the other, on a machine that may have better to do
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"),
]


def make_jobs(folder):
    """Jobs as closures, so that they travel by value: a worker does not know the tests."""

    def well(report, device):
        with report.task("well", 2) as advance:
            time.sleep(0.3)
            advance(2)
        return [device, os.environ["OMP_NUM_THREADS"], os.environ["CUDA_VISIBLE_DEVICES"]]

    def dies_once(report, device):
        mark = folder / "mark"
        if not mark.exists():
            mark.touch()
            report.log("dies_once", "first life")
            time.sleep(1.5)
            os.kill(os.getpid(), signal.SIGKILL)
        return "second life"

    def dies_always(report, device):
        with open(folder / "lives", "a") as file:
            file.write(".")
        os._exit(1)

    def refuses(report, device):
        raise QuoinError("Too dark", where="b3", do="take other photos")

    too_much = 10**15  # more than any node has: must not wait for ever
    needs = {well: too_much, dies_once: 10**8, dies_always: 10**8, refuses: 0}
    return [Job(work.__name__, work, memory_bytes) for work, memory_bytes in needs.items()]


def test_one_session_with_all_that_can_happen(tmp_path):
    from cluster.ray_executor import RayExecutor

    events = []
    executor = RayExecutor("cpu", workers=2, retries=1)
    outcomes = {o.job.name: o for o in executor.run(make_jobs(tmp_path), Reporter(events.append))}

    assert outcomes["well"].result == ["cpu", str(max(1, (os.cpu_count() or 1) // 2)), ""]
    assert [e["kind"] for e in events if e["name"] == "well"] == ["start", "advance", "end"]
    assert outcomes["dies_once"].result == "second life"
    told = [e["message"] for e in events if e["name"] == "dies_once"]
    assert told[0] == "first life"
    assert "starting again" in told[1]
    assert (tmp_path / "lives").read_text() == "..", "one try and one retry"
    assert "died 2 times" in str(outcomes["dies_always"].error)
    refusal = outcomes["refuses"].error
    assert isinstance(refusal, QuoinError)
    assert refusal.do == "take other photos"
    assert any("Traceback" in note or "Too dark" in note for note in refusal.__notes__), "the remote traceback is kept"


def test_a_worker_that_cannot_start_is_told_by_its_last_line():
    from cluster.ray_executor import _cannot_start

    error = RuntimeError("in its creation task\n\x1b[36mray::Worker\x1b[39m\nModuleNotFoundError: No module y\n")
    assert str(_cannot_start(error)).startswith("No Ray worker can start: ModuleNotFoundError: No module y.")


def test_an_unknown_cluster_is_a_sentence():
    from cluster.ray_executor import RayExecutor

    with pytest.raises(QuoinError, match="Ray cannot be reached"):
        list(RayExecutor("cpu", address="127.0.0.1:1").run(make_jobs(None), Reporter()))
