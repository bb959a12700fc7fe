"""``quoin ui``: a Prefect server on loopback to watch runs in the browser."""

from __future__ import annotations

import os
import sys
from http.client import HTTPException
from pathlib import Path
from typing import NoReturn
from urllib.request import urlopen

from pipeline.errors import QuoinError
from pipeline.node import home_folder

HOST = "127.0.0.1"
ANSWER_SECONDS = 2.0


def server_environment(port: int, home: Path) -> dict[str, str]:
    """What the server needs: its own folder, no telemetry, and the UI told where the API is."""
    return {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def serve(port: int) -> NoReturn:
    """Become the server; Ctrl-C stops it."""
    home = home_folder() / "prefect"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise QuoinError(f"Cannot make a folder: {error.strerror}", where=home, do="set QUOIN_HOME") from error
    print(
        f"The Prefect UI will be at      http://{HOST}:{port}   (Ctrl-C stops it)\n"
        f"In another terminal, type      export PREFECT_API_URL=http://{HOST}:{port}/api\n"
        "and start quoin reconstruct there: it shows itself in the UI.",
        flush=True,
    )
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    os.execve(sys.executable, command, os.environ | server_environment(port, home))  # noqa: S606


def answers(api_url: str) -> bool:
    """Whether a Prefect server answers at ``api_url`` within a moment."""
    try:
        with urlopen(f"{api_url.rstrip('/')}/health", timeout=ANSWER_SECONDS) as reply:  # noqa: S310  (the user's own)
            return bool(reply.status == 200)
    except (OSError, ValueError, HTTPException):
        return False
