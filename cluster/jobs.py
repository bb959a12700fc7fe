"""Submits a run as a job of a Ray cluster: its driver runs there, and goes on when this process has ended."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from quoin.cluster.connection import authentication_error, check_reachable, ray_environment
from quoin.pipeline.core.errors import QuoinError, first_line

SUBMIT_TIMEOUT_SECONDS = 60.0
NO_AGENT_MESSAGE = "No available agent"  # while a cluster starts
DASHBOARD_PORT = 8265  # Ray's default for jobs


def submit_job(
    address: str, command_line: Sequence[str], *, job_id: str | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Start ``command_line`` (words, such as ``["quoin", "reconstruct", …]``) on a cluster's head; the id of the job.

    ``address``: ``http://host:8265`` of the cluster's dashboard, or ``ray://host``, which stands for it. ``env``: more
    environment variables of the job. QuoinError where no cluster responds there, or one of another version of Ray.
    """
    url = dashboard_url(address)
    client, deadline = _client(url), time.monotonic() + SUBMIT_TIMEOUT_SECONDS
    while True:
        try:
            return client.submit_job(
                entrypoint=shlex.join(command_line),
                submission_id=job_id,
                runtime_env={"env_vars": {"RAY_USAGE_STATS_ENABLED": "0", **(env or {})}},
            )
        except RuntimeError as error:
            if NO_AGENT_MESSAGE not in str(error):
                hint = "look at the dashboard there"
                raise QuoinError(f"Ray refuses the job: {_reason(error)}", where=url, hint=hint) from None
            if time.monotonic() > deadline:
                what = f"The head has not started the job within {SUBMIT_TIMEOUT_SECONDS:.0f} s"
                hint = "see dashboard_agent.log there; its port 52365 may be another Ray's: ray start has "
                raise QuoinError(what, where=url, hint=hint + "--dashboard-agent-listen-port") from None
        time.sleep(1.0)


def dashboard_url(address: str) -> str:
    """The URL where a cluster takes jobs; QuoinError where ``address`` is invalid."""
    parts = urlsplit(address)
    hint = "write http://host:8265, or ray://host"
    try:
        port = parts.port
    except ValueError:
        raise QuoinError("Invalid port in this address", where=address, hint=hint) from None
    if parts.scheme not in ("http", "https", "ray") or not parts.hostname:
        raise QuoinError("Invalid address of a Ray cluster", where=address, hint=hint)
    if parts.scheme == "ray":  # its port would be that of Ray Client, which is not used
        return f"http://{parts.hostname}:{DASHBOARD_PORT}"
    return f"{parts.scheme}://{parts.hostname}:{port or DASHBOARD_PORT}"


def _client(url: str) -> Any:
    """A client of the cluster at ``url``; QuoinError where its Ray is of another version."""
    for name, value in ray_environment(url.split("://")[1]).items():
        os.environ.setdefault(name, value)
    import ray
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    hint = (
        "correct the address, or start the head with --dashboard-host 0.0.0.0: by default it listens on loopback only"
    )
    try:
        check_reachable(url.split("://")[1])
        client = JobSubmissionClient(url)
        theirs = getattr(client, "_server_ray_version", ray.__version__)  # there is no public way to it
    except AuthenticationError:
        raise authentication_error(url, had_token=os.environ.get("RAY_AUTH_MODE") == "token") from None
    except (OSError, RuntimeError, ValueError) as error:
        raise QuoinError(f"No Ray cluster takes jobs at this address: {_reason(error)}", where=url, hint=hint) from None
    if theirs != ray.__version__:
        raise QuoinError(
            f"The cluster has Ray {theirs}, this machine has Ray {ray.__version__}",
            where=url,
            hint="install the same versions of ray and quoin on both",
        )
    return client


def _reason(error: Exception) -> str:
    return first_line(error).rstrip(".")
