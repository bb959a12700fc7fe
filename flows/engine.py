"""Chooses between the direct loop (``pipeline.py``) and Prefect (``prefect/flow.py``), which never breaks a run."""

from __future__ import annotations

import logging
import os
from typing import Literal

from quoin.flows.pipeline import run_stages
from quoin.flows.prefect.server import check_prefect_server, prefect_api_url
from quoin.flows.settings import Settings
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.workers import Workers
from quoin.pipeline.storage.run import Run

Engine = Literal["auto", "direct", "prefect"]

# Environment of Prefect inside our command line, where not set otherwise: our display instead of its log lines, and few
# retries for a server that does not respond (the default of five waits for more than a minute at every call).
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
    engine: Engine, run: Run, settings: Settings, workers: Workers, report: Reporter, *, last_stage: str = "report"
) -> None:
    """Reconstruct up to stage ``last_stage`` with the engine; ``auto``: Prefect where its server responds."""
    for name, value in PREFECT_DEFAULTS.items():
        os.environ.setdefault(name, value)
    if should_use_prefect(engine, report):
        logging.raiseExceptions = False  # a log line that cannot be delivered is not worth one on the screen
        from quoin.flows.prefect.flow import reconstruct_in_prefect

        reconstruct_in_prefect(run, settings, workers, report, last_stage=last_stage)
    else:
        run_stages(run, settings, workers, report, last_stage=last_stage)


def should_use_prefect(engine: Engine, report: Reporter) -> bool:
    """Whether to run under Prefect; QuoinError where the engine is ``prefect`` and no server responds."""
    if engine == "prefect":
        prefect_api_url("start one with quoin ui, or use --engine direct")
        return True
    url = os.environ.get("PREFECT_API_URL")
    if engine == "direct" or not url:
        return False
    try:
        check_prefect_server(url, "start one with quoin ui")
    except QuoinError as error:
        report.log("run", f"running without Prefect: {error}", level="warning")
        return False
    return True
