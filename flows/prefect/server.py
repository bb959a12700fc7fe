"""``quoin ui``: a Prefect server to watch runs in the browser, for those only who know its key.

Whoever can call the server's API can have a worker run commands, and any page in the user's browser can send requests
to loopback. So the server asks for an auth string (basic authentication), answers pages of its own address only (CORS),
and refuses requests that name another host (DNS rebinding).
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from http.client import HTTPException
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import yaml

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.cache import home_folder

LOOPBACK = "127.0.0.1"
LOOPBACK_NAMES = (LOOPBACK, "localhost")
HEALTH_TIMEOUT_SECONDS = 2.0
AUTH_VARIABLE = "PREFECT_API_AUTH_STRING"  # what Prefect's clients send; the server compares it


def run_server(port: int, host: str = LOOPBACK, names: Sequence[str] = ()) -> int:
    """Run the server until Ctrl-C stops it; returns its exit status.

    It listens on ``host``. Requests must name it by a loopback name, or by one of the other ``names``.
    """
    home = home_folder() / "prefect"
    try:
        home.mkdir(parents=True, exist_ok=True)
        auth = os.environ.get("PREFECT_SERVER_API_AUTH_STRING") or read_auth_string(home / "auth-string")
    except OSError as error:
        raise QuoinError(f"Cannot make a folder: {error.strerror}", where=home, hint="set QUOIN_HOME") from error
    api_url = f"http://{LOOPBACK}:{port}/api"
    _check_port(port, api_url, host)
    print(
        f"The Prefect UI will be at      http://{LOOPBACK}:{port}   (Ctrl-C stops it)\n"
        f"It asks for                    {auth}\n"
        f"In another terminal, type      export PREFECT_API_URL={api_url} {AUTH_VARIABLE}={auth}\n"
        "and start quoin reconstruct there: it appears in the UI.",
        flush=True,
    )
    names = [*LOOPBACK_NAMES, *names]
    code = f"from quoin.flows.prefect.server import serve; serve({host!r}, {port}, {names!r})"
    environment = os.environ | server_environment(port, home, auth)
    server = subprocess.Popen(  # -P: no module of the current folder; a session of its own: Ctrl-C is passed on once
        [sys.executable, "-P", "-c", code], env=environment, start_new_session=True
    )
    try:
        while server.poll() is None and not is_responding(api_url):
            time.sleep(0.5)
        try:
            if server.poll() is None:
                install_automations(api_url, auth)
        except OSError as error:
            print(
                f"lost runs will stay Running or Pending, because no automation could be set: {error}", file=sys.stderr
            )
        return server.wait()
    finally:
        server.terminate()
        server.wait()


def read_auth_string(path: Path) -> str:
    """The server's auth string ``quoin:<random>``, made at the first call in a file that only its owner may read."""
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(f"quoin:{secrets.token_urlsafe(24)}")
    except FileExistsError:
        path.chmod(0o600)
    return path.read_text(encoding="ascii").strip()


def server_environment(port: int, home: Path, auth: str) -> dict[str, str]:
    """Environment of the server: its own folder, its auth string, the pages that may call it, no telemetry."""
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://{LOOPBACK}:{port}/api",
        AUTH_VARIABLE: auth,
        "PREFECT_SERVER_API_AUTH_STRING": auth,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}:{port}" for name in LOOPBACK_NAMES),
        "PREFECT_SERVER_UI_API_URL": f"http://{LOOPBACK}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
    }


def serve(host: str, port: int, names: Sequence[str]) -> None:
    """Serve Prefect's API and UI in this process, to requests whose Host is one of ``names``."""
    import uvicorn
    from prefect.server.api.server import create_app
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # around the app and not in it: the server's own services call it under a name of theirs
    app = TrustedHostMiddleware(create_app(final=True), allowed_hosts=list(names))
    uvicorn.run(app, host=host, port=port, log_level="warning")


def _check_port(port: int, api_url: str, host: str) -> None:
    """QuoinError where the port is taken: two servers would share a database, and the second would crash."""
    if not 0 < port < 1 << 16:
        raise QuoinError("Invalid port", where=port, hint="choose one between 1024 and 65535")
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        if is_responding(api_url):
            hint = f"use it (export PREFECT_API_URL={api_url}), or start another with --port"
            raise QuoinError("A Prefect server already runs on this port", where=f"{host}:{port}", hint=hint) from None
        why = os.strerror(error.errno or 0)
        raise QuoinError(
            f"Cannot listen on this port: {why}", where=f"{host}:{port}", hint="choose another --port"
        ) from None


def install_automations(api_url: str, auth: str) -> None:
    """Install missing automations that mark lost runs as crashed (cluster/deploy/automation.yaml)."""
    automations = yaml.safe_load((resources.files("quoin.cluster") / "deploy" / "automation.yaml").read_text("utf-8"))
    existing = {automation["name"] for automation in _post(f"{api_url}/automations/filter", {}, auth)}
    for automation in automations:
        if automation["name"] not in existing:
            _post(f"{api_url}/automations/", automation, auth)


def auth_header(auth: str | None) -> dict[str, str]:
    """The HTTP header of basic authentication; empty without an auth string."""
    return {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"} if auth else {}


def _post(url: str, values: dict[str, Any], auth: str) -> Any:
    headers = {"Content-Type": "application/json", **auth_header(auth)}
    with urlopen(Request(url, json.dumps(values).encode(), headers), timeout=60.0) as reply:  # noqa: S310  (ours)
        return json.load(reply)


def is_responding(api_url: str) -> bool:
    """Whether a Prefect server responds at ``api_url`` within HEALTH_TIMEOUT_SECONDS."""
    return _http_status(f"{api_url.rstrip('/')}/health", {}) == 200


def _http_status(url: str, headers: dict[str, str]) -> int | None:
    """Status of a GET; None where nothing answers."""
    try:
        with urlopen(Request(url, headers=headers), timeout=HEALTH_TIMEOUT_SECONDS) as reply:  # noqa: S310  (the user's own)
            return getattr(reply, "status", None)  # None of a URL that is not HTTP
    except HTTPError as error:
        return error.code
    except (OSError, ValueError, HTTPException):
        return None


def check_prefect_server(api_url: str, hint: str) -> None:
    """QuoinError where no Prefect server responds at ``api_url``, or where it does not accept our auth string."""
    if not is_responding(api_url):
        raise QuoinError("No Prefect server responds", where=api_url, hint=hint)
    auth = os.environ.get(AUTH_VARIABLE)
    if not auth:
        from prefect.settings import get_current_settings  # a profile may hold it

        secret = get_current_settings().api.auth_string
        auth = secret.get_secret_value() if secret else None
    if _http_status(f"{api_url.rstrip('/')}/admin/version", auth_header(auth)) == 401:
        what = "is not the one that it asks for" if auth else "is not set"
        raise QuoinError(
            f"The Prefect server asks for its auth string, and {AUTH_VARIABLE} {what}",
            where=api_url,
            hint="type the export line that quoin ui prints, or ask whoever runs the server",
        )


def prefect_api_url(hint: str = "start one with quoin ui, and type the export line that it prints") -> str:
    """The address of Prefect's API, from PREFECT_API_URL or a profile; QuoinError where it cannot be used."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        from prefect.settings import PREFECT_API_URL  # a profile may name it

        url = PREFECT_API_URL.value()
    if not url:
        raise QuoinError("No Prefect server is named", where="PREFECT_API_URL", hint=hint)
    check_prefect_server(url, hint)
    return url
