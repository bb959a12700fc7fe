"""``quoin submit_run``: the same run, done by a Prefect work pool or a Ray cluster instead of this process."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from quoin.flows.cli.errors import EXIT_INTERRUPTED, EXIT_REFUSED
from quoin.flows.engine import PREFECT_DEFAULTS, prefect_api_url
from quoin.flows.settings import load_settings, read_preset
from quoin.pipeline.core.errors import QuoinError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

# By module: a worker needs quoin installed, and no copy of its source.
ENTRYPOINT = "quoin.flows.prefect.flow.reconstruct_flow"
HEARTBEAT_SECONDS = (
    30  # a run that has not been heard of for a while is called crashed: see cluster/deploy/automation.yaml
)
WATCH_POLL_SECONDS = 2.0
N_EMPTY_POLLS = 3  # without a line, once a run has ended: its last ones may take some seconds to the server
TASK_LOGGER, STATE_MESSAGE_PREFIX = (
    "prefect.task_runs",
    "Finished in state ",
)  # lines that name no task, or say what the state says
RAY_SCHEMES = ("ray://", "http://", "https://")

Parameters = dict[str, Any]


def flow_parameters(
    photos: str, out: str, preset: str, overrides: list[str], seed: int, clips: list[str], **where: str | float | None
) -> Parameters:
    """Parameters of the flow, without those of ``where`` that the deployment shall say.

    A preset in a file, which the worker may not have, becomes overrides.
    """
    if preset.endswith((".yaml", ".yml")):
        sections = read_preset(preset).items()
        in_file = [f"{section}.{key}={json.dumps(value)}" for section, keys in sections for key, value in keys.items()]
        preset, overrides = "default", [*in_file, *overrides]
    load_settings(preset, overrides)  # mistyped settings are refused here and now
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
    """A path that means the same elsewhere: absolute, a URL as it is."""
    return path if "://" in path else os.path.abspath(path)


def submit_run(to: str, parameters: Parameters, *, watch: bool) -> int:
    """Hand the run to pool or cluster ``to``; prints where to look. With ``watch`` returns how it ended, else 0."""
    if to.startswith(RAY_SCHEMES):
        from quoin.cluster.jobs import dashboard_url, submit_job

        url = dashboard_url(to)
        if watch:
            hint = "leave --watch away; ray job logs --follow, printed then, shows what it says"
            raise QuoinError("A job of Ray is not watched from here", where=to, hint=hint)
        job = submit_job(to, command_line(parameters))
        print(f"Ray job {job} is submitted to {to}: it makes {parameters['out']} there")
        if "executor" not in parameters:
            print("it trains one block after the other on the head; --executor ray --address auto shares them")
        mode = "RAY_AUTH_MODE=token " if os.environ.get("RAY_AUTH_MODE") == "token" else ""
        print(f"to see its log: {mode}ray job logs --address {url} --follow {job}")
        print(f"to stop it: {mode}ray job stop --address {url} {job}")
        return 0
    return _submit_to_pool(to, parameters, watch)


def command_line(parameters: Parameters) -> list[str]:
    """``quoin reconstruct`` with these parameters."""
    words = ["quoin", "reconstruct", parameters["photos"], *parameters["clips"]]
    for option in ("out", "preset", "seed", "device", "executor", "address", "gpu_share"):
        if option in parameters:
            words += [f"--{option.replace('_', '-')}", str(parameters[option])]
    return words + [word for pair in parameters["overrides"] for word in ("--set", pair)]


def _submit_to_pool(pool: str, parameters: Parameters, watch: bool) -> int:
    for name, value in (PREFECT_DEFAULTS | {"PREFECT_CLIENT_MAX_RETRIES": "5"}).items():  # here the server is needed
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
            raise QuoinError(f"The Prefect server does not keep up: {error}", where=url, hint="try again") from None
        print(f"submitted to {pool}: {url_for('flow-run', flow_run.id) or flow_run.id}", flush=True)
        print(f"to stop it: prefect flow-run cancel {flow_run.id}", flush=True)
        return _watch(client, flow_run.id) if watch else 0


def _check_pool(client: SyncPrefectClient, pool: str) -> None:
    """QuoinError with the pools there are where ``pool`` is none of them; a word where it has no worker."""
    pools = {work_pool.name: work_pool for work_pool in client.read_work_pools()}
    if pool not in pools:
        choices = f"use {' or '.join(sorted(pools))}" if pools else "there is none yet"
        make = f"prefect work-pool create --type process {pool}"
        raise QuoinError("There is no such work pool", where=pool, hint=f"{choices}, or make it: {make}")
    if pools[pool].status != "READY":
        print(f"no worker is up yet; start one where the work shall run: prefect worker start --pool {pool}")


def create_deployment(pool: str) -> UUID:
    """Make the deployment ``reconstruct/<pool>``; returns its id. ``prefect.yaml`` does the same from a checkout."""
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
    """Print state and log until the run has ended. Ctrl-C ends the watching only.

    Returns 0 where it is done, 130 where it was cancelled, 2 otherwise, blocks that are missing included.
    """
    from httpx import HTTPError
    from prefect.client.schemas.filters import LogFilter

    of_run = LogFilter.model_validate({"flow_run_id": {"any_": [flow_run_id]}})
    last_state, n_lines, quiet = "", 0, 0
    try:
        while True:
            with suppress(HTTPError):  # the server is away or has too much to do: ask again
                state = client.read_flow_run(flow_run_id).state
                lines = client.read_logs(of_run, offset=n_lines)
                n_lines += len(lines)
                ended = state is not None and state.is_final()
                quiet = quiet + 1 if ended and not lines else 0
                for line in lines:
                    if line.name != TASK_LOGGER and not line.message.startswith(STATE_MESSAGE_PREFIX):
                        print(line.message, flush=True)
                if state is not None and state.name != last_state:
                    last_state = str(state.name)
                    print(f"{last_state}: {state.message}" if state.message else last_state, flush=True)
                if state is not None and quiet >= N_EMPTY_POLLS:
                    return 0 if state.is_completed() else EXIT_INTERRUPTED if state.is_cancelled() else EXIT_REFUSED
            time.sleep(WATCH_POLL_SECONDS)
    except KeyboardInterrupt:
        print("no longer watched; the run goes on")
        return EXIT_INTERRUPTED


def _detail(error: Exception) -> str:
    """What the server said, without the request around it."""
    response = getattr(error, "response", None)
    try:
        return str(response.json()["detail"])  # type: ignore[union-attr]  # no response: caught below
    except (AttributeError, KeyError, ValueError):
        return str(error)
