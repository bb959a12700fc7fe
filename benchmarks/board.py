"""How soon Prefect's server answers while a thousand blocks train: what its page of a run asks for, again and again.

The flow, its artifacts, log and server are the real ones; blocks are told of as 32 workers would, and train in no time.
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import numpy as np

from benchmarks.measure import Measurement, Metrics
from benchmarks.server import serve_prefect
from quoin.flows.prefect.server import AUTH_VARIABLE, auth_header
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.scene.blocks import Block, Partition

N_BLOCKS, N_BOARD_WORKERS = 1000, 32
TRAIN_SECONDS = 180.0  # that the blocks train in all
EVENT_INTERVAL_SECONDS = 1.0  # between two events of a block
PREVIEW_EDGE_PX = 256

AnswerTimes = dict[str, list[tuple[float, int]]]  # seconds and bytes of every answer


def measure_board(out: Path) -> tuple[Measurement, Metrics]:
    """Seconds that each kind of question takes, while blocks train."""
    began = time.monotonic()
    with serve_prefect(out / "home") as url:
        answer_times = _while_blocks_train(url)
    numbers = {
        "n_blocks": N_BLOCKS,
        "n_workers": N_BOARD_WORKERS,
        "answers_s": {
            what: {
                "n": len(answers),
                "median": round(float(np.median([seconds for seconds, _ in answers])), 4),
                "95 of 100 within": round(float(np.quantile([seconds for seconds, _ in answers], 0.95)), 4),
                "longest": round(max(answers)[0], 4),
                "largest_bytes": max(n_bytes for _, n_bytes in answers),
            }
            for what, answers in answer_times.items()
        },
    }
    return Measurement("python -m benchmarks board", 0, round(time.monotonic() - began, 1), 0), numbers


def _while_blocks_train(url: str) -> AnswerTimes:
    from prefect import flow, get_run_logger
    from prefect.runtime import flow_run

    from quoin.flows.prefect.artifacts import ArtifactSink, prefect_sender
    from quoin.flows.prefect.dashboard import BlockDashboard

    answer_times: AnswerTimes = defaultdict(list)

    @flow(name="reconstruct", persist_result=False)
    def blocks_train() -> None:
        run_id, logger = UUID(flow_run.get_id()), get_run_logger()
        sink = ArtifactSink(prefect_sender(run_id), lambda name, text, level: logger.info("%s: %s", name, text))
        is_over = threading.Event()
        poller = threading.Thread(target=_poll_pages, args=(url, run_id, is_over, answer_times), daemon=True)
        poller.start()
        try:
            _train(Reporter(BlockDashboard(sink, _partition)))
        finally:
            is_over.set()
            poller.join()
            sink.close()

    blocks_train()
    return dict(answer_times)


def _partition() -> Partition:
    blocks = [
        Block(f"b{i}", BrickBox((i % 32, i // 32, 0), (i % 32 + 1, i // 32 + 1, 1)), 1, np.arange(3), np.ones(3))
        for i in range(N_BLOCKS)
    ]
    return Partition(Lattice((0.0, 0.0, 0.0), 0.1), blocks, np.zeros(3), np.array([32.0, 32.0, 1.0]))


def _train(report: Reporter) -> None:
    """Tell of the blocks what the driver and 32 workers would."""
    rng = np.random.default_rng(0)
    names = [f"b{i}" for i in range(N_BLOCKS)]
    report.table("blocks", [{"block": name, "state": "to do", "photos": 100} for name in names])
    with report.task("train", N_BLOCKS, "blocks") as advance:
        block_s = TRAIN_SECONDS * N_BOARD_WORKERS / N_BLOCKS
        next_of = [
            block_s * worker / N_BOARD_WORKERS for worker in range(N_BOARD_WORKERS)
        ]  # they do not all begin at once
        at_work: dict[int, tuple[str, float]] = {}
        began, n_done, waiting = time.monotonic(), 0, iter(names)
        while n_done < N_BLOCKS:
            now = time.monotonic() - began
            for worker in range(N_BOARD_WORKERS):
                name, since = at_work.get(worker, ("", 0.0))
                if name and now - since >= block_s:
                    picture = rng.integers(0, 255, (PREVIEW_EDGE_PX, PREVIEW_EDGE_PX, 3)).astype(np.uint8)
                    report.picture(f"train/{name}", picture, caption=name)
                    _emit_event(report, "end", name, failed=False, seconds=block_s)
                    report.table("blocks", [{"block": name, "state": "done", "photos": 100, "steps": 600}])
                    n_done += 1
                    advance(n_done)
                    del at_work[worker]
                    name = ""
                if not name and now >= next_of[worker] and (block := next(waiting, "")):
                    at_work[worker] = (block, now)
                    _emit_event(report, "place", block, node=f"node{worker // 8}", device="cuda")
                    _emit_event(report, "start", block, total=600.0, unit="steps")
                elif name:
                    share = (now - since) / block_s
                    _emit_event(report, "advance", name, done=600 * share, total=600.0, unit="steps")
                    _emit_event(
                        report, "metrics", name, step=int(600 * share), values={"loss": 0.03, "seconds_left": 9.0}
                    )
                    report.log(f"train/{name}", f"step {600 * share:.0f}")
            time.sleep(EVENT_INTERVAL_SECONDS)


def _emit_event(report: Reporter, kind: str, block: str, **more: object) -> None:
    report.emit({"kind": kind, "name": f"train/{block}", "time": time.time(), **more})


def _poll_pages(url: str, run_id: UUID, is_over: threading.Event, answer_times: AnswerTimes) -> None:
    """Ask for all that the page of a run shows, as a browser does that looks at it."""
    run = {"flow_runs": {"id": {"any_": [str(run_id)]}}}
    artifacts = {**run, "sort": "KEY_ASC", "limit": 200, "offset": 0}
    logs = {"logs": {"flow_run_id": {"any_": [str(run_id)]}}, "sort": "TIMESTAMP_DESC", "limit": 200, "offset": 0}
    questions: dict[str, Callable[[], bytes]] = {
        "the page": lambda: _request_bytes(url.removesuffix("/api") + "/"),
        "the list of runs": lambda: _request_bytes(f"{url}/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 50}),
        "the run": lambda: _request_bytes(f"{url}/flow_runs/{run_id}"),
        "its graph": lambda: _request_bytes(f"{url}/flow_runs/{run_id}/graph-v2"),
        "its tasks": lambda: _request_bytes(f"{url}/task_runs/filter", {**run, "limit": 200}),
        "its artifacts": lambda: _request_bytes(f"{url}/artifacts/filter", artifacts),
        "its log": lambda: _request_bytes(f"{url}/logs/filter", logs),
    }
    while not is_over.is_set():
        for what, ask in questions.items():
            began = time.monotonic()
            n_bytes = len(ask())
            answer_times[what].append((time.monotonic() - began, n_bytes))
        is_over.wait(EVENT_INTERVAL_SECONDS)


def _request_bytes(url: str, body: dict | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **auth_header(os.environ[AUTH_VARIABLE])}
    request = urllib.request.Request(url, data, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()
