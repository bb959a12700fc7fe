"""``quoin submit``: the run is done by a Prefect work pool or a Ray cluster instead of this process."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from quoin.flows.cli.errors import EXIT_INTERRUPTED, EXIT_REFUSED
from quoin.flows.engine import PREFECT_DEFAULTS
from quoin.flows.prefect.server import prefect_api_url
from quoin.flows.settings import load_settings, read_preset
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.formatting import printable
from quoin.pipeline.storage.object_store import storage_url

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

# As a module: a worker needs quoin installed, and no copy of its source.
ENTRYPOINT = "quoin.flows.prefect.flow.reconstruct_flow"
HEARTBEAT_SECONDS = 30  # a run without heartbeats is marked as crashed: see cluster/deploy/automation.yaml
WATCH_POLL_SECONDS = 2.0
N_EMPTY_POLLS = 3  # without a line after the end of a run: its last lines may take seconds to reach the server
# log lines that are not shown: they name no task, or repeat the state
TASK_LOGGER, STATE_MESSAGE_PREFIX = "prefect.task_runs", "Finished in state "
RAY_SCHEMES = ("ray://", "http://", "https://")

Parameters = dict[str, Any]


def flow_parameters(
    photos: str, out: str, preset: str, overrides: list[str], seed: int, clips: list[str], **where: str | float | None
) -> Parameters:
    """Parameters of the flow; those of ``where`` that are None are left to the deployment.

    A preset in a file, which the worker may not have, becomes overrides.
    """
    if preset.endswith((".yaml", ".yml")):
        sections = read_preset(preset).items()
        in_file = [f"{section}.{key}={json.dumps(value)}" for section, keys in sections for key, value in keys.items()]
        preset, overrides = "default", [*in_file, *overrides]
    load_settings(preset, overrides)  # raises QuoinError for mistyped settings, before the run is submitted
    return {
        "photos": absolute_path(photos),
        "out": absolute_path(out),
        "preset": preset,
        "overrides": overrides,
        "seed": seed,
        "clips": [absolute_path(clip) for clip in clips],
        **{name: value for name, value in where.items() if value is not None},
    }


def absolute_path(path: str) -> str:
    """The absolute path, for processes with another working folder; or the URL, which the server stores and shows."""
    return storage_url(path) or os.path.abspath(path)


def submit_run(to: str, parameters: Parameters, *, watch: bool) -> int:
    """Submit the run to pool or cluster ``to`` and print its address. Exit status of the run with ``watch``, else 0."""
    if to.startswith(RAY_SCHEMES):
        from quoin.cluster.jobs import dashboard_url, submit_job

        url = dashboard_url(to)
        if watch:
            hint = "leave out --watch; use the command ray job logs --follow that is printed then"
            raise QuoinError("--watch does not work for jobs of Ray", where=to, hint=hint)
        job = submit_job(to, command_line(parameters))
        print(printable(f"submitted to {to} as Ray job {job}: its output folder there is {parameters['out']}"))
        if "executor" not in parameters:
            print("it trains one block after the other on the head; --executor ray --address auto uses all machines")
        mode = "RAY_AUTH_MODE=token " if os.environ.get("RAY_AUTH_MODE") == "token" else ""
        print(f"to see its log: {mode}ray job logs --address {url} --follow {job}")
        print(f"to stop it: {mode}ray job stop --address {url} {job}")
        return 0
    return _submit_to_pool(to, parameters, watch)


def command_line(parameters: Parameters) -> list[str]:
    """Words of the command ``quoin reconstruct`` with these parameters."""
    words = ["quoin", "reconstruct", parameters["photos"], *parameters["clips"]]
    for option in ("out", "preset", "seed", "device", "executor", "address", "gpu_share"):
        if option in parameters:
            words += [f"--{option.replace('_', '-')}", str(parameters[option])]
    return words + [word for pair in parameters["overrides"] for word in ("--set", pair)]


def _submit_to_pool(pool: str, parameters: Parameters, watch: bool) -> int:
    for name, value in (
        PREFECT_DEFAULTS | {"PREFECT_CLIENT_MAX_RETRIES": "5"}
    ).items():  # without the server nothing can be submitted
        os.environ.setdefault(name, value)
    url = prefect_api_url()
    from httpx import HTTPError
    from prefect.client.orchestration import get_client
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
    from prefect.utilities.urls import url_for

    with get_client(sync_client=True) as client:
        try:
            _check_pool(client, pool)
            try:
                deployment_id = client.read_deployment_by_name(f"reconstruct/{pool}").id
            except ObjectNotFound:
                deployment_id = create_deployment(pool)
            flow_run = client.create_flow_run_from_deployment(deployment_id, parameters=parameters)
        except HTTPError as error:
            if isinstance(error, PrefectHTTPStatusError) and error.response.status_code < 500:
                raise QuoinError(f"Prefect refuses the run: {_detail(error)}", where=f"reconstruct/{pool}") from None
            what = f"The Prefect server did not respond in time: {error}"
            raise QuoinError(what, where=url, hint="try again") from None
        print(f"submitted to {pool}: {url_for('flow-run', flow_run.id) or flow_run.id}", flush=True)
        print(f"to stop it: prefect flow-run cancel {flow_run.id}", flush=True)
        return _watch(client, flow_run.id) if watch else 0


def _check_pool(client: SyncPrefectClient, pool: str) -> None:
    """QuoinError that lists the work pools where ``pool`` does not exist; prints a line where it has no worker."""
    pools = {work_pool.name: work_pool for work_pool in client.read_work_pools()}
    if pool not in pools:
        choices = f"use {' or '.join(sorted(pools))}" if pools else "there is none yet"
        make = f"prefect work-pool create --type process {pool}"
        raise QuoinError("Unknown work pool", where=pool, hint=f"{choices}, or create it: {make}")
    if pools[pool].status != "READY":
        print(f"no worker is running yet; start one on the machine for the run: prefect worker start --pool {pool}")


def create_deployment(pool: str) -> UUID:
    """Create the deployment ``reconstruct/<pool>``; returns its id. ``prefect.yaml`` does the same from a checkout."""
    from prefect.deployments.runner import EntrypointType

    from quoin.flows.prefect.flow import reconstruct_flow

    names = ("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "DO_NOT_TRACK")
    environment = {name: PREFECT_DEFAULTS[name] for name in names}
    deployment = reconstruct_flow.to_deployment(
        pool, work_pool_name=pool, entrypoint_type=EntrypointType.MODULE_PATH, job_variables={"env": environment}
    )
    deployment.entrypoint = ENTRYPOINT
    return deployment.apply()


def _watch(client: SyncPrefectClient, flow_run_id: UUID) -> int:
    """Print state and log until the run has ended; Ctrl-C stops printing only.

    Returns 0 where the run is complete, 130 where it was cancelled, 2 otherwise, also where blocks are missing.
    """
    from httpx import HTTPError
    from prefect.client.schemas.filters import LogFilter

    of_run = LogFilter.model_validate({"flow_run_id": {"any_": [flow_run_id]}})
    last_state, n_lines, quiet = "", 0, 0
    try:
        while True:
            with suppress(HTTPError):  # the server is unavailable or overloaded: ask again
                state = client.read_flow_run(flow_run_id).state
                lines = client.read_logs(of_run, offset=n_lines)
                n_lines += len(lines)
                ended = state is not None and state.is_final()
                quiet = quiet + 1 if ended and not lines else 0
                for line in lines:
                    if line.name != TASK_LOGGER and not line.message.startswith(STATE_MESSAGE_PREFIX):
                        print("\n".join(map(printable, line.message.splitlines())), flush=True)
                if state is not None and state.name != last_state:
                    last_state = str(state.name)
                    print(printable(f"{last_state}: {state.message}" if state.message else last_state), flush=True)
                if state is not None and quiet >= N_EMPTY_POLLS:
                    return 0 if state.is_completed() else EXIT_INTERRUPTED if state.is_cancelled() else EXIT_REFUSED
            time.sleep(WATCH_POLL_SECONDS)
    except KeyboardInterrupt:
        print("stopped watching; the run goes on")
        return EXIT_INTERRUPTED


def _detail(error: Exception) -> str:
    """The server's message, without the request."""
    response = getattr(error, "response", None)
    try:
        return str(response.json()["detail"])  # type: ignore[union-attr]  # no response: caught below
    except (AttributeError, KeyError, ValueError):
        return str(error)
