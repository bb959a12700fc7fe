"""Jobs on Ray actors, on this machine or on a cluster: one actor a job, events streamed home, dead actors replaced.

The driver replaces a dead actor itself instead of asking Ray to (``max_restarts``): so every new attempt is seen,
counted and told, whatever killed the old one (a crash, the memory monitor, a lost node), and a half-lost actor is
killed before its work starts again elsewhere. A job goes on from its own checkpoint.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.executor import Device, Job, Outcome
from pipeline.errors import QuoinError
from pipeline.progress import Event, Reporter

POLL_SECONDS = 1.0
KNOCK_SECONDS = 5.0
OBJECT_STORE_BYTES = 200_000_000  # results are small; arrays travel through the run folder
EVENTS_KEPT = 10_000


class Worker:
    """The actor: does one job and keeps its events until the driver asks for them (``max_concurrency=2``)."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)

    def work(self, work: Callable[[Reporter, str], Any], device: str) -> Any:
        return work(Reporter(self._events.append), device)

    def take_events(self) -> list[Event]:
        return [self._events.popleft() for _ in range(len(self._events))]


@dataclass
class _Attempt:
    job: Job
    number: int
    actor: Any
    done: Any  # reference to the result
    events: Any  # reference to the batch of events asked for


class RayExecutor:
    """Jobs on Ray actors, ``workers`` at a time (default: one per GPU, else one per four cores) sharing the cores.

    ``address`` names a running cluster (``auto``, ``host:port``); without one, a cluster of this machine is started on
    loopback and stopped at the end. A job whose actor dies is started again up to ``retries`` times.
    """

    def __init__(
        self, device: Device = "auto", address: str | None = None, workers: int | None = None, retries: int = 3
    ) -> None:
        self.device, self.address, self.workers, self.retries = device, address, workers, retries

    def run(self, jobs: Sequence[Job], report: Reporter) -> Iterator[Outcome]:
        if not jobs:
            return
        with _cluster(self.address) as ray:
            yield from self._drive(ray, jobs, report)

    def _drive(self, ray: Any, jobs: Sequence[Job], report: Reporter) -> Iterator[Outcome]:
        import ray.exceptions as failure

        device, options, n_workers = self._share(ray, len(jobs))
        waiting = deque((job, 1) for job in jobs)
        running: dict[Any, _Attempt] = {}
        report.log("ray", f"{len(jobs)} jobs on {n_workers} workers at a time, {device}")
        try:
            while waiting or running:
                while waiting and len(running) < n_workers:
                    attempt = _start(ray, *waiting.popleft(), device, options)
                    running[attempt.done] = attempt
                ready, _ = ray.wait(list(running), timeout=POLL_SECONDS)
                for attempt in running.values():
                    _forward(ray, attempt, report)
                for reference in ready:
                    attempt = running.pop(reference)
                    try:
                        result = ray.get(reference)
                        _forward(ray, attempt, report, last=True)
                        outcome = Outcome(attempt.job, result)
                    except failure.RayTaskError as error:  # our own code raised: trying again would raise again
                        _forward(ray, attempt, report, last=True)
                        outcome = Outcome(attempt.job, error=_home(error))
                    except failure.RayError as error:
                        if "creation task" in str(error):  # no job can run there, however often it is tried
                            raise _cannot_start(error) from None
                        if attempt.number <= self.retries:
                            why = f"its worker was lost, starting again: {_reason(error)}"
                            report.log(attempt.job.name, why, level="warning")
                            waiting.appendleft((attempt.job, attempt.number + 1))
                            continue
                        outcome = Outcome(attempt.job, error=_lost(error, attempt.number))
                    finally:
                        ray.kill(attempt.actor)
                    yield outcome
        finally:
            for attempt in running.values():
                ray.kill(attempt.actor)

    def _share(self, ray: Any, n_jobs: int) -> tuple[str, dict[str, Any], int]:
        """Device, actor options and number of workers for so many jobs that fit what the cluster has."""
        has = ray.cluster_resources()
        gpus, cores = int(has.get("GPU", 0)), max(1, int(has.get("CPU", 1)))
        if self.device == "cuda" and not gpus:
            raise QuoinError("The Ray cluster has no GPU", where=self.address, do="use --device cpu")
        device = "cuda" if gpus and self.device != "cpu" else "cpu"
        n_workers = min(n_jobs, self.workers or (gpus if device == "cuda" else max(1, cores // 4)))
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        nodes = [node for node in alive if device == "cpu" or node.get("GPU")]
        threads = max(1, min(cores // n_workers, int(max(node.get("CPU", 1) for node in nodes))))
        env = {"OMP_NUM_THREADS": str(threads)} | ({} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""})
        largest = max(node.get("memory", 0) for node in nodes)
        return (
            device,
            {
                "num_cpus": threads,
                "num_gpus": 1 if device == "cuda" else 0,
                "memory_limit": int(largest),
                "runtime_env": {"env_vars": env},
            },
            n_workers,
        )


def _start(ray: Any, job: Job, number: int, device: str, options: dict[str, Any]) -> _Attempt:
    options = dict(options)
    # Asking for more than the largest node has would wait for ever; the plan has warned already.
    memory = min(job.memory_bytes, options.pop("memory_limit"))
    actor = ray.remote(Worker).options(max_concurrency=2, max_restarts=0, memory=memory or None, **options).remote()
    return _Attempt(job, number, actor, actor.work.remote(job.work, device), actor.take_events.remote())


def _forward(ray: Any, attempt: _Attempt, report: Reporter, *, last: bool = False) -> None:
    """Hand the events that have arrived to ``report`` and ask for more; ``last`` waits for the rest."""
    for _ in range(2 if last else 1):
        arrived, _ = ray.wait([attempt.events], timeout=5.0 if last else 0)
        if not arrived:
            return
        try:
            events = ray.get(attempt.events)
        except ray.exceptions.RayError:  # the actor is gone; its job's own reference tells so
            return
        for event in events:
            report.emit(event)
        attempt.events = attempt.actor.take_events.remote()


def _environment(address: str | None) -> dict[str, str]:
    """What Ray reads from the environment, partly at import, where not set otherwise."""
    values = {"RAY_USAGE_STATS_ENABLED": "0"}
    if address is None or address.startswith(("127.0.0.1:", "localhost:")):
        values["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on loopback, and nowhere else
    if address is None:  # a secret of this process: Ray itself would leave one in the home folder for all to read
        return values | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    has_token = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if has_token or (Path.home() / ".ray" / "auth_token").exists():
        values["RAY_AUTH_MODE"] = "token"  # ray start asks for it by default; Ray would not send it unasked
    return values


def _knock(address: str) -> None:
    """OSError or ValueError where nothing listens at ``host:port``: Ray itself would try for minutes."""
    if address != "auto":
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=KNOCK_SECONDS).close()


def _home(error: Any) -> Exception:
    """The exception our code raised in the actor, the remote traceback noted on it."""
    cause = error.cause if isinstance(error.cause, Exception) else RuntimeError(str(error))
    cause.add_note(str(error))
    return cause


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _cannot_start(error: Exception) -> QuoinError:
    last = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines()[-1]
    do = "install this version of quoin on every machine of the cluster"
    return QuoinError(f"No Ray worker can start: {last}", do=do)


def _lost(error: Exception, attempts: int) -> QuoinError:
    lost = QuoinError(
        f"Its worker died {attempts} times ({type(error).__name__}: {_reason(error)})",
        do="give the workers more memory or make blocks smaller",
    )
    lost.add_note(str(error))
    return lost


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected; a local cluster is loopback-only, sends no statistics, and ends with the block."""
    for name, value in _environment(address).items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield ray
        return
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        else:
            _knock(address)
            ray.init(address, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        do = "see quoin doctor, or use --executor inline"
        raise QuoinError(f"Ray cannot be reached or started: {_reason(error)}", where=address, do=do) from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts its own there, which knows nothing of ours
        yield ray
    finally:
        ray.shutdown()
