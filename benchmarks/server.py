"""A Prefect server of a benchmark's own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import REPOSITORY


@contextmanager
def serve_prefect(home: Path) -> Iterator[str]:
    """``quoin ui`` of this checkout, which keeps its things in ``home``: its address, and PREFECT_API_URL is set.

    What it prints is in ``home``/ui.log.
    """
    from quoin.flows.prefect.server import AUTH_VARIABLE, is_responding

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    env = os.environ | {"QUOIN_HOME": str(home)}
    command = [sys.executable, "-m", "quoin.flows.cli.app", "ui", "--port", str(port)]
    home.mkdir(parents=True, exist_ok=True)
    with open(home / "ui.log", "wb") as log:
        server = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=log, stderr=log)
    try:
        while not is_responding(url):
            if server.poll() is not None:
                raise RuntimeError(f"quoin ui has ended, see {log.name}")
            time.sleep(0.5)
        os.environ |= {"PREFECT_API_URL": url, AUTH_VARIABLE: (home / "prefect" / "auth-string").read_text()}
        yield url
    finally:
        for name in ("PREFECT_API_URL", AUTH_VARIABLE):
            os.environ.pop(name, None)
        server.terminate()
        server.wait()
