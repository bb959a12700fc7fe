"""Who runs the composition: this process directly, or Prefect, which shows it in its UI. Prefect never breaks a run."""

from __future__ import annotations

import logging
import os
from typing import Literal

from quoin.cluster.executor import Executor
from quoin.flows.pipeline import run_stages
from quoin.flows.prefect.server import is_responding
from quoin.flows.settings import Settings
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.storage.run import Run

Engine = Literal["auto", "direct", "prefect"]

# For Prefect inside our command line, where not set otherwise: our own display instead of its log lines, and little
# patience with a server that has gone away (five retries, by default, wait for more than a minute at every call).
PREFECT_DEFAULTS = {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_CLIENT_MAX_RETRIES": "1",
    "PREFECT_API_REQUEST_TIMEOUT": "10",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",  # cluster/deploy/automation.yaml waits for these
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


def run_pipeline(
    engine: Engine, run: Run, settings: Settings, executor: Executor, report: Reporter, *, last_stage: str = "report"
) -> None:
    """Reconstruct up to stage ``last_stage`` with the engine; ``auto``: Prefect where its server answers."""
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    if should_use_prefect(engine, report):
        logging.raiseExceptions = False  # a log line that cannot be delivered is not worth one on the screen
        from quoin.flows.prefect.flow import reconstruct_in_prefect

        reconstruct_in_prefect(run, settings, executor, report, last_stage=last_stage)
    else:
        run_stages(run, settings, executor, report, last_stage=last_stage)


def should_use_prefect(engine: Engine, report: Reporter) -> bool:
    """Whether Prefect is wanted and answers; QuoinError where ``prefect`` is demanded and no server answers."""
    if engine == "prefect":
        prefect_api_url("start one with quoin ui, or use --engine direct")
        return True
    url = os.environ.get("PREFECT_API_URL")
    if engine == "direct" or not url:
        return False
    if not is_responding(url):
        report.log("run", f"no Prefect server answers at {url}: going on without it", level="warning")
        return False
    return True


def prefect_api_url(hint: str = "start one with quoin ui, and export the PREFECT_API_URL that it prints") -> str:
    """The address of Prefect's API, from PREFECT_API_URL or a profile; QuoinError where none answers there."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        from prefect.settings import PREFECT_API_URL  # a profile may name it

        url = PREFECT_API_URL.value()
    if url and is_responding(url):
        return url
    raise QuoinError("No Prefect server answers", where=url or "PREFECT_API_URL", hint=hint)
