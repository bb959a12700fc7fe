"""Two hundred flow runs in a queue of Prefect: two thirds are cancelled, processes and workers are killed meanwhile.

    python -m benchmarks soak-queue          # keeps results/soak-queue.json
    python -m benchmarks.soak_queue 10       # a quick try of ten

As in soak.py the stages are light ones and all else is real: ``quoin ui`` with its automations, a process pool for two
runs at a time, its workers, and what ``quoin submit`` does. Several flow runs want the same folder, some on Ray actors.
At the end each must have ended in a way that can be explained, and nothing may be left of any.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock
from urllib.request import Request, urlopen

from benchmarks import soak
from benchmarks.measure import Measurement, Metrics
from benchmarks.server import serve_prefect
from quoin.flows.prefect.server import AUTH_VARIABLE, auth_header

N_FLOW_RUNS, N_QUEUE_FOLDERS, QUEUE_SEED = 200, 8, 1
POOL_NAME, MAX_CONCURRENT_RUNS = "soak", 2
QUEUE_STAGE_DURATION_S = 0.6  # of a stage
QUEUE_POLL_S = 1.0  # between two looks at the queue
CANCELLED_SHARE, QUEUE_RAY_SHARE, QUEUE_CHANGED_SHARE = 2 / 3, 0.2, 0.8  # shares of the runs
MAX_CANCEL_DELAY_S = {"PENDING": 3.0, "RUNNING": 8.0}  # that a run is cancelled after it was first seen so
QUEUED_S_PER_RUN = 2.0  # times the number of runs: the same for one that waits
FAULT_KINDS = ("run killed", "worker stopped", "worker killed")
FAULT_INTERVAL_S = (30.0, 150.0)  # between two
STUCK_TIMEOUT_S = (
    600.0  # without any change; of a run that is lost is known after three minutes, or five if it is cancelled
)
PROCESS_MARKER = "SOAK_QUEUE"  # in the environment of workers and all that they start
ACTIVE_STATES = ("PENDING", "RUNNING", "CANCELLING")
RUN_IN_USE_MESSAGE = "Another quoin works in this run folder"

FlowRun = dict[str, Any]  # as Prefect's API tells it


@dataclass
class FlowRunPlan:
    """What shall become of a flow run, and what was done to it."""

    state: str | None = None  # in which it shall be cancelled; None: it shall not
    after_s: float = 0.0  # since it was first seen so
    seen: float | None = None
    cancelled: float | None = None  # when; Unix time
    is_faulted: bool = False  # its process was killed, or the worker that watches it stopped or killed


def measure_soak_queue(out: Path, n_runs: int = N_FLOW_RUNS) -> tuple[Measurement, Metrics]:
    """How many flow runs ended how, and what was found wrong."""
    began = time.monotonic()
    (out / "photos").mkdir(parents=True, exist_ok=True)
    home = {"PREFECT_HOME": str(out / "prefect"), "QUOIN_HOME": str(out / "home")}
    with mock.patch.dict(os.environ, home), soak.ray_cluster() as (ray, actors), serve_prefect(out / "home") as url:
        queue = QueueSoak(url, out, ray, random.Random(QUEUE_SEED))
        queue.submit_runs(n_runs)
        print(f"{n_runs} runs are submitted", flush=True)
        queue.run_with_faults()
        queue.wrong += [f"{n} actors stay" for n in [soak.wait_until_zero(actors)] if n]
        queue.wrong += soak.resume_all(out)
    seconds = round(time.monotonic() - began, 1)
    numbers = {
        "ended": dict(sorted(queue.ended.items())),
        "seconds_until_cancelled": {
            "median": median(queue.cancel_seconds or [0]),
            "most": max(queue.cancel_seconds or [0]),
        },
        "wrong": queue.wrong,
    }
    return Measurement("python -m benchmarks soak-queue", int(bool(queue.wrong)), seconds, 0), numbers


class QueueSoak:
    """A pool with runs that wait, its worker, and those who disturb them."""

    def __init__(self, url: str, out: Path, ray: str, rng: random.Random) -> None:
        self.url, self.out, self.ray, self.rng = url, out, ray, rng
        of_worker = {
            PROCESS_MARKER: str(out),
            "FAKE_PACE": str(QUEUE_STAGE_DURATION_S),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        self.environment = os.environ | of_worker
        self.plans: dict[str, FlowRunPlan] = {}  # by id of the flow run
        self.ended, self.wrong, self.n_workers = Counter[str](), list[str](), 0
        self.cancel_seconds: list[float] = []  # seconds from cancelled by hand to the state
        self.post("work_pools/", name=POOL_NAME, type="process", concurrency_limit=MAX_CONCURRENT_RUNS)

    def post(self, what: str, **values: Any) -> Any:
        """What Prefect's API answers."""
        headers = {"Content-Type": "application/json", **auth_header(os.environ[AUTH_VARIABLE])}
        request = Request(f"{self.url}/{what}", json.dumps(values).encode(), headers)
        with urlopen(request, timeout=120.0) as reply:
            return json.load(reply)

    def runs(self, **wanted: Any) -> list[FlowRun]:
        """All flow runs, or those that ``wanted`` filters."""
        found: list[FlowRun] = []
        while page := self.post("flow_runs/filter", **wanted, offset=len(found), sort="ID_DESC"):
            found += page
        return found

    @property
    def active(self) -> list[FlowRun]:
        """Flow runs that a worker has taken, and that have not ended."""
        return self.runs(**_state_filter(*ACTIVE_STATES))

    def submit_runs(self, n_runs: int) -> None:
        """Hand in runs, and draw which of them shall be cancelled when."""
        for _ in range(n_runs):
            state = self.rng.choice(["SCHEDULED", *MAX_CANCEL_DELAY_S]) if self.rng.random() < CANCELLED_SHARE else None
            latest_s = MAX_CANCEL_DELAY_S.get(state, QUEUED_S_PER_RUN * n_runs) if state else 0.0
            where = {"executor": "ray", "address": self.ray} if self.rng.random() < QUEUE_RAY_SHARE else {}
            change = [soak.random_change(self.rng)]
            overrides = change if self.rng.random() < QUEUE_CHANGED_SHARE else []
            added = self.submit(f"run{self.rng.randrange(N_QUEUE_FOLDERS)}", overrides=overrides, **where)
            self.plans[added] = FlowRunPlan(state, self.rng.uniform(0.0, latest_s))

    def submit(self, folder: str, **more: Any) -> str:
        """The id of one more flow run, as ``quoin submit`` tells it."""
        from quoin.flows.prefect.submit import submit_run

        parameters = {"photos": str(self.out / "photos"), "out": str(self.out / folder), "device": "cpu", **more}
        with redirect_stdout(io.StringIO()) as told:
            submit_run(POOL_NAME, parameters, watch=False)
        return told.getvalue().split()[-1]  # to stop it: prefect flow-run cancel ID

    def run_with_faults(self) -> None:
        """Have the queue worked off while runs are cancelled and killed; then it must still take runs, and be empty."""
        self.worker = self._started()
        try:
            self._process_queue(faults=True)
            for number in range(MAX_CONCURRENT_RUNS):
                self.plans[self.submit(f"run-last{number}")] = FlowRunPlan()
            self._process_queue(faults=False)
        finally:
            self._stop()
        self.wrong += self._unexplained()
        for limits in ("concurrency_limits", "v2/concurrency_limits"):
            self.wrong += [
                f"{limit} is still taken" for limit in self.post(f"{limits}/filter") if limit["active_slots"]
            ]
        self.wrong += [f"{n} processes stay" for n in [soak.wait_until_zero(lambda: len(self._processes()))] if n]

    def _process_queue(self, *, faults: bool) -> None:
        """Until no run is left or nothing changes any more."""
        changed, before = time.monotonic(), set[tuple[str, str]]()
        fault = changed + self.rng.uniform(*FAULT_INTERVAL_S)
        while (
            self.post("flow_runs/count", **_state_filter("SCHEDULED", *ACTIVE_STATES))
            and time.monotonic() - changed < STUCK_TIMEOUT_S
        ):
            active = self.active
            now = {(run["id"], run["state_id"]) for run in active}
            changed, before = changed if now == before else time.monotonic(), now
            self._cancel_due({run["id"]: run["state_type"] for run in active})
            if faults and active and time.monotonic() > fault:
                self._inject_fault(active)
                fault = time.monotonic() + self.rng.uniform(*FAULT_INTERVAL_S)
            time.sleep(QUEUE_POLL_S)

    def _cancel_due(self, active: dict[str, str]) -> None:
        """Cancel as the button in the UI does what is due; the states of active runs by id."""
        now = time.monotonic()
        for id_, plan in self.plans.items():
            state = active.get(id_, "SCHEDULED")
            if plan.seen is None and (state == plan.state or (state, plan.state) == ("RUNNING", "PENDING")):
                plan.seen = now
            if plan.seen is not None and plan.cancelled is None and now >= plan.seen + plan.after_s:
                plan.cancelled = time.time()
                told = self.post(f"flow_runs/{id_}/set_state", state={"type": "CANCELLING"})["state"]
                is_cancelling = told and told["type"] in ("CANCELLING", "CANCELLED")
                self.ended[f"cancelled while {state.lower()}" if is_cancelling else "cancelled too late"] += 1

    def _inject_fault(self, active: list[FlowRun]) -> None:
        """Kill a run, or stop or kill the worker, and start another."""
        fault = self.rng.choice(FAULT_KINDS)
        if fault == "run killed":
            leaders = [
                (pid, id_) for pid, id_ in self._processes().items() if id_ in self.plans and _is_group_leader(pid)
            ]
            if leaders:
                pid, id_ = self.rng.choice(leaders)
                self.plans[id_].is_faulted = True
                os.kill(pid, signal.SIGKILL)
                self.ended[fault] += 1
            return
        self.ended[fault] += 1
        if fault == "worker stopped":
            self._stop()
        else:
            self.worker.kill()
            self.worker.wait()
        for run in active + self.active:
            self.plans[run["id"]].is_faulted = True
        self.worker = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        """One more worker of the pool."""
        self.n_workers += 1
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL_NAME, "--type", "process"]
        with open(self.out / f"worker{self.n_workers}.log", "wb") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)

    def _stop(self) -> None:
        """SIGTERM, upon which a worker stops its runs."""
        self.worker.send_signal(signal.SIGTERM)
        try:
            self.worker.wait(soak.MAX_EXIT_S)
        except subprocess.TimeoutExpired:
            self.worker.kill()
            self.worker.wait()
            self.ended["worker that did not stop"] += 1

    def _processes(self) -> dict[int, str]:
        """Processes of workers and all that they started, with the ids of their flow runs."""
        found = {}
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                words = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                if f"{PROCESS_MARKER}={self.out}" in words:
                    ids = [word.partition("=")[2] for word in words if word.startswith("PREFECT__FLOW_RUN_ID=")]
                    found[int(entry.name)] = ids[0] if ids else ""
        return found

    def _unexplained(self) -> Iterator[str]:
        """Flow runs that have not ended, or not as one would expect of what was done to them."""
        for run in self.runs():
            plan, state, message = self.plans[run["id"]], run["state_type"], run["state"]["message"] or ""
            refused = state == "FAILED" and message.startswith(RUN_IN_USE_MESSAGE)
            self.ended[f"{state.lower()}: another is there" if refused else state.lower()] += 1
            if plan.cancelled is not None and state == "CANCELLED":
                self.cancel_seconds.append(datetime.fromisoformat(run["end_time"]).timestamp() - plan.cancelled)
            why = {"COMPLETED": True, "FAILED": refused, "CANCELLED": plan.cancelled, "CRASHED": plan.is_faulted}
            if not why.get(state):
                yield f"{run['id']} into {run['name']}: {run['state_name']}, {message or 'no message'} ({plan})"


def _state_filter(*states: str) -> dict[str, Any]:
    """What asks Prefect for flow runs in these states."""
    return {"flow_runs": {"state": {"type": {"any_": states}}}}


def _is_group_leader(pid: int) -> bool:
    """Whether a process leads its group, as that of a flow run does."""
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int, nargs="?", default=N_FLOW_RUNS)
    parser.add_argument("--keep", type=Path, help="folder for the runs; a temporary one where not given")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measured, numbers = measure_soak_queue(args.keep or Path(scratch), args.runs)
    print(json.dumps({"seconds": measured.seconds, **numbers}, indent=1))


if __name__ == "__main__":
    main()
