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
from benchmarks.measure import Measured, Numbers
from benchmarks.server import serving

RUNS, FOLDERS, SEED = 200, 8, 1
POOL, AT_ONCE = "soak", 2
PACE_S = 0.6  # of a stage
LOOK_S = 1.0  # between two looks at the queue
CANCELLED, ON_RAY, ANOTHER_VALUE = 2 / 3, 0.2, 0.8  # shares of the runs
LATEST_S = {"PENDING": 3.0, "RUNNING": 8.0}  # that a run is cancelled after it was first seen so
QUEUED_S = 2.0  # times the number of runs: the same for one that waits
FAULTS = ("run killed", "worker stopped", "worker killed")
FAULTS_S = (30.0, 150.0)  # between two
STUCK_S = 600.0  # without any change; of a run that is lost is known after three minutes, or five if it is cancelled
MINE = "SOAK_QUEUE"  # in the environment of workers and all that they start
ACTIVE = ("PENDING", "RUNNING", "CANCELLING")
ANOTHER_IS_THERE = "Another quoin works in this run folder"

FlowRun = dict[str, Any]  # as Prefect's API tells it


@dataclass
class Fate:
    """What shall become of a flow run, and what was done to it."""

    state: str | None = None  # in which it shall be cancelled; None: it shall not
    after_s: float = 0.0  # since it was first seen so
    seen: float | None = None
    cancelled: float | None = None  # when; Unix time
    hit: bool = False  # its process was killed, or the worker that watches it stopped or killed


def case(out: Path, n_runs: int = RUNS) -> tuple[Measured, Numbers]:
    """How many flow runs ended how, and what was found wrong."""
    began = time.monotonic()
    (out / "photos").mkdir(parents=True, exist_ok=True)
    home = {"PREFECT_HOME": str(out / "prefect"), "QUOIN_HOME": str(out / "home")}
    with mock.patch.dict(os.environ, home), soak.cluster() as (ray, actors), serving(out / "home") as url:
        queue = Queue(url, out, ray, random.Random(SEED))
        queue.fill(n_runs)
        print(f"{n_runs} runs are submitted", flush=True)
        queue.disturb()
        queue.wrong += [f"{n} actors stay" for n in [soak.left(actors)] if n]
        queue.wrong += soak.finished(out)
    seconds = round(time.monotonic() - began, 1)
    numbers = {
        "ended": dict(sorted(queue.ended.items())),
        "seconds_until_cancelled": {"median": median(queue.until_gone or [0]), "most": max(queue.until_gone or [0])},
        "wrong": queue.wrong,
    }
    return Measured("python -m benchmarks soak-queue", int(bool(queue.wrong)), seconds, 0), numbers


class Queue:
    """A pool with runs that wait, its worker, and those who disturb them."""

    def __init__(self, url: str, out: Path, ray: str, chance: random.Random) -> None:
        self.url, self.out, self.ray, self.chance = url, out, ray, chance
        of_worker = {MINE: str(out), "FAKE_PACE": str(PACE_S), "PREFECT_WORKER_QUERY_SECONDS": "1"}
        self.environment = os.environ | of_worker
        self.fates: dict[str, Fate] = {}  # by id of the flow run
        self.ended, self.wrong, self.n_workers = Counter[str](), list[str](), 0
        self.until_gone: list[float] = []  # seconds from cancelled by hand to the state
        self.ask("work_pools/", name=POOL, type="process", concurrency_limit=AT_ONCE)

    def ask(self, what: str, **values: Any) -> Any:
        """What Prefect's API answers."""
        request = Request(f"{self.url}/{what}", json.dumps(values).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=120.0) as reply:
            return json.load(reply)

    def runs(self, **wanted: Any) -> list[FlowRun]:
        """All flow runs, or those that ``wanted`` filters."""
        found: list[FlowRun] = []
        while page := self.ask("flow_runs/filter", **wanted, offset=len(found), sort="ID_DESC"):
            found += page
        return found

    @property
    def active(self) -> list[FlowRun]:
        """Flow runs that a worker has taken, and that have not ended."""
        return self.runs(**_in(*ACTIVE))

    def fill(self, n_runs: int) -> None:
        """Hand in runs, and draw which of them shall be cancelled when."""
        for _ in range(n_runs):
            state = self.chance.choice(["SCHEDULED", *LATEST_S]) if self.chance.random() < CANCELLED else None
            latest_s = LATEST_S.get(state, QUEUED_S * n_runs) if state else 0.0
            where = {"executor": "ray", "address": self.ray} if self.chance.random() < ON_RAY else {}
            change = [f"{self.chance.choice(soak.STAGES)}.value={self.chance.randrange(100)}"]
            overrides = change if self.chance.random() < ANOTHER_VALUE else []
            added = self.submit(f"run{self.chance.randrange(FOLDERS)}", overrides=overrides, **where)
            self.fates[added] = Fate(state, self.chance.uniform(0.0, latest_s))

    def submit(self, folder: str, **more: Any) -> str:
        """The id of one more flow run, as ``quoin submit`` tells it."""
        from quoin.flows.prefect.submit import submit

        parameters = {"photos": str(self.out / "photos"), "out": str(self.out / folder), "device": "cpu", **more}
        with redirect_stdout(io.StringIO()) as told:
            submit(POOL, parameters, watch=False)
        return told.getvalue().split()[-1]  # to stop it: prefect flow-run cancel ID

    def disturb(self) -> None:
        """Have the queue worked off while runs are cancelled and killed; then it must still take runs, and be empty."""
        self.worker = self._started()
        try:
            self._work_off(faults=True)
            for number in range(AT_ONCE):
                self.fates[self.submit(f"run-last{number}")] = Fate()
            self._work_off(faults=False)
        finally:
            self._stop()
        self.wrong += self._unexplained()
        for limits in ("concurrency_limits", "v2/concurrency_limits"):
            self.wrong += [f"{limit} is still taken" for limit in self.ask(f"{limits}/filter") if limit["active_slots"]]
        self.wrong += [f"{n} processes stay" for n in [soak.left(lambda: len(self._processes()))] if n]

    def _work_off(self, *, faults: bool) -> None:
        """Until no run is left or nothing changes any more."""
        changed, before = time.monotonic(), set[tuple[str, str]]()
        fault = changed + self.chance.uniform(*FAULTS_S)
        while self.ask("flow_runs/count", **_in("SCHEDULED", *ACTIVE)) and time.monotonic() - changed < STUCK_S:
            active = self.active
            now = {(run["id"], run["state_id"]) for run in active}
            changed, before = changed if now == before else time.monotonic(), now
            self._cancel_due({run["id"]: run["state_type"] for run in active})
            if faults and active and time.monotonic() > fault:
                self._fault(active)
                fault = time.monotonic() + self.chance.uniform(*FAULTS_S)
            time.sleep(LOOK_S)

    def _cancel_due(self, active: dict[str, str]) -> None:
        """Cancel as the button in the UI does what is due; the states of active runs by id."""
        now = time.monotonic()
        for id_, fate in self.fates.items():
            state = active.get(id_, "SCHEDULED")
            if fate.seen is None and (state == fate.state or (state, fate.state) == ("RUNNING", "PENDING")):
                fate.seen = now
            if fate.seen is not None and fate.cancelled is None and now >= fate.seen + fate.after_s:
                fate.cancelled = time.time()
                told = self.ask(f"flow_runs/{id_}/set_state", state={"type": "CANCELLING"})["state"]
                there = told and told["type"] in ("CANCELLING", "CANCELLED")
                self.ended[f"cancelled while {state.lower()}" if there else "cancelled too late"] += 1

    def _fault(self, active: list[FlowRun]) -> None:
        """Kill a run, or stop or kill the worker, and start another."""
        fault = self.chance.choice(FAULTS)
        if fault == "run killed":
            leaders = [(pid, id_) for pid, id_ in self._processes().items() if id_ in self.fates and _leads(pid)]
            if leaders:
                pid, id_ = self.chance.choice(leaders)
                self.fates[id_].hit = True
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
            self.fates[run["id"]].hit = True
        self.worker = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        """One more worker of the pool."""
        self.n_workers += 1
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        with open(self.out / f"worker{self.n_workers}.log", "wb") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)

    def _stop(self) -> None:
        """SIGTERM, upon which a worker stops its runs."""
        self.worker.send_signal(signal.SIGTERM)
        try:
            self.worker.wait(soak.GONE_S)
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
                if f"{MINE}={self.out}" in words:
                    ids = [word.partition("=")[2] for word in words if word.startswith("PREFECT__FLOW_RUN_ID=")]
                    found[int(entry.name)] = ids[0] if ids else ""
        return found

    def _unexplained(self) -> Iterator[str]:
        """Flow runs that have not ended, or not as one would expect of what was done to them."""
        for run in self.runs():
            fate, state, message = self.fates[run["id"]], run["state_type"], run["state"]["message"] or ""
            refused = state == "FAILED" and message.startswith(ANOTHER_IS_THERE)
            self.ended[f"{state.lower()}: another is there" if refused else state.lower()] += 1
            if fate.cancelled is not None and state == "CANCELLED":
                self.until_gone.append(datetime.fromisoformat(run["end_time"]).timestamp() - fate.cancelled)
            why = {"COMPLETED": True, "FAILED": refused, "CANCELLED": fate.cancelled, "CRASHED": fate.hit}
            if not why.get(state):
                yield f"{run['id']} into {run['name']}: {run['state_name']}, {message or 'no message'} ({fate})"


def _in(*states: str) -> dict[str, Any]:
    """What asks Prefect for flow runs in these states."""
    return {"flow_runs": {"state": {"type": {"any_": states}}}}


def _leads(pid: int) -> bool:
    """Whether a process leads its group, as that of a flow run does."""
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int, nargs="?", default=RUNS)
    parser.add_argument("--keep", type=Path, help="folder for the runs; a temporary one where not given")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measured, numbers = case(given.keep or Path(scratch), given.runs)
    print(json.dumps({"seconds": measured.seconds, **numbers}, indent=1))


if __name__ == "__main__":
    main()
