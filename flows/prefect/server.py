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
    """What the server needs: its own folder, no telemetry, and the UI told where the API is."""
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
        "and start quoin reconstruct there: it shows itself in the UI.",
        flush=True,
    )
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", SERVER_HOST, "--port", str(port)]
    environment = os.environ | server_environment(port, home)
    server = subprocess.Popen(command, env=environment, start_new_session=True)  # Ctrl-C is for us to pass on, once
    try:
        while server.poll() is None and not is_responding(api_url):
            time.sleep(0.5)
        try:
            if server.poll() is None:
                install_automations(api_url)
        except OSError as error:
            print(f"runs that are lost will stay Running or Pending: {error}", file=sys.stderr)
        return server.wait()
    finally:
        server.terminate()
        server.wait()


def _check_port(port: int, api_url: str) -> None:
    """QuoinError where another listens: two servers would share a database, and the second end in a traceback."""
    if not 0 < port < 1 << 16:
        raise QuoinError("There is no such port", where=port, hint="choose one between 1024 and 65535")
    try:
        socket.create_server((SERVER_HOST, port)).close()
    except OSError as error:
        if is_responding(api_url):
            hint = f"use it (export PREFECT_API_URL={api_url}), or start another with --port"
            raise QuoinError("A Prefect server runs there already", where=f"{SERVER_HOST}:{port}", hint=hint) from None
        why = os.strerror(error.errno or 0)
        raise QuoinError(
            f"Cannot listen there: {why}", where=f"{SERVER_HOST}:{port}", hint="choose another --port"
        ) from None


def install_automations(api_url: str) -> None:
    """Have the server call lost runs crashed (cluster/deploy/automation.yaml), unless it does so already."""
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
    """Whether a Prefect server answers at ``api_url`` within a moment."""
    try:
        with urlopen(f"{api_url.rstrip('/')}/health", timeout=HEALTH_TIMEOUT_SECONDS) as reply:  # noqa: S310  (the user's own)
            return bool(reply.status == 200)
    except (OSError, ValueError, HTTPException):
        return False
