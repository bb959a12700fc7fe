"""``quoin ui``: a Prefect server on loopback to watch runs in the browser."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.cache import home_folder

SERVER_HOST = "127.0.0.1"
HEALTH_TIMEOUT_SECONDS = 2.0


def server_environment(port: int, home: Path) -> dict[str, str]:
    """Environment of the server: its own folder, no telemetry, and the address of the API for the UI."""
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_UI_API_URL": f"http://{SERVER_HOST}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
    }


def run_server(port: int) -> int:
    """Run the server until Ctrl-C stops it; returns its exit status."""
    home = home_folder() / "prefect"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QuoinError(f"Cannot make a folder: {error.strerror}", where=home, hint="set QUOIN_HOME") from error
    api_url = f"http://{SERVER_HOST}:{port}/api"
    _check_port(port, api_url)
    print(
        f"The Prefect UI will be at      http://{SERVER_HOST}:{port}   (Ctrl-C stops it)\n"
        f"In another terminal, type      export PREFECT_API_URL={api_url}\n"
        "and start quoin reconstruct there: it appears in the UI.",
        flush=True,
    )
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", SERVER_HOST, "--port", str(port)]
    environment = os.environ | server_environment(port, home)
    server = subprocess.Popen(command, env=environment, start_new_session=True)  # Ctrl-C is passed on by us, once
    try:
        while server.poll() is None and not is_responding(api_url):
            time.sleep(0.5)
        try:
            if server.poll() is None:
                install_automations(api_url)
        except OSError as error:
            print(
                f"lost runs will stay Running or Pending, because no automation could be set: {error}", file=sys.stderr
            )
        return server.wait()
    finally:
        server.terminate()
        server.wait()


def _check_port(port: int, api_url: str) -> None:
    """QuoinError where the port is taken: two servers would share a database, and the second would crash."""
    if not 0 < port < 1 << 16:
        raise QuoinError("Invalid port", where=port, hint="choose one between 1024 and 65535")
    try:
        socket.create_server((SERVER_HOST, port)).close()
    except OSError as error:
        if is_responding(api_url):
            hint = f"use it (export PREFECT_API_URL={api_url}), or start another with --port"
            raise QuoinError(
                "A Prefect server already runs on this port", where=f"{SERVER_HOST}:{port}", hint=hint
            ) from None
        why = os.strerror(error.errno or 0)
        raise QuoinError(
            f"Cannot listen on this port: {why}", where=f"{SERVER_HOST}:{port}", hint="choose another --port"
        ) from None


def install_automations(api_url: str) -> None:
    """Install missing automations that mark lost runs as crashed (cluster/deploy/automation.yaml)."""
    automations = yaml.safe_load((resources.files("quoin.cluster") / "deploy" / "automation.yaml").read_text("utf-8"))
    existing = {automation["name"] for automation in _post(f"{api_url}/automations/filter", {})}
    for automation in automations:
        if automation["name"] not in existing:
            _post(f"{api_url}/automations/", automation)


def _post(url: str, values: dict[str, Any]) -> Any:
    request = Request(url, json.dumps(values).encode(), {"Content-Type": "application/json"})  # noqa: S310  (ours)
    with urlopen(request, timeout=60.0) as reply:  # noqa: S310  (ours)
        return json.load(reply)


def is_responding(api_url: str) -> bool:
    """Whether a Prefect server responds at ``api_url`` within HEALTH_TIMEOUT_SECONDS."""
    try:
        with urlopen(f"{api_url.rstrip('/')}/health", timeout=HEALTH_TIMEOUT_SECONDS) as reply:  # noqa: S310  (the user's own)
            return bool(reply.status == 200)
    except (OSError, ValueError, HTTPException):
        return False


def prefect_api_url(hint: str = "start one with quoin ui, and export the PREFECT_API_URL that it prints") -> str:
    """The address of Prefect's API, from PREFECT_API_URL or a profile; QuoinError where no server responds there."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        from prefect.settings import PREFECT_API_URL  # a profile may name it

        url = PREFECT_API_URL.value()
    if url and is_responding(url):
        return url
    raise QuoinError("No Prefect server responds", where=url or "PREFECT_API_URL", hint=hint)
