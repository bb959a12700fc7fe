"""The pipeline as a Prefect flow: every stage a task; progress, tables, pictures and report as artifacts.

Prefect shows and schedules. The run's manifests alone decide which stages are done: no caching, no stored results.
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

from prefect import State, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.exceptions import FailedRun, TerminationSignal
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.runtime import flow_run
from prefect.states import Cancelled, Crashed, Failed
from pydantic import Field

from quoin.flows.cli.errors import Terminated, kill_process_group, resume_command
from quoin.flows.pipeline import run_stage, run_stages
from quoin.flows.prefect.artifacts import ArtifactSink, prefect_sender
from quoin.flows.prefect.dashboard import BlockDashboard
from quoin.flows.session import ExecutorName, check_executor, make_workers, open_reporter, start_run
from quoin.flows.settings import Settings, load_settings, preset_names
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.formatting import format_bytes
from quoin.pipeline.core.reasons import Rejection
from quoin.pipeline.core.workers import Device, Workers
from quoin.pipeline.scene.blocks import read_partition
from quoin.pipeline.scene.photo_table import read_pose_rows
from quoin.pipeline.storage.object_store import storage_url
from quoin.pipeline.storage.run import Run
from quoin.pipeline.storage.stage import Stage

MAX_POSE_ROWS = 200
CANCEL_POLL_SECONDS = 3.0  # between two checks whether the run is cancelled
WORKER_STOP_SECONDS = 30.0  # that a Prefect worker has to stop a cancelled run; after that it is taken for dead


@flow(name="reconstruct", flow_run_name="{out}", persist_result=False)
def reconstruct_flow(
    photos: Annotated[str, Field(min_length=1)],
    out: Annotated[str, Field(min_length=1)],
    preset: Annotated[str, Field(json_schema_extra={"enum": preset_names()})] = "default",
    overrides: list[Annotated[str, Field(pattern=r"^\w+\..+=")]] = [],  # noqa: B006  (the form's default; never written to)
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0,
    device: Device = "auto",
    executor: ExecutorName = "inline",
    address: str | None = None,
    clips: list[str] = [],  # noqa: B006  (as overrides)
    gpu_share: Annotated[float, Field(gt=0, le=1)] = 1.0,
) -> str | State[Any]:
    """Make a surface mesh of a folder of photos, or resume a run that was stopped.

    Paths are as the worker sees them. An error that the user can fix fails the flow run with one sentence.

    Args:
        photos: Folder of photos and videos, or a video.
        out: Run folder; an existing run of these photos is resumed.
        preset: What to aim at; draft is a first look.
        overrides: Settings that override the preset, each section.key=value, for example train.steps=2000.
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
                workers = make_workers(executor, device, address, gpu_share)
                _stages_as_tasks(run, settings, workers, report, "report", [])
                return run.location
        except QuoinError as error:
            logging.getLogger("prefect.flow_runs").addFilter(is_not_failed_run)
            return Failed(message=str(error))
        except TerminationSignal:  # cancelled; compilers and their threads would go on for half a minute
            kill_process_group()
            if stopped_here.is_set():
                return Cancelled(message=f"Stopped. {resume_command(out)} goes on.")
            raise


def ignore_broken_pipe() -> None:
    """Ignore a console whose reader is gone: the Prefect worker has died, and the run goes on.

    Prefect prints by rich, which would raise SystemExit in the middle of a stage.
    """
    named = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    for handler in {handler for logger in (logging.root, *named) for handler in logger.handlers}:
        if isinstance(handler, PrefectConsoleHandler):
            handler.console.on_broken_pipe = lambda: None


def drop_empty_exception(record: logging.LogRecord) -> bool:
    """True, after removing an empty exception from the record: Prefect would add a line "NoneType: None"."""
    if record.exc_info and record.exc_info[1] is None:
        record.exc_info = None
    return True


def is_not_failed_run(record: logging.LogRecord) -> bool:
    """False for Prefect's stack trace of a run that returned a failed state: the message of the state suffices."""
    return not (record.exc_info and isinstance(record.exc_info[1], FailedRun))


def reconstruct_in_prefect(
    run: Run, settings: Settings, workers: Workers, report: Reporter, *, last_stage: str
) -> None:
    """``run_stages`` under Prefect; where Prefect itself fails, the remaining stages run without it."""
    errors: list[BaseException] = []  # of the stages, as opposed to those of Prefect
    stopped: list[BaseException] = []

    @flow(name="reconstruct", flow_run_name="{out}", persist_result=False)
    def reconstruct_here(photos: str, out: str) -> State[Any] | None:
        try:
            with watch_cancellation(UUID(flow_run.get_id())):
                _stages_as_tasks(run, settings, workers, report, last_stage, errors)
        except (KeyboardInterrupt, TerminationSignal) as stop:
            stopped.append(stop)
            return Cancelled(message=f"Stopped. {resume_command(out)} goes on.")
        except QuoinError as error:  # of a stage, or PartialResult of all
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
    report.log("run", f"Prefect failed ({ended.message or ended.name}): running without it", level="warning")
    run_stages(run, settings, workers, report, last_stage=last_stage)


@contextmanager
def watch_cancellation(flow_run_id: UUID, timeout_s: float = 0.0) -> Iterator[threading.Event]:
    """Inside, a run that is cancelled in the UI gets the SIGTERM that a Prefect worker would send.

    A run without a worker, or whose worker has not sent it within ``timeout_s``. The event says whether it was sent
    here.
    """
    finished, sent = threading.Event(), threading.Event()

    def poll() -> None:
        requested_at: float | None = None
        with get_client(sync_client=True) as client:
            while not finished.wait(CANCEL_POLL_SECONDS):
                with suppress(Exception):  # without a server nobody can cancel
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
    run: Run, settings: Settings, workers: Workers, report: Reporter, last_stage: str, errors: list[BaseException]
) -> None:
    """Run the stages as tasks of the current flow run."""
    logger = get_run_logger()
    logging.getLogger("prefect.task_runs").addFilter(drop_empty_exception)
    flow_run_id = UUID(flow_run.get_id())

    def log(name: str, message: str, level: str) -> None:
        (logger.warning if level == "warning" else logger.info)("%s: %s", name, message)

    def run_stage_as_task(
        stage: Stage[Any, Any], run: Run, settings: Settings, workers: Workers, report: Reporter
    ) -> Any:
        name = stage.name

        @task(name=name, task_run_name=name, cache_policy=NO_CACHE, persist_result=False)
        def stage_task(run_path: str) -> State[Any] | None:
            try:
                run_stage(stage, run, settings, workers, report)
            except QuoinError as error:
                errors.append(error)
                return Failed(message=str(error))  # its message alone; raised, it would be shown as a stack trace
            except BaseException as error:
                errors.append(error)
                raise
            return None

        ended = stage_task(run.location, return_state=True)
        if errors:
            raise errors[-1]
        if not ended.is_completed():
            raise RuntimeError(f"{name}: {ended.message or ended.name}")
        ui_report.table(f"result/{name}", result_rows(run.require(name).result))
        if name == "pose":
            ui_report.table("photos by pose quality", pose_rows(run))
        if name == "report":
            ui_report.emit({"kind": "page", "name": "report", "time": time.time(), "markdown": report_page(run)})

    report.log("run", f"shown at {flow_run.get_flow_run_ui_url() or flow_run_id}")
    sink = ArtifactSink(prefect_sender(flow_run_id), log)
    ui_report = Reporter(sink)
    board = BlockDashboard(sink, lambda: read_partition(run))
    try:
        run_stages(
            run, settings, workers, Reporter(report.emit, board), last_stage=last_stage, run_stage=run_stage_as_task
        )
    finally:
        sink.close()


def result_rows(result: dict[str, Any]) -> list[dict[str, str]]:
    """The numbers and texts of a stage's result as table rows, without longer lists."""
    return [{"what": k, "value": str(v)} for k, v in result.items() if not isinstance(v, dict | list) or len(v) < 5]


def pose_rows(run: Run) -> list[dict[str, str]]:
    """Photos as table rows, the worst first: those not posed, with reasons, then by reprojection error."""
    photos = read_pose_rows(run)
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
    """Links to the result files, in Markdown."""
    lines = [f"The results of `{run.record.photos}` are in `{run.location}`:", ""]
    for name in ("report.html", "mesh.ply", "mesh.glb"):
        path, public_path = run.file(name), run.storage.public_path(name)
        if path.exists():
            link = public_path if storage_url(public_path) else path.as_uri()
            lines.append(f"- [{name}]({link}) ({format_bytes(path.stat().st_size)}): `{public_path}`")
    return "\n".join(lines)
