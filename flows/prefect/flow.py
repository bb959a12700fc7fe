"""The composition as a Prefect flow: every stage a task, its progress, tables, pictures and report as artifacts.

Prefect shows and schedules; it decides nothing. Manifests alone say what is done, so no caching and no stored results.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any
from uuid import UUID

import pyarrow.parquet as pq
from prefect import State, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.exceptions import FailedRun, TerminationSignal
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.runtime import flow_run
from prefect.states import Cancelled, Crashed, Failed
from pydantic import Field

from quoin.cluster.executor import Device, Executor
from quoin.flows.cli.errors import Terminated, kill_process_group
from quoin.flows.pipeline import run_stage, run_stages
from quoin.flows.prefect.artifacts import ArtifactSink, prefect_sender
from quoin.flows.prefect.dashboard import BlockDashboard
from quoin.flows.session import ExecutorName, check_executor, make_executor, open_reporter, start_run
from quoin.flows.settings import Settings, load_settings, preset_names
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.formatting import format_bytes
from quoin.pipeline.core.reasons import Rejection
from quoin.pipeline.scene.blocks import read_partition
from quoin.pipeline.storage.object_store import storage_url
from quoin.pipeline.storage.run import Run

MAX_POSE_ROWS = 200
CANCEL_POLL_SECONDS = 3.0  # between two looks whether the run is cancelled
WORKER_STOP_SECONDS = 30.0  # that a worker has to stop a run that is cancelled; then its worker is gone


@flow(name="reconstruct", flow_run_name="{out}", persist_result=False)
def reconstruct_flow(
    photos: Annotated[str, Field(min_length=1)],
    out: Annotated[str, Field(min_length=1)],
    preset: Annotated[str, Field(json_schema_extra={"enum": ["auto", *preset_names()]})] = "auto",
    overrides: list[Annotated[str, Field(pattern=r"^\w+\..+=")]] = [],  # noqa: B006  (the form's default; never written to)
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0,
    device: Device = "auto",
    executor: ExecutorName = "inline",
    address: str | None = None,
    clips: list[str] = [],  # noqa: B006  (as overrides)
    gpu_share: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> str | State[Any]:
    """Make a surface mesh of a folder of photos, or go on with a run that was stopped.

    Paths are as the worker sees them. What a user can mend fails the flow run with one sentence.

    Args:
        photos: Folder of photos and videos, or a video.
        out: Run folder; a run of these photos that is there already goes on where it was.
        preset: What to aim at; auto is the default preset.
        overrides: Laid on top of the preset, each section.key=value, for example train.steps=2000.
        seed: The same seed gives the same result, within what the hardware allows.
        device: What trains; auto takes a GPU where there is one.
        executor: Blocks one after the other in the worker (inline), or on Ray actors (ray).
        address: A running Ray cluster (auto or host:port); without one, Ray runs beside the worker.
        clips: Videos besides the photos.
        gpu_share: Part of a GPU, and of its memory, that a Ray actor takes; 0.5 puts two on each.
    """
    ignore_broken_pipe()
    with watch_cancellation(UUID(flow_run.get_id()), WORKER_STOP_SECONDS) as stopped_here:
        try:
            settings = load_settings(preset, overrides)
            check_executor(executor, device, address)
            with start_run(photos, out, settings, seed, clips) as run, open_reporter(run) as report:
                where = make_executor(executor, device, address, gpu_share)
                _stages_as_tasks(run, settings, where, report, "report", [])
                return run.location
        except QuoinError as error:
            logging.getLogger("prefect.flow_runs").addFilter(is_not_failed_run)
            return Failed(message=str(error))
        except TerminationSignal:  # cancelled; compilers and their threads would go on for half a minute
            kill_process_group()
            if stopped_here.is_set():
                return Cancelled(message=f"Stopped. quoin resume {out} goes on.")
            raise


def ignore_broken_pipe() -> None:
    """From here on a console that nobody reads any more is no reason to end: the worker died, what the run did has not.

    Prefect prints by rich, which would raise SystemExit in the middle of a stage.
    """
    named = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    for handler in {handler for logger in (logging.root, *named) for handler in logger.handlers}:
        if isinstance(handler, PrefectConsoleHandler):
            handler.console.on_broken_pipe = lambda: None


def drop_empty_exception(record: logging.LogRecord) -> bool:
    """True, the record rid of the exception that it does not have: Prefect would add a line "NoneType: None"."""
    if record.exc_info and record.exc_info[1] is None:
        record.exc_info = None
    return True


def is_not_failed_run(record: logging.LogRecord) -> bool:
    """False for Prefect's stack trace of a run that returned a failed state: the state's sentence says it all."""
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


def reconstruct_in_prefect(
    run: Run, settings: Settings, executor: Executor, report: Reporter, *, last_stage: str
) -> None:
    """``run_stages`` under Prefect; should Prefect itself fail, the rest is done without it."""
    errors: list[BaseException] = []  # what the stages raised, as opposed to Prefect
    stopped: list[BaseException] = []

    @flow(name="reconstruct", flow_run_name="{out}", persist_result=False)
    def reconstruct_here(photos: str, out: str) -> State[Any] | None:
        try:
            with watch_cancellation(UUID(flow_run.get_id())):
                _stages_as_tasks(run, settings, executor, report, last_stage, errors)
        except (KeyboardInterrupt, TerminationSignal) as stop:
            stopped.append(stop)
            return Cancelled(message=f"Stopped. quoin resume {out} goes on.")
        except QuoinError as error:  # of a stage, or of what all of them have left
            errors.append(error)
            return Failed(message=str(error))
        return None

    try:
        ended = reconstruct_here(run.record.photos, run.location, return_state=True)
        if ended.is_completed():
            return
    except TerminationSignal as stop:  # Prefect has its own SIGTERM handler while a flow runs
        stopped.append(stop)
    except Exception as error:
        ended = Crashed(message=f"{type(error).__name__}: {error}")
    if stopped:
        Terminated.received = isinstance(stopped[-1], TerminationSignal)
        raise Terminated if Terminated.received else KeyboardInterrupt
    if errors:
        raise errors[-1] from None
    report.log("run", f"Prefect is gone ({ended.message or ended.name}), the run is not", level="warning")
    run_stages(run, settings, executor, report, last_stage=last_stage)


@contextmanager
def watch_cancellation(flow_run_id: UUID, timeout_s: float = 0.0) -> Iterator[threading.Event]:
    """Meanwhile a run that is cancelled in the UI gets the SIGTERM that a worker would send: this one has none.

    Or it may have none any more: a worker has ``timeout_s`` to do it. The event says whether it was done here.
    """
    finished, sent = threading.Event(), threading.Event()

    def poll() -> None:
        requested_at: float | None = None
        with get_client(sync_client=True) as client:
            while not finished.wait(CANCEL_POLL_SECONDS):
                with suppress(Exception):  # the server is away: nobody cancels
                    state = client.read_flow_run(flow_run_id).state
                    if state is None or not state.is_cancelling():
                        continue
                    requested_at = requested_at or time.monotonic()
                    if time.monotonic() >= requested_at + timeout_s and not finished.is_set():
                        sent.set()
                        os.kill(os.getpid(), signal.SIGTERM)
                        return

    threading.Thread(target=poll, name="prefect-cancel", daemon=True).start()
    try:
        yield sent
    finally:
        finished.set()


def _stages_as_tasks(
    run: Run, settings: Settings, executor: Executor, report: Reporter, last_stage: str, errors: list[BaseException]
) -> None:
    """The composition inside a flow run."""
    logger = get_run_logger()
    logging.getLogger("prefect.task_runs").addFilter(drop_empty_exception)
    flow_run_id = UUID(flow_run.get_id())

    def log(name: str, message: str, level: str) -> None:
        (logger.warning if level == "warning" else logger.info)("%s: %s", name, message)

    def run_stage_as_task(stage: str, run: Run, settings: Settings, executor: Executor, report: Reporter) -> Any:
        @task(name=stage, task_run_name=stage, cache_policy=NO_CACHE, persist_result=False)
        def stage_task(run_path: str) -> State[Any] | None:
            try:
                run_stage(stage, run, settings, executor, report)
            except QuoinError as error:
                errors.append(error)
                return Failed(message=str(error))  # a sentence; raised, it would be a stack trace
            except BaseException as error:
                errors.append(error)
                raise
            return None

        ended = stage_task(run.location, return_state=True)
        if errors:
            raise errors[-1]
        if not ended.is_completed():
            raise RuntimeError(f"{stage}: {ended.message or ended.name}")
        ui_report.table(f"result/{stage}", result_rows(run.require(stage).result))
        if stage == "pose":
            ui_report.table("photos by pose quality", pose_rows(run))
        if stage == "report":
            ui_report.emit({"kind": "page", "name": "report", "time": time.time(), "markdown": report_page(run)})

    report.log("run", f"shown at {flow_run.get_flow_run_ui_url() or flow_run_id}")
    sink = ArtifactSink(prefect_sender(flow_run_id), log)
    ui_report = Reporter(sink)
    board = BlockDashboard(sink, lambda: read_partition(run))
    try:
        run_stages(
            run, settings, executor, Reporter(report.emit, board), last_stage=last_stage, run_stage=run_stage_as_task
        )
    finally:
        sink.close()


def result_rows(result: dict[str, Any]) -> list[dict[str, str]]:
    """What a stage measured, as rows of a table: its numbers and words, longer things left out."""
    return [{"what": k, "value": str(v)} for k, v in result.items() if not isinstance(v, dict | list) or len(v) < 5]


def pose_rows(run: Run) -> list[dict[str, str]]:
    """How well each photo is placed, the worst first: what is missing and why, then by reprojection error."""
    path = run.file("tables/poses.parquet")
    photos = pq.read_table(path).to_pylist() if path.exists() else []
    photos.sort(key=lambda photo: (photo["registered"], -(photo["reprojection_px"] or 0.0)))
    return [
        {
            "photo": photo["name"],
            "placed": "yes"
            if photo["registered"]
            else f"no: {Rejection.from_columns(photo['reason'], photo['detail'])}",
            "points": str(photo["n_points"]),
            "reprojection": f"{photo['reprojection_px']:.2f} px" if photo["registered"] else "",
        }
        for photo in photos[:MAX_POSE_ROWS]
    ]


def report_page(run: Run) -> str:
    """Where the results lie, in Markdown."""
    lines = [f"The results of `{run.record.photos}` are in `{run.location}`:", ""]
    for name in ("report.html", "mesh.ply", "mesh.glb"):
        path, public_path = run.file(name), run.storage.public_path(name)
        if path.exists():
            link = public_path if storage_url(public_path) else path.as_uri()
            lines.append(f"- [{name}]({link}) ({format_bytes(path.stat().st_size)}): `{public_path}`")
    return "\n".join(lines)
