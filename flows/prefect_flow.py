"""The composition as a Prefect flow: every stage a task, its progress, tables, pictures and report as artifacts.

Prefect shows and schedules; it decides nothing. Manifests alone say what is done, so no caching and no stored results.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run

from cluster.executor import Device, Executor
from flows.artifacts import ArtifactSink, prefect_sender
from flows.failure import Terminated
from flows.reconstruct import perform, reconstruct
from flows.session import ExecutorName, make_executor, reporting, started
from flows.settings import Settings, load_settings
from flows.terminal import size
from pipeline.bucket import url_of
from pipeline.progress import Reporter
from pipeline.run import Run


@flow(name="reconstruct", flow_run_name="{out}", persist_result=False)
def reconstruct_flow(
    photos: str,
    out: str,
    preset: str = "auto",
    overrides: list[str] = [],  # noqa: B006  (Prefect shows the default in its form; it is never written to)
    seed: int = 0,
    device: Device = "auto",
    executor: ExecutorName = "inline",
    address: str | None = None,
    clips: list[str] = [],  # noqa: B006  (as overrides)
) -> str:
    """Reconstruct ``photos`` (a folder, or a video) with ``clips`` into the run folder ``out``, or go on there.

    Returns the path of the run.
    """
    settings = load_settings(preset, overrides)
    with started(photos, out, settings, seed, clips) as run, reporting(run) as report:
        _stages_as_tasks(run, settings, make_executor(executor, device, address), report, "report", [])
        return run.home


def reconstruct_in_prefect(run: Run, settings: Settings, executor: Executor, report: Reporter, *, last: str) -> None:
    """``reconstruct`` under Prefect; should Prefect itself fail, the rest is done without it."""
    errors: list[BaseException] = []  # what the stages raised, as opposed to Prefect

    @flow(name="reconstruct", flow_run_name="{out}", persist_result=False)
    def reconstruct_here(photos: str, out: str) -> None:
        _stages_as_tasks(run, settings, executor, report, last, errors)

    try:
        reconstruct_here(run.record.photos, run.home)
        return
    except TerminationSignal:  # Prefect has its own SIGTERM handler while a flow runs
        Terminated.received = True
        raise Terminated from None
    except Exception as error:
        if errors:
            raise errors[-1] from None
        report.log("run", f"Prefect is gone ({type(error).__name__}: {error}), the run is not", level="warning")
    reconstruct(run, settings, executor, report, last=last)


def _stages_as_tasks(
    run: Run, settings: Settings, executor: Executor, report: Reporter, last: str, errors: list[BaseException]
) -> None:
    """The composition inside a flow run."""
    logger = get_run_logger()
    flow_run_id = UUID(flow_run.get_id())

    def log(name: str, message: str, level: str) -> None:
        (logger.warning if level == "warning" else logger.info)("%s: %s", name, message)

    def perform_as_task(stage: str, run: Run, settings: Settings, executor: Executor, report: Reporter) -> Any:
        @task(name=stage, task_run_name=stage, cache_policy=NO_CACHE, persist_result=False)
        def stage_task(run_path: str) -> None:
            try:
                perform(stage, run, settings, executor, report)
            except BaseException as error:
                errors.append(error)
                raise

        stage_task(run.home)
        shown.table(f"result/{stage}", facts(run.require(stage).result))
        if stage == "report":
            shown.emit({"kind": "page", "name": "report", "time": time.time(), "markdown": report_page(run)})

    report.log("run", f"shown at {flow_run.get_flow_run_ui_url() or flow_run_id}")
    sink = ArtifactSink(prefect_sender(flow_run_id), log)
    shown = Reporter(sink)
    try:
        reconstruct(run, settings, executor, Reporter(report.emit, sink), last=last, perform=perform_as_task)
    finally:
        sink.close()


def facts(result: dict[str, Any]) -> list[dict[str, str]]:
    """What a stage measured, as rows of a table: its numbers and words, longer things left out."""
    return [{"what": k, "value": str(v)} for k, v in result.items() if not isinstance(v, dict | list) or len(v) < 5]


def report_page(run: Run) -> str:
    """Where the results lie, in Markdown."""
    lines = [f"The results of `{run.record.photos}` are in `{run.home}`:", ""]
    for name in ("report.html", "mesh.ply", "mesh.glb"):
        path, shown = run.file(name), run.at_home(name)
        if path.exists():
            link = shown if url_of(shown) else path.as_uri()
            lines.append(f"- [{name}]({link}) ({size(path.stat().st_size)}): `{shown}`")
    return "\n".join(lines)
